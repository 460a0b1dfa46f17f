"""Transforms mean what torchvision's do; references: Pillow, NumPy's pad, and the definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import picture, rng
from tinynet.data.transforms import (
    CenterCrop,
    Compose,
    Grayscale,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    ToArray,
)
from tinynet.errors import ArgumentError, DtypeError, ShapeError


@pytest.mark.parametrize(("h", "w", "size", "expected"), [
    (30, 40, 15, (15, 20)), (40, 30, 15, (20, 15)), (30, 43, 15, (15, 21)), (30, 40, 60, (60, 80)),
    (30, 40, (7, 9), (7, 9)), (30, 30, 30, (30, 30)), (1, 1, 5, (5, 5)),
])
def test_resize(h: int, w: int, size: int | tuple[int, int], expected: tuple[int, int]) -> None:
    image = picture(h, w)
    y = Resize(size)(image)
    assert y.shape == (*expected, 3)
    reference = Image.fromarray(image).resize(expected[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(y, np.asarray(reference))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_center_crop_leaves_as_much_on_both_sides(h: int, w: int, crop_h: int, crop_w: int) -> None:
    image = picture(h, w)
    y = CenterCrop((crop_h, crop_w))(image)
    assert y.shape == (crop_h, crop_w, 3)
    top, left = round((max(h, crop_h) - crop_h) / 2), round((max(w, crop_w) - crop_w) / 2)
    above, before = max(0, crop_h - h), max(0, crop_w - w)
    padded = np.pad(image, ((above // 2, above - above // 2), (before // 2, before - before // 2), (0, 0)))
    np.testing.assert_array_equal(y, padded[top:top + crop_h, left:left + crop_w])


def test_to_array_and_normalize() -> None:
    image = picture(4, 5)
    x = ToArray()(image)
    assert x.dtype == np.float32 and x.shape == (3, 4, 5) and x.flags.c_contiguous
    np.testing.assert_array_equal(x, (image.astype(np.float32) / np.float32(255)).transpose(2, 0, 1))
    before = x.copy()
    y = Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(x)
    assert y.dtype == np.float32
    expected = (before.astype(float) - np.array([[[0.1]], [[0.2]], [[0.3]]])) / np.array([[[0.5]], [[0.6]], [[0.7]]])
    np.testing.assert_allclose(y, expected, atol=1e-6)  # float32 of numbers about 1
    np.testing.assert_array_equal(x, before)
    assert Normalize((0.1,) * 3, (1,) * 3)(x.astype(float)).dtype == np.float64


def test_compose_passes_one_generator_along() -> None:
    both = Compose([RandomCrop(4), RandomHorizontalFlip(), ToArray()])
    image, generator = picture(8, 8), rng(5)
    by_hand = ToArray()(RandomHorizontalFlip()(RandomCrop(4)(image, generator), generator))
    np.testing.assert_array_equal(both(image, rng(5)), by_hand)
    assert "RandomCrop(size=4" in repr(both) and "ToArray()" in repr(both)


def test_refusals() -> None:
    for wrong in (lambda: Resize(0), lambda: Resize((3, 0)), lambda: CenterCrop(0),
                  lambda: Normalize((0, 0, 0), (1, 1, 0)), lambda: Normalize((0, 0), (1, 1, 1))):
        with pytest.raises(ArgumentError):
            wrong()
    with pytest.raises(DtypeError, match="uint8"):
        ToArray()(picture(4, 4).astype(np.float32))
    with pytest.raises(ShapeError, match="after ToArray"):
        Normalize((0,) * 3, (1,) * 3)(picture(4, 4))


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 300)])
def test_grey_is_pillows(shape: tuple[int, int]) -> None:
    image = picture(*shape, seed=3)
    y = Grayscale()(image)
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(y, np.asarray(Image.fromarray(image).convert("L"))[..., None])


def test_grey_of_every_third_colour_is_pillows() -> None:
    """Every value of each channel with 86 of each other one, ends included; where rounding could go either way, too."""
    some = np.r_[np.arange(0, 256, 3), 255].astype(np.uint8)
    for full in range(3):
        axes = [some, some]
        axes.insert(full, np.arange(256, dtype=np.uint8))
        cube = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 256, 3)
        np.testing.assert_array_equal(Grayscale()(cube)[..., 0], np.asarray(Image.fromarray(cube).convert("L")))


def test_grey_refuses_what_is_no_picture_in_colour() -> None:
    for image in (picture(3, 3).astype(np.float32), picture(3, 3)[..., :1], picture(3, 3)[0]):
        with pytest.raises(DtypeError, match=r"Grayscale: expected a uint8 picture \(H, W, 3\), got"):
            Grayscale()(image)
