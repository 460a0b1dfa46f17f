"""Networks that others trained: the same weights, loaded by name, give what PyTorch makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.twins import TWINS, compare_maps, tensors
from tinynet.data import read_photo
from tinynet.models import create, entry
from tinynet.nn import init

DATA = Path(__file__).parents[3] / "shared" / "data"


def weights(name: str) -> dict[str, np.ndarray]:
    path = DATA / "weights" / name
    if not path.is_file():
        pytest.skip(f"../shared/data/weights/{name} is not here")
    with np.load(path) as file:
        return {key: file[key].astype(np.float32) for key in file.files}


def cats() -> np.ndarray:
    """Photos of both classes, as the network wants them."""
    folder = DATA / "cats" / "test"
    if not folder.is_dir():
        pytest.skip("../shared/data/cats is not here")
    preprocessing = entry("squeezenet1_1").preprocessing
    assert preprocessing is not None
    transform = preprocessing.transform()
    paths = [path for name in ("cat", "notcat") for path in sorted((folder / name).iterdir())[:4]]
    return np.stack([transform(read_photo(path, size=None), np.random.default_rng(0)) for path in paths])


def test_squeezenet_is_pytorchs() -> None:
    """1e-4 of each map's largest value: float32 sums of up to 4,608 products, 26 convolutions deep."""
    state = weights("squeezenet1_1_imagenet.npz")
    model, twin = create("squeezenet1_1", rng=init.no_draws), TWINS["squeezenet1_1"]().eval()
    model.load_state_dict(state)
    twin.load_state_dict(tensors(state), strict=True)
    x = cats()
    assert compare_maps(model, twin, x, 1e-4) > 60
    with torch.no_grad():
        expected = twin(torch.from_numpy(x)).numpy()
    got = model(x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.argsort(-got, 1)[:, :2], np.argsort(-expected, 1)[:, :2])
    assert set(got[:4].argmax(1)) <= {281, 282, 283, 284, 285}, "the cats are cats"
