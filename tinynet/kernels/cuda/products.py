"""Matrix products by cuBLAS, in the precision that tinynet.backend.gpu_options asks for. The sums and results stay float32.

A float16 holds numbers from 6e-8 to 65504, which the gradients of a network leave at both ends. So an array is scaled before it
is rounded, by the power of two that brings its largest number near 2¹⁴, and the product is scaled back: both without any error.
(Micikevicius et al., "Mixed precision training", ICLR 2018, scale the loss for the same reason.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...backend import Array, array_module, current_gpu_options
from .launch import here, watched


class Factor(NamedTuple):
    """A matrix as it goes into a product. scale: what its float16 numbers were multiplied by, 0-d on the device, or None."""

    array: Array
    scale: Array | None = None


def factor(x: Array) -> Factor:
    """x, or its float16 copy and the scale of that, as the options ask for. No look by the host."""
    if x.dtype != np.float32 or current_gpu_options().precision != "float16":
        return Factor(x)
    xp = array_module(x)
    if x.size == 0:
        return Factor(x.astype(np.float16))
    largest = xp.abs(x).max()
    power = xp.floor(14 - xp.log2(largest))
    # Nothing to scale in zeros, and nothing that would help infinities; 2¹²⁷ is the largest power of two.
    scale = xp.exp2(xp.where(xp.isfinite(power), xp.clip(power, -127, 127), xp.zeros((), dtype=x.dtype)))
    return Factor((x * scale).astype(np.float16), scale)


def product(a: Factor, b: Factor) -> Array:
    """a (…, M, K) times b (…, K, N): (…, M, N), float32 or float64. Both have the same leading axes, or none."""
    return watched("product", (a.array, b.array), lambda: _product(a, b))


def product_into(a: Array, b: Array, y: Array) -> None:
    """y (…, M, N) ← a (…, M, K) b (…, K, N), of one dtype, in its full precision. A leading axis of size one does for any."""
    watched("product", (a, b), lambda: array_module(a, b).matmul(a, b, out=y))


def _product(a: Factor, b: Factor) -> Array:
    xp, precision = array_module(a.array, b.array), current_gpu_options().precision
    if a.scale is None and (precision != "tf32" or a.array.dtype != np.float32):
        return xp.matmul(a.array, b.array)
    y = _gemm(xp, a.array, b.array)
    if a.scale is not None and b.scale is not None:
        y /= a.scale                                            # one after the other: their product may overflow
        y /= b.scale
    return y


def matmul(a: Array, b: Array) -> Array:
    """a (…, K) times a matrix b (K, N), or a vector (K,): a @ b, on a GPU in the precision of the options."""
    if not here(a):
        return a @ b
    if b.ndim != 2 or a.ndim < 2 or a.dtype != np.float32 or current_gpu_options().precision == "float32":
        return watched("product", (a, b), lambda: a @ b)
    y = product(factor(a if a.ndim == 2 else a.reshape(-1, a.shape[-1])), factor(b))
    return y.reshape(*a.shape[:-1], b.shape[-1])


def _gemm(xp: Any, a: Array, b: Array) -> Array:
    """float16 or TF32 factors, float32 sums. cuBLAS counts in columns, so it is asked for yᵀ = bᵀ aᵀ: the same memory."""
    cublas = xp.cuda.cublas
    *batch, m, k = a.shape
    n, count = b.shape[-1], int(np.prod(batch, dtype=np.int64))
    y = xp.empty((*batch, m, n), dtype=np.float32)
    if y.size == 0 or k == 0:
        y.fill(0)
        return y
    a, a_transposed = _memory(xp, a)
    b, b_transposed = _memory(xp, b)
    half = a.dtype == np.float16
    kind = 2 if half else 0                                     # CUDA_R_16F, CUDA_R_32F of library_types.h
    compute = cublas.CUBLAS_COMPUTE_32F if half else cublas.CUBLAS_COMPUTE_32F_FAST_TF32
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    cublas.gemmStridedBatchedEx(
        xp.cuda.get_cublas_handle(), int(b_transposed), int(a_transposed), n, m, k, one.ctypes.data,
        b.data.ptr, kind, k if b_transposed else n, k * n, a.data.ptr, kind, m if a_transposed else k, m * k, zero.ctypes.data,
        y.data.ptr, 0, n, m * n, count, compute, cublas.CUBLAS_GEMM_DEFAULT,
    )
    return y


def _memory(xp: Any, x: Array) -> tuple[Array, bool]:
    """x with its matrices one after the other in memory, and whether each lies there transposed."""
    if x.flags.c_contiguous:
        return x, False
    if x.swapaxes(-1, -2).flags.c_contiguous:
        return x, True
    return xp.ascontiguousarray(x), False
