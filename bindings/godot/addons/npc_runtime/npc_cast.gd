@tool
class_name NpcCast
extends RefCounted
## The characters that live in the daemon, and the State of each as it was last known, so that a
## daemon that died can be given back what it held.


## One living character.
class Entry:
	extends RefCounted
	## What it was spawned from: a table or a name; null when it came from a save.
	var persona: Variant
	## The seed that the daemon gave it.
	var random_seed := -1
	## The last snapshot; empty while nothing has happened since it was spawned.
	var state := PackedByteArray()
	## The node that speaks for it, if any.
	var node: WeakRef


var _entries: Dictionary[String, Entry] = {}
var _stale: Dictionary[String, bool] = {}


## The ids of all living characters.
func ids() -> PackedStringArray:
	return PackedStringArray(_entries.keys())


## Whether a character lives under an id.
func is_alive(id: String) -> bool:
	return _entries.has(id)


## The node that speaks for a character; null when there is none.
func node_of(id: String) -> Node:
	var entry: Entry = _entries.get(id)
	return entry.node.get_ref() as Node if entry != null and entry.node != null else null


## Says which node speaks for a character.
func set_node(id: String, node: Node) -> void:
	if _entries.has(id):
		_entries[id].node = weakref(node)


## Takes note of what a request that succeeded has changed.
func note(request: NpcRequest) -> void:
	var message := request.message
	var id := str(message.get("npc", ""))
	match str(message["op"]):
		"spawn":
			var entry := _entry(id)
			entry.persona = message["persona"]
			entry.random_seed = request.body.get("seed", -1)
			entry.state = PackedByteArray()
		"restore":
			_entry(id).state = message["data"]
			_stale.erase(id)
		"say", "choose", "rewind":
			_touch(id)
		"observe":
			for heard: String in request.body.get("npcs", []):
				_touch(heard)
		"load":
			for info: Dictionary in request.body.get("npcs", []):
				_entry(str(info.get("npc")))
				_touch(str(info.get("npc")))
		"fork":
			_fork(id, str(message["to"]))
		"drop":
			_entries.erase(id)
			_stale.erase(id)
		"snapshot":
			if _entries.has(id):
				_entries[id].state = request.body.get("data", PackedByteArray())


## An id whose State has changed since its last snapshot, which is then no longer counted as such;
## empty when there is none.
func take_stale() -> String:
	for id: String in _stale:
		_stale.erase(id)
		return id
	return ""


## Counts a State as changed, because its snapshot failed.
func still_stale(id: String) -> void:
	_touch(id)


## The message that brings a character back to life: its last State, else its persona anew.
func revival(id: String) -> Dictionary:
	var entry := _entries[id]
	if not entry.state.is_empty():
		return {"op": "restore", "npc": id, "data": entry.state, "replace": true, "rebuild": true}
	if entry.persona == null:
		return {}
	var message := {"op": "spawn", "npc": id, "persona": entry.persona, "replace": true}
	if entry.random_seed >= 0:
		message["seed"] = entry.random_seed
	return message


## Forgets a character that could not be brought back.
func lose(id: String) -> void:
	_entries.erase(id)
	_stale.erase(id)


func _entry(id: String) -> Entry:
	if not _entries.has(id):
		_entries[id] = Entry.new()
	return _entries[id]


func _touch(id: String) -> void:
	if _entries.has(id):
		_stale[id] = true


func _fork(id: String, to: String) -> void:
	var source := _entry(id)
	var twin := _entry(to)
	twin.persona = source.persona
	twin.random_seed = source.random_seed
	twin.state = source.state
	_touch(to)
