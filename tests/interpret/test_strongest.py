"""Photos through a model: broken ones are passed over, and a GPU that takes them together finds what one by one gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.fake_gpu import fake_gpu
from tests.interpret.test_top import Interrupting, photos, small
from tinynet import nn
from tinynet.data import ArrayDataset, BrokenPhoto, Subset
from tinynet.errors import ArgumentError
from tinynet.interpret import strongest
from tinynet.interpret.top import top_activations


@pytest.mark.parametrize("batch", [1, 4])
def test_a_photo_found_broken_is_passed_over(batch: int):
    dataset, model = photos(9, (9, 10)), small()

    class Broken(Interrupting):
        def __getitem__(self, index: int) -> Any:
            if index in (0, 5):
                raise BrokenPhoto("broken")
            return self.dataset[index]

    found = top_activations(model, Broken(dataset, -1), k=3, batch_size=batch, progress=False)
    kept = np.array([1, 2, 3, 4, 6, 7, 8])
    expected = top_activations(model, Subset(dataset, kept), k=3, progress=False)
    for layer in expected.layers:
        np.testing.assert_array_equal(found[layer].images, kept[expected[layer].images])
        np.testing.assert_array_equal(found[layer].values, expected[layer].values)


def test_activations_that_are_not_finite_are_named():
    model = small()
    model.layer("conv2").weight[3, 0, 1, 1] = np.nan            # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"layer 'relu2': its activations for picture 0 are not finite"):
        top_activations(model, photos(3, (9, 10)), workers=1, progress=False)


class Odd:
    """Photos of which some are broken, and some of another size."""

    def __init__(self, dataset: ArrayDataset, broken: set[int], wide: set[int]) -> None:
        self.dataset, self.broken, self.wide = dataset, broken, wide
        self.classes, self.labels = dataset.classes, dataset.labels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if index in self.broken:
            raise BrokenPhoto(f"{index} is broken")
        image, label = self.dataset[index]
        return (image if index not in self.wide else np.repeat(image, 2, axis=1)), label

    def name(self, index: int) -> str:
        return self.dataset.name(index)


@pytest.mark.parametrize("by", ["max", "mean"])
@pytest.mark.parametrize("batch_size, at_once", [(1, 32), (5, 3), (4, 32), (64, 7)])
def test_a_gpu_takes_photos_together_and_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, by: str, batch_size: int, at_once: int
) -> None:
    layers, batches = ["conv1", "relu2"], []
    model = nn.Sequential(**{name: layer for name, layer in small().named_children() if name not in ("flatten", "fc")})
    dataset = Odd(photos(17, (9, 10)), {0, 3, 4, 5, 16}, {7, 8, 11})
    one_by_one = top_activations(model, dataset, layers, k=4, by=by, progress=False)
    with fake_gpu():
        model.to("cuda")
        monkeypatch.setattr(strongest, "PASS", at_once)
        infer = type(model).infer

        def counting(self: nn.Sequential, x: Any, watch: Any) -> Any:
            if self is model:
                batches.append(tuple(x.shape))
            return infer(self, x, watch)

        monkeypatch.setattr(type(model), "infer", counting)
        together = top_activations(model, dataset, layers, k=4, by=by, batch_size=batch_size, workers=2, progress=False)
    assert together.done == together.total == 17
    assert sum(shape[0] for shape in batches) == 12 and max(shape[0] for shape in batches) <= min(batch_size, at_once)
    assert {shape[3] for shape in batches} == {10, 20}
    assert batch_size == 1 or len(batches) < 12
    for layer in layers:
        np.testing.assert_array_equal(together[layer].images, one_by_one[layer].images)
        np.testing.assert_array_equal(together[layer].positions, one_by_one[layer].positions)
        np.testing.assert_allclose(together[layer].values, one_by_one[layer].values, rtol=1e-5, atol=1e-6)
