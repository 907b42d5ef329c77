@tool
class_name NpcPerception
extends RefCounted
## What happens in a place is perceived by the characters within reach, and by no others.
##
## [codeblock]
## NpcPerception.announce(door.global_position, 300.0, "A stranger comes in.")
## [/codeblock]


## Lets every living character within [param reach] of a place (a Vector2 or Vector3) perceive an
## event, without answering; gives those who are in reach. A character's place is that of the
## nearest Node2D, Node3D or Control above its node; its [member NpcCharacter.hearing] stretches the
## reach.
static func announce(
	at: Variant, reach: float, event: String, except: NpcCharacter = null
) -> Array[NpcCharacter]:
	var hearers := in_reach(at, reach, except)
	if not hearers.is_empty():
		var ids := hearers.map(func(one: NpcCharacter) -> String: return one.id())
		_tell(NpcHost.current.request("observe", {"npcs": ids, "text": event}), hearers)
	return hearers


## As [method announce], for something that a character says: the others within reach hear who said
## what.
static func overhear(speaker: NpcCharacter, reach: float, line: String) -> Array[NpcCharacter]:
	var who := speaker.persona.name if speaker.persona != null else String(speaker.name)
	return announce(place_of(speaker), reach, '%s says: "%s"' % [who, line], speaker)


## The living characters within reach of a place, the nearest first.
static func in_reach(at: Variant, reach: float, except: NpcCharacter = null) -> Array[NpcCharacter]:
	var found: Array[NpcCharacter] = []
	var tree := Engine.get_main_loop() as SceneTree
	if NpcHost.current == null or tree == null:
		return found
	for node: Node in tree.get_nodes_in_group(NpcCharacter.GROUP):
		var one := node as NpcCharacter
		if one != null and one != except and one.is_alive():
			if _distance(at, place_of(one)) <= reach * one.hearing:
				found.append(one)
	found.sort_custom(
		func(a: NpcCharacter, b: NpcCharacter) -> bool:
			return _distance(at, place_of(a)) < _distance(at, place_of(b))
	)
	return found


## Where a character is: a Vector2 or Vector3; null when nothing above its node has a place.
static func place_of(one: NpcCharacter) -> Variant:
	var node: Node = one
	while node != null:
		if node is Node2D or node is Node3D or node is Control:
			return node.get("global_position")
		node = node.get_parent()
	return null


static func _distance(a: Variant, b: Variant) -> float:
	if a is Vector2 and b is Vector2:
		return (a as Vector2).distance_to(b)
	if a is Vector3 and b is Vector3:
		return (a as Vector3).distance_to(b)
	return INF


static func _tell(asked: NpcRequest, hearers: Array[NpcCharacter]) -> void:
	await asked.done()
	if asked.error != null:
		for one: NpcCharacter in hearers:
			if is_instance_valid(one):
				one.failed.emit(asked.error.code, asked.error.sentence)
