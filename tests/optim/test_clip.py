"""Clipping equals torch.nn.utils, in place, on every device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import optim
from tinynet.errors import ArgumentError, TinynetError


def gradients_of(seed: int, dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (3, 2, 2), "bias": (3,), "scale": (), "empty": (0, 2)}
    return {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def as_torch(gradients: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    tensors = {name: torch.zeros(value.shape, dtype=torch.tensor(value).dtype) for name, value in gradients.items()}
    for name, tensor in tensors.items():
        tensor.grad = torch.tensor(gradients[name])
    return tensors


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 100),
    max_norm=st.sampled_from([0.0, 0.01, 1.0, 5.0, 1e3]),
    norm_type=st.sampled_from([2, 2.0, 1, 0, 0.5, 3.0, float("inf"), -float("inf")]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_norm_equals_pytorch(seed, max_norm, norm_type, dtype):
    gradients = gradients_of(seed, dtype)
    gradients["bias"][::2] = [0.0, 1.0]
    if abs(norm_type) == float("inf"):
        del gradients["empty"]  # PyTorch has no largest element of nothing; here it counts as zero
    tensors = as_torch(gradients)
    want = torch.nn.utils.clip_grad_norm_(tensors.values(), max_norm, norm_type, foreach=False)
    got = optim.clip_grad_norm(gradients, max_norm, norm_type)
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(got, want.numpy(), rtol=tolerance)
    for name, value in gradients.items():
        assert value.dtype == dtype
        np.testing.assert_allclose(value, tensors[name].grad.numpy(), rtol=tolerance, atol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), clip=st.sampled_from([0.0, 0.3, 1.0, 10.0]))
def test_value_equals_pytorch(seed, clip):
    gradients = gradients_of(seed)
    gradients["bias"][0] = np.nan
    tensors = as_torch(gradients)
    torch.nn.utils.clip_grad_value_(tensors.values(), clip)
    optim.clip_grad_value(gradients, clip)
    for name, value in gradients.items():
        np.testing.assert_array_equal(value, tensors[name].grad.numpy())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_norm_is_an_error_when_asked_and_otherwise_as_pytorch(bad):
    gradients = gradients_of(0)
    gradients["bias"][1] = bad
    before = {name: value.copy() for name, value in gradients.items()}
    with pytest.raises(TinynetError, match=f"is {bad}"):
        optim.clip_grad_norm(gradients, 1.0, error_if_nonfinite=True)
    for name, value in gradients.items():
        np.testing.assert_array_equal(value, before[name])
    tensors = as_torch(gradients)
    torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
    optim.clip_grad_norm(gradients, 1.0)
    for name, value in gradients.items():
        np.testing.assert_array_equal(value, tensors[name].grad.numpy())


def test_nothing_to_clip_and_missing_gradients():
    assert optim.clip_grad_norm({}, 1.0) == 0.0
    assert optim.clip_grad_norm({"a": None}, 1.0) == 0.0
    gradients = {"a": None, "b": np.array([3.0, 4.0])}
    assert optim.total_norm(gradients) == 5.0
    assert optim.clip_grad_norm(gradients, 1.0) == 5.0
    np.testing.assert_allclose(gradients["b"], [0.6, 0.8], rtol=1e-6)
    assert optim.clip_grad_norm({"a": np.zeros((0, 2))}, 1.0, float("inf")) == 0.0
    optim.clip_grad_value({"a": None}, 1.0)
    with pytest.raises(ArgumentError, match="norm_type"):
        optim.clip_grad_norm(gradients, 1.0, float("nan"))


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 0.0, float("inf")])
def test_every_backend_clips_the_same(backend, norm_type):
    host = gradients_of(4, np.float32)
    device = {name: backend.array(value) for name, value in host.items()}
    want, got = optim.clip_grad_norm(host, 0.5, norm_type), optim.clip_grad_norm(device, 0.5, norm_type)
    np.testing.assert_allclose(backend.host(got), want, rtol=1e-6)  # and it stayed on the device
    optim.clip_grad_value(host, 0.01)
    optim.clip_grad_value(device, 0.01)
    for name in host:
        np.testing.assert_allclose(backend.host(device[name]), host[name], rtol=1e-6)
