extends NpcTestCase


func test_every_code_of_the_daemon_has_a_sentence() -> void:
	var codes: Array = JSON.parse_string(shared_file("codes.json"))
	check(codes.size() > 20, "the codes are missing")
	for code: String in codes:
		var error := NpcError.new(code, "the detail")
		check(NpcError.SENTENCES.has(code), "`%s` has no sentence" % code)
		check(error.sentence.length() > 15 and not "{" in error.sentence, error.sentence)


func test_a_code_of_a_later_version_is_told_too() -> void:
	var error := NpcError.from_wire({"code": "new", "text": "of the day", "retry": true})
	check_equal([error.code, error.retry], ["new", true], "fields")
	check(error.sentence.contains("of the day"), error.sentence)
