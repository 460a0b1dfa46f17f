"""The errors a user of tinynet meets: each is one line that names the thing, what was expected and what came.

All derive from TinynetError, so that a program (and the command line) can catch them with one clause; each also
derives from the built-in a Python programmer would expect (ValueError, TypeError, RuntimeError).
"""

from collections.abc import Iterable, Sequence


class TinynetError(Exception):
    """Base of every error that tinynet raises on purpose.

    `path` is the dotted name of the layer in which the error arose; containers fill it in on the way out.
    """

    path: str = ""

    def __str__(self) -> str:
        message = super().__str__()
        return escaped(f"{self.path}: {message}" if self.path else message)


def escaped(text: str) -> str:
    """The text with \\n for a new line, \\x1b for ESC and so on: what a name in a file does to no terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ShapeError(TinynetError, ValueError):
    """Sizes or numbers of axes do not fit together."""


class ArgumentError(TinynetError, ValueError):
    """An argument has a value that the operation does not take."""


class DtypeError(TinynetError, TypeError):
    """An array, or something that should be one, has the wrong type."""


class DeviceError(TinynetError, RuntimeError):
    """Arrays of different devices were mixed, or a device cannot be used."""


class DeviceMemoryError(TinynetError, MemoryError):
    """The memory of a GPU does not hold what was asked for."""


class FileError(TinynetError, ValueError):
    """A file is missing, broken, or not of the expected kind."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """The known names nearest to one that is not known: those it is a word of, then those like it; or the first ones."""
    import difflib
    import re

    known = list(known)
    words = [other for other in known if name.lower() in re.split(r"[^a-z0-9]+", other.lower())]
    like = difflib.get_close_matches(name, known, n=most, cutoff=0.3)
    return ", ".join((list(dict.fromkeys([*words, *like])) or known)[:most])


def some(names: Sequence[str], most: int = 8) -> str:
    """The names, or the first of them and how many there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names):,} in all)"
