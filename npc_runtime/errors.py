"""Every error a caller, a file or a peer can cause; each with a stable code that crosses the wire.

NpcError                  internal            a defect of ours; please report it
├── BadInput              bad_input           a field has the wrong type, range or text
│   ├── TooLarge          too_large           a message, text or list is over its limit
│   ├── UnknownOp         unknown_op          the daemon does not know this operation
│   ├── UnknownNpc        unknown_npc         no Npc lives under this id
│   ├── UnknownPersona    unknown_persona     no persona of this name was found
│   ├── NpcExists         npc_exists          the id is taken
│   ├── NpcBusy           npc_busy            the Npc has Turns under way                (retry)
│   ├── NothingToRewind   nothing_to_rewind   fewer rewind points than asked
│   └── ConfigError       bad_config          an option or limit is wrong
├── FileError
│   ├── PersonaError      bad_persona         a persona file or table is wrong
│   ├── BundleError       bad_bundle          a Bundle is missing, damaged or of another version
│   ├── SaveError         bad_save            a save is damaged, truncated or of another version
│   ├── SaveMismatch      save_mismatch       a save was made with another Bundle
│   ├── SaveFailed        save_failed         a save could not be written; the older one stands
│   ├── JournalError      bad_journal         a journal is in use, damaged or another Bundle's
│   └── JournalFailed     journal_failed      the journal could not be written; it is tried again
├── Overloaded
│   ├── QueueFull         queue_full          too many Turns wait                        (retry)
│   └── BudgetExceeded    budget_exceeded     no memory is left for another State        (retry)
├── TurnError
│   ├── Cancelled         cancelled           the Turn was cancelled before it began
│   └── DeadlineExceeded  deadline            the Turn did not begin in time             (retry)
├── BackendError          backend_failed      the computation failed; the State is as before
│   └── BackendUnavailable backend_unavailable  the asked backend cannot run here
└── WireError             bad_frame           a frame could not be read
    ├── VersionMismatch   protocol_version    client and daemon share no protocol version
    ├── HelloFirst        hello_first         the first message must be `hello`
    ├── WrongKey          wrong_key           the daemon refused the key
    ├── ConnectionLost    connection_lost     the daemon went away                       (retry)
    └── ShuttingDown      shutting_down       the daemon is ending                       (retry)
"""

from __future__ import annotations

from typing import ClassVar


class NpcError(Exception):
    """Base of all errors: `text` says what was expected and what came, `hint` what to do."""

    code: ClassVar[str] = "internal"
    retry: ClassVar[bool] = False
    hint: ClassVar[str] = "This is a defect of npc-runtime; please report it with the text above"

    def __init__(self, text: str, hint: str | None = None) -> None:
        self.text = text.replace("\0", "\\0")  # a terminal shows it as nothing, or as a space
        super().__init__(self.text)
        if hint is not None:
            self.hint = hint  # type: ignore[misc]  # an instance may know better than its class

    def __str__(self) -> str:
        return self.text


def reason(error: Exception) -> str:
    """What went wrong in the system's own words, without the number and the path that OSError puts around them."""
    return getattr(error, "strerror", None) or str(error)


class BadInput(NpcError):
    """A field of a request has the wrong type, range or text."""

    code = "bad_input"
    hint = "Correct the named field and send the request again"


class TooLarge(BadInput):
    """A message, text or list is over its limit."""

    code = "too_large"
    hint = "Send less, or raise the limit in the daemon's configuration"


class UnknownOp(BadInput):
    """The operation is not one of the protocol."""

    code = "unknown_op"
    hint = "See bindings/PROTOCOL.md for the operations of this version"


class UnknownNpc(BadInput):
    """No Npc lives under the id."""

    code = "unknown_npc"
    hint = "Spawn or load the Npc first; `list` names those alive"


class UnknownPersona(BadInput):
    """No persona of the name was found."""

    code = "unknown_persona"
    hint = "`npc-runtime persona list` shows what can be found and where"


class NpcExists(BadInput):
    """The id is taken."""

    code = "npc_exists"
    hint = "Choose another id, drop the Npc, or ask to replace it (`replace`)"


class NpcBusy(BadInput):
    """The Npc has Turns under way and the verb needs it at rest."""

    code = "npc_busy"
    retry = True
    hint = "Wait for its Turns to end or cancel them, then try again"


class NothingToRewind(BadInput):
    """Fewer rewind points are kept than were asked for."""

    code = "nothing_to_rewind"
    hint = "Ask for fewer turns; `list` shows how many each Npc can go back"


class ConfigError(BadInput):
    """An option or limit is wrong."""

    code = "bad_config"
    hint = "Correct the option; the command's `--help` shows defaults and units"


class FileError(NpcError):
    """A file of the player or the studio cannot be used."""

    code = "bad_file"
    hint = "Check the named file"


class PersonaError(FileError):
    """A persona file or table is wrong; the text names file, field and what was expected."""

    code = "bad_persona"
    hint = "personas/README.md shows every field by example"

    def __init__(self, text: str, hint: str | None = None, faults: tuple[str, ...] = ()) -> None:
        """faults: a text for each fault that was found, where `text` is the first of several."""
        super().__init__(text, hint)
        self.faults = faults or (text,)


class BundleError(FileError):
    """A Bundle is missing, damaged, tampered with or of another version."""

    code = "bad_bundle"
    hint = "Install the Bundle again, or check it with `npc-runtime bundle verify DIR`"


class SaveError(FileError):
    """A save is damaged, truncated or of another version; nothing was loaded."""

    code = "bad_save"
    hint = "Load an older save; this one cannot be trusted"


class SaveMismatch(FileError):
    """A save was made with another Bundle, whose name the text gives."""

    code = "save_mismatch"
    hint = "Start the daemon with that Bundle, or load with rebuild to re-read the stored turns"


class SaveFailed(FileError):
    """A save could not be written; the older file, if any, is untouched."""

    code = "save_failed"
    hint = "Free disk space or choose another folder, then save again"


class JournalError(FileError):
    """A journal cannot be opened: in use, damaged, of another Bundle, or not to be written; it was left as it is."""

    code = "bad_journal"
    hint = "Give another folder, or put a backup of this one in its place"


class JournalFailed(FileError):
    """The journal could not be written; the text says whether the request was carried out in memory."""

    code = "journal_failed"
    hint = "Free disk space; the journal is tried again every second, and nothing that was answered is lost"


class Overloaded(NpcError):
    """A bound was reached; nothing was lost."""

    code = "overloaded"
    retry = True
    hint = "Try again when other work has ended"


class QueueFull(Overloaded):
    """Too many Turns wait already."""

    code = "queue_full"
    hint = "Wait for some Turns to end before sending more"


class BudgetExceeded(Overloaded):
    """No memory is left for another State."""

    code = "budget_exceeded"
    hint = "Drop or save idle Npcs, or raise `state_budget_mb`"


class TurnError(NpcError):
    """A Turn ended without a Reply."""

    code = "turn_failed"
    hint = "Send the line again"


class Cancelled(TurnError):
    """The Turn was cancelled before the Npc heard it; its State is as before."""

    code = "cancelled"
    hint = "Nothing to do: the State is as before the Turn"


class DeadlineExceeded(TurnError):
    """The Turn did not begin before its deadline; the State is as before."""

    code = "deadline"
    retry = True
    hint = "Give a longer deadline, or lighten the load"


class BackendError(NpcError):
    """The computation failed; the Npc's State is as before the Turn."""

    code = "backend_failed"
    hint = "Run `npc-runtime doctor`; the Npc itself is unharmed"


class BackendUnavailable(BackendError):
    """The asked backend cannot run on this machine; the text says why."""

    code = "backend_unavailable"
    hint = "Choose another backend or install what the text names"


class WireError(NpcError):
    """A frame could not be read."""

    code = "bad_frame"
    hint = "Send one msgpack map per message as bindings/PROTOCOL.md tells"


class VersionMismatch(WireError):
    """Client and daemon share no protocol version."""

    code = "protocol_version"
    hint = "Use the client that belongs to this daemon's version"


class HelloFirst(WireError):
    """The first message of a connection must be `hello`."""

    code = "hello_first"
    hint = "Send `hello` with your protocol version, then the request again"


class WrongKey(WireError):
    """The daemon refused the key; no message of ours was read."""

    code = "wrong_key"
    hint = "Take endpoint and key from the ready line of the same daemon; each launch has a fresh key"


class ConnectionLost(WireError):
    """The daemon went away or does not answer."""

    code = "connection_lost"
    retry = True
    hint = "Check that the daemon runs, then connect again; a journal keeps only named Sessions"


class ShuttingDown(WireError):
    """The daemon is ending and takes no new Turns."""

    code = "shutting_down"
    retry = True
    hint = "Connect to a new daemon and load the last save"


def install_hint(extra: str) -> str:
    """How to install one of pyproject's extras, as README has it: the package is on no index yet."""
    return f"pip install '.[{extra}]' in the folder of npc-runtime's source"


def _tree(root: type[NpcError]) -> dict[str, type[NpcError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE: dict[str, type[NpcError]] = _tree(NpcError)
"""Error classes by their wire code; a code unknown to an older client maps to `NpcError`."""


def from_wire(code: str, text: str, hint: str | None = None) -> NpcError:
    """Rebuilds the typed error that the daemon sent."""
    return BY_CODE.get(code, NpcError)(text, hint)
