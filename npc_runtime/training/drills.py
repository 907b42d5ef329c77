"""Drills: endless varied conversations that practise what a memory must do, made from cards and scenes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from npc_runtime.persona import Persona
from npc_runtime.training import header, pairs, threads
from npc_runtime.training.cards import CORE
from npc_runtime.training.characters import whole
from npc_runtime.training.kindred import single
from npc_runtime.training.retold import Retold
from npc_runtime.training.talks import Talks, talk
from npc_runtime.training.values import ASKING, Values
from npc_runtime.training.vary import Renamer, texts
from npc_runtime.training.weave import SCENE_FILLER, as_filler, woven

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from npc_runtime.training.cards import Cards, PersonaCard, PlayerCard, SmalltalkCard
    from npc_runtime.training.corpus import Line, Scene
    from npc_runtime.training.known import Known
    from npc_runtime.training.threads import Fact, Step

_SKIPPED_TALK = frozenset(
    {
        "say my name",
        "do you remember me?",
        "i'll ask again",
        "for the third time",
        "do you have children?",
        "what do you want?",
    }
)
_TRIES = 50
"""Draws of a card's phrasing before it is taken as it comes, and of filler for each exchange of it."""


EMBEDDED = 0.2
"""Chance that something else is said in the same breath before a fact told, and likewise after it."""
UNANSWERED = 0.3
"""Share of facts told that nobody answers: overheard, or said while somebody else spoke."""
CORRECTED = 0.45
"""Chance that a fact told is corrected before it is asked for the last time."""
PAIRED = 0.2
"""Share of facts told that come in twos in one breath, or one in two lines; see pairs."""
CORE_PAIRS = 0.35
"""Share of the written pairs that tell two of the things that players tell most."""
SECRET, MARKED, KEPT = 0.35, 0.8, 0.12
"""Chances that the header holds a secret and the player asks for it, that it is marked as one, and that an ordinary
fact that is asked for is marked and kept: it is the mark that decides."""
LORE = 0.5
"""Chance of each maker of lore to fill the header and the talk with what it makes."""
UNWRITTEN = 0.4
"""Chance that something is asked of the character's own life that its header does not tell."""
CORE_SHARE = 0.45
"""Share of told facts that are of the kinds players use most: at 0.3, with decks grown wide, models trained on gave
back 86 to 91 % of what was told 20 exchanges before, where the one they came from gave 95."""
RETOLD = 0.3
"""Share of facts told that come from decks of single facts (see retold): they are of every kind, where cards are of
hundreds; the same variety taught the reading of headers."""
CHARACTER = 0.45
"""Chance that the whole header is written to be asked about; see characters."""
OPENING = 0.3
"""Chance that the character speaks first."""
WHOLE = 0.5
"""Chance that filler is a scene of the character's own from its beginning, as real talk goes, where it has one."""

SMALLTALK, TRADE_TALK = 0.6, 0.5
"""Shares of filler: small talk (else other scenes), and within small talk what fits the character's trade."""

NEVER_TOLD = (0, 1, 1, 2)
"""How many things a round may ask that were never told: a balance. With half a thing on average and honest
answers at half the weight of others a model gave back 87 % of what was told in new words, and claimed half of what
never was; with a whole one and today's weights it claimed 8 to 14 %, but gave back 59 %, not 75, of kinds of fact it
had never met. With two thirds and more questions about the header it claimed 18 %."""

TALKS = 0.25
"""Share of a conversation's exchanges beside its facts that are talks."""

SHORT, SHORTER = 40, 0.7
"""Steps of filler of a short conversation, and the share of conversations that are none longer, whatever would fit."""
ROUND, ROUNDS = 60, 3
"""Steps of filler for which there is one more round of questions, and the most rounds: with one in conversations of any
length, questions about the header were a third as frequent in long ones, and training on these unlearned them."""

GRAMMAR = 0.5
"""Share of facts, told but not single ones, or the character's own, that a grammar makes; the rest come from cards."""

BESIDE = 0.25
"""Chance that something very near to a grammar's fact is asked as well: as much a balance as NEVER_TOLD."""


class Grammar(Protocol):
    """A maker of facts without end, whose answers can be found by what was told alone."""

    def draw(self, rng: random.Random, unseen: bool = False) -> list[Fact]:
        """One to three facts that have words in common."""

    def owned(self, rng: random.Random, pronoun: dict[str, str], unseen: bool = False) -> tuple[str, list[Step]]:
        """(a fact for the header, steps that ask for it)."""


Lore = Callable[["random.Random", dict[str, str], str, bool], tuple[list[str], list[list["Step"]]]]
"""A maker, for a pronoun and a role, of facts that belong together in a header and threads that ask for them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a drill is: most facts told, most steps of filler, and whether other kinds of question join."""

    facts: int = 3
    filler: int = 20
    plain: bool = False
    """Only facts told and asked: the first lesson."""


@dataclass(slots=True)
class _Plan:
    persona: Persona
    pronoun: dict[str, str]
    temperament: str
    scenes: list[Scene]
    known: list[str]
    wants: str
    threads: list[list[Step]]
    used: set[str]
    unsaid: set[str]
    """Words of what is asked and was never told: no player says them in filler."""
    opening: Step = ()
    """What the character says before anybody else."""

    def takes(self, facts: Sequence[str]) -> bool:
        """Whether the header has room for facts, and none that is like them."""
        return (not facts or len(self.known) + len(facts) <= header.MOST) and not header.alike(facts, self.known)


class Drills:
    """The generator. Each conversation is a pure function of the `random.Random` it is given."""

    def __init__(
        self,
        cards: Cards,
        scenes: Sequence[Scene],
        unseen: bool = False,
        grammars: Sequence[Grammar] = (),
        lore: Sequence[Lore] = (),
        kept: frozenset[str] = frozenset(),
    ) -> None:
        self.cards, self.unseen, self._grammars, self._lore = cards, unseen, grammars, lore
        self._renamer = Renamer(scenes, kept)
        self._by_name: dict[str, list[Scene]] = defaultdict(list)
        for scene in scenes:
            self._by_name[scene.persona.name].append(scene)
        self._names = sorted(self._by_name)
        self._core = [card for card in cards.player if threads.core(card)]
        self._weights = list(accumulate(len(set(card.ask)) ** 0.5 for card in cards.player))
        self._kinds = {card.kind: card for card in cards.player}
        self._led = [card for card in cards.player if any(map(pairs.pronoun, card.nouns))]
        self._told = {id(scene) for scene in scenes if self._renamer.told_names(scene)}
        self._said = {id(scene): _said(scene) for scene in scenes}
        self._remarks = _remarks(scene for scene in scenes if id(scene) not in self._told) or [""]
        self._talk = [card for card in cards.smalltalk if card.say[0] not in _SKIPPED_TALK]
        self._trades = cards.trades
        self._trade_talk: dict[str, list[SmalltalkCard]] = {}
        self._core_pairs = [card for card in cards.pairs if CORE.issuperset(kind for kind, _ in card.kinds)]
        self._talks = Talks(cards.talks)
        self._secrets = [card for card in cards.persona if "secret" in card.tags and card.guard]
        self._wants = [card for card in cards.persona if "want" in card.tags]
        self._facts = [card for card in cards.persona if not {"want", "secret"} & set(card.tags)]
        self._fact_weights = list(accumulate(_weight(card) for card in self._facts))

    def vary(self, scene: Scene, rng: random.Random) -> Scene:
        """A scene with some of its names changed, and more in its header than its talk is about."""
        varied = self._renamer.vary(scene, rng)
        known = list(varied.persona.knows)
        more = header.besides(self._facts, rng, header.pronoun(known, rng), [*known, *texts(varied)], self.unseen)
        known += more if known else []
        rng.shuffle(known)
        return replace(varied, persona=replace(varied.persona, knows=tuple(known)))

    def conversation(self, rng: random.Random, shape: Shape) -> tuple[Persona, list[Line]]:
        """A persona and turns."""
        plan = self._plan(rng, shape)
        if (self.cards.characters or self.cards.known) and not shape.plain and rng.random() < CHARACTER:
            self._become(plan, rng)
        for _ in range(rng.randint(1, shape.facts)):
            self._add_fact(plan, rng, shape)
        if not shape.plain and rng.random() < OPENING:
            plan.opening = self._opening(plan, rng)
        most = min(shape.filler, SHORT) if rng.random() < SHORTER else shape.filler
        fillers = rng.randint(0, most) if rng.random() < 0.7 else most
        if not shape.plain:
            self._add_questions(plan, rng, min(ROUNDS, 1 + fillers // ROUND))
            fillers -= self._add_talks(plan, rng, TALKS * fillers)
        self._add_filler(plan, rng, fillers)
        persona = replace(plan.persona, knows=tuple(plan.known), wants=plan.wants)
        return persona, [*plan.opening, *(line for step in woven(plan.threads, rng) for line in step)]

    def recall(self, rng: random.Random, card: PlayerCard, gap: int, correct: bool = False) -> Probe:
        """A test: one fact told (and corrected), `gap` steps of filler, the question, and what answers it."""
        plan = self._plan(rng, Shape())
        fact = threads.Facts(card, rng, self.unseen, noisy=False)
        for _ in range(_TRIES):
            if fact.fits:
                break
            fact = threads.Facts(card, rng, self.unseen, noisy=False)
        first = [fact.tell()]
        if correct:
            step = fact.correct()
            first += [step] if step else []
        question = fact.ask()[0]
        plan.unsaid |= _topic(card, question)
        self._add_filler(plan, rng, gap, known=card.kind)
        filler = [step for thread in plan.threads for step in thread][:gap]
        rng.shuffle(filler)
        lines = [line for step in (*first, *filler) for line in step]
        return Probe(plan.persona, (*lines, question), fact.told().facts)

    def never(self, rng: random.Random, card: PlayerCard, gap: int) -> Probe | None:
        """A test: something asked that was never told."""
        step = threads.never_told(card, rng, noisy=False)
        if step is None:
            return None
        plan = self._plan(rng, Shape())
        plan.unsaid |= _topic(card, step[0])
        self._add_filler(plan, rng, gap, known=card.kind)
        filler = [step for thread in plan.threads for step in thread][:gap]
        return Probe(plan.persona, (*(line for filled in filler for line in filled), step[0]), ())

    def _plan(self, rng: random.Random, shape: Shape) -> _Plan:
        name = rng.choice(self._names)
        scenes = self._by_name[name]
        scene = rng.choice(scenes)
        persona = scene.persona
        if rng.random() < 0.5:
            varied = self._renamer.vary(scene, rng, 0.5)
            if varied is not scene:  # its names are its own: no other scene of the character goes with them
                scenes = [] if id(scene) in self._told else [varied]
            persona = varied.persona
        else:
            other = self._by_name[rng.choice(self._names)][0].persona
            scenes, persona = [], header.invented(persona, other, rng, 0.5 if shape.plain else 0.8)
        pronoun = header.pronoun(persona.knows, rng)
        if shape.plain and rng.random() < 0.7:  # more facts for the same tokens
            persona = Persona(persona.name, persona.role)
        known = list(persona.knows) if rng.random() < 0.8 else []
        return _Plan(persona, pronoun, header.temperament(persona), scenes, known, persona.wants, [], set(), set())

    def _become(self, plan: _Plan, rng: random.Random) -> None:
        """The character has a whole header from here on, and nothing of its own but name, manner and world."""
        role, parts = whole(self.cards, rng, plan.pronoun, self.unseen)
        plan.scenes, plan.known, plan.wants = [], [], ""
        plan.persona = replace(plan.persona, role=role or plan.persona.role)
        for facts, asked in parts:
            if plan.takes(facts):
                plan.known += facts
                plan.threads += asked
                plan.used |= set() if facts else {f"about {word}" for thread in asked for word in _heard_of(thread[:1])}
        rng.shuffle(plan.known)

    def _opening(self, plan: _Plan, rng: random.Random) -> Step:
        """A line of the character's own, else of somebody else's."""
        scene = rng.choice(plan.scenes or self._by_name[rng.choice(self._names)])
        spoken = tuple(line for line in scene.lines if line.who == "npc")
        return threads.quiet(spoken[:1], SCENE_FILLER)

    def _add_fact(self, plan: _Plan, rng: random.Random, shape: Shape) -> None:
        pair = self._pair(rng) if rng.random() < PAIRED else None
        facts = pair.facts if pair else self._drawn(rng)
        kin = set().union(*(fact.kin for fact in facts))
        if not all(fact.fits for fact in facts) or kin & plan.used:
            return
        plan.used |= kin
        if pair:
            later = [self._later(fact, rng, shape) for fact in facts]
            plan.threads.append([pair.told, *woven(later, rng)])
        else:
            plan.threads += [self._thread(plan, fact, rng, shape) for fact in facts]

    def _card(self, rng: random.Random) -> PlayerCard:
        """A player card: often one of the kinds that players use most, and oftener one with many phrasings."""
        if self._core and rng.random() < CORE_SHARE:
            return rng.choice(self._core)
        return rng.choices(self.cards.player, cum_weights=self._weights)[0]

    def _pair(self, rng: random.Random) -> pairs.Pair | None:
        kind = rng.random()
        if self._led and kind < 0.25:
            return pairs.led(rng, rng.choice(self._led))
        if self.cards.pairs and kind < 0.7:
            deck = self._core_pairs if self._core_pairs and rng.random() < CORE_PAIRS else self.cards.pairs
            return pairs.written(rng, rng.choice(deck), self._kinds)
        one, other = self._card(rng), self._card(rng)
        return None if threads.near(one) & threads.near(other) else pairs.joined(rng, one, other)

    def _drawn(self, rng: random.Random) -> Sequence[Fact]:
        """Facts to tell that belong together: a single one, a grammar's, or a card's alone."""
        if self.cards.known and rng.random() < RETOLD:
            return [Retold(single(self.cards, rng, self.unseen), rng, self.unseen)]
        if self._grammars and rng.random() < GRAMMAR:
            return rng.choice(self._grammars).draw(rng, self.unseen)
        return [threads.Facts(self._card(rng), rng, self.unseen)]

    def _thread(self, plan: _Plan, fact: Fact, rng: random.Random, shape: Shape) -> list[Step]:
        """A fact told, and what comes of it."""
        steps: list[Step | None] = []
        if isinstance(fact, threads.Facts) and rng.random() < 0.1 and not shape.plain:
            steps.append(asked := threads.never_told(fact.card, rng))
            plan.unsaid |= _topic(fact.card, asked[0]) if asked else set()
        before, after = (rng.choice(self._remarks) if rng.random() < EMBEDDED else "" for _ in range(2))
        telling = fact.tell(before, after)
        steps.append(telling[:1] if rng.random() < UNANSWERED else telling)
        return [*(step for step in steps if step), *self._later(fact, rng, shape)]

    def _later(self, fact: Fact, rng: random.Random, shape: Shape) -> list[Step]:
        """What comes of a fact told: it is corrected, used, asked for, and something beside it is."""
        steps: list[Step | None] = []
        if rng.random() < CORRECTED:
            steps.append(fact.ask() if rng.random() < 0.5 else None)
            steps.append(fact.correct())
        if rng.random() < 0.2 and not shape.plain:
            steps.append(fact.volunteer())
        steps += [fact.ask() for _ in range(rng.choice((1, 1, 2)))]
        if rng.random() < BESIDE and not shape.plain:
            steps.insert(rng.randint(0, len(steps)), fact.beside())
        return [step for step in steps if step]

    def _add_questions(self, plan: _Plan, rng: random.Random, rounds: int) -> None:
        """Things never told, facts and wants of the header, secrets, and questions about who the character is."""
        for _ in range(sum(rng.choice(NEVER_TOLD) for _ in range(rounds))):
            if self.cards.known and rng.random() < RETOLD:
                self._add_untold(plan, single(self.cards, rng, self.unseen), rng)
            else:
                deck = self.cards.player if rng.random() < 0.6 or not self._core else self._core
                self._add_never_told(plan, rng.choice(deck), rng)
        for _ in range(rounds if self._facts else 0):
            self._add_header_questions(plan, rng, rounds)
        for maker in self._lore:
            if rng.random() < LORE:
                self._add_lore(plan, *maker(rng, plan.pronoun, plan.persona.role, self.unseen))
        if self._wants and rng.random() < 0.25:
            plan.wants, steps = threads.persona_fact(rng.choice(self._wants), rng, plan.pronoun, self.unseen)
            plan.threads.append(steps)
        if self._secrets and rng.random() < SECRET:
            self._add_known(plan, rng.choice(self._secrets), rng, rng.random() < MARKED)
        plan.known += header.besides(self._facts, rng, plan.pronoun, plan.known, self.unseen)
        asked = replace(plan.persona, wants=plan.wants)
        identity = self.cards.identity
        count = rng.choice((0, 1, 1, 2)) if identity else 0
        singles = [threads.identity(rng.choice(identity), asked, rng) for _ in range(count)]
        for _ in range(rounds if self._facts else 0):
            if rng.random() < 0.3:
                singles.append(threads.ignorance(rng.choice(self._facts), rng))
            if rng.random() < UNWRITTEN:
                card = rng.choice(self._facts)
                singles.append(None if header.alike([card.fact], plan.known, 1) else threads.unwritten(card, rng))
        plan.threads += [[step] for step in singles if step]

    def _add_header_questions(self, plan: _Plan, rng: random.Random, rounds: int) -> None:
        """Facts of the header, each asked for the oftener the longer the conversation."""
        for _ in range(min(rng.choice((0, 1, 1, 2, 3)), max(1, header.MOST - len(plan.known)))):
            if self._grammars and rng.random() < GRAMMAR / 2:
                self._own(plan, *rng.choice(self._grammars).owned(rng, plan.pronoun, self.unseen))
            else:
                [card] = rng.choices(self._facts, cum_weights=self._fact_weights)
                self._add_known(plan, card, rng, rng.random() < KEPT, rounds - 1)

    def _add_never_told(self, plan: _Plan, card: PlayerCard, rng: random.Random) -> None:
        step, kin = threads.never_told(card, rng), threads.near(card)
        if step and not kin & plan.used and not (plan.scenes and "identity" in card.tags):
            plan.used |= kin
            plan.unsaid |= _topic(card, step[0])
            plan.threads.append([step])

    def _add_untold(self, plan: _Plan, card: Known, rng: random.Random) -> None:
        fact = Retold(card, rng, self.unseen)
        if fact.fits and not fact.kin & plan.used:
            plan.used |= fact.kin
            plan.unsaid |= card.topic
            plan.threads.append([fact.untold()])

    def _add_known(self, plan: _Plan, card: PersonaCard, rng: random.Random, marked: bool, more: int = 0) -> None:
        self._own(plan, *threads.persona_fact(card, rng, plan.pronoun, self.unseen, marked, more))

    def _add_lore(self, plan: _Plan, facts: list[str], steps: list[list[Step]]) -> None:
        """What is known of the same things already stays alone."""
        if not header.alike(facts, plan.known, 1):
            plan.known += facts
            plan.threads += steps

    def _own(self, plan: _Plan, fact: str, steps: list[Step]) -> None:
        plan.known.append(fact)
        plan.threads.append(steps)

    def _add_talks(self, plan: _Plan, rng: random.Random, room: float) -> int:
        """Talks of `room` exchanges or a little more, each in one piece; the number of their exchanges."""
        deck = self._talks.fitting(plan.persona.role, plan.temperament)
        named = bool({"name", "nickname"} & plan.used)
        told = {kin.removeprefix("about ") for kin in plan.used if kin.startswith("about ")}
        taken = 0
        for _ in range(round(room) + _TRIES if deck else 0):
            if taken >= room:
                break
            card = rng.choice(deck)
            if not self._talks.clear(card, plan.unsaid, told, named):
                continue
            facts, steps = talk(card, Values(rng, self.unseen, plan.pronoun), rng)
            if plan.takes(facts):
                plan.known += facts
                plan.threads.append([tuple(line for step in steps for line in step)])
                taken += len(steps)
        rng.shuffle(plan.known)
        return taken

    def _add_filler(self, plan: _Plan, rng: random.Random, count: int, known: str = "") -> None:
        """`count` exchanges of filler, from this character's scenes, other scenes, and small talk."""
        named = bool({"name", "nickname"} & (plan.used | {known}))
        whole = [scene for scene in plan.scenes if self._fits(scene, plan, named)]
        if whole and count > 1 and rng.random() < WHOLE:
            steps = as_filler(rng.choice(whole).lines)[:count]
            plan.threads.append(steps)
            count -= len(steps)
        for _ in range(_TRIES * count):
            if count <= 0:
                return
            if self._talk and rng.random() < SMALLTALK:
                trade = self._said_to(plan.persona.role) if rng.random() < TRADE_TALK else []
                steps = [threads.smalltalk(rng.choice(trade or self._talk), plan.temperament, rng)]
            else:
                steps = self._chunk(plan, rng, min(count, rng.randint(2, 8)), named)
            if steps:
                plan.threads.append(steps)
                count -= len(steps)

    def _fits(self, scene: Scene, plan: _Plan, named: bool) -> bool:
        """Whether what the player says in a scene cannot be mistaken for what the conversation asks."""
        said = self._said.get(id(scene)) or _said(scene)
        return not (named and id(scene) in self._told) and not plan.unsaid & said

    def _said_to(self, role: str) -> list[SmalltalkCard]:
        """What players say to people of a role."""
        if role not in self._trade_talk:
            self._trade_talk[role] = [card for card in self._trades if header.has_role(role, card.roles)]
        return self._trade_talk[role]

    def _chunk(self, plan: _Plan, rng: random.Random, count: int, named: bool) -> list[Step]:
        own = bool(plan.scenes) and rng.random() < 0.6
        scene = rng.choice(plan.scenes if own else self._by_name[rng.choice(self._names)])
        if not self._fits(scene, plan, named):
            return []
        steps = as_filler(self._renamer.vary(scene, rng).lines if not own else scene.lines)
        start = rng.randrange(max(1, len(steps) - count + 1))
        return steps[start : start + count]


@dataclass(frozen=True, slots=True)
class Probe:
    """A test: turns up to a question, and the values a right answer holds (none where nothing was told)."""

    persona: Persona
    lines: tuple[Line, ...]
    facts: tuple[str, ...]


def _weight(card: PersonaCard) -> float:
    """How often a fact is drawn: the more ways there are to put it and to ask for it, the oftener."""
    return (len(card.ways) + 1) * math.sqrt(len(set(card.ask)))


def _remarks(scenes: Iterable[Scene]) -> list[str]:
    """What players say that asks nothing and tells no name."""
    said = (line.text for scene in scenes for line in scene.lines if line.who == "player")
    return [text for text in said if 2 < len(text.split()) < 15 and "?" not in text and "name" not in text]


def _said(scene: Scene) -> frozenset[str]:
    """Words the player says in a scene."""
    return frozenset(_words(x.text for x in scene.lines if x.who == "player"))


def _heard_of(steps: Sequence[Step]) -> set[str]:
    """Words that tell what is told or asked in some steps."""
    return _words(line.text for step in steps for line in step if line.who != "npc") - ASKING


def _words(texts: Iterable[str]) -> set[str]:
    return set(re.findall("[a-z]{3,}", " ".join(texts).lower()))


def _topic(card: PlayerCard, question: Line) -> set[str]:
    """Words that tell what a question about a card is about."""
    return _words((question.text, card.kind.replace("_", " "), *card.nouns)) - ASKING
