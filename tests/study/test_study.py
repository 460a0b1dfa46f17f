"""The whole study on a tiny net: every experiment is done or says why not, and what is written can be read."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

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
from tinynet.study import experiments, run_study
from tinynet.study.study import STATE, read_boxes
from tinynet.study.words import findings
from tinynet.study.workbench import Workbench, plain

SHEETS = {"activations-relu1", "activations-relu2", "activations-relu3"}
PICTURES = SHEETS | {"filters", "maximisation", "occlusion-1", "invariance", "correspondence", "transfer", "evolution"}


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
    assert {
        "activations", "filters", "maximisation", "occlusion", "invariance", "correspondence", "transfer", "ablation",
    } <= set(figures)
    assert figures["skipped"] == {}
    assert figures["transfer"]["same_classes"] is True
    assert [row["name"] for row in figures["ablation"]["rows"]] == [
        "as it is", "without conv2", "without conv3", "without conv2 and conv3", "conv3 with 12 maps",
    ]
    assert len(figures["findings"]) == 9
    assert (out / "findings.txt").read_text().count("\n\n") == 8
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
    found = experiments.correspondence(Workbench(trained(), photos(), tmp_path, quick=True, workers=1), boxes)
    assert {row["part"] for row in found["rows"]} == {"eye", "random"}
    path.write_text('{"photos": [0], "parts": {"eye": [[1, 2]]}}')
    with pytest.raises(FileError, match=r"boxes.json: expected boxes as"):
        read_boxes(path)


class Interrupts:
    """Says, and is interrupted when it has said that."""

    def __init__(self, at: str) -> None:
        self.at, self.said = at, []  # type: ignore[var-annotated]

    def __call__(self, line: str) -> None:
        self.said.append(line)
        if self.at and self.at in line:
            raise KeyboardInterrupt


HOW: dict[str, Any] = {"epochs": 1, "quick": True, "workers": 1, "command": "the command"}


@pytest.fixture(scope="module")
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(trained(), photos(), tmp_path_factory.mktemp("whole"), say=Interrupts(""), **HOW).output


@pytest.mark.parametrize("at", ["filters:", "without conv2 and conv3:"])
def test_an_interrupted_study_goes_on_and_ends_alike(
    tmp_path: Path, whole_study: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(trained(), photos(), tmp_path, say=Interrupts(at), **HOW)
    done = json.loads((tmp_path / STATE).read_text())["found"]
    made: list[str] = []
    for name in ("activations", "filters", "invariance"):
        real = getattr(experiments, name)
        monkeypatch.setattr(experiments, name, lambda bench, name=name, real=real: (made.append(name), real(bench))[1])
    run_study(trained(), photos(), tmp_path, say=Interrupts(""), resume=True, **HOW)
    assert set(made) == {"activations", "filters", "invariance"} - set(done), "what was found is not done again"
    if "conv2" in at:
        assert "ablation: as it is" in done and "evolution and ablation" not in done
    whole, parts = (json.loads((folder / "figures.json").read_text()) for folder in (whole_study, tmp_path))
    for figures in (whole, parts):
        for row in figures["ablation"]["rows"]:
            del row["seconds"]
    assert whole == parts
    assert (whole_study / "evolution.png").read_bytes() == (tmp_path / "evolution.png").read_bytes()


def test_ctrl_c_is_one_line_that_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained().save(tmp_path / "model.safetensors")
    write(tmp_path / "photos", photos(8))
    monkeypatch.chdir(tmp_path)
    command = ["study", "model.safetensors", "photos", "--quick", "--workers", "1", "--output", "out"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiments, "invariance", interrupted)
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 130
    state = Path("out") / STATE
    words = f"interrupted at invariance; what was found is in {state}: resume (--resume) to go on from it"
    assert result.stderr == f"\ntinynet: {words}\n"
    result = CliRunner().invoke(app, command)
    ways = "--resume goes on with it, --overwrite replaces it, or give another output folder"
    assert result.exit_code == 2 and result.stderr == f"tinynet: {state}: holds an unfinished study (results: 4); {ways}\n"
    result = CliRunner().invoke(app, [*command, "--resume"])
    assert result.exit_code == 0, result.output
    kept = json.loads(state.read_text())
    assert kept.pop("finished") is True
    assert CliRunner().invoke(app, command).exit_code == 0, "a finished one may be done again"
    state.write_text(json.dumps(kept))
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
    other = CliRunner().invoke(app, [*command, "--resume", "--seed", "1"])
    assert other.exit_code == 2 and "the state of another study" in other.stderr
    state.write_text("{")
    assert "state.json: damaged" in CliRunner().invoke(app, [*command, "--resume"]).stderr


def test_figures_are_plain() -> None:
    given = {"a": np.float32(0.1234567), 1: np.array([1, 2]), "n": float("nan"), "t": (True, None, "x"), "i": np.int64(3)}
    assert plain(given) == {"a": 0.123457, "1": [1, 2], "n": None, "t": [True, None, "x"], "i": 3}


def test_transfer_tests_on_what_is_left_of_each_class(tmp_path: Path) -> None:
    """A class with few photos does not take test photos from the others."""
    labels = np.array([0] * 17 + [1] * 60)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (77, 16, 16, 3), dtype=np.uint8)
    bench = Workbench(trained(), ArrayDataset(images, labels, ["few", "many"]), tmp_path, workers=1)
    seen: list = []
    module = import_module("tinynet.study.training")
    real = module.frozen_features

    def watched(model: nn.Layer, chosen: Any, *rest: Any, **how: Any) -> Any:
        seen.append(chosen)
        return real(model, chosen, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "frozen_features", watched)
        found = module.transfer(bench, bench.photos)
    assert [np.bincount(chosen.labels).tolist() for chosen in seen] == [[17, 60]] * 2
    assert {row["per_class"] for row in found["trained"]} == {15}


@pytest.mark.parametrize(("high", "noisy"), [(0.69, False), (0.79, False), (0.808, True), (0.95, True)])
def test_high_frequency_is_told_beside_that_of_random_filters(high: float, noisy: bool) -> None:
    figures = {
        "layer": "conv1", "count": 64, "duplicates": 0, "high_frequency": high, "random_high_frequency": 0.818,
        "random_error": 0.01, "aliased": 0.6, "random_aliased": 0.75, "dead": {"relu1": 0}, "units": {"relu1": 64}, "photos": 9,
    }
    text = findings({"filters": figures})[0]
    assert f"{100 * high:.0f} % of their energy (of random ones of that size 82 %)" in text and "(of random ones 75 %)" in text
    assert ("may be noise" in text) == noisy


def test_a_class_that_nobody_knows_is_not_called_the_true_one() -> None:
    curve = {"kind": "scale", "half_first": 0.2, "half_last": 0.4, "unit": "times more", "plain": 0.9, "mean": 0.5}
    for known, words in ((True, "the true class"), (False, "what the model says of the plain photo")):
        text = findings({"invariance": {"photos": 5, "known": known, "layers": ["relu1", "relu5"], "curves": [curve]}})[0]
        assert f"the probability of {words} goes from 90 % to 50 % on average" in text


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
    assert "eye is below random (0.300) by more than two standard errors" in text
    assert "ear" not in text
