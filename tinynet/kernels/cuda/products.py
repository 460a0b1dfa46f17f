"""Matrix products by cuBLAS, in the precision that tinynet.backend.gpu_options asks for. The sums and results stay float32.

A float16 holds numbers from 6e-8 to 65504, which the gradients of a network leave at both ends. So an array is scaled before it
is rounded, by the power of two that brings its largest number near 2¹⁴, and the product is scaled back: both without any error.
(Micikevicius et al., "Mixed precision training", ICLR 2018, scale the loss for the same reason.)
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...backend import Array, array_module, current_gpu_options
from .launch import beside, here, watched
from .memory import allocating


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
    with allocating("the float16 copy of a factor", x.shape, np.float16):
        return Factor((x * scale).astype(np.float16), scale)


def product(a: Factor, b: Factor, y: Array | None = None) -> Array:
    """a (…, M, K) times b (…, K, N): (…, M, N), float32 or float64, in y if that is given.

    Both have the same leading axes, or none; or those of one are all of size one, and do for any. (Other axes of size one do in
    full precision and C order alone.)
    """
    return watched("product", (a.array, b.array), lambda: _product(a, b, y))


def _product(a: Factor, b: Factor, y: Array | None) -> Array:
    xp, precision = array_module(a.array, b.array), current_gpu_options().precision
    lower = a.scale is not None or (precision == "tf32" and a.array.dtype == np.float32)
    # CuPy's own product copies what is not in C order, and makes a list of addresses where matrices are repeated.
    left, right = a.array.shape[:-2], b.array.shape[:-2]
    repeated = left != right and 1 in (prod(left), prod(right))
    dense = a.array.flags.c_contiguous and b.array.flags.c_contiguous
    if not lower and (a.array.ndim == 2 or (dense and not repeated)):
        return xp.matmul(a.array, b.array) if y is None else xp.matmul(a.array, b.array, out=y)
    y = _gemm(xp, a.array, b.array, y)
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


def _gemm(xp: Any, a: Array, b: Array, y: Array | None) -> Array:
    """Sums of float32, or of float64 for float64. cuBLAS counts in columns, so it is asked for yᵀ = bᵀ aᵀ: the same memory."""
    cublas = xp.cuda.cublas
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = max(a.shape[:-2], b.shape[:-2], key=prod)
    made = np.float64 if a.dtype == np.float64 else np.float32
    if y is None:
        y = xp.empty((*batch, m, n), dtype=made)
    if y.size == 0 or k == 0:
        y.fill(0)
        return y
    a, a_transposed = _memory(xp, a)
    b, b_transposed = _memory(xp, b)
    kinds = {np.dtype(np.float32): 0, np.dtype(np.float64): 1, np.dtype(np.float16): 2}       # cudaDataType of library_types.h
    tf32 = a.dtype == np.float32 and current_gpu_options().precision == "tf32"
    compute = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else cublas.CUBLAS_COMPUTE_32F
    compute = cublas.CUBLAS_COMPUTE_64F if made is np.float64 else compute
    one, zero = np.ones(1, made), np.zeros(1, made)
    with beside(a):
        cublas.gemmStridedBatchedEx(
            xp.cuda.get_cublas_handle(), int(b_transposed), int(a_transposed), n, m, k, one.ctypes.data,
            b.data.ptr, kinds[b.dtype], k if b_transposed else n, k * n if prod(b.shape[:-2]) > 1 else 0,
            a.data.ptr, kinds[a.dtype], m if a_transposed else k, m * k if prod(a.shape[:-2]) > 1 else 0, zero.ctypes.data,
            y.data.ptr, kinds[y.dtype], n, m * n, prod(batch), compute, cublas.CUBLAS_GEMM_DEFAULT,
        )
    return y


def _memory(xp: Any, x: Array) -> tuple[Array, bool]:
    """x with its matrices one after the other in memory, and whether each lies there transposed."""
    if x.flags.c_contiguous:
        return x, False
    if x.swapaxes(-1, -2).flags.c_contiguous:
        return x, True
    return xp.ascontiguousarray(x), False
