"""Random windows mean what torchvision's do; references: Pillow, NumPy's pad, and the definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import picture, rng
from tinynet.data.transforms import RandomCrop, RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from tinynet.errors import ArgumentError, ShapeError


def windows(padded: np.ndarray, h: int, w: int) -> set[bytes]:
    return {padded[y:y + h, x:x + w].tobytes()
            for y in range(padded.shape[0] - h + 1) for x in range(padded.shape[1] - w + 1)}


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("padding", [None, 2, (1, 2), (0, 1, 2, 3)])
def test_random_crop_draws_every_window_of_the_padded_picture(mode: str, padding: int | tuple[int, ...] | None) -> None:
    image = picture(5, 6)
    left, top, right, bottom = {None: (0,) * 4, 2: (2,) * 4, (1, 2): (1, 2, 1, 2)}.get(padding, padding)
    fill = {"constant_values": 9} if mode == "constant" else {}
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode=mode, **fill)
    crop, generator = RandomCrop((4, 5), padding, fill=9, padding_mode=mode), rng()
    drawn = {np.ascontiguousarray(crop(image, generator)).tobytes() for _ in range(600)}
    assert drawn == windows(padded, 4, 5)


def test_random_crop_pads_what_is_too_small_only_if_asked() -> None:
    with pytest.raises(ShapeError, match=r"at least \(8, 8\) with its padding, got \(5, 8\)"):
        RandomCrop(8)(picture(5, 8), rng())
    image, generator = picture(5, 8), rng()
    crop = RandomCrop(8, pad_if_needed=True)
    padded = np.pad(image, ((3, 3), (0, 0), (0, 0)))
    assert {np.ascontiguousarray(crop(image, generator)).tobytes() for _ in range(100)} == windows(padded, 8, 8)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 30))
def test_random_resized_crop_takes_a_part_within_its_limits(h: int, w: int, seed: int) -> None:
    crop = RandomResizedCrop((6, 7), scale=(0.2, 0.8), ratio=(0.5, 2.0))
    top, left, part_h, part_w = crop._part(h, w, rng(seed))
    assert 0 <= top <= h - part_h and 0 <= left <= w - part_w and part_h >= 1 and part_w >= 1
    if min(h, w) > 20:                                 # else rounding to whole pixels is coarse
        assert 0.15 < part_h * part_w / (h * w) < 0.9 and 0.45 < part_w / part_h < 2.2
    assert crop(picture(h, w), rng(seed)).shape == (6, 7, 3)


def test_random_resized_crop_is_a_crop_then_a_resize_and_falls_back_to_the_middle() -> None:
    image, crop = picture(20, 30), RandomResizedCrop(8)
    top, left, h, w = crop._part(20, 30, rng(3))
    reference = Image.fromarray(image[top:top + h, left:left + w]).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop(image, rng(3)), np.asarray(reference))
    # a strip on which no part of the asked area and aspect fits
    assert RandomResizedCrop(8, scale=(1, 1))._part(10, 100, rng()) == (0, 43, 10, 13)
    assert RandomResizedCrop(8, scale=(1, 1))._part(100, 9, rng()) == (44, 0, 12, 9)
    parts = np.array([RandomResizedCrop(8, (0.1, 0.4), (1.5, 2.5))._part(400, 400, rng(seed)) for seed in range(400)])
    aspects, shares = parts[:, 3] / parts[:, 2], parts[:, 2] * parts[:, 3] / 400**2
    assert 1.48 < aspects.min() < 1.55 and 2.4 < aspects.max() < 2.53 and 0.099 < shares.min() < shares.max() < 0.401
    assert abs(np.log(aspects).mean() - np.log(1.5 * 2.5) / 2) < 0.03  # uniform in the logarithm; 4 standard errors
    areas = [np.prod(crop._part(100, 100, rng(seed))[2:]) / 1e4 for seed in range(400)]
    assert min(areas) < 0.15 and max(areas) > 0.9      # the default reaches from 8 % to the whole


def test_flip() -> None:
    image = picture(4, 5)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(image, rng()), image[:, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(image, rng()), image)
    flip, generator = RandomHorizontalFlip(0.25), rng()
    flipped = sum(not np.array_equal(flip(image, generator), image) for _ in range(2000))
    assert 400 < flipped < 600                         # 500 expected, five standard deviations


def test_random_erasing_sets_one_rectangle_of_the_stated_size() -> None:
    erase = RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value=-7.0)
    x, corners = np.ones((3, 8, 12), np.float32), set()
    for seed in range(40):
        y = erase(x, rng(seed))
        erased = y == -7
        rows, columns = (np.flatnonzero(erased[0].any(axis=axis)) for axis in (1, 0))
        assert (len(rows), len(columns)) == (5, 5)                 # sqrt(0.25 * 96) = 4.9
        assert erased.sum() == 3 * 25 and (y[~erased] == 1).all()  # one whole rectangle, the same in all channels
        corners.add((rows[0], columns[0]))
    assert {r for r, _ in corners} == set(range(4)) and {c for _, c in corners} == set(range(8))
    assert (x == 1).all() and y.dtype == np.float32


def test_random_erasing_by_chance_and_only_where_it_fits() -> None:
    x = np.ones((3, 8, 8), np.float32)
    done = sum(bool((RandomErasing(p=0.3)(x, rng(seed)) == 0).any()) for seed in range(400))
    assert 80 < done < 160                                         # 120 expected, deviation 9
    assert (RandomErasing(p=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))(x, rng(0)) == 1).all()
    tall = RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(4.0, 4.0))(np.ones((1, 20, 20)), rng(0))
    assert (tall == 0).any(axis=(0, 2)).sum() == 20 or (tall == 1).all()


def test_refusals() -> None:
    for wrong in (lambda: RandomCrop((1, 2, 3)), lambda: RandomCrop(3, padding=-1), lambda: RandomCrop(3, padding=(1, 2, 3)),
                  lambda: RandomCrop(3, padding_mode="wrap"), lambda: RandomResizedCrop(3, scale=(0, 1)),
                  lambda: RandomResizedCrop(3, ratio=(2, 1)), lambda: RandomHorizontalFlip(1.5), lambda: RandomErasing(p=2),
                  lambda: RandomErasing(scale=(0.5, 0.1)), lambda: RandomErasing(ratio=(0, 1))):
        with pytest.raises(ArgumentError):
            wrong()
    for transform in (RandomCrop(2), RandomResizedCrop(2), RandomHorizontalFlip()):
        with pytest.raises(ArgumentError, match="call it as transform"):
            transform(picture(4, 4))
