class_name Bubble
extends Node2D
## A speech bubble that fills while somebody speaks, and goes away some time after.

const WIDTH := 228.0
## Letters on show; of a longer line the end.
const MOST := 190
const _FONT_SIZE := 17
const _PAPER := Color(0.98, 0.95, 0.87)
const _INK := Color(0.2, 0.13, 0.1)

## Whether text is still coming.
var is_growing := false
var _text := ""
var _left := 0.0


func _ready() -> void:
	visible = false


func _process(delta: float) -> void:
	if not is_growing and visible:
		_left -= delta
		modulate.a = clampf(2.0 * _left, 0.0, 1.0)
		visible = _left > 0.0


## Empties it for a new line.
func begin() -> void:
	_text = ""
	is_growing = true
	visible = false


## Takes in a piece of the line.
func add(piece: String) -> void:
	_text += piece
	modulate.a = 1.0
	visible = _text.strip_edges() != ""
	queue_redraw()


## The line is whole; it stays long enough to be read.
func end() -> void:
	is_growing = false
	_left = 4.0 + 0.06 * _text.length()


## What is on show.
func shown() -> String:
	var text := _text.strip_edges()
	return "" if not visible else text if text.length() <= MOST else "…" + text.right(MOST)


func _draw() -> void:
	var font := ThemeDB.fallback_font
	var left := HORIZONTAL_ALIGNMENT_LEFT
	var size := font.get_multiline_string_size(shown(), left, WIDTH, _FONT_SIZE)
	var half := size.x / 2.0 + 22.0
	var middle := clampf(global_position.x, half, 1280.0 - half) - global_position.x
	var text := Rect2(Vector2(middle - size.x / 2.0, -size.y - 22.0), size)
	draw_style_box(_paper(), text.grow_individual(14.0, 8.0, 14.0, 9.0))
	var tail := PackedVector2Array([Vector2(-10.0, -14.0), Vector2(10.0, -14.0), Vector2(0.0, 2.0)])
	draw_colored_polygon(tail, _PAPER)
	var at := text.position + Vector2(0.0, font.get_ascent(_FONT_SIZE))
	draw_multiline_string(font, at, shown(), left, WIDTH, _FONT_SIZE, -1, _INK)


func _paper() -> StyleBoxFlat:
	var paper := StyleBoxFlat.new()
	paper.bg_color = _PAPER
	paper.set_corner_radius_all(14)
	paper.shadow_color = Color(0, 0, 0, 0.3)
	paper.shadow_size = 6
	paper.shadow_offset = Vector2(0, 3)
	return paper
