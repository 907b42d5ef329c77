"""Cards: hand-written pieces of conversation that the drills combine (format in the corpus' CARDS page)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from npc_runtime.persona import ACTIONS, MOODS
from npc_runtime.training.corpus import CorpusError, decoded, held_out
from npc_runtime.training.known import Known, read_known
from npc_runtime.training.values import PRONOUN_SLOTS, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Traversable
    from pathlib import Path

DECKS = resources.files("npc_runtime.training") / "decks"
"""Our own cards."""

PLAIN = "plain"
"""Replies that fit any temperament."""

TEMPERAMENTS = ("gruff", "kind", "nervous", "proud", "sly", "solemn", "cheerful", "simple")

CORE = frozenset({"name", "home_town", "trade", "pet", "gift_to_npc", "debt_to", "price_agreed", "sister_name"})
"""Kinds that players use most: never held out."""

TEMPLATE_PARTS = ("tell", "ack", "ask", "answer", "unknown", "correct", "correct_ack", "volunteer")
"""Texts of a player card that a template adds to."""

Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PersonaCard:
    """A fact that may stand in a character's `knows` (or `wants`, or its very header) and talk about it."""

    fact: str
    tags: Texts
    ask: Texts
    answer: Texts
    guard: Texts = ()
    ways: Texts = ()
    """The same fact in other words, with the same slots."""

    @property
    def key(self) -> str:
        """What the split goes by."""
        return self.fact


@dataclass(frozen=True, slots=True)
class PlayerCard:
    """Something the player tells, or an event shows, that is asked back later."""

    kind: str
    tags: Texts
    tell: Texts
    ack: Texts
    ask: Texts
    answer: Texts
    unknown: Texts = ()
    correct: Texts = ()
    correct_ack: Texts = ()
    volunteer: Texts = ()
    nouns: Texts = ()
    """What may stand after "my" for this fact; see templates."""
    kin: Texts = ()
    """Kinds so near that one told makes "you never told me" of the other a doubtful answer."""

    @property
    def key(self) -> str:
        """What the split goes by."""
        return self.kind


@dataclass(frozen=True, slots=True)
class SmalltalkCard:
    """What any player may say to anyone, and replies by temperament; `E: ` before a `say` marks an event."""

    say: Texts
    mood: Texts
    reply: tuple[tuple[str, Texts], ...]
    roles: Texts = ()
    """Words of the roles that it is said to; to anyone when there are none."""

    @property
    def key(self) -> str:
        """What the split goes by."""
        return self.say[0]

    def replies(self, temperament: str) -> Texts:
        """The replies of a temperament and those that fit any; or of the first one that has any."""
        known = dict(self.reply)
        return known.get(temperament, ()) + known.get(PLAIN, ()) or self.reply[0][1]


@dataclass(frozen=True, slots=True)
class PairCard:
    """Sentences that tell two facts at once: the kinds of player card, and the slot that stands for each."""

    kinds: tuple[tuple[str, str], ...]
    tell: Texts


@dataclass(frozen=True, slots=True)
class TalkStep:
    """One exchange of a talk: any of `say` is answered by any of `reply`."""

    say: Texts
    reply: Texts
    mood: Texts
    action: str | None = None


@dataclass(frozen=True, slots=True)
class TalkCard:
    """A short talk in many wordings, and the facts of the character that it rests on."""

    facts: Texts
    steps: tuple[TalkStep, ...]
    roles: Texts = ()
    """Words of the roles that it fits; any role when there are none."""
    temper: str = ""
    """The temperament that the replies have; "" fits any."""

    @property
    def key(self) -> str:
        """What the split goes by."""
        return self.facts[0] if self.facts else self.steps[0].say[0]


@dataclass(frozen=True, slots=True)
class Template:
    """Texts that hold `{noun}` and one slot, for every card with nouns; `own` are about a fact of the character's."""

    slot: str
    texts: tuple[tuple[str, Texts], ...]
    own: tuple[tuple[str, Texts], ...]


@dataclass(frozen=True, slots=True)
class Cards:
    """A deck of all kinds."""

    persona: tuple[PersonaCard, ...] = ()
    identity: tuple[PersonaCard, ...] = ()
    player: tuple[PlayerCard, ...] = ()
    smalltalk: tuple[SmalltalkCard, ...] = ()
    trades: tuple[SmalltalkCard, ...] = ()
    """What is said to people of a trade."""
    talks: tuple[TalkCard, ...] = ()
    characters: tuple[TalkCard, ...] = ()
    """Whole characters, each with what is asked of its header."""
    known: tuple[Known, ...] = ()
    """Single facts of headers, and what is asked of each."""
    read: tuple[Known, ...] = ()
    """The same, read out of prose (see reading): many more, for training alone."""
    pairs: tuple[PairCard, ...] = ()
    templates: tuple[Template, ...] = ()

    def split(self, one_in: int = 12) -> tuple[Cards, Cards]:
        """(training, held out), parted card by card; `CORE` kinds stay in training."""
        names = [field.name for field in fields(self) if field.name not in ("characters", "read", "pairs", "templates")]
        seen, unseen = {}, {}
        for name in names:
            deck: Sequence[PersonaCard | PlayerCard | SmalltalkCard | TalkCard | Known] = getattr(self, name)
            out = [card for card in deck if card.key not in CORE and held_out(card.key, one_in)]
            seen[name] = tuple(card for card in deck if card not in out)
            unseen[name] = tuple(out)
        kept = Cards(**seen, characters=self.characters, read=self.read, pairs=self.pairs)  # type: ignore[arg-type]  # each its own kind
        return kept, Cards(**unseen)  # type: ignore[arg-type]


Card = TypeVar("Card")


def read_cards(folder: Path) -> Cards:
    """Every card file of a folder, by the beginning of its name, and the cards of our own beside this module."""
    return cards_in(DECKS, folder)


def phrasings(learned: Cards) -> Cards:
    """Cards for tests alone: facts told and asked in words that `learned` does not hold, case and signs apart."""
    heard = {_plain(text) for card in learned.player for text in (*card.tell, *card.ask)}
    heard |= {_plain(text) for card in learned.persona for text in card.ask}

    def fresh(texts: Texts) -> Texts:
        return tuple(text for text in texts if _plain(text) not in heard)

    cards = cards_in(resources.files("npc_runtime.evaluation") / "decks")
    player = (replace(card, tell=fresh(card.tell), ask=fresh(card.ask)) for card in cards.player)
    persona = (replace(card, ask=fresh(card.ask)) for card in cards.persona)
    return Cards(
        player=tuple(card for card in player if card.tell and card.ask),
        persona=tuple(card for card in persona if card.ask),
    )


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9{} ]", "", text.lower()).strip()


def cards_in(*folders: Path | Traversable) -> Cards:
    """Every card file of some folders."""
    texts = [(path.name, decoded(path.read_bytes(), path.name)) for folder in folders for path in _files(folder)]
    return Cards(
        persona=_deck(texts, ("persona-core", "persona-facts", "persona-wants"), _persona_card),
        identity=_deck(texts, ("persona-identity",), _persona_card),
        player=_merged(_deck(texts, ("player-",), _player_card)),
        smalltalk=_deck(texts, ("smalltalk",), _smalltalk_card),
        trades=_deck(texts, ("roles-",), _smalltalk_card),
        talks=_deck(texts, ("talks-",), _talk_card),
        characters=_deck(texts, ("characters-",), _character),
        pairs=_deck(texts, ("pairs",), _pair_card),
        known=tuple(card for name, text in texts if name.startswith("known-") for card in read_known(text, name)),
        read=tuple(card for name, text in texts if name.startswith("read-") for card in read_known(text, name)),
        templates=_deck(texts, ("templates-",), _template),
    )


def _files(folder: Path | Traversable) -> list[Path | Traversable]:
    if not folder.is_dir():
        raise CorpusError(f"`{folder}` is not a folder of cards")
    return sorted(
        (path for path in folder.iterdir() if path.name.endswith((".jsonl", ".txt"))), key=lambda path: path.name
    )


def _deck(
    texts: Sequence[tuple[str, str]], starts: tuple[str, ...], make: Callable[[dict[str, Any]], Card]
) -> tuple[Card, ...]:
    cards = []
    for name, text in texts:
        if name.startswith(starts):
            for number, line in enumerate(text.splitlines(), 1):
                try:
                    cards.append(make(json.loads(line)))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    raise CorpusError(f"`{name}` line {number}: expected a card, got {error!r:.200}") from error
    return tuple(cards)


def _texts(data: dict[str, Any], key: str, needed: bool = True) -> Texts:
    value = data[key] if needed else data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value) or (needed and not value):
        raise ValueError(f"`{key}` must be a list of texts")
    return tuple(value)


def _persona_card(data: dict[str, Any]) -> PersonaCard:
    ways = _texts(data, "ways", False)
    if any(slots(way) - PRONOUN_SLOTS != slots(data["fact"]) - PRONOUN_SLOTS for way in ways):
        raise ValueError("`ways` must hold the slots that `fact` holds")
    return PersonaCard(
        str(data["fact"]),
        _texts(data, "tags"),
        _texts(data, "ask"),
        _texts(data, "answer"),
        _texts(data, "guard", False),
        ways,
    )


def _player_card(data: dict[str, Any]) -> PlayerCard:
    needed = {key: _texts(data, key) for key in ("tell", "ask", "answer")}
    more = {
        key: _texts(data, key, False)
        for key in ("tags", "ack", "unknown", "correct", "correct_ack", "volunteer", "nouns", "kin")
    }
    return PlayerCard(str(data["kind"]), **needed, **more)


def _template(data: dict[str, Any]) -> Template:
    own = {key: _texts(data["own"], key, False) for key in ("fact", "ask", "answer")}
    texts = {key: _texts(data, key, False) for key in TEMPLATE_PARTS}
    return Template(str(data["slot"]), tuple(texts.items()), tuple(own.items()))


def _pair_card(data: dict[str, Any]) -> PairCard:
    kinds = tuple((str(kind), str(slot)) for kind, slot in data["kinds"].items())
    if len(kinds) != 2 or len({slot for _, slot in kinds}) != 2:
        raise ValueError("`kinds` must give two kinds a slot each")
    return PairCard(kinds, _texts(data, "tell"))


def _merged(cards: Sequence[PlayerCard]) -> tuple[PlayerCard, ...]:
    """Cards of one kind whose answers hold the same slots as one: what any of them tells, each of them may ask."""
    groups: dict[tuple[str, frozenset[str]], list[PlayerCard]] = {}
    for card in cards:
        held = frozenset(set.intersection(*(slots(text) for text in card.answer)) - PRONOUN_SLOTS)
        groups.setdefault((card.kind, held), []).append(card)
    return tuple(group[0] if len(group) == 1 else _one(group) for group in groups.values())


def _one(group: Sequence[PlayerCard]) -> PlayerCard:
    parts = [field.name for field in fields(PlayerCard) if field.name != "kind"]
    lists = {part: tuple(dict.fromkeys(text for card in group for text in getattr(card, part))) for part in parts}
    return PlayerCard(group[0].kind, **lists)


def _smalltalk_card(data: dict[str, Any]) -> SmalltalkCard:
    moods = _texts(data, "mood")
    if not set(moods) <= set(MOODS):
        raise ValueError(f"`mood` must be among {', '.join(MOODS)}")
    reply = tuple(
        (name, tuple(map(str, data["reply"][name]))) for name in (PLAIN, *TEMPERAMENTS) if data["reply"].get(name)
    )
    if not reply:
        raise ValueError(f"`reply` must hold `{PLAIN}` or at least one temperament")
    return SmalltalkCard(_texts(data, "say"), moods, reply, _texts(data, "roles", False))


def _talk_card(data: dict[str, Any]) -> TalkCard:
    temper = data.get("temper") or ""
    if temper and temper not in TEMPERAMENTS:
        raise ValueError(f"`temper` must be among {', '.join(TEMPERAMENTS)}")
    steps = tuple(map(_talk_step, data["steps"]))
    if not steps:
        raise ValueError("`steps` must hold one or more")
    return TalkCard(_texts(data, "facts", False), steps, _texts(data, "roles", False), temper)


def _character(data: dict[str, Any]) -> TalkCard:
    card = _talk_card(data)
    if not card.facts or not card.roles:
        raise ValueError("a character needs `facts` and `roles`")
    return card


def _talk_step(data: dict[str, Any]) -> TalkStep:
    moods, action = _texts(data, "mood"), data.get("action") or None
    if not set(moods) <= set(MOODS):
        raise ValueError(f"`mood` must be among {', '.join(MOODS)}")
    if action not in (None, *ACTIONS):
        raise ValueError(f"`action` must be among {', '.join(ACTIONS)}")
    return TalkStep(_texts(data, "say"), _texts(data, "reply"), moods, action)
