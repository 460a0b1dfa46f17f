"""A live PyTorch model as a tinynet model."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, TinynetError
from ..nn import Layer
from .graph import to_containers


def from_torch(module: Any, check: Any = None) -> Layer:
    """The torch.nn.Module as a tinynet model, with copies of its weights and the names of its modules.

    module: made of layers that tinynet has, by nn.Sequential or by a forward of its own, which torch.fx must be able to follow:
    it takes one tensor and returns one, torch.cat along the channels and additions are its only joins, and its graph is
    series-parallel. Layers stand at the paths of their modules (without leading underscores), so parameters have the
    names that they have in module.state_dict(). Calls such as F.relu get layers under the function's name. A module that
    is called again is the same layer under another name: relu, relu_1. A batch axis is expected. Of a DataParallel or what
    torch.compile gave, the module inside is taken.

    check: a batch (an array or a tensor), on which both must give the same in eval mode, to 1e-9 in float64 and 1e-4 in
    float32, as shares of the largest number.

    float32 and float64 are kept. Options that tinynet does not have are refused. Raises ArgumentError that lists at once all
    that is not supported, by path and name, or names the node at which the graph is not series-parallel.
    """
    try:
        import torch
    except ImportError:
        raise ArgumentError("from_torch: PyTorch cannot be imported; to use a file of weights no PyTorch is needed") from None
    from ._torch_graph import graph_of

    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ArgumentError(f"from_torch: expected a torch.nn.Module (not a scripted one), got {type(module).__name__}")
    graph = graph_of(_unwrapped(module))
    try:
        model = to_containers(graph)
    except TinynetError as error:
        raise ArgumentError(f"from_torch: {type(module).__name__}: {error}") from None
    if check is not None:
        _compare(model, module, check)
    return model


_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
"""Modules that compute what the one inside does, by class: where that is."""


def _unwrapped(module: Any) -> Any:
    inside = _WRAPPERS.get(type(module).__name__, "")
    hooked = module._forward_hooks or module._forward_pre_hooks
    return _unwrapped(getattr(module, inside)) if hasattr(module, inside) and not hooked else module


def _compare(model: Layer, module: Any, x: Any) -> None:
    """Raises ArgumentError unless both give the same for x."""
    import torch

    array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    where = next(iter(module.parameters()), torch.empty(0)).device
    modes = [(m, m.training) for m in module.modules()]
    try:
        with torch.no_grad():
            expected = module.eval()(torch.tensor(array, device=where)).cpu().numpy()
    finally:
        for m, mode in modes:
            m.training = mode
    got = model(array)
    if got.shape != expected.shape:
        raise ArgumentError(f"from_torch: check: expected an output {expected.shape} as PyTorch's, got {got.shape}")
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    error = float(np.abs(got - expected).max(initial=0.0)) / scale
    if not error <= (1e-9 if expected.dtype == np.float64 else 1e-4):
        raise ArgumentError(f"from_torch: check: the outputs differ from PyTorch's by {error:.1e} of the largest")
