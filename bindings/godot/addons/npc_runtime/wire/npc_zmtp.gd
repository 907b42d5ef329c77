@tool
class_name NpcZmtp
extends RefCounted
## ZMTP 3.1 as a DEALER with the PLAIN mechanism, without a socket: bytes in, messages out.
##
## Sources: rfc.zeromq.org/spec/23 (greeting, frames), spec/24 (PLAIN), spec/37 (PING and PONG).

enum Stage { GREETING, WELCOME, READY, OPEN, BROKEN }

## User name that npc-runtime's daemon expects; the key is the password.
const USER := "npc"
const GREETING_BYTES := 64
## Frames of one message that are put together.
const MAX_PARTS := 64
const _MORE := 1
const _LONG := 2
const _COMMAND := 4

var stage := Stage.GREETING
## Why [member stage] is BROKEN.
var fault: NpcError
## PINGs and PONGs seen: a sign of life beside messages.
var beats := 0
var _key: PackedByteArray
var _max_bytes: int
var _buffer := PackedByteArray()
var _at := 0
var _out := PackedByteArray()
var _parts: Array[PackedByteArray] = []
var _parts_bytes := 0


func _init(key: String, max_bytes: int) -> void:
	_key = key.to_utf8_buffer().slice(0, 255)
	_max_bytes = max_bytes
	_out = greeting()


## The 64 bytes that open a connection.
static func greeting() -> PackedByteArray:
	var bytes := PackedByteArray([0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 3, 1])
	bytes.append_array("PLAIN".to_ascii_buffer())
	bytes.resize(GREETING_BYTES)
	return bytes


## One frame with its head.
static func frame(body: PackedByteArray, flags := 0) -> PackedByteArray:
	var head := PackedByteArray([flags, body.size()])
	if body.size() > 255:
		head.resize(9)
		head[0] = flags | _LONG
		for i: int in 8:
			head[1 + i] = (body.size() >> (56 - 8 * i)) & 0xFF
	head.append_array(body)
	return head


## Takes bytes from the peer. Nothing is done with them before [method next_message].
func feed(chunk: PackedByteArray) -> void:
	if _at == _buffer.size():
		_buffer = chunk
		_at = 0
		return
	if _at > 0x10000:
		_buffer = _buffer.slice(_at)
		_at = 0
	_buffer.append_array(chunk)


## Bytes to send to the peer; each is given once.
func take_outgoing() -> PackedByteArray:
	var out := _out
	_out = PackedByteArray()
	return out


## The frames of the next whole message; empty when there is none yet, or no more.
func next_message() -> Array[PackedByteArray]:
	if stage == Stage.GREETING:
		_read_greeting()
	while stage != Stage.GREETING and stage != Stage.BROKEN:
		var size := _frame_size()
		if size < 0:
			break
		var flags := _buffer[_at]
		var start := _at + (9 if flags & _LONG else 2)
		_at = start + size
		var body := _buffer.slice(start, _at)
		if flags & _COMMAND:
			_command(body)
		elif stage != Stage.OPEN:
			_break("bad_frame", "a message before the handshake had ended")
		elif _collect(body, flags):
			var message := _parts
			_parts = []
			_parts_bytes = 0
			return message
	return []


func _break(code: String, detail: String) -> void:
	if stage != Stage.BROKEN:
		stage = Stage.BROKEN
		fault = NpcError.new(code, detail)


func _read_greeting() -> void:
	var have := mini(_buffer.size() - _at, GREETING_BYTES)
	if have > 0 and _buffer[_at] != 0xFF or have > 9 and _buffer[_at + 9] != 0x7F:
		_break("bad_frame", "the other side does not speak ZMTP")
	elif have > 10 and _buffer[_at + 10] < 3:
		_break("bad_frame", "the other side speaks ZMTP %d, expected 3" % _buffer[_at + 10])
	elif have == GREETING_BYTES:
		var name := _buffer.slice(_at + 12, _at + 32)
		if name != greeting().slice(12, 32):
			_break("bad_config", "the daemon demands another mechanism than PLAIN")
			return
		_at += GREETING_BYTES
		stage = Stage.WELCOME
		var hello := _short("HELLO".to_ascii_buffer())
		hello.append_array(_short(USER.to_ascii_buffer()))
		hello.append_array(_short(_key))
		_out.append_array(frame(hello, _COMMAND))


## Size of the body of the frame at hand; -1 when it is not all there, or is refused.
func _frame_size() -> int:
	var have := _buffer.size() - _at
	if have < 2:
		return -1
	var flags := _buffer[_at]
	if flags & ~(_MORE | _LONG | _COMMAND) or flags & _COMMAND and flags & _MORE:
		_break("bad_frame", "a frame with flags 0x%02x" % flags)
		return -1
	var size := _buffer[_at + 1]
	var head := 2
	if flags & _LONG:
		if have < 9:
			return -1
		head = 9
		for i: int in range(2, 9):
			size = (size << 8) | _buffer[_at + i]
	if size < 0 or size > _max_bytes - _parts_bytes:
		_break("too_large", "a frame of %d bytes, at most %d are read" % [size, _max_bytes])
		return -1
	return size if have >= head + size else -1


func _collect(body: PackedByteArray, flags: int) -> bool:
	_parts.append(body)
	_parts_bytes += body.size()
	if _parts.size() > MAX_PARTS:
		_break("bad_frame", "a message of more than %d frames" % MAX_PARTS)
		return false
	return flags & _MORE == 0


func _command(body: PackedByteArray) -> void:
	if stage != Stage.OPEN and body.slice(0, 5).get_string_from_ascii() == "^RROR":
		_break("wrong_key", "the daemon refused the key")  # libzmq 4.3 misspells the name's length
		return
	var length := body[0] if body.size() > 0 else 0
	if length == 0 or length >= body.size():
		_break("bad_frame", "a command without a name")
		return
	var rest := body.slice(1 + length)
	match body.slice(1, 1 + length).get_string_from_ascii():
		"WELCOME" when stage == Stage.WELCOME:
			stage = Stage.READY
			_out.append_array(frame(_initiate(), _COMMAND))
		"READY" when stage == Stage.READY:
			stage = Stage.OPEN
		"ERROR" when stage != Stage.OPEN:
			_break("wrong_key", "the daemon refused the key: %s" % _reason(rest))
		"PING" when stage == Stage.OPEN and rest.size() >= 2:
			beats += 1
			var pong := _short("PONG".to_ascii_buffer())
			pong.append_array(rest.slice(2, 18))
			_out.append_array(frame(pong, _COMMAND))
		"PONG" when stage == Stage.OPEN:
			beats += 1
		_:
			if stage != Stage.OPEN:
				_break("bad_frame", "an unexpected command in the handshake")


static func _reason(rest: PackedByteArray) -> String:
	var text := rest.slice(1, 1 + rest[0]) if rest.size() > 0 else PackedByteArray()
	return text.get_string_from_ascii()


## A length byte and what it counts.
static func _short(bytes: PackedByteArray) -> PackedByteArray:
	var out := PackedByteArray([bytes.size()])
	out.append_array(bytes)
	return out


static func _initiate() -> PackedByteArray:
	var body := _short("INITIATE".to_ascii_buffer())
	body.append_array(_short("Socket-Type".to_ascii_buffer()))
	body.append_array(PackedByteArray([0, 0, 0]))
	body.append_array(_short("DEALER".to_ascii_buffer()))
	return body
