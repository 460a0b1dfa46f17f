"""Occlusion against a loop of plain calls, and against Captum where both cover the same squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.checking import Backend
from tests.nn.helpers import place, randomise
from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError
from tinynet.functional import softmax
from tinynet.interpret import touched
from tinynet.interpret.occlusion import covered, occlusion, plot_occlusion


def net() -> nn.Sequential:
    """A small net for photos of any size."""
    return randomise(nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(4, 5, 3, padding=1), relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(5, 3),
    ), seed=3)  # type: ignore[return-value]


def image(height: int = 13, width: int = 17) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((3, height, width))


@pytest.mark.parametrize(("patch", "stride"), [(4, 2), ((3, 6), (2, 5)), (5, 5), (13, 1), (1, 1)])
def test_every_position_is_what_a_plain_call_gives(patch: int | tuple[int, int], stride: int | tuple[int, int]) -> None:
    model, x = net(), image()
    result = occlusion(model, x, 1, patch=patch, stride=stride, batch_size=7, workers=2)
    ph, pw = result.patch
    relu2 = []
    for r, top in enumerate(result.tops):
        for c, left in enumerate(result.lefts):
            covered = x.copy()
            covered[:, top : top + ph, left : left + pw] = 0
            logits, _ = model.forward(covered[None], watch=lambda path, _, y: relu2.append(y[0]) if path == "relu2" else None)
            np.testing.assert_allclose(result.logits[r, c], logits[0], rtol=0, atol=1e-12)
            np.testing.assert_allclose(result.probability[r, c], softmax(logits, 1)[0, 1], rtol=0, atol=1e-12)
            assert result.predicted[r, c] == logits[0].argmax()
            np.testing.assert_allclose(result.activation[r, c], relu2[-1][result.channel].sum(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.whole_logits, model(x[None])[0], rtol=0, atol=1e-12)
    whole = []
    model.forward(x[None], watch=lambda path, _, y: whole.append(y[0]) if path == "relu2" else None)
    assert result.layer == "relu2"
    assert result.channel == whole[0].max(axis=(1, 2)).argmax()


@pytest.mark.parametrize(
    ("size", "patch", "stride"), [((13, 17), 4, 3), ((10, 10), 4, 4), ((9, 30), (2, 7), (2, 6)), ((8, 8), 8, 3)]
)
def test_every_pixel_is_covered_and_no_square_leaves_the_photo(
    size: tuple[int, int], patch: int | tuple[int, int], stride: int | tuple[int, int]
) -> None:
    result = occlusion(net(), image(*size), patch=patch, stride=stride)
    times = np.zeros(size, int)
    for top in result.tops:
        for left in result.lefts:
            assert 0 <= top <= size[0] - result.patch[0]
            assert 0 <= left <= size[1] - result.patch[1]
            times[top : top + result.patch[0], left : left + result.patch[1]] += 1
    assert times.min() >= 1
    assert len(set(result.tops)) == len(result.tops)
    assert (np.diff(result.tops)[:-1] == result.stride[0]).all()


@pytest.mark.parametrize(("size", "patch", "stride"), [((12, 16), (4, 6), (2, 5)), ((9, 12), 3, 3), ((8, 8), 8, 1)])
def test_equals_captum(size: tuple[int, int], patch: int | tuple[int, int], stride: int | tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")
    model, x = net(), image(*size)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 5, 3, padding=1),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 3),
    ).double().eval()
    module.load_state_dict(dict(zip(module.state_dict(), map(torch.from_numpy, model.state_dict().values()), strict=True)))
    result = occlusion(model, x, 2, patch=patch, stride=stride, fill=0.25)
    expected = attr.Occlusion(module).attribute(
        torch.from_numpy(x[None]), (3, *result.patch), (3, *result.stride), baselines=0.25, target=2,
    )
    for channel in range(3):                                    # the square covers all channels, so they share what it costs
        # Captum takes its means in float32.
        np.testing.assert_allclose(result.attribution("logit"), expected[0, channel].numpy(), rtol=0, atol=2e-6)


def test_maps_at_pixels_take_the_nearest_centre() -> None:
    result = occlusion(net(), image(6, 6), patch=2, stride=2)
    large = result.at_pixels(np.arange(9.0).reshape(3, 3))
    np.testing.assert_array_equal(large, np.kron(np.arange(9.0).reshape(3, 3), np.ones((2, 2))))


def test_the_patch_that_the_answer_depends_on_is_found() -> None:
    """A net that only looks at the red of one corner: covering that corner costs everything, covering the rest nothing."""
    model = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(3 * 8 * 8, 2))
    weight = np.zeros((2, 3, 8, 8), np.float32)
    weight[1, 0, :2, 6:] = 1
    model["fc"].weight, model["fc"].bias = weight.reshape(2, -1), np.zeros(2, np.float32)  # type: ignore[attr-defined]
    result = occlusion(model, np.ones((3, 8, 8), np.float32), 1, layer="fc", patch=2)
    cost = result.attribution("logit")
    assert cost[:2, 6:].min() > 0.5
    assert np.abs(cost[3:, :5]).max() == 0
    assert result.whole_logits[1] == 4


def test_threads_and_batches_do_not_change_the_result(backend: Backend) -> None:
    model, x = net(), image()
    expected = occlusion(model, x, patch=4, stride=3, workers=1)
    result = occlusion(place(net(), backend), backend.array(x), patch=4, stride=3, workers=2, batch_size=5)
    np.testing.assert_allclose(result.logits, expected.logits, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.projection, expected.projection, rtol=0, atol=1e-12)


@pytest.mark.parametrize("act", [nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh()], ids=lambda act: type(act).__name__)
def test_a_layer_without_a_rule_costs_the_projection_and_nothing_else(act: nn.Layer, tmp_path: Path) -> None:
    model, x = net(), image()
    model._children["relu2"] = act
    result = occlusion(model, x, 1, patch=5, stride=4, layer="relu2", channel=2)
    assert result.projection is None and result.barred == f"{type(act).__name__} (relu2)"
    covered = x.copy()
    covered[:, result.tops[1] : result.tops[1] + 5, result.lefts[2] : result.lefts[2] + 5] = 0
    maps: list[np.ndarray] = []
    logits, _ = model.forward(covered[None], watch=lambda path, _, y: maps.append(y) if path == "relu2" else None)
    np.testing.assert_allclose(result.logits[1, 2], logits[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.activation[1, 2], maps[0][0, 2].sum(), rtol=0, atol=1e-10)
    assert plot_occlusion(result, x, tmp_path / "a.png").stat().st_size > 5000
    with pytest.raises(ArgumentError, match="a projection that is not there"):
        plot_occlusion(result, x, tmp_path / "b.png", control=x)
    below = occlusion(model, x, 1, patch=5, stride=4, layer="relu1")
    assert below.projection is not None and below.barred is None, "what stands above the map has no part in its projection"


@pytest.mark.parametrize("last", [nn.Softmax(), nn.Softmax(-1), nn.LogSoftmax()])
def test_a_softmax_that_comes_last_is_not_taken_twice(last: nn.Layer) -> None:
    model, x = net(), image()
    ended = nn.Sequential({**dict(model.named_children()), "last": last})
    expected, result = (occlusion(some, x, 1, patch=5, stride=4) for some in (model, ended))
    np.testing.assert_array_equal(result.logits, expected.logits)
    assert result.whole_probability == pytest.approx(softmax(model(x[None]), 1)[0, 1], abs=1e-12)


def test_wrong_arguments_say_what_is_wrong() -> None:
    model, x = net(), image()
    with pytest.raises(ArgumentError, match=r"nearest: .*relu2"):
        occlusion(model, x, layer="relu22")
    with pytest.raises(ArgumentError, match="layer 'relu2' has channels 0 to 4, got 5"):
        occlusion(model, x, channel=5)
    with pytest.raises(ArgumentError, match="the model has classes 0 to 2, got -1"):
        occlusion(model, x, -1)
    with pytest.raises(ArgumentError, match="at most 13×17 pixels, got 14×14"):
        occlusion(model, x, patch=14)
    with pytest.raises(ArgumentError, match="leave gaps"):
        occlusion(model, x, patch=4, stride=5)
    with pytest.raises(ShapeError, match="one input"):
        occlusion(model, np.stack([x, x]))
    with pytest.raises(ArgumentError, match="probability, logit, activation"):
        occlusion(model, x, patch=4).attribution("loss")


def test_the_picture_is_written(tmp_path: Path) -> None:
    x = image()
    result = occlusion(net(), x, patch=4, stride=2)
    assert plot_occlusion(result, x, tmp_path / "a.png", ["$cat", "dog", "a_very_long_name_of_a_class"]).stat().st_size > 5000
    with pytest.raises(ShapeError, match="13×17"):
        plot_occlusion(result, image(5, 5), tmp_path / "b.png")


def _branched() -> nn.Sequential:
    """Every kind of layer that is computed where it is touched, and every way they are joined."""
    fire = nn.Sequential(
        squeeze=nn.Conv2d(6, 3, 1), relu=nn.ReLU(),
        _expand=nn.Concat(
            _1=nn.Sequential(expand1x1=nn.Conv2d(3, 4, 1), relu1=nn.ReLU()),
            _3=nn.Sequential(expand3x3=nn.Conv2d(3, 4, 3, padding=1), relu3=nn.ReLU()),
            _pool=nn.Sequential(pool=nn.MaxPool2d(3, 1, padding=1)),
        ),
    )
    return randomise(nn.Sequential(
        conv=nn.Conv2d(3, 6, 5, stride=2, padding=1), norm=nn.BatchNorm2d(6), relu=nn.ReLU(), lrn=nn.LocalResponseNorm(3),
        pool=nn.MaxPool2d(3, 2, ceil_mode=True), fire=fire,
        block=nn.Residual(_body=nn.Sequential(
            conv1=nn.Conv2d(11, 11, 3, padding="same", dilation=2), relu6=nn.ReLU6(), conv2=nn.Conv2d(11, 11, 1))),
        wide=nn.Residual(_body=nn.Sequential(conv3=nn.Conv2d(11, 5, 3, stride=2, padding=1)),
                         _shortcut=nn.Sequential(down=nn.Conv2d(11, 5, 1, stride=2))),
        last=nn.ReLU(), mean=nn.AvgPool2d(2, 1, padding=1), flat=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(), fc=nn.Linear(5, 3),
    ), seed=5)  # type: ignore[return-value]


@pytest.mark.parametrize("layer", ["pool", "fire.expand3x3", "fire", "block", "last"])
@pytest.mark.parametrize(("size", "patch"), [((61, 74), 7), ((40, 40), (3, 11))])
def test_what_is_touched_alone_equals_the_whole_network(layer: str, size: tuple[int, int], patch: int | tuple[int, int]) -> None:
    model, x = _branched(), image(*size)
    result = occlusion(model, x, 1, patch=patch, stride=3, layer=layer, channel=2, batch_size=50, workers=2)
    ph, pw = result.patch
    for r in range(0, len(result.tops), 2):
        covered = np.repeat(x[None], len(result.lefts), axis=0)
        for c, left in enumerate(result.lefts):
            covered[c, :, result.tops[r] : result.tops[r] + ph, left : left + pw] = 0
        maps: dict[str, np.ndarray] = {}
        logits = model(covered, watch=lambda path, _, y, maps=maps: maps.setdefault(path, y))
        np.testing.assert_allclose(result.logits[r], logits, rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.activation[r], maps[layer][:, 2].sum(axis=(1, 2)), rtol=0, atol=1e-10)


def test_layers_that_need_whole_maps_or_have_names_like_others_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    for layers in (
        {"conv": nn.Conv2d(3, 4, 3, rng=rng), "norm": nn.BatchNorm2d(4, track_running_stats=False), "relu": nn.ReLU()},
        {"a": nn.Conv2d(3, 4, 3, rng=rng), "r": nn.ReLU(), "a+a": nn.Conv2d(4, 5, 3, rng=rng)},
    ):
        model, x = nn.Sequential(layers), image(20, 20)[None].astype(np.float32)
        block = np.ones((2, 3, 4, 4), x.dtype)
        state, clean = touched.Touched(x, block, np.array([[3, 5], [16, 0]])), {}   # type: ignore[var-annotated]
        whole = state.whole()
        for _ in range(2):
            np.testing.assert_allclose(touched.run(model, state, clean), model(whole), rtol=0, atol=1e-5)


def test_whole_tiles_only_where_they_would_be_computed_anyway() -> None:
    for channels, filters, tiled in ((64, 64, True), (3, 64, False), (16, 16, False)):
        layer = nn.Conv2d(channels, filters, 3, padding=1)
        windows = touched._windows(layer)
        assert windows is not None
        assert touched._whole_tiles(layer, windows, 32, [21, 33]) == ([24, 36] if tiled else [21, 33])


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(-1)], ids=repr)
def test_a_softmax_at_the_end_is_taken_once(end: nn.Layer) -> None:
    whole = nn.Sequential(net=net(), prob=end)
    plain, found = occlusion(net(), image(), layer="relu2"), occlusion(whole, image(), layer="net.relu2")
    np.testing.assert_array_equal(found.logits, plain.logits)
    np.testing.assert_array_equal(found.probability, plain.probability)
    alone, = covered([whole], image())
    np.testing.assert_array_equal(alone.probability, plain.probability)
