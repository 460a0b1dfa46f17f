"""tinynet: convolutional networks from scratch in NumPy and CuPy; train them, and see what they have learned.

Start with tinynet.nn (layers), tinynet.functional (their maths), tinynet.train (the loop) and tinynet.interpret (the way back to
pixels).
"""

from importlib import import_module
from typing import Any

from . import backend, errors, functional, nn, optim

_LATER = ("data", "distributed", "interpret", "models", "study", "train")
"""Subpackages that are imported when they are first asked for, so that `import tinynet` stays quick."""
_FROM = {
    "load": "models", "load_weights": "models", "load_model": "models",
    "from_onnx": "models", "from_torch": "models", "to_onnx": "models",
}
"""Functions that stand here, too, and the subpackage that each is of."""

__all__ = ["backend", "errors", "functional", "nn", "optim", *_LATER, *_FROM]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return import_module(f"{__name__}.{name}")
    if name in _FROM:
        return getattr(import_module(f"{__name__}.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER, *_FROM])
