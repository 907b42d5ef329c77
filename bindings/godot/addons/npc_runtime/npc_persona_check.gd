@tool
class_name NpcPersonaCheck
extends RefCounted
## The rules of personas/README.md, so that the inspector can tell a mistake before the daemon does.

enum Kind { TEXT, WORD, NUMBER, COUNT }

const _FIELDS: Dictionary[String, Array] = {
	"name": [Kind.TEXT, 1, 64],
	"role": [Kind.TEXT, 1, 120],
	"voice": [Kind.TEXT, 0, 300],
	"wants": [Kind.TEXT, 0, 240],
	"setting": [Kind.TEXT, 0, 240],
	"opening": [Kind.TEXT, 0, 400],
	"opening_mood": [Kind.WORD, 1, 24],
}
## Field: kind, least and most of one item, most items, least items, what may not stand inside one.
const _LISTS: Dictionary[String, Array] = {
	"traits": [Kind.TEXT, 1, 60, 8, 0, ","],
	"knows": [Kind.TEXT, 1, 240, 24, 0, ";"],
	"moods": [Kind.WORD, 1, 24, 24, 1, ""],
	"actions": [Kind.WORD, 1, 24, 24, 0, ""],
	"fallbacks": [Kind.TEXT, 1, 240, 8, 0, ""],
}
const _SAMPLE: Dictionary[String, Array] = {
	"player": [Kind.TEXT, 1, 240],
	"npc": [Kind.TEXT, 1, 400],
	"mood": [Kind.WORD, 1, 24],
	"action": [Kind.TEXT, 0, 24],
}
const _SAMPLING: Dictionary[String, Array] = {
	"temperature": [Kind.NUMBER, 0.0, 5.0],
	"top_p": [Kind.NUMBER, 0.01, 1.0],
	"repetition": [Kind.NUMBER, 0.0, 10.0],
	"max_tokens": [Kind.COUNT, 1.0, 512.0],
}
const _READ: Array[String] = [
	"name", "role", "traits", "voice", "knows", "wants", "setting", "opening", "samples"
]

static var _hidden := RegEx.create_from_string("[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Zl}\\p{Zp}]")
static var _space := RegEx.create_from_string("[ \\t\\r\\n]+")
static var _word := RegEx.create_from_string("^[a-z]{1,24}$")


## What is wrong with a table of a persona's fields.
static func problems(table: Dictionary) -> PackedStringArray:
	var found := PackedStringArray()
	for field: Variant in table:
		if field in _FIELDS:
			_one(found, "`%s`" % field, table[field], _FIELDS[field])
		elif field in _LISTS:
			_list(found, "`%s`" % field, table[field], _LISTS[field])
		elif field == "samples":
			_samples(found, table[field])
		elif field == "sampling":
			_table(found, "`sampling`", table[field], _SAMPLING, [])
		else:
			found.append("`%s` is not a field of a persona" % str(field).left(40))
	for field: String in ["name", "role"]:
		if not table.has(field):
			found.append("`%s` is missing" % field)
	if found.is_empty():
		_words(found, table)
		_size(found, table)
	return found


static func _one(found: PackedStringArray, where: String, value: Variant, rule: Array) -> void:
	match rule[0]:
		Kind.TEXT:
			_text(found, where, value, rule)
		Kind.WORD:
			if not value is String or _word.search(value) == null:
				found.append("%s must be a word of 1 to 24 letters a to z" % where)
		_:
			var good: bool = value is int or value is float and rule[0] == Kind.NUMBER
			if not good or not (value >= rule[1] and value <= rule[2]):
				var kind := "a whole number" if rule[0] == Kind.COUNT else "a number"
				found.append("%s must be %s from %s to %s" % [where, kind, rule[1], rule[2]])


static func _text(found: PackedStringArray, where: String, value: Variant, rule: Array) -> void:
	if not value is String:
		found.append("%s must be text" % where)
		return
	var line := _space.sub(value, " ", true).strip_edges()
	if line.length() < rule[1]:
		found.append("%s is empty" % where)
	elif line.length() > rule[2]:
		found.append("%s may hold %d characters, got %d" % [where, rule[2], line.length()])
	elif _hidden.search(line) != null:
		found.append("%s must not hold control or invisible characters" % where)
	elif rule.size() > 5 and rule[5] != "" and line.contains(rule[5]):
		found.append("%s must not hold `%s`; make it two items" % [where, rule[5]])


static func _list(found: PackedStringArray, where: String, value: Variant, rule: Array) -> void:
	var items: Array = value if value is Array else []
	if not value is Array or items.size() > rule[3] or items.size() < rule[4]:
		found.append("%s must be a list of %d to %d" % [where, rule[4], rule[3]])
		return
	for i: int in items.size():
		_one(found, "%s item %d" % [where, i + 1], items[i], rule)
		if rule[0] == Kind.WORD and items.find(items[i]) < i:
			found.append("%s names `%s` more than once" % [where, str(items[i]).left(24)])


static func _samples(found: PackedStringArray, value: Variant) -> void:
	if not value is Array or (value as Array).size() > 8:
		found.append("`samples` must be a list of up to 8")
		return
	var number := 0
	for sample: Variant in value:
		number += 1
		_table(found, "`samples` item %d" % number, sample, _SAMPLE, ["player", "npc"])


static func _table(
	found: PackedStringArray,
	where: String,
	value: Variant,
	rules: Dictionary,
	needed: Array[String]
) -> void:
	if not value is Dictionary:
		found.append("%s must be a table" % where)
		return
	for field: Variant in value:
		if field in rules:
			_one(found, "%s, `%s`" % [where, field], value[field], rules[field])
		else:
			found.append("%s: `%s` is not a field of it" % [where, str(field).left(40)])
	for field: String in needed:
		if not field in value:
			found.append("%s: `%s` is missing" % [where, field])


## The moods and actions that the persona itself uses are among those it allows.
static func _words(found: PackedStringArray, table: Dictionary) -> void:
	var moods: Array = table.get("moods", NpcPersona.MOODS)
	var actions: Array = table.get("actions", NpcPersona.ACTIONS)
	var opening_mood: String = table.get("opening_mood", "neutral")
	var opening: String = table.get("opening", "")
	if opening.strip_edges() != "" and not opening_mood in moods:
		found.append("`opening_mood` must be one of the persona's moods, got `%s`" % opening_mood)
	for sample: Dictionary in table.get("samples", []):
		var mood: String = sample.get("mood", "neutral")
		var action: String = _space.sub(sample.get("action", ""), " ", true).strip_edges()
		if not mood in moods:
			found.append("a sample's `mood` must be one of the persona's moods, got `%s`" % mood)
		if action != "" and not action in actions:
			found.append(
				"a sample's `action` must be one of the persona's actions, got `%s`" % action
			)


static func _size(found: PackedStringArray, table: Dictionary) -> void:
	var total := 0
	for field: String in _READ:
		total += _bytes(table.get(field, ""))
	if total > NpcPersona.MAX_BYTES:
		found.append("all texts together may hold %d bytes, got %d" % [NpcPersona.MAX_BYTES, total])


static func _bytes(value: Variant) -> int:
	if value is Array:
		var total := 0
		for item: Variant in value:
			total += _bytes(item)
		return total
	if value is Dictionary:
		return _bytes(value["player"]) + _bytes(value["npc"])
	return _space.sub(str(value), " ", true).strip_edges().to_utf8_buffer().size()
