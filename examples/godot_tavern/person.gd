class_name Person
extends Node2D
## Somebody in the tavern: a body made of shapes, a face that shows the mood, a speech bubble, and
## the NpcCharacter that speaks and remembers.

signal wants_to(what: String)

const REACH := 150.0

@export var persona_file := ""
@export var coat := Color(0.5, 0.3, 0.25)
@export var apron := Color(0, 0, 0, 0)
@export var skin := Color(0.93, 0.76, 0.62)
@export var hair := Color(0.3, 0.2, 0.15)
@export_enum("short", "long", "bald", "cap") var hair_style := "short"
@export var stout := 1.0

var npc := NpcCharacter.new()
var bubble := Bubble.new()
var is_near := false
var _face := Face.new()
var _clock := randf() * 10.0
var _ear := 0.0


func _ready() -> void:
	npc.name = "NpcCharacter"
	npc.npc_id = String(name).to_lower()
	npc.persona_file = persona_file
	npc.spawned.connect(_on_spawned)
	npc.reply_started.connect(bubble.begin)
	npc.text_delta.connect(bubble.add)
	npc.reply_finished.connect(func(_reply: NpcReply) -> void: bubble.end())
	npc.action_requested.connect(wants_to.emit)
	bubble.position = Vector2(0.0, -150.0)
	bubble.z_index = 50
	add_child(bubble)
	add_child(npc)


func _process(delta: float) -> void:
	_clock += delta
	_ear = move_toward(_ear, 0.0, delta / 3.0)
	_face.ease_to(npc.mood, delta)
	queue_redraw()


## Shows that it has overheard something.
func prick_up_ears() -> void:
	_ear = 1.0


## What people call it.
func called() -> String:
	return npc.persona.name if npc.persona != null else String(name)


func _on_spawned(opening: String, _mood: String) -> void:
	if opening != "":
		bubble.begin()
		bubble.add(opening)
		bubble.end()


func _draw() -> void:
	var bob := 1.5 * sin(2.1 * _clock)
	draw_set_transform(Vector2.ZERO, 0.0, Vector2(1.0, 0.3))
	if is_near:
		draw_arc(Vector2.ZERO, 58.0, 0.0, TAU, 48, Color(1.0, 0.85, 0.5, 0.8), 5.0, true)
	draw_circle(Vector2.ZERO, 46.0 * stout, Color(0, 0, 0, 0.35))
	draw_set_transform(Vector2.ZERO)
	_draw_body(bob)
	_draw_head(Vector2(0.0, -112.0 + bob))
	if _ear > 0.0:
		_draw_ear(Vector2(44.0, -130.0 + bob))


func _draw_body(bob: float) -> void:
	var w := 34.0 * stout
	for side: float in [-1.0, 1.0]:
		draw_rect(Rect2(side * 14.0 - 9.0, -22.0, 18.0, 20.0), coat.darkened(0.55))
		_capsule(Vector2(side * w, -72.0 + bob), Vector2(side * (w + 7.0), -34.0 + bob), 9.0, coat)
		draw_circle(Vector2(side * (w + 7.0), -28.0 + bob), 8.5, skin)
	var torso := PackedVector2Array()
	for i: int in 17:
		var angle := PI + PI * i / 16.0
		torso.append(Vector2(w * cos(angle), -66.0 + bob + 24.0 * sin(angle)))
	torso.append_array([Vector2(w + 5.0, -16.0), Vector2(-w - 5.0, -16.0)])
	draw_colored_polygon(torso, coat)
	if apron.a > 0.0:
		var front := Rect2(-w * 0.62, -70.0 + bob, w * 1.24, 56.0 - bob)
		draw_rect(front, apron)
		draw_line(front.position, Vector2(-10.0, -88.0 + bob), apron, 4.0, true)
		draw_line(
			front.position + Vector2(front.size.x, 0.0), Vector2(10.0, -88.0 + bob), apron, 4.0
		)
	else:
		draw_line(Vector2(0.0, -86.0 + bob), Vector2(0.0, -18.0), coat.darkened(0.3), 2.5)
		for i: int in 3:
			draw_circle(Vector2(5.0, -72.0 + bob + 17.0 * i), 2.4, Color(0.85, 0.7, 0.4))
	draw_rect(Rect2(-w - 5.0, -36.0, 2.0 * w + 10.0, 6.0), coat.darkened(0.5))


func _draw_head(at: Vector2) -> void:
	if hair_style == "long":
		draw_circle(at + Vector2(0.0, -2.0), 33.0, hair)
		draw_rect(Rect2(at + Vector2(-32.0, 0.0), Vector2(64.0, 30.0)), hair)
	draw_rect(Rect2(at + Vector2(-8.0, 20.0), Vector2(16.0, 16.0)), skin.darkened(0.15))
	draw_circle(at, 29.0, skin)
	for side: float in [-1.0, 1.0]:
		draw_circle(at + Vector2(side * 29.0, 4.0), 6.0, skin.darkened(0.06))
	if hair_style != "bald":
		_draw_hair(at)
	else:
		for side: float in [-1.0, 1.0]:
			draw_circle(at + Vector2(side * 27.0, -6.0), 9.0, hair)
	var blink := fmod(_clock, 4.3) < 0.12
	var talking := (
		0.45 + 0.45 * sin(17.0 * _clock) if npc.is_speaking and bubble.is_growing else 0.0
	)
	_face.draw(self, at + Vector2(0.0, 3.0), 29.0, blink, talking)


func _draw_hair(at: Vector2) -> void:
	var top := PackedVector2Array()
	for i: int in 25:
		var angle := PI * 1.02 + PI * 0.96 * i / 24.0
		top.append(at + Vector2(31.0 * cos(angle), 32.0 * sin(angle)))
	top.append_array(
		[at + Vector2(14.0, -17.0), at + Vector2(-6.0, -21.0), at + Vector2(-22.0, -12.0)]
	)
	draw_colored_polygon(top, hair)
	if hair_style == "cap":
		draw_rect(Rect2(at + Vector2(-34.0, -20.0), Vector2(68.0, 9.0)), hair.lightened(0.15))


func _draw_ear(at: Vector2) -> void:
	var color := Color(1.0, 0.9, 0.6, minf(1.0, 2.0 * _ear))
	for i: int in 3:
		draw_arc(at, 7.0 + 7.0 * i, -0.9, 0.9, 12, color, 3.0, true)


func _capsule(from: Vector2, to: Vector2, radius: float, color: Color) -> void:
	draw_line(from, to, color.darkened(0.12), 2.0 * radius)
	draw_circle(from, radius, color.darkened(0.12))
	draw_circle(to, radius, color.darkened(0.12))
