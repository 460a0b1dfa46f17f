"""`tinynet explain`: the figures are those of the parts, the sheets are written, and mistakes get one line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.interpret.nets import pair
from tests.nn.helpers import randomise
from tinynet import nn
from tinynet.cli import app
from tinynet.data.preprocessing import Preprocessing
from tinynet.errors import ArgumentError, FileError, ShapeError
from tinynet.functional import softmax
from tinynet.interpret import deconvnet, deletion, grad_cam, insertion, integrated_gradients, occlusion, saliency, scores
from tinynet.interpret.control import controls_of, randomised
from tinynet.interpret.explain import LAYERS, explain
from tinynet.interpret.explain_photos import read_mask
from tinynet.interpret.explain_sheets import _how, _unit_caption, figures_table
from tinynet.interpret.family import FAMILY, family
from tinynet.interpret.observe import stages
from tinynet.interpret.patches import cut
from tinynet.interpret.units import record
from tinynet.models import TrainedModel, create

QUICK = [method for method in FAMILY if method.name in ("saliency", "Grad-CAM", "deconvnet")]


def test_a_units_pictures_are_the_deconvnets_and_the_controls() -> None:
    model, _, x = pair("overlapping")
    found = explain(model, x[:1], layers=["relu2", "conv3:4"], units=2, methods=QUICK)
    maps = {}
    model.forward(x[:1], watch=lambda path, layer, y: maps.setdefault(path, y[0]))  # type: ignore[call-arg]
    assert list(found.units) == ["relu2", "conv3"]
    strongest = np.argsort(-maps["relu2"].max(axis=(1, 2)))[:2].tolist()
    assert [unit.channel for unit in found.units["relu2"]] == strongest
    assert [unit.channel for unit in found.units["conv3"]] == [4]
    for layer, units in found.units.items():
        for unit in units:
            assert unit.value == maps[layer][unit.channel].max() == maps[layer][(unit.channel, *unit.position)]
            full = deconvnet(model).attribute(x[:1], layer=layer, unit=(unit.channel, *unit.position))[0]
            np.testing.assert_allclose(unit.projection, cut(full, unit.where), atol=1e-12)
            np.testing.assert_array_equal(unit.patch, cut(x[0], unit.where))
            assert [made.down_to for made in unit.controls] == [layer.replace("relu", "conv"), "conv1"]
            for made in unit.controls:
                control = randomised(model, np.random.default_rng(0), made.down_to)
                kept, picture = record(control, x[:1], layer), made.attribution
                signal = np.zeros_like(kept.output)             # the same walk from the same value at the same place
                signal[(0, unit.channel, *unit.position)] = unit.value
                np.testing.assert_allclose(picture, cut(deconvnet(control).back(kept, signal)[0], unit.where), atol=1e-10)
                assert picture.any() and unit.value > 0
                assert made.ranks == scores.rank_correlation(unit.projection, picture)
                assert made.likeness == scores.ssim(unit.projection, picture)
            seen = np.zeros(x.shape[2:], bool)
            top, left, height, width = unit.where
            seen[max(top, 0) : top + height, max(left, 0) : left + width] = True
            how = {"layer": layer, "unit": (unit.channel, *unit.position), "within": seen, "steps": 8}
            order = np.abs(full).sum(0)[None]
            assert unit.areas.deletion == pytest.approx(deletion(model, x[:1], order, **how).area[0])
            assert unit.areas.insertion == pytest.approx(insertion(model, x[:1], order, **how).area[0])
            assert unit.areas[:2] != unit.areas[2:]
            assert unit.pointing is None


def test_a_maps_figures_are_those_of_the_scores() -> None:
    model, _, x = pair("overlapping")
    mask = scores.box_mask(29, 26, (4, 5, 15, 20))
    found = explain(model, x[0], 2, mask=mask, methods=QUICK, steps=8, units=1)
    assert found.target == 2 and [made.name for made in found.maps] == [method.name for method in QUICK]
    by_name = {made.name: made for made in found.maps}
    np.testing.assert_array_equal(by_name["saliency"].attribution, saliency(model).attribute(x[:1], 2)[0])
    np.testing.assert_array_equal(by_name["saliency"].importance, np.abs(by_name["saliency"].attribution).sum(0))
    np.testing.assert_array_equal(by_name["Grad-CAM"].attribution, grad_cam(model, "relu3").attribute(x[:1], 2)[0])
    for made in found.maps:
        maps = made.importance[None]
        assert made.deletion == pytest.approx(deletion(model, x[:1], maps, 2, steps=8, spacing="cosine").area[0], abs=1e-12)
        assert made.insertion == pytest.approx(insertion(model, x[:1], maps, 2, steps=8, spacing="cosine").area[0], abs=1e-12)
        assert (made.pointing, made.energy) == (scores.pointing(maps[0], mask), scores.energy_inside(maps[0], mask))
    for control, kept in zip(controls_of(model), by_name["saliency"].controls, strict=True):
        np.testing.assert_array_equal(kept.attribution, saliency(control.model).attribute(x[:1], 2)[0])
        assert kept.ranks == scores.rank_correlation(by_name["saliency"].attribution, kept.attribution)
        assert kept.likeness == scores.ssim(by_name["saliency"].attribution, kept.attribution)
    centre = scores.centre_guess(29, 26)
    for unit in found.units["relu1"]:
        whole = np.abs(deconvnet(model).attribute(x[:1], layer="relu1", unit=(unit.channel, *unit.position))[0]).sum(0)
        assert (unit.pointing, unit.energy) == (scores.pointing(whole, mask), pytest.approx(scores.energy_inside(whole, mask)))
        assert [control.down_to for control in unit.controls] == ["conv1"]
    assert found.chance == (mask.mean(), mask.mean())
    assert found.centre == (scores.pointing(centre, mask), scores.energy_inside(centre, mask))
    assert all(0 <= area <= 1 for area in found.random_order)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["methods"]["saliency"]["deletion"] == by_name["saliency"].deletion
    assert set(record["baselines"]) == {"random_order", "chance", "centre_guess"}
    assert set(json.loads(json.dumps(explain(model, x[0], methods=QUICK, units=1).to_dict()))["baselines"]) == {"random_order"}


def test_a_negative_logit_does_not_turn_the_deconvnets_picture_round() -> None:
    model, _, x = pair("overlapping")
    way = next(method for method in FAMILY if method.name == "deconvnet")
    before = way.ask(model, x, np.ones(3, int), "")
    model.fc.bias[...] -= 1000                                  # type: ignore[attr-defined]
    np.testing.assert_array_equal(way.ask(model, x, np.ones(3, int), ""), before)


def test_the_controls_are_a_cascade_and_leave_the_model() -> None:
    model, _, x = pair("overlapping")
    before = {name: value.copy() for name, value in model.state_dict().items()}
    controls = controls_of(model)
    assert [(control.down_to, control.all) for control in controls] == [("fc", False), ("conv3", False), ("conv1", True)]
    kept = [{n for n, v in control.model.state_dict().items() if np.array_equal(v, before[n])} for control in controls]
    assert "conv3.weight" in kept[0] and "conv3.weight" not in kept[1] and "conv2.weight" in kept[1]
    assert not {name for name in kept[2] if name.endswith("weight")}
    explain(model, x[:1], methods=QUICK, units=1)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ArgumentError, match="nothing to redraw"):
        controls_of(nn.Sequential(nn.ReLU()))


def test_of_a_deep_network_a_few_layers_are_chosen_evenly() -> None:
    layers: dict[str, nn.Layer] = {}
    for i in range(9):
        layers |= {f"conv{i}": nn.Conv2d(3, 3, 1), f"relu{i}": nn.ReLU()}
    model = randomise(nn.Sequential({**layers, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}))
    found = explain(model, np.random.default_rng(0).normal(size=(3, 8, 8)), methods=QUICK[:1], units=1, steps=1)
    assert len(stages(model)) == 9 and LAYERS == 5
    assert list(found.units) == ["relu0", "relu2", "relu4", "relu6", "relu8"]


def test_a_network_of_dense_layers_has_no_grad_cam_and_no_occlusion() -> None:
    model = randomise(nn.Sequential(flatten=nn.Flatten(), fc1=nn.Linear(75, 8), relu=nn.ReLU(), fc2=nn.Linear(8, 3)))
    found = explain(model, np.random.default_rng(0).normal(size=(3, 5, 5)), layers=["relu"], units=2, steps=4)
    assert [made.name for made in found.maps] == [m.name for m in FAMILY if m.name not in ("Grad-CAM", "occlusion")]
    assert [unit.position for unit in found.units["relu"]] == [(), ()]
    assert found.units["relu"][0].patch.shape == (3, 5, 5)


def bent(act: nn.Layer, *last: nn.Layer) -> nn.Layer:
    """A net with another activation than ReLU in its middle, and something behind its logits."""
    ends = {f"last{i}": layer for i, layer in enumerate(last)}
    return randomise(nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), conv2=nn.Conv2d(4, 5, 3), act=act, conv3=nn.Conv2d(5, 4, 3),
        head=nn.Sequential(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4, 3), **ends),
    ))


@pytest.mark.parametrize("act", [nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh()], ids=lambda act: type(act).__name__)
def test_what_has_no_rule_is_left_out_and_said(act: nn.Layer) -> None:
    found = explain(bent(act), np.random.default_rng(0).normal(size=(3, 12, 12)), units=1, steps=4)
    assert [made.name for made in found.maps] == [m.name for m in FAMILY if m.name not in ("guided backprop", "deconvnet")]
    assert list(found.units) == ["relu", "conv2"], "below the activation nothing is missing"
    kind = type(act).__name__
    assert found.left_out == [f"left out: guided backprop, deconvnet, units of conv3; the deconvnet has no rule for {kind} (act)"]
    assert found.to_dict()["left_out"] == found.left_out
    assert explain(bent(nn.ReLU()), found.x, units=1, steps=4).left_out == []


@pytest.mark.parametrize("last", [nn.Softmax(), nn.LogSoftmax()], ids=lambda last: type(last).__name__)
def test_a_final_softmax_is_no_part_of_the_question(last: nn.Layer) -> None:
    x = np.random.default_rng(0).normal(size=(3, 12, 12))
    plain, ended = (explain(bent(nn.ReLU(), *ends), x, units=1, steps=4) for ends in ((), (last,)))
    assert ended.left_out == [] and [made.name for made in ended.maps] == [method.name for method in FAMILY]
    np.testing.assert_allclose(ended.probabilities, softmax(bent(nn.ReLU())(x[None]), 1)[0], atol=1e-12)
    for one, other in zip(plain.maps, ended.maps, strict=True):
        np.testing.assert_array_equal(one.attribution, other.attribution)
        assert (one.deletion, one.insertion) == (other.deletion, other.insertion)
        for a, b in zip(one.controls, other.controls, strict=True):
            np.testing.assert_array_equal(a.attribution, b.attribution)


def test_the_settings_are_those_that_were_used() -> None:
    model, _, x = pair("overlapping")
    settings = explain(model, x[0], units=1, steps=6, methods=family(steps=7, samples=3, noise=0.2)).to_dict()["settings"]
    assert settings["integrated gradients"] == {"steps": 7, "baseline": 0.0}
    assert settings["SmoothGrad"] == {"samples": 3, "noise": 0.2}
    assert settings["Grad-CAM"] == {"layer": "relu3"}
    found = occlusion(model, x[0])
    assert settings["occlusion"] == {"square": list(found.patch), "stride": list(found.stride), "fill": 0.0}
    assert settings["deletion"] == {"steps": 6, "steps_of_units": 3, "baseline": 0.0}
    assert settings["insertion"] == {"steps": 6, "steps_of_units": 3, "baseline": "blur of 2.6 pixels"}
    words = _how(explain(model, x[0], units=1, steps=6), Preprocessing(29, 26, (0.5, 0.4, 0.2), (1, 1, 1)))
    for part in ("25 steps from the mean", "25 copies, noise 0.15", "of relu3", "6×6 pixels", "in 6 steps", "(128, 102, 51)"):
        assert part in words, part


def test_areas_are_told_apart_however_small_they_are() -> None:
    model, _, x = pair("overlapping")
    found = explain(model, x[0], 2, methods=QUICK[:1], units=1, steps=4)
    small = replace(found, random_order=(0.0021, 0.0094), maps=[found.maps[0]._replace(deletion=0.00226, insertion=0.00243)])
    lines = figures_table(small).splitlines()
    assert lines[1].split() == ["small", "is", "good", "large", "is", "good", "ranks", "SSIM"]
    assert lines[2].split()[:3] == ["saliency", "0.00226", "0.00243"]
    assert lines[3].split() == ["random", "order", "0.0021", "0.0094"]


def test_a_unit_is_a_class_where_nothing_behind_it_mixes_channels() -> None:
    squeeze, _, x = pair("squeeze")
    last = explain(squeeze, x[0], layers=["classifier.2", "classifier.1", "features.5", "features.3"], methods=QUICK[:1], units=1)
    assert {layer: units[0].of_class for layer, units in last.units.items()} == {
        "classifier.2": True, "classifier.1": True, "features.5": False, "features.3": False,
    }
    caption = _unit_caption(last.units["classifier.2"][0], [f"kind {i}" for i in range(5)])
    assert caption.startswith(f"unit {last.units['classifier.2'][0].channel}, kind {last.units['classifier.2'][0].channel}, (")
    assert ", kind" not in _unit_caption(last.units["features.3"][0], [f"kind {i}" for i in range(5)])


@pytest.mark.parametrize(("how", "words"), [
    ({"layers": ["conv9"]}, r"no layer 'conv9'; nearest: conv\d, conv\d, conv\d"),
    ({"layers": ["conv1:6"]}, r"layer 'conv1' has channels 0 to 5, got 6"),
    ({"layers": ["conv1:-1"]}, "expected LAYER or LAYER:CHANNEL"),
    ({"target": 4}, "classes 0 to 3, got 4"),
    ({"target": -1}, "classes 0 to 3, got -1"),
    ({"target": True}, "classes 0 to 3, got True"),
    ({"units": 0}, "at least one unit"),
    ({"mask": np.ones((26, 29))}, r"a mask \(29, 26\), got \(26, 29\)"),
])  # fmt: skip
def test_mistakes(how: dict[str, Any], words: str) -> None:
    model, _, x = pair("overlapping")
    with pytest.raises((ArgumentError, ShapeError), match=words):
        explain(model, x[0], **{"methods": QUICK[:1], **how})


# The command.


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model = create("catnet", classes=2, size=32, rng=np.random.default_rng(0))
    preprocessing = Preprocessing(34, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    TrainedModel(model, "catnet", {"classes": 2, "size": 32}, ["cat", "notcat"], preprocessing, {}).save(path)
    return path


def picture(path: Path, size: tuple[int, ...] = (40, 60, 3)) -> Path:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, size).astype(np.uint8)).save(path)
    return path


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, ["explain", *map(str, words)])


def test_photos_of_any_size_with_alpha_and_a_mask(model_file: Path, tmp_path: Path) -> None:
    photo, clear = picture(tmp_path / "wide.png"), picture(tmp_path / "clear.png", (70, 50, 4))
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, size in (("wide_mask.png", (40, 60)), ("clear.png", (70, 50))):
        Image.fromarray(np.where(np.indices(size).sum(0) < 50, 1, 0).astype(np.uint8)).save(masks / name)
    out = tmp_path / "out"
    result = run(model_file, photo, clear, "--layers", "relu1:3,conv5", "--units", 1, "--mask", masks, "--output", out)
    assert result.exit_code == 0, result.output
    why = "its BatchNorms have never seen a batch"
    assert result.stderr == f"tinynet: the model looks untrained: {why}; what is shown was not learned\n"
    names = ["wide-units.png", "wide-class.png", "clear-units.png", "clear-class.png", "figures.json"]
    assert result.stdout.splitlines()[-5:] == [str(out / name) for name in names]
    figures = json.loads((out / "figures.json").read_text())
    assert list(figures["photos"]) == ["wide", "clear"]
    assert [unit["channel"] for unit in figures["photos"]["wide"]["units"]["relu1"]] == [3]
    assert 0 <= figures["photos"]["clear"]["methods"]["Grad-CAM"]["energy_inside"] <= 1
    for name in names[:-1]:
        with Image.open(out / name) as sheet:
            assert min(sheet.size) > 300
            assert len(np.unique(np.asarray(sheet.convert("L").resize((60, 60))))) > 10, "an empty sheet"


def test_the_answer_and_the_question_are_told_apart(model_file: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png")
    how = (model_file, photo, "--layers", "relu1", "--units", 1, "--output", tmp_path / "out")
    said = run(*how).stdout.splitlines()[0]
    answer = re.fullmatch(rf"{re.escape(str(photo))}: the model says (\w+), [\d.]+ % \(it looks untrained\)", said)
    assert answer is not None, said
    other = next(name for name in ("cat", "notcat") if name != answer[1])
    asked = run(*how, "--target", other).stdout.splitlines()[0]
    assert re.search(rf"the model says {answer[1]}, [\d.]+ %; asked about {other}, [\d.]+ %", asked), asked


def test_a_network_with_leaky_relus_is_explained(tmp_path: Path) -> None:
    model = bent(nn.LeakyReLU()).to(dtype=np.float32)
    preprocessing = Preprocessing(34, 32, (0.5,) * 3, (0.25,) * 3)
    TrainedModel(model, "bent", {}, ["a", "b", "c"], preprocessing, {}).save(tmp_path / "model.safetensors")
    (tmp_path / "photos").mkdir()
    photo = picture(tmp_path / "photos" / "a.png")
    result = run(tmp_path / "model.safetensors", photo, "--units", 1, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "the deconvnet has no rule for LeakyReLU (act)" in result.stderr and result.stderr.count("left out") == 1
    assert (tmp_path / "out" / "a-class.png").is_file() and (tmp_path / "out" / "a-units.png").is_file()
    only = run(tmp_path / "model.safetensors", photo, "--layers", "act", "--output", tmp_path / "none")
    assert only.exit_code == 0 and not (tmp_path / "none" / "a-units.png").exists()
    refused = CliRunner().invoke(app, ["atlas", str(tmp_path / "model.safetensors"), str(photo.parent), "--layers", "act",
                                       "--output", str(tmp_path / "atlas")])
    line = "tinynet: layer 'act': its projections cannot pass LeakyReLU (act), for which the deconvnet has no rule\n"
    assert refused.exit_code == 2 and refused.stderr == line


def test_a_box_is_a_mask(model_file: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png", (34, 40, 3))            # shown are rows 1 … 32, columns 4 … 35
    how = (model_file, photo, "--layers", "relu1", "--units", 1)
    assert run(*how, "--box", "6,9,16,29", "--output", tmp_path / "box").exit_code == 0
    mask = np.zeros((34, 40), np.uint8)
    mask[6:16, 9:29] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert run(*how, "--mask", tmp_path / "mask.png", "--output", tmp_path / "mask").exit_code == 0
    box, mask_ = (json.loads((tmp_path / name / "figures.json").read_text())["photos"] for name in ("box", "mask"))
    assert box == mask_ and box["a"]["baselines"]["chance"]["pointing"] == pytest.approx(200 / 32**2)


def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_done(model_file: Path, tmp_path: Path) -> None:
    photo, broken = picture(tmp_path / "a.png"), tmp_path / "b.png"
    broken.write_bytes(b"no photo")
    result = run(model_file, broken, photo, "--layers", "relu1", "--units", 1, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert str(broken) in result.stderr and "Traceback" not in result.output
    assert (tmp_path / "out" / "a-class.png").is_file()


@pytest.mark.parametrize(("words", "line"), [
    (["--layers", "conv9"], "no layer 'conv9'; nearest: conv"),
    (["--layers", "conv1,relu2:64"], "layer 'relu2' has channels 0 to 63, got 64"),
    (["--target", "cats"], "the model has no class 'cats'; nearest: cat"),
    (["--units", "0"], "--units: expected at least 1"),
    (["--mask", "none.png"], "none.png: no such"),
    (["--box", "1,2,3"], "--box: expected TOP,LEFT,BOTTOM,RIGHT"), (["--box", "1,2,x,4"], "--box: expected TOP,LEFT"),
    (["--box", "0,0,50,10"], "expected a box (top, left, bottom, right) inside 40×60, got (0, 0, 50, 10)"),
    (["--box", "1,2,3,4", "--mask", "a.png"], "a box is for one photo"),
])  # fmt: skip
def test_mistakes_get_one_line(model_file: Path, tmp_path: Path, words: list[str], line: str) -> None:
    result = run(model_file, picture(tmp_path / "a.png"), "--output", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"tinynet: {line}") and result.stderr.count("\n") == 1, result.stderr


def test_masks_that_do_not_fit(tmp_path: Path, model_file: Path) -> None:
    preprocessing = Preprocessing(8, 8, (0, 0, 0), (1, 1, 1))
    values = np.zeros((10, 20), np.uint8)
    values[:, 10:15] = 3                                        # the crop shows columns 5 to 14
    path = tmp_path / "mask.png"
    Image.fromarray(values).save(path)
    seen = read_mask(path, (10, 20), preprocessing)
    np.testing.assert_array_equal(seen, np.broadcast_to(np.arange(8) >= 4, (8, 8)))
    with pytest.raises(FileError, match="a mask of the photo's 10×20 pixels, got 20×10"):
        read_mask(path, (20, 10), preprocessing)
    values[:, 4:16] = 0
    Image.fromarray(values).save(path)
    with pytest.raises(FileError, match="marks nothing"):
        read_mask(path, (10, 20), preprocessing)
    photo = picture(tmp_path / "a.png")
    assert "one mask for 2 photos" in run(model_file, photo, photo, "--mask", path).stderr
    (tmp_path / "masks").mkdir()
    picture(tmp_path / "masks" / "ab.png")
    assert "no mask for a.png; nearest: ab" in run(model_file, photo, "--mask", tmp_path / "masks").stderr


def test_integrated_gradients_in_the_family_have_their_sign() -> None:
    model, _, x = pair("overlapping")
    way = next(method for method in FAMILY if method.name == "integrated gradients")
    got = way.ask(model, x, np.ones(3, int), "")
    np.testing.assert_array_equal(got, integrated_gradients(model).attribute(x, 1))
    np.testing.assert_array_equal(way.importance(got), got.sum(1))


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)], ids=repr)
def test_a_softmax_at_the_end_changes_nothing(end: nn.Layer) -> None:
    """Class maps are of the logits, and the softmax of probabilities is taken once."""
    model, _, x = pair("overlapping")
    whole = nn.Sequential({**dict(model.named_children()), "prob": end})
    plain, found = (explain(m, x[:1], units=1, steps=4) for m in (model, whole))
    assert found.to_dict() == plain.to_dict()
    np.testing.assert_allclose(whole(x[:1])[0] if isinstance(end, nn.Softmax) else np.exp(whole(x[:1])[0]), found.probabilities)
    for ours, its in zip(found.maps, plain.maps, strict=True):
        np.testing.assert_array_equal(ours.attribution, its.attribution)
