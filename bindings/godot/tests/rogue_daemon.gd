class_name RogueDaemon
extends Node
## A daemon that does as a test tells it, on a socket of this very process: it shakes hands, answers
## `hello`, and from then on sends what [member answer] gives for each request.

var answer := func(_request: Dictionary) -> Array[PackedByteArray]: return []
var hello := {"ev": "ok", "protocol": 1, "heartbeat_s": 15.0, "limits": {"max_frame_bytes": 4096}}
var endpoint := ""
## What it says instead of a greeting.
var greeting := PackedByteArray()
var connections := 0
var _server := TCPServer.new()
var _peer: StreamPeerTCP
var _zmtp: NpcZmtp
var _steps: Array[PackedByteArray] = []


func _ready() -> void:
	_server.listen(0, "127.0.0.1")
	endpoint = "tcp://127.0.0.1:%d" % _server.get_local_port()


func _process(_delta: float) -> void:
	if _server.is_connection_available():
		_welcome(_server.take_connection())
	if _peer == null:
		return
	_peer.poll()
	if _peer.get_status() != StreamPeerTCP.STATUS_CONNECTED:
		return
	var count := _peer.get_available_bytes()
	if count > 0:
		_hear(_peer.get_data(count)[1])


## Ends the connection.
func hang_up() -> void:
	_peer.disconnect_from_host()
	_peer = null


func _welcome(peer: StreamPeerTCP) -> void:
	connections += 1
	_peer = peer
	_zmtp = NpcZmtp.new("", 1 << 20)
	_steps = [command("WELCOME"), command("READY")]
	_peer.put_data(NpcZmtp.greeting() if greeting.is_empty() else greeting)


static func command(name: String) -> PackedByteArray:
	var body := PackedByteArray([name.length()])
	body.append_array(name.to_ascii_buffer())
	return NpcZmtp.frame(body, 4)


## Steps through the handshake by counting frames: each command of the client is one step.
func _hear(bytes: PackedByteArray) -> void:
	if _zmtp.stage == NpcZmtp.Stage.GREETING and bytes.size() >= NpcZmtp.GREETING_BYTES:
		bytes = bytes.slice(NpcZmtp.GREETING_BYTES)
		_zmtp.stage = NpcZmtp.Stage.OPEN
	while not _steps.is_empty() and bytes.size() > 2:
		bytes = bytes.slice(2 + bytes[1])
		_peer.put_data(_steps.pop_front())
	_zmtp.feed(bytes)
	while true:
		var message := _zmtp.next_message()
		if message.is_empty() or _peer == null:
			break
		_reply(NpcMsgpack.unpack_map(message[0]))


func _reply(request: Dictionary) -> void:
	if request.get("op") == "hello":
		var told := hello.duplicate()
		told["id"] = request["id"]
		_peer.put_data(NpcZmtp.frame(NpcMsgpack.pack(told)))
		return
	for bytes: PackedByteArray in answer.call(request):
		if _peer != null:
			_peer.put_data(bytes)
