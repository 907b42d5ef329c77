class_name Hud
extends CanvasLayer
## The line that the player types, the purse, and the save slots.

signal said(line: String)
signal saved(slot: int)
signal loaded(slot: int)
signal time_passed

const GOLD := Color(0.96, 0.82, 0.5)
const SLOTS := 2

var line := LineEdit.new()
var shop := Shop.new()
var _name := Label.new()
var _purse := Label.new()
var _notice := Label.new()
var _notice_left := 0.0


func _ready() -> void:
	_purse.add_theme_color_override("font_color", GOLD)
	_name.add_theme_color_override("font_color", GOLD)
	_name.custom_minimum_size.x = 170.0
	line.placeholder_text = "Walk up to somebody, press Enter and speak"
	line.size_flags_horizontal = Control.SIZE_EXPAND_FILL
	line.max_length = 400
	line.text_submitted.connect(_on_submitted)
	var cut := _button("Interrupt (Esc)", func() -> void: said.emit(""))
	_bar(Rect2(60, 640, 1160, 58), [_name, line, cut])
	_bar(Rect2(775, 12, 490, 44), _top())
	_notice.add_theme_font_size_override("font_size", 18)
	_notice.add_theme_color_override("font_color", GOLD)
	_notice.add_theme_color_override("font_shadow_color", Color(0, 0, 0, 0.8))
	_notice.position = Vector2(24, 48)
	shop.theme = _theme()
	for control: Control in [_notice, shop]:
		add_child(control)


func _process(delta: float) -> void:
	_notice_left -= delta
	_notice.modulate.a = clampf(_notice_left, 0.0, 1.0)


## Who is within reach; nobody when empty.
func face(who: String) -> void:
	_name.text = who
	line.editable = who != ""
	line.placeholder_text = (
		"Press Enter and speak to %s" % who
		if who != ""
		else "Walk up to somebody with the arrow keys"
	)


## Shows how much there is to spend.
func count(crowns: int) -> void:
	_purse.text = price(crowns)


## A sum in words.
static func price(crowns: int) -> String:
	return "1 crown" if crowns == 1 else "%d crowns" % crowns


## Shows a message for a while.
func tell(message: String) -> void:
	_notice.text = message
	_notice_left = 5.0


func _on_submitted(text: String) -> void:
	line.clear()
	line.release_focus()
	if text.strip_edges() != "":
		said.emit(text)


func _top() -> Array[Control]:
	var controls: Array[Control] = [_purse]
	for slot: int in range(1, SLOTS + 1):
		controls.append(_button("Save %d" % slot, saved.emit.bind(slot)))
		controls.append(_button("Load %d" % slot, loaded.emit.bind(slot)))
	controls.append(_button("Hour", time_passed.emit))
	controls[-1].tooltip_text = "Let an hour pass: somebody gossips."
	return controls


func _button(text: String, pressed: Callable) -> Button:
	var button := Button.new()
	button.text = text
	button.name = text.validate_node_name()
	button.focus_mode = Control.FOCUS_NONE
	button.pressed.connect(pressed)
	return button


func _bar(place: Rect2, controls: Array[Control]) -> void:
	var panel := PanelContainer.new()
	panel.theme = _theme()
	panel.position = place.position
	panel.custom_minimum_size = place.size
	var row := HBoxContainer.new()
	row.add_theme_constant_override("separation", 10)
	for control: Control in controls:
		row.add_child(control)
	panel.add_child(row)
	add_child(panel)


static func _theme() -> Theme:
	var theme := Theme.new()
	theme.default_font_size = 17
	theme.set_stylebox("panel", "PanelContainer", _box(Color(0.13, 0.08, 0.06), GOLD, 12.0))
	theme.set_stylebox("normal", "Button", _box(Color(0.3, 0.19, 0.12), Color(0.5, 0.34, 0.2), 8.0))
	theme.set_stylebox("hover", "Button", _box(Color(0.4, 0.26, 0.16), GOLD, 8.0))
	theme.set_stylebox("pressed", "Button", _box(Color(0.22, 0.13, 0.08), GOLD, 8.0))
	theme.set_stylebox(
		"disabled", "Button", _box(Color(0.2, 0.14, 0.1), Color(0.3, 0.2, 0.15), 8.0)
	)
	theme.set_stylebox("focus", "Button", _box(Color(0, 0, 0, 0), GOLD, 8.0))
	theme.set_stylebox(
		"normal", "LineEdit", _box(Color(0.97, 0.93, 0.84), Color(0.5, 0.34, 0.2), 10.0)
	)
	theme.set_stylebox("focus", "LineEdit", _box(Color(0, 0, 0, 0), GOLD, 10.0))
	theme.set_stylebox(
		"read_only", "LineEdit", _box(Color(0.64, 0.55, 0.45), Color(0.4, 0.28, 0.2), 10.0)
	)
	theme.set_color("font_color", "LineEdit", Color(0.2, 0.13, 0.1))
	theme.set_color("font_placeholder_color", "LineEdit", Color(0.2, 0.13, 0.1, 0.6))
	theme.set_color("font_uneditable_color", "LineEdit", Color(0.9, 0.85, 0.75, 0.7))
	theme.set_color("caret_color", "LineEdit", Color(0.2, 0.13, 0.1))
	theme.set_color("font_color", "Button", Color(0.96, 0.9, 0.8))
	return theme


static func _box(fill: Color, edge: Color, inside: float) -> StyleBoxFlat:
	var box := StyleBoxFlat.new()
	box.bg_color = fill
	box.border_color = edge
	box.set_border_width_all(2)
	box.set_corner_radius_all(9)
	box.content_margin_left = inside
	box.content_margin_right = inside
	box.content_margin_top = inside * 0.5
	box.content_margin_bottom = inside * 0.5
	return box
