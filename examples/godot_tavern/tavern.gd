class_name Tavern
extends Node2D
## The game: walk up to somebody, type a line, see the mood, trade, be overheard, save and load.

## How far a voice carries across the room, in pixels.
const EARSHOT := 300.0
const TRADE_WORDS: Array[String] = ["buy", "sell", "price", "how much", "have a room", "trade"]

var crowns := 12
var near: Person
@onready var hud: Hud = $Hud
@onready var player: Player = $Actors/Player
@onready var people: Array[Person] = [$Actors/Bram, $Actors/Marta, $Actors/Osk]


func _ready() -> void:
	for person: Person in people:
		person.wants_to.connect(_on_action.bind(person))
		person.npc.reply_finished.connect(_on_reply.bind(person))
		person.npc.failed.connect(_on_failed)
	hud.said.connect(_on_said)
	hud.saved.connect(save_slot)
	hud.loaded.connect(load_slot)
	hud.time_passed.connect(gossip)
	hud.shop.bought.connect(_on_bought)
	hud.count(crowns)
	NpcRuntime.connected.connect(func(_card: Dictionary) -> void: hud.tell("The fire is lit."))


func _process(_delta: float) -> void:
	player.may_walk = not hud.line.has_focus()
	near = null
	for person: Person in people:
		var distance := person.position.distance_to(player.position)
		person.is_near = false
		if distance < Person.REACH:
			if near == null or distance < near.position.distance_to(player.position):
				near = person
	if near != null:
		near.is_near = true
	hud.face(near.called() if near != null else "")


func _unhandled_key_input(event: InputEvent) -> void:
	if event.is_action_pressed("ui_accept") and near != null:
		hud.line.grab_focus()
		get_viewport().set_input_as_handled()
	elif event.is_action_pressed("ui_cancel"):
		_on_said("")


## Somebody speaks of what was heard, and whoever stands within earshot hears it: so a rumour goes
## from one to the next.
func gossip() -> void:
	var speaker: Person = people.pick_random()
	await tell_on(speaker)


## Lets one of them gossip; what was said.
func tell_on(speaker: Person) -> String:
	hud.tell("An hour passes. %s leans over to the others." % speaker.called())
	var reply := await speaker.npc.react("You lean over and tell the others what you heard today.")
	return reply.text


## Writes purse, places and minds into a save file of the game's own.
func save_slot(slot: int) -> bool:
	var minds := await NpcSaveSlot.capture()
	if minds.is_empty():
		hud.tell("The slot could not be saved.")
		return false
	var file := FileAccess.open(_path(slot), FileAccess.WRITE)
	file.store_var({"crowns": crowns, "player": player.position, "npcs": minds})
	hud.tell("Saved in slot %d: %.1f MB of memories." % [slot, file.get_length() / 1e6])
	return true


## Reads a save file of the game's own.
func load_slot(slot: int) -> bool:
	if not FileAccess.file_exists(_path(slot)):
		hud.tell("Slot %d is empty." % slot)
		return false
	var saved: Dictionary = FileAccess.open(_path(slot), FileAccess.READ).get_var()
	var error := await NpcSaveSlot.apply(saved["npcs"])
	if error != null:
		hud.tell(error.sentence)
		return false
	for person: Person in people:
		person.bubble.hide()
	crowns = saved["crowns"]
	player.position = saved["player"]
	hud.count(crowns)
	hud.tell("Slot %d loaded: everybody remembers what they knew then." % slot)
	return true


func _path(slot: int) -> String:
	return "user://slot%d.save" % slot


func _on_said(line: String) -> void:
	if near == null:
		return
	if near.npc.is_speaking:
		near.npc.cancel()
	if line != "":
		_overheard(near, 'The player says to %s: "%s"' % [near.called(), line])
		near.npc.say(line, {"actions": ["trade"]} if _is_about_trade(line) else {})


## Whoever is asked about wares may open the shop or not, but does nothing else.
func _is_about_trade(line: String) -> bool:
	for word: String in TRADE_WORDS:
		if line.to_lower().contains(word):
			return true
	return false


func _on_reply(reply: NpcReply, person: Person) -> void:
	if reply.ok and reply.text != "":
		_overheard(person, '%s says: "%s"' % [person.called(), reply.text])


## What is said to or by somebody is heard by the others within earshot.
func _overheard(person: Person, event: String) -> void:
	for one: NpcCharacter in NpcPerception.announce(
		person.global_position, EARSHOT, event, person.npc
	):
		(one.get_parent() as Person).prick_up_ears()


func _on_action(action: String, person: Person) -> void:
	match action:
		"trade":
			hud.shop.open(person, crowns)
		"point":
			hud.tell("%s points the way." % person.called())
		_:
			hud.tell("%s: %s." % [person.called(), action])


func _on_bought(seller: Person, what: String, price: int) -> void:
	crowns -= price
	hud.count(crowns)
	hud.shop.hide()
	hud.tell("You buy %s." % what)
	seller.npc.observe("The player buys %s and pays %d crowns." % [what, price])


func _on_failed(_code: String, sentence: String) -> void:
	hud.tell(sentence)
