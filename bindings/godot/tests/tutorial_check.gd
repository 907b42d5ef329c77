extends Node
## Plays what the README's tutorial built: types a line, sees it answered, saves, talks on, loads.

@onready var forge: Node2D = $Forge


func _ready() -> void:
	await _until(func() -> bool: return forge.bubble.text == "Mind the sparks.")
	forge.line.text_submitted.emit("Do you have any knives?")
	await _until(func() -> bool: return forge.marta.is_speaking)
	await _until(func() -> bool: return not forge.marta.is_speaking)
	var streamed: String = forge.bubble.text
	await forge.save_game()
	var first: NpcReply = await forge.marta.say("Who keeps the mill?")
	await forge.load_game()
	var again: NpcReply = await forge.marta.say("Who keeps the mill?")
	var same := first.ok and first.text == again.text and first.mood == again.mood
	var cleared: bool = forge.line.text == ""
	print("tutorial: streamed %d letters, same %s, cleared %s" % [streamed.length(), same, cleared])
	get_tree().quit(0 if same and cleared and streamed != "" else 1)


func _until(holds: Callable) -> void:
	var end := Time.get_ticks_msec() + 40_000
	while not holds.call():
		if Time.get_ticks_msec() > end:
			print("tutorial: waited in vain")
			get_tree().quit(1)
		await get_tree().process_frame
