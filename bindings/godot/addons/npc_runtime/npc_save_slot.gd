@tool
class_name NpcSaveSlot
extends RefCounted
## Every character's mind, to and from a game's save: as bytes inside your own file, or as an
## `.npcsave` file beside it.
##
## [codeblock]
## my_save["npcs"] = await NpcSaveSlot.capture()
## ...
## var error := await NpcSaveSlot.apply(my_save["npcs"])
## [/codeblock]

const FORMAT := "npc-save-slot"
const VERSION := 1


## The minds of all living characters, or of those named, as bytes; empty when that failed. A
## character that is speaking is taken as it was before it began.
static func capture(ids: PackedStringArray = []) -> PackedByteArray:
	var host := NpcHost.current
	if host == null:
		return PackedByteArray()
	var asked: Array[NpcRequest] = []
	for id: String in host.cast.ids() if ids.is_empty() else ids:
		asked.append(host.request("snapshot", {"npc": id}))
	var minds := {}
	for one: NpcRequest in asked:
		if (await one.done()).error != null:
			push_warning("npc-runtime: the slot was not saved: %s" % one.error)
			return PackedByteArray()
		minds[one.message["npc"]] = one.body["data"]
	return NpcMsgpack.pack({"format": FORMAT, "version": VERSION, "npcs": minds})


## Gives every character of the bytes its mind back: every one or none. What they are saying is cut;
## characters that the bytes do not know stay as they are. Gives the error, or null.
## [param rebuild]: read the stored turns anew when another character model made the save.
static func apply(data: PackedByteArray, rebuild := false) -> NpcError:
	var host := NpcHost.current
	if host == null:
		return NpcError.new("no_runtime", "there is no node NpcRuntime")
	var minds := _minds(data)
	if minds.is_empty():
		return NpcError.new("bad_save", "%d bytes that `capture` did not make" % data.size())
	var before := {}
	for id: String in minds:
		if host.cast.is_alive(id):
			await _cut(host, id)
			var asked := await host.request("snapshot", {"npc": id}).done()
			if asked.error != null:
				return asked.error
			before[id] = asked.body["data"]
	var changed := PackedStringArray()
	for id: String in minds:
		var error := await _restore(host, id, minds[id], rebuild)
		if error != null:
			await _undo(host, changed, before)
			return error
		changed.append(id)
	return null


## Writes all living characters, or those named, to a file: the older one stays whole until the new
## one is. Gives the error, or null.
static func save_file(path: String, ids: PackedStringArray = []) -> NpcError:
	return await _file("save", path, {} if ids.is_empty() else {"npcs": ids})


## Reads the characters of a file: every one or none. Gives the error, or null.
static func load_file(path: String, rebuild := false) -> NpcError:
	var host := NpcHost.current
	if host != null:
		for id: String in host.cast.ids():
			await _cut(host, id)
	return await _file("load", path, {"replace": true, "rebuild": rebuild})


static func _file(op: String, path: String, fields: Dictionary) -> NpcError:
	var host := NpcHost.current
	if host == null:
		return NpcError.new("no_runtime", "there is no node NpcRuntime")
	var relative: bool = host.card.get("relative_paths", false)
	fields["path"] = path.get_file() if relative else ProjectSettings.globalize_path(path)
	var asked := await host.request_at_rest(op, fields)
	return asked.error if asked != null else NpcError.new("cancelled", "the game has left")


static func _minds(data: PackedByteArray) -> Dictionary:
	var map := NpcMsgpack.unpack_map(data)
	var npcs: Variant = map.get("npcs")
	if map.get("format") != FORMAT or map.get("version") != VERSION or not npcs is Dictionary:
		return {}
	var minds: Dictionary = npcs
	for mind: Variant in minds.values():
		if not mind is PackedByteArray:
			return {}
	return minds


static func _restore(host: NpcHost, id: String, mind: PackedByteArray, rebuild: bool) -> NpcError:
	var fields := {"npc": id, "data": mind, "replace": true, "rebuild": rebuild}
	var asked := await host.request_at_rest("restore", fields)
	return asked.error if asked != null else NpcError.new("cancelled", "the game has left")


static func _undo(host: NpcHost, changed: PackedStringArray, before: Dictionary) -> void:
	for id: String in changed:
		if before.has(id):
			await _restore(host, id, before[id], false)
		else:
			await host.request("drop", {"npc": id}).done()


## Cuts what a character is saying; what of it the player saw is remembered.
static func _cut(host: NpcHost, id: String) -> void:
	var node := host.cast.node_of(id) as NpcCharacter
	if node != null and node.is_speaking:
		await node.cancel()
