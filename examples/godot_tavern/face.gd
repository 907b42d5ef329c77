class_name Face
extends RefCounted
## How a mood looks: brows, eyes and mouth, for a drawing made of lines.

## Tilt of the brows (positive: the inner ends go up, as in worry), their lift, how far the eyes are
## open, curve of the mouth (positive: a smile), how far it is open, and colour on the cheeks.
const MOODS: Dictionary[String, Array] = {
	"neutral": [0.0, 0.0, 1.0, 0.15, 0.0, 0.0],
	"happy": [0.1, 0.2, 0.9, 1.0, 0.35, 0.5],
	"amused": [-0.1, 0.3, 0.6, 0.8, 0.0, 0.3],
	"fond": [0.35, 0.1, 0.7, 0.6, 0.0, 0.9],
	"sad": [0.7, 0.0, 0.7, -0.8, 0.0, 0.0],
	"angry": [-0.8, -0.3, 0.8, -0.7, 0.0, 0.6],
	"afraid": [0.6, 0.7, 1.4, -0.4, 0.5, 0.0],
	"surprised": [0.0, 1.0, 1.5, 0.0, 0.9, 0.0],
	"wary": [-0.35, -0.1, 0.55, -0.25, 0.0, 0.0],
	"proud": [-0.2, 0.3, 0.6, 0.5, 0.0, 0.3],
}

const _INK := Color(0.17, 0.1, 0.09)

var _now: Array = MOODS["neutral"].duplicate()


## Moves the face towards a mood; a face takes a moment to change.
func ease_to(mood: String, delta: float) -> void:
	var goal: Array = MOODS.get(mood, MOODS["neutral"])
	for i: int in goal.size():
		_now[i] = lerpf(_now[i], goal[i], 1.0 - exp(-9.0 * delta))


## Draws it around a point of a canvas item; `talking` opens the mouth.
func draw(on: CanvasItem, at: Vector2, size: float, blink: bool, talking: float) -> void:
	for side: float in [-1.0, 1.0]:
		_eye(on, at, size, side, blink)
	if _now[5] > 0.02:
		for side: float in [-1.0, 1.0]:
			var cheek := at + Vector2(side * 0.52, 0.28) * size
			on.draw_circle(cheek, 0.17 * size, Color(0.9, 0.35, 0.3, 0.35 * _now[5]))
	_mouth(on, at + Vector2(0.0, 0.46) * size, size, maxf(_now[4], talking))


func _eye(on: CanvasItem, at: Vector2, size: float, side: float, blink: bool) -> void:
	var eye := at + Vector2(side * 0.34, 0.0) * size
	var open: float = 0.08 if blink else _now[2]
	on.draw_set_transform(eye, 0.0, Vector2(1.0, maxf(open, 0.08)))
	on.draw_circle(Vector2.ZERO, 0.15 * size, Color(0.99, 0.97, 0.93))
	on.draw_circle(Vector2(0.0, 0.02 * size), 0.1 * size, _INK)
	on.draw_circle(Vector2(0.035, -0.03) * size, 0.035 * size, Color.WHITE)
	on.draw_set_transform(Vector2.ZERO)
	var lift: float = 0.27 + 0.13 * _now[1]
	var tilt: float = 0.16 * _now[0]
	var inner := at + Vector2(side * 0.18, -lift - tilt) * size
	var outer := at + Vector2(side * 0.54, -lift + tilt) * size
	on.draw_line(inner, outer, _INK, 0.085 * size, true)


func _mouth(on: CanvasItem, at: Vector2, size: float, open: float) -> void:
	var points := PackedVector2Array()
	for i: int in 13:
		var x := i / 6.0 - 1.0
		points.append(at + Vector2(0.3 * x, 0.16 * _now[3] * (1.0 - x * x) - 0.05 * _now[3]) * size)
	if open > 0.05:
		var lips := points.duplicate()
		for i: int in range(12, -1, -1):
			var x := i / 6.0 - 1.0
			lips.append(points[i] + Vector2(0.0, 0.26 * open * (1.0 - x * x) + 0.004) * size)
		on.draw_colored_polygon(lips, Color(0.35, 0.1, 0.1))
		on.draw_polyline(lips, _INK, 0.05 * size, true)
	else:
		on.draw_polyline(points, _INK, 0.075 * size, true)
