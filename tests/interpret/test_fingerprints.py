"""A fingerprint is the same for the same, and another for whatever a result depends on."""

from __future__ import annotations

import numpy as np

from tests.interpret.test_top import photos, small
from tinynet import nn
from tinynet.data import ArrayDataset, BrokenPhoto, Dataset
from tinynet.data.transforms import ToArray
from tinynet.interpret.fingerprints import model_fingerprint, photos_fingerprint


def test_a_model_is_its_structure_and_its_weights() -> None:
    nudged, other = small(), small()
    nudged.layer("fc").weight[0, 0] += 1                        # type: ignore[attr-defined]
    other.layer("conv2").padding = (0, 0)                       # type: ignore[attr-defined]
    models: list[nn.Layer] = [small(), small(1), nudged, other, small().to(dtype=np.float64)]
    assert len({model_fingerprint(model) for model in models}) == len(models)
    assert model_fingerprint(small()) == model_fingerprint(models[0])


def test_photos_are_their_number_labels_classes_and_pixels_as_a_model_gets_them() -> None:
    def fingerprint(dataset: Dataset, factor: float = 1.0) -> str:
        return photos_fingerprint(dataset, lambda image, rng: ToArray()(image, rng) * np.float32(factor))

    one = photos(5, (9, 10))
    images, labels, classes = one.images, one.labels, one.classes
    found = [
        fingerprint(one), fingerprint(one, 2.0), fingerprint(photos(5, (9, 10), 1)), fingerprint(photos(4, (9, 10))),
        fingerprint(ArrayDataset(images, 1 - labels, classes)), fingerprint(ArrayDataset(images, labels, ["a", "c"])),
    ]
    assert len(set(found)) == len(found) and fingerprint(photos(5, (9, 10))) == found[0]


def test_a_broken_photo_is_not_the_whole_one() -> None:
    class Broken(ArrayDataset):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            if index == 2:
                raise BrokenPhoto("broken")
            return super().__getitem__(index)

    one = photos(5, (9, 10))
    broken = photos_fingerprint(Broken(one.images, one.labels, one.classes), ToArray())
    assert broken == photos_fingerprint(Broken(one.images, one.labels, one.classes), ToArray())
    assert broken != photos_fingerprint(one, ToArray())
