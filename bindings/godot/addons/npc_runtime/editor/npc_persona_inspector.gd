@tool
class_name NpcPersonaInspector
extends EditorInspectorPlugin
## Shows above a persona's fields what is wrong with it, or how the model will read it, and fills it
## from a TOML file.


func _can_handle(object: Object) -> bool:
	return object is NpcPersona


func _parse_begin(object: Object) -> void:
	var preview := NpcPersonaPreview.new()
	preview.persona = object as NpcPersona
	add_custom_control(preview)
