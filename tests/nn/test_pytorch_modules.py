"""PyTorch's own sample inputs for modules (`module_db`): output, gradients and buffers of every module that tinynet has."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, close
from tests.nn.helpers import copy_state, place
from tinynet import nn
from tinynet.errors import TinynetError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

MODULES = {info.module_cls.__name__: info for info in module_db if hasattr(nn, info.module_cls.__name__)}
LEAST = {"CrossEntropyLoss": 100, "NLLLoss": 28, "AvgPool3d": 15, "BatchNorm1d": 8}
# Options that tinynet documents as not offered: the switches are in the record (MaxPool), nothing is overwritten (ReLU).
NOT_OFFERED = {"return_indices", "inplace", "padding_mode"}


def convert(backend: Backend, value: Any, dtype: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    host = value.detach().numpy()
    return backend.array(host.astype(dtype) if host.dtype.kind == "f" else host)


def double(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().double() if value.is_floating_point() else value.detach()


def compare(backend: Backend, name: str, sample: Any, train: bool, dtype: str) -> None:
    arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
    module = MODULES[name].module_cls(*map(double, arguments), **{k: double(v) for k, v in options.items()}).double().train(train)
    ours = getattr(nn, name)(
        *(convert(backend, v, dtype) for v in arguments), **{k: convert(backend, v, dtype) for k, v in options.items()}
    )
    inputs = [double(v) for v in sample.forward_input.args]
    tensor = inputs[0].clone().requires_grad_()
    if isinstance(ours, nn.Layer):
        copy_state(ours.to(dtype=np.float64), module)
        place(ours.to(dtype=dtype), backend)
    expected = module(tensor, *inputs[1:])
    array, *others = (convert(backend, v, dtype) for v in inputs)
    if not isinstance(ours, nn.Layer):
        expected.sum().backward()
        value, dx = ours(array, *others)
        close(backend.host(value), expected.detach().numpy(), dtype)
        close(backend.host(dx), tensor.grad.numpy(), dtype, "input gradient")
        return
    y, saved = ours.forward(array, train=train)
    close(backend.host(y), expected.detach().numpy(), dtype)
    dy = np.random.default_rng(0).standard_normal(tuple(expected.shape))
    expected.backward(torch.from_numpy(np.asarray(dy.astype(dtype), np.float64)))
    signal = backend.array(np.asarray(dy, dtype))
    dx, gradients = ours.input_gradient(saved, signal), ours.parameter_gradients(saved, signal)
    close(backend.host(dx), tensor.grad.numpy(), dtype, "input gradient")
    dx_too, together = ours.gradients(saved, signal)
    assert np.array_equal(backend.host(dx_too), backend.host(dx)) and set(together) == set(gradients)
    assert all(np.array_equal(backend.host(together[key]), backend.host(gradients[key])) for key in gradients)
    assert set(gradients) == {key for key, _ in module.named_parameters()}
    for key, parameter in module.named_parameters():
        close(backend.host(gradients[key]), parameter.grad.numpy(), dtype, f"gradient of {key}")
    for key, buffer in module.named_buffers():
        got = backend.host(ours.state_dict()[key])
        close(got, buffer.numpy(), str(got.dtype) if got.dtype.kind == "i" else dtype, key)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_module_samples(backend: Backend, name: str, dtype: str) -> None:
    torch.manual_seed(0)
    info, count, failures = MODULES[name], 0, []
    for train in (True, False):
        samples = info.module_inputs_func(
            info, device="cpu", dtype=getattr(torch, dtype), requires_grad=False, training=train
        )
        for sample in samples:
            if sample.forward_input is None or not sample.forward_input.args:
                continue
            if NOT_OFFERED & set(sample.constructor_input.kwargs):
                continue
            count += 1
            try:
                compare(backend, name, sample, train, dtype)
            except Exception as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                shapes = [tuple(v.shape) for v in sample.forward_input.args if isinstance(v, torch.Tensor)]
                failures.append(
                    f"{sample.constructor_input.args} {sample.constructor_input.kwargs} {shapes} train={train}: "
                    f"{type(error).__name__}: {' '.join(lines[:5])[:300]}"
                )
    assert not failures, f"{len(failures)} of {count} samples of {name}:\n" + "\n".join(failures[:10])
    assert count >= 2 * LEAST.get(name, 2), f"only {count} samples of {name}"


@pytest.mark.parametrize("name", [name for name, info in MODULES.items() if info.module_error_inputs_func is not None])
def test_module_errors(backend: Backend, name: str) -> None:
    info, count = MODULES[name], 0
    for invalid in info.module_error_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=True):
        sample = invalid.module_error_input
        arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
        if NOT_OFFERED & set(options):
            continue
        count += 1

        def theirs(arguments: Any = arguments, options: Any = options, sample: Any = sample) -> Any:
            module = info.module_cls(*arguments, **options)
            return (module.double() if list(module.parameters()) else module)(*sample.forward_input.args)

        def ours(arguments: Any = arguments, options: Any = options, sample: Any = sample) -> Any:
            given = {k: backend.array(v.numpy()) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
            layer = getattr(nn, name)(*arguments, **given)
            inputs = [convert(backend, v, "float64") for v in sample.forward_input.args]
            if isinstance(layer, nn.Layer):
                return place(layer.to(dtype=np.float64), backend).forward(*inputs, train=True)
            return layer(*inputs)

        with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)):
            theirs()
        with pytest.raises(TinynetError) as caught:
            ours()
        assert "\n" not in str(caught.value)
    assert count or name == "MaxPool2d", f"no invalid calls of {name}"


def test_most_modules_are_covered() -> None:
    layers = {n for n in nn.__all__ if isinstance(getattr(nn, n), type) and hasattr(torch.nn, n)}
    absent = layers - set(MODULES)
    assert absent <= {
        "Sequential", "Dropout", "Flatten", "Identity", "Upsample", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "Container"
    }  # PyTorch's database does not have these; test_layers and test_containers do  # fmt: skip
    assert len(MODULES) >= 27
