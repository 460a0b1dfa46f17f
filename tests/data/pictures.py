"""A picture of noise, and a generator, for the tests of transforms."""

import numpy as np


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    image.flags.writeable = False                      # no transform may change what it is given
    return image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
