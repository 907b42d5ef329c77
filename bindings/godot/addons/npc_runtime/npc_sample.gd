@tool
class_name NpcSample
extends Resource
## A line of the player and how this character answers it: what teaches its voice best.

@export var player := ""
@export var npc := ""
@export var mood := "neutral"
## Empty where there is none.
@export var action := ""
