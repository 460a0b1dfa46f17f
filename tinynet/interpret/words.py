"""What sheets and reports say of projections and of their figures: the same words everywhere."""

from __future__ import annotations

from . import pictures
from .deconvnet import MEANING
from .deletion import Areas

WORDS = (
    f"{MEANING} The control is the same walk, from the same value at the same place, "
    "through the network with all its weights redrawn: what both show comes from the photo and the switches, and was not learned."
)
AREAS = (
    "del., ins.: mean activation, as a share of its value, while the pixels that the projection marks go first (small is good), "
    "or come first (large is good); in brackets, in random order. Where these are alike, the projection does not show what the "
    "activation depends on."
)
BEYOND = "Even grey in a photo is beyond its border."


def scale(what: str, zero: str = "Mid grey is 0") -> str:
    """How a number becomes a colour. what: has one scale, whose ends stand below as ±. zero: what is 0, as a sentence begins."""
    return (
        f"{zero}; {what} has one scale, whose ends, ±, are the {pictures.PERCENTILE:g}th percentile of its magnitude."
    )


def areas_words(areas: Areas) -> str:
    """Deletion and insertion, each with that of random order in brackets."""
    gone, come, gone_random, come_random = map(two, areas)
    return f"del. {gone} ({gone_random}) · ins. {come} ({come_random})"


def two(value: float) -> str:
    """Two places, and no −0.00."""
    return f"{round(value, 2) + 0:.2f}"


__all__ = ["AREAS", "BEYOND", "WORDS", "areas_words", "scale", "two"]
