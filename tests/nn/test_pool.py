"""The layers of max-pooling: what windows pass on that lie in the padding wholly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, ties, values
from tinynet import nn

# Their dilation steps over the whole input along an axis: for some windows or all; where the switch is a cell of another row,
# beyond the plane, or both; of strides, of windows that overlap.
CASES: dict[str, tuple[str, tuple[int, ...], tuple[Any, ...]]] = {
    "a line": ("MaxPool1d", (1, 2, 1), (2, 1, 1, 2)),
    "a column": ("MaxPool2d", (1, 1, 3, 1), (2, 1, 1, 2)),
    "columns": ("MaxPool2d", (2, 2, 4, 2), ((1, 2), 1, (0, 1), (1, 3))),
    "a row": ("MaxPool2d", (1, 1, 1, 4), (2, 1, 1, 2)),
    "some": ("MaxPool2d", (2, 3, 7, 3), (2, (2, 1), (1, 2), (1, 4))),
    "strides": ("MaxPool2d", (1, 2, 5, 3), ((3, 2), 2, (1, 1), (1, 4))),
    "a volume": ("MaxPool3d", (1, 2, 2, 3, 1), (2, 1, 1, (1, 1, 2))),
    "none": ("MaxPool2d", (2, 2, 6, 5), (3, 1, 1, 2)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("meeting", ["sum", "largest"])
@pytest.mark.parametrize("signs", ["any", "below zero", "ties"])
def test_a_window_of_nothing_but_padding_passes_nothing_on(backend: Backend, case: str, meeting: str, signs: str) -> None:
    # The reference pads by hand: there the signal of such a window lands on the cells of padding, which are then cut off.
    kind, shape, arguments = CASES[case]
    layer, n = getattr(nn, kind)(*arguments), len(shape) - 2
    kernel, stride, padding, dilation = arguments
    x = values(3, shape)
    low = [padding] * n if isinstance(padding, int) else list(padding)
    around = [cells for pad in reversed(low) for cells in (pad, pad)]
    padded = torch.nn.functional.pad(torch.from_numpy(x), around, value=-np.inf)
    pooled, switches = getattr(torch.nn.functional, f"max_pool{n}d")(padded, kernel, stride, 0, dilation, return_indices=True)
    y, saved = layer.forward(backend.array(x))
    np.testing.assert_array_equal(backend.host(y), pooled.numpy())
    signal = {"any": values, "below zero": lambda *a: -abs(values(*a)) - 0.5, "ties": ties}[signs](5, tuple(pooled.shape))
    flat = torch.zeros(*shape[:2], padded[0, 0].numel(), dtype=torch.float64).scatter_reduce(
        2, switches.flatten(2), torch.from_numpy(signal).flatten(2), {"sum": "sum", "largest": "amax"}[meeting],
        include_self=meeting == "sum",
    )
    inside = tuple(slice(pad, pad + size) for pad, size in zip(low, shape[2:], strict=True))
    expected = flat.reshape(padded.shape)[(slice(None), slice(None), *inside)].numpy()
    got = backend.host(layer.back(saved, backend.array(signal), meeting))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert (case == "none") == bool(np.isfinite(pooled.numpy()).all())
