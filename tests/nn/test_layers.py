"""Every layer against its namesake in torch.nn: state dict, output, all gradients, buffers; and nothing kept on the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, check_refused, close, values
from tests.nn.helpers import compare, place
from tinynet import nn
from tinynet.errors import ArgumentError, TinynetError

# name → (arguments, options, input shape)
LAYERS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "conv1d": ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 8)),
    "conv2d": ("Conv2d", (4, 6, (3, 2)), {"padding": (1, 0), "groups": 2}, (2, 4, 6, 5)),
    "conv2d without bias": ("Conv2d", (2, 3, 3), {"bias": False, "dilation": 2}, (2, 2, 7, 6)),
    "conv2d same": ("Conv2d", (2, 3, 3), {"padding": "same"}, (1, 2, 5, 5)),
    "conv2d valid": ("Conv2d", (2, 3, 3), {"padding": "valid"}, (1, 2, 5, 5)),
    "conv2d unbatched": ("Conv2d", (2, 3, 3), {}, (2, 5, 5)),
    "conv3d": ("Conv3d", (2, 3, 2), {"stride": (1, 2, 1)}, (2, 2, 3, 4, 3)),
    "conv_transpose1d": ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, (2, 4, 5)),
    "conv_transpose2d": ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2), {"dilation": 2}, (2, 4, 3, 4)),
    "conv_transpose2d unbatched": ("ConvTranspose2d", (2, 3, 3), {"bias": False}, (2, 5, 4)),
    "conv_transpose3d": ("ConvTranspose3d", (2, 3, 2), {"padding": 1}, (2, 2, 3, 4, 3)),
    "linear": ("Linear", (5, 3), {}, (4, 5)),
    "linear without bias": ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    "relu": ("ReLU", (), {}, (3, 4)),
    "relu6": ("ReLU6", (), {}, (3, 4)),
    "leaky_relu": ("LeakyReLU", (0.2,), {}, (3, 4)),
    "sigmoid": ("Sigmoid", (), {}, (3, 4)),
    "tanh": ("Tanh", (), {}, (3, 4)),
    "softmax": ("Softmax", (1,), {}, (3, 4, 2)),
    "softmax last": ("Softmax", (-1,), {}, (3, 4, 2)),
    "log_softmax": ("LogSoftmax", (1,), {}, (3, 4)),
    "max_pool1d": ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 8)),
    "max_pool2d": ("MaxPool2d", (3, 2), {"ceil_mode": True}, (2, 3, 8, 7)),
    "max_pool2d dilated": ("MaxPool2d", (2,), {"dilation": (2, 1)}, (2, 3, 8, 7)),
    "max_pool3d": ("MaxPool3d", (2,), {}, (2, 3, 4, 5, 4)),
    "avg_pool1d": ("AvgPool1d", (3,), {"count_include_pad": False, "padding": 1}, (2, 3, 8)),
    "avg_pool2d": ("AvgPool2d", (3, 2), {"ceil_mode": True}, (2, 3, 8, 7)),
    "avg_pool2d by 5": ("AvgPool2d", (2,), {"divisor_override": 5}, (2, 3, 8, 7)),
    "avg_pool3d": ("AvgPool3d", (2, 1), {}, (2, 3, 4, 5, 4)),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ((2, None),), {}, (2, 3, 5, 7)),
    "batch_norm1d": ("BatchNorm1d", (3,), {}, (4, 3)),
    "batch_norm1d map": ("BatchNorm1d", (3,), {"momentum": 0.3, "eps": 0.1}, (4, 3, 5)),
    "batch_norm2d": ("BatchNorm2d", (3,), {}, (4, 3, 2, 2)),
    "batch_norm2d without bias": ("BatchNorm2d", (3,), {"bias": False}, (4, 3, 2, 2)),
    "batch_norm2d plain": ("BatchNorm2d", (3,), {"affine": False}, (4, 3, 2, 2)),
    "batch_norm2d mean of all": ("BatchNorm2d", (3,), {"momentum": None}, (4, 3, 2, 2)),
    "batch_norm2d untracked": ("BatchNorm2d", (3,), {"track_running_stats": False}, (4, 3, 2, 2)),
    "batch_norm3d": ("BatchNorm3d", (3,), {}, (2, 3, 2, 2, 2)),
    "local_response_norm": ("LocalResponseNorm", (3,), {"alpha": 0.5, "k": 2.0}, (2, 5, 3, 3)),
    "flatten": ("Flatten", (), {}, (2, 3, 4, 5)),
    "flatten some": ("Flatten", (0, 2), {}, (2, 3, 4, 5)),
    "identity": ("Identity", (), {}, (2, 3)),
    "upsample": ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, (2, 3, 4, 5)),
    "upsample nearest": ("Upsample", ((7, 3),), {}, (2, 3, 4, 5)),
    "dropout at inference": ("Dropout", (0.4,), {}, (3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("what", LAYERS)
def test_layer_against_torch(backend: Backend, what: str, train: bool, dtype: str) -> None:
    name, arguments, options, shape = LAYERS[what]
    if name == "Dropout" and train:
        return  # PyTorch's draws cannot be repeated: test_dropout_in_training
    compare(
        backend,
        lambda: getattr(nn, name)(*arguments, **options),
        getattr(torch.nn, name)(*arguments, **options),
        shape,
        train=train,
        dtype=dtype,
    )


def test_every_public_layer_is_in_the_table() -> None:
    tested = {name for name, *_ in LAYERS.values()}
    others = {"Layer", "Container", "Sequential", "Concat", "Residual", "Pad", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"}
    others.add("GroupLogSumExp")  # torch.nn has none: test_group_logsumexp
    layers = {n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Layer)}
    assert layers - others == tested


@pytest.mark.parametrize("what", LAYERS)
def test_arguments_are_torchs_with_torchs_defaults(what: str) -> None:
    import inspect

    name = LAYERS[what][0]
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (nn, torch.nn))
    extra = {"rng", "dtype", "algorithm"}  # keyword-only, of tinynet
    left_out = {"device", "dtype", "padding_mode", "return_indices", "inplace", "args", "kwargs"}
    assert [n for n in ours if n not in extra] == [n for n in theirs if n not in left_out], name
    for n, parameter in ours.items():
        if n not in extra and (name, n) != ("Softmax", "dim") and (name, n) != ("LogSoftmax", "dim"):
            assert parameter.default == theirs[n].default, f"{name}({n}=)"


def test_dropout_in_training(backend: Backend) -> None:
    layer = nn.Dropout(0.4)
    x, dy = backend.array(values(0, (50, 4))), backend.array(values(1, (50, 4)))
    y, saved = layer.forward(x, train=True, rng=np.random.default_rng(5))
    again, _ = layer.forward(x, train=True, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(backend.host(y), backend.host(again))
    mask = backend.host(saved.mask)
    assert 0 < (mask == 0).mean() < 1
    np.testing.assert_allclose(backend.host(y), backend.host(x) * mask)
    np.testing.assert_allclose(backend.host(layer.input_gradient(saved, dy)), backend.host(dy) * mask)
    with pytest.raises(TinynetError, match="rng"):
        layer.forward(x, train=True)
    assert backend.host(nn.Dropout(0.0).forward(x, train=True)[0]).tolist() == backend.host(x).tolist()


def test_group_logsumexp(backend: Backend) -> None:
    class Reference(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.logsumexp(x[:, [3, 0]], 1), torch.logsumexp(x[:, [1, 2, 4]], 1)], 1)

    compare(backend, lambda: nn.GroupLogSumExp([[3, 0], [1, 2, 4]]), Reference(), (6, 5), train=True)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_with_the_switches_of_a_pooling(backend: Backend, n: int) -> None:
    x = values(0, (2, 3, 5, 6, 4)[: 2 + n])
    pool, unpool = getattr(nn, f"MaxPool{n}d")(3, 2), getattr(nn, f"MaxUnpool{n}d")(3, 2)
    y, switches = pool.forward(backend.array(x))
    z, saved = unpool.forward(y, switches.indices, x.shape)
    tensor = torch.tensor(x)
    a, b = getattr(torch.nn, f"MaxPool{n}d")(3, 2, return_indices=True)(tensor)
    a = a.detach().requires_grad_()
    expected = getattr(torch.nn, f"MaxUnpool{n}d")(3, 2)(a, b, x.shape)
    dy = values(1, x.shape)
    expected.backward(torch.from_numpy(dy))
    close(backend.host(z), expected.detach().numpy(), "float64")
    close(backend.host(unpool.input_gradient(saved, backend.array(dy))), a.grad.numpy(), "float64")
    np.testing.assert_array_equal(backend.host(unpool(y, switches.indices, x.shape)), backend.host(z))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(backend: Backend, mode: str) -> None:
    kinds = {"constant": "ZeroPad2d", "reflect": "ReflectionPad2d", "replicate": "ReplicationPad2d", "circular": "CircularPad2d"}
    pad = (1, 2, 0, 1)
    compare(backend, lambda: nn.Pad(pad, mode), getattr(torch.nn, kinds[mode])(pad), (2, 3, 4, 5), train=False)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Conv2d", (3, 4, 0)), ("Conv2d", (3, 4, 3, 0)), ("Conv2d", (3, 4, 3, 1, "full")), ("Conv2d", (3, 4, 3, 2, "same")),
        ("Conv2d", (3, 4, 3, 1, 0, 1, 2)), ("Conv2d", (4, 3, 3, 1, 0, 1, 2)), ("Conv2d", (3, 4, 3, 1, 0, 1, 0)),
        ("Conv2d", (3, 4, 2.5)), ("Linear", (2.5, 3)), ("Dropout", (1.5,)), ("Dropout", (-0.1,)), ("Linear", (-1, 3)),
    ],
)  # fmt: skip
def test_constructors_refuse_what_torchs_refuse(name: str, arguments: tuple[Any, ...]) -> None:
    # torch.nn builds some of these, and then fails at the first use.
    check_refused(lambda: getattr(nn, name)(*arguments), None, name)


@pytest.mark.parametrize(("what", "shape"), [
    ("batch_norm1d", (4,)), ("batch_norm1d", (4, 2)), ("batch_norm1d", (4, 3, 2, 2)), ("batch_norm2d", (4, 3)),
    ("batch_norm2d", (4, 2, 2, 2)), ("batch_norm3d", (4, 3, 2, 2)), ("linear", (4, 6)), ("conv2d", (2, 3, 6, 5)),
])  # fmt: skip
def test_inputs_that_do_not_fit(backend: Backend, what: str, shape: tuple[int, ...]) -> None:
    name, arguments, options, _ = LAYERS[what]
    layer = place(getattr(nn, name)(*arguments, **options, dtype=np.float64), backend)
    with pytest.raises((RuntimeError, ValueError)):
        getattr(torch.nn, name)(*arguments, **options).double()(torch.zeros(shape).double())
    with pytest.raises(TinynetError) as caught:
        layer.forward(backend.array(np.zeros(shape)))
    assert "\n" not in str(caught.value)


def test_one_number_is_no_padding() -> None:
    with pytest.raises(ArgumentError, match=r"Pad: expected pad \(before, after\) of the last axis, .*, got 0"):
        nn.Pad(0)  # type: ignore[arg-type]


def test_float32_weights_do_not_take_float64_input(backend: Backend) -> None:
    for layer, shape in ((nn.Linear(3, 2), (4, 3)), (nn.Conv2d(3, 2, 1), (1, 3, 2, 2)), (nn.BatchNorm1d(3), (4, 3))):
        with pytest.raises(TinynetError, match="float32"):
            place(layer, backend).forward(backend.array(np.zeros(shape)))


@pytest.mark.parametrize(("shape", "dtype"), [((4, 3, 2, 2), np.float64), ((1, 3, 1, 1), np.float32), ((4, 2, 2, 2), np.float32)])
def test_a_batch_that_a_norm_refuses_has_not_moved_its_statistics(backend: Backend, shape: tuple[int, ...], dtype: type) -> None:
    layer = place(nn.BatchNorm2d(3), backend)
    before = {name: backend.host(x).copy() for name, x in layer.named_buffers().items()}
    with pytest.raises(TinynetError):
        layer.forward(backend.array(np.full(shape, 7, dtype)), train=True)
    for name, x in layer.named_buffers().items():
        np.testing.assert_array_equal(backend.host(x), before[name], err_msg=name)


def test_losses_give_value_and_gradient(backend: Backend) -> None:
    x, target = values(0, (5, 3)), np.array([0, 2, 1, 1, 2])
    weight = np.array([0.5, 1.0, 2.0])
    cases = [
        (nn.CrossEntropyLoss(backend.array(weight), 1, "mean", 0.1),
         torch.nn.CrossEntropyLoss(torch.from_numpy(weight), ignore_index=1, reduction="mean", label_smoothing=0.1), target),
        (nn.CrossEntropyLoss(reduction="sum"), torch.nn.CrossEntropyLoss(reduction="sum"), target),
        (nn.NLLLoss(), torch.nn.NLLLoss(), target),
        (nn.MSELoss(), torch.nn.MSELoss(), values(1, (5, 3))),
        (nn.MSELoss("sum"), torch.nn.MSELoss(reduction="sum"), values(1, (5, 3))),
    ]  # fmt: skip
    for ours, theirs, goal in cases:
        tensor = torch.tensor(x, requires_grad=True)
        expected = theirs(tensor, torch.from_numpy(goal))
        expected.backward()
        value, dx = ours(backend.array(x), backend.array(goal))
        close(backend.host(value), expected.detach().numpy(), "float64")
        close(backend.host(dx), tensor.grad.numpy(), "float64")
