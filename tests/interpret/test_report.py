"""The atlas and its report: whole, well-formed, self-contained, readable without seeing; and the command."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.interpret.test_top import photos, small
from tinynet import nn
from tinynet.cli import app
from tinynet.data import ArrayDataset, any_photos
from tinynet.data.preprocessing import Preprocessing
from tinynet.errors import ArgumentError, FileError
from tinynet.interpret import pictures
from tinynet.interpret.atlas import caption, layer_atlas, layer_sheet, tile_side
from tinynet.interpret.report import data_uri, make_atlas, write_report
from tinynet.interpret.top import TopActivations, top_activations
from tinynet.interpret.words import BEYOND, WORDS
from tinynet.models import TrainedModel, create

VOID = {"meta", "link", "img", "br", "hr", "input"}
EVIL = '<b onload="x">&amp; cat'


class Page(HTMLParser):
    """Notes the elements, and whether every one that is opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def trained(crop: int = 16) -> TrainedModel:
    model: Any = create("catnet", rng=np.random.default_rng(0), size=crop)
    model.layer("bn1").bias[3] = -1000                          # a unit that is never active
    return TrainedModel(model, "catnet", {"size": crop}, ["cat", "notcat"], Preprocessing(crop, crop, (0.5,) * 3, (0.2,) * 3), {})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pixels = photos(12, (20, 24)).images
    dataset = ArrayDataset(pixels, np.arange(12) % 2, [EVIL, "notcat"])
    return make_atlas(trained(), dataset, tmp_path_factory.mktemp("atlas"), layers=["relu1", "relu3", "fc"], units=5,
                      command='tinynet atlas "<model>"', photos="12 <i>photos</i>", progress=False)


def test_the_page_is_well_formed_and_complete(made):
    text = made.report.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html")[0]["lang"] == "en" and any(m.get("name") == "viewport" for m in page.all("meta"))
    words = " ".join(" ".join(page.words).split())
    for expected in (WORDS, BEYOND, "tinynet atlas \"<model>\"", "12 <i>photos</i>", EVIL, "How to read it", "NumPy", "relu3",
                     "1 of 32 units are never active over these photos: 3", "looks untrained"):
        assert " ".join(expected.split()).lower() in words.lower(), expected
    layers = [a for a in page.all("details") if a.get("class") == "layer"]
    assert len(layers) == 3 and "open" in layers[0] and "open" not in layers[1]
    assert text.count('<li class="unit') == 5 + 5 + 2           # fc has two units


def test_the_page_needs_no_network_and_runs_nothing_foreign(made):
    text = made.report.read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)
    for tag, attributes in page.elements:
        for name in ("src", "href"):
            if name in attributes:
                assert str(attributes[name]).startswith(("data:", "#")), (tag, attributes[name])
        assert not [name for name in attributes if name.startswith("on")]
    assert "<b onload" not in text and "<i>photos" not in text
    assert made.report.stat().st_size < 2e6


def test_every_picture_can_be_read_and_has_words(made):
    page = Page(made.report.read_text(encoding="utf-8"))
    images = page.all("img")
    assert len(images) == 3 * (5 + 5 + 2)
    for image in images:
        assert len(str(image["alt"])) > 20
        kind, data = str(image["src"]).split(",", 1)
        assert kind == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            assert picture.size == (int(str(image["width"])), int(str(image["height"])))
    assert len({image["alt"] for image in images}) == len(images)


def test_anchors_and_focus(made):
    page = Page(made.report.read_text(encoding="utf-8"))
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(names)) == len(names)
    for link in page.all("a"):
        assert str(link["href"])[1:] in names
    for _, attributes in page.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in names


def test_the_sheets_are_pictures_and_the_findings_are_whole(made):
    assert [path.name for path in made.sheets] == ["relu1.png", "relu3.png", "fc.png"]
    for path in made.sheets:
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 300
    top = TopActivations.load(made.top)
    assert top.done == 12 and top["relu3"].values.shape == (128, 9)     # every unit, not only those shown


def test_blocks_show_what_was_found():
    dataset, model = photos(6, (9, 10)), small()
    preprocessing = Preprocessing(9, 9, (0.0,) * 3, (1.0,) * 3)
    top = top_activations(model, dataset, ["conv1"], k=4, transform=preprocessing.transform(), progress=False)
    atlas = layer_atlas(model, dataset, top, "conv1", preprocessing, progress=False)
    assert atlas.count == 5 and [unit.channel for unit in atlas.units] == list(range(5)) and "3×3 pixels" in atlas.sees
    unit = atlas.units[1]
    assert unit.patches.shape == (54, 54, 4)                    # two by two of 3 pixels, eight times larger, framed, two between
    image = preprocessing.transform()(dataset[int(top["conv1"].images[1, 0])][0], np.random.default_rng(0))
    y, x = 2 * top["conv1"].positions[1, 0]
    expected = pictures.photo(image[:, y : y + 3, x : x + 3])
    np.testing.assert_array_equal(unit.patches[1:25:8, 1:25:8, :3], expected)
    assert not unit.patches[26:28, :, 3].any() and (unit.patches[:26, :26, 3] == 255).all()
    frame = np.ones((26, 26), bool)
    frame[1:25, 1:25] = False
    assert len(np.unique(unit.patches[:26, :26, :3][frame])) == 1, "a line of one grey around each picture"
    # Nothing below a first convolution but itself: the projection is the filter times the value, on the unit's one scale.
    filters = model.layer("conv1").weight[1] * top["conv1"].values[1, 0]         # type: ignore[attr-defined]
    np.testing.assert_allclose(unit.projections[1:25:8, 1:25:8, :3], pictures.centred(filters, scale=unit.scale), atol=1)
    assert -1 <= unit.likeness <= 1 and unit.labels[0][1] >= 2


def test_beyond_the_border_a_patch_is_mid_grey():
    white = ArrayDataset(np.full((1, 9, 9, 3), 255, np.uint8), [0], ["a"])
    model = nn.Sequential(conv1=nn.Conv2d(3, 2, 3, padding=1, rng=np.random.default_rng(0)))
    preprocessing = Preprocessing(9, 9, (0.2,) * 3, (0.5,) * 3)
    top = top_activations(model, white, ["conv1"], transform=preprocessing.transform(), progress=False)
    top["conv1"].positions[:] = 0                               # the upper left corner
    unit = layer_atlas(model, white, top, "conv1", preprocessing, progress=False).units[0]
    inside = unit.patches[1:-1, 1:-1, 0]                        # of the frame
    assert set(inside[0]) == {128} and set(inside[:, 0]) == {128} and set(inside[-1, 8:]) == {255}
    assert unit.patches[0, 0, 0] not in (128, 255), "the frame shows on white and on grey"


def test_units_that_are_classes_have_their_names(tmp_path):
    dataset, model, classes = photos(4, (9, 9)), small(), ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]
    preprocessing, layers = Preprocessing(9, 9, (0.0,) * 3, (1.0,) * 3), [path for path, _ in model.children()]
    top = top_activations(model, dataset, layers, transform=preprocessing.transform(), progress=False)
    last = layer_atlas(model, dataset, top, layers[-1], preprocessing, units=2, progress=False)
    first = layer_atlas(model, dataset, top, "conv1", preprocessing, units=2, progress=False)
    names = classes[: last.count]
    assert last.name(1, names) == "bee" and last.name(1, names[:-1]) == "" and first.name(1, classes[: first.count]) == ""
    assert caption(last.units[0], last.name(last.units[0].channel, names)).startswith(
        f"unit {last.units[0].channel}, {names[last.units[0].channel]}: ")
    page = write_report(tmp_path / "a.html", [last, first], classes=names).read_text()
    assert page.count(f"Unit {last.units[0].channel}, {names[last.units[0].channel]}") == 1


def test_units_are_spread_evenly_over_the_active_ones():
    dataset, model = photos(4, (9, 9)), small()
    model.layer("conv2").bias[...] = [-99, 0, 99, 99, 99, 99, 99]                # type: ignore[attr-defined]
    preprocessing = Preprocessing(9, 9, (0.0,) * 3, (1.0,) * 3)
    top = top_activations(model, dataset, ["relu2"], transform=preprocessing.transform(), progress=False)
    atlas = layer_atlas(model, dataset, top, "relu2", preprocessing, units=3, progress=False)
    active = [channel for channel in range(7) if channel not in atlas.silent]
    chosen = [unit.channel for unit in atlas.units]
    assert 0 in atlas.silent and len(chosen) == 3 and set(chosen) < set(active) and chosen == sorted(chosen)
    steps = np.diff([active.index(c) for c in chosen] + [len(active)])
    assert chosen[0] == active[0] and len(active) > 4 and steps.max() - steps.min() <= 1
    with pytest.raises(ArgumentError, match="at least one unit, got 0"):
        layer_atlas(model, dataset, top, "relu2", preprocessing, units=0)


def test_a_layer_without_active_units_is_shown_too(tmp_path):
    dataset, model = photos(3, (9, 9)), small()
    model.layer("conv2").bias[...] = -99                        # type: ignore[attr-defined]
    preprocessing = Preprocessing(9, 9, (0.0,) * 3, (1.0,) * 3)
    top = top_activations(model, dataset, ["relu2"], transform=preprocessing.transform(), progress=False)
    atlas = layer_atlas(model, dataset, top, "relu2", preprocessing, units=2, progress=False)
    assert len(atlas.silent) == 7 and len(atlas.units) == 2
    assert layer_sheet(atlas, tmp_path / "sheet.png").is_file()


def test_of_a_thousand_classes_a_few_are_named(tmp_path):
    page = write_report(tmp_path / "a.html", [], photos="no photos", classes=[f"kind {i}" for i in range(1000)]).read_text()
    assert "kind 7, … (1,000 in all)" in page and "kind 8" not in page


def test_a_picture_is_kept_by_its_address():
    picture = np.random.default_rng(0).integers(0, 256, (30, 20, 4), dtype=np.uint8)
    picture[..., 3] = 255
    with Image.open(io.BytesIO(base64.b64decode(data_uri(picture).split(",")[1]))) as read:
        back = np.asarray(read.convert("RGB")).astype(int)
    assert back.shape == (30, 20, 3) and np.abs(back.mean(axis=(0, 1)) - picture[..., :3].mean(axis=(0, 1))).max() < 15
    assert tile_side(100) == 112 and tile_side(10**6) == 40 and 40 < tile_side(16000) < 112


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for i, picture in enumerate(photos(4, (20, 24)).images):
        (root / "sub").mkdir(exist_ok=True)
        Image.fromarray(picture).save(root / (f"{i}.png" if i < 3 else f"sub/{i}.jpg"))
    trained().save(root / "model.safetensors")
    return root


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, ["atlas", *map(str, words)])


def test_the_command_writes_the_report_and_resumes(folder: Path, tmp_path):
    out = tmp_path / "out"
    how = (folder / "model.safetensors", folder, "--layers", "relu1,relu2", "--units", 2, "--output", out, "--workers", 1)
    done = run(*how)
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(out / name) for name in ("atlas.html", "relu1.png", "relu2.png")]
    assert "looks untrained" in done.stderr
    first = (out / "atlas.html").read_bytes()
    assert run(*how, "--resume").exit_code == 0
    assert (out / "atlas.html").read_bytes() == first
    other = run(folder / "model.safetensors", folder, "--layers", "relu3", "--output", out, "--resume")
    assert other.exit_code == 2 and other.stderr.count("\n") == 1 and "another question" in other.stderr
    anew = run(folder / "model.safetensors", folder, "--layers", "relu3", "--units", 1, "--output", out)
    assert anew.exit_code == 0 and list(TopActivations.load(out / "top.safetensors").layers) == ["relu3"]


def test_ctrl_c_at_the_pictures_leaves_what_was_found(folder: Path, tmp_path, monkeypatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinynet.interpret.report.layer_atlas", interrupted)
    done = run(folder / "model.safetensors", folder, "--layers", "relu1", "--output", tmp_path)
    assert done.exit_code == 130 and "interrupted at the pictures of relu1" in done.stderr and "--resume" in done.stderr
    assert TopActivations.load(tmp_path / "top.safetensors").done == 4


@pytest.mark.parametrize(("words", "message"), [
    (["MODEL", "PHOTOS", "--layers", "rleu3"], "no layer 'rleu3'; nearest: relu3"),
    (["MODEL", "EMPTY"], "no photo in this folder"), (["MODEL", "missing"], "missing: no such folder"),
    (["MODEL", "MODEL"], "model.safetensors: a model, where a photo or folder is expected"),
    (["missing.safetensors"], "no such file"),
    (["MODEL", "PHOTOS", "--units", "-1"], "--units: expected at least 0, got -1"), (["MODEL", "BROKEN"], "none of its 1 photos"),
])  # fmt: skip
def test_mistakes_are_one_line(folder: Path, tmp_path, words: list[str], message: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no photo")
    names = {"MODEL": folder / "model.safetensors", "PHOTOS": folder, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken"}
    done = run(*(names.get(word, word) for word in words), "--output", tmp_path / "out")
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_any_folder_of_photos_will_do(folder: Path):
    found = any_photos(folder)
    assert found.classes == ["photos", "sub"] and found.labels.tolist() == [0, 0, 0, 1]
    assert any_photos(folder / "sub").classes == ["photos"]
    with pytest.raises(FileError, match="no such folder"):
        any_photos(folder / "nothing")
