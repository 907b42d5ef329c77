extends Node
## A game that tells the process id of its daemon and then goes on until it is killed.

@onready var host := NpcHost.new()


func _ready() -> void:
	host.connected.connect(func(_card: Dictionary) -> void: print("daemon %d" % host.daemon_pid))
	add_child(host)
	host.start()
