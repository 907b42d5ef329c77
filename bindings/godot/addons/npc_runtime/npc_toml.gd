@tool
class_name NpcToml
extends RefCounted
## As much of TOML as persona files use: keys, texts of all four kinds, whole and broken numbers,
## booleans, arrays, [code][tables][/code] and [code][[arrays of tables]][/code].
##
## Dotted and quoted keys, inline tables, dates and other bases are refused with a line number.

const _KEY := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

## Why [method parse] gave nothing; empty when it succeeded.
var fault := ""
var _text := ""
var _at := 0


## The table in a text; look at [member fault] before using it.
func parse(text: String) -> Dictionary:
	_text = text.trim_prefix("\uFEFF").replace("\r\n", "\n")
	_at = 0
	var root := {}
	var table := root
	_skip_lines()
	while _at < _text.length() and fault == "":
		if _peek() == "[":
			table = _header(root)
		else:
			_pair(table)
		_skip_space()
		if fault == "" and _at < _text.length() and _peek() != "\n":
			_fail("something stands behind the end of the line's value")
		_skip_lines()
	return root


func _fail(why: String) -> void:
	if fault == "":
		fault = "line %d: %s" % [_text.left(_at).count("\n") + 1, why]


func _peek(count := 1) -> String:
	return _text.substr(_at, count)


func _skip_space() -> void:
	while _at < _text.length() and _text[_at] in " \t":
		_at += 1
	if _peek() == "#":
		var end := _text.find("\n", _at)
		_at = _text.length() if end < 0 else end


func _skip_lines() -> void:
	_skip_space()
	while _peek() == "\n":
		_at += 1
		_skip_space()


func _header(root: Dictionary) -> Dictionary:
	var many := _peek(2) == "[["
	_at += 2 if many else 1
	var name := _key()
	var close := "]]" if many else "]"
	if fault == "" and _peek(close.length()) != close:
		_fail("`%s` is missing" % close)
	_at += close.length()
	var table := {}
	if many and root.get_or_add(name, []) is Array:
		(root[name] as Array).append(table)
	elif root.has(name):
		_fail("`%s` stands here a second time" % name)
	else:
		root[name] = table
	return table


func _pair(table: Dictionary) -> void:
	var name := _key()
	if fault == "" and _peek() != "=":
		_fail("`=` is missing after `%s`" % name)
	if fault == "" and table.has(name):
		_fail("`%s` stands here a second time" % name)
	_at += 1
	_skip_space()
	if fault == "":
		table[name] = _value(0)


func _key() -> String:
	_skip_space()
	var start := _at
	while _at < _text.length() and _KEY.contains(_text[_at]):
		_at += 1
	var name := _text.substr(start, _at - start)
	if name == "":
		_fail("a plain key is expected")
	_skip_space()
	return name


func _value(depth: int) -> Variant:
	for quote: String in ['"""', "'''", '"', "'"]:
		if _peek(quote.length()) == quote:
			_at += quote.length()
			return _string(quote)
	if _peek() == "[" and depth < 4:
		return _array(depth)
	var start := _at
	while _at < _text.length() and not _text[_at] in " \t\n,]#":
		_at += 1
	var word := _text.substr(start, _at - start).replace("_", "")
	if word == "true" or word == "false":
		return word == "true"
	if word.is_valid_int():
		return word.to_int()
	if word.is_valid_float():
		return word.to_float()
	_fail("`%s` is not a value that a persona can hold" % word.left(40))
	return null


func _array(depth: int) -> Array:
	var items := []
	_at += 1
	_skip_lines()
	while fault == "" and _peek() != "]":
		items.append(_value(depth + 1))
		_skip_lines()
		if _peek() == ",":
			_at += 1
			_skip_lines()
		elif _peek() != "]":
			_fail("`,` or `]` is expected")
	_at += 1
	return items


func _string(quote: String) -> String:
	var plain := quote[0] == "'"
	var long := quote.length() == 3
	var out := ""
	if long and _peek() == "\n":
		_at += 1
	while _at < _text.length() and fault == "":
		if _peek(quote.length()) == quote:
			_at += quote.length()
			return out
		var letter := _text[_at]
		_at += 1
		if letter == "\n" and not long:
			break
		out += _escaped() if letter == "\\" and not plain else letter
	_fail("the text does not end")
	return out


func _escaped() -> String:
	var letter := _peek()
	_at += 1
	match letter:
		"n", "t", "r", "b", "f":
			return {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}[letter]
		'"', "\\":
			return letter
		"u", "U":
			var count := 4 if letter == "u" else 8
			var digits := _peek(count)
			_at += count
			var code := digits.hex_to_int() if digits.is_valid_hex_number() else -1
			if code > 0 and code <= 0x10FFFF and code & ~0x7FF != 0xD800:
				return String.chr(code)
			_fail("`\\%s%s` is no character" % [letter, digits])
		"\n", " ", "\t":
			while _at < _text.length() and _text[_at] in " \t\n":
				_at += 1
		_:
			_fail("`\\%s` means nothing" % letter)
	return ""
