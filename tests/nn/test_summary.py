"""The table of a model, and receptive fields, against PyTorch's counts and against gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.nn.test_containers import TorchFire, fire
from tinynet import nn
from tinynet.errors import TinynetError


def test_summary_of_a_net() -> None:
    model = fire()
    table = nn.summary(model, (2, 9, 8))
    module, shapes = TorchFire().eval(), {}
    for path in ("stem.0", "stem.2", "squeeze", "expand3x3", "down.downsample", "head"):
        module.get_submodule(path).register_forward_hook(lambda m, i, o, path=path: shapes.__setitem__(path, tuple(o.shape[1:])))
    module(torch.zeros(1, 2, 9, 8))
    rows = {row.path: row for row in table.rows}
    for path, shape in shapes.items():
        assert rows[path].output == shape, path
        assert rows[path].memory == 4 * np.prod(shape)
    assert table.parameters == sum(p.numel() for p in module.parameters())
    assert rows["res.0.0"].parameters == 4 * 4 * 9 + 4
    assert rows["res.0.3"].parameters == 0  # the same layer again
    # Multiply-adds of a convolution: every output number sums in/groups · kernel products.
    assert rows["stem.0"].multiply_adds == 4 * 9 * 8 * 2 * 9
    assert rows["head"].multiply_adds == 3 * 20
    assert table.multiply_adds == sum(row.multiply_adds for row in table.rows)
    text = str(table)
    assert "expand3x3" in text and "Conv2d" in text and f"{table.parameters:,}" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_summary_of_one_layer_and_of_what_does_not_fit() -> None:
    assert nn.summary(nn.Linear(3, 2), (3,)).parameters == 8
    [row] = nn.summary(nn.Conv2d(3, 8, 3), (3, 32, 32)).rows
    assert (row.path, row.field, row.output) == ("", (3, 3), (8, 30, 30))
    with pytest.raises(TinynetError):
        nn.summary(fire(), (3, 9, 8))
    with pytest.raises(TinynetError, match="input_size"):
        nn.summary(fire(), ())


def seen_cells(model: nn.Sequential, path: str, size: int, at: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last input row and column on which the unit at that position depends, by its gradient."""
    model.to(dtype=np.float64)
    outputs = {}
    x = np.random.default_rng(0).standard_normal((1, 1, size, size))
    _, saved = model.forward(x, watch=lambda p, layer, y: outputs.__setitem__(p, y))
    seed = np.zeros_like(outputs[path])
    seed[0, :, at[0], at[1]] = 1.0
    dx = model.reverse(
        saved, None, lambda p, layer, kept, s: layer.input_gradient(kept, s), lambda p, layer, s: seed if p == path else s
    )
    rows, columns = np.nonzero(np.abs(dx[0, 0]) > 0)
    return (int(rows.min()), int(rows.max())), (int(columns.min()), int(columns.max()))


def test_receptive_fields_are_what_the_gradient_reaches() -> None:
    def positive(layer: nn.Layer) -> nn.Layer:  # no cancellation: every cell inside the field has a gradient
        layer.weight = np.abs(layer.weight) + 0.1
        return layer

    rng = np.random.default_rng(0)
    model = nn.Sequential(
        positive(nn.Conv2d(1, 2, 3, rng=rng)),
        nn.AvgPool2d(3, 2, 1),
        positive(nn.Conv2d(2, 2, (3, 1), dilation=(2, 1), padding="same", rng=rng)),
        nn.Residual(positive(nn.Conv2d(2, 2, 5, padding=2, rng=rng))),
        nn.AvgPool2d(2),
        positive(nn.Conv2d(2, 1, (2, 3), stride=(1, 2), rng=rng)),
    )
    for path, layer, field in nn.receptive_fields(model):
        assert nn.receptive_field(model, path) == field
        shape = next(row.output for row in nn.summary(model, (1, 64, 64)).rows if row.path == path) if not isinstance(
            layer, nn.Container) else None
        at = (3, 2) if shape is None else (shape[1] // 2, shape[2] // 2)
        expected = [
            (int(start + jump * i), int(start + jump * i + size - 1))
            for start, jump, size, i in zip(field.start, field.jump, field.size, at, strict=True)
        ]
        expected = [(max(first, 0), min(last, 63)) for first, last in expected]
        assert list(seen_cells(model, path, 64, at)) == expected, path


def test_receptive_fields_through_pads_branches_and_a_block_around_nothing() -> None:
    """Every named layer's field, at two positions, is what a change of each input cell reaches."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        pad=nn.Pad((1, 2, 3, 0)), low=nn.Pad((2, 0)), thin=nn.Conv2d(1, 2, (1, 3), padding="valid", rng=rng),
        both=nn.Concat(
            wide=nn.Sequential(
                nn.Conv2d(2, 1, 3, padding=1, rng=rng), nn.Pad((0, 1)), nn.Conv2d(1, 1, (1, 4), rng=rng), nn.Pad((2, 0))),
            high=nn.Conv2d(2, 1, (5, 1), padding=(2, 0), rng=rng), one=nn.Conv2d(2, 1, 1, rng=rng),
        ),
        again=nn.Residual(nn.Sequential(nn.Conv2d(3, 3, (3, 1), (1, 1), (1, 0), rng=rng), nn.Identity())),
        down=nn.Conv2d(3, 1, 2, 2, rng=rng), far=nn.Pad((0, 1, 2, 0)),
        alone=nn.Concat(only=nn.Sequential(nn.Pad((3, 0)), nn.Conv2d(1, 1, (1, 3), padding=(0, 1), rng=rng))),
        round=nn.Residual(nn.Sequential(nn.Pad((-3, 3)), nn.Conv2d(1, 1, 1, rng=rng))),
        other=nn.Residual(nn.Sequential(nn.Pad((2, -2)), nn.Identity()), nn.Sequential(nn.Pad((1, -1)), nn.Identity())),
        up=nn.Upsample(scale_factor=(2, 3)), soft=nn.Softmax(1), last=nn.AvgPool2d((1, 2)),
    )
    for name, weight in model.named_parameters().items():
        weight[...] = np.abs(weight) + 0.1 if name.endswith("weight") else 0
    model.to(dtype=np.float64)
    side = 20
    x = np.concatenate([np.zeros((1, side * side)), np.eye(side * side)]).reshape(-1, 1, side, side)
    outputs: dict[str, np.ndarray] = {}
    model.infer(x, lambda path, layer, y: outputs.__setitem__(path, y))
    paths = [path for path, _, _ in nn.receptive_fields(model)]
    assert "both.wide.2" in paths and "again.0.0" in paths and "alone.only.1" in paths and "" not in paths
    assert len(paths) == len(set(paths)) == len(outputs)
    for path, layer, field in nn.receptive_fields(model):
        if path in ("soft", "last"):                            # of one channel softmax is 1, whatever comes
            assert field is not None and field.size[0] >= nn.receptive_field(model, "up").size[0]  # type: ignore[union-attr]
            continue
        assert field is not None, path
        y = outputs[path].sum(axis=1)
        hole = path == "round"                                  # between what the branch sees and the identity
        exact = not hole and all(float(v).is_integer() for part in field for v in part)
        for at in ((y.shape[1] // 2, y.shape[2] // 2), (y.shape[1] // 2 + 1, y.shape[2] // 2 - 2)):
            seen = (y[(slice(1, None), *at)] != y[(0, *at)]).reshape(side, side)
            for axis, cells in enumerate((np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0)))):
                first = field.start[axis] + field.jump[axis] * at[axis]
                ends = max(first, 0), min(first + field.size[axis] - 1, side - 1)
                assert ends[0] <= cells.min() and cells.max() <= ends[1], (path, layer)
                assert not exact or (cells.min(), cells.max()) == ends, (path, layer)


@pytest.mark.parametrize("layer", [
    nn.Linear(3, 2), nn.Flatten(), nn.AdaptiveAvgPool2d(1), nn.Softmax(2), nn.LogSoftmax(-1),
    nn.Concat(all=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(4, 4))), one=nn.Identity()),
])  # fmt: skip
def test_what_sees_everything(layer: nn.Layer) -> None:
    model = nn.Sequential(conv=nn.Conv2d(1, 1, 3), layer=layer, behind=nn.ReLU())
    assert nn.receptive_field(model, "layer") is None and nn.receptive_field(model, "behind") is None
    assert nn.receptive_field(model, "conv") is not None
    for alike in (nn.Softmax(1), nn.LogSoftmax(1), nn.Dropout(), nn.BatchNorm2d(1)):
        beside = nn.Sequential(conv=nn.Conv2d(1, 1, 3), layer=alike)
        assert nn.receptive_field(beside, "layer") == nn.receptive_field(beside, "conv")


def influence(model: nn.Layer, n: int) -> np.ndarray:
    """(m, n): what cell of the input moves what cell of the output, along one axis of a linear model, by moving each."""
    x = np.concatenate([np.zeros((1, n)), np.eye(n)])[:, None, :]
    y = model(x)[:, 0]
    moved: np.ndarray = (y[1:] != y[:1]).T
    return moved


RESIZINGS = [
    nn.ConvTranspose1d(1, 1, k, s, p, o, dilation=d)
    for k, s, p, o, d in ((2, 2, 0, 0, 1), (3, 2, 1, 1, 1), (4, 2, 1, 0, 1), (4, 3, 0, 0, 1), (5, 3, 2, 2, 1), (3, 2, 0, 0, 3),
                          (1, 1, 0, 0, 1), (1, 2, 0, 0, 1), (2, 3, 0, 1, 1), (5, 1, 2, 0, 1), (6, 4, 1, 2, 1))
] + [
    nn.Upsample(scale_factor=f, mode=mode)
    for f in (1, 2, 3, 4, 1.5, 2.5, 0.5, 0.75, 1 / 3, (2,)) for mode in ("nearest", "nearest-exact", "linear")
]  # fmt: skip


@pytest.mark.parametrize("layer", RESIZINGS, ids=[
    f"{type(r).__name__}-{i}" for i, r in enumerate(RESIZINGS)])
def test_receptive_fields_where_positions_differ(layer: nn.Layer) -> None:
    """No cell outside the field, at no position; and the field touches what is seen at both ends, at some position."""
    if isinstance(layer, nn.ConvTranspose1d):
        layer.weight, layer.bias = np.abs(layer.weight.astype(float)) + 0.1, None
    field = nn.receptive_field(nn.Sequential(layer=layer), "layer", 1)
    assert field is not None
    seen, n = influence(layer, 24), 24
    first = field.start[0] + field.jump[0] * np.arange(len(seen))
    last = first + field.size[0] - 1
    low = np.where(seen.any(axis=1), seen.argmax(axis=1), np.inf)
    high = np.where(seen.any(axis=1), n - 1 - seen[:, ::-1].argmax(axis=1), -np.inf)
    assert (low >= np.maximum(first, 0) - 1e-9).all()
    assert (high <= np.minimum(last, n - 1) + 1e-9).all()
    dilated = getattr(layer, "dilation", (1,)) != (1,) or getattr(layer, "kernel_size", (9,)) < getattr(layer, "stride", (1,))
    inner = (first > 0) & (last < n - 1) & seen.any(axis=1)
    assert dilated or (np.isclose((low - first)[inner].min(), 0) and np.isclose((last - high)[inner].min(), 0))


@pytest.mark.parametrize("layers", [
    [nn.Conv1d(1, 1, 3), nn.ConvTranspose1d(1, 1, 4, 2, 1), nn.Conv1d(1, 1, 3, 2)],
    [nn.Upsample(scale_factor=2, mode="linear"), nn.Conv1d(1, 1, 3), nn.Upsample(scale_factor=1.5), nn.AvgPool1d(3, 2)],
    [nn.Conv1d(1, 1, 3, 2), nn.ConvTranspose1d(1, 1, 5, 3, 2), nn.ConvTranspose1d(1, 1, 2, 3)],
    [nn.Concat(nn.Sequential(nn.Conv1d(1, 1, 2, 2), nn.Upsample(scale_factor=2)), nn.Conv1d(1, 1, 3, padding=1)),
     nn.Conv1d(2, 1, 3)],
])  # fmt: skip
def test_receptive_fields_behind_a_resizing_hold_all_that_is_seen(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(*layers)
    for name, weight in model.named_parameters().items():
        weight[...] = np.abs(weight) + 0.1 if name.endswith("weight") else 0
    model.to(dtype=np.float64)
    field, seen = nn.receptive_field(model, str(len(layers) - 1), 1), influence(model, 24)
    assert field is not None and seen.any()
    for i, row in enumerate(seen):
        cells = np.flatnonzero(row)
        first = field.start[0] + field.jump[0] * i
        assert all(first - 1e-9 <= cell <= first + field.size[0] - 1 + 1e-9 for cell in cells), i


@pytest.mark.parametrize("layer", [
    nn.Upsample(size=9), nn.Upsample(scale_factor=2, mode="linear", align_corners=True),
    nn.Upsample(scale_factor=1.5, recompute_scale_factor=True), nn.Upsample(scale_factor=(1.5,), recompute_scale_factor=True),
])  # fmt: skip
def test_a_resizing_that_depends_on_the_inputs_size_may_see_everything(layer: nn.Layer) -> None:
    assert nn.receptive_field(nn.Sequential(layer=layer), "layer", 1) is None


def test_receptive_fields_of_zfnet() -> None:
    # Zeiler & Fergus, figure 3 and the sizes that follow from it: 7, 11, 27, 43, 75, 107, 139, 171.
    layers = [(7, 2), (3, 2), (5, 2), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
    model = nn.Sequential(
        *(nn.MaxPool2d(k, s) if i in (1, 3, 7) else nn.Conv2d(1, 1, k, s) for i, (k, s) in enumerate(layers))
    )
    assert [field.size[0] for _, _, field in nn.receptive_fields(model)] == [7, 11, 27, 43, 75, 107, 139, 171]


def test_a_linear_layer_sees_everything() -> None:
    model = fire()
    assert nn.receptive_field(model, "head") is None
    with pytest.raises(TinynetError, match="nearest"):
        nn.receptive_field(model, "haed")
