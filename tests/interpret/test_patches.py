"""Patches: what a unit sees is what PyTorch's gradient reaches; projections are cut there and lose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.interpret.nets import NETS, pair, walk_in_torch
from tests.interpret.test_top import photos, same, small
from tests.nn.helpers import randomise
from tinynet import nn
from tinynet.data import ArrayDataset
from tinynet.data.dataset import BrokenPhoto
from tinynet.data.transforms import ToArray
from tinynet.errors import ArgumentError, FileError, ShapeError
from tinynet.interpret import deconvnet, deletion, insertion, saliency
from tinynet.interpret.patches import Window, cut, reduced, seen, unit_patches, window
from tinynet.interpret.top import top_activations
from tinynet.nn.receptive_field import ReceptiveField, receptive_field


def _units(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Channels and positions of a map (C, H, W): the corners, the middle."""
    if len(shape) == 1:
        return [(0,), (shape[0] - 1,)]
    c, h, w = shape
    return [(0, 0, 0), (c - 1, h - 1, w - 1), (c // 2, h // 2, w // 2), (c // 2, 0, w - 1), (0, h - 1, 0)]


def _mask(where: Window, size: tuple[int, ...]) -> np.ndarray:
    inside = np.zeros(size, dtype=bool)
    inside[max(where.top, 0) : where.top + where.height, max(where.left, 0) : where.left + where.width] = True
    return inside


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_a_unit_and_its_projection_stay_inside_its_window(name: str):
    model, module, x = pair(name)
    x = x[:1]
    seen: dict[str, tuple[int, ...]] = {}
    model.infer(x, lambda path, layer, y: seen.__setitem__(path, y.shape[1:]))
    for layer in NETS[name][3]:
        sizes = set()
        for unit in _units(seen[layer]):
            where = window(receptive_field(model, layer), unit[1:], x.shape[2:])
            sizes.add(where[2:])
            outside = ~_mask(where, x.shape[2:])

            def seed(y: torch.Tensor, unit: tuple[int, ...] = unit) -> torch.Tensor:
                signal = torch.zeros_like(y)
                signal[(0, *unit)] = 1
                return signal

            gradient = walk_in_torch(module, x, layer, seed)
            assert not gradient[..., outside].any(), (layer, unit)
            projection = deconvnet(model).attribute(x, layer=layer, unit=unit)
            assert not projection[..., outside].any(), (layer, unit)
        assert len(sizes) == 1, f"{layer}: windows of several sizes, {sizes}"


@given(
    kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    size=st.integers(20, 24), position=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_a_window_is_exact_where_every_weight_counts(kernel: int, stride: int, padding: int, dilation: int, size: int, position):
    """Two convolutions of positive weights: the gradient reaches every cell between the window's borders, at dilation 1."""
    padding = min(padding, kernel // 2)
    model: Any = nn.Sequential(a=nn.Conv2d(3, 2, kernel, stride, padding), b=nn.Conv2d(2, 2, 2, 1, 0, dilation))
    for parameter in model.named_parameters().values():
        parameter[...] = 1
    y, saved = model.forward(np.ones((1, 3, size, size), dtype=np.float32))
    dy = np.zeros_like(y)
    dy[0, 0, position[0], position[1]] = 1
    reached = model.input_gradient(saved, dy)[0, 0] != 0
    where = window(receptive_field(model, "b"), position, (size, size))
    inside = _mask(where, (size, size))
    assert not reached[~inside].any()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert reached[rows[-1], columns[-1]] or where.top + where.height > size or where.left + where.width > size
    assert reached[rows[0], columns[0]] or where.top < 0 or where.left < 0
    if dilation == 1 and stride <= kernel:
        np.testing.assert_array_equal(reached, inside)


@given(
    where=st.builds(Window, st.integers(-9, 12), st.integers(-9, 12), st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_cut_equals_a_piece_of_the_padded_array(where: Window, size: tuple[int, int]):
    x = np.arange(1, 1 + 2 * size[0] * size[1], dtype=np.float32).reshape(2, *size)
    padded = np.pad(x, ((0, 0), (30, 30), (30, 30)))
    expected = padded[:, 30 + where.top : 30 + where.top + where.height, 30 + where.left : 30 + where.left + where.width]
    np.testing.assert_array_equal(cut(x, where), expected)
    assert cut(x, where).dtype == x.dtype


def test_what_sees_everything_gets_the_whole_photo():
    assert window(None, (), (7, 9)) == Window(0, 0, 7, 9)
    assert window(None, (3, 3), (7, 9)) == Window(0, 0, 7, 9)
    field = ReceptiveField((7, 8), (4, 4), (-3, -3))
    assert window(field, (1, 1), (7, 9)) == Window(0, 1, 7, 8)  # as high as the photo, but not as wide
    half = ReceptiveField((4, 4), (0.5, 1), (-1, -1))           # behind an upsampling: 0.5 … 4.5 touches five cells
    assert window(half, (3, 3), (20, 20)) == Window(0, 2, 5, 4)
    with pytest.raises(ShapeError, match=r"expected the input's size \(H, W\)"):
        window(None, (), (3, 7, 9))


@pytest.mark.parametrize("name", NETS)
def test_patches_and_projections_are_those_of_the_top_activations(name: str):
    model, _, x = pair(name)
    dataset = photos(6, x.shape[2:])
    layers = NETS[name][3]
    top = top_activations(model, dataset, layers, k=3, progress=False)
    for layer in layers[::2]:
        field = receptive_field(model, layer)
        for unit in unit_patches(model, dataset, top, layer, [0, 2], control=model, workers=2):
            for rank, (image, place) in enumerate(zip(unit.images.tolist(), unit.positions.tolist(), strict=True)):
                shown = ToArray()(dataset[image][0], np.random.default_rng(0))[None].astype(np.float64)
                where = window(field, place, x.shape[2:])
                np.testing.assert_array_equal(unit.patches[rank], cut(shown[0], where))
                projection = deconvnet(model).attribute(shown, layer=layer, unit=(unit.channel, *place))[0]
                # Over a part of the photo, and with others beside it, sums are taken in another order.
                tolerance = 1e-14 * np.abs(projection).max()
                np.testing.assert_allclose(unit.projections[rank], cut(projection, where), rtol=0, atol=tolerance)
                np.testing.assert_allclose(np.abs(unit.projections[rank]).sum(), np.abs(projection).sum(), rtol=1e-12)
            assert unit.controls is not None
            np.testing.assert_array_equal(unit.controls, unit.projections)       # the control is the model itself here


def test_areas_are_those_of_the_strongest_activation():
    model, _, x = pair("overlapping")
    dataset = photos(6, x.shape[2:])
    top = top_activations(model, dataset, ["relu2"], k=3, progress=False)
    for unit in unit_patches(model, dataset, top, "relu2", [0, 2], steps=4, workers=2):
        shown = ToArray()(dataset[int(unit.images[0])][0], np.random.default_rng(0))[None].astype(np.float64)
        how = {"layer": "relu2", "unit": (unit.channel, *unit.positions[0].tolist())}
        maps = np.abs(deconvnet(model).attribute(shown, **how)).sum(axis=1)
        mask = np.zeros(x.shape[2:], bool)
        where = window(receptive_field(model, "relu2"), unit.positions[0], x.shape[2:])
        mask[max(where.top, 0) : where.top + where.height, max(where.left, 0) : where.left + where.width] = True
        np.testing.assert_array_equal(seen(where, x.shape[2:]), mask)
        assert unit.areas is not None
        for ask, area in ((deletion, unit.areas.deletion), (insertion, unit.areas.insertion)):
            assert area == pytest.approx(ask(model, shown, maps, **how, within=mask, steps=4, workers=1).area[0])
        assert unit.areas[:2] != unit.areas[2:]
    assert unit_patches(model, dataset, top, "relu2", [0])[0].areas is None


def test_the_control_begins_with_the_same_value_at_the_same_place():
    """Where there is neither ReLU nor pool below the unit, the control is the value times the other network's filter."""
    model, other = small(), small(5)
    dataset = photos(6, (9, 10))
    top = top_activations(model, dataset, ["conv1"], k=2, progress=False)
    (unit,) = unit_patches(model, dataset, top, "conv1", [3], control=other)
    filters = other.layer("conv1").weight[3]                    # type: ignore[attr-defined]
    assert unit.controls is not None
    for value, projection in zip(unit.values, unit.controls, strict=True):
        np.testing.assert_allclose(projection, value * filters, rtol=1e-5)


def test_no_bit_depends_on_workers():
    dataset, model = photos(12, (9, 10)), small()
    top = top_activations(model, dataset, k=4, progress=False)
    same(top, top_activations(model, dataset, k=4, workers=2, progress=False))
    one, three = (unit_patches(model, dataset, top, "relu2", workers=workers) for workers in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a.projections, b.projections)
        np.testing.assert_array_equal(a.patches, b.patches)


def test_dead_units_have_empty_projections():
    model: Any = small()
    model.layer("conv1").bias[2] = -1000
    dataset = photos(4, (9, 10))
    top = top_activations(model, dataset, ["relu1"], k=2, progress=False)
    (unit,) = unit_patches(model, dataset, top, "relu1", [2], control=small(1))
    assert not unit.values.any() and not unit.projections.any() and not np.asarray(unit.controls).any()
    assert unit.images.tolist() == [0, 1]


class Counted(ArrayDataset):
    """How often each photo is read; broken from the `broken`th reading on."""

    def __init__(self, photos: ArrayDataset, broken: int = 10**9) -> None:
        super().__init__(photos.images, photos.labels, photos.classes)
        self.read, self.broken = [0] * len(photos), broken

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.read[index] += 1
        if sum(self.read) >= self.broken:
            raise BrokenPhoto("gone")
        return super().__getitem__(index)


def test_every_photo_goes_through_the_model_once():
    model, dataset = small(), Counted(photos(60, (9, 10)))
    top = top_activations(model, dataset, ["relu2"], k=9, progress=False)
    dataset.read = [0] * 60
    unit_patches(model, dataset, top, "relu2", workers=2)
    assert dataset.read == [int(i in top["relu2"].images) for i in range(60)] and sum(dataset.read) > 32
    with pytest.raises(FileError, match=r"photo \d+ was readable when the top activations were found, and is broken now"):
        unit_patches(model, Counted(photos(60, (9, 10)), broken=3), top, "relu2", workers=1)


def test_another_transform_and_another_way_back():
    model, dataset = small(), photos(4, (9, 10))

    def twice(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 2 * ToArray()(image, rng)

    top = top_activations(model, dataset, ["relu2"], k=2, transform=twice, progress=False)
    (unit,) = unit_patches(model, dataset, top, "relu2", [1], transform=twice, method=saliency(model))
    x = twice(dataset[int(unit.images[0])][0], np.random.default_rng(0))[None]
    place = unit.positions[0].tolist()
    where = window(receptive_field(model, "relu2"), place, (9, 10))
    np.testing.assert_array_equal(unit.patches[0], cut(x[0], where))
    gradient = saliency(model).attribute(x, layer="relu2", unit=(1, *place))[0]
    np.testing.assert_allclose(unit.projections[0], unit.values[0] * cut(gradient, where), rtol=1e-4, atol=1e-6)


def test_a_bar_is_shown_at_a_terminal_alone(capsys, monkeypatch):
    model, dataset = small(), photos(3, (9, 10))
    top = top_activations(model, dataset, ["relu1"], progress=False)
    unit_patches(model, dataset, top, "relu1", progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    unit_patches(model, dataset, top, "relu1", progress=True)
    shown = capsys.readouterr().err
    assert "projections of relu1" in shown and "0/3" in shown
    unit_patches(model, dataset, top, "relu1")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (90, 1), (8, 8), (20, 20), (40, 20), (7, 31)])
def test_reduced_keeps_means_and_proportions(size: tuple[int, int]):
    x = np.random.default_rng(0).standard_normal((3, *size)).astype(np.float32)
    y = reduced(x, 10)
    if max(size) <= 10:
        assert y is x
    else:
        assert y.shape == (3, *(max(1, round(side * 10 / max(size))) for side in size)) and y.dtype == np.float32
        times = max(size) // 10
        if all(side % times == 0 for side in size) and max(size) % 10 == 0:      # means of squares
            expected = x.reshape(3, size[0] // times, times, size[1] // times, times).mean(axis=(2, 4))
            np.testing.assert_allclose(y, expected, atol=1e-6)
    assert reduced(x, None) is x


def test_says_what_is_wrong():
    dataset, model = photos(3, (9, 10)), small()
    top = top_activations(model, dataset, ["relu1"], progress=False)
    with pytest.raises(ArgumentError, match="layer 'relu1' has channels 0 to 4, got 5"):
        unit_patches(model, dataset, top, "relu1", [5])
    with pytest.raises(ArgumentError, match="channels 0 to 4, got -1"):
        unit_patches(model, dataset, top, "relu1", [0, -1])
    with pytest.raises(ArgumentError, match="channels 0 to 4, got True"):
        unit_patches(model, dataset, top, "relu1", [True])
    with pytest.raises(ArgumentError, match="no top activations of layer 'relu2'"):
        unit_patches(model, dataset, top, "relu2")


def test_randomised_nets_keep_their_windows():
    """A dilated, strided net with padding and a Concat of branches that see differently much."""
    branches = nn.Concat(a=nn.Conv2d(4, 3, 1), b=nn.Sequential(c=nn.Conv2d(4, 3, 3, padding=2, dilation=2), d=nn.ReLU()))
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 4, 3, 2, 1), relu=nn.ReLU(), both=branches), 0)
    assert window(receptive_field(model, "both.a"), (2, 3), (30, 30)) == Window(3, 5, 3, 3)
    assert window(receptive_field(model, "both"), (2, 3), (30, 30)) == Window(-1, 1, 11, 11)


@pytest.mark.parametrize("where", [
    Window(0, 0, 3, 4), Window(-2, -1, 4, 3), Window(3, 5, 9, 9), Window(-9, 2, 4, 2), Window(1, -5, 2, 5), Window(2, 3, 1, 1),
])  # fmt: skip
def test_a_window_as_a_mask(where: Window):
    top, left, height, width = where
    expected = [[top <= y < top + height and left <= x < left + width for x in range(8)] for y in range(6)]
    np.testing.assert_array_equal(seen(where, (6, 8)), expected)
