"""Models by name: what a saved model's file says it is, and what the command line takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .. import errors
from ..data.preprocessing import Preprocessing
from ..errors import ArgumentError
from ..nn import Layer

Builder = TypeVar("Builder", bound=Callable[..., Layer])

IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""How photos come to nearly every network that was trained on ImageNet."""


class Paper(NamedTuple):
    """Where an architecture was published."""

    authors: str
    year: int
    title: str

    @property
    def short(self) -> str:
        """Krizhevsky 2014; Zeiler & Fergus 2014; Iandola et al. 2016."""
        first, *others = self.authors.split(", ")
        return f"{first} et al. {self.year}" if others else f"{self.authors} {self.year}"

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}."


class Entry(NamedTuple):
    """A model that has a name."""

    builder: Callable[..., Layer]
    """builder(…, rng) → model; its defaults are the published network."""
    input_size: tuple[int, ...] = (3, 224, 224)
    """Shape of one input, without the batch axis."""
    preprocessing: Preprocessing | None = None
    """What the published weights were trained to see. None: the training decides."""
    paper: Paper | None = None


_ENTRIES: dict[str, Entry] = {}


def register(
    *, input_size: tuple[int, ...] = (3, 224, 224), preprocessing: Preprocessing | None = None, paper: Paper | None = None
) -> Callable[[Builder], Builder]:
    """Make a function `name(…, rng)` that builds a model known under its name: @register(…). Arguments: see Entry."""

    def known(builder: Builder) -> Builder:
        _ENTRIES[builder.__name__] = Entry(builder, input_size, preprocessing, paper)
        return builder

    return known


def names() -> list[str]:
    """The names that `create` knows."""
    return sorted(_ENTRIES)


def entry(name: str) -> Entry:
    """What is known of the model of that name. Raises ArgumentError that lists the nearest names."""
    if name not in _ENTRIES:
        raise ArgumentError(f"no model {name!r}; nearest: {nearest(name)} (all: tinynet models)")
    return _ENTRIES[name]


def nearest(name: str) -> str:
    """Up to five known names that look like one that is not known, for an error."""
    return errors.nearest(str(name).lower(), names(), 5)


def create(name: str, *, rng: np.random.Generator | None = None, **arguments: Any) -> Layer:
    """Build the model of that name; the other arguments are its own. Raises ArgumentError that lists what there is.

    rng: draws the initial weights; nn.init.no_draws for a model whose weights are loaded next.
    """
    builder = entry(name).builder
    known = [p for p in inspect.signature(builder).parameters if p != "rng"]
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise ArgumentError(f"{name}: unknown argument {unknown[0]!r}; it takes {', '.join(known)}")
    return builder(**arguments, rng=rng)
