"""The commands on a GPU that is a strict double (with `pytest -m gpu` on a real one): all of it has the host's results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.fake_gpu import fake_gpu
from tests.study.test_study import photos as tiny_photos
from tests.study.test_study import studynet, write
from tests.study.test_study import trained as tiny_model
from tests.test_cli import photos, refused, run  # noqa: F401 (photos is a fixture)
from tests.train.runs import fingerprint, trainer
from tinynet import backend
from tinynet.errors import DeviceError
from tinynet.models import load_model, registry


@pytest.fixture(scope="module", params=["double", pytest.param("cupy", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "double":
        with fake_gpu():
            yield
        return
    try:
        backend.device("cuda")
    except DeviceError as error:
        pytest.skip(str(error))
    yield


TRAIN = ("--size", 16, "--workers", 1, "--seed", 3)


def ok(*words: Any) -> str:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def tensors(path: Path) -> dict[str, np.ndarray]:
    return load_file(path)


def close(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Of all numbers of a tensor taken together: Adam moves a weight whose gradient is nothing but rounding by a whole step, this
    way or that, so that single weights say little about two devices that add up in another order.
    """
    assert a.keys() == b.keys()
    for name in a:
        mine, its = (np.asarray(x[name], np.float64) for x in (a, b))
        assert np.linalg.norm(mine - its) <= 4e-4 * np.linalg.norm(mine) + 1e-5, name


@pytest.fixture(scope="module")
def both(gpu: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:  # noqa: F811
    """The same training on the host and on the double."""
    folders = {}
    for device in ("cpu", "cuda"):
        folders[device] = tmp_path_factory.mktemp(device)
        ok("train", "--data", photos, *TRAIN, "--epochs", 2, "--output", folders[device], "--device", device)
    return folders


@pytest.fixture(scope="module")
def whole(photos: Path, both: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The host's training, gone on with on the host."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(both["cpu"], folder, dirs_exist_ok=True)
    ok("train", "--data", photos, *TRAIN, "--epochs", 3, "--output", folder, "--resume")
    return folder


def test_a_training_on_the_device_is_that_of_the_host(both: dict[str, Path]) -> None:
    for name in ("model.safetensors", "last.safetensors"):
        close(tensors(both["cpu"] / name), tensors(both["cuda"] / name))
    mine, its = (json.loads((both[device] / "figures.json").read_text()) for device in ("cpu", "cuda"))
    assert mine["test"]["loss"] == pytest.approx(its["test"]["loss"], abs=1e-4)


@pytest.mark.parametrize("first, second", [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_checkpoint_goes_on_on_either(
    gpu: Any, photos: Path, both: dict[str, Path], whole: Path, tmp_path: Path, first: str, second: str  # noqa: F811
) -> None:
    shutil.copytree(both[first], tmp_path / "run")
    ok("train", "--data", photos, *TRAIN, "--epochs", 3, "--output", tmp_path / "run", "--device", second, "--resume")
    close(tensors(tmp_path / "run" / "model.safetensors"), tensors(whole / "model.safetensors"))


@pytest.mark.parametrize("freeze", [(), ("--freeze", "relu2")])
def test_fine_tuning_from_a_trained_network_is_that_of_the_host(
    gpu: Any, photos: Path, both: dict[str, Path], tmp_path: Path, freeze: tuple[str, ...]  # noqa: F811
) -> None:
    start = both["cpu"] / "model.safetensors"
    for device in ("cpu", "cuda"):
        ok("train", "--from", start, *freeze, "--data", photos, "--epochs", 2, "--workers", 1, "--seed", 3,
           "--output", tmp_path / device, "--device", device)  # fmt: skip
    before, mine, its = (tensors(path) for path in (start, *(tmp_path / d / "model.safetensors" for d in ("cpu", "cuda"))))
    close(mine, its)
    stays = {name for name in before if np.array_equal(before[name], its[name])}
    kept = {name for name in before if freeze and name.split(".")[0] in ("conv1", "bn1", "conv2", "bn2")}
    assert kept <= stays and not {name for name in stays - kept if name.endswith("weight")}


def test_evaluate_and_predict_say_the_same(gpu: Any, photos: Path, both: dict[str, Path]) -> None:  # noqa: F811
    model, test = both["cuda"] / "model.safetensors", photos / "test"
    assert ok("evaluate", model, "--data", test, "--device", "cuda") == ok("evaluate", model, "--data", test)
    pictures = sorted((test / "cat").iterdir())[:3]
    assert ok("predict", model, *pictures, "--device", "cuda:0") == ok("predict", model, *pictures)


def test_explain_atlas_and_study_are_those_of_the_host(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES, "studynet", registry.Entry(studynet))
    model, test = tmp_path / "model.safetensors", tmp_path / "photos"
    tiny_model().save(model)
    write(test, tiny_photos(24))
    picture = next((test / "dark").iterdir())
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        ok("explain", model, picture, "--units", 1, "--layers", "relu1,relu3", "--output", out / "explain", "--device", device)
        ok("atlas", model, test, "--units", 2, "--workers", 1, "--output", out / "atlas", "--device", device)
        ok("study", model, test, "--quick", "--train", 1, "--workers", 1, "--output", out / "study", "--device", device)
    mine, its = (json.loads((tmp_path / device / "explain" / "figures.json").read_text()) for device in ("cpu", "cuda"))
    same(mine["photos"], its["photos"], "explain")
    mine, its = (json.loads((tmp_path / device / "study" / "figures.json").read_text()) for device in ("cpu", "cuda"))
    assert mine["skipped"] == its["skipped"]
    for figures in (mine, its):
        figures.pop("command")
    same(mine, its, "study")
    mine, its = (tensors(tmp_path / device / "atlas" / "top.safetensors") for device in ("cpu", "cuda"))
    assert mine.keys() == its.keys()
    for name in mine:
        np.testing.assert_allclose(mine[name].astype(float), its[name].astype(float), rtol=1e-4, atol=1e-5, err_msg=name)
    names = sorted(path.relative_to(tmp_path / "cpu") for path in (tmp_path / "cpu").rglob("*.png"))
    assert names == sorted(path.relative_to(tmp_path / "cuda") for path in (tmp_path / "cuda").rglob("*.png"))
    for name in names:
        with Image.open(tmp_path / "cpu" / name) as a, Image.open(tmp_path / "cuda" / name) as b:
            difference = np.abs(np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float))
        assert difference.mean() < 0.5, name


def same(a: Any, b: Any, where: str) -> None:
    """Equal but for the last digits; times may differ."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key != "seconds":
                same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=2e-3, abs=2e-3), where
    else:
        assert a == b, where


def test_the_same_seed_starts_from_the_same_weights(gpu: Any) -> None:
    host, device = trainer(), trainer()
    device.model.to("cuda")
    for name, x in device.model.state_dict().items():
        assert backend.device_of(x).kind == "cuda"
        np.testing.assert_array_equal(x.get(), host.model.state_dict()[name])


@pytest.mark.parametrize("words, message", [
    (("--device", "gpu"), 'unknown device "gpu"'), (("--device", "cuda:99"), 'no device "cuda:99": this machine has'),
    (("--precision", "tf32"), "--precision tf32 is a GPU's"),
    (("--device", "cuda", "--precision", "half"), 'expected precision "float32", "tf32" or "float16"'),
])  # fmt: skip
def test_a_device_that_is_not_there_is_one_line(gpu: Any, words: tuple[str, ...], message: str) -> None:
    assert message in refused("train", *words)


def test_load_model_puts_it_on_a_device(gpu: Any, both: dict[str, Path]) -> None:
    model = load_model(both["cpu"] / "model.safetensors", "cuda").model
    assert all(backend.device_of(x).kind == "cuda" for x in model.state_dict().values())
    model.to("cpu")
    assert all(backend.device_of(x).kind == "cpu" for x in model.state_dict().values())


def test_an_interrupted_run_goes_on_to_the_bit_on_the_device(gpu: Any, tmp_path: Path) -> None:
    def on_device(epochs: int, folder: str) -> Any:
        made = trainer(epochs=epochs)
        made.model.to("cuda")
        return type(made)(
            made.model, made.loss, type(made.optimizer)(made.model.named_parameters(), lr=0.05, momentum=0.9), made.train_loader,
            made.validation_loader, epochs=epochs, output=tmp_path / folder, seed=5, workers=1, progress="none",
        )

    whole = on_device(3, "whole")
    whole.fit()
    on_device(1, "parts").fit()
    rest = on_device(3, "parts")
    rest.fit(resume=True)
    for made in (whole, rest):
        made.model.to("cpu")
        for slots in made.optimizer.state.values():
            slots.update({name: x.get() for name, x in slots.items() if hasattr(x, "get")})
    assert fingerprint(whole) == fingerprint(rest)
