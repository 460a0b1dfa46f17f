"""interpolate against PyTorch: every offered mode, sizes and factors, gradients, exactly PyTorch's valid calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinynet.functional as F
from tests.checking import LAYOUTS, Backend, adjoint, check_op, check_refused, values
from tinynet.errors import TinynetError

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
FACTORS = [0.5, 1.0, 2.0, 0.3, 1.7, 2.5, 3.0, 1 / 3]


@st.composite
def resizings(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 3))
    mode = draw(st.sampled_from(["nearest", "nearest-exact", LINEAR[n]]))
    sizes = draw(st.lists(st.integers(4, 6) if draw(st.booleans()) else st.integers(1, 4), min_size=n, max_size=n))
    options: dict[str, Any] = {"mode": mode}
    if mode in LINEAR.values():
        options["align_corners"] = draw(st.sampled_from([None, False, True]))
    kind = draw(st.sampled_from(["number", "numbers", "factor", "factors"]))
    if kind == "number":
        options["size"] = draw(st.integers(1, 7))
    elif kind == "numbers":
        options["size"] = tuple(draw(st.lists(st.integers(1, 7), min_size=n, max_size=n)))
    else:
        fitting = [f for f in FACTORS if min(sizes) * f >= 1]
        options["recompute_scale_factor"] = draw(st.sampled_from([None, False, True]))
        options["scale_factor"] = (
            draw(st.sampled_from(fitting))
            if kind == "factor"
            else tuple(draw(st.lists(st.sampled_from(fitting), min_size=n, max_size=n)))
        )
    return {
        "shape": (draw(st.integers(0, 2)), draw(st.integers(1, 2)), *sizes),
        "options": options,
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=100)
@given(resizings(), st.sampled_from(["float64", "float32"]), st.sampled_from(LAYOUTS))
def test_interpolate_and_its_gradient(backend: Backend, case: dict[str, Any], dtype: str, layout: str) -> None:
    options = case["options"]
    check_op(
        backend,
        lambda input: F.interpolate(input, **options),
        lambda input: torch.nn.functional.interpolate(input, **options),
        {"input": values(case["seed"], case["shape"])},
        {"input": lambda a, y, dy: F.interpolate_input_gradient(dy, a["input"].shape, **options)},
        dtype=dtype,
        layout=layout,
        seed=case["seed"],
    )


@given(resizings())
def test_the_gradient_is_the_adjoint(backend: Backend, case: dict[str, Any]) -> None:
    x = backend.array(values(case["seed"], case["shape"]))
    y = F.interpolate(x, **case["options"])
    dy = backend.array(values(case["seed"] + 1, tuple(y.shape)))
    adjoint(backend, y, dy, x, F.interpolate_input_gradient(dy, x.shape, **case["options"]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_picks_pytorchs_cell_at_every_boundary(backend: Backend, mode: str, dtype: str) -> None:
    # The cell numbers are the values, so one wrong rounding shows. All sizes to all sizes, then factors of many cells. In
    # two dimensions: PyTorch's nearest-exact of float64 differs from its own gradient at ties in one and three.
    def compare(n: int, **options: Any) -> None:
        x = np.arange(n, dtype=dtype).reshape(1, 1, 1, n)
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), mode=mode, **options).numpy()
        got = F.interpolate(backend.array(x), mode=mode, **options)
        np.testing.assert_array_equal(backend.host(got), expected, err_msg=f"{n} cells, {options}")

    for n in range(1, 20):
        for m in range(1, 40):
            compare(n, size=(1, m))
    for factor in [*FACTORS, 0.1, 0.7, 1.1, 1.3, 4.9]:
        for recompute in (False, True):
            compare(50, scale_factor=(1.0, factor), recompute_scale_factor=recompute)


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 4), max_size=6), st.sampled_from(["nearest", "nearest-exact", *LINEAR.values()]),
    st.sampled_from([None, False, True]), st.sampled_from([None, 3, 0, -1, (2,), (2, 3), (2, 3, 1)]),
    st.sampled_from([None, 2.0, 0.5, 0.1, -1.0, (2.0,), (2.0, 0.5)]), st.sampled_from([None, False, True]),
)  # fmt: skip
def test_exactly_the_calls_that_pytorch_refuses_are_refused(
    backend: Backend, shape: list[int], mode: str, align: bool | None, size: Any, factor: Any, recompute: bool | None
) -> None:
    x = values(0, tuple(shape))
    arguments = (size, factor, mode, align, recompute)
    try:
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), *arguments).numpy()
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
        with pytest.raises(TinynetError, match=r"^interpolate"):
            F.interpolate(backend.array(x), *arguments)
        return
    got = backend.host(F.interpolate(backend.array(x), *arguments))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


INVALID = {
    "an unknown mode": ((1, 2, 4), {"size": 3, "mode": "cubic"}),
    "a size not an integer": ((1, 2, 4), {"size": 3.5}),
    "a factor that is a word": ((1, 2, 4), {"scale_factor": "twice"}),
    "bilinear for one axis": ((1, 2, 4), {"size": 3, "mode": "bilinear"}),
    "align_corners with nearest": ((1, 2, 4), {"size": 3, "align_corners": True}),
    "antialias with nearest": ((1, 2, 4), {"size": 3, "antialias": True}),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_calls(backend: Backend, what: str) -> None:
    shape, options = INVALID[what]
    check_refused(
        lambda: F.interpolate(backend.array(np.zeros(shape)), **options),
        lambda: torch.nn.functional.interpolate(torch.zeros(shape), **options),
        "interpolate",
    )


@pytest.mark.parametrize("options", [{"mode": "bicubic"}, {"mode": "area"}, {"mode": "bilinear", "antialias": True}])
def test_what_is_documented_as_not_offered(backend: Backend, options: dict[str, Any]) -> None:
    check_refused(lambda: F.interpolate(backend.array(np.zeros((1, 2, 4, 4))), 3, **options), None, "interpolate")


def test_the_gradient_refuses_a_signal_of_the_wrong_shape(backend: Backend) -> None:
    for shape in [(1, 2, 4), (1, 2, 3), (2, 2, 8), (2, 8)]:
        dy = backend.array(np.zeros(shape))
        check_refused(lambda dy=dy: F.interpolate_input_gradient(dy, (1, 2, 4), 8), None, "interpolate_input_gradient")
