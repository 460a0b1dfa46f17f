"""Walks from many units over parts of photos give what each gives alone over the whole photo, in whatever batches they go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checking import values
from tests.interpret.nets import NETS, pair
from tests.nn.helpers import randomise
from tinynet import nn
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError
from tinynet.interpret import deconvnet, guided_backprop, saliency, unit_walks
from tinynet.interpret.attribution import Attribution
from tinynet.interpret.patches import seen, unit_walk, window
from tinynet.interpret.unit_walks import Photo, UnitWalks
from tinynet.interpret.units import record, select
from tinynet.nn.receptive_field import receptive_field
from tinynet.nn.split import below


@pytest.fixture(autouse=True)
def parts_wherever_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_walks, "_MOST", 1.0)


def units_of(model: nn.Layer, layer: str, x: np.ndarray) -> list[tuple[int, ...]]:
    """Channels and positions: corners, borders and others."""
    size: list[tuple[int, ...]] = []
    model.infer(x[:1], lambda path, _, y: size.append(y.shape[1:]) if path == layer else None)      # type: ignore[call-arg]
    c, *spatial = size[0]
    if not spatial:
        return [(0,), (c - 1,)]
    h, w = spatial
    places = {(0, 0), (h - 1, w - 1), (h // 2, w // 2), (0, w - 1), (h - 1, w // 3), (h // 3, 0)}
    return [(i % c, *place) for i, place in enumerate(sorted(places))]


def check(model: nn.Layer, layer: str, xs: list[np.ndarray], ways: list[Attribution]) -> int:
    """How many of the pictures are of parts."""
    field, small = receptive_field(model, layer), 0
    units = units_of(model, layer, xs[0])
    photos = [Photo(i, x, [unit_walk(channel, list(place), field, x) for channel, *place in units]) for i, x in enumerate(xs)]
    with Shards(2) as shards:
        (given,) = UnitWalks(ways, layer).run([photos], shards, lambda found: found)
    assert len(given) == sum(len(photo.walks) for photo in photos)
    met: set[tuple[int, int]] = set()
    for photo, walk, rows, columns, pictures in given:
        x, unit = photo.x, photo.walks[walk].unit
        met.add((photo.name, walk))
        inside = np.zeros(x.shape[2:], bool)
        inside[rows, columns] = True
        small += not inside.all()
        for way, picture in zip(ways, pictures, strict=True):
            taken = record(way.model, x, layer)                 # the whole photo, and all layers, for this unit alone
            whole = way.back(taken, taken.output * select(taken, None, unit))[0]
            most = np.abs(whole).max()
            np.testing.assert_allclose(picture, whole[:, rows, columns], rtol=0, atol=1e-13 * most, err_msg=f"{layer} {unit}")
            assert not whole[:, ~inside].any()
    assert len(met) == len(given)
    return small


@pytest.mark.parametrize("name", NETS)
def test_parts_give_what_whole_photos_give(name: str) -> None:
    model, _, _ = pair(name)
    ways: list[Attribution] = [deconvnet(model), saliency(model), guided_backprop(model)]
    size = {"overlapping": (61, 50), "squeeze": (96, 83), "residual": (47, 58), "mixed": (19, 20)}[name]
    xs = [values(i, (1, 3, *size)) for i in range(2)]
    small = {layer: check(model, layer, xs, ways) for layer in NETS[name][3]}
    first = NETS[name][3][0]
    assert name == "mixed" or (small[first] > 0 and sum(count > 0 for count in small.values()) >= len(small) // 2), small


def of(*layers: nn.Layer) -> tuple[nn.Sequential, str]:
    """A network with drawn weights that ends in a ReLU, and the path of that."""
    return randomise(nn.Sequential(*layers, nn.ReLU()), 0), str(len(layers))


class Twice(nn.Sequential):
    """A container with walks of its own."""

    def walk(self, x, *how):                                    # type: ignore[no-untyped-def]
        return super().walk(2 * x, *how)

    def infer(self, x, *how):                                   # type: ignore[no-untyped-def]
        return super().infer(2 * x, *how)


@pytest.mark.parametrize("size", [(30, 30), (27, 20), (9, 9)])
@pytest.mark.parametrize(("model", "layer"), [
    of(nn.MaxPool2d(4, 1, 1, dilation=2), nn.Upsample(scale_factor=1 / 3), nn.Conv2d(3, 3, 1, padding=1)),
    of(nn.Upsample(scale_factor=0.5), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 3, 1)),
    of(nn.Conv2d(3, 4, 3, 2, padding=1), nn.ConvTranspose2d(4, 4, 1, 2, padding=3), nn.Conv2d(4, 4, 3, padding=1)),
    of(nn.AvgPool2d(1, 2, ceil_mode=True), nn.ConvTranspose2d(3, 3, 3, 1, padding=3), nn.Conv2d(3, 3, 3, padding=2)),
    of(nn.MaxPool2d(1, 3), nn.ConvTranspose2d(3, 3, 2, 3, padding=2, dilation=2), nn.Conv2d(3, 3, 1, padding=1)),
    of(Twice(nn.Conv2d(3, 3, 3)), nn.Conv2d(3, 3, 3)),
])
def test_what_a_part_would_change_goes_over_the_whole_photo(model: nn.Sequential, layer: str, size: tuple[int, int]) -> None:
    assert check(model, layer, [values(0, (1, 3, *size))], [deconvnet(model), saliency(model)]) == 0


@pytest.mark.parametrize("how", [{"kernel_size": 4, "padding": 1}, {"kernel_size": 3, "padding": 1, "output_padding": 1},
                                 {"kernel_size": 2}, {"kernel_size": 3, "padding": 1}])
def test_a_transposed_convolution_that_doubles_a_map_has_parts(how: dict[str, int]) -> None:
    model, layer = of(nn.MaxPool2d(2), nn.ConvTranspose2d(3, 3, stride=2, **how), nn.Conv2d(3, 3, 3, padding=1))
    assert check(model, layer, [values(0, (1, 3, 30, 34))], [deconvnet(model)]) > 0


def test_branches_of_different_strides_that_fit_one_size_go_over_the_whole_photo() -> None:
    model, layer = of(nn.Residual(a=nn.Conv2d(3, 3, 1, 2), b=nn.Conv2d(3, 3, 5)), nn.Conv2d(3, 3, 1))
    assert receptive_field(model, layer) is None
    assert check(model, layer, [values(0, (1, 3, 9, 9))], [saliency(model)]) == 0


def test_the_largest_of_overlapping_windows_needs_the_whole_photo() -> None:
    """A 0 from a window beyond the part may be the largest in a cell."""
    for layers in ([nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 4, 3)], [nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 4, 3)]):
        model, layer = of(*layers)
        x = [values(0, (1, 3, 30, 30))]
        assert check(model, layer, x, [deconvnet(model, overlap="max")]) == 0
        assert check(model, layer, x, [deconvnet(model)]) > 0


def test_ways_that_need_different_parts_go_over_the_whole_photo() -> None:
    """The second computes statistics of its batch: no image of it is alone."""
    fixed, _ = of(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    moving, layer = of(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))
    assert check(fixed, layer, [values(0, (1, 3, 24, 24))], [saliency(fixed)]) > 0
    for ways in ([saliency(fixed), saliency(moving)], [saliency(fixed), deconvnet(fixed, overlap="max")]):
        assert UnitWalks(ways, layer).grid is None


def test_a_silent_unit_has_an_empty_picture_also_where_a_slope_is_infinite() -> None:
    class Steep(saliency):
        def step(self, path, layer, saved, signal):             # type: ignore[no-untyped-def]
            with np.errstate(invalid="ignore"):
                return super().step(path, layer, saved, signal) * np.inf

    model, layer = of(nn.Conv2d(3, 4, 3))
    x = values(0, (1, 3, 20, 20))
    y = record(model, x, layer).output[0]
    silent = tuple(np.argwhere(y == 0)[0].tolist())
    photo = Photo(0, x, [unit_walk(silent[0], list(silent[1:]), receptive_field(model, layer), x)])
    with Shards(1) as shards:
        ((found,),) = UnitWalks([Steep(model)], layer).run([[photo]], shards, lambda found: found)
    assert not found.pictures[0].any()


@settings(deadline=None, max_examples=60)
@given(
    layers=st.lists(st.sampled_from([
        "conv", "strided", "dilated", "same", "pool", "ceil", "overlapping", "mean", "pad", "norm", "up", "across", "residual",
        "concat",
    ]), min_size=1, max_size=4),
    size=st.tuples(st.integers(17, 40), st.integers(17, 40)), seed=st.integers(0, 99),
)  # fmt: skip
def test_drawn_nets_and_sizes(layers: list[str], size: tuple[int, int], seed: int) -> None:
    made: dict[str, Any] = {
        "conv": lambda: nn.Conv2d(3, 3, 3, padding=1), "strided": lambda: nn.Conv2d(3, 3, 3, 2),
        "dilated": lambda: nn.Conv2d(3, 3, 2, 1, 2, 3), "same": lambda: nn.Conv2d(3, 3, 4, padding="same"),
        "pool": lambda: nn.MaxPool2d(2), "ceil": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        "overlapping": lambda: nn.MaxPool2d(3, 1, 1), "mean": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        "pad": lambda: nn.Pad((2, 0, 1, 3), "constant", 0.5), "norm": lambda: nn.BatchNorm2d(3),
        "up": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        "across": lambda: nn.ConvTranspose2d(3, 3, 3, 2, 1),
        "residual": lambda: nn.Residual(a=nn.Conv2d(3, 3, 3, 2, 1), b=nn.Conv2d(3, 3, 1, 2)),
        "concat": lambda: nn.Sequential(both=nn.Concat(a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 1, 5, padding=2))),
    }
    named = {f"{i}{kind}": nn.Sequential(first=made[kind](), relu=nn.ReLU()) for i, kind in enumerate(layers)}
    model = randomise(nn.Sequential(**named), seed)
    check(model, list(named)[-1], [values(seed, (1, 3, *size))], [deconvnet(model), saliency(model)])


class Mean(nn.Layer):
    """Each map less its mean: what no window holds."""

    def forward(self, x: Any, train: bool = False, rng: Any = None) -> tuple[Any, nn.Nothing]:
        return x - x.mean(axis=(0, 2, 3), keepdims=True), nn.Nothing()

    def input_gradient(self, saved: nn.Nothing, dy: Any) -> Any:
        return dy - dy.mean(axis=(0, 2, 3), keepdims=True)


@pytest.mark.parametrize("odd", [
    Mean(), nn.BatchNorm2d(4, track_running_stats=False), nn.Pad((3, 3, 3, 3), "reflect"), nn.Pad((-1, -2, 0, 1)),
])  # fmt: skip
def test_what_is_not_known_to_be_local_goes_over_the_whole_photo_and_alone(odd: nn.Layer) -> None:
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 4, 3, padding=1), odd=odd, relu=nn.ReLU(), pool=nn.MaxPool2d(2)), 0)
    x = values(1, (1, 3, 24, 25))
    walks = [unit_walk(unit[0], list(unit[1:]), None, x) for unit in units_of(model, "pool", x)]
    with Shards(1) as shards:
        (given,) = UnitWalks([saliency(model)], "pool").run([[Photo(0, x, walks)]], shards, lambda found: found)
    y = model(x)
    for _, walk, rows, columns, (picture,) in given:
        whole = saliency(model).attribute(x, layer="pool", unit=walks[walk].unit)[0] * y[(0, *walks[walk].unit)]
        assert (rows, columns) == (slice(0, 24), slice(0, 25))
        np.testing.assert_allclose(picture, whole, atol=1e-13 * np.abs(whole).max())


@pytest.mark.parametrize("fit", [0, 1, 4, 9])
def test_walks_that_go_together_take_no_more_than_the_bound(fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = pair("overlapping")
    xs, sizes, plain = [values(i, (1, 3, 61, 50)) for i in range(3)], [], Attribution.back
    walk = unit_walk(0, [3, 3], receptive_field(model, "relu1"), xs[0])
    part = UnitWalks([deconvnet(model)], "relu1")._batch([(Photo(0, xs[0], [walk]), [0])]).parts[0]
    cells: list[int] = [8]
    below(model, "relu1").infer(                                # type: ignore[call-arg]
        xs[0][..., part.rows, part.columns], lambda path, _, y: cells.append(y.nbytes))
    monkeypatch.setattr(unit_walks, "CPU_BYTES", fit * sum(cells))
    monkeypatch.setattr(Attribution, "back", lambda self, taken, signal, keep=True: (
        sizes.append(len(signal)) if self.model is not model else None, plain(self, taken, signal, keep))[1])
    check(model, "relu1", xs, [deconvnet(model)])
    assert sorted(sizes) == {0: [1] * 18, 1: [1] * 18, 4: [2] * 3 + [4] * 3, 9: [6] * 3}[fit]
    sizes.clear()
    monkeypatch.setattr(unit_walks, "PICTURE_BYTES", max(1, fit) * xs[0].nbytes + 1)    # a photo of more walks goes up again
    check(model, "relu1", xs, [deconvnet(model)])
    assert sorted(sizes) == {0: [1] * 18, 1: [1] * 18, 4: [2] * 3 + [4] * 3, 9: [6] * 3}[fit]


def test_a_network_up_to_a_layer() -> None:
    """Only what the layer is computed by, by the same paths and the same layers."""
    model = pair("residual")[0]
    for layer, paths in {
        "pool": ["conv1", "relu", "pool"], "block1.conv1": ["conv1", "relu", "pool", "block1.conv1"],
        "block2.downsample.0": [
            "conv1", "relu", "pool", "block1.conv1", "block1.bn1", "block1.relu", "block1.conv2", "block1.bn2", "relu1",
            "block2.downsample.0",
        ],
    }.items():
        lower = below(model, layer)
        leaves = {path: leaf for path, leaf in lower.layers() if not isinstance(leaf, nn.Container)}
        assert list(leaves) == paths
        assert all(model.layer(path) is leaf for path, leaf in leaves.items())
        x, found = values(0, (2, 3, 15, 18)), []
        model.infer(x, lambda path, _, y, layer=layer, found=found: found.append(y) if path == layer else None)  # type: ignore[call-arg]
        np.testing.assert_allclose(lower(x), found[0], rtol=1e-12)
    assert [path for path, _ in below(model, "block1").layers()][-1].startswith("block1.")
    with pytest.raises(ArgumentError, match="no layer 'block3'"):
        below(model, "block3")


def test_a_unit_that_sees_nothing_but_padding() -> None:
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 2, 2, padding=4), relu=nn.ReLU()), 0)
    assert not seen(window(receptive_field(model, "relu"), (0, 0), (30, 30)), (30, 30)).any()
    check(model, "relu", [values(0, (1, 3, 30, 30))], [deconvnet(model)])
