@tool
class_name NpcCharacter
extends Node
## A character that talks and remembers. Put it below the body (a Node2D, Node3D or Control) that
## the player sees, give it a [NpcPersona], and call [method say].
##
## [codeblock]
## var reply := await $Marta/NpcCharacter.say("Do you have any swords?")
## print(reply.mood, ": ", reply.text)
## [/codeblock]

## It is alive and can be spoken to. [param opening] is its first line, said before the player
## speaks; empty when the persona has none.
signal spawned(opening: String, mood: String)
## A reply begins: clear the speech bubble.
signal reply_started
## The mood of the reply that begins.
signal mood_changed(mood: String)
## The reply asks for something to happen: open the shop, hand something over, follow.
signal action_requested(action: String)
## A piece of speech, as it is made.
signal text_delta(text: String)
## The whole reply; [member NpcReply.ok] is false when a fallback line took its place.
signal reply_finished(reply: NpcReply)
## Something went wrong: a stable code (see [NpcError]) and a sentence for people.
signal failed(code: String, sentence: String)

const GROUP := &"npc_characters"

## Who it is. Edit it here, or load one from a TOML file with the button in the inspector.
@export var persona: NpcPersona:
	set(value):
		persona = value
		update_configuration_warnings()
## Instead of [member persona]: a TOML file of the project, or the name of a persona that ships with
## npc-runtime (`marta`).
@export var persona_file := "":
	set(value):
		persona_file = value
		update_configuration_warnings()
## Name under which it is remembered, also in saves; must be unique. Empty: its path in the tree.
@export var npc_id := ""
## Whether it is spawned when it enters the tree.
@export var auto_spawn := true
## Makes its replies repeatable; -1 draws a seed.
@export var random_seed := -1
## Whether one of the persona's fallback lines is spoken when no reply can be had.
@export var speak_fallbacks := true
## Whether it is forgotten when this node is freed. Off: it remembers when the scene comes again.
@export var forget_when_freed := false
## Tokens a second at which speech is let out; -1 as the daemon does, 0 as fast as it is made.
@export_range(-1, 200) var pace := -1.0
## How well it hears: the reach of a sound is multiplied by this. See [NpcPerception].
@export_range(0, 10) var hearing := 1.0

## Mood of the last reply.
var mood := "neutral"
## Whether a reply is under way.
var is_speaking: bool:
	get:
		return not _open.is_empty()

var _open: Array[NpcRequest] = []
var _spawning: NpcRequest
var _shown := 0
var _fallback_at := 0
var _path_id := ""


func _enter_tree() -> void:
	_path_id = String(get_path()).trim_prefix("/root/").right(128)
	add_to_group(GROUP)


func _ready() -> void:
	if auto_spawn and not Engine.is_editor_hint():
		spawn()


func _notification(what: int) -> void:
	if what == NOTIFICATION_PREDELETE and not Engine.is_editor_hint():
		_leave()


func _get_configuration_warnings() -> PackedStringArray:
	var found := PackedStringArray()
	if persona == null and persona_file == "":
		found.append("Give this character a persona, or the name of one.")
	if persona != null:
		found.append_array(persona.problems())
	return found


## The id under which it lives.
func id() -> String:
	return npc_id if npc_id != "" else _path_id


## Whether it lives in the daemon.
func is_alive() -> bool:
	return NpcHost.current != null and NpcHost.current.cast.is_alive(id())


## Brings it to life; a character that lives already under its id is taken up again with all that it
## remembers. Called by itself when [member auto_spawn] is on.
func spawn() -> bool:
	var error := await _spawn()
	if error != null:
		_fail(error)
	return error == null


## Says a line to it and gives its reply, while the signals tell it piece by piece. Further fields
## of the protocol's `say` may stand in [param options]: `kind`, `moods`, `actions`, `lane`,
## `deadline_ms`, `seed`, `temperature`, `top_p`, `repetition`, `max_tokens`.
func say(text: String, options := {}) -> NpcReply:
	var fields := {"text": text}
	if pace >= 0.0:
		fields["pace"] = pace
	fields.merge(options, true)
	return await _speak("say", fields)


## Lets it react to an event as it would to a line.
func react(event: String, options := {}) -> NpcReply:
	var fields := {"kind": "event"}
	fields.merge(options, true)
	return await say(event, fields)


## Lets it answer with the one of the given lines that suits it best, and remember that as said.
func choose(lines: PackedStringArray, text := "") -> NpcReply:
	return await _speak("choose", {"lines": lines, "text": text})


## Lets it perceive an event without answering.
func observe(event: String) -> bool:
	return (await _ask("observe", {"npcs": [id()], "text": event})) != null


## Cuts what it is saying; it remembers its line up to what was heard. [param heard]: characters
## that the player saw; -1 for all that [signal text_delta] gave.
func cancel(heard := -1) -> bool:
	var seen := _shown if heard < 0 else heard
	return (await _ask("cancel", {"npc": id(), "heard": seen})) != null


## Takes back its last turns.
func rewind(turns := 1) -> bool:
	return (await _ask("rewind", {"npc": id(), "turns": turns})) != null


## Its mind as bytes; empty when that failed.
func snapshot() -> PackedByteArray:
	var body: Variant = await _ask("snapshot", {"npc": id()})
	return body["data"] if body != null else PackedByteArray()


## Gives it the mind of a snapshot. [param rebuild]: read the stored turns anew when another
## character model made it.
func restore(data: PackedByteArray, rebuild := false) -> bool:
	var fields := {"npc": id(), "data": data, "replace": true, "rebuild": rebuild}
	var done := (await _ask("restore", fields, false)) != null
	if done:
		NpcHost.current.cast.set_node(id(), self)
	return done


## A second character with the same memories, free to differ from now on; null when that failed. Add
## the node to the tree yourself.
func fork(new_id: String) -> NpcCharacter:
	if await _ask("fork", {"npc": id(), "to": new_id}) == null:
		return null
	var twin := NpcCharacter.new()
	twin.npc_id = new_id
	for property: String in [
		"persona", "persona_file", "speak_fallbacks", "pace", "hearing", "mood"
	]:
		twin.set(property, get(property))
	return twin


## Forgets it: it lives no longer, and a new [method spawn] begins anew.
func drop() -> bool:
	return (await _ask("drop", {"npc": id()})) != null


func _spawn() -> NpcError:
	var host := NpcHost.current
	if host == null:
		return NpcError.new("no_runtime", "there is no node NpcRuntime")
	if _spawning != null:
		return (await _spawning.done()).error
	if host.cast.is_alive(id()):
		return _take_up(host)
	var source: Variant = _persona_source()
	if source is NpcError:
		return source
	var fields := {"npc": id(), "persona": source}
	if random_seed >= 0:
		fields["seed"] = random_seed
	_spawning = host.request("spawn", fields)
	var asked := await _spawning.done()
	_spawning = null
	if asked.error == null:
		host.cast.set_node(id(), self)
		var opening: Variant = asked.body.get("opening")
		var line: Dictionary = opening if opening is Dictionary else {}
		mood = str(line.get("mood", "neutral"))
		spawned.emit(str(line.get("text", "")), mood)
	return asked.error


func _take_up(host: NpcHost) -> NpcError:
	var other := host.cast.node_of(id())
	if other != null and other != self and other.is_inside_tree():
		return NpcError.new("npc_exists", "`%s` is spoken for by %s" % [id(), other.get_path()])
	host.cast.set_node(id(), self)
	spawned.emit("", mood)
	return null


## What `spawn` is told: a table, a name, or an NpcError.
func _persona_source() -> Variant:
	var who := persona
	if who == null and persona_file.ends_with(".toml"):
		who = NpcPersona.load_toml(persona_file)
		if who == null:
			return NpcError.new("bad_persona", NpcPersona.last_problem)
		persona = who
	if who == null:
		if persona_file == "":
			return NpcError.new("bad_persona", "`%s` has no persona" % name)
		return persona_file
	var wrong := who.problems()
	return who.to_table() if wrong.is_empty() else NpcError.new("bad_persona", wrong[0])


## Sends a request about a living character; null when it failed, which was then told.
func _ask(op: String, fields: Dictionary, alive := true) -> Variant:
	var error := await _come_alive() if alive else null
	if error == null:
		var asked := await NpcHost.current.request_at_rest(op, fields)
		if asked != null and asked.error == null:
			return asked.body
		error = asked.error if asked != null else NpcError.new("cancelled", "the node has left")
	_fail(error)
	return null


func _speak(op: String, fields: Dictionary) -> NpcReply:
	var error := await _come_alive()
	if error != null:
		return _stand_in(error)
	fields["npc"] = id()
	var asked := NpcHost.current.request(op, fields)
	_open.append(asked)
	asked.piece.connect(_on_piece)
	await asked.done()
	_open.erase(asked)
	if asked.error != null:
		return _stand_in(asked.error)
	var reply := NpcReply.from_wire(asked.body)
	if op == "choose":
		reply.choice = asked.body.get("index", -1)
		_on_piece("mood", {"mood": reply.mood})
		_on_piece("delta", {"text": reply.text})
	reply_finished.emit(reply)
	return reply


## Gives the error when it does not live and cannot be spawned now.
func _come_alive() -> NpcError:
	if is_alive():
		return null
	if auto_spawn or _spawning != null or NpcHost.current == null:
		return await _spawn()
	return NpcError.new("not_alive", "`%s` does not live" % id())


func _on_piece(ev: String, body: Dictionary) -> void:
	if ev == "delta":  # by far the most frequent, so it comes first
		var text := str(body.get("text"))
		_shown += text.length()
		text_delta.emit(text)
	elif ev == "mood":
		_shown = 0
		mood = str(body.get("mood"))
		reply_started.emit()
		mood_changed.emit(mood)
	elif ev == "act":
		action_requested.emit(str(body.get("action")))


## Tells of a failure, and lets a fallback line stand in for the reply.
func _stand_in(error: NpcError) -> NpcReply:
	_fail(error)
	var lines := persona.fallbacks if persona != null else PackedStringArray()
	var wanted := speak_fallbacks and error.code != "cancelled" and not lines.is_empty()
	var reply := NpcReply.fallback(error, lines[_fallback_at % lines.size()] if wanted else "")
	reply.mood = mood
	if wanted:
		_fallback_at += 1
		reply_started.emit()
		text_delta.emit(reply.text)
	reply_finished.emit(reply)
	return reply


func _fail(error: NpcError) -> void:
	failed.emit(error.code, error.sentence)


## Ends what is under way when the node is freed, so that nobody waits for it in vain.
func _leave() -> void:
	var host := NpcHost.current
	var left := _open
	_open = []
	if host != null and not left.is_empty():
		host.request("cancel", {"npc": id(), "heard": _shown})
	for asked: NpcRequest in left:
		asked.fail(NpcError.new("cancelled", "the character's node was freed"))
	if host != null and forget_when_freed and host.cast.is_alive(id()):
		host.request("drop", {"npc": id()})
