"""The loops of examples/plain_loops.py are what tinynet.functional computes, and what PyTorch does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as T
from hypothesis import given
from hypothesis import strategies as st

_PATH = Path(__file__).parents[1] / "examples" / "plain_loops.py"


def _read() -> Any:
    spec = importlib.util.spec_from_file_location("plain_loops", _PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


loops = _read()


def close(ours: Any, theirs: Any, name: str = "") -> None:
    # Sums of at most some hundred products of order one, in float64.
    assert np.shape(ours) == np.shape(theirs), name
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=name)


@given(st.integers(0, 2**32))
def test_tinynet_computes_what_the_loops_do(seed: int) -> None:
    names = set()
    for name, ours, theirs in loops.compared(np.random.default_rng(seed)):
        close(theirs, ours, name)
        names.add(name)
    assert len(names) == 15


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]


def gradients(y: torch.Tensor, dy: np.ndarray | None, *inputs: torch.Tensor) -> list[np.ndarray]:
    y.backward(None if dy is None else torch.from_numpy(dy))
    return [x.grad.numpy() for x in inputs if x.grad is not None]


@pytest.mark.parametrize("how", [(1, 0, 1), (2, 1, 1), (3, 2, 2), (1, 2, 3)])
def test_the_loops_of_a_convolution_are_pytorchs(how: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 3, 7, 8)), rng.standard_normal((2, 3, 3, 2)), rng.standard_normal(2)
    y = loops.conv2d(x, w, b, *how)
    inputs = tensors(x, w, b)
    theirs = T.conv2d(*inputs, *how)
    close(y, theirs.detach().numpy())
    dy = rng.standard_normal(y.shape)
    dx, dw, db = gradients(theirs, dy, *inputs)
    close(loops.conv2d_input_gradient(x.shape, w, dy, *how), dx)
    close(loops.conv2d_weight_gradient(x, w.shape, dy, *how), dw)
    close(loops.conv2d_bias_gradient(dy), db)


@pytest.mark.parametrize("how", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)])
def test_the_loops_of_a_pooling_are_pytorchs(how: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 5, (2, 2, 7, 8)).astype(float)          # with ties
    y, switches = loops.max_pool2d(x, *how)
    (tensor,) = tensors(x)
    theirs, indices = T.max_pool2d(tensor, *how, return_indices=True)
    close(y, theirs.detach().numpy())
    np.testing.assert_array_equal(switches, indices.numpy())
    dy = rng.standard_normal(y.shape)
    close(loops.max_pool2d_input_gradient(dy, switches, x.shape), gradients(theirs, dy, tensor)[0])
    unpooled = T.max_unpool2d(torch.from_numpy(y), indices, *how, output_size=x.shape[2:])
    close(loops.max_unpool2d(y, switches, x.shape), unpooled.numpy())


def test_the_loops_of_batch_normalisation_are_pytorchs() -> None:
    rng = np.random.default_rng(2)
    x, weight, bias = rng.standard_normal((3, 2, 4, 3)), rng.standard_normal(2), rng.standard_normal(2)
    inputs = tensors(x, weight, bias)
    theirs = T.batch_norm(inputs[0], None, None, *inputs[1:], training=True)
    close(loops.batch_norm(x, weight, bias), theirs.detach().numpy())
    dy = rng.standard_normal(x.shape)
    for ours, grad in zip(loops.batch_norm_gradients(dy, x, weight), gradients(theirs, dy, *inputs), strict=True):
        close(ours, grad)


def test_the_loops_of_the_loss_are_pytorchs() -> None:
    z, t = 3 * np.random.default_rng(3).standard_normal((5, 4)) + 1000, np.array([3, 0, 1, 1, 2])     # e^1000 would overflow
    (tensor,) = tensors(z)
    theirs = T.cross_entropy(tensor, torch.from_numpy(t))
    close(loops.softmax(z), T.softmax(tensor, 1).detach().numpy())
    close(loops.cross_entropy(z, t), theirs.item())
    close(loops.cross_entropy_input_gradient(z, t), gradients(theirs, None, tensor)[0])


def test_the_program_prints_the_differences(capsys: pytest.CaptureFixture[str]) -> None:
    loops.main()
    title, empty, *rows = capsys.readouterr().out.splitlines()
    assert "20 draws" in title and empty == "" and len(rows) == 15
    assert all(float(row.split()[1]) < 1e-12 for row in rows)
