extends SceneTree
## Plays script.json through the Godot addon; the players in other languages must come to the same.
## Environment: NPC_ENDPOINT, NPC_KEY, NPC_SCRIPT (the file), NPC_TOLD (where to write).

const OPTIONS: Array[String] = [
	"kind", "moods", "actions", "pace", "seed", "temperature", "max_tokens"
]
const REPLY: Array[String] = ["npc", "mood", "action", "text", "finish", "turn", "seed"]
const INFO: Array[String] = ["npc", "turns", "tokens", "rewind", "seed"]
const WHOLE: Array[String] = ["seed", "max_tokens", "turns", "cut"]

var _host: NpcHost


func _initialize() -> void:
	_host = NpcHost.new()
	_host.endpoint = OS.get_environment("NPC_ENDPOINT")
	_host.key = OS.get_environment("NPC_KEY")
	_host.session = "script-gdscript"
	_host.hold_states = false
	root.add_child(_host)
	_play.call_deferred()


func _play() -> void:
	var script: Dictionary = JSON.parse_string(
		FileAccess.get_file_as_string(OS.get_environment("NPC_SCRIPT"))
	)
	var told: Array[Dictionary] = []
	for step: Dictionary in script["steps"]:
		for name: String in WHOLE:
			if step.has(name):
				step[name] = int(step[name])  # JSON knows floats alone
		told.append(await _step(step))
	var out := FileAccess.open(OS.get_environment("NPC_TOLD"), FileAccess.WRITE)
	out.store_string(JSON.stringify(told, "", false, true))
	out.close()
	_host.stop()
	quit(0)


func _step(step: Dictionary) -> Dictionary:
	var op: String = step["op"]
	var asked: NpcRequest
	var told := {}
	match op:
		"say", "stream":
			return await _say(step)
		"spawn":
			asked = await _ask(op, step, ["npc", "persona", "seed"])
			var opening: Variant = asked.body.get("opening")
			told["opening"] = opening["text"] if opening != null else null
			told["seed"] = asked.body.get("seed")
		"observe":
			asked = await _ask(op, step, ["npcs", "text"])
			told["npcs"] = asked.body.get("npcs")
			told["read"] = asked.body.get("tokens", {}).get("read")
		"choose":
			asked = await _ask(op, step, ["npc", "lines", "text"])
			told = _some(asked.body, ["index", "scores"])
		"snapshot":
			asked = await _ask(op, step, ["npc"])
			told = {"sha256": _hash(asked.body.get("data")), "npc": step["npc"]}
		"return":
			var state := await _ask("snapshot", step, ["npc"])
			var back := {"npc": step["to"], "data": state.body.get("data")}
			asked = await _host.request("restore", back).done()
			told = _some(asked.body, INFO)
		"drop":
			asked = await _ask(op, step, ["npc"])
			told = {"npc": step["npc"], "dropped": true}
		_:
			asked = await _ask(op, step, ["npc", "to", "turns"])
			told = _some(asked.body, INFO)
	return told if asked.error == null else {"error": asked.error.code}


func _ask(op: String, step: Dictionary, names: Array) -> NpcRequest:
	return await _host.request(op, _some(step, names)).done()


func _say(step: Dictionary) -> Dictionary:
	var fields := {"pace": 0.0, "stream": step["op"] == "stream"}
	fields.merge(_some(step, ["npc", "text"] + OPTIONS), true)
	var asked := _host.request("say", fields)
	var heard := {"text": "", "cut": step.get("cut", 1 << 30)}
	asked.piece.connect(_on_piece.bind(step["npc"], heard))
	await asked.done()
	if asked.error != null:
		return {"error": asked.error.code}
	var told := _some(asked.body, REPLY)
	told["read"] = asked.body["tokens"]["read"]
	told["spoken"] = asked.body["tokens"]["spoken"]
	if step["op"] == "stream":
		told["whole"] = String(heard["text"]).begins_with(told["text"])
	return told


func _on_piece(ev: String, body: Dictionary, npc: String, heard: Dictionary) -> void:
	if ev == "delta":
		heard["text"] += body["text"]
	if String(heard["text"]).length() >= heard["cut"]:
		_host.request("cancel", {"npc": npc, "heard": heard["cut"]})
		heard["cut"] = 1 << 30


func _some(body: Dictionary, names: Array) -> Dictionary:
	var some := {}
	for name: String in names:
		if body.has(name):
			some[name] = body[name]
	return some


func _hash(data: Variant) -> String:
	var hashing := HashingContext.new()
	hashing.start(HashingContext.HASH_SHA256)
	hashing.update(data if data != null else PackedByteArray([0]))
	return hashing.finish().hex_encode()
