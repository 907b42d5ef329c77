extends NpcTestCase
## Bad input: each ends in `failed` with its code and a sentence, a fallback line is spoken, and the
## game runs on.

var host: NpcHost
var rogue: RogueDaemon


func before_each() -> void:
	get_tree().timeout_s = 30.0
	host = NpcHost.new()
	host._patience_ms = 3000
	rogue = RogueDaemon.new()
	add_child(rogue)


func after_each() -> void:
	host.queue_free()
	await get_tree().process_frame


func _join_rogue() -> void:
	host.endpoint = rogue.endpoint
	host.key = "any"


func test_the_program_is_missing() -> void:
	host.command = ["no-such-program-as-npc-runtime"]
	await fails_with(host, "daemon_missing")
	check_equal(host.stage, NpcHost.Stage.FAILED, "it does not try for ever")
	host.command = ["bash", "-c", "echo 'No module named npc_runtime' >&2; exit 1"]
	host.start()
	await fails_with(host, "daemon_missing")


func test_it_can_be_started_again_after_a_failure() -> void:
	host.command = ["no-such-program-as-npc-runtime"]
	await fails_with(host, "daemon_missing")
	host.command = []
	host.start()
	var perrin: NpcCharacter = get_node("Perrin")
	check((await perrin.say("And now?")).ok, "it answers")


func test_no_fallback_line_where_none_is_wanted() -> void:
	host.command = ["no-such-program-as-npc-runtime"]
	add_child(host)
	var perrin := add_character("perrin")
	perrin.speak_fallbacks = false
	var spoken := record(perrin.text_delta)
	var reply := await perrin.say("Hello?")
	check_equal([reply.ok, reply.text, spoken], [false, "", []], "the reply")


func test_the_program_dies_at_once() -> void:
	host.command = ["bash", "-c", "echo 'error: out of luck' >&2; exit 3"]
	await fails_with(host, "daemon_failed")
	check("out of luck" in host.trouble.detail, host.trouble.detail)


func test_the_program_never_gets_ready() -> void:
	host.command = ["bash", "-c", "exec sleep 60"]
	host._start_ms = 300
	await fails_with(host, "daemon_failed")


func test_the_program_says_something_else() -> void:
	host.command = ["bash", "-c", "echo hello; exec sleep 60"]
	await fails_with(host, "daemon_failed")


func test_another_version() -> void:
	var ready := '{"endpoint": "tcp://127.0.0.1:9", "key": "k", "protocol": 2}'
	host.command = ["bash", "-c", "echo '%s'; exec sleep 60" % ready]
	await fails_with(host, "protocol_version")


func test_another_version_told_by_hello() -> void:
	_join_rogue()
	rogue.hello = {"ev": "error", "code": "protocol_version", "text": "this daemon speaks 2"}
	await fails_with(host, "protocol_version")


func test_the_bundle_is_missing() -> void:
	host.bundle = "/no/such/folder"
	await fails_with(host, "bad_bundle")
	check("/no/such/folder" in host.trouble.detail, host.trouble.detail)


func test_the_port_is_taken() -> void:
	host.options = ["--port", rogue.endpoint.get_slice(":", 2)]
	await fails_with(host, "port_taken")


func test_the_key_is_wrong() -> void:
	var other := await join_host()
	await until(func() -> bool: return other.stage == NpcHost.Stage.READY)
	NpcHost.current = null
	host.endpoint = other.endpoint
	host.key = "a key that is another one's"
	await fails_with(host, "wrong_key")


func test_nobody_listens() -> void:
	host.endpoint = "tcp://127.0.0.1:9"
	host._patience_ms = 500
	await fails_with(host, "connection_lost")
	check_equal(host.stage, NpcHost.Stage.WAITING, "it keeps trying")
	host.stop()
	host.endpoint = "nonsense"
	host.start()
	await fails_with(host, "bad_config")


func test_somebody_else_listens() -> void:
	_join_rogue()
	rogue.greeting = "HTTP/1.1 400 Bad Request\r\n\r\n".to_ascii_buffer()
	await fails_with(host, "bad_frame")


func test_malformed_frames() -> void:
	for frame: PackedByteArray in [
		NpcZmtp.frame("no msgpack".to_ascii_buffer()),
		NpcZmtp.frame(NpcMsgpack.pack([1, 2, 3])),
		NpcZmtp.frame(NpcMsgpack.pack({"id": 1})),
		NpcZmtp.frame(PackedByteArray(), 8),
	]:
		host.stop()
		_join_rogue()
		rogue.answer = func(_request: Dictionary) -> Array[PackedByteArray]: return [frame]
		await fails_with(host, "bad_frame")
		get_node("Perrin").free()


func test_answers_with_fields_of_other_types() -> void:
	_join_rogue()
	rogue.answer = func(request: Dictionary) -> Array[PackedByteArray]:
		var id: int = request["id"]
		if request["op"] == "spawn":
			return [_frame({"id": id, "ev": "ok", "seed": 1, "opening": null})]
		var delta := _frame({"id": id, "ev": "delta", "text": [1]})
		var done := {"id": id, "ev": "done", "mood": 5, "text": {}, "turn": "x", "tokens": 3}
		return [delta, _frame({"id": id + 1000, "ev": "delta"}), _frame(done)]
	add_child(host)
	var perrin := add_character("perrin")
	var reply := await perrin.say("Hello?")
	check(reply.ok and reply.mood == "5" and reply.turn == 0 and reply.tokens == {}, reply.mood)


func test_the_connection_is_lost_in_the_middle_of_a_reply() -> void:
	_join_rogue()
	rogue.answer = func(request: Dictionary) -> Array[PackedByteArray]:
		var id: int = request["id"]
		if request["op"] == "spawn":
			return [_frame({"id": id, "ev": "ok", "seed": 1, "opening": null})]
		_lose_soon()
		return [_frame({"id": id, "ev": "mood", "mood": "sad"})]
	add_child(host)
	var perrin := add_character("perrin")
	await perrin.spawn()
	perrin.name = "Perrin"
	await fails_with(host, "connection_lost")
	check(await until(func() -> bool: return rogue.connections > 1), "it connects again")


func test_waits_grow_while_nobody_listens() -> void:
	host.endpoint = "tcp://127.0.0.1:9"
	add_child(host)
	host.start()
	var waits: Array[int] = []
	while waits.size() < 5:
		await until(func() -> bool: return host.stage == NpcHost.Stage.WAITING)
		waits.append(host._backoff_ms)
		await until(func() -> bool: return host.stage != NpcHost.Stage.WAITING)
	check_equal(waits, [200, 400, 800, 1600, 3200] as Array[int], "waits in ms")


func _lose_soon() -> void:
	await get_tree().process_frame
	await get_tree().process_frame
	rogue.hang_up()


func _frame(body: Dictionary) -> PackedByteArray:
	return NpcZmtp.frame(NpcMsgpack.pack(body))
