@tool
class_name NpcTalkDock
extends VBoxContainer
## Talks to the selected character without running the game. The daemon is started with the first
## line, and ends when the plugin is disabled or the editor closed.

var host: NpcHost
var _title := Label.new()
var _log := RichTextLabel.new()
var _line := LineEdit.new()
var _forget := Button.new()
var _subject: NpcCharacter
var _stand_in: NpcCharacter


func _ready() -> void:
	_title.text = "Select an NpcCharacter."
	_title.autowrap_mode = TextServer.AUTOWRAP_WORD_SMART
	_log.size_flags_vertical = Control.SIZE_EXPAND_FILL
	_log.custom_minimum_size.y = 120.0
	_log.scroll_following = true
	_log.selection_enabled = true
	_line.placeholder_text = "Say something…"
	_line.editable = false
	_line.text_submitted.connect(say)
	_forget.text = "Begin anew"
	_forget.tooltip_text = "Forgets this talk, and reads the persona again."
	_forget.pressed.connect(begin_anew)
	for control: Control in [_title, _log, _line, _forget]:
		add_child(control)


## Whose voice answers from now on.
func talk_to(character: NpcCharacter) -> void:
	if character == _subject:
		return
	_subject = character
	begin_anew()


## Forgets what was said.
func begin_anew() -> void:
	_log.clear()
	if is_instance_valid(_stand_in):
		_stand_in.queue_free()
	_stand_in = null
	_line.editable = is_instance_valid(_subject)
	_title.text = "Talking to %s" % _subject.name if _line.editable else "Select an NpcCharacter."


## Says a line to the selected character and gives its reply, which is also shown.
func say(text: String) -> NpcReply:
	if not is_instance_valid(_subject) or text.strip_edges() == "":
		return null
	_line.clear()
	_write("You", text, Color(0.6, 0.75, 1.0))
	if host == null:
		host = NpcHost.new()
		host.is_for_editor = true
		add_child(host)
		host.start()
	if _stand_in == null:
		await _take_the_stage()
	_write(_name(), "", Color(1.0, 0.85, 0.55))
	var speaker := _stand_in
	var reply := await speaker.say(text)
	if reply.ok and is_instance_valid(speaker):
		_log.append_text(" [i][%s][/i]" % ", ".join([reply.mood, reply.action]).trim_suffix(", "))
	return reply


## A character of our own stands in for the selected one, so that the scene is left alone.
func _take_the_stage() -> void:
	_stand_in = NpcCharacter.new()
	_stand_in.npc_id = "dock"
	_stand_in.persona = _subject.persona
	_stand_in.persona_file = _subject.persona_file
	_stand_in.random_seed = _subject.random_seed
	_stand_in.text_delta.connect(_log.add_text)
	_stand_in.failed.connect(_on_failed)
	add_child(_stand_in)
	if host.cast.is_alive("dock"):
		await _stand_in.drop()
	_stand_in.spawned.connect(_on_spawned)
	await _stand_in.spawn()


func _on_spawned(opening: String, _mood: String) -> void:
	if opening != "":
		_write(_name(), opening, Color(1.0, 0.85, 0.55))


func _name() -> String:
	var persona := _stand_in.persona
	return persona.name if persona != null and persona.name != "" else String(_subject.name)


func _write(who: String, text: String, color: Color) -> void:
	if _log.get_parsed_text() != "":
		_log.newline()
	_log.push_color(color)
	_log.add_text(who + ": ")
	_log.pop()
	_log.add_text(text)


func _on_failed(code: String, sentence: String) -> void:
	_write(code, sentence, Color(1.0, 0.5, 0.4))
	_log.newline()
