@tool
class_name NpcConnection
extends RefCounted
## One connection to a daemon: greets, then hands out what it sends. Nothing here waits; call
## [method poll] every frame. A connection that was lost stays lost: make another.

## The daemon has answered `hello`: version, bundle, backend, limits, whether the Session goes on.
signal opened(card: Dictionary)
## An answer to a request.
signal received(id: int, ev: String, body: Dictionary)
## The connection has ended.
signal lost(error: NpcError)

enum Stage { CONNECTING, GREETING, OPEN, LOST }

const PROTOCOL := 1
## Most bytes of one answer that are read.
const MAX_MESSAGE_BYTES := 256 * 1024 * 1024
## How long connecting and `hello` may take.
const HELLO_MS := 10_000
const _CHUNK := 65536
const _HELLO_ID := 0x1FFFFFFFFFFFFF

var stage := Stage.CONNECTING
## Whether the last [method poll] left something unread for want of time.
var is_behind := false
## The daemon's answer to `hello`.
var card := {}
var _socket := StreamPeerTCP.new()
var _zmtp: NpcZmtp
var _session: String
var _queue: Array[PackedByteArray] = []
var _sent := 0
var _is_drained := false
var _began := Time.get_ticks_msec()
var _heard := _began
var _asked := _began
var _beats := 0


## Begins to connect to an endpoint like `tcp://127.0.0.1:5555`.
func _init(endpoint: String, key: String, session: String) -> void:
	_session = session
	_zmtp = NpcZmtp.new(key, MAX_MESSAGE_BYTES)
	var address := endpoint.trim_prefix("tcp://")
	var colon := address.rfind(":")
	var host := address.left(colon).trim_prefix("[").trim_suffix("]")
	var port := address.substr(colon + 1)
	var good := endpoint.begins_with("tcp://") and colon > 0 and port.is_valid_int()
	if not good or _socket.connect_to_host(host, int(port)) != OK:
		stage = Stage.LOST
		_late_error.call_deferred("bad_config", "`%s` is not an endpoint" % endpoint.left(120))


## Queues a message; gives the error when it cannot be sent.
func send(message: Dictionary) -> NpcError:
	if stage != Stage.OPEN:
		return NpcError.new("connection_lost", "the connection is not open")
	var body := NpcMsgpack.pack(message)
	var limits: Dictionary = card.get("limits", {})
	var most: int = limits.get("max_frame_bytes", MAX_MESSAGE_BYTES)
	if body.is_empty():
		return NpcError.new(
			"bad_input", "`%s` holds a value that cannot be sent" % message.get("op")
		)
	if body.size() > most:
		return NpcError.new("too_large", "%d bytes, at most %d" % [body.size(), most])
	_queue.append(NpcZmtp.frame(body))
	return null


## Reads, decodes and writes for at most about [param budget_usec]; what is left waits for the next
## call.
func poll(budget_usec: int) -> void:
	if stage == Stage.LOST:
		return
	var until := Time.get_ticks_usec() + budget_usec
	_socket.poll()
	match _socket.get_status():
		StreamPeerTCP.STATUS_CONNECTED:
			_receive(until)
			_transmit(until)
			_beat()
		StreamPeerTCP.STATUS_CONNECTING:
			pass
		_:
			_receive(until)  # what came before the end counts
			_lose("connection_lost", "the daemon closed the connection, or does not listen there")
	if stage in [Stage.CONNECTING, Stage.GREETING] and Time.get_ticks_msec() - _began > HELLO_MS:
		_lose("connection_lost", "the daemon did not answer `hello` within %d ms" % HELLO_MS)


## True when everything was handed to the system.
func is_flushed() -> bool:
	return _queue.is_empty()


## Ends the connection without a word.
func close() -> void:
	stage = Stage.LOST
	_socket.disconnect_from_host()


func _receive(until: int) -> void:
	_is_drained = false
	is_behind = false
	while stage != Stage.LOST:
		var message := _zmtp.next_message()
		if _zmtp.fault != null:
			_lose(_zmtp.fault.code, _zmtp.fault.detail)
		elif not message.is_empty():
			_deliver(message)
		elif not _read_more():
			break
		if Time.get_ticks_usec() >= until:
			is_behind = true
			break
	if stage == Stage.CONNECTING and _zmtp.stage == NpcZmtp.Stage.OPEN:
		_greet()


func _read_more() -> bool:
	if _socket.get_status() != StreamPeerTCP.STATUS_CONNECTED:
		return false
	var count := 0 if _is_drained else mini(_socket.get_available_bytes(), _CHUNK)
	_is_drained = count < _CHUNK  # nothing more to ask for before the next frame
	if count <= 0:
		return false
	var got := _socket.get_partial_data(count)
	var chunk: PackedByteArray = got[1]
	if got[0] != OK or chunk.is_empty():
		return false
	_heard = Time.get_ticks_msec()
	_zmtp.feed(chunk)
	return true


func _transmit(until: int) -> void:
	var urgent := _zmtp.take_outgoing()
	if not urgent.is_empty():
		_queue.insert(1 if _sent > 0 else 0, urgent)
	while not _queue.is_empty():
		var part := _queue[0].slice(_sent, _sent + _CHUNK)
		var result := _socket.put_partial_data(part)
		if result[0] != OK:
			return  # the next poll sees why
		_sent += int(result[1])
		if _sent == _queue[0].size():
			_queue.remove_at(0)
			_sent = 0
		if int(result[1]) < part.size() or Time.get_ticks_usec() >= until:
			return


func _greet() -> void:
	stage = Stage.GREETING
	var hello := {"id": _HELLO_ID, "op": "hello", "protocol": [PROTOCOL], "client": "godot"}
	if _session != "":
		hello["session"] = _session
	_queue.insert(0, NpcZmtp.frame(NpcMsgpack.pack(hello)))


func _deliver(message: Array[PackedByteArray]) -> void:
	var body := NpcMsgpack.unpack_map(message[0]) if message.size() == 1 else {}
	var ev: Variant = body.get("ev")
	var id: Variant = body.get("id")
	if not (ev is String and id is int):
		_lose("bad_frame", "an answer of %d bytes without `id` and `ev`" % message[0].size())
	elif id == _HELLO_ID and stage == Stage.GREETING:
		_hello(ev, body)
	elif id == 0:
		_notice(ev, body)
	else:
		received.emit(id, ev, body)


func _hello(ev: String, body: Dictionary) -> void:
	if ev == "ok":
		stage = Stage.OPEN
		card = body
		opened.emit(body)
	else:
		var error := NpcError.from_wire(body)
		_lose(error.code, error.detail)


func _notice(ev: String, body: Dictionary) -> void:
	if ev == "ping":
		send({"id": _HELLO_ID, "op": "ping"})
	elif ev == "bye" and body.get("reason") == "taken_over":
		_lose("connection_lost", "another game took over the Session `%s`" % _session)
	elif ev == "error":
		var error := NpcError.from_wire(body)
		push_warning("npc-runtime: %s" % error)


## Asks a silent daemon whether it lives; three times as silent and it is gone.
func _beat() -> void:
	var seconds: float = card.get("heartbeat_s", 0.0)
	if stage != Stage.OPEN or seconds <= 0.0:
		return
	var now := Time.get_ticks_msec()
	if now - _heard > 3000.0 * seconds:
		_lose("connection_lost", "the daemon was silent for %d ms" % (now - _heard))
	elif now - maxi(_heard, _asked) > 1000.0 * seconds:
		_asked = now
		send({"id": _HELLO_ID, "op": "ping"})


func _late_error(code: String, detail: String) -> void:
	lost.emit(NpcError.new(code, detail))


func _lose(code: String, detail: String) -> void:
	if stage == Stage.LOST:
		return
	close()
	lost.emit(NpcError.new(code, detail, "", code == "connection_lost"))
