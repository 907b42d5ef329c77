"""What is said of an event: its telling, the questions for each of its parts, the answers, and choices offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.grammar import wording
from npc_runtime.training.grammar.events import COUNT, SUBJECT, THING, Words, persons
from npc_runtime.training.grammar.lexicon import ALSO, PERSONS, SHAPES, WH
from npc_runtime.training.grammar.wording import cap, untold

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.grammar.events import Event, Voice
    from npc_runtime.training.grammar.lexicon import Role

WRAPPED = 0.35
"""Share of events told as a clause with other words around it."""
ASKED = 0.55
"""Share of questions asked in words that fit any question."""
OTHERWISE = 0.35
"""Share of questions in other words than the verb's own, where there are such."""
_OWN = {key: untold(texts) for key, texts in SHAPES.items()}
"""Shapes for facts that the player did not tell."""


def telling(event: Event, voice: Voice, rng: random.Random) -> str:
    """The event as the player tells it."""
    words = Words(event, voice, rng)
    lead = next((code for code in event.roles if event.conversed(code)), "")
    if lead and rng.random() < 0.35:
        words.roles(lead)
        return wording.told(f"{converse(words, lead)}{words['rest']}", rng)
    if rng.random() < WRAPPED:
        words.roles()
        return wording.told(f"{words['s']} {words['vo']} {words['r']}", rng)
    kind = rng.choice(_tellings(event))
    lead = rng.choice(persons(event)) if kind == "tell_person" else ""
    words.roles(lead)
    return words.fill(SHAPES[kind])


def _tellings(event: Event) -> list[str]:
    """The families of shapes that fit."""
    kinds = ["tell", "tell"]
    if event.thing:
        kinds += ["tell_object", "tell_whom" if event.thing.person else "tell_what"]
    if persons(event):
        kinds += ["tell_person"]
    if event.subject.third:
        kinds += ["tell_third"]
        kinds += ["tell_passive"] if event.thing and event.thing.determiner != "my" else []
    return [*kinds, "tell_i"] if event.subject.told.name == "I" else kinds


def converse(words: Words, code: str, thing: str = "o") -> str:
    """The event from the other side: "Aldo sold me a kettle"."""
    what = words.event.conversed(code).format(me=words["me"], o=words[thing])
    return f"{words.event.roles[code].value} {what}"


def question(event: Event, code: str, voice: Voice, rng: random.Random, own: bool = False, claimed: bool = True) -> str:
    """What the player asks for a part. `own`: the part is the character's, who was told nothing.

    `claimed`: the question may say that it happened ("I sold the kettle. Who to?").
    """
    words = Words(event, voice, rng)
    words.question(code)
    if rng.random() < ASKED:
        return wording.asked(words["q"], words["w"], rng, own)
    shapes = _OWN if own else SHAPES
    return words.fill(shapes[_asking(event, code, claimed, rng)])


def exchange(event: Event, code: str, rng: random.Random, own: bool = False) -> tuple[str, str]:
    """A question for a part and its answer, at times in other words than the event was told in."""
    subject, others = event.subject, _otherwise(event, code)
    if not others or rng.random() > OTHERWISE:
        return question(event, code, subject.asked, rng, own), answer(event, code, subject.answered, rng, own)
    words = Words(event, subject.asked, rng)
    direct, embedded = (text.format_map(words) for text in rng.choice(others))
    asked = wording.asked(direct, embedded, rng, own)
    if code not in PERSONS and code != "price":
        return asked, answer(event, code, subject.answered, rng, own)
    words = Words(event, subject.answered, rng)
    words.answer(code)
    return asked, words.fill((_OWN if own else SHAPES)["answer_bare"])


def _otherwise(event: Event, code: str) -> list[tuple[str, str]]:
    """Direct and embedded questions by what followed from it, or what the role's person did."""
    others = [] if event.shared else list(ALSO.get((event.verb.group, code), ()))
    if event.conversed(code):
        who = f"who {event.conversed(code).replace('{o}', '{d}')}"
        others += [(who, who)] * 2
    return others


def _asking(event: Event, code: str, claimed: bool, rng: random.Random) -> str:
    if code == THING:
        return "ask_whom" if event.thing and event.thing.person else "ask_thing"
    if code in (SUBJECT, COUNT):
        return f"ask_{code}"
    kind = "ask_person" if code in PERSONS else f"ask_{code}"
    kinds = [kind, "ask_object"] if event.thing else [kind]
    if claimed:
        kinds += ["ask", "ask_gap"] if _alone(event, code) else ["ask"]
    return rng.choice(kinds)


def _alone(event: Event, code: str) -> bool:
    """Whether what the question leaves behind ("from") names this role and no other."""
    left = WH[code][1].strip()
    return bool(left) and not any(
        role.phrase.startswith(f"{left} ") for role in event.roles.values() if role.code != code
    )


def answer(event: Event, code: str, voice: Voice, rng: random.Random, own: bool = False) -> str:
    """What the character answers."""
    words = Words(event, voice, rng)
    if code in (THING, COUNT, SUBJECT):
        words["other"] = words.other(code)
        return words.fill(SHAPES[f"answer_{code}"])
    words.answer(code)
    if event.conversed(code) and rng.random() < 0.2:
        return f"{cap(converse(words, code, 'd'))}{words['and_more']}."
    return words.fill(SHAPES[rng.choice(_answers(code, own))])


def _answers(code: str, own: bool) -> Sequence[str]:
    kinds = ["answer"] if own else ["answer", "answer", "answer_told"]
    if code in PERSONS:
        return [*kinds, "answer_person", "answer_person"]
    return [*kinds, "answer_value"] if code in ("price", "tool") else kinds


def whole(event: Event, rng: random.Random) -> tuple[str, str]:
    """A question for all that was told of the thing, and the answer."""
    words, back = Words(event, event.subject.asked, rng), Words(event, event.subject.answered, rng)
    back.roles()
    return words.fill(SHAPES["ask_whole"]), back.fill(SHAPES["answer_whole"])


def pair(event: Event, code: str, second: str, rng: random.Random) -> tuple[str, str]:
    """A question for two roles at once, and what answers it; the second may never have been told."""
    words, back = Words(event, event.subject.asked, rng), Words(event, event.subject.answered, rng)
    words.question(code, narrowed=0)
    back.answer(code)
    words["short2"] = back["short2"] = "".join(WH[second])
    asked = words.fill(SHAPES["ask_pair"])
    if second not in event.roles:
        return asked, back.fill(SHAPES["answer_half"])
    back["p2"] = event.roles[second].phrase
    return asked, back.fill(SHAPES["answer_pair"])


def offered(event: Event, wrong: Role, rng: random.Random) -> tuple[str, str]:
    """A question that offers the answer beside a wrong one, or the wrong one alone, and what answers it."""
    code = wrong.code
    words, back = Words(event, event.subject.asked, rng), Words(event, event.subject.answered, rng)
    words.question(code)
    for side in (words, back):
        side.answer(code)
        side["y"], side["py"] = wrong.value, wrong.phrase
    if rng.random() < 0.3:
        return words.fill(SHAPES["wrong"]), back.fill(SHAPES["answer_wrong"])
    kind = rng.choice(("choice", "choice_person") if code in PERSONS else ("choice",))
    return words.fill(SHAPES[kind]), answer(event, code, event.subject.answered, rng, own=True)


def correction(event: Event, old: Role, new: Role, rng: random.Random) -> tuple[str, str]:
    """The player puts `new` for `old` (the event's still); the character takes it."""
    bare = (old.code in PERSONS or old.code in ("in", "toward", "off", "price")) and rng.random() < 0.7
    before, now = (old.value, new.value) if bare else (old.phrase, new.phrase)
    words = Words(event, event.subject.asked, rng)
    words.question(old.code)
    if rng.random() < 0.4:
        words["p"], words["pold"] = new.phrase, old.phrase
        text = words.fill(SHAPES["corrected"])
    else:
        text = wording.corrected(now, before, words["w"], rng)
    return text, wording.correct_ack(now, before, rng)


def volunteered(event: Event, code: str, rng: random.Random) -> str:
    """The character speaks of it unasked."""
    words = Words(event, event.subject.answered, rng)
    words.answer(code)
    return words.fill(SHAPES["volunteered"])


def missing(event: Event, code: str, rng: random.Random) -> tuple[str, str]:
    """A question for a role that was not told, and an honest answer, which may name what was."""
    words = Words(event, event.subject.answered, rng)
    words.question(code)
    known = rng.choice(list(event.roles))
    if rng.random() < 0.3:
        told = Words(event, event.subject.answered, rng)
        told.question(known)
        words["kw"], words["kp"] = told["w"], event.roles[known].phrase
        reply = words.fill(SHAPES["known_role"])
    elif rng.random() < 0.3:
        reply = wording.unknown(words["w"], "", rng)
    else:
        reply = words.fill(SHAPES["missing_role"])
    return question(event, code, event.subject.asked, rng), reply


def never(known: Event, other: Event, code: str, kind: str, rng: random.Random) -> tuple[str, str]:
    """A question about `other`, never told, and an honest answer; `kind` of its difference: thing, verb or subject."""
    words, told = Words(other, other.subject.answered, rng), Words(known, known.subject.answered, rng)
    words.question(code)
    words["kd"], words["kvd"], words["ks"], words["kme"] = (told[key] for key in ("d", "vd", "s", "me"))
    words["kself"] = "yourself" if told["me"] == "you" else told["me"]
    if kind == THING and rng.random() < 0.12:
        return Words(other, other.subject.asked, rng).fill(SHAPES["ask_whole"]), words.fill(SHAPES["other_thing"])
    asked = question(other, code, other.subject.asked, rng, claimed=False)
    if rng.random() < 0.8:
        return asked, words.fill(SHAPES[f"other_{kind}"])
    about = words["o"] if kind == THING else words["me"] if kind == SUBJECT else ""
    return asked, wording.unknown(words["w"], about, rng)
