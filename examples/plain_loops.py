"""The operations of a convolutional network as plain loops over numbers, each sum as its formula has it.

To be read from top to bottom. No line works on more than one number at a time; np.ndindex(2, 3) counts (0, 0), (0, 1), … (1, 2).
tinynet.functional gives the same numbers much faster, in one and three dimensions as well, and with groups: what is computed
stands here, how it is made fast in tinynet/kernels.

Run: python examples/plain_loops.py draws small odd cases and prints how far the two are apart; a test does so with many more,
and asks PyTorch, too (tests/test_plain_loops.py).
"""

from collections.abc import Iterator
from math import exp, inf, log, sqrt

import numpy as np

from tinynet import functional as F

Array = np.ndarray
Size = Place = tuple[int, ...]


# Convolution. x: (N, C, H, W), samples of C maps. w: (O, C, kh, kw), O filters. b: (O,). y: (N, O, H', W').


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """How many windows lie along an axis: ⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def products(x_size: Size, w_size: Size, stride: int, padding: int, dilation: int) -> Iterator[tuple[Place, Place, Place]]:
    """Every product w · x of a convolution, once, by the places of its three numbers: in y, in w and in x."""
    samples, channels, height, width = x_size
    filters, _, kh, kw = w_size
    rows, columns = windows(height, kh, stride, padding, dilation), windows(width, kw, stride, padding, dilation)
    for n, o, i, j in np.ndindex(samples, filters, rows, columns):
        for c, a, b in np.ndindex(channels, kh, kw):
            h = i * stride + a * dilation - padding
            v = j * stride + b * dilation - padding
            if 0 <= h < height and 0 <= v < width:              # a cell of the padding is 0 and adds nothing
                yield (n, o, i, j), (o, c, a, b), (n, c, h, v)


def conv2d(x: Array, w: Array, b: Array, stride: int, padding: int, dilation: int) -> Array:
    # y[n, o, i, j] = b[o] + Σ_cab w[o, c, a, b] · x[n, c, i·stride + a·dilation − padding, j·stride + b·dilation − padding]
    rows, columns = (windows(x.shape[k], w.shape[k], stride, padding, dilation) for k in (2, 3))
    y = np.zeros((len(x), len(w), rows, columns))
    for n, o, i, j in np.ndindex(y.shape):
        y[n, o, i, j] = b[o]
    for in_y, in_w, in_x in products(x.shape, w.shape, stride, padding, dilation):
        y[in_y] += w[in_w] * x[in_x]
    return y


# The way back. dy: ∂ℓ/∂y. A product w · x is part of one y, so by the chain rule it sends dy · w to its x and dy · x to its w.


def conv2d_input_gradient(x_size: Size, w: Array, dy: Array, stride: int, padding: int, dilation: int) -> Array:
    # ∂ℓ/∂x = Σ dy · w over all products in which that x stands
    dx = np.zeros(x_size)
    for in_y, in_w, in_x in products(x_size, w.shape, stride, padding, dilation):
        dx[in_x] += dy[in_y] * w[in_w]
    return dx


def conv2d_weight_gradient(x: Array, w_size: Size, dy: Array, stride: int, padding: int, dilation: int) -> Array:
    # ∂ℓ/∂w = Σ dy · x over all products in which that w stands
    dw = np.zeros(w_size)
    for in_y, in_w, in_x in products(x.shape, w_size, stride, padding, dilation):
        dw[in_w] += dy[in_y] * x[in_x]
    return dw


def conv2d_bias_gradient(dy: Array) -> Array:
    # ∂ℓ/∂b[o] = Σ_nij dy[n, o, i, j]
    db = np.zeros(dy.shape[1])
    for n, o, i, j in np.ndindex(dy.shape):
        db[o] += dy[n, o, i, j]
    return db


# Max-pooling, and the way back by its switches: h · width + v, where a maximum stood at row h and column v.


def max_pool2d(x: Array, kernel: int, stride: int, padding: int) -> tuple[Array, Array]:
    # y[n, c, i, j] = max_ab x[n, c, i·stride + a − padding, j·stride + b − padding]
    samples, channels, height, width = x.shape
    size = (samples, channels, windows(height, kernel, stride, padding), windows(width, kernel, stride, padding))
    y, switches = np.full(size, -inf), np.zeros(size, np.int64)
    for n, c, i, j in np.ndindex(size):
        for a, b in np.ndindex(kernel, kernel):
            h, v = i * stride + a - padding, j * stride + b - padding
            if 0 <= h < height and 0 <= v < width and x[n, c, h, v] > y[n, c, i, j]:    # of equal ones the first stays
                y[n, c, i, j], switches[n, c, i, j] = x[n, c, h, v], h * width + v
    return y, switches


def max_pool2d_input_gradient(dy: Array, switches: Array, x_size: Size) -> Array:
    # ∂ℓ/∂x = Σ dy over all windows whose maximum that x is; nothing to the others
    dx = np.zeros(x_size)
    for n, c, i, j in np.ndindex(dy.shape):
        h, v = divmod(switches[n, c, i, j], x_size[3])
        dx[n, c, h, v] += dy[n, c, i, j]
    return dx


def max_unpool2d(y: Array, switches: Array, x_size: Size) -> Array:
    # x[n, c, h, v] = y[n, c, i, j] where the switch of (i, j) is (h, v), else 0; of windows that share a cell the last counts
    x = np.zeros(x_size)
    for n, c, i, j in np.ndindex(y.shape):
        h, v = divmod(switches[n, c, i, j], x_size[3])
        x[n, c, h, v] = y[n, c, i, j]
    return x


# Batch normalisation, in training: by the mean μ and the variance σ² of each channel in this batch. weight γ, bias β: (C,).


def normalised(x: Array, eps: float) -> tuple[Array, Array]:
    # μ[c] = (1/m) Σ x, σ²[c] = (1/m) Σ (x − μ[c])², both over the m numbers of channel c; x̂ = (x − μ[c]) / √(σ²[c] + ε)
    channels, m = x.shape[1], x.size // x.shape[1]
    mean, variance, x_hat = np.zeros(channels), np.zeros(channels), np.zeros(x.shape)
    for n, c, i, j in np.ndindex(x.shape):
        mean[c] += x[n, c, i, j] / m
    for n, c, i, j in np.ndindex(x.shape):
        variance[c] += (x[n, c, i, j] - mean[c]) ** 2 / m
    for n, c, i, j in np.ndindex(x.shape):
        x_hat[n, c, i, j] = (x[n, c, i, j] - mean[c]) / sqrt(variance[c] + eps)
    return x_hat, variance


def batch_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    # y = γ[c] · x̂ + β[c]
    x_hat, _ = normalised(x, eps)
    y = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(x.shape):
        y[n, c, i, j] = weight[c] * x_hat[n, c, i, j] + bias[c]
    return y


def batch_norm_gradients(dy: Array, x: Array, weight: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    # ∂ℓ/∂γ[c] = Σ dy · x̂ and ∂ℓ/∂β[c] = Σ dy; since every x moves μ and σ², too, their means come off what arrives at it:
    # ∂ℓ/∂x = γ[c] / √(σ²[c] + ε) · (dy − (1/m) ∂ℓ/∂β[c] − x̂ · (1/m) ∂ℓ/∂γ[c])
    x_hat, variance = normalised(x, eps)
    m, dx, dweight, dbias = x.size // x.shape[1], np.zeros(x.shape), np.zeros(len(weight)), np.zeros(len(weight))
    for n, c, i, j in np.ndindex(x.shape):
        dweight[c] += dy[n, c, i, j] * x_hat[n, c, i, j]
        dbias[c] += dy[n, c, i, j]
    for n, c, i, j in np.ndindex(x.shape):
        centred = dy[n, c, i, j] - dbias[c] / m - x_hat[n, c, i, j] * dweight[c] / m
        dx[n, c, i, j] = weight[c] / sqrt(variance[c] + eps) * centred
    return dx, dweight, dbias


# Softmax with cross-entropy. z: (N, C) logits, t: (N,) the numbers of the right classes.


def softmax(z: Array) -> Array:
    # p[n, c] = e^z[n, c] / Σ_k e^z[n, k]; less the largest of the row in every power, or one might overflow
    p = np.zeros(z.shape)
    for n, c in np.ndindex(z.shape):
        p[n, c] = exp(z[n, c] - max(z[n])) / sum(exp(other - max(z[n])) for other in z[n])
    return p


def cross_entropy(z: Array, t: Array) -> float:
    # ℓ = −(1/N) Σ_n log p[n, t[n]]
    p = softmax(z)
    return -sum(log(p[n, t[n]]) for n in range(len(z))) / len(z)


def cross_entropy_input_gradient(z: Array, t: Array) -> Array:
    # ∂ℓ/∂z[n, c] = (p[n, c] − 1) / N at the right class c = t[n], and p[n, c] / N at the others
    p, dz = softmax(z), np.zeros(z.shape)
    for n, c in np.ndindex(z.shape):
        dz[n, c] = (p[n, c] - (c == t[n])) / len(z)
    return dz


def compared(rng: np.random.Generator) -> Iterator[tuple[str, Array | float, Array | float]]:
    """One small case of each operation, drawn: its name, what the loops give, and what tinynet.functional gives."""
    n, c, o, kh, kw, stride, dilation = (int(rng.integers(1, 4)) for _ in range(7))
    height, width = (int(rng.integers(7, 10)) for _ in range(2))
    how = (stride, int(rng.integers(0, 3)), dilation)                           # with its padding
    x, w, b = rng.standard_normal((n, c, height, width)), rng.standard_normal((o, c, kh, kw)), rng.standard_normal(o)
    y = conv2d(x, w, b, *how)
    dy = rng.standard_normal(y.shape)
    yield "conv2d", y, F.conv2d(x, w, b, *how)
    yield "conv2d_input_gradient", conv2d_input_gradient(x.shape, w, dy, *how), F.conv2d_input_gradient(x.shape, w, dy, *how)
    yield "conv2d_weight_gradient", conv2d_weight_gradient(x, w.shape, dy, *how), F.conv2d_weight_gradient(x, w.shape, dy, *how)
    yield "conv2d_bias_gradient", conv2d_bias_gradient(dy), F.conv_bias_gradient(dy)

    kernel = int(rng.integers(1, 4))
    how = (kernel, int(rng.integers(1, 4)), int(rng.integers(0, kernel // 2 + 1)))
    x = rng.integers(0, 9, x.shape).astype(float)                               # many are equal
    y, switches = max_pool2d(x, *how)
    theirs, their_switches = F.max_pool2d(x, *how, return_indices=True)
    dy = rng.standard_normal(y.shape)
    yield "max_pool2d", y, theirs
    yield "switches", switches, their_switches
    dx = F.max_pool2d_input_gradient(dy, switches, x.shape)
    yield "max_pool2d_input_gradient", max_pool2d_input_gradient(dy, switches, x.shape), dx
    yield "max_unpool2d", max_unpool2d(y, switches, x.shape), F.max_unpool2d(y, switches, *how, output_size=x.shape[2:])

    x, dy, weight, bias = (rng.standard_normal(size) for size in (x.shape, x.shape, c, c))
    dx, dweight, dbias = batch_norm_gradients(dy, x, weight)
    yield "batch_norm", batch_norm(x, weight, bias), F.batch_norm(x, None, None, weight, bias, training=True)
    yield "batch_norm_input_gradient", dx, F.batch_norm_input_gradient(dy, x, None, None, weight, training=True)
    yield "batch_norm_weight_gradient", dweight, F.batch_norm_weight_gradient(dy, x, None, None, training=True)
    yield "batch_norm_bias_gradient", dbias, F.batch_norm_bias_gradient(dy)

    z, t = 3 * rng.standard_normal((n, c + 1)), rng.integers(0, c + 1, n)
    yield "softmax", softmax(z), F.softmax(z, 1)
    yield "cross_entropy", cross_entropy(z, t), F.cross_entropy(z, t)
    yield "cross_entropy_input_gradient", cross_entropy_input_gradient(z, t), F.cross_entropy_input_gradient(z, t)


def main() -> None:
    draws = 20
    largest: dict[str, float] = {}
    for seed in range(draws):
        for name, ours, theirs in compared(np.random.default_rng(seed)):
            largest[name] = max(largest.get(name, 0.0), float(np.abs(np.subtract(ours, theirs)).max()))
    print(f"largest difference from tinynet.functional in {draws} draws\n")
    for name, difference in largest.items():
        print(f"{name:30} {difference:.0e}")


if __name__ == "__main__":
    main()
