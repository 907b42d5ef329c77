@tool
class_name NpcHost
extends Node
## The autoload [code]NpcRuntime[/code]: finds or starts the daemon, keeps the connection, carries
## requests, and brings everyone back when the daemon dies.
##
## Games mostly talk to [NpcCharacter] nodes. Use this node to see how things stand
## ([member stage], [signal connected], [signal failed]) or to send a request of the protocol
## yourself ([method request]).

## The daemon is there: version, bundle, backend, limits.
signal connected(card: Dictionary)
## Something is wrong with the daemon or the connection; requests fail or wait meanwhile.
signal failed(code: String, sentence: String)
## After the daemon died: who has their memory back, and who had to begin anew.
signal recovered(restored: PackedStringArray, anew: PackedStringArray)

## OFF: not started. STARTING: waits for the ready line. CONNECTING: greets. RECOVERING: brings
## characters back. READY: works. WAITING: tries again soon. FAILED: tries no more until
## [method start].
enum Stage { OFF, STARTING, CONNECTING, RECOVERING, READY, WAITING, FAILED }

const AUTOLOAD := "NpcRuntime"
## Deaths of the daemon within a minute after which it is not started again.
const MAX_DEATHS := 5
const MAX_WAITING := 1024
## Frames in a row that may leave something unread before more time is taken: with very many
## characters speaking, text that comes late is worse than a frame that costs more.
const PATIENT_FRAMES := 60
const _BACKOFF_FIRST_MS := 100
const _BACKOFF_MOST_MS := 5000
const _STOP_GRACE_MS := 500
## Requests that may simply be sent again after the connection was lost.
const _REPEATABLE: Array[String] = [
	"spawn", "restore", "snapshot", "save", "load", "list", "stats", "drop"
]
## Losses that trying again does not mend.
const _FINAL: Array[String] = ["wrong_key", "protocol_version", "bad_config", "bad_frame"]

## The host in use: the autoload, or in the editor the dock's own.
static var current: NpcHost

var stage := Stage.OFF
## Who lives.
var cast := NpcCast.new()
## Why [member stage] is FAILED or WAITING.
var trouble: NpcError
## What the last frame cost the main thread, in microseconds.
var last_cost_usec := 0
## Name under which the daemon keeps our characters while a connection is down.
var session := "godot-%d-%d" % [OS.get_process_id(), randi()]
## How npc-runtime is called; empty: see [method NpcDaemon.find_command].
var command := PackedStringArray()
## Further options of `npc-runtime serve`.
var options: PackedStringArray = NpcSettings.read("daemon/options")
## Folder of the model; empty: the default one.
var bundle: String = NpcSettings.read("daemon/bundle")
## A daemon that somebody else started, instead of our own.
var endpoint: String = NpcSettings.read("daemon/endpoint")
var key: String = NpcSettings.read("daemon/key")
## Whether it is the dock's own. The autoload, which the editor creates too, sleeps there.
var is_for_editor := false
## Whether each mind is fetched after every turn, so that a crash of the daemon loses at most the
## turn that was under way.
var hold_states: bool = NpcSettings.read("hold_states")

## What the daemon told of itself; empty before the first connection.
var card: Dictionary:
	get:
		return _connection.card if _connection != null else {}

## Process id of our own daemon; -1 when there is none.
var daemon_pid: int:
	get:
		return _daemon.pid if _daemon != null else -1

var _patience_ms := int(1000.0 * float(NpcSettings.read("daemon/patience_s")))
var _start_ms := int(1000.0 * float(NpcSettings.read("daemon/start_timeout_s")))
var _budget_usec: int = NpcSettings.read("frame_budget_usec")
var _daemon: NpcDaemon
var _connection: NpcConnection
var _open: Dictionary[int, NpcRequest] = {}
var _queue: Array[NpcRequest] = []
var _next_id := 1
var _holding := false
var _since := 0
var _retry_at := 0
var _backoff_ms := _BACKOFF_FIRST_MS
var _deaths: Array[int] = []
var _was_ready := false
var _frames_behind := 0
var _leaving := false


func _enter_tree() -> void:
	if Engine.is_editor_hint() and not is_for_editor:
		return
	if current == null:
		current = self
	_leaving = false
	process_mode = Node.PROCESS_MODE_ALWAYS
	if not Engine.is_editor_hint() and NpcSettings.read("daemon/autostart"):
		start.call_deferred()


func _exit_tree() -> void:
	_leaving = true
	stop()
	if current == self:
		current = null


func _process(_delta: float) -> void:
	if stage == Stage.OFF:
		return
	var began := Time.get_ticks_usec()
	_step()
	last_cost_usec = Time.get_ticks_usec() - began


## Starts the daemon, or connects to the one named in the settings. Harmless when under way.
func start() -> void:
	if stage == Stage.OFF or stage == Stage.FAILED:
		trouble = null
		_deaths.clear()
		_was_ready = false
		_begin()


## Leaves the daemon, and ends it if it is ours. Everything under way fails with `shutting_down`.
func stop() -> void:
	if stage == Stage.OFF:
		return
	stage = Stage.OFF
	_fail_all(NpcError.new("shutting_down", "the game has left"))
	if _connection != null:
		_connection.send({"id": _next_id, "op": "shutdown" if _daemon != null else "bye"})
		_connection.poll(20_000)
		_connection.close()
		_connection = null
	if _daemon != null:
		_daemon.stop(_STOP_GRACE_MS)
		_daemon = null
	cast = NpcCast.new()


## Sends a request of the protocol, or keeps it until the daemon is there. Await its `done()`.
func request(op: String, fields := {}) -> NpcRequest:
	var message := {"id": 0, "op": op}
	message.merge(fields)
	var asked := NpcRequest.new(message)
	asked.patience = asked.began + _patience_ms
	if _leaving:
		asked.fail(NpcError.new("shutting_down", "the game is ending"))
		return asked
	if stage == Stage.OFF:
		start()
	if stage == Stage.FAILED and trouble != null:
		asked.fail(trouble)
	elif stage == Stage.READY:
		_send(asked)
	elif _queue.size() >= MAX_WAITING:
		asked.fail(NpcError.new("queue_full", "%d requests wait for the daemon" % MAX_WAITING))
	else:
		_queue.append(asked)
	return asked


## As [method request], but waits a moment for a character that is still speaking.
func request_at_rest(op: String, fields: Dictionary, wait_ms := 3000) -> NpcRequest:
	var until := Time.get_ticks_msec() + wait_ms
	while true:
		var asked := await request(op, fields).done()
		var busy := asked.error != null and asked.error.code == "npc_busy"
		if not busy or Time.get_ticks_msec() > until or not is_inside_tree():
			return asked
		await get_tree().create_timer(0.03, true, false, true).timeout
	return null


# ---- one frame


func _step() -> void:
	_watch_daemon()
	if _connection != null:
		_connection.poll(_budget_usec << mini(_frames_behind / PATIENT_FRAMES, 3))
	var is_behind := _connection != null and _connection.is_behind
	_frames_behind = _frames_behind + 1 if is_behind else 0
	if stage == Stage.WAITING and Time.get_ticks_msec() >= _retry_at:
		_begin()
	elif stage == Stage.READY and hold_states and not _holding:
		_hold()
	if not _queue.is_empty():
		_check_patience()


func _watch_daemon() -> void:
	if _daemon == null or not _daemon.poll():
		if stage == Stage.STARTING and Time.get_ticks_msec() - _since > _start_ms:
			_daemon_ended(_daemon.explain())
		return
	if not _daemon.is_running():
		_daemon_ended(_daemon.explain())
	elif stage == Stage.STARTING:
		var error := _daemon.unfit()
		if error != null:
			_give_up(error)
		else:
			_connect(str(_daemon.ready.get("endpoint")), str(_daemon.ready.get("key", "")))


func _begin() -> void:
	if endpoint != "":
		_connect(endpoint, key)
	elif _daemon != null and _daemon.is_running() and not _daemon.ready.is_empty():
		_connect(str(_daemon.ready.get("endpoint")), str(_daemon.ready.get("key", "")))
	else:
		_launch()


func _launch() -> void:
	stage = Stage.STARTING
	_since = Time.get_ticks_msec()
	_daemon = NpcDaemon.new()
	var all := PackedStringArray() if bundle == "" else PackedStringArray(["--bundle", bundle])
	all.append_array(options)
	var call := NpcDaemon.find_command() if command.is_empty() else command
	var error := _daemon.start(call, all)
	if error != null:
		_daemon = null
		_give_up(error)


func _connect(where: String, secret: String) -> void:
	stage = Stage.CONNECTING
	_connection = NpcConnection.new(where, secret, session)
	_connection.opened.connect(_on_opened)
	_connection.received.connect(_on_received)
	_connection.lost.connect(_on_lost)


# ---- requests


func _send(asked: NpcRequest) -> void:
	asked.message["id"] = _next_id
	_next_id += 1
	var error := _connection.send(asked.message)
	if error != null:
		asked.fail(error)
	else:
		_open[_next_id - 1] = asked


func _on_received(id: int, ev: String, body: Dictionary) -> void:
	var asked: NpcRequest = _open.get(id)
	if asked == null:
		return
	if ev == "delta":
		asked.piece.emit(ev, body)
		return
	if ev == "ok" or ev == "done" or ev == "error":
		_open.erase(id)
	if ev == "ok" or ev == "done":
		asked.body = body
		cast.note(asked)
	asked.feed(ev, body)


func _check_patience() -> void:
	var now := Time.get_ticks_msec()
	if _queue[0].patience > now or stage == Stage.STARTING:
		return
	var why := trouble if trouble != null else NpcError.new("connection_lost", "no daemon answers")
	for asked: NpcRequest in _queue.duplicate():
		if asked.patience <= now:
			_queue.erase(asked)
			asked.fail(why)


func _fail_all(why: NpcError) -> void:
	var left: Array[NpcRequest] = _open.values()
	left.append_array(_queue)
	_open.clear()
	_queue.clear()
	for asked: NpcRequest in left:
		asked.fail(why)


# ---- holding States


func _hold() -> void:
	var id := cast.take_stale()
	if id == "":
		return
	_holding = true
	var asked := request("snapshot", {"npc": id})
	await asked.done()
	_holding = false
	if asked.error != null and asked.error.retry:
		cast.still_stale(id)


# ---- loss and recovery


func _on_opened(told: Dictionary) -> void:
	if told.get("resumed") == true or cast.ids().is_empty():
		_settle_in()
	else:
		_recover()


## Gives a new daemon what the old one held, then lets waiting requests through.
func _recover() -> void:
	stage = Stage.RECOVERING
	var asked: Dictionary[String, NpcRequest] = {}
	for id: String in cast.ids():
		var message := cast.revival(id)
		if message.is_empty():
			cast.lose(id)
			continue
		asked[id] = NpcRequest.new(message)
		_send(asked[id])
	var restored := PackedStringArray()
	var anew := PackedStringArray()
	for id: String in asked:
		var done := await asked[id].done()
		if stage != Stage.RECOVERING:
			return  # lost again; the next connection begins from the start
		if done.error != null:
			push_warning("npc-runtime: `%s` is lost: %s" % [id, done.error])
			cast.lose(id)
		elif done.message["op"] == "restore":
			restored.append(id)
		else:
			anew.append(id)
	_settle_in()
	recovered.emit(restored, anew)


func _settle_in() -> void:
	stage = Stage.READY
	trouble = null
	_was_ready = true
	_backoff_ms = _BACKOFF_FIRST_MS
	var waiting := _queue
	_queue = []
	for asked: NpcRequest in waiting:
		_send(asked)
	connected.emit(card)


func _on_lost(error: NpcError) -> void:
	if stage == Stage.OFF:
		return
	_connection = null
	var again: Array[NpcRequest] = []
	var left: Array[NpcRequest] = _open.values()
	_open.clear()
	for asked: NpcRequest in left:
		if asked.message["op"] in _REPEATABLE and stage != Stage.RECOVERING:
			if asked.message["op"] in ["spawn", "restore", "load"]:
				asked.message["replace"] = true
			again.append(asked)
	_queue = again + _queue
	if error.code in _FINAL:
		_give_up(error)
	elif _daemon != null and not _daemon.is_running():
		_daemon_ended(_daemon.explain())
	else:
		_retry(error)
	for asked: NpcRequest in left:
		if not asked in again:
			asked.fail(error)


func _daemon_ended(why: NpcError) -> void:
	if _connection != null:
		var connection := _connection
		connection.close()
		_on_lost(NpcError.new("connection_lost", "the daemon ended", "", true))
		return
	_daemon.stop(0)
	_daemon = null
	var now := Time.get_ticks_msec()
	_deaths.append(now)
	_deaths = _deaths.filter(func(at: int) -> bool: return now - at < 60_000)
	if not _was_ready or _deaths.size() >= MAX_DEATHS:
		_give_up(why)
	else:
		_retry(why)


func _retry(why: NpcError) -> void:
	if trouble == null:
		failed.emit(why.code, why.sentence)
	trouble = why
	stage = Stage.WAITING
	_retry_at = Time.get_ticks_msec() + int(_backoff_ms * randf_range(0.75, 1.0))
	_backoff_ms = mini(2 * _backoff_ms, _BACKOFF_MOST_MS)


func _give_up(why: NpcError) -> void:
	trouble = why
	stage = Stage.FAILED
	if _daemon != null:
		_daemon.stop(0)
		_daemon = null
	push_warning("npc-runtime: %s" % why)
	failed.emit(why.code, why.sentence)
	_fail_all(why)
