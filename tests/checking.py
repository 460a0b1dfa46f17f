"""Compare an op of tinynet with PyTorch: value, shape, dtype and every gradient, in one call and on every backend.

Tolerances. float64: |got − expected| ≤ 1e-10 · max(1, max|expected|). float32: the reference is PyTorch in float64 on the
very same numbers, so what remains is float32's own rounding; the tests draw values of order 1 and sum at most a few
hundred products, whose rounding errors stay below 300 · 2⁻²⁴ ≈ 2e-5 times the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tests.device_double import DeviceArray, device_module
from tinynet.errors import TinynetError

Array = Any
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
LAYOUTS = ("contiguous", "transposed", "reversed", "strided")


class Backend:
    """An array module under test, and the ways to it and back."""

    def __init__(self, name: str, xp: Any) -> None:
        self.name, self.xp = name, xp

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    def array(self, host: np.ndarray, layout: str = "contiguous") -> Array:
        """host on this backend, its memory laid out in one of LAYOUTS; the values are the same in all of them."""
        x = self.xp.asarray(np.array(host, order="C"))
        if layout == "transposed" and x.ndim:
            x = self.xp.ascontiguousarray(x.T).T
        elif layout == "reversed" and x.ndim:
            x = self.xp.ascontiguousarray(x[(slice(None, None, -1),) * x.ndim])[(slice(None, None, -1),) * x.ndim]
        elif layout == "strided" and x.ndim:
            wide = self.xp.full((*x.shape[:-1], 2 * x.shape[-1] + 1), 77, dtype=x.dtype)
            wide[..., 1::2] = x
            x = wide[..., 1::2]
        return x

    def host(self, x: Array) -> np.ndarray:
        if self.xp is np:
            assert isinstance(x, (np.ndarray, np.generic)), f"expected a NumPy array, got {type(x).__name__}"
            return np.asarray(x)
        expected = DeviceArray if self.xp is device_module else self.xp.ndarray
        assert isinstance(x, expected), f"expected {expected.__name__}, got {type(x).__name__}: it left the device"
        return x.get()

    def overlap(self, a: Array, b: Array) -> bool:
        if isinstance(a, np.generic) or isinstance(b, np.generic) or not a.size or not b.size:
            return False
        return bool(self.xp.may_share_memory(a, b))


def close(got: np.ndarray, expected: np.ndarray, dtype: str, what: str = "value", slack: float = 0.0) -> None:
    """Same shape, that dtype, and values within the tolerance of its dtype; NaN equals NaN, infinities must agree.

    slack: the tolerance where that is wider, for reasons the caller states.
    """
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert str(got.dtype) == dtype, f"{what}: dtype {got.dtype}, expected {dtype}"
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=max(TOLERANCE.get(dtype, 0.0), slack) * scale, err_msg=what)


def values(seed: int, shape: tuple[int, ...], special: float = 0.0) -> np.ndarray:
    """Normal numbers that float32 holds exactly, in float64; a fraction `special` of them NaN, ±∞, 0 or equal to others."""
    rng = np.random.default_rng([seed, *shape])
    x = rng.standard_normal(shape).astype(np.float32).astype(np.float64)
    if special and x.size:
        where = rng.random(shape) < special
        x[where] = rng.choice([np.nan, -np.inf, np.inf, 0.0, 0.5, 0.5, -0.5], size=int(where.sum()))
    return x


def ties(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which many are equal: −1, 0 and 1."""
    return np.random.default_rng([seed, *shape]).integers(-1, 2, shape).astype(np.float64)


Gradient = Callable[[dict[str, Array], Array, Array], Array]


def check_op(
    backend: Backend,
    forward: Callable[..., Array],
    reference: Callable[..., torch.Tensor],
    inputs: Mapping[str, np.ndarray | None],
    gradients: Mapping[str, Gradient],
    *,
    dtype: str = "float64",
    layout: str = "contiguous",
    seed: int = 0,
    may_alias: bool = False,
) -> None:
    """Compare forward(**inputs) with reference(**inputs), and every gradient with PyTorch's autograd.

    inputs: name → float64 array that float32 holds exactly, or None. gradients: name of an input → (arrays, y, dy) ↦ ∂ℓ/∂input,
    for a random dy, also in that layout. Checks besides: dtype in = dtype out, nothing leaves the device, no argument is
    changed by any of the calls, and no result shares memory with an argument (unless may_alias). CuPy is compared with PyTorch on
    the CPU and, where PyTorch sees a GPU, on that, too.
    """
    expected, wanted, host_dy = _references(reference, inputs, gradients, seed, "cpu")
    results = [(expected, wanted)]
    if backend.name == "cupy" and torch.cuda.is_available():
        results.append(_references(reference, inputs, gradients, seed, "cuda")[:2])

    arrays = {
        name: None if x is None else backend.array(x.astype(dtype), layout) for name, x in inputs.items()
    }
    dy = backend.array(host_dy.astype(dtype), layout)
    before = {name: None if x is None else backend.host(x).copy() for name, x in arrays.items()}

    def verify(result: Array, want: torch.Tensor, what: str) -> None:
        close(backend.host(result), want.numpy(), dtype, what)
        for name, x in arrays.items():
            if x is not None:
                np.testing.assert_array_equal(backend.host(x), before[name], err_msg=f"{what} changed {name}")
                assert may_alias or not backend.overlap(result, x), f"{what} shares memory with {name}"
        np.testing.assert_array_equal(backend.host(dy), host_dy.astype(dtype), err_msg=f"{what} changed dy")
        assert may_alias or not backend.overlap(result, dy), f"{what} shares memory with dy"

    y = forward(**arrays)
    for expected, _ in results:
        verify(y, expected, "value")
    for name in wanted:
        gradient = gradients[name](arrays, y, dy)
        for _, wanted in results:
            verify(gradient, wanted[name], f"gradient of {name}")


class TensorsOn(TorchFunctionMode):
    """Within the block every tensor that is given to PyTorch is moved to a device first."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def moved(x: Any) -> Any:
            return x.to(self.device) if isinstance(x, torch.Tensor) and x.device.type != self.device else x

        args, kwargs = tree_map(moved, (args, kwargs or {}))
        return function(*args, **kwargs)


def _references(
    reference: Callable[..., torch.Tensor], inputs: Mapping[str, np.ndarray | None], gradients: Mapping[str, Gradient], seed: int,
    device: str,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
    """reference(**inputs) on that device, its gradients for a random dy, and dy."""
    with TensorsOn(device):
        tensors = {
            name: None if x is None else torch.tensor(x, dtype=torch.float64, device=device, requires_grad=name in gradients)
            for name, x in inputs.items()
        }
        expected = reference(**tensors)
        host_dy = values(seed, tuple(expected.shape))
        asked = {name: t for name, t in tensors.items() if t is not None and t.requires_grad}
        found = torch.autograd.grad(expected, list(asked.values()), torch.tensor(host_dy, device=device)) if asked else ()
        return expected.detach().cpu(), {name: x.cpu() for name, x in zip(asked, found, strict=True)}, host_dy


def check_refused(tinynet_call: Callable[[], Any], torch_call: Callable[[], Any] | None, op: str) -> str:
    """Both refuse: PyTorch in its way, tinynet with a TinynetError of one line that names the op. Returns the line.

    torch_call None: PyTorch has no such function, or accepts what tinynet documents that it refuses.
    """
    if torch_call is not None:
        with pytest.raises((RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)):
            torch_call()
    with pytest.raises(TinynetError) as caught:
        tinynet_call()
    line = str(caught.value)
    assert isinstance(caught.value, (ValueError, TypeError)), f"{type(caught.value).__name__} is of neither family"
    assert line and "\n" not in line and line.startswith(op), line
    return line


def adjoint(backend: Backend, y: Array, dy: Array, x: Array, dx: Array) -> None:
    """⟨A x, dy⟩ = ⟨x, A* dy⟩ for a linear A with y = A x and dx = A* dy: a check without any reference, in float64."""
    y, dy, x, dx = (backend.host(a) for a in (y, dy, x, dx))
    left, right = float((y * dy).sum()), float((x * dx).sum())
    assert left == pytest.approx(right, rel=1e-10, abs=1e-10), f"⟨Ax, y⟩ = {left}, ⟨x, A*y⟩ = {right}"
