"""Networks that others trained: the same weights, loaded by name, give what PyTorch makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.compare import compare_maps, tensors
from tests.models.twins import TWINS
from tinynet.data import read_photo
from tinynet.distributed import Shards
from tinynet.interpret.control import untrained
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
    paths = [path for name in ("cat", "notcat") for path in sorted((folder / name).iterdir())[:3]]
    return np.stack([transform(read_photo(path, size=None), np.random.default_rng(0)) for path in paths])


def test_squeezenet_is_pytorchs() -> None:
    """1e-4 of each map's largest value: float32 sums of up to 4,608 products, 26 convolutions deep."""
    state = weights("squeezenet1_1_imagenet.npz")
    model, twin = create("squeezenet1_1", rng=init.no_draws), TWINS["squeezenet1_1"]().eval()
    model.load_state_dict(state)
    twin.load_state_dict(tensors(state), strict=True)
    x = cats()
    compare_maps(model, twin, x, 1e-4)
    with torch.no_grad():
        expected = twin(torch.from_numpy(x)).numpy()
    got = model(x)
    assert untrained(model) is None
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.argsort(-got, 1)[:, :5], np.argsort(-expected, 1)[:, :5])
    assert set(got[:3].argmax(1)) <= {281, 282, 283, 284, 285}, "the cats are cats"


def test_vgg16s_filters_are_pytorchs() -> None:
    """The 13 convolutions by name, kept in half precision; the linear layers are not in the file."""
    state = weights("vgg16_conv_imagenet_fp16.npz")
    model, twin = create("vgg16", rng=init.no_draws), TWINS["vgg16"]
    with torch.device("meta"):
        module = twin().features.eval()
    model.load_state_dict(state, strict=False)
    inside = {key.removeprefix("features."): x for key, x in state.items()}
    assert set(model.features.state_dict()) == set(inside)
    module.load_state_dict(tensors(inside), strict=True, assign=True)
    compare_maps(model.features, module, cats()[:2, :, :96, 32:128], 1e-4)


def test_resnet20_is_as_good_as_its_authors_say() -> None:
    """91.73 % on all 10,000 test photos. Of 1,000 the standard error is 0.9 %; PyTorch's answer to each is the same."""
    path = DATA / "cifar10" / "cifar10_2000_1000.npz"
    if not path.is_file():
        pytest.skip("../shared/data/cifar10 is not here")
    state = weights("cifar10_resnet20.npz")
    model, twin = create("cifar_resnet20", rng=init.no_draws), TWINS["cifar_resnet20"]().eval()
    model.load_state_dict(state)
    twin.load_state_dict(tensors(state), strict=True)
    with np.load(path) as file:
        photos, labels = file["test_x"], file["test_y"]
    preprocessing = entry("cifar_resnet20").preprocessing
    assert preprocessing is not None
    transform = preprocessing.transform()
    x = np.stack([transform(photo, np.random.default_rng(0)) for photo in photos])
    with Shards(2) as shards, torch.no_grad():
        got = np.concatenate([shards.infer(model, x[i : i + 50]) for i in range(0, len(x), 50)])
        expected = twin(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
    assert (got.argmax(1) == labels).mean() == pytest.approx(0.9173, abs=2 * 0.0087)
    compare_maps(model, twin, x[:2], 1e-4)
    assert untrained(model) is None
