@tool
class_name NpcDaemon
extends RefCounted
## npc-runtime's daemon as a child process of the game: found, started, watched, stopped.

## Bytes of the daemon's own words that are kept to explain why it ended.
const TAIL_BYTES := 4096
## How often the child is looked at once it is ready, in ms; a look costs about 0.05 ms.
const WATCH_MS := 500
const _MAX_LINE := 65536

## The ready line: endpoint, key, pid, bundle, backend. Empty until the daemon is ready.
var ready := {}
var pid := -1
var _out: FileAccess
var _err: FileAccess
var _line := PackedByteArray()
var _words := PackedByteArray()
var _program := ""
var _looked := 0
var _ended := false


## Where to look for npc-runtime, in order: the setting (a path like [code]python/bin/python3[/code]
## is looked for beside the game), the environment variable
## NPC_RUNTIME_COMMAND (a path, or a JSON array of a path and its arguments), a folder `npc-runtime`
## beside the game, the project's `.venv`, and the PATH.
static func find_command() -> PackedStringArray:
	var told: Variant = ProjectSettings.get_setting(
		"npc_runtime/daemon/command", PackedStringArray()
	)
	var set_up := PackedStringArray(told)
	if not set_up.is_empty():
		var program := set_up[0]
		if program.contains("/") and program.is_relative_path():
			set_up[0] = OS.get_executable_path().get_base_dir().path_join(program)
		return set_up
	var variable := OS.get_environment("NPC_RUNTIME_COMMAND")
	if variable != "":
		var parsed: Variant = _parsed(variable) if variable.begins_with("[") else null
		return PackedStringArray(parsed) if parsed is Array else PackedStringArray([variable])
	for place: String in _places():
		if FileAccess.file_exists(place):
			return PackedStringArray([place])
	for python: String in ["python3", "python", "py"]:
		var found := _on_path(python)
		if found != "":
			return PackedStringArray([found, "-m", "npc_runtime"])
	return PackedStringArray()


## Starts `command serve --parent PID options`; gives the error when there is nothing to start.
func start(command: PackedStringArray, options: PackedStringArray) -> NpcError:
	if command.is_empty():
		return NpcError.new("daemon_missing", "neither npc-runtime nor python is on the PATH")
	_program = " ".join(command)
	var rest := command.slice(1)
	rest.append_array(PackedStringArray(["serve", "--parent", str(OS.get_process_id())]))
	rest.append_array(options)
	var child := OS.execute_with_pipe(command[0], rest, false)
	if child.is_empty():
		return NpcError.new("daemon_missing", "`%s` cannot be started" % _program)
	pid = child["pid"]
	_out = child["stdio"]
	_err = child["stderr"]
	return null


## Looks at the child. True when something changed: it has become ready, or has ended.
func poll() -> bool:
	if pid < 0 or not ready.is_empty() and Time.get_ticks_msec() - _looked < WATCH_MS:
		return false
	_looked = Time.get_ticks_msec()
	_listen()
	if ready.is_empty():
		_line.append_array(_out.get_buffer(4096))
		var end := _line.find(10)
		if end >= 0 or _line.size() > _MAX_LINE:
			var told: Variant = _parsed(_line.slice(0, end).get_string_from_utf8())
			ready = told if told is Dictionary else {"said": str(told)}
			return true
	else:
		_out.get_buffer(4096)  # read on, so that the child is never blocked
	return not is_running()


## Whether the child lives.
func is_running() -> bool:
	# Asked again about a child that has ended, Godot logs an error.
	_ended = _ended or pid <= 0 or not OS.is_process_running(pid)
	return not _ended


## Why a ready line cannot be used; null when it can.
func unfit() -> NpcError:
	var spoken: Variant = ready.get("protocol")
	if not ready.get("endpoint") is String or spoken == null:
		var detail := "`%s` said something else than a ready line" % _program
		return NpcError.new("daemon_failed", detail)
	if spoken != NpcConnection.PROTOCOL:
		var detail := (
			"the daemon speaks protocol %s, this addon %d" % [spoken, NpcConnection.PROTOCOL]
		)
		return NpcError.new("protocol_version", detail)
	return null


## Why the child ended, or did not get ready, as far as its own words tell.
func explain() -> NpcError:
	_listen()
	var status := OS.get_process_exit_code(pid) if not is_running() else -1
	var words := _words.get_string_from_utf8().strip_edges()
	var detail := "`%s` ended with status %d: %s" % [_program, status, words.right(600)]
	var lower := words.to_lower()
	var code := "daemon_failed"
	if "no module named npc_runtime" in lower or "no module named 'npc_runtime'" in lower:
		code = "daemon_missing"
	elif status == 127 or words.begins_with("Could not create child process"):
		code = "daemon_missing"
	elif "cannot listen on" in lower:
		code = "port_taken"
	elif "bundle" in lower:
		code = "bad_bundle"
	elif status == -1:
		detail = "`%s` was not ready in time: %s" % [_program, words.right(600)]
	return NpcError.new(code, detail, "", code == "daemon_failed")


## Ends the child: waits up to [param grace_ms] for it to go by itself, then ends it by force.
func stop(grace_ms: int) -> void:
	var until := Time.get_ticks_msec() + grace_ms
	while is_running() and Time.get_ticks_msec() < until:
		OS.delay_msec(5)
	if is_running():
		OS.kill(pid)
	_ended = true
	pid = -1
	_out = null
	_err = null


func _listen() -> void:
	if _err != null:
		_words.append_array(_err.get_buffer(TAIL_BYTES))
		_words = _words.slice(-TAIL_BYTES)


## The value of a JSON text, or null. (JSON.parse_string would log an error.)
static func _parsed(text: String) -> Variant:
	var json := JSON.new()
	return json.data if json.parse(text) == OK else null


static func _places() -> PackedStringArray:
	var suffix := ".exe" if OS.get_name() == "Windows" else ""
	var beside := OS.get_executable_path().get_base_dir()
	var venv := ".venv/Scripts/npc-runtime.exe" if suffix else ".venv/bin/npc-runtime"
	return PackedStringArray(
		[
			beside.path_join("npc-runtime/npc-runtime" + suffix),
			beside.path_join("../Resources/npc-runtime/npc-runtime"),
			ProjectSettings.globalize_path("res://").path_join(venv),
			_on_path("npc-runtime"),
		]
	)


## The program's path, or nothing.
static func _on_path(program: String) -> String:
	var windows := OS.get_name() == "Windows"
	for folder: String in OS.get_environment("PATH").split(";" if windows else ":", false):
		var place := folder.path_join(program + (".exe" if windows else ""))
		if FileAccess.file_exists(place):
			return place
	return ""
