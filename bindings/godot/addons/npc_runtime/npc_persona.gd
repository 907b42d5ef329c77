@tool
class_name NpcPersona
extends Resource
## Who a character is: voice, knowledge, wishes. The same fields, with the same limits, as
## npc-runtime's persona files (personas/README.md tells how to write them well).

const MOODS: Array[String] = [
	"neutral", "happy", "amused", "fond", "sad", "angry", "afraid", "surprised", "wary", "proud"
]
const ACTIONS: Array[String] = [
	"trade", "give", "take", "quest", "follow", "attack", "flee", "leave", "point"
]
## UTF-8 bytes of all that the model reads.
const MAX_BYTES := 8192
const MAX_FILE_BYTES := 65536

## Why the last [method load_toml] gave null.
static var last_problem := ""

## What the character is called. Required.
@export var name := ""
## What it is, in one phrase: [code]blacksmith[/code]. Required.
@export var role := ""
## How it is, up to 8; no commas inside one.
@export var traits: PackedStringArray = []
## How it talks.
@export_multiline var voice := ""
## Facts it can tell, up to 24, each with a name or a number in it; no semicolons inside one.
@export var knows: PackedStringArray = []
## What it is after.
@export_multiline var wants := ""
## Where and when the player meets it.
@export_multiline var setting := ""
## Moods a reply may have; empty for the ten that the default model knows.
@export var moods: PackedStringArray = []
## Actions a reply may have; empty for the nine that the default model knows.
@export var actions: PackedStringArray = []
## Whether it never acts, so that [member actions] does not count.
@export var never_acts := false

@export_group("Speech")
## Its first line, said before the player speaks.
@export_multiline var opening := ""
@export var opening_mood := "neutral"
## Lines and answers that show the voice, up to 8.
@export var samples: Array[NpcSample] = []
## Lines spoken when no reply can be had, up to 8.
@export var fallbacks: PackedStringArray = []

@export_group("Sampling")
## 0 always takes the likeliest word; above 1 it wanders.
@export_range(0, 5) var temperature := 0.7
## Share of likelihood that is drawn from.
@export_range(0.01, 1) var top_p := 0.9
## How much each earlier use counts against a word.
@export_range(0, 10) var repetition := 0.3
## Where a reply is cut; a token is about three quarters of a word.
@export_range(1, 512) var max_tokens := 96


## The persona of a TOML file of the project; null when it is not a good one, and then
## [member last_problem] says why.
static func load_toml(path: String) -> NpcPersona:
	var file := FileAccess.open(path, FileAccess.READ)
	if file == null:
		last_problem = (
			"`%s` cannot be opened: %s" % [path, error_string(FileAccess.get_open_error())]
		)
		return null
	if file.get_length() > MAX_FILE_BYTES:
		last_problem = "`%s` must be at most %d bytes" % [path, MAX_FILE_BYTES]
		return null
	var toml := NpcToml.new()
	var table := toml.parse(file.get_as_text())
	var found := PackedStringArray()
	if toml.fault != "":
		found.append("it is not TOML: " + toml.fault)
	var made := from_table(table, found)
	last_problem = "" if found.is_empty() else "`%s`: %s" % [path, found[0]]
	return made if found.is_empty() else null


## The persona of a table of fields; what is wrong with it is added to [param found].
static func from_table(table: Dictionary, found: PackedStringArray = []) -> NpcPersona:
	found.append_array(NpcPersonaCheck.problems(table))
	var made := NpcPersona.new()
	if not found.is_empty():
		return made
	for field: String in table:
		match field:
			"samples":
				for line: Dictionary in table["samples"]:
					var sample := NpcSample.new()
					for part: String in line:
						sample.set(part, line[part])
					made.samples.append(sample)
			"sampling":
				for part: String in table["sampling"]:
					made.set(part, table["sampling"][part])
			_:
				made.set(field, table[field])
	made.never_acts = table.get("actions", [0]) == []
	return made


## The fields as a table, as `spawn` takes it; what is left at its default is left out.
func to_table() -> Dictionary:
	var table := {}
	for field: String in ["name", "role", "voice", "wants", "setting", "opening"]:
		if get(field) != "":
			table[field] = get(field)
	for field: String in ["traits", "knows", "moods", "actions", "fallbacks"]:
		var items: PackedStringArray = get(field)
		if not items.is_empty():
			table[field] = Array(items)
	if never_acts:
		table["actions"] = []
	if opening_mood != "neutral":
		table["opening_mood"] = opening_mood
	if not samples.is_empty():
		table["samples"] = samples.map(_sample_table)
	var sampling := {}
	for field: String in ["temperature", "top_p", "repetition", "max_tokens"]:
		if get(field) != (get_script() as Script).get_property_default_value(field):
			sampling[field] = get(field)
	if not sampling.is_empty():
		table["sampling"] = sampling
	return table


## What is wrong with it, in sentences; empty when nothing is.
func problems() -> PackedStringArray:
	return NpcPersonaCheck.problems(to_table())


## What the model reads of it, as text.
func preview() -> String:
	var lines := PackedStringArray()
	var table := to_table()
	for field: String in ["name", "role", "traits", "voice", "knows", "wants", "setting"]:
		var value: Variant = table.get(field)
		if value is Array:
			value = ("; " if field == "knows" else ", ").join(PackedStringArray(value))
		if value != null:
			lines.append("%s: %s" % [field, value])
	for sample: NpcSample in samples:
		if sample != null:
			lines.append("— %s\n    %s" % [sample.player, sample.npc])
	if opening != "":
		lines.append("“%s”" % opening)
	return "\n".join(lines)


static func _sample_table(sample: NpcSample) -> Dictionary:
	var table := {}
	if sample != null:
		table = {"player": sample.player, "npc": sample.npc}
		if sample.mood != "neutral":
			table["mood"] = sample.mood
		if sample.action != "":
			table["action"] = sample.action
	return table
