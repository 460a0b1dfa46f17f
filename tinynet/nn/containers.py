"""Containers: they route the walks and hold no maths. Sequential is a path, Concat and Residual are parallel branches.

Everything series-parallel can be built of them: SqueezeNet, ResNet, Inception, DenseNet. The name of a container
that begins with an underscore is for structure only and does not show in paths: with

    Sequential(squeeze=conv, _expand=Concat(_1=Sequential(expand1x1=a, relu1=r), _3=Sequential(expand3x3=b, relu3=r)))

the second convolution is at "expand1x1", as torchvision has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..errors import ArgumentError, ShapeError, TinynetError
from ..functional._check import check_floats
from ._text import indent
from .layer import Fused, Layer, Saved, Seed, Step, Watch, instead, join


class Container(Layer):
    """Named children. Subclasses say how a walk goes through them."""

    shortcuts = ()                                              # what walks through it asks split.routes_plainly

    def __init__(self, *layers: Layer | Mapping[str, Layer], **named: Layer) -> None:
        self._children: dict[str, Layer] = {}
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            children: dict[str, Any] = {**layers[0], **named}
        else:
            children = {**{str(i): layer for i, layer in enumerate(layers)}, **named}
        for name, layer in children.items():
            if not isinstance(layer, Layer):
                raise ArgumentError(f"{type(self).__name__}: expected {name} to be a layer, got {layer!r}")
            if not name or "." in name:
                raise ArgumentError(f"{type(self).__name__}: expected a name without dots, got {name!r}")
            if name.startswith("_") and not isinstance(layer, Container):
                raise ArgumentError(f"{type(self).__name__}: expected a visible name for a layer, got {name!r}")
            self._children[name] = layer
        paths = [path for path, layer in self.layers() if path and not isinstance(layer, Container)]
        if len(set(paths)) < len(paths):
            double = next(path for path in paths if paths.count(path) > 1)
            raise ArgumentError(f"{type(self).__name__}: two layers would have the name {double!r}")

    def children(self) -> Iterator[tuple[str, Layer]]:
        return ((visible(name), child) for name, child in self._children.items())

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """(name, child) as they were given, underscores and all."""
        return iter(self._children.items())

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._children.values())

    def __len__(self) -> int:
        return len(self._children)

    def __getitem__(self, key: str | int) -> Layer:
        """A child by name or number."""
        return self._children[key] if isinstance(key, str) else list(self._children.values())[key]

    def __getattr__(self, name: str) -> Layer:
        """A child as an attribute, as in PyTorch: model.features."""
        try:
            return self.__dict__["_children"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute or child {name!r}{instead(name)}") from None

    def forward(
        self, x: Array, train: bool = False, rng: np.random.Generator | None = None, watch: Watch | None = None
    ) -> tuple[Array, Saved]:
        """y and the record of all layers. watch(path, layer, y) sees every named layer's output as it arises."""
        return self.walk(x, train, rng, watch, "")

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        return self.reverse(saved, dy, lambda path, layer, kept, signal: layer.input_gradient(kept, signal))

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        from .gradient import backward

        return backward(self, saved, dy, input_gradient=False)[1]

    def _up(
        self, name: str, x: Array, train: bool, rng: np.random.Generator | None, watch: Watch | None, path: str
    ) -> tuple[Array, Saved]:
        """The forward walk through one child; its errors get its path, its output is shown to the watch."""
        child, here = self._children[name], join(path, visible(name))
        y, saved = _at(here, lambda: child.walk(x, train, rng, watch, here))
        if watch is not None and visible(name):
            watch(here, child, y)
        return y, saved

    def _down(self, name: str, saved: Any, signal: Any, step: Step, seed: Seed | None, path: str, keep: bool) -> Any:
        """The walk back through one child, beginning with what the seed puts in at its output. saved: the container's."""
        child, here = self._children[name], join(path, visible(name))
        if not hasattr(saved, "children"):
            raise ArgumentError(
                f"{type(self).__name__}: expected the record that forward gives beside y, got {type(saved).__name__}; "
                "y, saved = model.forward(x, train=True)"
            )
        if name not in saved.children:
            raise ArgumentError(f"{type(self).__name__}: the record of {name} is gone: a walk back with keep=False has passed it")
        kept = saved.children[name] if keep else saved.children.pop(name)
        if seed is not None and visible(name):
            signal = seed(here, child, signal)
        return _at(here, lambda: child.reverse(kept, signal, step, seed, here, keep))

    def __call__(self, x: Array, watch: Watch | None = None) -> Array:
        """Inference: y alone, nothing kept. watch as in forward; what it sees is let go of behind it."""
        return self.infer(x, watch, "")

    def _infer(
        self, name: str, x: Array, watch: Watch | None, path: str, instead: Callable[[Array], Array] | None = None
    ) -> Array:
        """Inference through one child, or by what stands in for it; its errors get its path, its output is shown to the watch."""
        child, here = self._children[name], join(path, visible(name))
        y = _at(here, lambda: child.infer(x, watch, here) if instead is None else instead(x))
        if watch is not None and visible(name):
            watch(here, child, y)
        return y

    def __repr__(self) -> str:
        lines = [f"  {name}: {indent(repr(child))}" for name, child in self._children.items()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else f"{type(self).__name__}()"


def _at(path: str, call: Callable[[], Any]) -> Any:
    """call(); its errors get the path."""
    try:
        return call()
    except TinynetError as error:
        error.path = error.path or path
        raise


def visible(name: str) -> str:
    """The part of a path that a child of that name is: none for a name that begins with an underscore."""
    return "" if name.startswith("_") else name


class Sequential(Container):
    """One layer after the other. Children are numbered "0", "1", … or named: Sequential(conv1=…, relu1=…)."""

    class Saved(NamedTuple):
        children: dict[str, Any]

    def walk(self, x: Array, train: bool, rng: np.random.Generator | None, watch: Watch | None, path: str) -> tuple[Array, Saved]:
        kept: dict[str, Any] = {}
        names, free = list(self._children), False               # free: nobody needs x but the next layer
        while names:
            name, *names = names
            child, here = self._children[name], join(path, visible(name))
            # Two layers at once, or one in place of its input, unless somebody wants to see what is between them.
            both = child.fused_forward(self._children[names[0]]) if names and watch is None else None
            if both is not None:
                x, kept[name], kept[names.pop(0)] = _at(here, partial(both, x))
            elif free and child.overwrites:
                x, kept[name] = _at(here, partial(child.overwrite, x, train, rng))
            else:
                x, kept[name] = self._up(name, x, train, rng, watch, path)
            free = watch is None and both is None and child.gives_away
        return x, self.Saved(kept)

    def reverse(
        self, saved: Saved, signal: Any, step: Step, seed: Seed | None = None, path: str = "", keep: bool = True
    ) -> Any:
        for name in reversed(self._children):
            signal = self._down(name, saved, signal, step, seed, path, keep)
        return signal

    def infer(self, x: Array, watch: Watch | None = None, path: str = "") -> Array:
        names, free = list(self._children), False
        while names:
            name, *names = names
            child = self._children[name]
            fused = child.fused([self._children[after] for after in names]) if names and watch is None else None
            place = (lambda x, layer=child: layer.overwrite(x)[0]) if free and child.overwrites else None
            if fused is None:
                x = self._infer(name, x, watch, path, place)
            else:
                x = self._fused(fused, [name, *names], x, path)
                names = names[fused.others :]
            free = watch is None and (fused is not None or child.gives_away)
        return x

    def _fused(self, fused: Fused, names: list[str], x: Array, path: str) -> Array:
        """The first of the named layers in one; which of them refuses its input, if one does, each alone will say."""
        try:
            return _at(join(path, visible(names[0])), lambda: fused.call(x))
        except TinynetError as error:
            refused = error
        for name in names[: 1 + fused.others]:
            x = self._infer(name, x, None, path)
        raise refused

    @property
    def gives_away(self) -> bool:
        return bool(self._children) and list(self._children.values())[-1].gives_away

    def ends(self, trained: Set[int], path: str = "", below: bool = False) -> tuple[set[str], bool]:
        found: set[str] = set()
        for name, child in self._children.items():
            more, below = child.ends(trained, join(path, visible(name)), below)
            found |= more
        return found, below


class _Parallel(Container):
    """Branches that all take the same input; their signals add up on the way back."""

    @property
    def gives_away(self) -> bool:
        return True

    def ends(self, trained: Set[int], path: str = "", below: bool = False) -> tuple[set[str], bool]:
        branches = [child.ends(trained, join(path, visible(name)), below) for name, child in self._children.items()]
        return set().union(*(found for found, _ in branches)), below or any(after for _, after in branches)

    def _branches(
        self, x: Array, train: bool, rng: np.random.Generator | None, watch: Watch | None, path: str
    ) -> tuple[list[Array], dict[str, Any]]:
        outputs, kept = [], {}
        for name in self._children:
            y, kept[name] = self._up(name, x, train, rng, watch, path)
            outputs.append(y)
        return outputs, kept

    def _merge(self, saved: Any, signals: list[Any], step: Step, seed: Seed | None, path: str, keep: bool) -> Any:
        """Send one signal down each branch and add what arrives; a branch where nothing arrives adds nothing."""
        total = None
        for name, signal in zip(self._children, signals, strict=True):
            arrived = self._down(name, saved, signal, step, seed, path, keep)
            if arrived is not None:
                total = arrived if total is None else total + arrived
        return total


class Concat(_Parallel):
    """Branches side by side, joined along the channels (axis 1)."""

    class Saved(NamedTuple):
        children: dict[str, Any]
        channels: tuple[int, ...]

    def walk(self, x: Array, train: bool, rng: np.random.Generator | None, watch: Watch | None, path: str) -> tuple[Array, Saved]:
        outputs, kept = self._branches(x, train, rng, watch, path)
        return self._join(outputs), self.Saved(kept, tuple(y.shape[1] for y in outputs))

    def reverse(
        self, saved: Saved, signal: Any, step: Step, seed: Seed | None = None, path: str = "", keep: bool = True
    ) -> Any:
        parts, begin = [], 0
        for channels in saved.channels:
            parts.append(None if signal is None else signal[:, begin : begin + channels])
            begin += channels
        return self._merge(saved, parts, step, seed, path, keep)

    def infer(self, x: Array, watch: Watch | None = None, path: str = "") -> Array:
        return self._join([self._infer(name, x, watch, path) for name in self._children])

    def _join(self, outputs: list[Array]) -> Array:
        if not outputs:
            raise ArgumentError("Concat: expected at least one branch")
        first = outputs[0]
        for name, y in zip(self._children, outputs, strict=True):
            if y.ndim < 2 or y.ndim != first.ndim or y.shape[0] != first.shape[0] or y.shape[2:] != first.shape[2:]:
                raise ShapeError(f"Concat: expected equal sizes but for channels, got {first.shape}, {y.shape} of {name}")
        return array_module(*outputs).concatenate(outputs, axis=1)


class Residual(_Parallel):
    """y = body(x) + shortcut(x), the shortcut being the identity unless given (He et al. 2016, equation 1).

    Residual(body), Residual(body, shortcut), or named: Residual(_body=…, downsample=…). One branch alone is added to
    the identity.
    """

    class Saved(NamedTuple):
        children: dict[str, Any]

    def walk(self, x: Array, train: bool, rng: np.random.Generator | None, watch: Watch | None, path: str) -> tuple[Array, Saved]:
        outputs, kept = self._branches(x, train, rng, watch, path)
        return self._sum(x, outputs), self.Saved(kept)

    def reverse(
        self, saved: Saved, signal: Any, step: Step, seed: Seed | None = None, path: str = "", keep: bool = True
    ) -> Any:
        arrived = self._merge(saved, [signal] * len(self._children), step, seed, path, keep)
        if len(self._children) > 1 or signal is None:
            return arrived
        return signal if arrived is None else arrived + signal

    def infer(self, x: Array, watch: Watch | None = None, path: str = "") -> Array:
        return self._sum(x, [self._infer(name, x, watch, path) for name in self._children])

    def _sum(self, x: Array, outputs: list[Array]) -> Array:
        outputs = [*outputs, x] if len(outputs) == 1 else outputs
        if not self._children:
            raise ArgumentError("Residual: expected at least one branch")
        if any(y.shape != outputs[0].shape for y in outputs):
            shapes = " and ".join(str(tuple(y.shape)) for y in outputs)
            raise ShapeError(f"Residual: expected branches of one shape, got {shapes}")
        check_floats("Residual", **dict(zip([*self._children, "input"], outputs, strict=False)))    # uint8 would wrap
        total = outputs[0] + outputs[1]
        for y in outputs[2:]:
            total += y
        return total
