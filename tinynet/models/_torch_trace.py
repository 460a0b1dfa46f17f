"""PyTorch's tracer, told what a layer is.

torch.fx runs `forward` once with stand-ins for tensors and writes down what is called. Here it is told to go through every
module that is not a layer, and to remember in which module a call was made, so that layers keep their paths.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.nn.modules.lazy import LazyModuleMixin

from ._torch_layers import FOLLOWS, converter
from .graph import Names


class _Proxy(fx.Proxy):
    """fx.Proxy takes x += y for x = x + y, and another name of x would not see the sum."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class Root(torch.nn.Module):
    """So that the module itself is called, too."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return self.module(x)


class Tracer(fx.Tracer):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        paths = [path for path, _ in module.named_modules(remove_duplicate=False) if path]
        self.names = Names(paths)
        self.scopes: list[tuple[str, torch.nn.Module]] = []
        self.problems: list[str] = []

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["scope"] = self.scopes[-1][0] if self.scopes else ""
        return node

    def call_module(self, m: torch.nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        path = self.names(self.find(m), own=True) if self.scopes else ""
        if hasattr(m, "parametrizations"):
            self.problems.append(f"{_at(path, m)} is parametrised; remove that first (torch.nn.utils.parametrize)")
        if isinstance(m, LazyModuleMixin) and m.has_uninitialized_params():
            self.problems.append(f"{_at(path, m)} is lazy and has no weights yet; call the module with an input first")
        elif m._forward_hooks or m._forward_pre_hooks:
            self.problems.append(f"{_at(path, m)} has hooks, which may change what it computes; remove them first")
        library = type(m).__module__.startswith("torch.nn.") and not isinstance(m, torch.nn.Sequential)
        if hasattr(m, "parametrizations") or converter(m) or library:
            proxy = self.create_proxy("call_module", path or type(m).__name__, args, kwargs)
            proxy.node.meta.update(module=m, path=path)
            return proxy
        self.scopes.append((path, m))
        try:
            return forward(*args, **kwargs)
        finally:
            self.scopes.pop()

    def find(self, m: torch.nn.Module) -> str:
        """The path of a module that is called: from the innermost module that has it, by a name that is not taken yet."""
        for path, owner in reversed(self.scopes):
            found = [name for name, module in owner.named_modules(remove_duplicate=False) if module is m and name]
            found = [f"{path}.{name}" if path else name for name in found]
            if found:
                return next((name for name in found if name not in self.names), found[0])
        return f"{self.scopes[-1][0]}.{type(m).__name__.lower()}"


def _at(path: str, m: torch.nn.Module) -> str:
    return f"{path}: {type(m).__name__}" if path else type(m).__name__


@contextmanager
def looking(module: torch.nn.Module) -> Iterator[None]:
    """Every module in eval mode, in a way that shows where `self.training` was handed on; afterwards as before."""
    before = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in before:
            m.training = FOLLOWS                                # type: ignore[assignment]
        yield
    finally:
        for m, mode in before:
            m.training = mode
