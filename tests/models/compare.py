"""How a network of the zoo and its twin in PyTorch, and what a file gave and what was written, are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.models.twins import TWINS, named, parts
from tinynet import nn
from tinynet.nn import Container, init

# An input of each, as small as its structure allows, with sides that no stride divides where they are free.
SIZES = {
    "lenet5": (2, 1, 32, 32), "alexnet": (1, 3, 71, 66), "zfnet": (1, 3, 224, 224), "vgg11": (1, 3, 35, 33),
    "vgg11_bn": (1, 3, 33, 37), "squeezenet1_0": (1, 3, 53, 50), "squeezenet1_1": (1, 3, 47, 36), "resnet18": (1, 3, 45, 38),
    "resnet50": (1, 3, 39, 36), "cifar_resnet20": (2, 3, 31, 27), "googlenet": (1, 3, 55, 38), "mobilenet_v2": (2, 3, 45, 38),
    "tinyvgg": (2, 3, 64, 64),
}  # fmt: skip


def tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A state dict for PyTorch; the memory is shared, not copied."""
    return {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}


def slim(model: nn.Layer) -> nn.Layer:
    """A network without its dense layers, hundreds of megabytes of them: a mean over each map and one small one instead."""
    layers = {}
    for name, layer in model.children():
        if name in ("avgpool", "flatten"):
            break
        layers[name] = layer
    maps = [layer.out_channels for _, layer in model.layers() if isinstance(layer, nn.Conv2d)][-1]
    head = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(maps, 10, rng=init.no_draws)}
    return nn.Sequential({**layers, **head})


def slim_in_torch(module: Any) -> torch.nn.Module:
    """The same of a twin."""
    layers = dict(module.named_children())
    for name in ("avgpool", "flatten", "classifier", "fc6", "relu6", "dropout6", "fc7", "relu7", "dropout7", "fc8"):
        layers.pop(name, None)
    maps = [part.out_channels for part in module.modules() if isinstance(part, torch.nn.Conv2d)][-1]
    return named(**layers, avgpool=torch.nn.AdaptiveAvgPool2d(1), flatten=torch.nn.Flatten(), fc=torch.nn.Linear(maps, 10))


def alive(model: nn.Layer, dtype: Any = np.float64) -> nn.Layer:
    """The network with weights that keep its maps alive: He's for the filters, every normalisation another. Large matrices
    repeat a block of a million numbers. In place.
    """
    model, rng = model.to(dtype=dtype), np.random.default_rng(7)
    block = rng.standard_normal(1_000_003).astype(np.float32)   # a prime, so that rows differ
    for key, x in model.state_dict().items():
        if x.dtype.kind != "f":
            continue
        if x.ndim > 1:
            x[...] = np.resize(np.roll(block, int(rng.integers(1000))), x.shape)
            x *= np.sqrt(2 / init.fans(x.shape)[0])
        elif key.endswith(("weight", "running_var")):
            x[...] = rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        else:
            x[...] = 0.2 * rng.standard_normal(x.shape).astype(np.float32)
    return model


def twin_of(name: str, model: nn.Layer, slimmed: bool = False, **made: Any) -> torch.nn.Module:
    """The twin, at inference, on the very arrays of the model; `made` as for `parts`."""
    with parts(**made), torch.device("meta"):
        module = slim_in_torch(TWINS[name]()) if slimmed else TWINS[name]()
    module.eval()
    module.load_state_dict(tensors(model.state_dict()), strict=True, assign=True)
    return module


def maps_of(model: nn.Layer, x: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every layer and named container, and of the model (under "")."""
    found: dict[str, np.ndarray] = {}
    found[""] = model.infer(x, lambda path, layer, y: found.__setitem__(path, y))
    return found


def maps_in_torch(module: torch.nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
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


def compare_maps(model: nn.Layer, module: torch.nn.Module, x: np.ndarray, tolerance: float) -> None:
    """Every layer's map agrees to `tolerance` times its largest value."""
    ours, theirs = maps_of(model, x), maps_in_torch(module, x)
    leaves = {path for path, layer in model.layers() if not isinstance(layer, Container)}
    inside = {path for path in leaves if path.rpartition(".")[0].endswith("shortcut")}  # of option A: one module in PyTorch
    assert leaves - inside <= set(theirs), f"without a twin: {leaves - inside - set(theirs)}"
    for path in [path for path in ours if path in theirs]:
        got, want = ours[path], theirs[path]
        assert got.shape == want.shape, f"{path}: {got.shape}, expected {want.shape}"
        assert got.dtype == x.dtype, path
        assert want.any(), f"{path}: nothing but zeros: nothing is tested"
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max(), err_msg=path)


def same(found: Any, expected: dict[str, torch.Tensor]) -> None:
    """Names in order, shapes, dtypes and bits; half precision is read as float32."""
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        x = (tensor.float() if tensor.dtype in (torch.half, torch.bfloat16) else tensor).numpy()
        assert found[name].dtype == x.dtype and found[name].shape == x.shape, name
        np.testing.assert_array_equal(found[name], x, err_msg=name)
