"""The fused CUDA optimiser steps against tinynet.optim on NumPy, step by step, and the flag that holds a step back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.checking import close, values
from tests.device_double import device_module
from tests.kernels.cuda_on_cpu import Cpu
from tinynet.kernels.cuda import optimiser
from tinynet.optim import SGD, Adam, AdamW

SHAPES = [(3, 4), (1,), (0,), (7, 2, 3), (300,), ()]


def parameters(count: int, dtype: str) -> dict[str, np.ndarray]:
    return {f"p{i}": values(i, SHAPES[i % len(SHAPES)]).astype(dtype) for i in range(count)}


def rows(*dicts: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    first = dicts[0]
    assert first is not None
    return [tuple(None if d is None else d[name] for d in dicts) for name in first]


def device(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: device_module.asarray(x) for name, x in arrays.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("count", [1, 6, 130])
@pytest.mark.parametrize("options", [
    {}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, {"weight_decay": 0.2, "maximize": True},
])  # fmt: skip
def test_sgd(cuda: Cpu, options: dict[str, Any], count: int, dtype: str) -> None:
    host = parameters(count, dtype)
    p, reference = device(host), SGD(host, lr=0.05, **options)
    buffers = {name: device_module.empty(x.shape, x.dtype) for name, x in host.items()} if options.get("momentum") else None
    settings = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False, **options}
    for step in range(3):
        g = {name: values(100 * step + i, x.shape).astype(dtype) for i, (name, x) in enumerate(host.items())}
        optimiser.sgd(rows(p, device(g), buffers), lr=0.05, fresh=step == 0, **settings)
        reference.step(g)
        for name, x in host.items():
            close(p[name].get(), x, dtype, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind, options", [
    (Adam, {}), (Adam, {"weight_decay": 0.1, "maximize": True}), (AdamW, {"betas": (0.8, 0.95)}),
    (Adam, {"amsgrad": True, "betas": (0.9, 0.5)}), (AdamW, {"amsgrad": True, "betas": (0.5, 0.1)}),
])  # fmt: skip
def test_adam_and_adamw(cuda: Cpu, kind: Any, options: dict[str, Any], dtype: str) -> None:
    host = {"large": values(0, (5000,)).astype(dtype), **parameters(70, dtype)}
    p, reference = device(host), kind(host, lr=0.05, **options)
    m, v, largest = (device({name: np.zeros_like(x) for name, x in host.items()}) for _ in range(3))
    group = reference.param_groups[0]
    chosen = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "maximize")}
    for step in range(1, 4):
        g = {name: values(100 * step + i, x.shape).astype(dtype) for i, (name, x) in enumerate(host.items())}
        third = largest if options.get("amsgrad") else None
        optimiser.adam(rows(p, device(g), m, v, third), step=step, decoupled=kind is AdamW, **chosen)
        reference.step(g)
        for name, x in host.items():
            close(p[name].get(), x, dtype, name)
            if x.size:
                close(v[name].get(), reference.state[name]["exp_avg_sq"], dtype, name)
                if third is not None:
                    close(third[name].get(), reference.state[name]["max_exp_avg_sq"], dtype, name)


def test_a_large_parameter_is_shared_by_blocks_and_64_parameters_by_a_launch(cuda: Cpu) -> None:
    host = {"large": values(0, (5000,)), **parameters(64, "float64")}
    p, g = device(host), device({name: np.ones_like(x) for name, x in host.items()})
    before = len(cuda.launches)
    optimiser.sgd(rows(p, g, None), lr=1.0, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False, fresh=True)
    assert [grid for _, grid, _ in cuda.launches[before:]] == [(5, 54, 1)]       # those of size 0 take no part
    for name, x in host.items():
        np.testing.assert_array_equal(p[name].get(), x - 1)


def test_a_step_is_held_back_on_the_device(cuda: Cpu) -> None:
    host = parameters(3, "float32")
    p, g = device(host), device({name: np.full_like(x, np.nan) for name, x in host.items()})
    m, v = (device({name: np.zeros_like(x) for name, x in host.items()}) for _ in range(2))
    no, yes = (device_module.asarray(np.array([flag])) for flag in (False, True))
    chosen: dict[str, Any] = {
        "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "decoupled": True, "maximize": False,
    }  # fmt: skip
    plain: dict[str, Any] = {"dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False, "fresh": True}
    optimiser.adam(rows(p, g, m, v), step=1, ok=no, **chosen)
    optimiser.sgd(rows(p, g, m), lr=1, momentum=0.9, ok=no, **plain)
    for name, x in host.items():
        np.testing.assert_array_equal(p[name].get(), x)
        assert (m[name].get() == 0).all() and (v[name].get() == 0).all()
    optimiser.adam(rows(p, g, m, v), step=1, ok=yes, **chosen)
    assert np.isnan(p["p0"].get()).all()


@pytest.mark.parametrize("make", [
    lambda p: SGD(p, lr=0.1), lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda p: Adam(p, lr=0.01), lambda p: AdamW(p, lr=0.01), lambda p: AdamW(p, lr=0.01, amsgrad=True),
    lambda p: AdamW([{"params": {"p0": p.pop("p0")}, "lr": 0.1}, {"params": p}]),
])  # fmt: skip
def test_the_optimisers_take_the_fused_step_and_stay_on_their_way(cuda: Cpu, make: Any) -> None:
    host = parameters(9, "float64")
    there = device(host)
    mine, its, before = make(dict(host)), make(dict(there)), len(cuda.launches)
    bad = device_module.asarray(np.array([False]))
    for step in range(4):
        g = {name: values(100 * step + i, x.shape) for i, (name, x) in enumerate(host.items()) if step != 1 or i % 2}
        its.step({name: device_module.asarray(np.full_like(x, np.nan)) for name, x in g.items()}, bad)
        its.take_back()
        its.step(device(g))
        mine.step(g)
        for name, x in host.items():
            close(there[name].get(), x, "float64", name)
    assert its.state.keys() == mine.state.keys() and {k: set(v) for k, v in its.state.items()} == {
        k: set(v) for k, v in mine.state.items()
    }
    assert {name.partition("<")[0] for name, _, _ in cuda.launches[before:]} <= {"sgd", "adam"}


def test_gradients_in_another_order_are_laid_out_and_parameters_in_another_go_the_plain_way(cuda: Cpu) -> None:
    host = parameters(4, "float64")
    g = {name: np.ones_like(x) for name, x in host.items()}
    for turned in ("gradient", "parameter"):
        arrays, there = device(host), device(g)
        (there if turned == "gradient" else arrays)["p0"] = device_module.asarray(np.ascontiguousarray(host["p0"].T)).T
        mine, its, before = Adam({n: x.copy() for n, x in host.items()}), Adam(arrays), len(cuda.launches)
        its.step(there)
        mine.step({**g, "p0": there["p0"].get()})
        assert (len(cuda.launches) > before) == (turned == "gradient")
        for name, x in mine.param_groups[0]["params"].items():
            close(arrays[name].get(), x, "float64", name)
        kept = {name: x.get() for name, x in arrays.items()}
        its.step(there, device_module.asarray(np.array([False])))
        for name, x in kept.items():
            np.testing.assert_array_equal(arrays[name].get(), x)


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_memory_for_all_is_found_before_any_is_changed(cuda: Cpu, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    host = parameters(4, "float64")
    there = device(host)
    options = {"momentum": 0.9} if kind is SGD else {}
    optimizer = kind([{"params": {name: p}} for name, p in there.items()], lr=0.1, **options)
    whole, left = device_module.zeros_like, [3]

    def fails(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("full")
        return whole(*arguments, **more)

    monkeypatch.setattr(device_module, "zeros_like", fails)
    with pytest.raises(MemoryError):
        optimizer.step(device({name: np.ones_like(x) for name, x in host.items()}))
    optimizer.take_back()
    for name, x in host.items():
        np.testing.assert_array_equal(there[name].get(), x)
    assert not any(optimizer.state.values())
