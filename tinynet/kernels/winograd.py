"""Correlation with small kernels by Winograd's minimal filtering, and its two adjoints.

Overlapping tiles d of a × a input cells (a = m + r − 1) give m × m outputs each, and a filter g of r × r is transformed once:

    y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A             F(m×m, r×r), summed over the input channels

(Winograd 1980; Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, equations 12 and 13.) For
m = 4, r = 3 that are 36 products for 16 outputs instead of 144; for m = 2, r = 5, 36 for 4 instead of 100. With both transforms
written as one matrix each, 𝐁 = Bᵀ ⊗ Bᵀ (a², a²), 𝐀 = Aᵀ ⊗ Aᵀ (m², a²), 𝐆 = G ⊗ G (a², r²), the sum over the channels is a² matrix
products, one for each place k of a tile:

    V = 𝐁 d     (a², C, T)                        U = 𝐆 w     (a², O, C)
    y = 𝐀 M     (m², O, T)                        M_k = U_k V_k

The form is linear in d and in w, so both gradients are the same steps transposed, in the other order:

    E = 𝐀ᵀ dy   (a², O, T)                        dd = 𝐁ᵀ (U_kᵀ E_k)           dw = 𝐆ᵀ (E_k V_kᵀ)

With a stride the channels are those of all phases (winograd_forms.py has this, and the matrices).

Errors. The transforms of a = 6 multiply by numbers up to 16, and what cancels behind them leaves rounding errors: on outputs
of variance 1 the largest is about 1e-4 in float32, of a = 4 about 5e-6 (im2col: 2e-6). A NaN or an infinity in the input reaches
its whole tile, up to m − 1 cells further than a sum over windows would carry it.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..backend import Array, array_module
from .filter_cache import FilterCache
from .geometry import Geometry
from .masking import rectify
from .scratch import times
from .winograd_forms import Form, by_phase, form_of, from_phases, matrices
from .winograd_tiles import Layout

# What cost counts with, fitted to some sixty shapes (benchmarks/NOTES.md).
_TRANSFORMS = {Form(4, 3): 127, Form(2, 3): 77, Form(2, 5): 215}
"""Multiply-adds of a product, for each channel and output, in the time of both transforms."""
_READING, _ADDING = 24, 80
"""Tiles whose products take as long as reading U once for all of them, or as adding to a dU that has every phase."""
_SLOWER = {6: 1.0, 4: 1.9}
"""How many times as long a product takes for tiles of so many cells along an axis: those of 4 × 4 share less."""
_COPIES, _OF_MANY, _AT_ONCE = 1.15, 1.4, 1.0
"""What cutting and writing tiles makes of it all: of 3 × 3 taps; of more taps or phases; and of both gradients of 3 × 3 taps."""


def fits(geometry: Geometry, groups: int, m: int) -> bool:
    """Whether this correlation is one that Winograd's algorithm does with m × m outputs a tile: see winograd_forms.FORMS."""
    return groups == 1 and form_of(geometry, m) is not None


def cost(m: int, count: int, channels: int, filters: int, geometry: Geometry, what: str = "forward") -> float:
    """About how much longer this takes than a product over columns: below 1 it is faster. what: see correlation.choose.

    (a/m)² products an output and phase stand against one for each kernel position. To them come reading U once for all tiles; the
    transforms, which weigh less the more channels share them; cells that the tiles cover in vain; and the copies.
    """
    form, phases = _form(geometry, m), prod(geometry.stride)
    adding = phases > 1 and what == "weight gradient"
    tiles_each = prod(-(-out // m) for out in geometry.out)
    reading = (_ADDING if adding else _READING) / max(1, count * tiles_each)
    products = phases * (form.a / m) ** 2 * (1 + reading) * _SLOWER[form.a]
    transforms = _TRANSFORMS[form] * (1 / channels + phases / filters)
    filled = prod(geometry.out) / (tiles_each * m * m)
    # Columns in strides are copied number by number, which takes the longer the fewer filters use them.
    columns = prod(geometry.kernel) * (1 if phases == 1 or adding or form.a == 4 else min(2, 1 + 40 / filters))
    if form.r > 3 or (phases > 1 and what != "input gradient"):             # dX in strides is no quicker by columns
        copies = _OF_MANY
    else:
        copies = _AT_ONCE if what == "both gradients" else _COPIES
    return copies * (products + transforms) / (filled * columns)


def forward(
    x: Array, w: Array, bias: Array | None, geometry: Geometry, m: int, relu: bool = False, scale: Array | None = None
) -> Array:
    """Y = s · W X + b, and max(Y, 0) if relu. x: (N, C, H, W), w: (O, C, *kernel), bias, scale: (O,) or None.

    Returns (N, O, *out).
    """
    xp, (o, c), stride = array_module(x), w.shape[:2], geometry.stride
    u, form = filters(w, m, stride), _form(geometry, m)
    forms, layout = matrices(xp, form, str(x.dtype)), Layout.of(geometry, form, len(x), prod(stride) * c + o, x.dtype.itemsize)
    y = xp.empty((x.shape[0], o, *geometry.out), dtype=x.dtype)

    def finished(result: Array) -> None:                                    # (…, O, numbers), while it is in cache
        for combine, vector in ((xp.multiply, scale), (xp.add, bias)):
            if vector is not None:
                combine(result, vector.reshape(-1, 1), out=result)
        if relu:
            rectify(result, out=result)

    for images, parts in layout.parts():
        whole = layout.framed(x[images], layout.padded, geometry.low, stride=stride)
        target = layout.canvas_for(y[images], layout.covered, "target")
        for rows in parts:
            v = times("v", forms.b, layout.inputs(whole, rows))             # (a², C·T)
            products = times("products", u, v.reshape(len(u), u.shape[2], -1))      # (a², O, T)
            place = layout.lines(target, rows)
            if place is None:
                place = layout.blocks(target, rows)                         # (m, m, O, *grid)
                result = times("tiles", forms.a, products).reshape(place.shape)
                finished(result.reshape(m * m, o, -1))
            else:
                result = times("tiles", products.reshape(len(u), -1).T, forms.a.T).reshape(o, -1)   # (O, T·m²)
                finished(result)
                result = result.view(place.dtype).reshape(place.shape)      # (O, *grid, m) lines
            xp.copyto(place, result)
        layout.unframe(target, y[images], (0, 0))
    return y


def input_gradient(dy: Array, w: Array, geometry: Geometry, m: int) -> Array:
    """dX = Wᵀ dY. dy: (N, O, *out). Returns (N, C, *size)."""
    dx: Array = _back(None, w, dy, w.shape[1], geometry, m)[0]
    return dx


def weight_gradient(x: Array, dy: Array, geometry: Geometry, m: int) -> Array:
    """dW = dY Xᵀ. x: (N, C, H, W), dy: (N, O, *out). Returns (O, C, *kernel)."""
    dw: Array = _back(x, None, dy, x.shape[1], geometry, m)[1]
    return dw


def gradients(x: Array, w: Array, dy: Array, geometry: Geometry, m: int) -> tuple[Array, Array]:
    """(dX, dW) in one walk: dy is cut and transformed once for both."""
    dx, dw = _back(x, w, dy, x.shape[1], geometry, m)
    assert dx is not None and dw is not None
    return dx, dw


def _back(x: Array | None, w: Array | None, dy: Array, c: int, geometry: Geometry, m: int) -> tuple[Array | None, Array | None]:
    """(dX where w is given, dW where x is given). c: channels of x."""
    xp, o, stride, form = array_module(dy), dy.shape[1], geometry.stride, _form(geometry, m)
    seen = prod(stride) * c                                                 # channels of all phases, S below
    forms, layout = matrices(xp, form, str(dy.dtype)), Layout.of(geometry, form, len(dy), seen + o, dy.dtype.itemsize)
    u = None if w is None else filters(w, m, stride).swapaxes(1, 2)         # (a², S, O)
    dx = None if w is None else xp.empty((dy.shape[0], c, *geometry.size), dtype=dy.dtype)
    du = None
    for images, parts in layout.parts():
        signal, carried = layout.framed(dy[images], layout.covered, (0, 0), "signal"), None
        if dx is not None:
            target = layout.canvas_for(dx[images], layout.padded, "target", stride)
        if x is not None:
            whole = layout.framed(x[images], layout.padded, geometry.low, stride=stride)
        for rows in parts:
            e = times("e", forms.a.T, layout.copied(layout.blocks(signal, rows))).reshape(len(forms.b), o, -1)  # (a², O, T)
            if dx is not None:
                products = times("products", u, e)                          # (a², S, T)
                carried = layout.add_back(times("tiles", forms.back, products), target, rows, carried)
            if x is not None:
                v = times("v", forms.b, layout.inputs(whole, rows)).reshape(len(forms.b), seen, -1)     # (a², S, T)
                if du is None:
                    du = e @ v.swapaxes(1, 2)                               # (a², O, S)
                else:
                    du += times("products", e, v.swapaxes(1, 2))
        if dx is not None:
            layout.unframe(target, dx[images], geometry.low, stride)
    if x is None:
        return dx, None
    if du is None:                                                          # no images
        return dx, xp.zeros((o, c, *geometry.kernel), dtype=dy.dtype)
    dw = (du.reshape(len(du), -1).T @ forms.g).reshape(o, seen, form.r, form.r)
    return dx, from_phases(dw, geometry.kernel, stride)


def filters(w: Array, m: int, stride: tuple[int, ...] = (1, 1)) -> Array:
    """U = 𝐆 w (a², O, C), with a stride (s, t) (a², O, s·t·C). w: (O, C, *kernel)."""
    if array_module(w) is np:
        return _kept.get(w, (m, stride))
    u = _room(w, (m, stride))
    _transform(w, (m, stride), u)
    return u


def _room(w: Array, how: tuple[int, tuple[int, ...]]) -> Array:
    (m, stride), (o, c, *kernel) = how, w.shape
    form = Form(m, -(-kernel[0] // stride[0]))
    return array_module(w).empty((form.a**2, o, prod(stride) * c), dtype=w.dtype)


def _transform(w: Array, how: tuple[int, tuple[int, ...]], out: Array) -> None:
    (m, stride), xp = how, array_module(w)
    w = by_phase(w, stride)
    form = Form(m, w.shape[-1])
    g = matrices(xp, form, str(w.dtype)).g
    xp.matmul(g, w.reshape(-1, form.r**2).T, out=out.reshape(len(out), -1))     # in place: rows in one piece


_kept = FilterCache(_room, _transform)


def _form(geometry: Geometry, m: int) -> Form:
    form = form_of(geometry, m)
    assert form is not None, "asked of fits before"
    return form
