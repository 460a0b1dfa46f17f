"""Frozen features: what the frozen part gives for the loader's own batches, whether kept or computed anew; and fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tinynet import nn
from tinynet.cli import app
from tinynet.data import ArrayDataset, Loader, transforms
from tinynet.errors import ArgumentError
from tinynet.models import boxed, create, load_model
from tinynet.train.classifier import fine_tuning, take_over
from tinynet.train.features import FrozenLoader


def base() -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(conv=nn.Conv2d(3, 4, 3, rng=rng), bn=nn.BatchNorm2d(4), relu=nn.ReLU())


def loader(batch: int = 4, drop: bool = False, transform: object = None) -> Loader:
    rng = np.random.default_rng(1)
    photos = ArrayDataset(rng.integers(0, 255, (10, 12, 12, 3), dtype=np.uint8), np.arange(10) % 2, ["a", "b"])
    crop = transforms.Compose([transforms.RandomCrop(8), transforms.ToArray()]) if transform is None else transform
    return Loader(photos, batch, crop, shuffle=True, seed=3, drop_last=drop)


@pytest.mark.parametrize("views", [0, 1, 2])
@pytest.mark.parametrize("drop", [True, False])
def test_without_augmentation_the_batches_are_the_loaders_own(views: int, drop: bool) -> None:
    plain = loader(drop=drop, transform=transforms.Compose([transforms.CenterCrop(8), transforms.ToArray()]))
    part = base()
    frozen = FrozenLoader(part, plain, views, workers=1)
    assert len(frozen) == len(plain) and frozen.kept == views
    for epoch, start in ((0, 0), (1, 0), (1, 1)):
        for (x, y), (features, labels) in zip(plain.batches(epoch, start), frozen.batches(epoch, start), strict=True):
            np.testing.assert_allclose(features, part(x), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(labels, y)
    assert int(part.state_dict()["bn.num_batches_tracked"]) == 0          # it ran as at inference


def test_views_are_the_loaders_augmentation_and_the_same_in_every_call() -> None:
    part, plain = base(), loader()
    frozen = FrozenLoader(part, plain, 2, workers=1)
    alone = Loader(plain.dataset, 10, plain.transform, seed=3)
    views = [part(next(iter(alone.batches(view)))[0]) for view in range(2)]
    seen = set()
    for epoch in range(6):
        again = list(frozen.batches(epoch))
        for (x, y), (z, w), members in zip(frozen.batches(epoch), again, np.split(plain.order(epoch), [4, 8]), strict=True):
            np.testing.assert_array_equal(x, z)
            np.testing.assert_array_equal(y, w)
            for row, i in zip(x, members, strict=True):
                which = [v for v in range(2) if np.allclose(row, views[v][i], atol=1e-5)]
                assert which
                seen.update((int(i), v) for v in which)
    assert len(seen) == 20                                     # each sample came in both views


def test_memory_is_bounded() -> None:
    each = 10 * 4 * 6 * 6 * 4
    assert FrozenLoader(base(), loader(), 5, memory=2.5 * each).kept == 2
    assert FrozenLoader(base(), loader(), 5, memory=0.5 * each).kept == 0
    with pytest.raises(ArgumentError, match="views"):
        FrozenLoader(base(), loader(), -1)


def test_take_over_leaves_only_a_last_layer_of_other_classes() -> None:
    start, model = boxed(), create("squeezenet1_1", classes=2, rng=np.random.default_rng(0))
    fresh = model.state_dict()["classifier.1.weight"].copy()
    take_over(start, model)
    for name, x in model.state_dict().items():
        if not name.startswith("classifier.1."):
            np.testing.assert_array_equal(x, start.model.state_dict()[name])
    np.testing.assert_array_equal(model.state_dict()["classifier.1.weight"], fresh)
    with pytest.raises(ArgumentError, match="do not fit"):
        take_over(start, create("resnet18", rng=nn.init.no_draws))
    assert fine_tuning(start, "features").lr > fine_tuning(start).lr


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish and bluish noise."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, name in enumerate(("cat", "notcat")):
        (root / name).mkdir()
        for i in range(12):
            picture = rng.integers(0, 80, (40, 36, 3))
            picture[..., 2 * number] += 150
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def test_fine_tuning_from_the_box_trains_the_head_and_leaves_the_rest(photos: Path, tmp_path: Path) -> None:
    words = ["train", "--from", "squeezenet1_1", "--freeze", "features", "--data", str(photos), "--workers", "1", "--output"]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "a"), "--epochs", "2"])
    assert result.exit_code == 0, result.output
    assert "1,026 parameters are trained" in result.output
    found = load_model(tmp_path / "a" / "model.safetensors")
    assert found.name == "squeezenet1_1" and found.classes == ["cat", "notcat"]
    for name, x in found.model.state_dict().items():
        same = name in (state := boxed().model.state_dict()) and np.array_equal(x, state[name])
        assert same != name.startswith("classifier."), name
    assert json.loads((tmp_path / "a" / "figures.json").read_text())["train"]["accuracy"] >= 0.5
    result = CliRunner().invoke(app, [*words, str(tmp_path / "b"), "--epochs", "1"])
    assert result.exit_code == 0
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "a" / "model.safetensors"), str(photos / "cat" / "0.png")])
    assert result.exit_code == 0 and "cat" in result.output
    again = [str(tmp_path / "a" / "model.safetensors") if word == "squeezenet1_1" else word for word in words]
    result = CliRunner().invoke(app, [*again, str(tmp_path / "c"), "--epochs", "1"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("words", "message"), [
    (["--from", "squeezenet1_1"], "goes with --data"), (["--freeze", "features"], "goes with --from"),
    (["--from", "squeezenet1_1", "--data", "PHOTOS", "--size", "64"], "without --size"),
    (["--from", "squeezenet1_1", "--freeze", "features.99", "--data", "PHOTOS"], "no layer 'features.99'; nearest"),
    (["--from", "squeezenet1_1", "--freeze", "flatten", "--data", "PHOTOS"], "nothing is left to train"),
    (["--from", "resnet18", "--data", "PHOTOS"], "not in the box"),
])  # fmt: skip
def test_mistakes(photos: Path, tmp_path: Path, words: list[str], message: str) -> None:
    words = [str(photos) if word == "PHOTOS" else word for word in words]
    result = CliRunner().invoke(app, ["train", *words, "--output", str(tmp_path)])
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1
