class_name Shop
extends PanelContainer
## What somebody sells. Opened by the action `trade` of a reply.

signal bought(seller: Person, what: String, price: int)

const WARES: Dictionary[String, Array] = {
	"bram": [["a bowl of barley soup", 1], ["a bed for the night", 3]],
	"marta": [["a set of horseshoes", 2], ["a good knife", 6]],
	"osk": [["a sack of flour", 2]],
}

var _rows := VBoxContainer.new()


func _ready() -> void:
	var edge := MarginContainer.new()
	for side: String in ["left", "top", "right", "bottom"]:
		edge.add_theme_constant_override("margin_" + side, 18)
	_rows.add_theme_constant_override("separation", 10)
	edge.add_child(_rows)
	add_child(edge)
	visible = false


## Shows the wares of somebody, with what the purse allows.
func open(seller: Person, crowns: int) -> void:
	for row: Node in _rows.get_children():
		_rows.remove_child(row)
		row.queue_free()
	var title := Label.new()
	title.text = "%s sells" % seller.called()
	title.add_theme_font_size_override("font_size", 22)
	title.add_theme_color_override("font_color", Hud.GOLD)
	_rows.add_child(title)
	for ware: Array in WARES.get(seller.npc.id(), []):
		var button := Button.new()
		button.text = "%s   ·   %s" % [ware[0], Hud.price(ware[1])]
		button.disabled = crowns < ware[1]
		button.pressed.connect(bought.emit.bind(seller, ware[0], ware[1]))
		_rows.add_child(button)
	var leave := Button.new()
	leave.text = "Nothing, thank you"
	leave.pressed.connect(hide)
	_rows.add_child(leave)
	show()
	reset_size()
	var side := -160.0 - size.x if seller.position.x > 640.0 else 160.0
	position = Vector2(seller.position.x + side, 190.0)
