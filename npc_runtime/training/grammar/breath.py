"""One attribute of several owners told in one breath ("My sister is afraid of geese, and my brother of thunder")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npc_runtime.training.grammar import wording
from npc_runtime.training.grammar.attribute_deck import WORDING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from npc_runtime.training.grammar.attributes import AttributeFact
    from npc_runtime.training.threads import Step, Told


class Breath:
    """The same attribute of two or three owners, told in one breath; the questions go from one to the next."""

    def __init__(self, facts: Sequence[AttributeFact], rng: random.Random) -> None:
        self._facts, self._rng, self._at, self._asked = tuple(facts), rng, rng.randrange(len(facts)), False

    @property
    def kin(self) -> set[str]:
        """What any of its facts is about."""
        return set[str]().union(*(fact.kin for fact in self._facts))

    @property
    def fits(self) -> bool:
        """Always."""
        return True

    def told(self) -> Told:
        """The value of the fact asked for last, or first where nothing was asked."""
        return self._facts[self._at].told()

    def tell(self, before: str = "", after: str = "") -> Step:
        """The player tells them all."""
        first, *others = self._facts
        gap = first.attribute.gap and self._rng.random() < 0.6
        texts = [first.fill(first.attribute.tell[:1], "I") if gap else first.clause("I")]
        texts += [fact.fill(fact.attribute.gap, "I") if gap else fact.clause("I") for fact in others]
        head = ", ".join(texts[:-1])
        shape = "{A}, and {b}." if gap else self._rng.choice(WORDING["breath"])
        whole = shape.format(a=head, A=wording.cap(head), b=texts[-1], B=wording.cap(texts[-1]))
        values = [fact.attribute.phrase(fact.value) for fact in self._facts]
        return wording.telling(whole, wording.ack(values, self._rng), self._rng, before, after)

    def volunteer(self) -> Step | None:
        """The character speaks of one of them."""
        return self._facts[self._at].volunteer()

    def correct(self) -> Step | None:
        """The player corrects the one that is asked for next."""
        return self._facts[self._at].correct()

    def ask(self) -> Step:
        """The player asks for one; for another the next time."""
        if self._asked:
            self._at = (self._at + 1) % len(self._facts)
        self._asked = True
        return self._facts[self._at].ask()

    def beside(self) -> Step | None:
        """Beside the one asked for."""
        return self._facts[self._at].beside()
