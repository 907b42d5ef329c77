@tool
class_name NpcPersonaPreview
extends VBoxContainer
## A persona as the model reads it, or its mistakes; renewed while it is edited.

const _GOOD := Color(0.55, 0.8, 0.55)
const _BAD := Color(1.0, 0.5, 0.4)

var persona: NpcPersona
var _verdict := Label.new()
var _text := Label.new()


func _ready() -> void:
	_verdict.autowrap_mode = TextServer.AUTOWRAP_WORD_SMART
	_text.autowrap_mode = TextServer.AUTOWRAP_WORD_SMART
	_text.modulate.a = 0.75
	var button := Button.new()
	button.text = "Load from TOML…"
	button.pressed.connect(_choose_file)
	for control: Control in [_verdict, _text, button, HSeparator.new()]:
		add_child(control)
	EditorInterface.get_inspector().property_edited.connect(_on_edited)
	refresh()


func _exit_tree() -> void:
	var edited := EditorInterface.get_inspector().property_edited
	if edited.is_connected(_on_edited):
		edited.disconnect(_on_edited)


## Looks at the persona again.
func refresh() -> void:
	var problems := persona.problems()
	_verdict.text = "This persona is good." if problems.is_empty() else "\n".join(problems)
	_verdict.add_theme_color_override("font_color", _GOOD if problems.is_empty() else _BAD)
	_text.text = persona.preview()


## Takes over the fields of a TOML file; gives what is wrong with it, or nothing.
func load_file(path: String) -> String:
	var loaded := NpcPersona.load_toml(path)
	if loaded == null:
		_verdict.text = NpcPersona.last_problem
		_verdict.add_theme_color_override("font_color", _BAD)
		return NpcPersona.last_problem
	for property: Dictionary in loaded.get_property_list():
		var usage: int = property["usage"]
		if usage & PROPERTY_USAGE_SCRIPT_VARIABLE and usage & PROPERTY_USAGE_STORAGE:
			persona.set(property["name"], loaded.get(property["name"]))
	persona.emit_changed()
	persona.notify_property_list_changed()
	refresh()
	return ""


func _on_edited(_property: String) -> void:
	refresh()


func _choose_file() -> void:
	var dialog := EditorFileDialog.new()
	dialog.file_mode = EditorFileDialog.FILE_MODE_OPEN_FILE
	dialog.access = EditorFileDialog.ACCESS_FILESYSTEM
	dialog.add_filter("*.toml", "Persona")
	dialog.file_selected.connect(load_file)
	dialog.visibility_changed.connect(
		func() -> void:
			if not dialog.visible:
				dialog.queue_free()
	)
	add_child(dialog)
	dialog.popup_file_dialog()
