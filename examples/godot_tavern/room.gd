class_name Room
extends Node2D
## The common room of the Lame Heron, drawn with shapes; the fire moves.

const WALL := 330.0
const _WOOD := Color(0.36, 0.23, 0.15)
const _TABLE := Color(0.53, 0.33, 0.19)

var _clock := 0.0
var _fire := Glow.new()


class Glow:
	extends Sprite2D
	## A soft light that adds to what is below it.

	func set_up(at: Vector2, size: float, color: Color) -> Glow:
		var ramp := Gradient.new()
		ramp.set_color(0, color)
		ramp.set_color(1, Color(color, 0.0))
		var light := GradientTexture2D.new()
		light.gradient = ramp
		light.fill = GradientTexture2D.FILL_RADIAL
		light.fill_from = Vector2(0.5, 0.5)
		light.fill_to = Vector2(0.5, 0.0)
		light.width = 256
		light.height = 256
		texture = light
		var adding := CanvasItemMaterial.new()
		adding.blend_mode = CanvasItemMaterial.BLEND_MODE_ADD
		material = adding
		position = at
		scale = Vector2.ONE * size / 128.0
		return self


func _ready() -> void:
	add_child(_fire.set_up(Vector2(205, 300), 420.0, Color(0.75, 0.33, 0.1, 0.5)))
	for lamp: Vector2 in [Vector2(470, 120), Vector2(820, 120), Vector2(1090, 150)]:
		add_child(Glow.new().set_up(lamp, 230.0, Color(0.8, 0.55, 0.2, 0.3)))


func _process(delta: float) -> void:
	_clock += delta
	_fire.modulate.a = 0.85 + 0.15 * sin(7.0 * _clock) * sin(11.3 * _clock)
	queue_redraw()


func _draw() -> void:
	_draw_wall()
	_draw_floor()
	_draw_window(Vector2(620, 170))
	_draw_hearth(Vector2(205, WALL))
	_draw_shelves(Rect2(930, 110, 300, 150))
	_draw_bar(Rect2(900, 330, 340, 74))
	_draw_table(Vector2(185, 520))
	_draw_table(Vector2(725, 480))
	_draw_lamps()


func _draw_wall() -> void:
	draw_rect(Rect2(0, 0, 1280, WALL), Color(0.47, 0.36, 0.26))
	for i: int in 12:
		draw_rect(Rect2(0, i * 28, 1280, 28), Color(0.2, 0.1, 0.05, 0.24 - 0.02 * i))
	for x: float in [20.0, 400.0, 800.0, 1236.0]:
		draw_rect(Rect2(x, 0, 26, WALL), _WOOD.darkened(0.25))
		draw_rect(Rect2(x + 3, 0, 5, WALL), _WOOD.darkened(0.05))
	draw_rect(Rect2(0, 0, 1280, 30), _WOOD.darkened(0.4))
	draw_rect(Rect2(0, 30, 1280, 5), _WOOD.darkened(0.6))
	draw_rect(Rect2(0, WALL - 18, 1280, 18), _WOOD.darkened(0.35))


func _draw_floor() -> void:
	for row: int in 10:
		var y := WALL + row * 40.0
		var shade := Color(0.43, 0.28, 0.17).darkened(0.22 - 0.018 * row)
		draw_rect(Rect2(0, y, 1280, 40), shade)
		draw_line(Vector2(0, y), Vector2(1280, y), shade.darkened(0.35), 2.0)
		for plank: int in 7:
			var x := plank * 210.0 + (row * 83) % 210
			draw_line(Vector2(x, y), Vector2(x, y + 40), shade.darkened(0.3), 2.0)
	draw_set_transform(Vector2(560, 560), 0.0, Vector2(1.0, 0.28))
	for ring: Array in [[215.0, Color(0.42, 0.14, 0.13)], [190.0, Color(0.75, 0.55, 0.3)]]:
		draw_circle(Vector2.ZERO, ring[0], ring[1])
	draw_circle(Vector2.ZERO, 178.0, Color(0.5, 0.18, 0.16))
	draw_circle(Vector2.ZERO, 70.0, Color(0.62, 0.3, 0.2))
	draw_set_transform(Vector2.ZERO)


func _draw_window(at: Vector2) -> void:
	draw_rect(Rect2(at - Vector2(76, 76), Vector2(152, 152)), _WOOD.darkened(0.3))
	draw_rect(Rect2(at - Vector2(64, 64), Vector2(128, 128)), Color(0.1, 0.14, 0.27))
	draw_circle(at + Vector2(26, -24), 19.0, Color(0.95, 0.93, 0.8))
	draw_circle(at + Vector2(34, -29), 16.0, Color(0.1, 0.14, 0.27))
	for star: Vector2 in [Vector2(-40, -36), Vector2(-14, -48), Vector2(-30, 4), Vector2(44, 20)]:
		draw_circle(at + star, 1.8, Color(1, 1, 0.9, 0.6 + 0.4 * sin(_clock + star.x)))
	var hill := PackedVector2Array([at + Vector2(-64, 64), at + Vector2(-64, 40)])
	hill.append_array([at + Vector2(-10, 24), at + Vector2(64, 46), at + Vector2(64, 64)])
	draw_colored_polygon(hill, Color(0.06, 0.09, 0.16))
	draw_rect(Rect2(at - Vector2(3, 64), Vector2(6, 128)), _WOOD.darkened(0.2))
	draw_rect(Rect2(at - Vector2(64, 3), Vector2(128, 6)), _WOOD.darkened(0.2))


func _draw_hearth(at: Vector2) -> void:
	draw_rect(Rect2(at + Vector2(-110, -230), Vector2(220, 230)), Color(0.38, 0.35, 0.34))
	for row: int in 8:
		for column: int in 5:
			var stone := Vector2(-106 + column * 44 + (row % 2) * -14, -226 + row * 28)
			var shade := 0.05 * ((row * 7 + column * 3) % 4)
			var box := Rect2(at + stone, Vector2(40, 24)).intersection(
				Rect2(at + Vector2(-110, -230), Vector2(220, 230))
			)
			draw_rect(box, Color(0.45, 0.42, 0.4).darkened(shade))
	draw_rect(Rect2(at + Vector2(-128, -246), Vector2(256, 24)), _WOOD)
	draw_rect(Rect2(at + Vector2(-72, -128), Vector2(144, 128)), Color(0.08, 0.05, 0.05))
	draw_circle(at + Vector2(0, -128), 72.0, Color(0.08, 0.05, 0.05))
	for log_x: float in [-34.0, -6.0, 18.0]:
		draw_rect(Rect2(at + Vector2(log_x - 16, -20), Vector2(46, 15)), _WOOD.darkened(0.2))
	for flame: Array in [[0.0, 92.0, Color(0.93, 0.35, 0.1)], [0.0, 62.0, Color(1.0, 0.65, 0.2)]]:
		for side: int in 3:
			var x := -30.0 + 30.0 * side
			var tall: float = flame[1] * (0.72 + 0.2 * sin(6.0 * _clock + 2.1 * side + flame[1]))
			var lean := 7.0 * sin(4.3 * _clock + side)
			var half: float = 0.28 * flame[1]
			var base := at + Vector2(x, -16)
			var fire := PackedVector2Array(
				[base + Vector2(-half, 0), base + Vector2(-half * 0.8, -tall * 0.4)]
			)
			fire.append_array(
				[base + Vector2(lean, -tall), base + Vector2(half * 0.8, -tall * 0.4)]
			)
			fire.append(base + Vector2(half, 0))
			draw_colored_polygon(fire, flame[2])


func _draw_shelves(box: Rect2) -> void:
	var colors := [
		Color(0.3, 0.45, 0.3), Color(0.55, 0.25, 0.2), Color(0.65, 0.5, 0.25), Color(0.3, 0.35, 0.5)
	]
	for row: int in 2:
		var y := box.position.y + 70.0 + row * 80.0
		for i: int in 12:
			var x := box.position.x + 14.0 + i * 24.0
			var tall := 34.0 + (i * 7 + row * 5) % 18
			var color: Color = colors[(i + row) % 4]
			draw_rect(Rect2(x, y - tall, 14, tall), color)
			draw_rect(Rect2(x + 4, y - tall - 9, 6, 10), color.darkened(0.2))
			draw_rect(Rect2(x + 2, y - tall + 4, 3, tall - 10), color.lightened(0.25))
		draw_rect(Rect2(box.position.x, y, box.size.x, 9), _WOOD.lightened(0.05))
		draw_rect(Rect2(box.position.x, y + 9, box.size.x, 4), Color(0, 0, 0, 0.3))


func _draw_bar(box: Rect2) -> void:
	draw_rect(
		Rect2(box.position + Vector2(0, box.size.y), Vector2(box.size.x, 14)), Color(0, 0, 0, 0.3)
	)
	draw_rect(box, _WOOD.darkened(0.1))
	for i: int in 6:
		draw_rect(
			Rect2(box.position + Vector2(8 + i * 56, 20), Vector2(46, 46)), _WOOD.darkened(0.3)
		)
	draw_rect(
		Rect2(box.position - Vector2(10, 4), Vector2(box.size.x + 20, 18)), _WOOD.lightened(0.12)
	)
	for mug: float in [40.0, 74.0, 280.0]:
		var at := box.position + Vector2(mug, -4)
		draw_rect(Rect2(at + Vector2(0, -22), Vector2(18, 22)), Color(0.66, 0.62, 0.55))
		draw_circle(at + Vector2(9, -22), 10.0, Color(0.96, 0.93, 0.85))
		draw_arc(at + Vector2(20, -11), 7.0, -1.4, 1.4, 8, Color(0.66, 0.62, 0.55), 3.0)


func _draw_table(at: Vector2) -> void:
	draw_set_transform(at + Vector2(0, 46), 0.0, Vector2(1.0, 0.3))
	draw_circle(Vector2.ZERO, 92.0, Color(0, 0, 0, 0.3))
	draw_set_transform(Vector2.ZERO)
	draw_rect(Rect2(at + Vector2(-11, 0), Vector2(22, 48)), _WOOD.darkened(0.35))
	draw_set_transform(at, 0.0, Vector2(1.0, 0.4))
	draw_circle(Vector2(0, 16), 96.0, _TABLE.darkened(0.4))
	draw_circle(Vector2.ZERO, 96.0, _TABLE)
	draw_arc(Vector2.ZERO, 78.0, 0.0, TAU, 40, _TABLE.darkened(0.12), 3.0)
	draw_set_transform(Vector2.ZERO)
	draw_rect(Rect2(at + Vector2(-4, -30), Vector2(8, 26)), Color(0.95, 0.92, 0.8))
	draw_circle(at + Vector2(0, -36 + sin(9.0 * _clock + at.x)), 5.5, Color(1.0, 0.75, 0.3))
	draw_circle(at + Vector2(0, -36), 18.0, Color(1.0, 0.7, 0.25, 0.18))


func _draw_lamps() -> void:
	for lamp: Vector2 in [Vector2(470, 120), Vector2(820, 120), Vector2(1090, 70)]:
		draw_line(Vector2(lamp.x, 30), lamp - Vector2(0, 18), Color(0.12, 0.09, 0.08), 3.0)
		draw_rect(Rect2(lamp - Vector2(15, 18), Vector2(30, 36)), Color(0.16, 0.12, 0.1))
		draw_rect(Rect2(lamp - Vector2(10, 13), Vector2(20, 26)), Color(1.0, 0.8, 0.42))
