"""pad against PyTorch: every mode, negative widths, gradients, exactly PyTorch's valid calls."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, adjoint, check_op, check_refused, values
from tinynet.errors import TinynetError

MODES = ["constant", "reflect", "replicate", "circular"]


@st.composite
def paddings(draw: st.DrawFn) -> dict[str, Any]:
    mode = draw(st.sampled_from(MODES))
    n = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(2, 4), min_size=n, max_size=n))
    widths = []
    for size in reversed(sizes):
        before, after = draw(st.integers(-1, 3)), draw(st.integers(-1, 3))
        left = size + min(before, 0) + min(after, 0)
        most = {"reflect": size - 1, "circular": left}.get(mode, 3)
        before, after = min(before, most), min(after, most)
        if mode != "constant" and size + before + after < 1:
            before = after = 1
        widths += [before, after]
    head = draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))
    if draw(st.booleans()) and len(head) == 2:
        head[0] = 0
    return {
        "shape": (*head, *sizes),
        "pad": tuple(widths),
        "mode": mode,
        "value": draw(st.sampled_from([None, 0.0, 2.5, -np.inf])) if mode == "constant" else None,
        "seed": draw(st.integers(0, 1000)),
    }


@given(paddings(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_pad_and_its_gradient(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    pad, mode, value = case["pad"], case["mode"], case["value"]
    check_op(
        backend,
        lambda input: F.pad(input, pad, mode, value),
        lambda input: torch.nn.functional.pad(input, pad, mode, value),
        {"input": values(case["seed"], case["shape"])},
        {"input": lambda a, y, dy: F.pad_input_gradient(dy, a["input"].shape, pad, mode)},
        dtype=dtype,
        layout=layout,
        seed=case["seed"],
    )


@given(paddings())
def test_the_gradient_is_the_adjoint(backend: Backend, case: dict[str, Any]) -> None:
    x = backend.array(values(case["seed"], case["shape"]))
    y = F.pad(x, case["pad"], case["mode"])
    dy = backend.array(values(case["seed"] + 1, tuple(y.shape)))
    adjoint(backend, y, dy, x, F.pad_input_gradient(dy, x.shape, case["pad"], case["mode"]))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.lists(st.integers(-2, 2), max_size=10), st.integers(0, 9))
def test_constant_padding_of_any_number_of_axes(backend: Backend, shape: list[int], pad: list[int], seed: int) -> None:
    x = values(seed, tuple(shape))
    try:
        expected = torch.nn.functional.pad(torch.from_numpy(x), pad, value=1.5).numpy()
    except (RuntimeError, ValueError, TypeError, IndexError):
        with pytest.raises(TinynetError, match=r"^pad"):
            F.pad(backend.array(x), pad, value=1.5)
        return
    np.testing.assert_array_equal(backend.host(F.pad(backend.array(x), pad, value=1.5)), expected)


@pytest.mark.parametrize("mode", MODES)
def test_every_pair_of_widths(backend: Backend, mode: str) -> None:
    # Exhaustive for one axis of 0 … 4 cells, widths −5 … 5: the same values as PyTorch, and the same refusals.
    count = 0
    for size, (before, after) in itertools.product(range(5), itertools.product(range(-5, 6), repeat=2)):
        x = values(0, (2, 3, size))
        left = size - max(-before, 0) - max(-after, 0)
        # PyTorch's circular mode reads memory it has not written where more is wrapped than cutting left.
        undefined = mode == "circular" and (left < 0 or max(before, after) > left)
        try:
            expected = None if undefined else torch.nn.functional.pad(torch.from_numpy(x), (before, after), mode).numpy()
        except (RuntimeError, ValueError):
            expected = None
        if expected is None:
            with pytest.raises(TinynetError, match=r"^pad"):
                F.pad(backend.array(x), (before, after), mode)
        else:
            np.testing.assert_array_equal(backend.host(F.pad(backend.array(x), (before, after), mode)), expected)
            count += 1
    assert count > 80


INVALID = {
    "an odd number of widths": ((2, 3, 4), (1, 1, 1), {}),
    "more widths than axes": ((2, 3), (1, 1, 1, 1, 1, 1), {}),
    "widths not integers": ((2, 3, 4), (1.5, 1), {}),
    "a single number": ((2, 3, 4), 1, {}),
    "an unknown mode": ((2, 3, 4), (1, 1), {"mode": "mirror"}),
    "reflection without a channel axis": ((4,), (1, 1), {"mode": "reflect"}),
    "replication of all axes": ((2, 4), (1, 1, 1, 1), {"mode": "replicate"}),
    "reflection of four axes": ((1, 2, 2, 2, 2, 2), (1,) * 8, {"mode": "reflect"}),
    "reflection of one axis of four": ((2, 3, 4, 5), (1, 1), {"mode": "reflect"}),
    "reflection without channels": ((2, 0, 4), (1, 1), {"mode": "reflect"}),
    "replication of no cells": ((2, 3, 0, 4), (1, 1, 1, 1), {"mode": "replicate"}),
    "a value with reflection": ((2, 3, 4), (1, 1), {"mode": "reflect", "value": 2.0}),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    shape, pad, options = INVALID[what]
    check_refused(
        lambda: F.pad(backend.array(np.zeros(shape)), pad, **options),
        lambda: torch.nn.functional.pad(torch.zeros(shape), pad, **options),
        "pad",
    )
    mode = options.get("mode", "constant")
    if "value" not in options:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda: F.pad_input_gradient(dy, shape, pad, mode), None, "pad_input_gradient")


def test_the_gradient_refuses_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    for shape in [(2, 3, 4), (2, 3, 5), (1, 3, 6), (3, 6)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.pad_input_gradient(dy, (2, 3, 4), (1, 1)), None, "pad_input_gradient")
