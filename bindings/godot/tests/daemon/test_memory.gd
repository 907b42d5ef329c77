extends NpcTestCase
## Saves, and what happens to memories when the daemon dies.

var host: NpcHost


func before_each() -> void:
	get_tree().timeout_s = 60.0
	host = open_host()


func after_each() -> void:
	var pid := host.daemon_pid
	host.queue_free()
	await get_tree().process_frame
	check(not DirAccess.dir_exists_absolute("/proc/%d" % pid), "the daemon outlived its host")


func _said(reply: NpcReply) -> Array:
	return [reply.ok, reply.mood, reply.action, reply.text, reply.seed_used, reply.turn]


func test_a_conversation_survives_sigkill_bit_for_bit() -> void:
	var perrin := add_character("perrin")
	var recovered := record(host.recovered)
	var troubles := record(host.failed)
	await perrin.say("My name is Halla. I will pay with a silver spoon.")
	# Into the game's own save file, and what follows in this life of the daemon.
	var path := "user://game.save"
	var file := FileAccess.open(path, FileAccess.WRITE)
	file.store_var({"gold": 12, "npcs": await NpcSaveSlot.capture()})
	file.close()
	var first := await perrin.say("What did I offer you?")
	var after := await perrin.snapshot()
	await until(func() -> bool: return _is_held("perrin", after))
	var pid := host.daemon_pid
	kill_hard(pid)
	check(await until(func() -> bool: return host.stage != NpcHost.Stage.READY), "it died")
	check(await until(func() -> bool: return host.stage == NpcHost.Stage.READY), "it is back")
	check(host.daemon_pid != pid and host.daemon_pid > 0, "another process")
	check_equal(recovered, [[PackedStringArray(["perrin"]), PackedStringArray()]], "who is back")
	check_equal(troubles.size(), 1, "the game was told once")
	check_equal(await perrin.snapshot(), after, "the mind is what it was when the daemon died")
	# Back to the save, and on from there: the same words, and the same mind to the last bit.
	var saved: Dictionary = FileAccess.open(path, FileAccess.READ).get_var()
	check_equal(await NpcSaveSlot.apply(saved["npcs"]), null, "loading")
	var again := await perrin.say("What did I offer you?")
	check_equal(_said(again), _said(first), "the continuation")
	check_equal(await perrin.snapshot(), after, "its mind")


func _is_held(id: String, mind: PackedByteArray) -> bool:
	return host.cast.revival(id).get("data") == mind


func test_a_line_under_way_fails_and_a_fallback_is_spoken() -> void:
	var perrin := add_character("perrin")
	await perrin.spawn()
	perrin.pace = 2.0
	var failures := record(perrin.failed)
	var kill := func() -> void: kill_hard(host.daemon_pid)
	perrin.reply_started.connect(kill, CONNECT_ONE_SHOT)
	var reply := await perrin.say("A long story, please.")
	check_equal([reply.ok, reply.error_code], [false, "connection_lost"], "the reply")
	check_equal(reply.text, a_persona().fallbacks[0], "the fallback")
	check_equal(failures.size(), 1, "failures")
	check(String(failures[0][1]).length() > 20, "a sentence")
	perrin.pace = 0.0
	check((await perrin.say("Once more?")).ok, "it waits for the new daemon and answers")


func test_who_never_spoke_begins_anew_with_the_same_seed() -> void:
	var perrin := add_character("perrin")
	await perrin.spawn()
	var mind := await perrin.snapshot()
	var entry := host.cast._entries["perrin"] as NpcCast.Entry
	entry.state = PackedByteArray()
	var recovered := record(host.recovered)
	kill_hard(host.daemon_pid)
	check(await until(func() -> bool: return not recovered.is_empty()), "recovery")
	check_equal(recovered, [[PackedStringArray(), PackedStringArray(["perrin"])]], "who")
	check_equal(await perrin.snapshot(), mind, "the same mind")


func test_a_file_beside_the_save() -> void:
	var perrin := add_character("perrin")
	var marta := add_character("marta")
	await perrin.say("Good evening.")
	await marta.spawn()
	var minds := [await perrin.snapshot(), await marta.snapshot()]
	DirAccess.make_dir_recursive_absolute("user://saves")
	check_equal(await NpcSaveSlot.save_file("user://saves/one.npcsave"), null, "saving")
	await perrin.say("And good night.")
	check(await marta.drop(), "forgetting")
	check_equal(await NpcSaveSlot.load_file("user://saves/one.npcsave"), null, "loading")
	check_equal([await perrin.snapshot(), await marta.snapshot()], minds, "minds")
	var nowhere := await NpcSaveSlot.load_file("user://saves/none.npcsave")
	check(nowhere != null and nowhere.code == "bad_save", str(nowhere))


func test_a_damaged_slot_changes_nobody() -> void:
	var perrin := add_character("perrin")
	var marta := add_character("marta")
	await perrin.say("Good evening.")
	await marta.spawn()
	var slot := await NpcSaveSlot.capture()
	await perrin.say("Now it is later.")
	var minds := [await perrin.snapshot(), await marta.snapshot()]
	var map := NpcMsgpack.unpack_map(slot)
	var mind: PackedByteArray = map["npcs"]["marta"]
	mind[mind.size() - 1] ^= 1
	map["npcs"]["marta"] = mind
	var error := await NpcSaveSlot.apply(NpcMsgpack.pack(map))
	check(error != null and error.code == "bad_save", str(error))
	for bytes: PackedByteArray in [PackedByteArray(), slot.slice(5), "hello".to_utf8_buffer()]:
		error = await NpcSaveSlot.apply(bytes)
		check(error != null and error.code == "bad_save", str(error))
	check_equal([await perrin.snapshot(), await marta.snapshot()], minds, "minds")


func test_loading_cuts_what_is_being_said() -> void:
	var perrin := add_character("perrin")
	await perrin.spawn()
	var mind := await perrin.snapshot()
	var slot := await NpcSaveSlot.capture()
	perrin.pace = 2.0
	perrin.say("A long story, please.")
	await perrin.reply_started
	check_equal(await NpcSaveSlot.apply(slot), null, "loading")
	check_equal(await perrin.snapshot(), mind, "the mind")


func test_a_connection_that_drops_is_taken_up_again() -> void:
	var perrin := add_character("perrin")
	await perrin.say("Good evening.")
	var mind := await perrin.snapshot()
	var pid := host.daemon_pid
	host._connection._socket.disconnect_from_host()
	check(await until(func() -> bool: return host.stage != NpcHost.Stage.READY), "it dropped")
	check(await until(func() -> bool: return host.stage == NpcHost.Stage.READY), "it is back")
	check_equal(host.daemon_pid, pid, "the same daemon")
	check_equal(host.card["resumed"], true, "the Session goes on")
	check_equal(await perrin.snapshot(), mind, "the mind")
