extends NpcTestCase

var _vectors: Dictionary


func before_each() -> void:
	_vectors = JSON.parse_string(shared_file("frames.json"))


func _bytes(name: String) -> PackedByteArray:
	for vector: Dictionary in _vectors["zmtp"]:
		if vector["name"] == name:
			return String(vector["hex"]).hex_decode()
	push_error("there is no golden `%s`" % name)
	return PackedByteArray()


func _open(chunk := 1 << 20) -> NpcZmtp:
	var zmtp := NpcZmtp.new(_vectors["key"], 1 << 20)
	zmtp.take_outgoing()
	for name: String in ["greeting, daemon", "WELCOME", "READY"]:
		_feed(zmtp, _bytes(name), chunk)
	return zmtp


func _feed(zmtp: NpcZmtp, bytes: PackedByteArray, chunk: int) -> void:
	for at: int in range(0, bytes.size(), chunk):
		zmtp.feed(bytes.slice(at, at + chunk))
		check(zmtp.next_message().is_empty(), "a message of the handshake")


func test_handshake_is_golden_byte_for_byte() -> void:
	var zmtp := NpcZmtp.new(_vectors["key"], 1 << 20)
	var ours := _bytes("greeting, client that knows PING")
	check_equal(zmtp.take_outgoing().hex_encode(), ours.hex_encode(), "greeting")
	for step: Array in [["greeting, daemon", "HELLO"], ["WELCOME", "INITIATE"], ["READY", ""]]:
		_feed(zmtp, _bytes(step[0]), 1 << 20)
		var expected := _bytes(step[1]) if step[1] != "" else PackedByteArray()
		check_equal(zmtp.take_outgoing().hex_encode(), expected.hex_encode(), step[0])
	check_equal(zmtp.stage, NpcZmtp.Stage.OPEN, "stage")


func test_handshake_in_single_bytes() -> void:
	check_equal(_open(1).stage, NpcZmtp.Stage.OPEN, "stage")


func test_frames_are_golden() -> void:
	for name: String in ["message, short frame", "message, long frame"]:
		var zmtp := _open()
		zmtp.feed(_bytes(name))
		var message := zmtp.next_message()
		check_equal(message.size(), 1, name)
		check_equal(NpcZmtp.frame(message[0]).hex_encode(), _bytes(name).hex_encode(), name)


func test_pings_are_answered_with_their_context() -> void:
	var zmtp := _open()
	zmtp.take_outgoing()
	for pair: Array in [["PING", "PONG"], ["PING with a context", "PONG with that context"]]:
		zmtp.feed(_bytes(pair[0]))
		check(zmtp.next_message().is_empty(), "a PING is no message")
		check_equal(zmtp.take_outgoing().hex_encode(), _bytes(pair[1]).hex_encode(), pair[0])
	check_equal(zmtp.beats, 2, "beats")


func test_multipart_messages_are_put_together() -> void:
	var zmtp := _open()
	var long := PackedByteArray()
	long.resize(70000)
	long.fill(7)
	var bytes := NpcZmtp.frame("one".to_utf8_buffer(), 1)
	bytes.append_array(_bytes("PING"))  # a command may stand between the frames of a message
	bytes.append_array(NpcZmtp.frame(long, 1))
	bytes.append_array(NpcZmtp.frame(PackedByteArray()))
	bytes.append_array(NpcZmtp.frame("next".to_utf8_buffer()))
	var got := []
	for at: int in range(0, bytes.size(), 1000):
		zmtp.feed(bytes.slice(at, at + 1000))
		while true:
			var message := zmtp.next_message()
			if message.is_empty():
				break
			got.append(message.map(func(part: PackedByteArray) -> int: return part.size()))
	check_equal(got, [[3, 70000, 0], [4]], "sizes")


func test_wrong_key_in_both_spellings() -> void:
	for name: String in ["ERROR, wrong key", "ERROR as libzmq 4.3 misspells it"]:
		var zmtp := NpcZmtp.new("another key", 1 << 20)
		zmtp.feed(_bytes("greeting, daemon"))
		zmtp.next_message()
		zmtp.feed(_bytes(name))
		zmtp.next_message()
		check(zmtp.fault != null and zmtp.fault.code == "wrong_key", name)


func test_what_breaks_the_protocol_is_refused() -> void:
	var greeting := _bytes("greeting, daemon")
	var curve := greeting.duplicate()
	curve[12] = "C".unicode_at(0)
	var old := greeting.duplicate()
	old[10] = 2
	var early: Dictionary[String, PackedByteArray] = {
		"bad_frame: http": "HTTP/1.1 400 Bad Request\r\n\r\n".to_utf8_buffer(),
		"bad_frame: zmtp 2": old,
		"bad_config: curve": curve,
		"bad_frame: message first": greeting + NpcZmtp.frame("x".to_utf8_buffer()),
		"bad_frame: READY before WELCOME": greeting + _bytes("READY"),
		"bad_frame: a command without a name": greeting + NpcZmtp.frame(PackedByteArray(), 4),
	}
	for name: String in early:
		var zmtp := NpcZmtp.new(_vectors["key"], 1 << 20)
		zmtp.feed(early[name])
		zmtp.next_message()
		check(zmtp.fault != null and name.begins_with(zmtp.fault.code), name)
	var late: Dictionary[String, String] = {
		"bad_frame: unknown flags": "0800",
		"bad_frame: a command with more": "0500",
		"too_large: a frame of 2^24 bytes": "020000000001000000",
		"too_large: a frame of 2^63 bytes": "028000000000000000",
	}
	for name: String in late:
		var zmtp := _open()
		zmtp.feed(late[name].hex_decode())
		zmtp.next_message()
		check(zmtp.fault != null and name.begins_with(zmtp.fault.code), name)
	var endless := _open()
	for i: int in 100:
		endless.feed(NpcZmtp.frame(PackedByteArray([i]), 1))
	check(endless.next_message().is_empty() and endless.fault != null, "endless parts")


func test_broken_bytes_never_crash_the_machine() -> void:
	get_tree().timeout_s = 60.0
	var random := RandomNumberGenerator.new()
	random.seed = 20261122
	var good := PackedByteArray()
	for vector: Dictionary in _vectors["zmtp"]:
		if vector["from"] == "daemon" and not String(vector["name"]).begins_with("ERROR"):
			good.append_array(String(vector["hex"]).hex_decode())
	for vector: Dictionary in _vectors["events"]:
		good.append_array(NpcZmtp.frame(String(vector["hex"]).hex_decode()))
	var broken := 0
	for attempt: int in 150:
		var bytes := good.duplicate()
		for i: int in random.randi_range(1, 6):
			bytes[random.randi_range(0, bytes.size() - 1)] = random.randi_range(0, 255)
		var zmtp := NpcZmtp.new(_vectors["key"], 1 << 20)
		var at := 0
		while at < bytes.size() and zmtp.fault == null:
			var size := random.randi_range(1, 400)
			zmtp.feed(bytes.slice(at, at + size))
			at += size
			while not zmtp.next_message().is_empty():
				pass
		broken += 1 if zmtp.fault != null else 0
	check(broken > 10, "only %d of 150 were found broken" % broken)
