"""The fused CUDA loss, batch normalisation and bias + ReLU, against the NumPy path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import close, values
from tests.device_double import DeviceArray, device_module
from tests.kernels.cuda_on_cpu import Cpu
from tests.kernels.test_cuda_convolution import wide_indices
from tinynet import functional as F
from tinynet.functional.batch_norm import batch_statistics
from tinynet.kernels.cuda import batch_norm, convolution
from tinynet.kernels.cuda.cross_entropy import cross_entropy


def device(x: Any) -> DeviceArray:
    return device_module.asarray(x)


@st.composite
def losses(draw: st.DrawFn) -> dict[str, Any]:
    classes = draw(st.sampled_from([1, 2, 3, 10, 33, 300]))
    shape = draw(st.sampled_from([(classes,), (1, classes), (7, classes), (2, classes, 3), (2, classes, 2, 1)]))
    return {
        "shape": shape, "classes": classes, "seed": draw(st.integers(0, 1000)),
        "weight": draw(st.sampled_from([None, "drawn", "zero"])),
        "options": {
            "ignore_index": draw(st.sampled_from([-100, 0, 1])), "reduction": draw(st.sampled_from(["none", "mean", "sum"])),
            "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        },
    }


@given(losses(), st.sampled_from(["float64", "float32"]), st.sampled_from([0.0, 0.1]), st.booleans())
def test_cross_entropy_and_its_gradient(cuda: Cpu, case: dict[str, Any], dtype: str, special: float, wide: bool) -> None:
    shape, classes, seed, options = case["shape"], case["classes"], case["seed"], case["options"]
    rng = np.random.default_rng(seed)
    x = (10 * values(seed, shape, special)).astype(dtype)
    target = rng.integers(0, classes, shape[:1] + shape[2:] if len(shape) > 1 else ())
    target = np.asarray(target, np.uint8 if classes < 256 and options["ignore_index"] >= 0 and seed % 2 else np.int64)
    weight = None if case["weight"] is None else rng.random(classes).astype(dtype) * (case["weight"] == "drawn")
    with np.errstate(all="ignore"):
        exact = x.astype(np.float64), target, None if weight is None else weight.astype(np.float64)
        value, dx = F.cross_entropy(*exact, **options), F.cross_entropy_input_gradient(*exact, **options)
    with wide_indices(wide):
        got = cross_entropy(device(x), device(target), None if weight is None else device(weight), **options)
        alone = cross_entropy(device(x), device(target), None if weight is None else device(weight), gradient=False, **options)
        without = cross_entropy(device(x), device(target), None if weight is None else device(weight), value=False, **options)
    # A logit of float32 near 100 is known to 4e-6 only, and so is the loss.
    close(got[0].get(), np.asarray(value), dtype, "value", 1e-5 if dtype == "float32" else 0)
    close(got[1].get(), dx, dtype, "gradient", 3e-5 if dtype == "float32" else 0)
    np.testing.assert_array_equal(alone[0].get(), got[0].get())
    np.testing.assert_array_equal(without[1].get(), got[1].get())
    assert alone[1] is None and without[0] is None


@pytest.mark.parametrize("wrong", [-1, 4, -(1 << 40), 1 << 40])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_target_that_is_no_class_is_nan_and_nothing_is_read_beside_the_logits(cuda: Cpu, wrong: int, reduction: str) -> None:
    x, target = values(0, (3, 4)), np.array([1, wrong, 2])
    value, dx = cross_entropy(device(x), device(target), device(np.ones(4)), reduction=reduction)
    assert np.isnan(value.get()).tolist() == ([False, True, False] if reduction == "none" else True)
    assert np.isnan(dx.get()).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(dx.get()[[0, 2]]).all()


@pytest.mark.parametrize("op", ["cross_entropy", "nll_loss"])
def test_the_mean_is_the_kernels_and_costs_no_further_pass(cuda: Cpu, monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    divisions: list[Any] = []
    monkeypatch.setattr(DeviceArray, "__truediv__", lambda x, other: divisions.append(other) or x)
    getattr(F, f"{op}_input_gradient")(device(values(0, (3, 4))), device(np.array([1, 0, 2])))
    assert not divisions


SHAPES = [(1, 1), (5, 3), (2, 3, 4), (3, 2, 3, 5), (2, 2, 2, 3, 2), (700, 1, 40), (2, 1030, 2), (0, 3, 2)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalisation(cuda: Cpu, shape: tuple[int, ...], dtype: str, wide: bool) -> None:
    x, dy = (3 + values(1, shape)).astype(dtype), values(2, shape).astype(dtype)
    gamma, beta = values(3, shape[1:2]).astype(dtype), values(4, shape[1:2]).astype(dtype)
    axes = tuple(a for a in range(len(shape)) if a != 1)
    slack = 5e-5 if dtype == "float32" else 0                   # the mean, near 3, is rounded, too
    with wide_indices(wide):
        total = batch_norm.channel_sums(device(x))
        close(total.get() / max(1, x.size // shape[1]), x.astype(float).sum(axes) / max(1, x.size // shape[1]), dtype, "Σ x")
        if x.size // shape[1] < 2:
            return
        exact = [a.astype(np.float64) for a in (x, dy, gamma, beta)]
        mean, variance, count = batch_statistics(exact[0])
        scale = 1 / np.sqrt(variance + 1e-5)
        mu, sigma = device(mean.astype(dtype)), device(scale.astype(dtype))
        close(batch_norm.channel_sums(device(x), mu).get() / count, variance, dtype, "σ²")
        y = batch_norm.normalise(device(x), mu, sigma * device(gamma), device(beta))
        expected = F.batch_norm(exact[0], None, None, exact[2], exact[3], training=True)
        close(y.get(), expected, dtype, "y", slack)
        rectified = batch_norm.normalise(device(x), mu, sigma * device(gamma), device(beta), relu=True)
        np.testing.assert_array_equal(rectified.get(), np.maximum(y.get(), 0))
        means = batch_norm.gradient_sums(device(dy), device(x), mu) / count
        dx = batch_norm.input_gradient(device(dy), device(x), mu, sigma, sigma * device(gamma), means[0], means[1] * sigma)
        expected = F.batch_norm_input_gradient(exact[1], exact[0], None, None, exact[2], training=True)
        close(dx.get(), expected, dtype, "dx", slack)
        sums = batch_norm.gradient_sums(device(dy), device(x), mu).get()
        close(sums[0] / count, exact[1].sum(axes) / count, dtype, "Σ dy")
        weight = F.batch_norm_weight_gradient(exact[1], exact[0], None, None, training=True)
        close(sums[1] * scale.astype(dtype) / count, weight / count, dtype, "Σ dy x̂", slack)


def test_a_channel_is_shared_by_blocks_where_it_is_long(cuda: Cpu) -> None:
    batch_norm.channel_sums(device(np.ones((70, 2, 100))))
    assert cuda.launches[-1][1] == (2, 3, 1)


@given(st.sampled_from([(1, 1), (2, 3), (2, 3, 5), (1, 2, 3, 7), (0, 2, 2)]), st.booleans(), st.booleans(), st.booleans())
def test_bias_and_relu_in_place(cuda: Cpu, shape: tuple[int, ...], relu: bool, biased: bool, wide: bool) -> None:
    y, bias = values(0, shape, 0.3), values(1, shape[1:2])
    with np.errstate(all="ignore"):
        expected = y + bias.reshape(-1, *[1] * (len(shape) - 2)) if biased else y.copy()
        expected = np.maximum(expected, 0) if relu else expected
    memory = device(y)
    with wide_indices(wide):
        assert convolution.bias_relu(memory, device(bias) if biased else None, relu) is memory
    np.testing.assert_array_equal(memory.get(), expected)
