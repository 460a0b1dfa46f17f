"""Put a tinynet model on a backend, and its weights into a PyTorch model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.checking import Backend, close, values
from tinynet import nn


def place(model: nn.Layer, backend: Backend) -> nn.Layer:
    """The model's state on that backend, in place (`model.to` knows real devices only); shared layers once."""
    seen = set()
    for _, layer in model.layers():
        if id(layer) not in seen:
            seen.add(id(layer))
            for name in (*layer.parameter_names, *layer.buffer_names):
                x = getattr(layer, name)
                if isinstance(x, np.ndarray):
                    setattr(layer, name, backend.xp.asarray(x))
    return model


def copy_state(model: nn.Layer, module: torch.nn.Module) -> None:
    """The model's weights into the module; its names, shapes and order must be the module's, all of them."""
    state = {name: np.asarray(x) for name, x in model.state_dict().items()}
    theirs = module.state_dict()
    assert list(state) == list(theirs)
    assert [x.shape for x in state.values()] == [tuple(x.shape) for x in theirs.values()]
    module.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in state.items()}, strict=True)


def snapshot(model: nn.Layer, backend: Backend) -> dict[str, np.ndarray]:
    return {name: backend.host(x).copy() for name, x in model.state_dict().items()}


def attributes(model: nn.Layer) -> dict[tuple[str, str], Any]:
    """Every attribute of every layer, by identity for arrays and layers: what a forward pass could have cached on self."""
    return {
        (path, name): id(value) if hasattr(value, "shape") or isinstance(value, (dict, nn.Layer)) else repr(value)
        for path, layer in model.layers()
        for name, value in vars(layer).items()
    }


def randomise(model: nn.Layer, seed: int = 0) -> nn.Layer:
    """Weights of order one (and positive variances), so that no gradient is small by chance; float64, exact in float32."""
    model.to(dtype=np.float64)
    for number, (name, x) in enumerate(model.state_dict().items()):
        if x.dtype.kind == "f":
            fresh = values(seed + number, tuple(x.shape))
            x[...] = np.abs(fresh) + 0.5 if name.endswith("running_var") else fresh * 0.5
    return model


def compare(
    backend: Backend, make: Callable[[], nn.Layer], module: torch.nn.Module, shape: tuple[int, ...], *, train: bool,
    dtype: str = "float64", seed: int = 0,
) -> None:  # fmt: skip
    """Output, input gradient, all parameter gradients by name, and the buffers afterwards, of make() and of the module."""
    model, module = randomise(make(), seed), module.double().train(train)
    copy_state(model, module)
    place(model.to(dtype=dtype), backend)
    before, held = snapshot(model, backend), attributes(model)
    x = values(seed + 100, shape)
    tensor = torch.tensor(x, requires_grad=True)
    expected = module(tensor)
    dy = values(seed + 101, tuple(expected.shape))
    expected.backward(torch.from_numpy(dy))

    array, signal = backend.array(x.astype(dtype)), backend.array(dy.astype(dtype))
    y, saved = model.forward(array, train=train)
    close(backend.host(y), expected.detach().numpy(), dtype, "output")
    dx, gradients = nn.backward(model, saved, signal)
    assert tensor.grad is not None
    close(backend.host(dx), tensor.grad.numpy(), dtype, "input gradient")
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    assert list(model.named_parameters()) == list(theirs)
    assert set(gradients) == set(theirs)
    for name, want in theirs.items():
        close(backend.host(gradients[name]), want, dtype, f"gradient of {name}")
    nothing, same = nn.backward(model, saved, signal, input_gradient=False)
    assert nothing is None
    assert set(same) == set(gradients)
    for name in gradients:
        np.testing.assert_array_equal(backend.host(same[name]), backend.host(gradients[name]))

    np.testing.assert_array_equal(backend.host(array), x.astype(dtype), err_msg="the input was changed")
    np.testing.assert_array_equal(backend.host(signal), dy.astype(dtype), err_msg="dy was changed")
    for name, want in module.state_dict().items():
        got = backend.host(model.state_dict()[name])
        close(got, want.numpy(), str(got.dtype) if got.dtype.kind == "i" else dtype, name)
    for name in model.named_parameters():
        np.testing.assert_array_equal(backend.host(model.state_dict()[name]), before[name], err_msg=f"{name} was changed")
    assert attributes(model) == held, "something was put on a layer"
    if not train:
        close(backend.host(model(array)), backend.host(y), dtype, "inference")      # which folds normalisations
