"""Matrix products in pieces that the BLAS multiplies where they lie.

Before a BLAS multiplies, it copies both matrices into the order in which its innermost loop reads them. Of two large matrices
that is little beside n³ operations; of a flat one it is most of the time. OpenBLAS has kernels without those copies, for
processors with AVX-512, which it takes for products of up to 100³ multiply-adds. So a product with a small or a narrow factor is
asked for as many products of pieces below that size, in one call of `matmul`:

    few rows and columns on the left      A [B₁ B₂ …] = [A B₁  A B₂ …]        transforms and products of Winograd's algorithm
    few columns on the right, or few      [A₁; A₂; …] B = [A₁ B; A₂ B; …]     a linear layer with few samples, and its dW
    columns on the left
    few rows on the left                  A B = Σ_i [A_i B_i1  A_i B_i2 …]    its dX

Every number is still the sum of the same terms; their order is another. Elsewhere (another BLAS, an older processor, CuPy) the
product is asked for whole.

And a product A Bᵀ of two matrices that both have long rows, as every weight gradient of a convolution is, had better have the one
of more rows on the left.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..backend import Array, array_module

_SMALL = 100**3
"""Multiply-adds up to which OpenBLAS does not copy (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c)."""
_AVX512 = frozenset(("SkylakeX", "Cooperlake", "SapphireRapids"))
_FLAT = 10_000
"""Numbers of a left factor that is small: of a larger one too few columns fit a piece."""
_WIDE = 512
"""Columns of a piece, at most: a line of them stays in L1 with its neighbours."""
_FEW_COLUMNS, _FEW_TERMS, _FEW_ROWS = 8, 16, 8
"""Columns of the right factor, columns of the left one, or rows of the left one, up to which the copies of the other factor weigh
more than the product.
"""
_LEAST_COLUMNS, _LEAST_ROWS = 64, 4
"""What a piece must have, to be worth its call."""
_BLOCK = (64, 512)
"""Rows and columns of a piece of the right factor, where the left one has few rows: few sums, and lines of some length."""
_FLATTER, _NOT_FLAT = 1.5, 96
"""A Bᵀ is computed as (B Aᵀ)ᵀ if B has so many times as many rows as A, and A no more than these."""


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a (…, M, K) times b (…, K, N): (…, M, N), into out if it is given. Arrays of NumPy or CuPy.

    out: in lines of one piece, and nowhere where a or b is: it is written piece by piece.
    """
    xp = array_module(a, b)
    if xp is not np or min(a.ndim, b.ndim) < 2 or a.dtype != np.float32 or b.dtype != np.float32:
        return xp.matmul(a, b, out=out)
    (m, k), n, plain = a.shape[-2:], b.shape[-1], a.ndim == b.ndim == 2
    if min(m, n) < 2 or m * k * n <= _SMALL or not _multiplies_in_place():
        return np.matmul(a, b, out=out)
    if out is None:
        out = np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n), np.float32)
    in_lines = b.strides[-1] == b.itemsize
    columns = min(_WIDE, _SMALL // (m * k)) // _LEAST_COLUMNS * _LEAST_COLUMNS
    rows = _SMALL // (k * n)
    if m * k <= _FLAT and 0 < columns < n and in_lines:
        _by_columns(a, b, out, columns)
    elif (n <= _FEW_COLUMNS or k <= _FEW_TERMS) and _LEAST_ROWS <= rows < m and plain:
        _by_rows(a, b, out, rows)
    elif m <= _FEW_ROWS and k >= _BLOCK[0] and n >= _BLOCK[1] and plain and in_lines:
        _by_blocks(a, b, out)
    else:
        np.matmul(a, b, out=out)
    return out


def matmul_transposed(a: Array, b: Array) -> Array:
    """a (…, M, K) times bᵀ, b (…, N, K): (…, M, N), whose columns may lie in one piece instead of its rows."""
    (m, n), b = (a.shape[-2], b.shape[-2]), b.swapaxes(-1, -2)
    xp = array_module(a, b)
    if xp is not np or m > _NOT_FLAT or n < _FLATTER * m:
        return xp.matmul(a, b)
    turned: Array = np.matmul(b.swapaxes(-1, -2), a.swapaxes(-1, -2)).swapaxes(-1, -2)
    return turned


def _by_columns(a: Array, b: Array, out: Array, columns: int) -> None:
    whole = b.shape[-1] // columns * columns
    np.matmul(a[..., None, :, :], _cut(b, columns), out=_cut(out, columns))
    if whole < b.shape[-1]:
        np.matmul(a, b[..., whole:], out=out[..., whole:])


def _by_rows(a: Array, b: Array, out: Array, rows: int) -> None:
    m, k = a.shape
    whole = m // rows * rows
    np.matmul(a[:whole].reshape(-1, rows, k), b, out=out[:whole].reshape(-1, rows, b.shape[1]))     # views
    if whole < m:
        np.matmul(a[whole:], b, out=out[whole:])


def _by_blocks(a: Array, b: Array, out: Array) -> None:
    (m, k), n, (lines, columns) = a.shape, b.shape[1], _BLOCK
    terms, whole = k // lines * lines, n // columns * columns
    lefts = np.ascontiguousarray(a[:, :terms]).reshape(m, -1, lines).swapaxes(0, 1)            # (i, M, lines)
    rights = _cut(b[:terms, :whole].reshape(-1, lines, whole), columns).swapaxes(0, 1)         # (j, i, lines, columns)
    sums = np.matmul(lefts, rights).sum(axis=1)                                                # (j, M, columns)
    out[:, :whole].reshape(m, -1, columns)[...] = sums.swapaxes(0, 1)
    if terms < k:
        out[:, :whole] += a[:, terms:] @ b[terms:, :whole]
    if whole < n:
        np.matmul(a, b[:, whole:], out=out[:, whole:])


def _cut(x: Array, columns: int) -> Array:
    """A view (…, pieces, K, columns) of x (…, K, N), without the rest."""
    *lead, lines, n = x.shape
    *steps, line, cell = x.strides
    return np.lib.stride_tricks.as_strided(x, (*lead, n // columns, lines, columns), (*steps, columns * cell, line, cell))


def multiplies_in_place() -> bool:
    """Whether NumPy's BLAS has kernels for small products on this processor."""
    from threadpoolctl import threadpool_info

    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return bool(found) and all(info["internal_api"] == "openblas" and info.get("architecture") in _AVX512 for info in found)


_multiplies_in_place = cache(multiplies_in_place)
