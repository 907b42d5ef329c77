extends NpcTestCase
## Wrong lines, wrong personas, and scenes without the autoload.

var host: NpcHost
var rogue: RogueDaemon


func before_each() -> void:
	get_tree().timeout_s = 30.0
	host = NpcHost.new()
	rogue = RogueDaemon.new()
	add_child(rogue)


func after_each() -> void:
	host.queue_free()
	await get_tree().process_frame


func test_an_oversized_line() -> void:
	await fails_with(host, "too_large", "x".repeat(5000))
	host.stop()
	get_node("Perrin").free()
	host.endpoint = rogue.endpoint
	host.key = "any"
	rogue.answer = func(request: Dictionary) -> Array[PackedByteArray]:
		return [_frame({"id": request["id"], "ev": "ok", "seed": 1, "opening": null})]
	host.start()
	await fails_with(host, "too_large", "y".repeat(5000))


func test_a_line_of_nothing_and_unknown_words() -> void:
	await fails_with(host, "bad_input", "  \n ")
	var perrin: NpcCharacter = get_node("Perrin")
	check_equal((await perrin.say("Hi.", {"moods": ["two words"]})).error_code, "bad_input", "mood")
	check_equal((await perrin.say("Hi.", {"moods": [Vector2.ONE]})).error_code, "bad_input", "type")
	check((await perrin.say("Hi.")).ok, "it goes on")


func test_personas_that_are_wrong() -> void:
	add_child(host)
	var nobody := NpcCharacter.new()
	add_child(nobody)
	check_equal((await nobody.say("Hi.")).error_code, "bad_persona", "none at all")
	nobody.persona_file = "nobody-of-this-name"
	check_equal((await nobody.say("Hi.")).error_code, "unknown_persona", "an unknown name")
	nobody.persona_file = "res://nowhere.toml"
	check_equal((await nobody.say("Hi.")).error_code, "bad_persona", "no such file")
	nobody.persona = a_persona()
	nobody.persona.traits = ["slow, stubborn"]
	check_equal((await nobody.say("Hi.")).error_code, "bad_persona", "a comma in a trait")
	nobody.persona = null
	nobody.persona_file = "marta"
	check((await nobody.say("Hi.")).ok, "a good one")


func test_without_the_autoload() -> void:
	var perrin := add_character("perrin")
	check_equal((await perrin.say("Hi.")).error_code, "no_runtime", "say")
	check_equal((await NpcSaveSlot.capture()).size(), 0, "capture")
	check_equal((await NpcSaveSlot.apply([])).code, "no_runtime", "apply")
	check_equal(NpcPerception.announce(Vector2.ZERO, 9.0, "Boo."), [] as Array[NpcCharacter], "")


func _frame(body: Dictionary) -> PackedByteArray:
	return NpcZmtp.frame(NpcMsgpack.pack(body))
