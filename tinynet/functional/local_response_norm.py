"""Local response normalisation, across channels, and its gradient."""

from __future__ import annotations

from ..backend import Array
from ..errors import ShapeError
from ._check import check_floats, integer, same_shape


def local_response_norm(input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """y_c = x_c / D_c^β with D_c = k + α/size · Σ x_j² over the `size` channels around c (Krizhevsky et al. 2012, section 3.3).

    input: (N, C, ...), at least three axes. The window holds ⌊size/2⌋ channels before c and ⌊(size − 1)/2⌋ after it;
    channels outside count as zero. Note that α is divided by size, as in PyTorch. Returns input's shape.
    """
    _check_local("local_response_norm", input, size)
    return input * _divisor(input, size, alpha, k) ** -beta


def local_response_norm_input_gradient(
    dy: Array, input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """∂ℓ/∂x for local_response_norm: dx_i = dy_i D_i^−β − 2αβ/size · x_i Σ_{c : i in the window of c} dy_c x_c D_c^(−β−1)."""
    op = "local_response_norm_input_gradient"
    check_floats(op, dy=dy, input=input)
    same_shape(op, input=input, dy=dy)
    _check_local(op, input, size)
    divisor = _divisor(input, size, alpha, k)
    through = dy * input * divisor ** (-beta - 1)
    # c sees i = c − ⌊size/2⌋ … c + ⌊(size−1)/2⌋, so i is seen from the mirrored window.
    spread = _window_sum(through, (size - 1) // 2, size // 2)
    return dy * divisor**-beta - (2 * alpha * beta / size) * input * spread


def _check_local(op: str, input: Array, size: int) -> None:
    check_floats(op, input=input)
    integer(op, "size", size, 1)
    if input.ndim < 3:
        raise ShapeError(f"{op}: expected input (N, C, ...) of at least three axes, got {tuple(input.shape)}")


def _divisor(x: Array, size: int, alpha: float, k: float) -> Array:
    return k + (alpha / size) * _window_sum(x * x, size // 2, (size - 1) // 2)


def _window_sum(x: Array, before: int, after: int) -> Array:
    """Σ of x over channels c − before … c + after, for every c; channels outside count as zero."""
    total, channels = x.copy(), x.shape[1]
    for shift in range(1, min(before, channels - 1) + 1):
        total[:, shift:] += x[:, :-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        total[:, :-shift] += x[:, shift:]
    return total
