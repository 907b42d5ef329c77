@tool
class_name NpcRequest
extends RefCounted
## One request to the daemon and what comes of it. Await [method done].

## Part of a streamed Reply: `mood`, `act` or `delta`, with its fields.
signal piece(ev: String, body: Dictionary)
## The answer, or an error, is there.
signal settled

var message: Dictionary
## The fields of the answer.
var body := {}
## Null when it succeeded.
var error: NpcError
var is_settled := false
## When it was handed over, and when waiting for a connection ends (ms of the engine's clock).
var began := 0
var patience := 0


func _init(what: Dictionary) -> void:
	message = what
	began = Time.get_ticks_msec()


## This request once it has been answered.
func done() -> NpcRequest:
	if not is_settled:
		await settled
	return self


## Takes the next event.
func feed(ev: String, fields: Dictionary) -> void:
	if ev == "ok" or ev == "done":
		body = fields
		_settle()
	elif ev == "error":
		fail(NpcError.from_wire(fields))
	else:
		piece.emit(ev, fields)


## Ends the request with an error, unless it has ended.
func fail(why: NpcError) -> void:
	if not is_settled:
		error = why
		_settle()


func _settle() -> void:
	is_settled = true
	settled.emit()
