@tool
class_name NpcError
extends RefCounted
## What went wrong: [member code] for programs, [member sentence] for designers and players,
## [member detail] and [member hint] for the log.
##
## Codes of the daemon are those of bindings/PROTOCOL.md; those of this addon come first in
## [constant SENTENCES]. A code never changes its meaning.

## What each code means to somebody who does not program.
const SENTENCES: Dictionary[String, String] = {
	"daemon_missing":
	(
		"The program npc-runtime was not found. Install it (pip install its folder), or name it"
		+ " in the project settings under Npc Runtime > Daemon > Command."
	),
	"daemon_failed": "The program npc-runtime stopped by itself: {detail}",
	"port_taken":
	"Another program uses the network port that npc-runtime was told to use. Set the port to 0.",
	"not_alive": "This character has not been spawned yet.",
	"no_runtime":
	"The NpcRuntime autoload is missing. Enable the plugin under Project Settings > Plugins.",
	"wrong_key": "npc-runtime refused the key of this game. Take endpoint and key from one start.",
	"protocol_version":
	"This addon and the installed npc-runtime do not fit together. Install matching versions.",
	"bad_bundle": "The character model is missing or damaged: {detail}",
	"bad_config": "A setting of npc-runtime is wrong: {detail}",
	"connection_lost": "The connection to npc-runtime was lost. Saved characters are safe.",
	"bad_frame": "npc-runtime sent something that this addon cannot read.",
	"too_large": "The text or list is too long: {detail}",
	"bad_input": "Something given to a character is wrong: {detail}",
	"unknown_op": "The installed npc-runtime is too old for this. Install a newer one.",
	"unknown_npc": "No such character is alive: {detail}",
	"unknown_persona": "The persona was not found: {detail}",
	"npc_exists": "Two characters have the same id. Give each its own npc_id.",
	"npc_busy": "The character is still speaking. Wait for the reply, or cancel it first.",
	"nothing_to_rewind": "The character cannot go back that far.",
	"bad_persona": "The persona has a mistake: {detail}",
	"bad_file": "A file cannot be used: {detail}",
	"bad_save": "The save is damaged. Load an older one.",
	"save_mismatch": "The save was made with another character model. It can be loaded by rebuild.",
	"save_failed": "The save could not be written. The older one is untouched.",
	"bad_journal": "The journal cannot be opened: {detail}",
	"journal_failed": "The journal could not be written. Is the disk full? {detail}",
	"overloaded": "Too much at once. Try again in a moment.",
	"queue_full": "Too many lines are waiting to be answered. Try again in a moment.",
	"budget_exceeded": "There is no memory left for another character.",
	"turn_failed": "The character could not answer. Say it again.",
	"cancelled": "The line was taken back before the character heard it.",
	"deadline": "The character did not get to answer in time.",
	"backend_failed": "The computation failed. The character is unharmed.",
	"backend_unavailable": "The chosen way of computing does not work on this machine: {detail}",
	"hello_first": "The addon spoke out of turn. Please report this.",
	"shutting_down": "npc-runtime is ending.",
	"internal": "This is a defect of npc-runtime. Please report it: {detail}",
}

## The stable code.
var code: String
## What was expected and what came.
var detail: String
## What to do about it.
var hint: String
## Whether the same request may succeed later.
var retry: bool
## What a designer or player can be shown.
var sentence: String:
	get:
		var template: String = SENTENCES.get(code, "Something went wrong: {detail}")
		return template.replace("{detail}", detail)


func _init(which: String, why: String, what_to_do := "", again := false) -> void:
	code = which
	detail = why
	hint = what_to_do
	retry = again


## The error in the fields of an `error` answer.
static func from_wire(body: Dictionary) -> NpcError:
	var told := str(body.get("code", "internal"))
	return NpcError.new(
		told, str(body.get("text", "")), str(body.get("hint", "")), body.get("retry") == true
	)


func _to_string() -> String:
	return "%s: %s" % [code, detail]
