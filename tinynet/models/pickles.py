"""Reading a pickle as data, without running it.

Python's own unpickler is a small machine that calls what the file names. This one is the same stack machine with nothing to
call: it builds plain values and containers; a name (GLOBAL) is looked up in a table that the caller gives and is never imported;
whatever is not in the table is refused by its name. No attribute is ever set, and nothing is hashed but plain keys.

The opcodes are told apart by pickletools, Python's own disassembler, which runs nothing either.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

from ..errors import FileError

MOST_OPCODES = 5_000_000
"""A checkpoint has some forty a tensor; each may make an object of a few hundred bytes."""

Constructor = Callable[..., Any]


class Name(str):
    """A name that a pickle mentions, such as "torch.FloatStorage": as a value it does nothing."""


class Stateful:
    """What a constructor of the table may return, if the pickle is to complete it (opcode BUILD)."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()
_PLAIN = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})


def read_pickle(
    file: BytesIO, known: Mapping[str, Constructor | None], what: str, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The value of the pickle that begins where `file` stands; the file is left behind it.

    known: dotted name → what to make of its arguments; None: the name may be mentioned and not called.
    persistent: turns a persistent id into a value; None: there are none. what: the file's name, for errors.
    Raises FileError for damage, for a name that is not known, and for what data does not need (opcodes INST, OBJ, EXT).
    """
    try:
        return _Machine(known, what, persistent).run(file)
    except FileError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError, MemoryError, AttributeError) as error:
        raise FileError(f"{what}: damaged, or not a pickle ({_short(error)})") from None


class _Machine:
    def __init__(self, known: Mapping[str, Constructor | None], what: str, persistent: Callable[[Any], Any] | None) -> None:
        self.known, self.what, self.persistent = known, what, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: BytesIO) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_OPCODES:
                raise FileError(f"{self.what}: more than {MOST_OPCODES:,} steps in its pickle; no checkpoint needs that many")
            if opcode.name == "STOP":
                if len(self.stack) != 1:
                    raise ValueError(f"{len(self.stack)} values at the end")
                return self._value()
            self._step(opcode.name, argument)
        raise ValueError("no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PLAIN:
            stack.append(argument)
        elif name in _PUT:
            self.memo[argument] = self._top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name in _GET:
            stack.append(self.memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            size = _SHORT_TUPLES[name]
            values = tuple(self._value() for _ in range(size))
            stack.append(values[::-1])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(self._name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self._of(str), self._of(str)
            stack.append(self._name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, callee = self._of(tuple), self._value()
            stack.append(self._call(callee, arguments))
        elif name == "BUILD":
            state = self._value()
            self._build(self._top(), state)
        elif name in ("PERSID", "BINPERSID"):
            identity = argument if name == "PERSID" else self._value()
            if self.persistent is None:
                raise FileError(f"{self.what}: refers to something outside its pickle, which data of this kind does not")
            stack.append(self.persistent(identity))
        else:
            self._group(name, argument)

    def _group(self, name: str, argument: Any) -> None:
        """Opcodes of containers, and the rest."""
        stack = self.stack
        if name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name == "LIST":
            stack.append(self._since_mark())
        elif name == "DICT":
            stack.append(fill({}, self._since_mark()))
        elif name == "FROZENSET":
            stack.append(frozenset(map(_key, self._since_mark())))
        elif name == "APPEND":
            value = self._value()
            self._container(list).append(value)
        elif name == "APPENDS":
            values = self._since_mark()
            self._container(list).extend(values)
        elif name == "SETITEM":
            value, key = self._value(), self._value()
            fill(self._container(dict), [key, value])
        elif name == "SETITEMS":
            values = self._since_mark()
            fill(self._container(dict), values)
        elif name == "ADDITEMS":
            values = self._since_mark()
            self._container(set).update(map(_key, values))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(self._top())
        elif name == "PROTO":
            if argument > 5:
                raise FileError(f"{self.what}: pickle protocol {argument}; expected at most 5")
        elif name == "INST":
            raise self._refusal(argument.replace(" ", ".", 1))
        elif name != "FRAME":
            raise FileError(f"{self.what}: its pickle uses {name}, which weights do not need; it was not run")

    def _name(self, name: str) -> Name:
        if name not in self.known:
            raise self._refusal(name)
        return Name(name)

    def _refusal(self, name: str) -> FileError:
        return FileError(
            f"{self.what}: holds {_printable(name)}, which is no tensor and no plain container; nothing was run. "
            "Expected weights, as torch.save(model.state_dict(), …) writes them"
        )

    def _call(self, callee: Any, arguments: tuple[Any, ...]) -> Any:
        constructor = self.known[callee] if isinstance(callee, Name) else None
        if constructor is None:
            called = callee if isinstance(callee, Name) else f"a {type(callee).__name__}"
            raise FileError(f"{self.what}: its pickle calls {called}, which is data here and not called")
        try:
            return constructor(*arguments)
        except FileError:
            raise
        except Exception as error:                              # whatever is wrong with the arguments, it is the file's fault
            raise FileError(f"{self.what}: damaged at {callee} ({_short(error)})") from None

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, Stateful):
            target.set_state(state)
        elif not isinstance(target, OrderedDict):               # a state dict has one: the versions of its layers
            raise FileError(f"{self.what}: its pickle sets attributes of a {type(target).__name__}")

    def _top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise ValueError("a mark where a value is expected")
        return value

    def _value(self) -> Any:
        value = self._top()
        del self.stack[-1]
        return value

    def _of(self, kind: type) -> Any:
        value = self._value()
        if not isinstance(value, kind):
            raise TypeError(f"a {type(value).__name__} where a {kind.__name__} is expected")
        return value

    def _container(self, kind: type) -> Any:
        value = self._top()
        if not isinstance(value, kind):
            raise TypeError(f"a {type(value).__name__} where a {kind.__name__} is expected")
        return value

    def _since_mark(self) -> list[Any]:
        """The values above the last mark, taken off with it."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise ValueError("no mark")


def fill(target: dict[Any, Any], flat: Sequence[Any]) -> dict[Any, Any]:
    """Put key, value, key, value, … in, with keys that are cheap to hash."""
    if len(flat) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        target[_key(key)] = value
    return target


def _key(value: Any) -> Any:
    """A key whose hash is cheap and cannot be made to collide: deep tuples overflow the stack, chosen integers a table."""
    if isinstance(value, (str, bytes, bool)) or value is None or (isinstance(value, int) and abs(value) < 1 << 60):
        return value
    raise TypeError(f"a key of the kind {type(value).__name__}")


def _printable(name: str) -> str:
    """A name of the file's for an error: one line, no control characters, not too long."""
    return "".join(c if c.isprintable() else "?" for c in name[:120])


def _short(error: BaseException) -> str:
    return _printable(f"{type(error).__name__}: {error}".rstrip(": "))
