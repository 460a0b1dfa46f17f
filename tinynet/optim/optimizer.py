"""What every optimiser shares: named parameters in groups, a state per parameter, and saving both.

A parameter is addressed by its name, as in the state dict of a model; the gradients arrive as a dict with the same
names. So nothing is attached to an array, and the sum of several workers' gradients is stepped like one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, array_module, to_host
from ..errors import ArgumentError, DtypeError, ShapeError
from ..kernels import cuda
from ..kernels.blocks import Each, in_blocks, in_turn, worth
from ..kernels.factors import Product, arrays_of

Parameters = Mapping[str, Array] | Iterable[Mapping[str, Any]]
Row = tuple[Array, Any, dict[str, Any]]


class Optimizer:
    """Base of the optimisers. A subclass writes `check` (its options), `begin` (its state) and `update` (a step, in place).

    params: dict name -> array, as model.named_parameters() gives it, or a list of groups
        {"params": that dict, option: value, …}; an option that a group lacks has the constructor's value.
    param_groups: list of dicts: "params", every option by name, and "initial_lr", from which schedules reckon.
    state: dict name -> {slot: array or int}, e.g. momentum buffers; empty until the first step.

    The arrays are changed in place, so build the optimiser after model.to(device, dtype).
    Raises ArgumentError for options PyTorch refuses, DtypeError for parameters that are not floating-point arrays.
    """

    def __init__(self, params: Parameters, defaults: dict[str, Any]) -> None:
        groups = [{"params": params}] if isinstance(params, Mapping) else self._checked(params)
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[str, dict[str, Any]] = {}
        self._parameters: dict[str, Array] = {}
        self._before: deque[list[tuple[dict[str, Any], dict[str, Any]]]] = deque(maxlen=2)
        for group in groups:
            self._add_group(group, defaults)
        if not self._parameters:
            raise ArgumentError(f"{self._name}: expected at least one parameter, got none")

    def check(self, options: dict[str, Any]) -> None:
        """Raise ArgumentError if the options of one group are not valid."""
        raise NotImplementedError

    def begin(self, parameter: Array, state: dict[str, Any], options: dict[str, Any]) -> bool:
        """Make what the first step needs of `state`, if it is not there yet; whether it was not."""
        raise NotImplementedError

    def count(self, state: dict[str, Any]) -> None:
        """Count a step of one parameter, where the state counts."""

    def update(self, parameter: Array, gradient: Array, state: dict[str, Any], options: dict[str, Any], fresh: bool) -> None:
        """Change `parameter` and the arrays of `state` in place by one step; `gradient` is only read. All arrays: one shape.

        They may be a block of the parameter and of its arrays, and the gradient lie in memory that is used again behind it.
        fresh: whether begin has just made the state.
        """
        raise NotImplementedError

    def update_all(self, rows: Sequence[Row], fresh: set[int], options: dict[str, Any], ok: Array | None) -> None:
        """Step all parameters of a group on a GPU in a few launches.

        rows: (parameter, gradient, state) of each. fresh: the ids of the states that begin has just made. ok: see step.
        """
        raise NotImplementedError

    def step(self, gradients: Mapping[str, Array | Product | None], ok: Any = True, each: Each = in_turn) -> None:
        """One step. gradients: dict name -> array of the parameter's shape and dtype, or a Product that would be one.

        ok: False changes nothing. On a GPU it may be an array (1,) of bool there, at which the host does not look; whoever finds
        out later that it was False calls `take_back`, for up to two steps.
        each: how the work is shared out, `Shards.each` for one; the result is the same to the bit.

        A Product (kernels.factors) is multiplied some rows at a time, which are used while they are in cache and never written to
        memory; the result has the bits that its value would give. On a GPU it is written out.

        A parameter whose gradient is missing or None stays as it is, and so does its state. An unknown name, another
        shape or another dtype is an error (ArgumentError, ShapeError, DtypeError), raised before anything is changed.
        """
        if not isinstance(gradients, Mapping):
            raise ArgumentError(
                f"{self._name}: expected gradients by name, a dict, got {type(gradients).__name__}; "
                "nn.backward gives them second: _, gradients = nn.backward(model, saved, dy)"
            )
        for name, gradient in gradients.items():
            self._check_gradient(name, gradient)
        flag = None if isinstance(ok, bool | np.bool_) else ok
        before: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._before.append(before)
        if flag is None and not ok:
            return
        groups = []
        for group in self.param_groups:
            rows = [
                (parameter, self._laid_out(gradients[name]), self.state.setdefault(name, {}))
                for name, parameter in group["params"].items() if gradients.get(name) is not None
            ]
            before += [(slots, dict(slots)) for _, _, slots in rows]
            arrays = [x for p, g, slots in rows for x in (p, *arrays_of(g), *_arrays(slots).values())]
            array_module(flag, *arrays)                         # of several GPUs: an error before anything is changed
            fused = cuda.fit(*arrays) if rows else False
            if rows and (fused or flag is None or bool(flag.all())):        # memory for all, before any is changed
                groups.append((group, rows, {id(slots) for p, _, slots in rows if self.begin(p, slots, group)}, fused))
        for group, rows, fresh, fused in groups:
            for _, _, slots in rows:
                self.count(slots)
            if fused:
                self.update_all(rows, fresh, group, flag)
                continue
            work = [do for p, g, slots in rows for do in self._pieces(p, g, slots, group, id(slots) in fresh)]
            worth(each, [g for _, g, _ in rows])(lambda do: do(), work)

    def take_back(self) -> None:
        """Say that the last step's `ok` was False, or that it found no memory: what the host counts is as before it.

        Called again, of the step before that.
        """
        for slots, before in self._before.pop() if self._before else ():
            slots.clear()
            slots.update(before)

    if not TYPE_CHECKING:                                       # to a type checker every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            """Called only for what is not there: for PyTorch's zero_grad it says what there is here, else what Python says."""
            if name == "zero_grad":
                raise AttributeError(f"{self._name} has no attribute 'zero_grad': step(gradients) is given them anew")
            return object.__getattribute__(self, name)

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets every group's, and is what schedules start from."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        check_not_negative(self._name, lr=value)
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] = value

    def state_dict(self) -> dict[str, Any]:
        """{"state": {name: {slot: array or int}}, "param_groups": [{option: value, "params": [name, …]}]}.

        The arrays are the live ones: copy or save them before the next step.
        """
        return {
            "state": {name: dict(slots) for name, slots in self.state.items() if slots},
            "param_groups": [{**group, "params": list(group["params"])} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the options and a copy of the state of an optimiser of this kind over the same names.

        Raises ArgumentError or ShapeError, and changes nothing, if it comes from another kind or other parameters.
        """
        groups, states = state_dict["param_groups"], state_dict["state"]
        if len(groups) != len(self.param_groups):
            raise ArgumentError(
                f"{self._name}: expected a state of {len(self.param_groups)} parameter group(s), got {len(groups)}"
            )
        for mine, its in zip(self.param_groups, groups, strict=True):
            if mine.keys() != its.keys():
                raise ArgumentError(
                    f"{self._name}: expected a state with the options {', '.join(sorted(mine))}, "
                    f"got one with {', '.join(sorted(its))}: it belongs to another kind of optimiser"
                )
            if list(mine["params"]) != list(its["params"]):
                odd = sorted(set(mine["params"]) ^ set(its["params"])) or "the same in another order"
                raise ArgumentError(f"{self._name}: the state belongs to other parameters: {odd}")
        loaded = {name: self._load_slots(name, slots) for name, slots in states.items()}
        for mine, its in zip(self.param_groups, groups, strict=True):
            # JSON, in which checkpoints keep the options, knows lists only: betas are a tuple again.
            mine.update({k: tuple(v) if isinstance(v, list) else v for k, v in its.items() if k != "params"})
        self.state = loaded

    def _pieces(
        self, parameter: Array, gradient: Array | Product, slots: dict[str, Any], options: dict[str, Any], fresh: bool
    ) -> list[Callable[[], None]]:
        """The pieces of work of a parameter: its blocks, or some rows of it, if the gradient's are multiplied for them."""
        arrays = _arrays(slots)

        def update(block: Sequence[Array]) -> None:
            self.update(block[0], block[1], {**slots, **dict(zip(arrays, block[2:], strict=True))}, options, fresh)

        def multiply(product: Product, part: slice) -> None:
            update([parameter[part], product.rows(part), *(array[part] for array in arrays.values())])

        if isinstance(gradient, Product):
            return [partial(multiply, gradient, part) for part in gradient.parts()]
        return [partial(update, block) for block in in_blocks([parameter, gradient, *arrays.values()])]

    @staticmethod
    def _laid_out(gradient: Array | Product) -> Array | Product:
        """The gradient as a kernel of a GPU takes it: written, and in C order."""
        if isinstance(gradient, Product):
            return gradient if array_module(gradient.dy) is np else gradient.value()
        return gradient if not cuda.here(gradient) or gradient.flags.c_contiguous else cuda.dense(gradient)

    # -- what is below is checking

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _checked(self, params: Any) -> list[dict[str, Any]]:
        """The groups, each a dict of its own. Raises ArgumentError for what PyTorch takes: arrays without their names."""
        groups = list(params) if isinstance(params, Iterable) else [params]
        for group in groups:
            named = group.get("params", {}) if isinstance(group, Mapping) else group
            if not isinstance(named, Mapping):
                within = "" if named is params else f" in a {type(params).__name__}"
                raise ArgumentError(
                    f"{self._name}: expected the dict of names and arrays that model.named_parameters() gives, or groups "
                    f'{{"params": such a dict, …}}, got {type(named).__name__}{within}'
                )
        return [dict(group) for group in groups]

    def _add_group(self, group: dict[str, Any], defaults: dict[str, Any]) -> None:
        unknown = group.keys() - defaults.keys() - {"params"}
        if unknown or "params" not in group:
            what = f"unknown option {', '.join(sorted(unknown))}" if unknown else 'no "params"'
            raise ArgumentError(f"{self._name}: {what} in a parameter group; it takes params, {', '.join(defaults)}")
        options = {**defaults, **group, "params": dict(group["params"])}
        self.check(options)
        options["initial_lr"] = options["lr"]
        for name, parameter in options["params"].items():
            array_module(parameter)  # raises DtypeError for what is no array
            if parameter.dtype.kind != "f":
                raise DtypeError(f"{self._name}: expected a floating-point parameter {name}, got {parameter.dtype}")
            if name in self._parameters:
                raise ArgumentError(f"{self._name}: parameter {name} is in two groups")
            self._parameters[name] = parameter
        self.param_groups.append(options)

    def _check_gradient(self, name: str, gradient: Array | Product | None) -> None:
        if name not in self._parameters:
            raise ArgumentError(f"{self._name}: a gradient came for {name}, which is none of the parameters")
        if gradient is None:
            return
        parameter = self._parameters[name]
        array_module(parameter, *arrays_of(gradient))  # raises DeviceError when they are mixed
        if gradient.shape != parameter.shape:
            raise ShapeError(
                f"{self._name}: expected a gradient of shape {parameter.shape} for {name}, got {gradient.shape}"
            )
        if gradient.dtype != parameter.dtype:
            raise DtypeError(
                f"{self._name}: expected a gradient of {parameter.dtype} for {name}, got {gradient.dtype}"
            )

    def _load_slots(self, name: str, slots: Mapping[str, Any]) -> dict[str, Any]:
        if name not in self._parameters:
            raise ArgumentError(f"{self._name}: the state has {name}, which is none of the parameters")
        parameter = self._parameters[name]
        xp = array_module(parameter)
        loaded: dict[str, Any] = {}
        for slot, value in slots.items():
            if not hasattr(value, "shape"):
                loaded[slot] = value
            elif value.shape != parameter.shape:
                raise ShapeError(
                    f"{self._name}: expected {slot} of shape {parameter.shape} for {name}, got {value.shape}"
                )
            else:
                # A copy, never the file's or the other optimiser's own array, on the parameter's device.
                same_place = array_module(value) is xp
                loaded[slot] = xp.array(value if same_place else to_host(value), dtype=parameter.dtype)
        return loaded


def _arrays(slots: dict[str, Any]) -> dict[str, Array]:
    """What of a parameter's state is an array of its shape."""
    return {slot: value for slot, value in slots.items() if hasattr(value, "shape")}


def check_not_negative(owner: str, **values: float) -> None:
    """Raise ArgumentError unless each value is a number >= 0 (nan is refused too)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not value >= 0:
            raise ArgumentError(f"{owner}: expected {name} >= 0, got {value}")
