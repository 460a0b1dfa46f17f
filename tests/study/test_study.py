"""The whole study on a tiny net: every experiment is done or says why not, and what is written can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tinynet import nn
from tinynet.cli import app
from tinynet.data import ArrayDataset
from tinynet.data.preprocessing import Preprocessing
from tinynet.errors import FileError
from tinynet.models import TrainedModel, registry
from tinynet.study import run_study
from tinynet.study.study import Study, _Job, read_boxes
from tinynet.study.words import findings

PICTURES = {"filters", "maximisation", "occlusion-1", "invariance", "correspondence", "transfer", "evolution"}


def studynet(classes: int = 2, rng: np.random.Generator | None = None) -> nn.Sequential:
    """Three small convolutions."""
    rng = rng or np.random.default_rng(0)
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, padding=1, rng=rng), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(4, 5, 3, padding=1, rng=rng), relu2=nn.ReLU(), conv3=nn.Conv2d(5, 6, 3, padding=1, rng=rng),
        relu3=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(6, classes, rng=rng),
    )


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES, "studynet", registry.Entry(studynet))


def trained(batches: int = 1) -> TrainedModel:
    """A model that says it was trained on that many batches."""
    model = studynet()
    model["bn1"].num_batches_tracked[...] = batches  # type: ignore[attr-defined]
    return TrainedModel(model, "studynet", {}, ["dark", "bright"], Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3), {})


def photos(count: int = 40) -> ArrayDataset:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = rng.integers(0, 180, (count, 18, 20, 3)) + 70 * labels[:, None, None, None]
    return ArrayDataset(images.astype(np.uint8), labels, ["dark", "bright"])


def write(folder: Path, set_: ArrayDataset) -> None:
    for i, (image, label) in enumerate(zip(set_.images, set_.labels, strict=True)):
        (folder / set_.classes[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / set_.classes[label] / f"{i:03}.png")


def test_the_command_does_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = photos()
    write(tmp_path / "photos", ArrayDataset(set_.images, 1 - set_.labels, ["bright", "dark"]))
    model = trained()._replace(classes=["bright", "dark"])
    model.save(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    command = ["study", "model.safetensors", "photos", "--quick", "--train", "2", "--workers", "1", "--output", "out"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "untrained" not in result.output
    assert "Occlusion: on one photo" in result.output
    out = tmp_path / "out"
    assert {path.stem for path in out.glob("*.png")} == PICTURES
    assert all(path.stat().st_size > 3000 for path in out.glob("*.png"))
    figures = json.loads((out / "figures.json").read_text())
    assert {"filters", "maximisation", "occlusion", "invariance", "correspondence", "transfer", "ablation"} <= set(figures)
    assert figures["skipped"] == {}
    assert figures["transfer"]["same_classes"] is True
    assert [row["name"] for row in figures["ablation"]["rows"]] == [
        "as it is", "without conv2", "without conv3", "without conv2 and conv3", "conv3 with 12 maps",
    ]
    assert len(figures["findings"]) == 8
    assert (out / "findings.txt").read_text().count("\n\n") == 7
    assert CliRunner().invoke(app, ["study", "model.safetensors", "nowhere"]).exit_code == 2


def test_what_a_folder_does_not_allow_is_said(tmp_path: Path) -> None:
    plain = ArrayDataset(photos(4).images, [0] * 4, ["photos"])
    said: list[str] = []
    done = run_study(trained(0), plain, tmp_path, quick=True, workers=1, say=said.append)
    assert set(done.skipped) >= {"transfer", "evolution and ablation"}
    assert "untrained" in done.warnings[0]
    assert said[0].startswith("warning: the model looks untrained")
    assert any(line.startswith("transfer: left out, it needs two classes") for line in said)
    assert (tmp_path / "findings.txt").read_text().startswith("the model looks untrained")


def test_boxes_are_read_and_used(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"photos": [0, 2, 4], "parts": {"eye": [[1, 2, 3, 4]] * 3}}))
    boxes = read_boxes(path)
    assert boxes["parts"]["eye"].shape == (3, 4)
    done = Study(tmp_path)
    _Job(trained(), photos(), done, True, 0, 1, "").correspondence(boxes)
    assert {row["part"] for row in done.figures["correspondence"]["rows"]} == {"eye", "random"}
    path.write_text('{"photos": [0], "parts": {"eye": [[1, 2]]}}')
    with pytest.raises(FileError, match=r"boxes.json: expected boxes as"):
        read_boxes(path)


def test_words_follow_the_figures() -> None:
    row = {"name": "as it is", "validation_error": 0.2}
    worse = {"name": "without conv3", "validation_error": 0.4}
    same = {"name": "without conv4", "validation_error": 0.21}
    text = findings({"ablation": {"rows": [row, worse, same], "validation": 400, "epochs": 3}})[0]
    assert "without conv3 +20.0 ± 3.2 points of error (worse)" in text
    assert "without conv4 +1.0 ± 2.9 points of error (no different beyond chance)" in text
    rows = [
        {"layer": "relu5", "part": "eye", "delta": 0.1, "error": 0.01},
        {"layer": "relu5", "part": "ear", "delta": 0.28, "error": 0.01},
        {"layer": "relu5", "part": "random", "delta": 0.3, "error": 0.01},
    ]
    text = findings({"correspondence": {"rows": rows, "photos": 5, "given": True}})[0]
    assert "eye below random (0.300) by more than two standard errors" in text
    assert "ear" not in text
