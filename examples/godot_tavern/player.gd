class_name Player
extends Node2D
## The guest whom the keys move.

const SPEED := 260.0
const FLOOR := Rect2(70.0, 380.0, 1140.0, 215.0)

## Off while a line is being typed.
var may_walk := true
var _clock := 0.0
var _walking := false


func _process(delta: float) -> void:
	var way := (
		Input.get_vector("ui_left", "ui_right", "ui_up", "ui_down") if may_walk else Vector2.ZERO
	)
	_walking = way != Vector2.ZERO
	_clock += delta
	var step := SPEED * minf(delta, 0.05)  # a slow frame must not carry anybody through the room
	position = (position + way * step).clamp(FLOOR.position, FLOOR.end)
	queue_redraw()


func _draw() -> void:
	var bob := 3.0 * absf(sin(9.0 * _clock)) if _walking else 1.2 * sin(2.0 * _clock)
	draw_set_transform(Vector2.ZERO, 0.0, Vector2(1.0, 0.3))
	draw_circle(Vector2.ZERO, 36.0, Color(0, 0, 0, 0.35))
	draw_set_transform(Vector2.ZERO)
	var cloak := PackedVector2Array(
		[Vector2(-14, -78 - bob), Vector2(14, -78 - bob), Vector2(32, -4), Vector2(-32, -4)]
	)
	draw_colored_polygon(cloak, Color(0.22, 0.36, 0.42))
	draw_line(Vector2(0, -76 - bob), Vector2(0, -5), Color(0.14, 0.24, 0.29), 3.0)
	draw_circle(Vector2(0, -92 - bob), 25.0, Color(0.18, 0.3, 0.36))
	draw_circle(Vector2(0, -88 - bob), 18.0, Color(0.9, 0.74, 0.62))
	for side: float in [-1.0, 1.0]:
		draw_circle(Vector2(side * 7.0, -90 - bob), 2.6, Color(0.17, 0.1, 0.09))
	var smile := Vector2(0, -84 - bob)
	draw_arc(smile, 5.0, 0.3, PI - 0.3, 8, Color(0.17, 0.1, 0.09), 2.0, true)
	draw_circle(Vector2(0, -70 - bob), 4.0, Color(0.95, 0.8, 0.4))
