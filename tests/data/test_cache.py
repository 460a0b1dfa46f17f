"""cached: the same pictures, decoded once."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinynet.data import ArrayDataset, ImageFolder, Subset, cached
from tinynet.errors import ArgumentError


@pytest.fixture
def photos(tmp_path: Path) -> ImageFolder:
    rng = np.random.default_rng(0)
    for name in ("cat/a.jpg", "cat/b.png", "notcat/a.jpg", "notcat/b.webp", "notcat/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    return ImageFolder(tmp_path)


def test_files_are_read_once(photos: ImageFolder) -> None:
    kept = cached(photos, 20)
    before = [kept[i] for i in range(5)]
    for path in photos.paths:
        path.unlink()
    for i, (image, label) in enumerate(before):
        np.testing.assert_array_equal(kept[i][0], image)
        assert image.shape == (20, 30, 3) and label == photos.labels[i]


def test_beyond_the_memory_the_pictures_are_the_same(photos: ImageFolder, caplog: pytest.LogCaptureFixture) -> None:
    whole = cached(photos, 20)
    with caplog.at_level(logging.WARNING, "tinynet.data"):
        part = cached(photos, 20, memory=2.5 * 20 * 30 * 3)
    assert (whole.kept, part.kept) == (5, 2)
    assert "3 of 5 photos do not fit" in caplog.text
    for i in range(5):
        np.testing.assert_array_equal(whole[i][0], part[i][0])


def test_a_photo_that_proves_broken_is_left_out_with_its_label(photos: ImageFolder) -> None:
    photos.paths[2].write_bytes(b"overwritten")
    kept = cached(Subset(photos, [4, 2, 0]), 20)
    assert len(kept) == 2 and kept.labels.tolist() == [1, 0] and kept.indices.tolist() == [0, 2]
    assert kept.name(1) == str(photos.paths[0])
    np.testing.assert_array_equal(kept[1][0], photos.load(0, 20))
    np.testing.assert_array_equal(cached(Subset(photos, [4, 2, 0]), 20, memory=0)[1][0], photos.load(0, 20))


def test_an_array_dataset_can_be_reduced_too() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 3), dtype=np.uint8)
    dataset = ArrayDataset(images, [0, 1], ["a", "b"])
    expected = np.asarray(Image.fromarray(images[1]).resize((8, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(cached(dataset, 4)[1][0], expected)
    np.testing.assert_array_equal(cached(dataset)[1][0], images[1])
    with pytest.raises(ArgumentError, match="size"):
        cached(dataset, 0)
