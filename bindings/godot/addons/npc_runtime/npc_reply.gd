@tool
class_name NpcReply
extends RefCounted
## What a character answered.

## False when no reply could be had; [member error_code] then says why, and [member text] may hold
## one of the persona's fallback lines.
var ok := true
var error_code := ""
var mood := "neutral"
## Empty when there is none.
var action := ""
var text := ""
## `end`, `length` (cut at max_tokens), `cancelled` or `fallback`.
var finish := "end"
## How many turns the character had lived before this one.
var turn := 0
var seed_used := 0
## Index of the line taken by `choose`; -1 otherwise.
var choice := -1
## Counts: `read`, `spoken`, `reread` (always 0 unless a rebuild was asked for).
var tokens := {}
## Milliseconds: `queued`, `first` (to the first text), `total`.
var ms := {}


## The Reply in the fields of a `done` answer.
static func from_wire(body: Dictionary) -> NpcReply:
	var reply := NpcReply.new()
	reply.mood = str(body.get("mood", "neutral"))
	reply.action = "" if body.get("action") == null else str(body["action"])
	reply.text = str(body.get("text", ""))
	reply.finish = str(body.get("finish", "end"))
	reply.turn = _number(body.get("turn"))
	reply.seed_used = _number(body.get("seed"))
	reply.tokens = _table(body.get("tokens"))
	reply.ms = _table(body.get("ms"))
	return reply


## The Reply that stands in for one that failed.
static func fallback(error: NpcError, line: String) -> NpcReply:
	var reply := NpcReply.new()
	reply.ok = false
	reply.error_code = error.code
	reply.text = line
	reply.finish = "fallback"
	return reply


static func _number(value: Variant) -> int:
	return value if value is int else 0


static func _table(value: Variant) -> Dictionary:
	return value if value is Dictionary else {}
