extends Node
## Plays the game as a player does, with keys and clicks; takes pictures where there is a screen.
## Ends with status 0 when everything went as it should. `NPC_TEST_OUT` is where pictures go.

var _failures := 0
var _checks := 0
@onready var tavern: Tavern = $Tavern


func _ready() -> void:
	Engine.max_fps = 20  # a software renderer would draw as much as the processor can
	_play()


func _play() -> void:
	var all := func() -> bool: return tavern.people.all(_lives)
	_check(await _until(all, 60.0), "everybody is there")
	await _seconds(0.5)
	await _picture("tavern_1_welcome")
	await _speak_to(tavern.people[2])
	await _interrupt(tavern.people[2])
	await _trade(tavern.people[0])
	await _save_and_load(tavern.people[1])
	await _gossip()
	print("scripted player: %d checks, %d failed" % [_checks, _failures])
	get_tree().quit(mini(_failures, 1) if _checks > 15 else 2)


func _lives(person: Person) -> bool:
	return person.npc.is_alive() and person.bubble.visible


## Walks to Osk and tells him a rumour; Marta stands near enough to hear, Bram does not.
func _speak_to(osk: Person) -> void:
	var minds := [await tavern.people[1].npc.snapshot(), await tavern.people[0].npc.snapshot()]
	await _walk_to(osk)
	_check(tavern.near == osk, "next to Osk")
	osk.npc.pace = 12.0
	var moods: Array[String] = []
	osk.npc.mood_changed.connect(func(mood: String) -> void: moods.append(mood))
	await _type("Guess what: there is silver under the third willow.")
	var streams := func() -> bool: return osk.bubble.is_growing and osk.bubble.shown() != ""
	_check(await _until(streams), "Osk speaks")
	await _picture("tavern_2_streaming")
	_check(await _until(func() -> bool: return not osk.npc.is_speaking), "Osk has spoken")
	tavern.hud.shop.hide()
	_check(moods.size() == 1 and moods[0] == osk.npc.mood, "one mood, on his face")
	_check(osk.bubble.shown() != "", "his line is on show")
	await _seconds(0.5)
	_check(await tavern.people[1].npc.snapshot() != minds[0], "Marta overheard")
	_check(await tavern.people[0].npc.snapshot() == minds[1], "Bram is too far away")


func _interrupt(osk: Person) -> void:
	osk.npc.pace = 6.0
	var finished: Array[NpcReply] = []
	osk.npc.reply_finished.connect(func(reply: NpcReply) -> void: finished.append(reply))
	await _type("Tell me all about your mill, and do not leave anything out.")
	await _until(func() -> bool: return osk.bubble.shown() != "")
	await _key(KEY_ESCAPE)
	_check(await _until(func() -> bool: return not finished.is_empty()), "he stops")
	_check(finished[0].finish in ["cancelled", "end"], "finish: " + finished[0].finish)
	for person: Person in tavern.people:
		person.npc.pace = 0.0  # what streaming looks like has been seen


func _trade(bram: Person) -> void:
	await _walk_to(bram)
	tavern.hud.shop.hide()  # Osk may have opened his
	var lines := [
		"Do you have a room?", "I want to buy a bed for the night.", "How much is the soup?"
	]
	for attempt: int in 15:
		await _type(lines[attempt % 3])
		await _until(func() -> bool: return bram.npc.is_speaking)
		await _until(func() -> bool: return not bram.npc.is_speaking)
		if _sells(bram):
			break
	_check(_sells(bram), "the shop opens by a reply's action")
	await _seconds(0.3)
	await _picture("tavern_3_shop")
	var before := tavern.crowns
	await _click(tavern.hud.shop._rows.get_child(1) as Button)
	_check(tavern.crowns == before - 1, "a bowl of soup is paid for")
	_check(not tavern.hud.shop.visible, "the shop is closed")


func _sells(person: Person) -> bool:
	var shop := tavern.hud.shop
	return shop.visible and (shop._rows.get_child(0) as Label).text.begins_with(person.called())


func _save_and_load(marta: Person) -> void:
	await _walk_to(marta)
	await _seconds(0.5)  # what was bought is still being perceived
	var crowns := tavern.crowns
	var at := tavern.player.position
	var minds := await _minds()
	await _click(_button("Save 1"))
	_check(
		await _until(func() -> bool: return FileAccess.file_exists("user://slot1.save")), "saved"
	)
	await _type("My name is Halla, and I owe you nothing.")
	await _until(func() -> bool: return marta.npc.is_speaking)
	await _until(func() -> bool: return not marta.npc.is_speaking)
	await _seconds(0.5)
	_check(await _minds() != minds, "they remember the new line")
	tavern.crowns = 0
	_check(await tavern.load_slot(1), "loading")
	_check(tavern.crowns == crowns and tavern.player.position == at, "purse and place")
	_check(await _minds() == minds, "every mind is that of the save")
	await _seconds(0.3)
	await _picture("tavern_4_loaded")


func _gossip() -> void:
	var before := await tavern.people[0].npc.snapshot()
	var said := await tavern.tell_on(tavern.people[1])
	_check(said != "", "Marta gossips")
	await _seconds(0.5)
	_check(
		await tavern.people[0].npc.snapshot() != before, "Bram hears what Marta overheard from Osk"
	)
	await _picture("tavern_5_gossip")


func _minds() -> Array[PackedByteArray]:
	var minds: Array[PackedByteArray] = []
	for person: Person in tavern.people:
		minds.append(await person.npc.snapshot())
	return minds


func _walk_to(person: Person) -> void:
	var goal := person.position + Vector2(-80.0, 75.0)
	for axis: int in 2:
		var keys := [[KEY_LEFT, KEY_RIGHT], [KEY_UP, KEY_DOWN]][axis] as Array
		var ahead: bool = goal[axis] > tavern.player.position[axis]
		_press(keys[1 if ahead else 0], true)
		await _until(
			func() -> bool:
				var at := tavern.player.position[axis]
				return at >= goal[axis] - 4.0 if ahead else at <= goal[axis] + 4.0,
			8.0
		)
		_press(keys[1 if ahead else 0], false)
	await _frames(3)


func _type(text: String) -> void:
	await _key(KEY_ENTER)
	_check(tavern.hud.line.has_focus(), "the line is ready to be typed")
	for letter: String in text:
		var event := InputEventKey.new()
		event.unicode = letter.unicode_at(0)
		event.pressed = true
		Input.parse_input_event(event)
	await _frames(1)
	_check(tavern.hud.line.text == text, "what is typed: " + tavern.hud.line.text)
	await _key(KEY_ENTER)


func _key(code: Key) -> void:
	_press(code, true)
	await _frames(2)
	_press(code, false)
	await _frames(2)


func _press(code: Key, down: bool) -> void:
	var event := InputEventKey.new()
	event.keycode = code
	event.physical_keycode = code
	event.pressed = down
	Input.parse_input_event(event)


func _click(button: Button) -> void:
	for down: bool in [true, false]:
		var event := InputEventMouseButton.new()
		event.button_index = MOUSE_BUTTON_LEFT
		event.position = button.get_global_rect().get_center()
		event.global_position = event.position
		event.pressed = down
		get_viewport().push_input(event)
		await _frames(2)


func _button(title: String) -> Button:
	return tavern.hud.find_child(title.validate_node_name(), true, false) as Button


func _check(holds: bool, what: String) -> void:
	_checks += 1
	if not holds:
		_failures += 1
		print("FAIL ", what)


func _until(holds: Callable, seconds := 30.0) -> bool:
	var end := Time.get_ticks_msec() + int(seconds * 1000.0)
	while not holds.call():
		if Time.get_ticks_msec() > end:
			return false
		await get_tree().process_frame
	return true


func _frames(count: int) -> void:
	for i: int in count:
		await get_tree().process_frame


func _seconds(count: float) -> void:
	await get_tree().create_timer(count).timeout


func _picture(name: String) -> void:
	if DisplayServer.get_name() == "headless":
		return
	await RenderingServer.frame_post_draw
	var folder := OS.get_environment("NPC_TEST_OUT")
	get_viewport().get_texture().get_image().save_png(folder.path_join(name + ".png"))
