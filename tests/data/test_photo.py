"""read_photo: every kind of file a camera, the web or an accident produces becomes upright uint8 RGB, or one clear line."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinynet.data.photo import check_photo, read_photo
from tinynet.errors import FileError


@pytest.fixture
def colours() -> np.ndarray:
    """A smooth picture (24, 36, 3): what a lossy format returns nearly unchanged."""
    y, x = np.mgrid[0:24, 0:36]
    return np.stack([x * 7, y * 10, 255 - x * 7], -1).astype(np.uint8)


@pytest.mark.parametrize(("name", "options", "tolerance"), [
    ("a.png", {}, 0), ("a.webp", {"lossless": True}, 0), ("a.bmp", {}, 0), ("a.tiff", {}, 0),
    ("a.jpg", {"quality": 95, "subsampling": 0}, 12), ("a.webp", {"quality": 95}, 24),
])
def test_formats(tmp_path: Path, colours: np.ndarray, name: str, options: dict, tolerance: int) -> None:
    Image.fromarray(colours).save(tmp_path / name, **options)
    picture = read_photo(tmp_path / name)
    assert picture.dtype == np.uint8 and picture.shape == (24, 36, 3)
    assert np.abs(picture.astype(int) - colours).max() <= tolerance
    assert check_photo(tmp_path / name) == (24, 36)


def test_the_content_decides_and_not_the_name(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.jpg"), colours)


def test_grey_and_black_and_white(tmp_path: Path, colours: np.ndarray) -> None:
    grey = colours[..., 1]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, -1))
    bits = grey > 100
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "bits.png")[..., 2], bits * 255)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_grey_keeps_the_upper_eight(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 513], [32768, 40000, 65280, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    np.testing.assert_array_equal(read_photo(tmp_path / f"deep{suffix}")[..., 0], values >> 8)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    flat = np.zeros((16, 16, 4), np.uint8)
    flat[...] = (0, 255, 255, 0)                       # full magenta and yellow: red
    Image.fromarray(flat, "CMYK").save(tmp_path / "ink.jpg", quality=100)
    red = read_photo(tmp_path / "ink.jpg").reshape(-1, 3).mean(0)
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = (200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    expected = np.array([[[200, 0, 0], [255, 255, 255], [127, 127, 127]]])
    np.testing.assert_allclose(read_photo(tmp_path / "rgba.png"), expected, atol=1)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "opaque.png")
    palette.save(tmp_path / "one.png", transparency=1)
    palette.save(tmp_path / "bytes.png", transparency=b"\xff\x00\xff")
    palette.save(tmp_path / "moving.gif", transparency=1)
    shown = np.array([[[10, 20, 30], [40, 50, 60], [70, 80, 90]]])
    np.testing.assert_array_equal(read_photo(tmp_path / "opaque.png"), shown)
    shown[0, 1] = 255
    for name in ("one.png", "bytes.png", "moving.gif"):
        np.testing.assert_array_equal(read_photo(tmp_path / name), shown)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, 12])
def test_exif_rotation(tmp_path: Path, colours: np.ndarray, orientation: int, size: int | None) -> None:
    """EXIF's definition: which side of the scene the stored row 0 and column 0 show."""
    store = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
             5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
             8: lambda a: np.rot90(a, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(store(colours))).save(tmp_path / "turned.png", exif=exif)
    picture = read_photo(tmp_path / "turned.png", size)
    assert check_photo(tmp_path / "turned.png") == (24, 36)
    if size is None:
        np.testing.assert_array_equal(picture, colours)
    else:                                              # the corners are where they belong, in half the size
        assert picture.shape == (12, 18, 3)
        for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            np.testing.assert_allclose(picture[y, x].astype(int), colours[y, x], atol=12)


def test_size_reduces_the_shorter_side_and_never_enlarges(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((1200, 800), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "large.jpg", quality=95)
    assert read_photo(tmp_path / "large.jpg", 100).shape == (100, 150, 3)
    assert read_photo(tmp_path / "large.jpg", 4000).shape == (800, 1200, 3)
    # the JPEG was decoded at a fraction of its size: the picture is that of a full decode all the same
    full = np.asarray(Image.open(tmp_path / "large.jpg").resize((150, 100), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_photo(tmp_path / "large.jpg", 100) - full).mean() < 2


def test_a_very_wide_photo_and_a_single_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (20000, 600), (10, 200, 30)).save(tmp_path / "wide.jpg")
    assert check_photo(tmp_path / "wide.jpg") == (600, 20000)
    assert read_photo(tmp_path / "wide.jpg", 60).shape == (60, 2000, 3)
    Image.new("RGB", (1, 1), (10, 200, 30)).save(tmp_path / "dot.png")
    assert read_photo(tmp_path / "dot.png", 224).tolist() == [[[10, 200, 30]]]


def broken_files(folder: Path) -> dict[str, Path]:
    """One file of each kind of damage, by kind."""
    whole = folder / "whole.tmp"
    Image.effect_noise((64, 64), 80).convert("RGB").save(whole, format="JPEG")
    contents = {"empty.jpg": b"", "cut.jpg": whole.read_bytes()[:-400], "text.jpg": b"this is not a photo",
                "header.jpg": whole.read_bytes()[:30]}
    Image.effect_noise((64, 64), 80).save(whole, format="PNG")
    contents["cut.png"] = whole.read_bytes()[:1000]
    damaged = bytearray(whole.read_bytes())
    start = damaged.index(b"IDAT") + 4                # Pillow lets damage pass that still decodes; here nothing does
    damaged[start:start + 200] = b"\xff" * 200
    contents["damaged.png"] = bytes(damaged)
    Image.effect_noise((64, 64), 80).convert("RGB").save(whole, format="WEBP")
    contents["cut.webp"] = whole.read_bytes()[:300]
    whole.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_broken_files_are_named_in_one_line(tmp_path: Path) -> None:
    for path in broken_files(tmp_path).values():
        with pytest.raises(FileError) as caught:
            read_photo(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileError, match=r"empty\.jpg: empty file"):
        read_photo(tmp_path / "empty.jpg")
    with pytest.raises(FileError, match=r"text\.jpg: not a photo"):
        read_photo(tmp_path / "text.jpg")
    with pytest.raises(FileError, match=r"nothing\.jpg: no such photo"):
        read_photo(tmp_path / "nothing.jpg")
    with pytest.raises(FileError, match="a folder, where a photo was expected"):
        read_photo(tmp_path)


def test_the_header_check_finds_all_but_damage_in_the_middle(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        if name == "damaged.png":
            assert check_photo(path) == (64, 64)
        else:
            with pytest.raises(FileError):
                check_photo(path)


def test_bytes_after_the_end_of_a_jpeg_do_not_make_it_broken(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "a.jpg")
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"a trailer some phones write")
    assert check_photo(tmp_path / "a.jpg") == (24, 36)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for read in (read_photo, check_photo):
        with pytest.raises(FileError, match=r"bomb\.png: too many pixels"):
            read(tmp_path / "bomb.png")


def test_broken_exif_does_not_cost_the_photo(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_photo(tmp_path / "a.jpg").shape == (24, 36, 3)
