"""The commands as a person uses them: what they print, what they leave, and what they say to mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from tinynet import nn
from tinynet.cli import app
from tinynet.models import load_model
from tinynet.train import load_checkpoint, save_checkpoint


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: Any, code: int = 2) -> str:
    """The one line that a mistake gets: no traceback, and an exit code that is not 0."""
    result = run(*words)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tinynet: "), result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes that anything can tell apart: reddish and bluish noise; 24 a class, in train/ and test/."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 6)):
        for number, name in enumerate(("cat", "notcat")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 80, (40, 36, 3))
                picture[..., 2 * number] += 150
                Image.fromarray(picture.astype(np.uint8)).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory) -> Path:
    """A model that has seen them eight times."""
    output = tmp_path_factory.mktemp("run")
    result = run("train", "--data", photos, "--size", 32, "--epochs", 8, "--output", output, "--workers", 1)
    assert result.exit_code == 0, result.output
    return output


def test_train_writes_everything(photos, trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "model.safetensors", "curves.png", "confusion.png", "predictions.png", "figures.json", "history.json", "history.csv",
        "last.safetensors", "best.safetensors",
    }
    figures = json.loads((trained / "figures.json").read_text())
    assert set(figures) == {"train", "validation", "test"} and figures["test"]["accuracy"] > 0.5
    for name in ("curves.png", "confusion.png", "predictions.png"):
        with Image.open(trained / name) as picture:
            assert picture.width > 300
    model = load_model(trained / "model.safetensors")
    assert model.classes == ["cat", "notcat"] and model.preprocessing.crop == 32
    assert model.notes["command"].startswith("tinynet")


def test_it_runs_as_a_module_too():
    run = subprocess.run([sys.executable, "-m", "tinynet", "models"], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "vgg11" in run.stdout and not run.stderr, run.stderr


def test_export_writes_what_onnx_runtime_runs(trained, tmp_path):
    result = run("export", trained / "model.safetensors", tmp_path / "model.onnx")
    assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'model.onnx'}\n"
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = load_model(trained / "model.safetensors").model(x)
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert "ends with .onnx" in refused("export", trained / "model.safetensors", tmp_path / "model")
    assert "no such file" in refused("export", trained / "no.safetensors", tmp_path / "model.onnx")
    assert "cannot be written" in refused("export", trained / "model.safetensors", tmp_path / "no" / "model.onnx")


def test_evaluate_gives_the_figures_of_the_training(photos, trained, tmp_path):
    result = run("evaluate", trained / "model.safetensors", "--data", photos / "test", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    figures = json.loads((trained / "figures.json").read_text())
    assert f"{100 * figures['test']['accuracy']:.1f} %" in result.stdout
    assert (tmp_path / "out" / "predictions.png").is_file()


def test_predict_prints_a_line_a_photo_and_names_a_broken_one(photos, trained, tmp_path):
    good = sorted((photos / "test" / "cat").iterdir())[:2]
    result = run("predict", trained / "model.safetensors", *good)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 2 and all(str(path) in line and "%" in line for path, line in zip(good, lines, strict=True))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    result = run("predict", trained / "model.safetensors", good[0], broken)
    assert result.exit_code == 1 and "broken.jpg" in result.stderr and str(good[0]) in result.stdout
    assert refused("predict", trained / "model.safetensors", tmp_path / "none.jpg", code=1)


def test_predict_takes_photos_of_any_kind(trained, tmp_path):
    rng = np.random.default_rng(1)
    for name, shape in {"tiny.png": (1, 1, 3), "wide.png": (2, 3000, 3), "alpha.png": (9, 50, 4), "grey.png": (60, 20)}.items():
        Image.fromarray(rng.integers(0, 255, shape).astype(np.uint8)).save(tmp_path / name)
    result = run("predict", trained / "model.safetensors", *sorted(tmp_path.iterdir()))
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 4, result.output


def test_summary_and_data(photos, trained):
    result = run("summary", trained / "model.safetensors")
    assert result.exit_code == 0 and "conv1" in result.stdout and "multiply-adds" in result.stdout
    assert "nearest: photonet" in refused("summary", "photonett")
    assert run("summary", "photonet", "--size", 96).exit_code == 0
    result = run("data", photos / "train")
    assert result.exit_code == 0 and "48 photos, 2 classes" in result.stdout and "36" in result.stdout
    assert "cifar10" in run("data", "--get", "list").stdout


def test_a_folder_with_train_and_test_is_both_and_evaluated_on_test(photos, trained):
    result = run("data", photos)
    assert result.exit_code == 0, result.output
    parts = [run("data", photos / part).stdout for part in ("train", "test")]
    assert result.stdout == "".join(f"{photos / part}: {text}" for part, text in zip(("train", "test"), parts, strict=True))
    evaluated = [run("evaluate", trained / "model.safetensors", "--data", folder) for folder in (photos, photos / "test")]
    assert evaluated[0].exit_code == 0 and evaluated[0].stdout == evaluated[1].stdout, evaluated[0].output


def test_resume_goes_on(photos, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "run")
    result = run("train", "--data", photos, "--size", 32, "--epochs", 9, "--output", output, "--workers", 1, "--resume")
    assert result.exit_code == 0, result.output
    assert "epoch 9/9" in result.output and "epoch 1/9" not in result.output


def test_an_unfinished_training_is_replaced_only_when_told_to(photos, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "run")
    last = load_checkpoint(output / "last.safetensors")
    last.record["state"]["epochs"] = 54                         # as if it had been interrupted on its way to these
    save_checkpoint(output / "last.safetensors", last)
    words = ["train", "--data", photos, "--size", 32, "--epochs", 1, "--output", output, "--workers", 1]
    ways = "--resume goes on with it, --overwrite replaces it, or give another --output"
    assert refused(*words) == f"tinynet: {output / 'last.safetensors'}: holds an unfinished training (8 of 54 epochs); {ways}"
    assert run(*words, "--overwrite").exit_code == 0
    assert load_checkpoint(output / "last.safetensors").record["state"]["epoch"] == 1


def test_mistakes_with_photos(tmp_path, photos):
    assert "no such folder" in refused("train", "--data", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "two or more class folders" in refused("train", "--data", tmp_path / "empty")
    one = tmp_path / "one"
    shutil.copytree(photos / "train" / "cat", one / "cat")
    assert "class folders" in refused("train", "--data", one)
    assert "two photos in every class" in refused("train", "--data", _few(tmp_path / "few", photos), "--size", 32)
    assert "larger photos" in refused("train", "--size", 224)
    assert "--test and --per-class go with --data" in refused("train", "--per-class", 3)
    for words in (["--epochs", 0], ["--workers", 0], ["--seed", -1]):
        assert "expected at least" in refused("train", *words)
    assert "expected a size" in refused("train", "--data", photos, "--size", 8)
    assert run("train", "--colour", "red").exit_code == 2
    assert run("fly").exit_code == 2


def _few(root: Path, photos: Path) -> Path:
    """One photo in a class."""
    for name in ("cat", "notcat"):
        (root / name).mkdir(parents=True)
        shutil.copy(photos / "train" / name / "0.png", root / name)
    return root


def test_mistakes_with_model_files(photos, trained, tmp_path):
    photo, model = photos / "test" / "cat" / "0.png", trained / "model.safetensors"
    assert "a folder" in refused("predict", trained, photo)
    whole = model.read_bytes()
    for name, content in {"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2], "header": b"\xff" * 64}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert "damaged" in refused("predict", path, photo)
    weights = load_file(model)
    save_file(weights, tmp_path / "foreign.safetensors")
    assert "weights alone" in refused("predict", tmp_path / "foreign.safetensors", photo)
    assert "checkpoint" in refused("predict", trained / "last.safetensors", photo)
    assert "classes" in refused("evaluate", model, "--data", _renamed(tmp_path / "others", photos))
    flipped = bytearray(whole)
    flipped[-400:] = b"\xff" * 400                             # the last weights become nan
    (tmp_path / "nan.safetensors").write_bytes(flipped)
    assert "not finite" in refused("predict", tmp_path / "nan.safetensors", photo)


def _renamed(root: Path, photos: Path) -> Path:
    shutil.copytree(photos / "test", root)
    (root / "cat").rename(root / "dog")
    return root


def test_a_foreign_record_runs_nothing_and_is_refused(trained, tmp_path):
    weights = load_file(trained / "model.safetensors")
    record = {"model": "catnet", "arguments": {"classes": 2}, "classes": ["a", "b"],
              "preprocessing": {"resize": 32, "crop": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}}
    for change in ({"model": "os.system"}, {"arguments": {"classes": 3}}, {"arguments": {"rm": 1}}, {"arguments": 5},
                   {"preprocessing": {}}, {"preprocessing": {**record["preprocessing"], "crop": 10**9}}, {"classes": None}):
        path = tmp_path / "foreign.safetensors"
        save_file(weights, path, metadata={"tinynet.model": json.dumps({**record, **change})})
        assert "damaged or foreign" in refused("predict", path, "x.jpg")


def test_nothing_is_lost_when_the_output_cannot_be_written(photos, trained, tmp_path, monkeypatch):
    """A full disk while the model is saved: one line, the old model stays, no rubbish."""
    output = shutil.copytree(trained, tmp_path / "run")
    before = (output / "model.safetensors").read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    line = refused("train", "--data", photos, "--size", 32, "--epochs", 1, "--output", output, "--workers", 1, "--overwrite")
    assert "No space left on device" in line
    assert (output / "model.safetensors").read_bytes() == before
    assert not [path for path in output.iterdir() if "tmp" in path.name]


def test_a_misspelt_network_is_not_taken_for_a_photo(tmp_path):
    said = refused("explain", "squeezenet1_2", tmp_path)
    assert "squeezenet1_2: no such photo, folder or network; did you mean squeezenet1_1?" in said


@pytest.mark.parametrize("words", [
    ["predict", "net.onnx"], ["explain", "net.onnx"], ["atlas", "net.onnx"], ["predict", "net.pth", "photo.jpg"],
    ["explain", "net.npz", "photo.jpg"], ["study", "net.safetensors"], ["evaluate", "net.pt"], ["summary", "net.pth"],
    ["export", "net.pth", "out.onnx"], ["train", "--from", "net.onnx", "--data", "photos"],
])  # fmt: skip
def test_a_model_file_that_is_missing_is_said_to_be_missing(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(word for word in words if word.startswith("net."))
    assert refused(*words) == f"tinynet: {name}: no such file"


def test_what_is_advised_where_a_model_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no such file; train a model first" in refused("predict", "runs/cat/model.safetensors", "photo.jpg")
    assert "nor a network's name; nearest: resnet18" in refused("study", "resnet-18")
    assert "(all: tinynet models)" in refused("models", "nosuch")


def test_a_photo_must_follow_the_model(trained):
    model = trained / "model.safetensors"
    assert refused("predict", model) == f"tinynet: expected a photo after the model {model}"


@pytest.mark.parametrize("command", ["predict", "explain", "atlas"])
def test_a_model_behind_a_photo_is_not_taken_for_one(command, photos, trained):
    model, photo = trained / "model.safetensors", photos / "test" / "cat" / "0.png"
    words = "a model, where a photo or folder is expected; a model goes before the photos"
    assert refused(command, photo, model) == f"tinynet: {model}: {words}"
    assert refused(command, photo, "squeezenet1_1") == f"tinynet: squeezenet1_1: {words}"
    assert refused(command, model, photo, trained) == f"tinynet: {trained}: {words}"


@pytest.mark.parametrize("words", [["predict", "photo.jpg"], ["explain", "photo.jpg"], ["evaluate", "squeezenet1_1"]])
def test_ctrl_c_is_told_in_a_word(words, tmp_path, monkeypatch):
    def pressed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinynet.models.load_model", pressed)
    monkeypatch.setattr("tinynet.models.boxed", pressed)
    result = run(*words)
    assert result.exit_code == 130 and result.stderr == "\ntinynet: interrupted\n"


def test_nothing_is_printed_of_files_that_were_not_made(tmp_path):
    assert refused("explain", tmp_path / "none.jpg", "--output", tmp_path / "out", code=1).endswith("none.jpg: no such photo")
    assert run("explain", tmp_path / "none.jpg", "--output", tmp_path / "out").stdout == ""


def test_a_thousand_classes_are_not_listed(photos):
    line = refused("evaluate", "squeezenet1_1", "--data", photos / "test")
    assert line.endswith("got cat, notcat") and "tench, goldfish" in line and "(1,000 in all)" in line and len(line) < 400


def test_a_class_that_is_not_there_finds_those_with_the_word(photos, tmp_path):
    line = refused("explain", photos / "test" / "cat" / "0.png", "--target", "cat", "--output", tmp_path)
    assert line == "tinynet: the model has no class 'cat'; nearest: tiger cat, Persian cat, Siamese cat"


def test_convert_takes_the_box_and_does_not_write_over_what_it_reads(trained, tmp_path):
    box = tmp_path / "box.safetensors"
    result = run("convert", "squeezenet1_1", box)
    assert result.exit_code == 0 and result.stdout == f"{box}: squeezenet1_1, 1,000 classes\n"
    before = box.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(box)
    for target in (box, tmp_path / "link.safetensors", tmp_path / ".." / tmp_path.name / "box.safetensors"):
        assert "which is the same one" in refused("convert", box, target, "--half")
    assert box.read_bytes() == before
    npz = run("convert", box, tmp_path / "box.npz")
    assert npz.exit_code == 0 and npz.stdout == f"{tmp_path / 'box.npz'}: 52 arrays, 1,235,496 numbers\n"


def test_without_the_package_onnx_one_line_says_how_to_get_it(trained, tmp_path, monkeypatch):
    model, path = trained / "model.safetensors", tmp_path / "net.onnx"
    assert run("export", model, path).exit_code == 0
    monkeypatch.setitem(sys.modules, "onnx", None)
    for words in (("export", model, tmp_path / "other.onnx"), ("summary", path), ("predict", path, "photo.jpg")):
        assert 'pip install "tinynet[onnx]"' in refused(*words)
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize("freeze", [None, "relu2"])
def test_train_goes_on_from_an_onnx_file(freeze, photos, trained, tmp_path):
    path, output = tmp_path / "net.onnx", tmp_path / "run"
    assert run("export", trained / "model.safetensors", path).exit_code == 0
    words = ["train", "--from", path, "--data", photos, "--epochs", 3, "--output", output, "--workers", 1]
    result = run(*words, *([] if freeze is None else ["--freeze", freeze]))
    assert result.exit_code == 0, result.output
    start, made = load_model(path), load_model(output / "model.safetensors")
    assert made.classes == ["cat", "notcat"] and made.preprocessing == start.preprocessing
    before, after = start.model.state_dict(), made.model.state_dict()
    assert before.keys() == after.keys() and len(before) > 8
    same = {name for name, x in before.items() if np.array_equal(x, after[name])}
    frozen = set() if freeze is None else {name for name in before if name.split(".")[0] in ("conv1", "bn1", "conv2", "bn2")}
    assert same >= frozen and not {name for name in same - frozen if name.endswith("weight")}
    for name in before:                                         # it went on from there, and did not begin anew
        if name.startswith("conv1.weight"):
            assert np.corrcoef(before[name].ravel(), after[name].ravel())[0, 1] > 0.9


def test_a_network_that_ends_in_softmax_says_the_same_and_learns_the_same(photos, trained, tmp_path):
    plain = load_model(trained / "model.safetensors")
    whole = nn.Sequential({**dict(plain.model.named_children()), "prob": nn.Softmax(1)})
    files = [tmp_path / "plain.safetensors", tmp_path / "whole.safetensors"]
    for file, model in zip(files, (plain.model, whole), strict=True):
        plain._replace(model=model, name="net").save(file)
    photo = photos / "test" / "cat" / "0.png"
    for words in (["evaluate", None, "--data", photos / "test"], ["predict", None, photo]):
        first, second = (run(*(file if word is None else word for word in words)) for file in files)
        assert first.exit_code == 0 and second.stdout == first.stdout, second.output
    for file in files:
        words = ["train", "--from", file, "--data", photos, "--epochs", 1, "--workers", 1, "--output", tmp_path / file.stem]
        assert run(*words).exit_code == 0
    one, other = (load_model(tmp_path / file.stem / "model.safetensors").model.state_dict() for file in files)
    assert all(np.array_equal(x, other[name]) for name, x in one.items())


def test_a_network_that_gives_no_classes_or_others_than_it_names_is_one_line(photos, trained, tmp_path):
    plain, photo = load_model(trained / "model.safetensors"), photos / "test" / "cat" / "0.png"
    maps, many = tmp_path / "maps.safetensors", tmp_path / "many.safetensors"
    plain._replace(model=nn.Sequential(nn.Conv2d(3, 2, 3)), name="maps").save(maps)
    assert refused("predict", maps, photo) == "tinynet: expected a model with an output (N, classes), got (1, 2, 30, 30)"
    assert refused("evaluate", maps, "--data", photos / "test")
    plain._replace(model=nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), name="many").save(many)
    for words in (["predict", many, photo], ["evaluate", many, "--data", photos / "test"], ["explain", many, photo]):
        assert refused(*words, *(["--output", tmp_path / "out"] if "explain" in words else [])).endswith(
            "many: expected names for 5 classes, got cat, notcat")


def test_a_class_whose_name_would_drive_the_terminal_is_shown_escaped(photos, trained, tmp_path):
    file = tmp_path / "net.safetensors"
    load_model(trained / "model.safetensors")._replace(classes=["cat\x1b[2J", "dog\n"]).save(file)
    said = run("predict", file, photos / "test" / "cat" / "0.png", "--top", 2).stdout
    assert r"cat\x1b[2J" in said and r"dog\n" in said and said.count("\n") == 1
    assert r"classes: cat\x1b[2J, dog\n" in run("summary", file).stdout


def test_lenet_sees_photos_grey_and_small(tmp_path):
    """PyTorch's LeNet, its weights and its answers, of photos that Pillow made grey and 32 pixels high."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    twin = torch.nn.Sequential(OrderedDict(
        conv1=torch.nn.Conv2d(1, 6, 5), relu1=torch.nn.ReLU(), pool1=torch.nn.MaxPool2d(2), conv2=torch.nn.Conv2d(6, 16, 5),
        relu2=torch.nn.ReLU(), pool2=torch.nn.MaxPool2d(2), flatten=torch.nn.Flatten(), fc1=torch.nn.Linear(400, 120),
        relu3=torch.nn.ReLU(), fc2=torch.nn.Linear(120, 84), relu4=torch.nn.ReLU(), fc3=torch.nn.Linear(84, 10),
    ))
    twin.fc3.weight.data *= 40                                  # so that the answers differ
    torch.save(twin.state_dict(), tmp_path / "lenet.pth")
    paths = []
    for i, size in enumerate(((32, 32), (50, 70), (90, 33), (20, 24))):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        paths.append(tmp_path / f"{i}.png")
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(paths[-1])
    result = run("predict", tmp_path / "lenet.pth", *paths, "--top", 10)
    assert result.exit_code == 0, result.output
    for path, line in zip(paths, result.stdout.splitlines(), strict=True):
        photo = Image.open(path)
        w, h = (32 * side // min(photo.size) for side in photo.size)
        grey = photo.resize((w, h), Image.Resampling.BILINEAR).convert("L")
        left, top = round((w - 32) / 2), round((h - 32) / 2)
        x = (np.asarray(grey)[top : top + 32, left : left + 32] / 255 - 0.1307) / 0.3081
        with torch.inference_mode():
            expected = twin(torch.tensor(x, dtype=torch.float32)[None, None]).softmax(1)[0].numpy()
        said = {int(digit): float(share) for digit, share in re.findall(r"(\d)  ([\d.]+) %", line)}
        assert len(said) == 10 and next(iter(said)) == expected.argmax()
        np.testing.assert_allclose([said[i] for i in range(10)], 100 * expected, rtol=0, atol=0.06)


def test_the_help_says_in_whole_lines_what_the_commands_do():
    result = run("--help")
    commands = result.stdout.split("Commands:\n")[1].strip().splitlines()
    assert result.exit_code == 0 and len(commands) == 11 and "…" not in result.stdout
    assert all(line.endswith(".") and not line.endswith("...") and len(line) < 80 for line in commands)
    assert run("--version").stdout.startswith("tinynet 0.")
    assert run().output == result.output
