class_name NpcTestCase
extends Node
## What the tests share. A check that does not hold logs an error, which fails the test.

static var _shared: NpcDaemon


func check(holds: bool, what: String) -> void:
	if not holds:
		push_error(what)


func check_equal(got: Variant, expected: Variant, what: String) -> void:
	if typeof(got) != typeof(expected) or got != expected:
		push_error("%s: expected %s, got %s" % [what, var_to_str(expected), var_to_str(got)])


## The text of a file that the tests of all languages share.
func shared_file(name: String) -> String:
	var folder := OS.get_environment("NPC_TEST_FILES")
	if folder == "":
		folder = ProjectSettings.globalize_path("res://").path_join("../vectors")
	var path := folder.path_join(name)
	check(FileAccess.file_exists(path), "`%s` is missing" % path)
	return FileAccess.get_file_as_string(path)


## Waits for a signal or a moment in which `holds` is true; false when it never came.
func until(holds: Callable, seconds := 20.0) -> bool:
	var end := Time.get_ticks_msec() + int(seconds * 1000.0)
	while not holds.call():
		if Time.get_ticks_msec() > end:
			return false
		await get_tree().process_frame
	return true


## A host like the autoload, in the tree, with a daemon of its own.
func open_host() -> NpcHost:
	var host := NpcHost.new()
	add_child(host)
	host.start()
	return host


## A host on a daemon that many tests share; it ends with this process.
func join_host() -> NpcHost:
	if _shared == null:
		_shared = NpcDaemon.new()
		check(_shared.start(NpcDaemon.find_command(), []) == null, "no daemon")
		check(await until(func() -> bool: return _shared.poll(), 60.0), "the daemon is not ready")
	var host := NpcHost.new()
	host.endpoint = _shared.ready["endpoint"]
	host.key = _shared.ready["key"]
	add_child(host)
	host.start()
	return host


## Ends a process as the kernel does when memory is short. (OS.kill would also reap it, which the
## addon must be able to do by itself.)
func kill_hard(pid: int) -> void:
	OS.execute("kill", ["-9", str(pid)])


## A character of the persona below.
func add_character(id: String, body: Node = self) -> NpcCharacter:
	var character := NpcCharacter.new()
	character.npc_id = id
	character.persona = a_persona()
	character.random_seed = 7
	body.add_child(character)
	return character


func a_persona() -> NpcPersona:
	var persona := NpcPersona.new()
	persona.name = "Perrin Auld"
	persona.role = "ferryman"
	persona.traits = ["slow", "stubborn"]
	persona.knows = ["the crossing is three pennies", "his ferry is called the Patient Anne"]
	persona.opening = "Three pennies. Five if that horse is yours."
	persona.opening_mood = "wary"
	persona.fallbacks = ["Hold on. She's dragging.", "Can't hear you over the water."]
	persona.max_tokens = 32
	return persona


## The arguments of every emission of a signal, in order.
func record(source: Signal) -> Array:
	var seen := []
	source.connect(func(...values: Array) -> void: seen.append(values))
	return seen


## Says a line that cannot be answered, and checks what the game is told.
func fails_with(host: NpcHost, code: String, line := "Hello?") -> NpcReply:
	if not host.is_inside_tree():
		add_child(host)
		host.start()
	var perrin := add_character("perrin") if not has_node("Perrin") else get_node("Perrin")
	perrin.name = "Perrin"
	perrin.auto_spawn = true
	var failures := record(perrin.failed)
	var spoken := record(perrin.text_delta)
	var reply: NpcReply = await perrin.say(line)
	check_equal([reply.ok, reply.error_code, reply.finish], [false, code, "fallback"], "the reply")
	check(reply.text in a_persona().fallbacks, "the fallback line: " + reply.text)
	check_equal(spoken, [[reply.text]], "what is spoken")
	check(not failures.is_empty() and failures[-1][0] == code, "failures: %s" % [failures])
	var sentence: String = failures[-1][1] if not failures.is_empty() else ""
	check(sentence.length() > 20 and not "{" in sentence, "the sentence: " + sentence)
	return reply
