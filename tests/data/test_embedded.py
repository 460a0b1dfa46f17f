"""The embedded photos: right in number and kind, and the sheets are byte for byte what data/rebuild.py encodes."""

import importlib.util
import io
import json
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tinynet.data import builtin, embedded
from tinynet.errors import ArgumentError, FileError

FOLDER = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def rebuild() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rebuild", FOLDER / "rebuild.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("split", "count"), [("train", 1500), ("test", 500)])
def test_numbers(split: str, count: int) -> None:
    photos = embedded(split)
    assert photos.images.shape == (2 * count, 32, 32, 3) and photos.classes == ["cat", "notcat"]
    assert np.bincount(photos.labels).tolist() == [count, count]
    assert len(np.unique(photos.images.reshape(2 * count, -1), axis=0)) >= 2 * count - 1   # as good as no photo twice


@pytest.mark.parametrize(("name", "label"), [("cat", 0), ("notcat", 1)])
def test_photos_are_the_cells_of_the_sheets_row_by_row(name: str, label: int) -> None:
    sheet, photos = np.asarray(Image.open(FOLDER / f"test-{name}.png")), embedded("test")
    for k in (0, 1, 50, 499):
        y, x = k // 50 * 32, k % 50 * 32
        image, got = photos[label * 500 + k]
        np.testing.assert_array_equal(image, sheet[y:y + 32, x:x + 32])
        assert got == label


def test_no_photo_is_in_both_splits() -> None:
    train, test = ({photo.tobytes() for photo in embedded(split).images} for split in ("train", "test"))
    assert not train & test


def test_the_index_says_which_photos_these_are() -> None:
    index = json.loads((FOLDER / "index.json").read_text())
    for sheet, photos in index["sheets"].items():
        split, label = sheet.split("-")
        counts = np.bincount(photos["class"], minlength=10)
        assert len(set(photos["position"])) == counts.sum() == (1500 if split == "train" else 500)
        others = np.delete(counts, 3)
        assert (others == 0).all() if label == "cat" else counts[3] == 0 and np.ptp(others) == 1


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 10e6


@pytest.mark.parametrize("name", ["train-cat", "train-notcat", "test-cat", "test-notcat"])
def test_the_sheets_are_what_the_script_encodes(rebuild: ModuleType, name: str) -> None:
    committed = (FOLDER / f"{name}.png").read_bytes()
    assert rebuild.png(np.asarray(Image.open(io.BytesIO(committed)))) == committed


@settings(max_examples=15)
@given(rows=st.integers(1, 70), columns=st.integers(1, 40), values=st.sampled_from([1, 2, 17, 256]), seed=st.integers(0, 9))
def test_the_encoder_writes_pngs_that_pillow_reads(
    rebuild: ModuleType, rows: int, columns: int, values: int, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, values, (rows, columns, 3)).astype(np.uint8)
    decoded = Image.open(io.BytesIO(rebuild.png(picture)))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), picture)


def test_long_codes_are_limited_and_still_decode(rebuild: ModuleType) -> None:
    """Counts that grow like Fibonacci's numbers make a code longer than deflate's 15 bits unless it is limited."""
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    content = np.repeat(np.arange(24, dtype=np.uint8), counts).tobytes()
    assert max(rebuild.code_lengths(counts, 64)) > 15
    bits = rebuild.block(content, last=True)
    assert zlib.decompress(np.packbits(bits, bitorder="little").tobytes(), wbits=-15) == content


def test_a_foreign_package_is_refused(rebuild: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="SHA-256"):
        rebuild.build(tmp_path / "other.tgz")


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="'train' or 'test', got 'val'"):
        embedded("val")
    monkeypatch.setattr(builtin, "_FOLDERS", (tmp_path,))
    with pytest.raises(FileError, match="not installed"):
        embedded()
    (tmp_path / "train-cat.png").write_bytes(b"damaged")
    with pytest.raises(FileError, match=r"train-cat\.png: damaged"):
        embedded()


def test_kinds_say_what_each_not_cat_is() -> None:
    plain, kinds = embedded("train"), embedded("train", kinds=True)
    np.testing.assert_array_equal(plain.images, kinds.images)
    assert kinds.classes[0] == "cat" and len(kinds.classes) == 10
    np.testing.assert_array_equal(kinds.labels == 0, plain.labels == 0)
    counts = np.bincount(kinds.labels)
    assert counts[0] == 1500 and set(counts[1:]) == {166, 167}
