@tool
class_name NpcSettings
extends RefCounted
## The project settings of this addon, under `npc_runtime/`.

## Every setting with its default, in the order in which the dialog shows them.
const DEFAULTS: Dictionary[String, Variant] = {
	"npc_runtime/daemon/autostart": true,
	"npc_runtime/daemon/command": [],
	"npc_runtime/daemon/options": [],
	"npc_runtime/daemon/bundle": "",
	"npc_runtime/daemon/endpoint": "",
	"npc_runtime/daemon/key": "",
	"npc_runtime/daemon/start_timeout_s": 60.0,
	"npc_runtime/daemon/patience_s": 15.0,
	"npc_runtime/hold_states": true,
	"npc_runtime/frame_budget_usec": 200,
}
const _STRING_LISTS: Array[String] = ["npc_runtime/daemon/command", "npc_runtime/daemon/options"]


## The value of a setting, or its default.
static func read(name: String) -> Variant:
	var full := "npc_runtime/" + name
	return ProjectSettings.get_setting(full, default_of(full))


## The default of a setting, in its own type.
static func default_of(full: String) -> Variant:
	return PackedStringArray() if full in _STRING_LISTS else DEFAULTS[full]


## Makes the settings known to the project settings dialog.
static func register() -> void:
	var order := 1
	for full: String in DEFAULTS:
		if not ProjectSettings.has_setting(full):
			ProjectSettings.set_setting(full, default_of(full))
		ProjectSettings.set_initial_value(full, default_of(full))
		ProjectSettings.set_as_basic(full, true)
		ProjectSettings.set_order(full, 1_000_000 + order)
		ProjectSettings.add_property_info({"name": full, "type": typeof(default_of(full))})
		order += 1


## Takes every setting out of the project again.
static func unregister() -> void:
	for full: String in DEFAULTS:
		if ProjectSettings.has_setting(full):
			ProjectSettings.set_setting(full, null)
