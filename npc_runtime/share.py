"""Share: how much of the loop's time messages that begin no work get while Turns are computed."""

from __future__ import annotations

PART = 0.125
"""Seconds for such messages per second of Ticks: a flood makes a token cost at most so much more."""


class Share:
    """What they may take before the next Tick, in seconds; what they took too much is taken off the next ones."""

    def __init__(self, most: float) -> None:
        self.most = self.left = most

    def earn(self, ticked: float, hurry: bool) -> None:
        """After a Tick of `ticked` seconds; `hurry`: whether the next one is wanted at once, else nobody is kept."""
        self.left = min(self.most, self.left + PART * ticked) if hurry else self.most

    def spend(self, seconds: float) -> None:
        """After messages; the debt is bounded, so that a single dear one does not shut the door for long."""
        self.left = max(-self.most, self.left - seconds)
