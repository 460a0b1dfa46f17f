"""Every optimiser walks where PyTorch's walks, over many steps and all its arguments."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device_double import device_module
from tinynet import nn, optim
from tinynet.errors import ArgumentError, DeviceError, DtypeError, ShapeError

STEPS = 25
SHAPES = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,), "scale": (), "none": (0, 3)}

rates = st.sampled_from([0.0, 1e-4, 1e-3, 0.02, 0.3])
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99])
decays = st.sampled_from([0.0, 1e-4, 0.01, 0.3])
flags = st.booleans()

sgd_options = st.fixed_dictionaries(
    {"lr": rates, "momentum": shares, "dampening": shares, "weight_decay": decays, "nesterov": flags, "maximize": flags}
).filter(lambda o: not o["nesterov"] or (o["momentum"] > 0 and o["dampening"] == 0))
adam_options = st.fixed_dictionaries(
    {
        "lr": rates, "betas": st.tuples(shares, st.sampled_from([0.0, 0.5, 0.9, 0.999])),
        "eps": st.sampled_from([1e-8, 1e-4, 0.1]), "weight_decay": decays, "amsgrad": flags, "maximize": flags,
    }
)  # fmt: skip
cases = st.one_of(
    st.tuples(st.just("SGD"), sgd_options),
    st.tuples(st.just("SGD"), sgd_options.map(lambda o: {**o, "momentum": 0.9, "dampening": 0.0, "nesterov": True})),
    st.tuples(st.sampled_from(["Adam", "AdamW"]), adam_options),
)


def start(seed: int, dtype: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def gradients_of(seed: int, step: int, dtype: Any) -> dict[str, np.ndarray]:
    """Gradients of step `step`, with a parameter left out now and then, as a frozen branch leaves it out."""
    rng = np.random.default_rng((seed, step))
    return {
        name: np.asarray(rng.normal(size=shape), dtype)
        for name, shape in SHAPES.items()
        if name != "conv.bias" or step % 3 != 1
    }


def theirs(name: str, options: dict[str, Any], seed: int, dtype: Any, steps: int = STEPS) -> dict[str, np.ndarray]:
    params = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in start(seed, dtype).items()}
    optimizer = getattr(torch.optim, name)(params.values(), foreach=False, **options)
    for step in range(steps):
        gradients = gradients_of(seed, step, dtype)
        for key, param in params.items():
            param.grad = torch.tensor(gradients[key]) if key in gradients else None
        optimizer.step()
    return {key: param.detach().numpy() for key, param in params.items()}


@settings(max_examples=60, deadline=None)
@given(case=cases, seed=st.integers(0, 1000), dtype=st.sampled_from([np.float64, np.float64, np.float32]))
def test_trajectory_equals_pytorch(case, seed, dtype):
    name, options = case
    params = start(seed, dtype)
    views = dict(params)
    optimizer = getattr(optim, name)(params, **options)
    for step in range(STEPS):
        gradients = gradients_of(seed, step, dtype)
        untouched = {key: value.copy() for key, value in gradients.items()}
        optimizer.step(gradients)
        for key, value in gradients.items():
            np.testing.assert_array_equal(value, untouched[key], err_msg=f"{key}: the step changed the gradient")
    # Some ulps a step, 25 steps, values of order 1 (up to some tens with lr 0.3): 1e-12 and 1e-4 of that.
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    for key, want in theirs(name, options, seed, dtype).items():
        assert views[key].dtype == dtype
        np.testing.assert_allclose(views[key], want, rtol=tolerance, atol=tolerance, err_msg=key)


EVERY_BRANCH = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("SGD", {"lr": 0.01, "momentum": 1.0, "dampening": 1.0, "weight_decay": 1.0}),  # 1 is a number like others
    ("SGD", {"momentum": 0.0, "dampening": 0.5}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "weight_decay": 1.0, "betas": (0.0, 0.0)}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.05, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.2, "amsgrad": True}),
]


@pytest.mark.parametrize(("name", "options"), EVERY_BRANCH)
def test_every_branch_and_the_defaults_equal_pytorch(name, options):
    """Hypothesis may miss a combination; these go through every line."""
    params = start(0, np.float64)
    optimizer = getattr(optim, name)(params, **options)
    for step in range(STEPS):
        optimizer.step(gradients_of(0, step, np.float64))
    for key, want in theirs(name, options, 0, np.float64).items():
        np.testing.assert_allclose(params[key], want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), EVERY_BRANCH)
def test_every_backend_takes_the_same_steps(backend, name, options):
    host, device = start(3, np.float32), {k: backend.array(v) for k, v in start(3, np.float32).items()}
    on_host, on_device = getattr(optim, name)(host, **options), getattr(optim, name)(device, **options)
    for step in range(6):
        gradients = gradients_of(3, step, np.float32)
        on_host.step(gradients)
        on_device.step({k: backend.array(v) for k, v in gradients.items()})
        if step == 2:  # a saved state comes from the host, as out of a file
            on_device.load_state_dict(on_host.state_dict())
    for key in SHAPES:  # a GPU contracts a · b + c, which NumPy rounds twice
        np.testing.assert_allclose(backend.host(device[key]), host[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), EVERY_BRANCH)
def test_a_reloaded_optimizer_continues_bit_for_bit(name, options):
    params = start(5, np.float32)
    optimizer = getattr(optim, name)(params, **options)
    for step in range(4):
        optimizer.step(gradients_of(5, step, np.float32))
    optimizer.lr = 0.05
    other_params = {key: value.copy() for key, value in params.items()}
    other = getattr(optim, name)(other_params)
    other.load_state_dict(optimizer.state_dict())
    for step in range(4, 8):
        optimizer.step(gradients_of(5, step, np.float32))
        other.step(gradients_of(5, step, np.float32))
    assert other.lr == 0.05
    for key in SHAPES:
        np.testing.assert_array_equal(other_params[key], params[key])
    for state, its in zip(optimizer.state.values(), other.state.values(), strict=True):
        for slot, value in state.items():
            np.testing.assert_array_equal(value, its[slot])
            assert np.isscalar(value) or not np.shares_memory(value, its[slot])


def test_parameter_groups_equal_pytorch():
    params, torch_params = start(1, np.float64), start(1, np.float64)
    names = list(SHAPES)
    tensors = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in torch_params.items()}
    mine = optim.SGD(
        [{"params": {names[0]: params[names[0]]}, "weight_decay": 0.1}, {"params": {k: params[k] for k in names[1:]}}],
        lr=0.05, momentum=0.9,
    )  # fmt: skip
    its = torch.optim.SGD(
        [{"params": [tensors[names[0]]], "weight_decay": 0.1}, {"params": [tensors[k] for k in names[1:]]}],
        lr=0.05, momentum=0.9,
    )  # fmt: skip
    for step in range(5):
        gradients = gradients_of(1, step, np.float64)
        mine.step(gradients)
        for key, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[key]) if key in gradients else None
        its.step()
    for key, tensor in tensors.items():
        np.testing.assert_allclose(params[key], tensor.detach().numpy(), rtol=1e-12, atol=1e-12)


REFUSED = [
    ("SGD", {"lr": -0.1}), ("SGD", {"momentum": -0.1}), ("SGD", {"weight_decay": -1e-4}), ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("Adam", {"lr": -1.0}), ("Adam", {"lr": float("nan")}), ("Adam", {"eps": -1e-8}), ("Adam", {"betas": (1.0, 0.9)}),
    ("Adam", {"betas": (0.9, 1.0)}), ("Adam", {"betas": (-0.1, 0.9)}), ("Adam", {"weight_decay": -1.0}),
    ("AdamW", {"lr": -1.0}), ("AdamW", {"betas": (0.9, 1.5)}), ("AdamW", {"weight_decay": -1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), REFUSED)
def test_what_pytorch_refuses_is_refused(name, options):
    with pytest.raises(ValueError):
        getattr(torch.optim, name)([torch.zeros(2, requires_grad=True)], **options)
    with pytest.raises(ArgumentError, match=name) as caught:
        getattr(optim, name)({"w": np.zeros(2)}, **options)
    assert "\n" not in str(caught.value)


def test_bad_parameters_are_refused():
    w = np.zeros(2)
    for params, error, text in [
        ({}, ArgumentError, "at least one parameter"),
        ([], ArgumentError, "at least one parameter"),
        ({"w": [1.0]}, DtypeError, "array"),
        ({"w": np.zeros(2, np.int64)}, DtypeError, "floating-point parameter w, got int64"),
        ([{"params": {"w": w}}, {"params": {"w": w}}], ArgumentError, "w is in two groups"),
        ([{"params": {"w": w}, "momentun": 1}], ArgumentError, "unknown option momentun"),
        ([{"lr": 0.1}], ArgumentError, 'no "params"'),
        ([{"params": {"w": w}, "lr": -1.0}], ArgumentError, "lr >= 0"),
    ]:
        with pytest.raises(error, match=text):
            optim.SGD(params)


def test_parameters_without_their_names_are_refused_and_what_to_give_is_said():
    model = nn.Sequential(nn.Linear(2, 3))
    named = model.named_parameters()
    w = np.zeros((2, 2))
    for params, got in [
        (model, "Linear in a Sequential"), (model[0], "Linear"), (list(named.values()), "ndarray in a list"),
        ([model], "Sequential in a list"), (named.items(), "tuple in a dict_items"),
        (model.named_parameters, "method"), (None, "NoneType"), (w, "ndarray"),
        ([{"params": model}], "Sequential in a list"), ([{"params": [w]}], "list in a list"),
    ]:  # fmt: skip
        with pytest.raises(ArgumentError, match=rf"^SGD: expected the dict .* model\.named_parameters\(\) gives, .* got {got}"):
            optim.SGD(params)


def test_all_that_backward_gives_is_no_gradients():
    optimizer = optim.SGD({"w": np.ones(2)}, lr=1.0)
    for gradients in ((None, {"w": np.ones(2)}), [np.ones(2)], None):
        with pytest.raises(ArgumentError, match=r"a dict, got .*: _, gradients = nn\.backward\(model, saved, dy\)"):
            optimizer.step(gradients)


def test_nothing_is_to_be_zeroed():
    optimizer = optim.SGD({"w": np.ones(2)})
    assert not hasattr(optimizer, "zero_grad") and copy.deepcopy(optimizer).lr == optimizer.lr
    with pytest.raises(AttributeError, match=r"zero_grad.*: step\(gradients\) is given them anew"):
        optimizer.zero_grad()
    with pytest.raises(AttributeError, match=r"^'SGD' object has no attribute 'nonsense'"):
        optimizer.nonsense  # noqa: B018


def test_bad_gradients_are_refused_before_anything_changes():
    params = {"a": np.ones(2), "b": np.ones((2, 2))}
    optimizer = optim.SGD(params, lr=1.0, momentum=0.9)
    good = np.ones(2)
    for gradient, error, text in [
        ({"c": np.ones(2)}, ArgumentError, "c, which is none of the parameters"),
        ({"b": np.ones((2, 1))}, ShapeError, r"shape \(2, 2\) for b, got \(2, 1\)"),
        ({"b": np.ones((2, 2), np.float32)}, DtypeError, "float64 for b, got float32"),
        ({"b": device_module.asarray(np.ones((2, 2)))}, DeviceError, "mixed"),
    ]:
        with pytest.raises(error, match=text):
            optimizer.step({"a": good, **gradient})
    np.testing.assert_array_equal(params["a"], [1, 1])
    assert optimizer.state == {}
    optimizer.step({"a": good, "b": None})
    np.testing.assert_array_equal(params["a"], [0, 0])
    assert list(optimizer.state) == ["a"]


def test_a_foreign_state_is_refused_and_changes_nothing():
    def adam(**params: np.ndarray) -> optim.Adam:
        optimizer = optim.Adam(params or {"w": np.ones(2)}, lr=0.5)
        optimizer.step({name: np.ones_like(value) for name, value in optimizer.param_groups[0]["params"].items()})
        return optimizer

    optimizer = optim.Adam({"w": np.ones(2)})
    bad_name = adam().state_dict()
    bad_name["state"]["v"] = bad_name["state"].pop("w")
    two_groups = optim.Adam([{"params": {"w": np.ones(2)}}, {"params": {"v": np.ones(2)}}])
    for state, error, text in [
        (optim.SGD({"w": np.ones(2)}).state_dict(), ArgumentError, "another kind of optimiser"),
        (adam(v=np.ones(2)).state_dict(), ArgumentError, "other parameters"),
        (adam(w=np.ones(3)).state_dict(), ShapeError, r"shape \(2,\) for w, got \(3,\)"),
        (bad_name, ArgumentError, "v, which is none"),
        (two_groups.state_dict(), ArgumentError, r"1 parameter group\(s\), got 2"),
    ]:
        with pytest.raises(error, match=text):
            optimizer.load_state_dict(state)
    assert optimizer.lr == 1e-3
    assert optimizer.state == {}
