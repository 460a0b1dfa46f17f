"""What an answer depends on: networks whose answer reads one pixel, and one map."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checking import Backend, values
from tests.interpret.nets import pair
from tests.nn.helpers import place, randomise
from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError
from tinynet.interpret import deletion, insertion, receptive_field
from tinynet.interpret.deletion import class_areas, unit_areas
from tinynet.interpret.patches import seen, window
from tinynet.interpret.scores import blur
from tinynet.interpret.units import record


def pixel_reader(backend: Backend) -> nn.Layer:
    """Logits (v, 0), with v four times the value of the pixel (1, 2) of the first channel, of photos 3×3×4."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, dtype=np.float64))
    model[1].weight[...] = 0
    model[1].bias[...] = 0
    model[1].weight[0, 1 * 4 + 2] = 4
    return place(model, backend)


def sigmoid(v: float) -> float:
    return 1 / (1 + np.exp(-v))


def test_deletion_and_insertion_of_a_known_pixel(backend: Backend) -> None:
    model, x = pixel_reader(backend), np.ones((2, 3, 3, 4))
    x[1] = 0.5
    best, worst = np.zeros((3, 4)), np.ones((3, 4))
    best[1, 2], worst[1, 2] = 1, 0
    first = deletion(model, backend.array(x), backend.array(np.stack([best, worst])), 0, steps=12, batch_size=5)
    np.testing.assert_allclose(first.shares, np.arange(13) / 12)
    np.testing.assert_allclose(first.answers[0], [sigmoid(4), *[0.5] * 12])   # gone with the first pixel
    np.testing.assert_allclose(first.answers[1], [*[sigmoid(2)] * 12, 0.5])   # with the last
    np.testing.assert_allclose(first.area[0], (0.5 * (sigmoid(4) + 0.5) + 11 * 0.5) / 12)
    back = insertion(model, backend.array(x), backend.array(np.stack([best, worst])), 0, steps=12, baseline="mean")
    np.testing.assert_allclose(back.answers[0], [0.5, *[sigmoid(4)] * 12])
    np.testing.assert_allclose(back.answers[1], [*[0.5] * 12, sigmoid(2)])
    blurred = insertion(model, backend.array(x), backend.array(np.stack([best, worst])), 0, steps=12)
    np.testing.assert_allclose(blurred.answers, [[sigmoid(4)] * 13, [sigmoid(2)] * 13])   # an even photo stays so


def test_targets_steps_and_ties_of_the_curves() -> None:
    model, x = pixel_reader(Backend("numpy", np)), -np.ones((2, 3, 3, 4))
    flat = np.zeros((2, 3, 4))
    said = deletion(model, x, flat, steps=3)             # the model says class 1
    np.testing.assert_allclose(said.shares, np.arange(4) / 3)
    np.testing.assert_allclose(said.answers[:, 0], sigmoid(4))
    each = deletion(model, x, flat, [0, 1], steps=99)
    assert each.answers.shape == (2, 13)
    np.testing.assert_allclose(each.answers[:, 0], [sigmoid(-4), sigmoid(4)])
    gone = [int((curve < 0.9).argmax()) for curve in said.answers]
    assert gone[0] == gone[1], "ties go in the same order"
    rising = deletion(model, x[:1], np.arange(12.0).reshape(1, 3, 4), 1, steps=12).answers[0]
    np.testing.assert_allclose(rising, [*[sigmoid(4)] * 6, *[0.5] * 7])     # pixel 6 is the sixth from the last


def test_what_the_curves_refuse() -> None:
    model, x = pixel_reader(Backend("numpy", np)), np.ones((1, 3, 3, 4))
    with pytest.raises(ShapeError, match=r"expected maps \(1, 3, 4\)"):
        deletion(model, x, np.ones((1, 4, 3)))
    with pytest.raises(ArgumentError, match="at least 1"):
        deletion(model, x, np.ones((1, 3, 4)), steps=0)
    with pytest.raises(ArgumentError, match="at least 1"):
        insertion(model, x, np.ones((1, 3, 4)), batch_size=0)
    with pytest.raises(ArgumentError, match='"mean" or "blur"'):
        insertion(model, x, np.ones((1, 3, 4)), baseline="noise")
    with pytest.raises(ShapeError, match=r"\(N, classes\)"):
        deletion(nn.Sequential(nn.ReLU()), x, np.ones((1, 3, 4)))


def test_the_blurred_baseline_is_of_a_tenth_of_the_shorter_side() -> None:
    model = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(3 * 20 * 30, 2, rng=np.random.default_rng(0)))
    x, maps = values(0, (1, 3, 20, 30)).astype(np.float32), np.zeros((1, 20, 30))
    come = insertion(model, x, maps, 1, steps=2)
    gone = deletion(model, x, maps, 1, steps=2, baseline="blur")
    for curve, first, last in ((come, blur(x, 2), x), (gone, x, blur(x, 2))):
        for at, shown in ((0, first), (2, last)):
            logits = model(shown)[0].astype(np.float64)
            assert curve.answers[0, at] == pytest.approx(1 / (1 + np.exp(logits[0] - logits[1])), abs=1e-6)
    assert come.answers[0, 0] != pytest.approx(come.answers[0, 2], abs=1e-3)


def test_the_areas_of_a_class_are_those_of_the_curves() -> None:
    model, _, x = pair("overlapping")
    maps = values(0, (3, *x.shape[2:]))
    gone, come = class_areas(model, x[:1], maps, 2, 6)
    for found, ask in ((gone, deletion), (come, insertion)):
        np.testing.assert_allclose(found, ask(model, x[:1], maps, 2, steps=6, spacing="cosine").area, rtol=0, atol=1e-12)
    assert len({*gone.tolist(), *come.tolist()}) == 6


def test_one_step_and_one_photo_at_a_time() -> None:
    model, x = pixel_reader(Backend("numpy", np)), np.ones((2, 3, 3, 4))
    maps = values(0, (2, 3, 4))
    np.testing.assert_allclose(deletion(model, x, maps, 0, steps=1).shares, [0, 1])
    whole = deletion(model, x, maps, 0, steps=7)
    for batch_size in (1, 3, 16):
        np.testing.assert_allclose(deletion(model, x, maps, 0, steps=7, batch_size=batch_size).answers, whole.answers)


# Of a unit inside.


def middle_reader() -> nn.Sequential:
    """Its map is 2·x at each pixel of channel 0, averaged over 3×3: unit (0, y, x) depends on nine pixels, alike."""
    conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    conv.weight = np.stack([np.full((1, 3, 3), 2 / 9), np.full((1, 3, 3), -1.0)])
    return nn.Sequential(conv=conv, relu=nn.ReLU())


def test_a_units_activation_as_a_share_of_its_own(backend: Backend) -> None:
    model = place(middle_reader(), backend)
    x = backend.array(np.ones((2, 1, 7, 8)) * np.array([1, 5])[:, None, None, None])
    maps = np.zeros((2, 7, 8))
    maps[:, 2:5, 3:6] = 1                                       # what unit (0, 3, 4) sees
    maps = backend.array(maps)
    found = deletion(model, x, maps, layer="relu", unit=(0, 3, 4), steps=56)
    np.testing.assert_allclose(found.answers, [[*np.linspace(1, 0, 10), *[0] * 47]] * 2, atol=1e-12)
    wrong = deletion(model, x, -maps, layer="relu", unit=(0, 3, 4), steps=56)
    np.testing.assert_allclose(wrong.answers, [[*[1] * 47, *np.linspace(1, 0, 10)]] * 2, atol=1e-12)
    come = insertion(model, x, maps, layer="relu", unit=(0, 3, 4), steps=56, baseline="mean")
    np.testing.assert_allclose(come.answers, 1 - found.answers, atol=1e-12)


def test_pixels_outside_have_no_part() -> None:
    model, x = middle_reader(), values(0, (1, 1, 7, 8)) ** 2
    within = np.zeros((7, 8), bool)
    within[2:5, 3:6] = True
    maps = values(1, (1, 7, 8))
    found = deletion(model, x, maps, layer="relu", unit=(0, 3, 4), within=within, steps=9)
    np.testing.assert_allclose(found.shares, np.arange(10) / 9)
    order = np.argsort(-maps[0][within])
    left = 1 - np.cumsum([0, *x[0, 0][within][order]]) / x[0, 0][within].sum()
    np.testing.assert_allclose(found.answers[0], left, atol=1e-12)
    come = insertion(model, x, maps, layer="relu", unit=(0, 3, 4), within=within, steps=9, baseline="mean")
    np.testing.assert_allclose(come.answers[0], 1 - left, atol=1e-12)


def test_the_strongest_place_in_the_whole_photo_stays_in_question() -> None:
    model, _, x = pair("overlapping")
    y = record(model, x, "relu2").output[:, 1]
    at = [np.unravel_index(v.argmax(), v.shape) for v in y]
    maps = values(3, (len(x), *x.shape[2:]))
    found = deletion(model, x, maps, layer="relu2", unit=(1, "max"), steps=5, batch_size=4, workers=2)
    for i, (row, column) in enumerate(at):
        one = deletion(model, x[i : i + 1], maps[i : i + 1], layer="relu2", unit=(1, int(row), int(column)), steps=5, workers=1)
        np.testing.assert_allclose(found.answers[i], one.answers[0], atol=1e-12)
        assert found.answers[i, 0] == pytest.approx(1)


def test_a_silent_unit_has_a_share_of_nothing() -> None:
    found = deletion(middle_reader(), np.ones((1, 1, 4, 4)), np.zeros((1, 4, 4)), layer="relu", unit=(1, "max"), steps=3)
    assert not found.answers.any() and found.area == 0


def strided() -> nn.Sequential:
    """Strides of 2 and 3, paddings, a rounding up, dilation, branches of different fields: field 41, start −12, jump 6."""
    return randomise(nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, 2, 1), relu1=nn.ReLU(), lrn=nn.LocalResponseNorm(3),
        branches=nn.Concat(_a=nn.Sequential(wide=nn.Conv2d(4, 3, 5, padding=2), relu=nn.ReLU()),
                           _b=nn.Sequential(pool=nn.MaxPool2d(3, 1, 1))),
        pool1=nn.MaxPool2d(4, 3, 1, ceil_mode=True),
        block=nn.Residual(_body=nn.Sequential(conv2=nn.Conv2d(7, 7, 3, padding=2, dilation=2), relu2=nn.ReLU())),
        mean=nn.AvgPool2d(2, 1, 1, count_include_pad=False),
    ))  # type: ignore[return-value]


@pytest.mark.parametrize("size", [(97, 80), (41, 90), (64, 43)])
@pytest.mark.parametrize("layer", ["relu1", "branches.wide", "pool1", "block.conv2", "block", "mean"])
def test_a_units_areas_are_those_of_the_whole_photo(layer: str, size: tuple[int, int]) -> None:
    model, x = strided(), values(0, (1, 3, *size))
    y = record(model, x, layer).output[0]
    field, map = receptive_field(model, layer), values(1, (1, *size))
    _, h, w = y.shape
    for at in ((0, 0), (h // 2, w // 3), (h // 3, w - 1), (h - 1, w // 2)):
        channel = int(y[:, at[0], at[1]].argmax())
        within = seen(window(field, at, size), size)
        for workers in (1, 2):
            found = unit_areas(model, x, map, layer, (channel, *at), within, 5, workers)
            how = {"layer": layer, "unit": (channel, *at), "within": within, "steps": 5}
            random = np.random.default_rng(0).random(map.shape)
            expected = [ask(model, x, m, **how).area[0] for m in (map, random) for ask in (deletion, insertion)]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
            assert y[channel, at[0], at[1]] <= 0 or len({*found}) > 2


def test_a_unit_that_sees_little_beside_padding_has_a_part_that_every_window_fits() -> None:
    model = randomise(nn.Sequential(mean=nn.AvgPool2d(3, 3), conv=nn.Conv2d(3, 3, 2, (3, 1), (4, 3), (2, 1)), relu=nn.ReLU()))
    size, asked = (30, 35), 0
    x, map = values(0, (1, 3, *size)), values(1, (1, *size))
    for unit in np.argwhere(record(model, x, "relu").output[0] > 0).tolist():
        within = seen(window(receptive_field(model, "relu"), unit[1:], size), size)
        if within.any():
            how = {"layer": "relu", "unit": tuple(unit), "within": within, "steps": 3}
            expected = [ask(model, x, map, **how).area[0] for ask in (deletion, insertion)]
            np.testing.assert_allclose(unit_areas(model, x, map, "relu", tuple(unit), within, 3, 1)[:2], expected, atol=1e-10)
            asked += 1
    assert asked > 20


def test_only_the_part_that_the_unit_sees_is_computed() -> None:
    model, x, sizes = strided(), values(0, (1, 3, 97, 300)), set()
    walk = model["conv1"].infer                                 # type: ignore[index]
    model["conv1"].infer = lambda x, *how: sizes.add(x.shape[2:]) or walk(x, *how)      # type: ignore[index, method-assign]
    at = (8, 20)
    where = window(receptive_field(model, "mean"), at, (97, 300))
    channel = int(record(model, x, "mean").output[0, :, 8, 20].argmax())
    sizes.clear()
    unit_areas(model, x, values(1, (1, 97, 300)), "mean", (channel, *at), seen(where, (97, 300)), 3, 1)
    assert sizes and max(height for height, _ in sizes) < 60 and max(width for _, width in sizes) < 60


@pytest.mark.parametrize("up", [nn.Upsample(scale_factor=1.5), nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 4, 4, 3)])
def test_behind_what_makes_maps_larger(up: nn.Layer) -> None:
    """Windows begin at fractions of a stride, or the last stride is no multiple of those before it."""
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 4, 3, 2, 1), up=up, last=nn.Conv2d(4, 5, 3, 3)))
    x, map = values(0, (1, 3, 60, 50)), values(1, (1, 60, 50))
    y = record(model, x, "last").output[0]
    for at in ((5, 3), (10, 7), (13, 11)):
        channel = int(y[:, at[0], at[1]].argmax())
        within = seen(window(receptive_field(model, "last"), at, (60, 50)), (60, 50))
        found = unit_areas(model, x, map, "last", (channel, *at), within, 5)
        expected = deletion(model, x, map, layer="last", unit=(channel, *at), within=within, steps=5).area[0]
        assert found.deletion == pytest.approx(expected, abs=1e-10)


def test_what_units_and_within_refuse() -> None:
    model, x, maps = middle_reader(), np.ones((1, 1, 4, 4)), np.zeros((1, 4, 4))
    with pytest.raises(ArgumentError, match="a unit needs the layer"):
        deletion(model, x, maps, unit=(0, "max"))
    with pytest.raises(ArgumentError, match="not both"):
        insertion(model, x, maps, 1, layer="relu", unit=0)
    with pytest.raises(ArgumentError, match="no layer 'rely'; nearest: relu"):
        deletion(model, x, maps, layer="rely", unit=0)
    for within in (np.ones((4, 5)), np.zeros((4, 4))):
        with pytest.raises(ShapeError, match=r"expected within \(4, 4\) with at least one pixel, got"):
            deletion(model, x, maps, layer="relu", unit=0, within=within)


def test_a_softmax_at_the_end_is_taken_once() -> None:
    model, x, maps = pixel_reader(Backend("numpy", np)), np.ones((1, 3, 3, 4)), np.zeros((1, 3, 4))
    whole = nn.Sequential(net=model, prob=nn.Softmax(1))
    for curve in (deletion, insertion):
        np.testing.assert_array_equal(curve(whole, x, maps, 0).answers, curve(model, x, maps, 0).answers)
    units = [deletion(m, x, maps, layer=f"{path}1", unit=0).answers for m, path in ((whole, "net."), (model, ""))]
    np.testing.assert_array_equal(*units)
