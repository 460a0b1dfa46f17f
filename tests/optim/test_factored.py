"""Steps and clipping of gradients that are products: the bits of the written gradient, in threads too, and its norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import Backend, values
from tests.device_double import device_module
from tests.optim.test_trajectories import EVERY_BRANCH, cases
from tinynet import optim
from tinynet.distributed import Shards
from tinynet.errors import DeviceError, DtypeError, ShapeError, TinynetError
from tinynet.kernels import blocks, factors
from tinynet.kernels.blocks import in_turn
from tinynet.kernels.factors import Product

MANY = {"w": (37, 11), "v": (8, 60), "one": (1, 5)}


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with mock.patch.object(blocks, "NUMBERS", 40), mock.patch.object(factors, "_ENOUGH", 3):
        yield


def product(seed: int, shape: tuple[int, int], dtype: Any = np.float32, n: int = 2) -> Product:
    return Product(values(seed, (n, shape[0])).astype(dtype), values(seed + 1, (n, shape[1])).astype(dtype))


def walk(optimizer: optim.Optimizer, shapes: dict[str, tuple[int, int]], dtype: Any, written: bool, **options: Any) -> None:
    """Four steps; one has no gradient of the first parameter, one a plain array, and with each there is a bias."""
    for step in range(4):
        gradients: dict[str, Any] = {name: product(10 * step + i, shape, dtype) for i, (name, shape) in enumerate(shapes.items())}
        if written or step == 2:
            gradients = {name: gradient.value() for name, gradient in gradients.items()}
        if step == 1:
            del gradients[next(iter(shapes))]
        optimizer.step({**gradients, "bias": values(step, (7,)).astype(dtype)}, **options)


def check_same(
    name: str, options: dict[str, Any], shapes: dict[str, tuple[int, int]], dtype: Any, layout: str, **how: Any
) -> None:
    def drawn() -> dict[str, np.ndarray]:
        plain = Backend("numpy", np)
        found = {key: plain.array(values(i, shape).astype(dtype), layout) for i, (key, shape) in enumerate(shapes.items())}
        return {**found, "bias": values(99, (7,)).astype(dtype)}

    ours, whole = drawn(), drawn()
    by_rows, written = (getattr(optim, name)(params, **options) for params in (ours, whole))
    walk(by_rows, shapes, dtype, False, **how)
    walk(written, shapes, dtype, True)
    for key, want in whole.items():
        np.testing.assert_array_equal(ours[key], want, err_msg=key)
        assert by_rows.state[key].keys() == written.state[key].keys()
        for slot, value in written.state[key].items():
            np.testing.assert_array_equal(by_rows.state[key][slot], value, err_msg=f"{slot} of {key}")


@given(
    case=cases, dtype=st.sampled_from([np.float32, np.float64]), out=st.integers(1, 40), inputs=st.integers(1, 70),
    layout=st.sampled_from(["contiguous", "transposed"]),
)
def test_a_step_has_the_bits_of_the_written_gradient(case: Any, dtype: Any, out: int, inputs: int, layout: str) -> None:
    check_same(*case, {"w": (out, inputs)}, dtype, layout)


@pytest.mark.parametrize(("name", "options"), EVERY_BRANCH)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_threads_change_nothing(name: str, options: dict[str, Any], layout: str) -> None:
    with Shards(3) as shards:
        check_same(name, options, MANY, np.float32, layout, each=shards.each)


def test_no_array_of_the_parameters_size_comes_to_be() -> None:
    optimizer = optim.SGD({"w": np.zeros((50, 30), np.float32)}, momentum=0.9)
    seen: list[tuple[int, ...]] = []
    optimizer.update = lambda p, g, state, *rest: seen.append((g.shape, p.shape, state["momentum_buffer"].shape))  # type: ignore
    with mock.patch.object(Product, "value", side_effect=AssertionError("written")):
        optimizer.step({"w": product(0, (50, 30), n=1)})
    assert seen == [((part, 30),) * 3 for part in [4] * 12 + [2]]


def test_the_work_is_shared_out_where_the_product_is_large() -> None:
    calls: list[int] = []

    def each(work: Any, items: Any) -> list[Any]:
        calls.append(len(list(items)))
        return in_turn(work, items)

    for shape in ((3, 4), (50, 30)):
        optim.SGD({"w": np.zeros(shape, np.float32)}).step({"w": product(0, shape, n=1)}, each=each)
    assert calls == [13]


def test_a_step_that_is_held_back_changes_nothing() -> None:
    optimizer = optim.Adam({"w": np.ones((9, 9), np.float32)})
    optimizer.step({"w": product(0, (9, 9))}, ok=False)
    np.testing.assert_array_equal(optimizer.param_groups[0]["params"]["w"], 1)
    assert not optimizer.state.get("w")


W = np.ones((4, 6), np.float32)


@pytest.mark.parametrize(("given_product", "error", "message"), [
    (product(0, (6, 4)), ShapeError, r"SGD: expected a gradient of shape \(4, 6\) for w, got \(6, 4\)"),
    (product(0, (4, 6), np.float64), DtypeError, "SGD: expected a gradient of float32 for w, got float64"),
    (Product(values(0, (2, 4)).astype(np.float32), values(1, (2, 6))), DtypeError, "float32 for w, got float64"),
    (Product(np.ones((2, 4), np.float32), device_module.asarray(np.ones((2, 6), np.float32))), DeviceError, "mixed"),
    (Product(*(device_module.asarray(np.ones((2, k), np.float32)) for k in (4, 6))), DeviceError, "mixed"),
])  # fmt: skip
def test_a_product_is_checked_as_an_array_is(given_product: Product, error: type[TinynetError], message: str) -> None:
    w, b = W.copy(), np.ones(2, np.float32)
    with pytest.raises(error, match=message) as caught:
        optim.SGD({"b": b, "w": w}).step({"b": b, "w": given_product})
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(w, W)
    np.testing.assert_array_equal(b, 1)


def test_every_backend_takes_products(backend: Backend) -> None:
    def of(shape: tuple[int, int]) -> Product:
        host = product(0, shape)
        return Product(backend.array(host.dy), backend.array(host.x))

    w, want = backend.array(np.ones((37, 11), np.float32)), np.ones((37, 11), np.float32)
    gradients, host = {"w": of((37, 11))}, {"w": product(0, (37, 11)).value()}
    np.testing.assert_allclose(
        backend.host(optim.clip_grad_norm(gradients, 0.5)), optim.clip_grad_norm(host, 0.5), rtol=1e-6
    )
    optim.SGD({"w": w}, lr=1.0).step(gradients)
    optim.SGD({"w": want}, lr=1.0).step(host)
    np.testing.assert_allclose(backend.host(w), want, rtol=0, atol=1e-6)
    optim.clip_grad_value(gradients, 1e-3)
    optim.clip_grad_value(host, 1e-3)
    np.testing.assert_allclose(backend.host(gradients["w"]), host["w"], rtol=1e-6, atol=1e-9)


# -- norm and clipping


def both(dtype: Any, n: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gradients, products among them, and the same written."""
    found: dict[str, Any] = {name: product(i, shape, dtype, n) for i, (name, shape) in enumerate(MANY.items())}
    found |= {"bias": values(9, (37,)).astype(dtype), "none": None}
    found["bias"][::2] = 0
    return found, {
        name: g.value() if isinstance(g, Product) else g if g is None else g.copy() for name, g in found.items()
    }


@pytest.mark.parametrize("norm_type", [2, 2.0, 1, 0, 0.5, 3.0, float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_norm_and_clipping_are_those_of_the_written_gradients(norm_type: float, dtype: Any, n: int) -> None:
    ours, written = both(dtype, n)
    factors_before = {name: (g.dy, g.x, g.dy.copy(), g.x.copy()) for name, g in ours.items() if isinstance(g, Product)}
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    wide = [g.ravel().astype(np.float64) for g in written.values() if g is not None]
    want = np.linalg.norm([np.linalg.norm(g, norm_type) for g in wide], norm_type)
    with Shards(3) as shards:
        threads = optim.total_norm(ours, norm_type, each=shards.each)
    norm = optim.total_norm(ours, norm_type)
    assert norm == threads and norm.dtype == dtype
    np.testing.assert_allclose(norm, want, rtol=10 * tolerance if norm_type in (0.5, 3.0) else tolerance)
    assert optim.clip_grad_norm(ours, 0.5, norm_type) == norm
    optim.clip_grad_norm(written, 0.5, norm_type)
    for name, gradient in written.items():
        if gradient is not None:
            got = ours[name].value() if isinstance(ours[name], Product) else ours[name]
            np.testing.assert_allclose(got, gradient, rtol=0, atol=10 * tolerance * max(1, np.abs(gradient).max()), err_msg=name)
            assert isinstance(ours[name], Product) == (name != "bias")
    for dy, x, dy_before, x_before in factors_before.values():              # which may be those of other products
        np.testing.assert_array_equal(dy, dy_before)
        np.testing.assert_array_equal(x, x_before)


def test_two_products_of_one_signal_are_each_clipped_once() -> None:
    dy, x = values(0, (2, 9)).astype(np.float32), values(1, (2, 8)).astype(np.float32)
    pair = {"a": Product(dy, x), "b": Product(dy, x)}
    optim.clip_grad_norm(pair, 1e-3)
    np.testing.assert_allclose(optim.total_norm(pair), 1e-3, rtol=1e-3)
    np.testing.assert_array_equal(pair["a"].value(), pair["b"].value())


def test_values_are_clipped_as_those_of_the_written_gradients() -> None:
    ours, written = both(np.float32)
    names = list(ours)
    with Shards(3) as shards:
        optim.clip_grad_value(ours, 0.3, each=shards.each)
    optim.clip_grad_value(written, 0.3)
    assert list(ours) == names and ours["none"] is None
    for name, gradient in written.items():
        if gradient is not None:
            assert type(ours[name]) is np.ndarray and np.abs(gradient).max() == np.float32(0.3)
            np.testing.assert_array_equal(ours[name], gradient, err_msg=name)


@pytest.mark.parametrize(("dy", "x"), [
    (np.nan, 1), (1, np.nan), (np.inf, 1), (-np.inf, 0), (0, np.inf), (1e30, 1e10), (1e30, -1e10), (1e25, 1), (1e19, 10),
    (1e17, 10),
])  # fmt: skip
@pytest.mark.parametrize("norm_type", [2, 1, float("inf")])
def test_the_norm_is_finite_where_that_of_the_written_gradient_is(dy: float, x: float, norm_type: float) -> None:
    """inf · 0 is nan in either, and what overflows float32 in the product or in the squares of its norm does so by factors."""
    given_product = product(0, (37, 11))
    given_product.dy[1, 20], given_product.x[1, 3] = dy, x
    with np.errstate(all="ignore"):
        written = {"w": given_product.value()}
        want, got = (optim.total_norm(g, norm_type) for g in (written, {"w": given_product}))
    assert got.dtype == np.float32 and np.isfinite(got) == np.isfinite(want)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    if not np.isfinite(want):
        with np.errstate(all="ignore"), pytest.raises(TinynetError, match=f"is {want}"):
            optim.clip_grad_norm({"w": given_product}, 1.0, norm_type, error_if_nonfinite=True)
        ours: dict[str, Any] = {"w": given_product}
        with np.errstate(all="ignore"):
            for gradients in (ours, written):
                optim.clip_grad_norm(gradients, 1.0, norm_type)
        np.testing.assert_array_equal(ours["w"], written["w"])              # nan where inf was divided by inf


def test_what_is_not_clipped_stays_as_it_is() -> None:
    gradient = product(0, (37, 11))
    dy = gradient.dy
    optim.clip_grad_norm({"w": gradient}, 1e6)
    assert gradient.dy is dy


def test_the_norm_needs_no_product_and_other_work_is_shared_out() -> None:
    calls: list[int] = []

    def each(work: Any, items: Any) -> list[Any]:
        calls.append(len(list(items)))
        return in_turn(work, items)

    gradients = {"w": product(0, (50, 30), n=1)}
    with mock.patch.object(factors, "matmul", side_effect=AssertionError("multiplied")):
        optim.clip_grad_norm(gradients, 1e-3, each=each)
    optim.total_norm(gradients, 1, each=each)
    optim.clip_grad_value(gradients, 1.0, each=each)
    assert calls == [1, 13, 13, 38]                             # to clip: 1500 values, 40 at a time
