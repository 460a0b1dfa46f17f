"""What every layer does beside its maths: its state, and what it says to a name or a state that it does not take."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from tinynet import nn
from tinynet.errors import ArgumentError, DtypeError, ShapeError
from tinynet.nn.layer import reference_array


def net() -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(conv=nn.Conv2d(3, 4, 3, rng=rng), norm=nn.BatchNorm2d(4), fc=nn.Linear(4, 2, rng=rng))


@pytest.mark.parametrize("wrong", [
    np.array(["a", "b"]), np.array([1j, 2]), np.array([{}, 1], object), np.array([1, 2], "datetime64[s]"),
], ids=lambda wrong: str(wrong.dtype))  # fmt: skip
def test_a_state_of_no_real_numbers_is_refused_whole(wrong: np.ndarray) -> None:
    model = net()
    before = {name: x.copy() for name, x in model.state_dict().items()}
    state: dict[str, Any] = {name: x + 1 for name, x in before.items()}
    with pytest.raises(ShapeError, match=r"fc\.bias expected real numbers, got"):
        model.load_state_dict({**state, "fc.bias": wrong})
    with pytest.raises(DtypeError, match=r"load_state_dict: fc\.bias: .*got a torch\.Tensor; convert it first"):
        model.load_state_dict({**state, "fc.bias": torch.zeros(2)})
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x, before[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "bool"])
def test_a_state_of_other_numbers_is_taken_over(dtype: str) -> None:
    layer = nn.Linear(3, 2)
    layer.load_state_dict({"weight": np.ones((2, 3), dtype), "bias": np.zeros(2, dtype)})
    assert layer.weight.dtype == np.float32 and (layer.weight == 1).all() and (layer.bias == 0).all()


def test_a_file_name_or_a_module_is_no_state() -> None:
    for given in ("weights.pth", torch.nn.Linear(3, 2), None):
        with pytest.raises(ArgumentError, match=r"a dict of names and arrays, as tinynet\.load\(file\) gives, got"):
            nn.Linear(3, 2).load_state_dict(given)  # type: ignore[arg-type]


NAMES = {
    "parameters": r"named_parameters\(\) is a dict", "train": r"model\.forward\(x, train=True\)", "eval": r"model\(x\) is",
    "zero_grad": r"nn\.backward\(model, saved, dy\)", "backward": r"nn\.backward\(model, saved, dy\)", "cuda": r'to\("cuda"\)',
    "requires_grad_": "the optimizer", "modules": r"layers\(\)", "named_modules": r"layers\(\)", "register_forward_hook": "watch",
    "cpu": r'to\("cpu"\)', "double": "float64", "float": "float32",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", [nn.ReLU(), net()], ids=["leaf", "container"])
def test_a_name_of_pytorchs_says_what_there_is_here(layer: nn.Layer, name: str) -> None:
    assert hasattr(torch.nn.Module(), name) or name == "backward"
    assert not hasattr(layer, name)
    with pytest.raises(AttributeError, match=f"has no attribute .*{name}.*: .*{NAMES[name]}"):
        getattr(layer, name)


def test_other_names_are_pythons_own_errors() -> None:
    class Odd(nn.ReLU):
        @property
        def size(self) -> int:
            return self.missing  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(AttributeError, match=r"^'ReLU' object has no attribute 'nonsense'$"):
        nn.ReLU().nonsense  # noqa: B018
    with pytest.raises(AttributeError, match=r"^'Odd' object has no attribute 'missing'$"):
        Odd().size  # noqa: B018 - the property's own error, not that it would not be there
    with pytest.raises(AttributeError, match=r"^Sequential has no attribute or child 'nonsense'$"):
        net().nonsense  # noqa: B018


def test_a_child_may_have_such_a_name() -> None:
    relu = nn.ReLU()
    assert nn.Sequential(train=relu, eval=nn.Identity()).train is relu


def test_the_reference_array_is_the_first_of_floats_or_none() -> None:
    linear, norm = nn.Linear(2, 3), nn.BatchNorm2d(3, affine=False)
    assert reference_array(nn.Sequential(nn.ReLU(), norm, linear)) is linear.weight
    assert reference_array(norm) is norm.running_mean and reference_array(nn.ReLU()) is None


def test_layers_are_copied_and_pickled_as_ever() -> None:
    model = net()
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(other) == repr(model) and isinstance(other, nn.Sequential)
        for name, x in other.state_dict().items():
            np.testing.assert_array_equal(x, model.state_dict()[name])
