@tool
class_name NpcMsgpack
extends RefCounted
## MessagePack for the values that protocol 1 uses: null, booleans, integers, floats, text,
## binary data, arrays, and maps with text keys.
##
## Source: the format's own page, github.com/msgpack/msgpack, spec.md. Extension types and
## integers above 2^63 - 1 are refused, because no message of the protocol holds any.

## Deepest nesting that is read or written.
const MAX_DEPTH := 16

static var _shared: NpcMsgpack

## Why [method read] gave nothing; empty when it succeeded.
var fault := ""
var _data: PackedByteArray
var _at := 0


func _init(data := PackedByteArray()) -> void:
	_data = data


## The bytes of a value; empty when it holds something that the wire has no form for.
static func pack(value: Variant) -> PackedByteArray:
	var out := StreamPeerBuffer.new()
	out.big_endian = true
	return out.data_array if _put(out, value, 0) else PackedByteArray()


## The map in [param data], or an empty one when it is not exactly one map with text keys.
static func unpack_map(data: PackedByteArray) -> Dictionary:
	if _shared == null:  # making an object costs more than reading a short message
		_shared = NpcMsgpack.new()
	_shared.fault = ""
	_shared._data = data
	_shared._at = 0
	var value: Variant = _shared.read()
	_shared._data = PackedByteArray()
	if _shared.fault == "" and _shared._at == data.size() and value is Dictionary:
		return value
	return {}


## The next value. Look at [member fault] before using it.
func read() -> Variant:
	return _read(0)


## Bytes that [method read] has not used.
func left() -> int:
	return _data.size() - _at


static func _put(out: StreamPeerBuffer, value: Variant, depth: int) -> bool:
	if depth > MAX_DEPTH:
		return false
	match typeof(value):
		TYPE_NIL:
			out.put_u8(0xC0)
		TYPE_BOOL:
			out.put_u8(0xC3 if value else 0xC2)
		TYPE_INT:
			_put_int(out, value)
		TYPE_FLOAT:
			out.put_u8(0xCB)
			out.put_double(value)
		TYPE_STRING, TYPE_STRING_NAME:
			var text := String(value).to_utf8_buffer()
			_put_size(out, text.size(), 0xA0, 32, [0xD9, 0xDA, 0xDB])
			out.put_data(text)
		TYPE_PACKED_BYTE_ARRAY:
			var bytes: PackedByteArray = value
			_put_size(out, bytes.size(), 0, 0, [0xC4, 0xC5, 0xC6])
			out.put_data(bytes)
		TYPE_DICTIONARY:
			return _put_map(out, value, depth)
		TYPE_ARRAY, TYPE_PACKED_STRING_ARRAY:
			return _put_array(out, Array(value), depth)
		_:
			return false
	return true


static func _put_int(out: StreamPeerBuffer, value: int) -> void:
	if value >= -32 and value <= 127:
		out.put_8(value)
	elif value >= 0 and value <= 0xFF:
		out.put_u8(0xCC)
		out.put_u8(value)
	elif value >= 0 and value <= 0xFFFF:
		out.put_u8(0xCD)
		out.put_u16(value)
	elif value >= 0 and value <= 0xFFFFFFFF:
		out.put_u8(0xCE)
		out.put_u32(value)
	elif value >= 0:
		out.put_u8(0xCF)
		out.put_u64(value)
	elif value >= -0x80:
		out.put_u8(0xD0)
		out.put_8(value)
	elif value >= -0x8000:
		out.put_u8(0xD1)
		out.put_16(value)
	elif value >= -0x80000000:
		out.put_u8(0xD2)
		out.put_32(value)
	else:
		out.put_u8(0xD3)
		out.put_64(value)


## The shortest head for a size: one byte below [param below], else 8, 16 or 32 bits. A tag of 0
## means that the type has no such form.
static func _put_size(
	out: StreamPeerBuffer, size: int, tiny: int, below: int, tags: Array[int]
) -> void:
	if size < below:
		out.put_u8(tiny | size)
	elif size <= 0xFF and tags[0] != 0:
		out.put_u8(tags[0])
		out.put_u8(size)
	elif size <= 0xFFFF:
		out.put_u8(tags[1])
		out.put_u16(size)
	else:
		out.put_u8(tags[2])
		out.put_u32(size)


static func _put_map(out: StreamPeerBuffer, map: Dictionary, depth: int) -> bool:
	_put_size(out, map.size(), 0x80, 16, [0, 0xDE, 0xDF])
	for key: Variant in map:
		if not (key is String or key is StringName):
			return false
		if not (_put(out, key, depth + 1) and _put(out, map[key], depth + 1)):
			return false
	return true


static func _put_array(out: StreamPeerBuffer, items: Array, depth: int) -> bool:
	_put_size(out, items.size(), 0x90, 16, [0, 0xDC, 0xDD])
	for item: Variant in items:
		if not _put(out, item, depth + 1):
			return false
	return true


func _read(depth: int) -> Variant:  # gdlint: disable=max-returns
	if depth > MAX_DEPTH:
		return _fail("nested deeper than %d" % MAX_DEPTH)
	if not _has(1):
		return null
	var tag := _data[_at]
	_at += 1
	if tag <= 0x7F:
		return tag
	if tag <= 0xBF and tag >= 0xA0:
		return _text(tag & 0x1F)
	if tag <= 0x8F:
		return _map(tag & 0x0F, depth)
	if tag <= 0x9F:
		return _array(tag & 0x0F, depth)
	if tag >= 0xE0:
		return tag - 0x100
	if tag >= 0xCC and tag <= 0xCF:  # before `match`, which is slow
		return _positive(1 << (tag - 0xCC))
	return _read_long(tag, depth)


func _read_long(tag: int, depth: int) -> Variant:  # gdlint: disable=max-returns
	match tag:
		0xC0:
			return null
		0xC2:
			return false
		0xC3:
			return true
		0xC4, 0xC5, 0xC6:
			return _bytes(_uint(1 << (tag - 0xC4)))
		0xCA, 0xCB:
			return _float(4 if tag == 0xCA else 8)
		0xD0, 0xD1, 0xD2, 0xD3:
			return _int(1 << (tag - 0xD0))
		0xD9, 0xDA, 0xDB:
			return _text(_uint(1 << (tag - 0xD9)))
		0xDC, 0xDD:
			return _array(_uint(2 if tag == 0xDC else 4), depth)
		0xDE, 0xDF:
			return _map(_uint(2 if tag == 0xDE else 4), depth)
	return _fail("type 0x%02x is not of this protocol" % tag)


func _has(count: int) -> bool:
	if fault == "" and _data.size() - _at < count:
		_fail("cut off after %d bytes" % _data.size())
	return fault == ""


func _fail(why: String) -> Variant:
	if fault == "":
		fault = why
	return null


## An unsigned integer of [param width] bytes, high byte first; with its 64th bit set it is
## negative.
func _uint(width: int) -> int:
	if not _has(width):
		return 0
	var value := 0
	for i: int in width:
		value = (value << 8) | _data[_at + i]
	_at += width
	return value


func _positive(width: int) -> int:
	var value := _uint(width)
	if value < 0:
		_fail("an integer above 2^63 - 1")
	return value


func _int(width: int) -> int:
	var value := _uint(width)
	var sign_bit := 1 << (8 * width - 1)
	return value if width == 8 else (value ^ sign_bit) - sign_bit


func _float(width: int) -> float:
	if not _has(width):
		return 0.0
	var bytes := _data.slice(_at, _at + width)
	bytes.reverse()
	_at += width
	return bytes.decode_float(0) if width == 4 else bytes.decode_double(0)


func _bytes(size: int) -> PackedByteArray:
	if not _has(size):
		return PackedByteArray()
	_at += size
	return _data.slice(_at - size, _at)


func _text(size: int) -> String:
	if size == 0 or not _has(size):
		return ""
	var bytes := _data.slice(_at, _at + size)
	_at += size
	var text := bytes.get_string_from_utf8()
	# Godot replaces what is wrong instead of refusing it. As many characters as bytes and none of
	# them replaced is plain ASCII, which is most of what comes; the rest is looked at byte by byte.
	if (text.length() != size or text.contains("\uFFFD")) and not _is_utf8(bytes):
		_fail("text that is not UTF-8")
		return ""
	return text


func _array(size: int, depth: int) -> Array:
	var items := []
	# An item takes a byte at least, so a false size is refused before it costs anything.
	if not _has(size):
		return items
	for i: int in size:
		items.append(_read(depth + 1))
		if fault != "":
			break
	return items


func _map(size: int, depth: int) -> Dictionary:
	var map := {}
	if not _has(2 * size):
		return map
	for i: int in size:
		var key: Variant = _read(depth + 1)
		if not key is String:
			_fail("a map's key that is not text")
		var value: Variant = _read(depth + 1) if fault == "" else null
		if fault != "":
			break
		map[key] = value
	return map


static func _is_utf8(bytes: PackedByteArray) -> bool:
	var more := 0
	var least := 0
	var point := 0
	for byte: int in bytes:
		if more > 0:
			if byte & 0xC0 != 0x80:
				return false
			point = (point << 6) | (byte & 0x3F)
			more -= 1
			if more == 0 and (point < least or point > 0x10FFFF or point & ~0x7FF == 0xD800):
				return false
		elif byte >= 0x80:
			more = 1 if byte & 0xE0 == 0xC0 else 2 if byte & 0xF0 == 0xE0 else 3
			if byte < 0xC2 or byte > 0xF4:
				return false
			least = 0x80 if more == 1 else 0x800 if more == 2 else 0x10000
			point = byte & (0x3F >> more)
		elif byte == 0:
			return false  # Godot's texts end at it
	return more == 0
