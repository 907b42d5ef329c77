"""Company: long simulated conversations, counted for loops and broken replies; and a page of samples to be read."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npc_runtime.evaluation.loops import looping
from npc_runtime.persona import Persona
from npc_runtime.prompt import persona_lines
from npc_runtime.training.corpus import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.evaluation.talk import Spoken, Talker
    from npc_runtime.sampling import Sampling
    from npc_runtime.training.cards import SmalltalkCard
    from npc_runtime.training.corpus import Scene

LOOKED_BACK = 8
"""Replies in which the same reply counts as a repeat."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Counts among `replies`."""

    replies: int
    loops: int
    """Replies that say the same over and over, as loops.py has it."""
    repeats: int
    """Replies of five words or more that were said before within the last LOOKED_BACK."""
    broken: int
    """Replies without a letter, with broken characters, or cut at the length limit."""


def faults(conversations: Sequence[Sequence[Spoken]]) -> Faults:
    """Counts over all replies."""
    loops = repeats = broken = replies = 0
    for spoken in conversations:
        for index, reply in enumerate(spoken):
            replies += 1
            loops += looping(reply.text)
            before = [earlier.text for earlier in spoken[max(0, index - LOOKED_BACK) : index]]
            repeats += len(reply.text.split()) >= 5 and reply.text in before
            broken += reply.finish != "end" or "\ufffd" in reply.text or not any(map(str.isalpha, reply.text))
    return Faults(replies, loops, repeats, broken)


def simulate(
    talker: Talker, personas: Sequence[Persona], scripts: Sequence[Sequence[Line]], sampling: Sampling, seed: int = 1
) -> list[list[Spoken]]:
    """Each persona hears its script's turns, all in step, and answers every player line."""
    spoken: list[list[Spoken]] = []
    for first in range(0, len(personas), talker.rows.most):
        some = range(first, min(first + talker.rows.most, len(personas)))
        talker.rows.start([talker.prompt(personas[index], ()) for index in some])
        recent: list[list[int]] = [[] for _ in some]
        mine: list[list[Spoken]] = [[] for _ in some]
        for turn in range(max(len(scripts[index]) for index in some)):
            talker.rows.read([talker.turn(scripts[index][turn % len(scripts[index])]) for index in some])
            replies = talker.reply(len(some), sampling, seed + first, turn, recent)
            for row, reply in enumerate(replies):
                mine[row].append(reply)
        spoken += mine
    return spoken


def scripts(
    scenes: Sequence[Scene], talk: Sequence[SmalltalkCard], count: int, turns: int, seed: int = 1
) -> list[list[Line]]:
    """Player lines for simulated conversations: small talk and lines of players in held-out scenes."""
    rng = random.Random(f"scripts/{seed}")
    heard = [line for scene in scenes for line in scene.lines if line.who == "player"]
    says = [say for card in talk for say in card.say if not say.startswith("E: ")]
    made = []
    for _ in range(count):
        lines = [rng.choice(heard) if rng.random() < 0.5 else Line("player", rng.choice(says)) for _ in range(turns)]
        made.append(lines)
    return made


SAMPLES: tuple[tuple[Persona, tuple[str, ...]], ...] = (
    (
        Persona("Marta Venn", "blacksmith", ("gruff", "loyal", "superstitious"), "short sentences, forge talk",
                ("her brother Tam died at Pell bridge", "she owes forty crowns to the Salt Guild",
                 "she makes the best ship nails on the coast"), "to be rid of the Guild",
                "a rain-soaked harbour town in late autumn"),
        ("Hello.", "My name is Wren.", "Do you have any swords?", "How much for a good knife?", "Who was Tam?",
         "E: The player puts a silver ring on the anvil.", "What do you owe the Guild?", "What is my name?",
         "What did I put on your anvil?", "I have to go. Goodbye."),
    ),
    (
        Persona("Odo", "innkeeper", ("cheerful", "curious", "talkative"), "warm, laughs at his own jokes",
                ("the stew is mutton", "a room costs three coppers", "his wife Hanne runs the kitchen"),
                "a full house by winter", "a crossroads inn"),
        ("good evening! got a room?", "i'm Tolliver, i come from Maresk", "what's in the stew?", "any news?",
         "who runs the kitchen?", "tell me a joke", "where do i come from?", "do you know my sister's name?",
         "and what's my name?"),
    ),
    (
        Persona("Unit Seven", "maintenance robot", ("literal", "patient", "lonely"), "precise, no figures of speech",
                ("the reactor on deck four leaks", "the crew left ninety days ago", "it keeps a plant called Bolt"),
                "someone to give orders", "an abandoned space station"),
        ("Is anyone there?", "Where did the crew go?", "Is it safe here?", "What is your plant called?",
         "You can call me Captain Ryssa.", "Are you lonely?", "Open the door please.", "Who am I?"),
    ),
    (
        Persona("Nell", "street child and pickpocket", ("quick", "hungry", "proud"), "short, cheeky",
                ("guards never look up", "her friend Button has a cough"), "a real pair of boots",
                "the back lanes of a port"),
        ("Give me back my purse!", "I'm not angry. What's your name?", "E: The player holds out half a loaf.",
         "Who is Button?", "I'm Brenna. I hid a lantern under the old bridge.",
         "Can you show me the way to the harbour?", "What did I hide?", "Do you remember my name?"),
    ),
)  # fmt: skip
"""Personas and player lines of the sample page."""


def sample_page(talker: Talker, sampling: Sampling, seed: int = 7) -> str:
    """The sample conversations as text, unedited."""
    heard = [
        [Line("event", text[3:]) if text.startswith("E: ") else Line("player", text) for text in lines]
        for _, lines in SAMPLES
    ]
    spoken = simulate(talker, [persona for persona, _ in SAMPLES], heard, sampling, seed)
    parts = []
    for (persona, _), turns, replies in zip(SAMPLES, heard, spoken, strict=True):
        shown = [f"    {line}" for line in persona_lines(persona)]
        for turn, reply in zip(turns, replies, strict=False):  # shorter scripts were played round again
            act = f", {reply.action}" if reply.action else ""
            shown += [f"{turn.who:6s}  {turn.text}", f"{persona.name} ({reply.mood}{act}): {reply.text}"]
        parts.append("\n".join(shown))
    return "\n\n".join(parts)
