"""The zoo once more, in plain torch.nn, written from the papers and torchvision's published names; and how the two are compared.

Every module has the name of its tinynet layer, so that all maps can be compared by name; torchvision calls ReLU as a function
here and there, or one module several times, which changes no name of the state dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tinynet import nn
from tinynet.nn import Container

T = torch.nn
Relu = Callable[[], T.Module]


def named(**layers: T.Module) -> T.Sequential:
    model = T.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


# SqueezeNet


class Fire(T.Module):
    def __init__(self, into: int, squeeze: int, expand: int, relu: Relu) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = T.Conv2d(into, squeeze, 1), relu()
        self.expand1x1, self.expand1x1_activation = T.Conv2d(squeeze, expand, 1), relu()
        self.expand3x3, self.expand3x3_activation = T.Conv2d(squeeze, expand, 3, padding=1), relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)


def squeezenet(version: str, classes: int = 1000, relu: Relu = T.ReLU) -> T.Module:
    def pool() -> T.Module:
        return T.MaxPool2d(3, 2, ceil_mode=True)

    if version == "1_0":
        features = T.Sequential(
            T.Conv2d(3, 96, 7, 2), relu(), pool(), Fire(96, 16, 64, relu), Fire(128, 16, 64, relu), Fire(128, 32, 128, relu),
            pool(),
            Fire(256, 32, 128, relu), Fire(256, 48, 192, relu), Fire(384, 48, 192, relu), Fire(384, 64, 256, relu), pool(),
            Fire(512, 64, 256, relu),
        )
    else:
        features = T.Sequential(
            T.Conv2d(3, 64, 3, 2), relu(), pool(), Fire(64, 16, 64, relu), Fire(128, 16, 64, relu), pool(),
            Fire(128, 32, 128, relu), Fire(256, 32, 128, relu), pool(), Fire(256, 48, 192, relu), Fire(384, 48, 192, relu),
            Fire(384, 64, 256, relu), Fire(512, 64, 256, relu),
        )
    classifier = T.Sequential(T.Dropout(0.5), T.Conv2d(512, classes, 1), relu(), T.AdaptiveAvgPool2d((1, 1)))
    return named(features=features, classifier=classifier, flatten=T.Flatten())


TWINS: dict[str, Callable[..., T.Module]] = {
    "squeezenet1_0": lambda **how: squeezenet("1_0", **how),
    "squeezenet1_1": lambda **how: squeezenet("1_1", **how),
}


# The comparison


def tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A state dict for PyTorch; the memory is shared, not copied."""
    return {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}


def maps_of(model: nn.Layer, x: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every layer and named container, and of the model (under "")."""
    found: dict[str, np.ndarray] = {}
    found[""] = model.infer(x, lambda path, layer, y: found.__setitem__(path, y))
    return found


def maps_in_torch(module: T.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    handles = [
        part.register_forward_hook(lambda _m, _i, y, name=name: found.__setitem__(name, y.numpy()))
        for name, part in module.named_modules()
    ]
    with torch.no_grad():
        module(torch.from_numpy(x))
    for handle in handles:
        handle.remove()
    return found


def compare_maps(model: nn.Layer, module: T.Module, x: np.ndarray, tolerance: float) -> int:
    """Every layer's map agrees to `tolerance` times its largest value. Returns how many maps were compared."""
    ours, theirs = maps_of(model, x), maps_in_torch(module, x)
    leaves = {path for path, layer in model.layers() if not isinstance(layer, Container)}
    assert leaves <= set(theirs), f"without a twin: {leaves - set(theirs)}"
    shared = [path for path in ours if path in theirs]
    for path in shared:
        got, want = ours[path], theirs[path]
        assert got.shape == want.shape, f"{path}: {got.shape}, expected {want.shape}"
        assert got.dtype == x.dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(np.abs(want).max(), 1e-3), err_msg=path)
    return len(shared)
