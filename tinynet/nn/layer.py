"""The layer protocol: forward returns what it kept, and every way back takes that record.

    y, saved = layer.forward(x)
    dx = layer.input_gradient(saved, dy)
    gradients = layer.parameter_gradients(saved, dy)

`saved` is a value: nothing is cached on a layer. So one layer may stand in a model twice, run in many threads at once,
and holds no memory at inference. The record of a model is all that its layers kept, and a walk goes from layer to layer, up
or back. The gradient, the deconvnet and guided backprop are the same walk back over the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..backend import Array, beside, to_device
from ..errors import ArgumentError, DtypeError, ShapeError
from ..functional._check import check_array
from ..kernels.factors import Product

Saved = Any
Watch = Callable[[str, "Layer", Array], None]
"""watch(path, layer, y) is called on the way up with every named layer's output."""
Step = Callable[[str, "Layer", Saved, Array], Array]
"""step(path, layer, saved, signal) → signal is the rule of one walk back."""
Seed = Callable[[str, "Layer", Any], Any]
"""seed(path, layer, signal) → signal puts in at a layer's output what a walk back begins with; signal None: nothing arrives."""


class Fused(NamedTuple):
    """Several layers in one, at inference."""

    others: int
    """How many of the following layers it does."""
    call: Callable[[Array], Array]
    """Gives a new array."""


class Nothing(NamedTuple):
    """What a layer keeps that needs nothing for its way back."""


class Layer:
    """A map from arrays to arrays with parameters and hand-written gradients."""

    parameter_names: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold trained arrays (or None): "weight", "bias"."""
    buffer_names: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold arrays which belong to the state but are not trained: "running_mean"."""
    dispensable_names: ClassVar[tuple[str, ...]] = ()
    """Buffers that a state may lack, and then they stay as they are: files from before 2018 have no "num_batches_tracked"."""
    config_names: ClassVar[tuple[str, ...]] = ()
    """Attributes shown in repr."""

    def forward(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        """y, and what the way back needs. train: training behaviour (dropout, batch statistics). rng: for layers that draw."""
        raise NotImplementedError

    def input_gradient(self, saved: Saved, dy: Array) -> Array:
        """∂ℓ/∂x from dy = ∂ℓ/∂y: the adjoint (as a matrix: the transpose) of the layer's derivative at this forward pass."""
        raise NotImplementedError

    def parameter_gradients(self, saved: Saved, dy: Array) -> dict[str, Array]:
        """∂ℓ/∂p for each parameter by attribute name; empty for a layer without."""
        return {}

    def gradients(self, saved: Saved, dy: Array) -> tuple[Array, dict[str, Array]]:
        """(input_gradient, parameter_gradients); a layer may compute them together where they share work."""
        gradients = self.parameter_gradients(saved, dy)
        return self.input_gradient(saved, dy), gradients

    def factored_gradients(self, saved: Saved, dy: Array) -> dict[str, Array | Product] | None:
        """parameter_gradients with products that are not computed yet; None: no factors are smaller than what they give."""
        return None

    def __call__(self, x: Array) -> Array:
        """Inference: y alone, nothing kept."""
        return self.forward(x)[0]

    # Walks. A layer is the leaf of both; containers (containers.py) route them.

    def walk(self, x: Array, train: bool, rng: np.random.Generator | None, watch: Watch | None, path: str) -> tuple[Array, Saved]:
        """The forward walk through this layer, which stands at `path`."""
        return self.forward(x, train, rng)

    def infer(self, x: Array, watch: Watch | None = None, path: str = "") -> Array:
        """The forward walk of inference, which keeps nothing, through this layer, which stands at `path`."""
        return self(x)

    def reverse(
        self, saved: Saved, signal: Any, step: Step, seed: Seed | None = None, path: str = "", keep: bool = True
    ) -> Any:
        """A walk back through this layer by the rule `step`. signal None: nothing arrives, so nothing leaves.

        keep False: no other walk follows, and a container lets go of what its layers kept as the walk passes them.
        """
        return None if signal is None else step(path, self, saved, signal)

    def children(self) -> Iterator[tuple[str, Layer]]:
        """(path below this layer, layer) of the layers directly inside; none for a leaf."""
        return iter(())

    def layers(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """(path, layer) for this layer and all inside, in forward order; a layer that is used twice appears twice."""
        yield path, self
        for name, child in self.children():
            yield from child.layers(join(path, name))

    def ends(self, trained: Set[int], path: str = "", below: bool = False) -> tuple[set[str], bool]:
        """Where training's walk back may end, and whether anything up to this layer's output is trained.

        trained: ids of the layers with parameters that are wanted. below: whether one of them lies below this layer.
        The walk ends at the leaves (by path) that have none below them: nobody asks for their input gradient.
        """
        return (set() if below else {path}), below or id(self) in trained

    # State.

    def named_parameters(self) -> dict[str, Array]:
        """Dotted name → live array. A layer that is used twice appears once, under its first path."""
        return self._named("parameter_names")

    def named_buffers(self) -> dict[str, Array]:
        """Dotted name → live array of the untrained state, e.g. running means."""
        return self._named("buffer_names")

    def _named(self, kind: str) -> dict[str, Array]:
        found, seen = {}, set()
        for path, layer in self.layers():
            if id(layer) not in seen:
                seen.add(id(layer))
                for name in getattr(layer, kind):
                    if getattr(layer, name) is not None:
                        found[join(path, name)] = getattr(layer, name)
        return found

    def state_dict(self) -> dict[str, Array]:
        """Dotted name → live array of all parameters and buffers, with PyTorch's names, shapes and order.

        A layer that is used twice appears under both its names, as in PyTorch.
        """
        return {name: getattr(layer, attribute) for name, layer, attribute in self._state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays of `state` into parameters and buffers by name, in place and in their dtype.

        strict: missing and unexpected names are errors; otherwise they are passed over. Wrong shapes, and what is no real
        numbers, always are errors. All problems are named at once, and then nothing is loaded. As in PyTorch, BatchNorm's
        num_batches_tracked may be missing.
        """
        if not isinstance(state, Mapping):
            kind = type(state).__name__
            raise ArgumentError(f"load_state_dict: expected a dict of names and arrays, as tinynet.load(file) gives, got {kind}")
        slots = {name: (layer, attribute) for name, layer, attribute in self._state()}
        problems = []
        if strict:
            problems += [f"missing {name}" for name, (layer, attribute) in slots.items()
                         if name not in state and attribute not in layer.dispensable_names]
            problems += [f"unexpected {name}" for name in state if name not in slots]
        for name, (layer, attribute) in slots.items():
            if name not in state:
                continue
            source, target = state[name], getattr(layer, attribute)
            check_array("load_state_dict", name, source)
            if tuple(source.shape) != tuple(target.shape):
                problems.append(f"{name} expected {tuple(target.shape)}, got {tuple(source.shape)}")
            if source.dtype.kind not in "biuf" and not np.can_cast(source.dtype, target.dtype):     # bfloat16 can
                problems.append(f"{name} expected real numbers, got {source.dtype}")
        if problems:
            raise ShapeError(f"load_state_dict: the state does not fit the model: {'; '.join(problems)}")
        for name, (layer, attribute) in slots.items():
            if name in state:
                target = getattr(layer, attribute)
                target[...] = beside(state[name], target)

    def _state(self) -> Iterator[tuple[str, Layer, str]]:
        """(dotted name, layer, attribute) of all state."""
        for path, layer in self.layers():
            for attribute in (*layer.parameter_names, *layer.buffer_names):
                if getattr(layer, attribute) is not None:
                    yield join(path, attribute), layer, attribute

    def to(self, device: Any = None, dtype: Any = None) -> Layer:
        """Move parameters and buffers to a device ("cpu", "cuda:0") and/or floating dtype, in place. Returns the model."""
        if dtype is not None and np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise DtypeError(f"to: expected dtype float32 or float64, got {np.dtype(dtype)}")
        for _, layer, attribute in self._state():
            x = getattr(layer, attribute)
            if device is not None:
                x = to_device(x, device)
            if dtype is not None and x.dtype.kind == "f":
                x = x.astype(dtype, copy=False)
            setattr(layer, attribute, x)
        return self

    def layer(self, path: str) -> Layer:
        """The layer at a dotted path. Raises ArgumentError that lists the nearest names."""
        import difflib

        found: dict[str, Layer] = {}
        for here, layer in self.layers():
            found.setdefault(here, layer)                       # hidden children stand at their parent's path, behind it
        if path not in found:
            near = difflib.get_close_matches(path, found, n=3, cutoff=0.3) or list(found)[1:4]
            raise ArgumentError(f"no layer {path!r}; nearest: {', '.join(near)}")
        return found[path]

    if not TYPE_CHECKING:                                       # to a type checker every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            """Called only for what is not there: for a name of PyTorch's it says what there is here, else what Python says."""
            if instead(name):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{instead(name)}")
            return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)}" for name in self.config_names)
        return f"{type(self).__name__}({arguments})"

    # For speed alone, and to be skipped at first reading: what says the same as the rules above in another way.

    shortcuts: ClassVar[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
        (("forward", "__call__"), ("__call__", "fused", "fused_forward", "overwrites", "overwrite", "gives_away", "each_cell")),
        (("input_gradient", "parameter_gradients"), ("gradients", "factored_gradients")),
    )
    """Rules that say what a layer computes, and what does or says the same in another way."""

    def __init_subclass__(cls, **how: Any) -> None:
        """A class with a rule of its own goes without the shortcuts that it inherits: they would compute the parent's."""
        super().__init_subclass__(**how)
        for rules, shortcuts in cls.shortcuts:
            if any(rule in vars(cls) for rule in rules):
                for name in shortcuts:
                    if name not in vars(cls):
                        setattr(cls, name, vars(Layer)[name])

    each_cell: ClassVar[bool] = False
    """Whether a cell of an output map comes from the same cell of the input's maps alone, whatever the size of these."""

    def fused(self, following: Sequence[Layer]) -> Fused | None:
        """A function that does at inference what this layer and some of the following do, faster; None: there is none.

        following: all layers that the output goes through one after the other, in a new array each, none of which is watched.
        """
        return None

    def fused_forward(self, following: Layer) -> Callable[[Array], tuple[Array, Saved, Saved]] | None:
        """What forward of this layer and the following one give, in one function: y, and what each keeps. None: there is none."""
        return None

    overwrites: ClassVar[bool] = False
    """Whether `overwrite` writes the output to where the input was."""

    def overwrite(self, x: Array, train: bool = False, rng: np.random.Generator | None = None) -> tuple[Array, Saved]:
        """forward, of an x that nobody needs any more."""
        return self.forward(x, train, rng)

    @property
    def gives_away(self) -> bool:
        """Whether the output is a new array that nothing in the record holds, so that the next layer may overwrite it."""
        return False


_INSTEAD = {
    "parameters": "named_parameters() is a dict of names and arrays",
    "train": "model(x) is inference, model.forward(x, train=True) training",
    "eval": "model(x) is inference, model.forward(x, train=True) training",
    "zero_grad": "gradients are not kept; nn.backward(model, saved, dy) returns them",
    "backward": "nn.backward(model, saved, dy) returns the gradients",
    "requires_grad_": "frozen is what the optimizer is not given",
    "named_modules": "layers() gives (path, layer) of all",
    "modules": "layers() gives (path, layer) of all",
    "register_forward_hook": "forward(x, watch=…) shows every layer's output",
    "cuda": 'to("cuda")', "cpu": 'to("cpu")', "float": "to(dtype=numpy.float32)", "double": "to(dtype=numpy.float64)",
}  # fmt: skip


def instead(name: str) -> str:
    """What to use for a name of torch.nn.Module's that a layer does not have, for an error; "" for other names."""
    return f": {_INSTEAD[name]}" if name in _INSTEAD else ""


def computes_plainly(layer: Layer) -> bool:
    """Whether a layer computes what the class of tinynet.nn does that it is or derives from: no forward of its own."""
    kind = next(kind for kind in type(layer).__mro__ if kind.__module__.startswith(__package__ + "."))
    return all(getattr(type(layer), rule) is getattr(kind, rule) for rule in ("forward", "__call__"))


def reference_array(model: Any) -> Array | None:
    """An array that lives where the model does and has its dtype: the first one of floats; None if it has none."""
    arrays = {**model.named_parameters(), **model.named_buffers()}
    return next((x for x in arrays.values() if x.dtype.kind == "f"), None)


def join(path: str, name: str) -> str:
    """`name` below `path`, dotted; an empty part adds no dot."""
    return f"{path}.{name}" if path and name else path or name
