@tool
extends EditorPlugin
## Registers the autoload, the settings, the preview of personas and the dock; takes all of them
## away again.

const _HOST := "res://addons/npc_runtime/npc_host.gd"

var _dock: NpcTalkDock
var _inspector: EditorInspectorPlugin


func _enable_plugin() -> void:
	add_autoload_singleton(NpcHost.AUTOLOAD, _HOST)


func _disable_plugin() -> void:
	remove_autoload_singleton(NpcHost.AUTOLOAD)
	NpcSettings.unregister()  # the editor saves the project after this


func _enter_tree() -> void:
	NpcSettings.register()
	_inspector = NpcPersonaInspector.new()
	add_inspector_plugin(_inspector)
	_dock = NpcTalkDock.new()
	_dock.name = "Npc"
	add_control_to_dock(DOCK_SLOT_RIGHT_BL, _dock)
	EditorInterface.get_selection().selection_changed.connect(_on_selection_changed)


func _exit_tree() -> void:
	EditorInterface.get_selection().selection_changed.disconnect(_on_selection_changed)
	remove_inspector_plugin(_inspector)
	_inspector = null
	if EditorInterface.get_inspector().get_edited_object() is NpcPersona:
		EditorInterface.inspect_object(null)  # a preview on show would outlive the plugin
	remove_control_from_docks(_dock)
	_dock.queue_free()
	_dock = null


func _on_selection_changed() -> void:
	for node: Node in EditorInterface.get_selection().get_selected_nodes():
		var found := node as NpcCharacter
		if found == null and node.has_node("NpcCharacter"):
			found = node.get_node("NpcCharacter") as NpcCharacter
		if found != null:
			_dock.talk_to(found)
			return
