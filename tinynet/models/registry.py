"""Models by name: what a saved model's file says it is, and what the command line takes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..nn import Layer

_BUILDERS: dict[str, Callable[..., Layer]] = {}


def register(builder: Callable[..., Layer]) -> Callable[..., Layer]:
    """Make a function `name(…, rng)` that builds a model known under its name."""
    _BUILDERS[builder.__name__] = builder
    return builder


def names() -> list[str]:
    """The names that `create` knows."""
    return sorted(_BUILDERS)


def create(name: str, *, rng: np.random.Generator | None = None, **arguments: Any) -> Layer:
    """Build the model of that name; the other arguments are its own. Raises ArgumentError that lists what there is."""
    if name not in _BUILDERS:
        near = difflib.get_close_matches(str(name), _BUILDERS, n=3, cutoff=0.3) or names()
        raise ArgumentError(f"no model {name!r}; there is {', '.join(near)}")
    known = [p for p in inspect.signature(_BUILDERS[name]).parameters if p != "rng"]
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise ArgumentError(f"{name}: unknown argument {unknown[0]!r}; it takes {', '.join(known)}")
    return _BUILDERS[name](**arguments, rng=rng)
