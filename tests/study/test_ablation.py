"""Ablation: rebuilt models fit together, and are trained under one budget."""

from __future__ import annotations

import numpy as np
import pytest

from tinynet import nn
from tinynet.data import ArrayDataset
from tinynet.errors import ArgumentError
from tinynet.models import create
from tinynet.study.ablation import ablation, rebuilt, resized, without
from tinynet.train.classifier import recipe_for

SIZE = (3, 32, 32)


def shapes(model: nn.Layer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in model.named_parameters().items()}


def net() -> nn.Sequential:
    """Two dense layers in a Sequential of its own, as AlexNet has them."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        features=nn.Sequential(
            conv1=nn.Conv2d(3, 8, 5, stride=2, rng=rng), relu1=nn.ReLU(), pool1=nn.MaxPool2d(3, 2),
            conv2=nn.Conv2d(8, 12, 3, padding=1), bn2=nn.BatchNorm2d(12), relu2=nn.ReLU(),
            conv3=nn.Conv2d(12, 16, 3, padding=1), relu3=nn.ReLU(), pool3=nn.MaxPool2d(2),
        ),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(
            drop6=nn.Dropout(0.5), fc6=nn.Linear(144, 20), relu6=nn.ReLU(), fc7=nn.Linear(20, 10), relu7=nn.ReLU(),
            fc8=nn.Linear(10, 4),
        ),
    )


def test_rebuilt_alone_has_the_shapes_of_the_model() -> None:
    for model in (net(), create("catnet"), create("photonet")):
        copy = rebuilt(model, SIZE)
        assert shapes(copy) == shapes(model)
        assert [path for path, _ in copy.layers()] == [path for path, _ in model.layers()]
        for name, x in copy.named_parameters().items():
            assert not np.shares_memory(x, model.named_parameters()[name])


@pytest.mark.parametrize(
    ("drop", "gone", "changed"),
    [
        (["features.conv2"], {"conv2", "bn2", "relu2"}, {"features.conv3.weight": (16, 8, 3, 3)}),
        (["features.conv2", "features.conv3"], {"conv2", "bn2", "relu2", "conv3", "relu3"}, {"classifier.fc6.weight": (20, 72)}),
        (["classifier.fc6", "classifier.fc7"], {"fc6", "relu6", "fc7", "relu7"}, {"classifier.fc8.weight": (4, 144)}),
        (["features.conv1"], {"conv1", "relu1"}, {"features.conv2.weight": (12, 3, 3, 3)}),
    ],
)
def test_without_layers(drop: list[str], gone: set[str], changed: dict[str, tuple[int, ...]]) -> None:
    model = net()
    less = without(model, SIZE, *drop)
    before = {path.rsplit(".")[-1] for path, _ in model.layers()}
    assert before - {path.rsplit(".")[-1] for path, _ in less.layers()} == gone
    for name, shape in changed.items():
        assert shapes(less)[name] == shape
    assert less(np.zeros((2, *SIZE), np.float32)).shape == (2, 4)


def test_pooling_stays_where_it_stands_behind_a_layer_that_goes() -> None:
    less = without(create("catnet"), SIZE, "conv4")
    names = [path for path, _ in less.layers()]
    assert "pool4" in names
    assert not {"conv4", "bn4", "relu4"} & set(names)
    assert shapes(less)["conv5.weight"] == (256, 128, 3, 3)


def test_resized_layers() -> None:
    more = resized(net(), SIZE, {"features.conv2": 24, "classifier.fc7": 30})
    assert {name: shape for name, shape in shapes(more).items() if shape != shapes(net())[name]} == {
        "features.conv2.weight": (24, 8, 3, 3), "features.conv2.bias": (24,),
        "features.bn2.weight": (24,), "features.bn2.bias": (24,),
        "features.conv3.weight": (16, 24, 3, 3), "classifier.fc7.weight": (30, 20), "classifier.fc7.bias": (30,),
        "classifier.fc8.weight": (4, 30),
    }
    assert resized(net(), SIZE, {}, classes=7)(np.zeros((1, *SIZE), np.float32)).shape == (1, 7)


def test_a_union_of_classes_goes_when_the_classes_change() -> None:
    model = create("catnet", classes=3, groups=[[0], [1, 2]])
    assert model(np.zeros((1, *SIZE), np.float32)).shape == (1, 2)
    assert rebuilt(model, SIZE)(np.zeros((1, *SIZE), np.float32)).shape == (1, 2)
    assert rebuilt(model, SIZE, classes=5)(np.zeros((1, *SIZE), np.float32)).shape == (1, 5)


def test_wrong_arguments_say_what_is_wrong() -> None:
    with pytest.raises(ArgumentError, match=r"'features.conv4'; nearest: features.conv"):
        without(net(), SIZE, "features.conv4")
    with pytest.raises(ArgumentError, match="last linear layer"):
        without(net(), SIZE, "classifier.fc8")
    with pytest.raises(ArgumentError, match="at least 1"):
        resized(net(), SIZE, {"features.conv2": 0})
    with pytest.raises(ArgumentError, match="removed and resized"):
        rebuilt(net(), SIZE, drop=["features.conv2"], resize={"features.conv2": 3})
    with pytest.raises(ArgumentError, match="Sequential"):
        rebuilt(nn.ReLU(), SIZE)
    with pytest.raises(ArgumentError, match="Residual"):
        rebuilt(nn.Sequential(conv=nn.Conv2d(3, 3, 1), res=nn.Residual(nn.ReLU())), SIZE)


def test_variants_are_trained_and_tabled() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (48, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(48) % 2
    images[labels == 1, ..., 0] += 55
    photos = ArrayDataset(images, labels, ["dull", "red"])
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, rng=rng), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(),
        conv2=nn.Conv2d(4, 4, 3, rng=rng), bn2=nn.BatchNorm2d(4), relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4, 2, rng=rng),
    )
    size = (3, 16, 16)
    variants = {"as it is": rebuilt(model, size), "without conv2": without(model, size, "conv2")}
    said: list[str] = []
    found = ablation(variants, photos, photos, recipe_for(16), 4, workers=1, say=said.append)
    assert [row.name for row in found.rows] == ["as it is", "without conv2"]
    assert found.rows[0].parameters > found.rows[1].parameters
    assert all(0 <= row.train_error <= 0.6 for row in found.rows)
    assert found.rows[0].train_error == found.rows[0].validation_error
    assert len(said) == 2
    assert "without conv2" in found.table()
    again = ablation({"as it is": rebuilt(model, size)}, photos, photos, recipe_for(16), 4, workers=1)
    assert again.rows[0][:4] == found.rows[0][:4]
