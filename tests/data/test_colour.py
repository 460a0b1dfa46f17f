"""Colours change as Pillow's enhancements change them."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tests.data.pictures import picture, rng
from tinynet.data.transforms import ColorJitter
from tinynet.errors import ArgumentError


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_colour_jitter_is_pillows_enhancement(name: str, factor: float) -> None:
    image = picture(9, 7)
    enhancer = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast,
                "saturation": ImageEnhance.Color}[name](Image.fromarray(image))
    y = ColorJitter(**{name: (factor, factor)})(image, rng())
    np.testing.assert_array_equal(y, np.asarray(enhancer.enhance(factor)))


def test_hue_turns_the_colour_circle() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    for turn, expected in ((1 / 3, (0, 255, 0)), (-1 / 3, (0, 0, 255)), (0.5, (0, 255, 255))):
        y = ColorJitter(hue=(turn, turn))(red, rng())
        np.testing.assert_allclose(y[0, 0], expected, atol=8)          # 256 steps to the circle


def test_colour_jitter_draws_its_amounts_and_order() -> None:
    image, jitter = picture(6, 6), ColorJitter(0.5, 0.5, 0.5, 0.1)
    assert (jitter.brightness, jitter.hue) == ((0.5, 1.5), (-0.1, 0.1))
    assert ColorJitter(brightness=3).brightness == (0, 4)
    np.testing.assert_array_equal(jitter(image, rng(1)), jitter(image, rng(1)))
    assert not np.array_equal(jitter(image, rng(1)), jitter(image, rng(2)))
    assert ColorJitter()(image, rng()) is image


def test_colour_jitter_changes_the_order() -> None:
    image, jitter = picture(6, 6), ColorJitter(brightness=(0.5, 0.5), contrast=(1.5, 1.5))
    one, other = (ColorJitter(brightness=(0.5, 0.5)), ColorJitter(contrast=(1.5, 1.5)))
    both = {other(one(image, rng()), rng()).tobytes(), one(other(image, rng()), rng()).tobytes()}
    assert len(both) == 2 and {jitter(image, rng(seed)).tobytes() for seed in range(20)} == both


def test_refusals() -> None:
    for wrong in (lambda: ColorJitter(brightness=-1), lambda: ColorJitter(hue=0.6), lambda: ColorJitter(contrast=(2, 1))):
        with pytest.raises(ArgumentError):
            wrong()
    with pytest.raises(ArgumentError, match="call it as transform"):
        ColorJitter(0.5)(picture(4, 4))
