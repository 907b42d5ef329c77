extends NpcTestCase


func test_golden_values_are_read_and_written_alike() -> void:
	var vectors: Dictionary = JSON.parse_string(shared_file("frames.json"))
	var shortest := true
	for vector: Dictionary in vectors["msgpack"]:
		var bytes := String(vector["hex"]).hex_decode()
		var reader := NpcMsgpack.new(bytes)
		var value: Variant = reader.read()
		check_equal(reader.fault, "", vector["name"])
		check_equal(reader.left(), 0, "%s: bytes left" % vector["name"])
		check(_same(value, vector["value"]), "%s: got %s" % [vector["name"], value])
		shortest = shortest and vector["name"] != "float 32"  # from here on, longer forms than ours
		if shortest:
			check_equal(NpcMsgpack.pack(value).hex_encode(), vector["hex"], vector["name"])
	check(vectors["msgpack"].size() > 40, "the golden values are missing")


func test_golden_messages_come_back_byte_for_byte() -> void:
	var vectors: Dictionary = JSON.parse_string(shared_file("frames.json"))
	var messages: Array = vectors["requests"] + vectors["events"]
	check(messages.size() > 30, "the golden messages are missing")
	for vector: Dictionary in messages:
		var body := NpcMsgpack.unpack_map(String(vector["hex"]).hex_decode())
		check(_same(body, vector["body"]), "%s: got %s" % [vector["body"], body])
		check_equal(NpcMsgpack.pack(body).hex_encode(), vector["hex"], str(vector["body"]))


func test_what_is_no_map_of_the_protocol_is_refused() -> void:
	var bad: Dictionary[String, String] = {
		"nothing": "",
		"a reserved tag": "c1",
		"an extension": "d40105",
		"not a map": "9101",
		"a key that is not text": "810101",
		"a map cut off": "82a16101",
		"bytes behind the map": "81a1610100",
		"an integer above 2^63 - 1": "81a161cfffffffffffffffff",
		"text that is not UTF-8": "81a161a2fffe",
		"an overlong form": "81a161a2c0af",
		"a surrogate": "81a161a3eda080",
		"an array of four thousand million": "81a161ddffffffff",
		"binary of four thousand million": "81a161c6ffffffff",
		"nested too deep": "81a161" + "91".repeat(40) + "c0",
	}
	for name: String in bad:
		check_equal(NpcMsgpack.unpack_map(bad[name].hex_decode()), {}, name)


func test_values_without_a_form_are_not_packed() -> void:
	for value: Variant in [Vector2.ONE, {1: 2}, [Node], {"a": [{"b": Color.RED}]}]:
		check_equal(NpcMsgpack.pack(value), PackedByteArray(), str(value))
	var deep: Variant = null
	for i: int in 40:
		deep = [deep]
	check_equal(NpcMsgpack.pack(deep), PackedByteArray(), "nested too deep")


func test_integers_of_every_width_come_back() -> void:
	for power: int in 63:
		for value: int in [1 << power, (1 << power) - 1, -(1 << power), -(1 << power) - 1]:
			var reader := NpcMsgpack.new(NpcMsgpack.pack(value))
			check_equal(reader.read(), value, "2^%d" % power)
			check_equal(reader.left(), 0, "2^%d: bytes left" % power)


func test_broken_bytes_never_crash_the_reader() -> void:
	get_tree().timeout_s = 60.0
	var random := RandomNumberGenerator.new()
	random.seed = 20261122
	var vectors: Dictionary = JSON.parse_string(shared_file("frames.json"))
	var read := 0
	for vector: Dictionary in vectors["requests"] + vectors["events"]:
		var good := String(vector["hex"]).hex_decode()
		for attempt: int in 60:
			var bytes := _broken(good, random)
			var reader := NpcMsgpack.new(bytes)
			var value: Variant = _read_quietly(reader)
			read += 1
			if reader.fault == "" and value is Dictionary:
				check(NpcMsgpack.pack(value).size() > 0, "%s was read" % bytes.hex_encode())
	for attempt: int in 500:
		var bytes := PackedByteArray()
		for i: int in random.randi_range(0, 60):
			bytes.append(random.randi_range(0, 255))
		_read_quietly(NpcMsgpack.new(bytes))
	check(read > 2000, "only %d were tried" % read)


## Godot prints a line for each broken text; four hundred of them would hide what matters. (While it
## is silent no check can fail either.)
func _read_quietly(reader: NpcMsgpack) -> Variant:
	Engine.print_error_messages = false
	var value: Variant = reader.read()
	Engine.print_error_messages = true
	return value


func _broken(good: PackedByteArray, random: RandomNumberGenerator) -> PackedByteArray:
	var bytes := good.duplicate()
	for i: int in random.randi_range(1, 4):
		var at := random.randi_range(0, bytes.size() - 1)
		match random.randi_range(0, 2):
			0:
				bytes[at] = random.randi_range(0, 255)
			1:
				bytes.insert(at, random.randi_range(0, 255))
			2 when bytes.size() > 1:
				bytes.remove_at(at)
	return bytes


## Compares a value with what JSON made of it: every number is a float there.
func _same(value: Variant, told: Variant) -> bool:  # gdlint: disable=max-returns
	if told is Dictionary and (told as Dictionary).has("$bin"):
		return value is PackedByteArray and (value as PackedByteArray).hex_encode() == told["$bin"]
	if value is Dictionary and told is Dictionary:
		return value.keys() == told.keys() and _same(value.values(), told.values())
	if value is Array and told is Array:
		if value.size() != told.size():
			return false
		for i: int in value.size():
			if not _same(value[i], told[i]):
				return false
		return true
	if value is int and told is float:
		return float(value as int) == told
	return typeof(value) == typeof(told) and value == told
