"""Transfer: the softmax against PyTorch's optimum, the protocol, and features that are known to carry the classes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from tinynet import nn
from tinynet.data import ArrayDataset, transforms
from tinynet.errors import ArgumentError
from tinynet.study.softmax import classify, fit_softmax
from tinynet.study.transfer import Features, frozen_features, plot_transfer, transfer


@pytest.mark.parametrize("decay", [1e-1, 1e-3, 1e-5])
def test_softmax_reaches_pytorchs_optimum(decay: float) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 5)) / 2, rng.integers(0, 3, 60)
    weight, bias = fit_softmax(x, labels, 3, decay, tolerance=1e-8)
    w, b = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([w, b], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        logits = torch.from_numpy(x) @ w + b
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)) + decay / 2 * (w**2).sum()

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(w, b)
        value.backward()
        return value

    optimiser.step(closure)
    ours = loss(torch.from_numpy(weight), torch.from_numpy(bias))
    assert float(ours) == pytest.approx(float(loss(w.detach(), b.detach())), abs=1e-7)
    np.testing.assert_allclose(weight, w.detach().numpy(), atol=2e-3)
    rough, low = fit_softmax(x.astype(np.float32), labels, 3, decay)
    assert rough.dtype == low.dtype == np.float32
    theirs = loss(torch.from_numpy(rough.astype(float)), torch.from_numpy(low.astype(float)))
    assert float(theirs) == pytest.approx(float(ours), abs=2e-4)


def test_many_features_are_reduced_without_loss() -> None:
    """More features than photos: the answer is that of the softmax on all of them."""
    rng = np.random.default_rng(1)
    x, labels, test = rng.standard_normal((12, 40)), np.arange(12) % 3, rng.standard_normal((50, 40))
    said = classify(x, labels, test, 3, 0.01)
    mean = x.mean(axis=0)
    scale = np.sqrt(((x - mean) ** 2).sum(axis=1).mean())
    weight, bias = fit_softmax((x - mean) / scale, labels, 3, 0.01)
    np.testing.assert_array_equal(said, ((test - mean) / scale @ weight + bias).argmax(axis=1))


def set_of(informative: bool) -> Features:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), [40, 50, 60, 100])
    good = np.eye(4)[labels] * 3 + rng.standard_normal((250, 4))
    return Features({"a": good.astype(np.float32), "b": rng.standard_normal((250, 4)).astype(np.float32)}, labels, tuple("wxyz"))


def test_informative_features_win_and_noise_is_at_chance() -> None:
    found = transfer(set_of(True), (15, 30), 5)
    rows = {(row.layer, row.per_class): row for row in found.rows}
    assert list(rows) == [("a", 15), ("a", 30), ("b", 15), ("b", 30)]
    assert rows["a", 15].accuracy > 0.9
    assert rows["b", 30].accuracy == pytest.approx(0.25, abs=0.12)
    assert 0 < rows["b", 30].error < 0.1
    assert "15 per class" in found.table()


def test_classes_count_alike_and_folds_do_not_mix_train_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that always says class 0 has accuracy 1/4 whatever the sizes of the classes."""
    module = import_module("tinynet.study.transfer")
    seen: list = []

    def always_first(x: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, decay: float) -> np.ndarray:
        seen.append((np.bincount(labels).tolist(), len(test), {tuple(v) for v in x.tolist()} & {tuple(v) for v in test.tolist()}))
        return np.zeros(len(test), int)

    monkeypatch.setattr(module, "classify", always_first)
    found = transfer(set_of(True), (30,), 3, workers=1)
    assert all(row.accuracy == 0.25 for row in found.rows)
    assert seen[0] == ([30] * 4, 10 + 20 + 30 + 50, set())


def test_too_few_photos_are_named() -> None:
    with pytest.raises(ArgumentError, match="more than 40 photos of every class, 'w' has 40"):
        transfer(set_of(True), (15, 40))


def test_features_are_those_of_the_layers() -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, rng=rng), relu1=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        fc=nn.Linear(4, 2, rng=rng),
    )
    images = rng.integers(0, 256, (10, 10, 10, 3), dtype=np.uint8)
    photos = ArrayDataset(images, np.arange(10) % 2, ["a", "b"])
    found = frozen_features(model, photos, transforms.ToArray(), batch_size=4, workers=2)
    x = np.stack([transforms.ToArray()(image, None) for image in images])
    seen: dict[str, np.ndarray] = {}
    model.forward(x, watch=lambda path, _, y: seen.update({path: y}))
    assert list(found.layers) == ["relu1", "flatten"]
    np.testing.assert_allclose(found.layers["flatten"], seen["flatten"], rtol=1e-5)
    np.testing.assert_allclose(
        found.layers["relu1"], seen["relu1"].reshape(10, 4, 4, 2, 4, 2).mean(axis=(3, 5)).reshape(10, -1), rtol=1e-5
    )
    np.testing.assert_array_equal(found.labels, np.arange(10) % 2)
    with pytest.raises(ArgumentError, match="nearest"):
        frozen_features(model, photos, transforms.ToArray(), ["relu7"])


def test_the_picture_is_written(tmp_path: Path) -> None:
    found = transfer(set_of(True), (5, 15), 2)
    assert plot_transfer({"trained": found, "random weights": found}, tmp_path / "a.png").stat().st_size > 5000
