@tool
extends EditorPlugin
## Enables the addon in a real editor, uses what it adds, disables it, sees that nothing is left.
## The test copies this folder into the project's addons; the editor's exit status tells the result.

var _failures := 0
var _checks := 0


func _enter_tree() -> void:
	if DisplayServer.get_name() == "headless" and not "--import" in OS.get_cmdline_args():
		_run.call_deferred()


func _run() -> void:
	OS.low_processor_usage_mode_sleep_usec = 500
	await _frames(30)
	ProjectSettings.save()  # so that the editor's own order of lines is no difference
	var before := FileAccess.get_file_as_string("res://project.godot")
	var nodes := _names(EditorInterface.get_base_control())
	for round: int in 2:
		await _enabled_round()
		await _frames(10)
		var left := _names(EditorInterface.get_base_control())
		_check(left == nodes, "nodes: %s, before: %s" % [left, nodes])
		ProjectSettings.save()  # as the dialog does
		var after := FileAccess.get_file_as_string("res://project.godot")
		_check(after == before, after)
		for property: Dictionary in ProjectSettings.get_property_list():
			_check(not String(property["name"]).begins_with("npc_runtime/"), property["name"])
		_check(not ProjectSettings.has_setting("autoload/NpcRuntime"), "the autoload is gone")
		_check(NpcHost.current == null, "a host is left")
	print("editor check: %d checks, %d failed" % [_checks, _failures])
	get_tree().quit(mini(_failures, 1) if _checks > 20 else 2)


func _enabled_round() -> void:
	EditorInterface.set_plugin_enabled("npc_runtime", true)
	await _frames(10)
	_check(ProjectSettings.has_setting("autoload/NpcRuntime"), "the autoload")
	_check(ProjectSettings.has_setting("npc_runtime/daemon/autostart"), "the settings")
	var dock: NpcTalkDock = _find(EditorInterface.get_base_control(), NpcTalkDock)
	_check(dock != null, "the dock")
	await _look_at_a_persona()
	var pid := await _talk(dock)
	EditorInterface.set_plugin_enabled("npc_runtime", false)
	await _frames(10)
	_check(not is_instance_valid(dock), "the dock is gone")
	_check(pid > 0 and not DirAccess.dir_exists_absolute("/proc/%d" % pid), "the daemon is gone")


func _look_at_a_persona() -> void:
	var persona := NpcPersona.new()
	persona.name = "Perrin"
	EditorInterface.edit_resource(persona)
	await _frames(10)
	var preview: NpcPersonaPreview = _find(EditorInterface.get_base_control(), NpcPersonaPreview)
	_check(preview != null, "the preview")
	if preview == null:
		return
	_check("`role` is missing" in preview._verdict.text, "the mistake: " + preview._verdict.text)
	persona.role = "ferryman"
	EditorInterface.get_inspector().property_edited.emit("role")
	_check(preview._verdict.text == "This persona is good.", "the verdict")
	_check("role: ferryman" in preview._text.text, "the preview's text")
	var folder := OS.get_environment("NPC_TEST_FILES").path_join("personas")
	_check(preview.load_file(folder.path_join("marta.toml")) == "", "loading a file")
	_check(persona.name == "Marta Thwaite" and persona.samples.size() == 4, "the loaded fields")
	_check(preview.load_file(folder.path_join("README.md")) != "", "a file that is none")
	EditorInterface.edit_resource(null)


func _talk(dock: NpcTalkDock) -> int:
	var scene := Node2D.new()
	var character := NpcCharacter.new()
	scene.add_child(character)
	_check(character._get_configuration_warnings().size() == 1, "a character without a persona")
	character.persona = NpcPersona.new()
	_check(character._get_configuration_warnings().size() == 2, "a persona without name and role")
	character.persona.name = "Perrin"
	character.persona.role = "ferryman"
	character.persona.opening = "Three pennies."
	_check(character._get_configuration_warnings().is_empty(), "a good one")
	dock.talk_to(character)
	var reply := await dock.say("What is the fare?")
	_check(reply != null and reply.ok, "the dock's reply")
	var first_turn := reply.turn
	var shown := dock._log.get_parsed_text()
	_check("You: What is the fare?" in shown and "Perrin: Three pennies." in shown, shown)
	_check(reply != null and reply.text in shown, shown)
	dock.begin_anew()
	reply = await dock.say("And back?")
	_check(
		reply != null and reply.ok and reply.turn == first_turn,
		"begun anew: %s %s" % [reply.turn, dock._log.get_parsed_text()]
	)
	scene.free()
	dock.begin_anew()
	return dock.host.daemon_pid


func _check(holds: bool, what: String) -> void:
	_checks += 1
	if not holds:
		_failures += 1
		print("FAIL ", what)


func _frames(count: int) -> void:
	for i: int in count:
		await get_tree().process_frame


func _find(node: Node, type: Script) -> Node:
	if node.get_script() == type:
		return node
	for child: Node in node.get_children(true):
		var found := _find(child, type)
		if found != null:
			return found
	return null


## The classes of all nodes that have a script: what a plugin could leave behind.
func _names(node: Node) -> PackedStringArray:
	var found := PackedStringArray()
	if node.get_script() != null:
		found.append((node.get_script() as Script).resource_path)
	for child: Node in node.get_children(true):
		found.append_array(_names(child))
	return found
