"""Class folders: what is found, in which order, what is reported, what is refused."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, WebPImagePlugin

from tests.data.test_photo import broken_files
from tinynet.data import ArrayDataset, BrokenPhoto, ImageFolder, Loader, Subset, cached, describe
from tinynet.errors import ArgumentError, DtypeError, FileError, ShapeError


def photo(path: Path, value: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for value, name in enumerate(["notcat/b.png", "cat/z.png", "cat/deep/a.PNG", "cat/m.jpg", "notcat/a.webp"]):
        photo(root / name, value * 20)
    for name in ("cat/.DS_Store", "cat/.hidden.png", "cat/.thumbs/x.png", ".git/x.png", "notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no photo")
    (root / "cat/readme.md").write_text("no photo either")
    return root


def test_order_labels_and_what_is_passed_over(folder: Path) -> None:
    photos = ImageFolder(folder)
    assert photos.classes == ["cat", "notcat"]
    names = [path.relative_to(folder).as_posix() for path in photos.paths]
    assert names == ["cat/deep/a.PNG", "cat/m.jpg", "cat/z.png", "notcat/a.webp", "notcat/b.png"]
    assert photos.labels.tolist() == [0, 0, 0, 1, 1] and photos.labels.dtype == np.int64
    image, label = photos[2]
    assert image.shape == (6, 8, 3) and image[0, 0].tolist() == [20, 20, 20] and label == 0
    assert [path.name for path in photos.ignored] == ["readme.md"] and photos.broken == []


def test_classes_can_be_chosen_and_ordered(folder: Path) -> None:
    photo(folder / "extra/a.png")
    assert ImageFolder(folder).classes == ["cat", "extra", "notcat"]
    chosen = ImageFolder(folder, classes=["notcat", "cat"])
    assert chosen.classes == ["notcat", "cat"] and chosen.labels.tolist() == [0, 0, 1, 1, 1]
    with pytest.raises(FileError, match="no class folder 'dog'; there are cat, extra, notcat"):
        ImageFolder(folder, classes=["cat", "dog"])


def test_nothing_is_decoded_before_it_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
        def load(self: ImageFile.ImageFile, plain: Callable[..., Any] = kind.load) -> Any:
            decoded.append(self.filename)
            return plain(self)
        monkeypatch.setattr(kind, "load", load)
    photos = ImageFolder(folder)
    assert len(photos) == 5 and decoded == []
    for i in range(5):
        photos[i]
    assert set(decoded) == {str(path) for path in photos.paths}


def test_broken_photos_are_reported_by_name_and_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = broken_files(folder / "cat")
    with caplog.at_level(logging.WARNING, "tinynet.data"):
        photos = ImageFolder(folder)
    assert len(photos) == 6                            # damaged.png shows its damage only when decoded
    found = {broken.path for broken in photos.broken}
    assert found == {path for name, path in bad.items() if name != "damaged.png"}
    for path in found:
        assert sum(str(path) in record.getMessage() for record in caplog.records) == 1
    assert len(photos.labels) == len(photos) and photos.labels.tolist() == [0, 0, 0, 0, 1, 1]


def test_strict_raises_and_names_the_file(folder: Path) -> None:
    (folder / "cat/n.jpg").write_bytes(b"")
    with pytest.raises(FileError, match=r"n\.jpg: empty file"):
        ImageFolder(folder, strict=True)


def late(folder: Path) -> tuple[ImageFolder, int]:
    """A dataset in which one photo has become unreadable after it was made, and that photo's index."""
    photos = ImageFolder(folder)
    photos.paths[1].write_bytes(b"overwritten")
    return photos, 1


def test_damage_found_late_leaves_the_sample_out_of_its_batch(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, bad = late(folder)
    with caplog.at_level(logging.WARNING, "tinynet.data"):
        runs = [[(x[:, 0, 0, 0] * 255, y.tolist()) for x, y in Loader(photos, 3, workers=workers).batches(epoch)]
                for workers in (0, 2) for epoch in (0, 1)]
    for (first, cats), (second, others) in runs:       # the grey values of the four photos that are left
        np.testing.assert_allclose(first, [40, 20], atol=1e-4)
        np.testing.assert_allclose(second, [80, 0], atol=1e-4)
        assert (cats, others) == ([0, 0], [1, 1])
    assert len(photos.broken) == 1 and len(caplog.records) == 1       # said once, though met four times
    with pytest.raises(BrokenPhoto, match=r"m\.jpg"):
        photos[bad]


def test_a_batch_without_any_readable_photo_is_an_error(folder: Path) -> None:
    photos, _ = late(folder)
    with pytest.raises(FileError, match=r"m\.jpg: broken, as every photo of its batch"):
        list(Loader(photos, 1))


def test_late_damage_in_a_strict_folder_is_raised_by_the_loader(folder: Path) -> None:
    photos = ImageFolder(folder, strict=True)
    photos.paths[1].unlink()
    with pytest.raises(FileError, match=r"m\.jpg: no such photo"):
        list(Loader(photos, 3))


def test_refusals_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    wanted = "expected two or more class folders like .*cat, .*notcat"
    with pytest.raises(FileError, match=f"no such folder; {wanted}"):
        ImageFolder(tmp_path / "missing")
    with pytest.raises(FileError, match=f"a file, not a folder; {wanted}"):
        ImageFolder(folder / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=f"{wanted}, found none"):
        ImageFolder(tmp_path / "empty")
    (folder / "void").mkdir()
    with pytest.raises(FileError, match="void: no photo in this class folder"):
        ImageFolder(folder)
    shutil.rmtree(folder / "void")
    shutil.rmtree(folder / "notcat")
    with pytest.raises(FileError, match=f"{wanted}, found only cat"):
        ImageFolder(folder)
    (folder / "dog").mkdir()
    (folder / "dog/a.jpg").write_bytes(b"")
    with pytest.raises(FileError, match="dog: none of its 1 photos can be read"):
        ImageFolder(folder)
    with pytest.raises(ArgumentError, match="size"):
        ImageFolder(folder, size=0)


def test_size_bounds_the_shorter_side(folder: Path) -> None:
    photo(folder / "cat/large.png", size=(80, 40))
    photos = ImageFolder(folder, size=10)
    assert photos[photos.paths.index(folder / "cat/large.png")][0].shape == (10, 20, 3)


def test_array_dataset_checks_what_it_is_given() -> None:
    images = np.zeros((4, 2, 2, 3), np.uint8)
    with pytest.raises(DtypeError, match="uint8"):
        ArrayDataset(images.astype(np.float32), [0, 1, 0, 1], ["a", "b"])       # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(N, H, W, 3\)"):
        ArrayDataset(images[..., 0], [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(ShapeError, match="4 labels"):
        ArrayDataset(images, [0, 1], ["a", "b"])
    with pytest.raises(DtypeError, match="integer"):
        ArrayDataset(images, [0.0, 1.0, 0.0, 1.0], ["a", "b"])
    with pytest.raises(ArgumentError, match="labels from 0 to 1"):
        ArrayDataset(images, [0, 1, 2, 1], ["a", "b"])
    with pytest.raises(ArgumentError, match="labels from 0 to 1"):
        ArrayDataset(images, [0, 1, -1, 1], ["a", "b"])


def test_subset_selects_and_refuses(folder: Path) -> None:
    photos = ImageFolder(folder)
    part = Subset(photos, [4, 0])
    assert len(part) == 2 and part.labels.tolist() == [1, 0] and part[0][1] == 1 and part.name(0).endswith("b.png")
    np.testing.assert_array_equal(part[0][0], photos[4][0])
    assert len(Subset(photos, [])) == 0
    for wrong in ([5], [-1]):
        with pytest.raises(ArgumentError, match="indices from 0 to 4"):
            Subset(photos, wrong)
    with pytest.raises(DtypeError):
        Subset(photos, [0.5])
    with pytest.raises(DtypeError):
        Subset(photos, [True, False, True, False, True])


def test_describe(folder: Path) -> None:
    photo(folder / "cat/large.png", size=(80, 40))
    (folder / "cat/n.jpg").write_bytes(b"")
    photos = ImageFolder(folder)
    said = describe(photos)
    assert said["photos"] == 6
    assert said["classes"] == [{"class": "cat", "photos": 4, "share": 4 / 6}, {"class": "notcat", "photos": 2, "share": 2 / 6}]
    assert said["height"] == {"smallest": 6, "median": 6, "largest": 40}
    assert said["width"] == {"smallest": 8, "median": 8, "largest": 80}
    assert said["broken"] == [{"photo": str(folder / "cat/n.jpg"), "reason": "empty file (0 bytes)"}]
    assert said["ignored"] == [str(folder / "cat/readme.md")]
    large = photos.paths.index(folder / "cat/large.png")
    assert describe(Subset(photos, [large]))["height"] == {"smallest": 40, "median": 40, "largest": 40}
    assert describe(cached(photos, 10))["photos"] == 6
    assert describe(ArrayDataset(np.zeros((0, 5, 7, 3), np.uint8), [], ["a", "b"]))["height"] is None
