extends NpcTestCase


func test_the_checks_agree_with_those_of_npc_runtime() -> void:
	var cases: Array = JSON.parse_string(shared_file("personas.json"))
	check(cases.size() > 30, "the cases are missing")
	var good := 0
	for case: Dictionary in cases:
		var found := PackedStringArray()
		var persona := NpcPersona.from_table(_whole(case["table"]), found)
		check_equal(
			found.is_empty(), case["good"], "%s: %s" % [str(case["table"]).left(300), found]
		)
		if found.is_empty():
			good += 1
			check_equal(persona.problems(), PackedStringArray(), "as a resource")
	check(good > 10, "only %d are good" % good)


func test_shipped_personas_are_read() -> void:
	var folder := OS.get_environment("NPC_TEST_FILES").path_join("personas")
	var count := 0
	for file: String in DirAccess.get_files_at(folder):
		if file.ends_with(".toml"):
			count += 1
			var persona := NpcPersona.load_toml(folder.path_join(file))
			check(persona != null, NpcPersona.last_problem)
			if persona != null:
				var table := persona.to_table()
				check_equal(
					NpcPersona.from_table(table).to_table(), table, file + ": there and back"
				)
				check(persona.preview().contains(persona.name), file + ": preview")
	check(count > 10, "only %d personas" % count)


func test_a_persona_is_kept_in_a_scene() -> void:
	var persona := a_persona()
	persona.samples = [NpcSample.new()]
	persona.samples[0].player = "who are you?"
	persona.samples[0].npc = "Perrin. I'm the bridge now."
	check_equal(ResourceSaver.save(persona, "user://perrin.tres"), OK, "saving")
	var again: NpcPersona = ResourceLoader.load(
		"user://perrin.tres", "", ResourceLoader.CACHE_MODE_IGNORE
	)
	check_equal(again.to_table(), persona.to_table(), "there and back")
	check_equal(again.problems(), PackedStringArray(), "problems")


func test_toml_of_all_kinds() -> void:
	var text := """\uFEFF# a comment
name = "Perrin \\"Auld\\" \\u00e9" # another
role = 'ferry\\man'
voice = \"\"\"
two
lines, \\
   folded\"\"\"
wants = '''
as 'it' is'''
traits = [ # inside
  "slow",
  "stubborn", ]
[sampling]
temperature = 0.6
max_tokens = 6_4
[[samples]]
player = "a"
npc = "b"
[[samples]]
player = "c"
npc = "d"
"""
	var toml := NpcToml.new()
	var table := toml.parse(text)
	check_equal(toml.fault, "", "fault")
	var expected := {
		"name": 'Perrin "Auld" é',
		"role": "ferry\\man",
		"voice": "two\nlines, folded",
		"wants": "as 'it' is",
		"traits": ["slow", "stubborn"],
		"sampling": {"temperature": 0.6, "max_tokens": 64},
		"samples": [{"player": "a", "npc": "b"}, {"player": "c", "npc": "d"}],
	}
	check_equal(table, expected, "table")


func test_toml_that_is_wrong_is_told_by_line() -> void:
	var bad: Dictionary[String, String] = {
		'name = "x': "line 1",
		"\nname": "line 2",
		"name = x": "line 1",
		'a = "b" c': "line 1",
		'a = "b"\na = "c"': "line 2",
		"a = [1 2]": "line 1",
		"[a\nb = 1": "line 1",
		'a = "\\q"': "line 1",
		'a = "\\uD800"': "line 1",
		"a = 1979-05-27": "line 1",
		"a.b = 1": "line 1",
		"a = [[[[[[1]]]]]]": "line 1",
	}
	for text: String in bad:
		var toml := NpcToml.new()
		toml.parse(text)
		check(toml.fault.begins_with(bad[text]), "`%s`: %s" % [text, toml.fault])


## JSON has no whole numbers: those that are become so again.
func _whole(value: Variant) -> Variant:
	if value is float and value == floorf(value):
		return int(value)
	if value is Array:
		return (value as Array).map(_whole)
	if value is Dictionary:
		var map := {}
		for key: String in value:
			map[key] = _whole(value[key])
		return map
	return value
