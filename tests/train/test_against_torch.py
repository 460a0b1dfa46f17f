"""Whole training runs, with every kind of layer, arrive at PyTorch's weights.

The same net is built here and there, starts from the same weights and sees the same batches. tinynet's side is run by
the Trainer, PyTorch's by its own loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tnn

from tinynet import nn, optim
from tinynet.train import Trainer

STEPS, BATCH = 20, 6


class Parallel(tnn.Module):
    """Concat and Residual, which PyTorch writes by hand."""

    def __init__(self, join: str, *branches: tuple[str, tnn.Module]) -> None:
        super().__init__()
        self.join = join
        for name, branch in branches:
            self.add_module(name, branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [branch(x) for branch in self.children()]
        if self.join == "concat":
            return torch.cat(outputs, 1)
        return outputs[0] + (outputs[1] if len(outputs) > 1 else x)


def layers(n: Any, concat: Any, residual: Any, reflect: Any) -> dict[str, Any]:
    """Every kind of layer a training can hold, with n the nn of tinynet or PyTorch; input (N, 3, 12, 12)."""
    relu = n.ReLU()  # one instance, used three times
    return {
        "conv1": n.Conv2d(3, 6, 3, stride=1, padding=1, bias=False),
        "norm1": n.BatchNorm2d(6),
        "relu1": relu,
        "pool1": n.MaxPool2d(3, 2, padding=1, ceil_mode=True),  # (6, 7, 7): windows overlap
        "lrn": n.LocalResponseNorm(3, alpha=0.1, beta=0.75, k=1.5),
        "fire": concat(
            expand1x1=n.Sequential(n.Conv2d(6, 3, 1), relu),
            expand3x3=n.Sequential(n.Conv2d(6, 5, 3, padding=1), n.LeakyReLU(0.2)),
        ),  # (8, 7, 7)
        "block": residual(
            body=n.Sequential(
                n.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2), n.BatchNorm2d(8, momentum=0.3), relu,
                n.Conv2d(8, 8, (1, 3), padding="same"),
            ),
        ),  # (8, 7, 7)
        "down": residual(
            body=n.Sequential(n.Conv2d(8, 4, 3, stride=2, padding=1), n.Tanh()),
            shortcut=n.Conv2d(8, 4, 1, stride=2),
        ),  # (4, 4, 4)
        "up": n.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),  # (6, 8, 8)
        "sigmoid": n.Sigmoid(),
        "upsample": n.Upsample(scale_factor=2, mode="nearest"),  # (6, 16, 16)
        "avg": n.AvgPool2d(2, ceil_mode=True, count_include_pad=False, padding=1),  # (6, 9, 9)
        "adaptive": n.AdaptiveAvgPool2d((3, 2)),  # (6, 3, 2)
        "pad": reflect((1, 0, 0, 1)),  # (6, 4, 3)
        "identity": n.Identity(),
        "flatten": n.Flatten(),  # 72
        "drop": n.Dropout(0.0),
        "fc1": n.Linear(72, 10),
        "norm2": n.BatchNorm1d(10),
        "tanh": n.Tanh(),
        "fc2": n.Linear(10, 4),
    }  # fmt: skip


def both(dtype: str) -> tuple[nn.Sequential, tnn.Sequential]:
    mine = nn.Sequential(layers(nn, nn.Concat, nn.Residual, lambda p: nn.Pad(p, mode="reflect")))
    theirs = tnn.Sequential()
    for name, layer in layers(
        tnn, lambda **b: Parallel("concat", *b.items()), lambda **b: Parallel("sum", *b.items()), tnn.ReflectionPad2d
    ).items():
        theirs.add_module(name, layer)
    theirs.to(getattr(torch, dtype)).train()
    mine.to(dtype=dtype)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            tensor.copy_(torch.tensor(rng.normal(1.0 if "norm" in name else 0.0, 0.3, tensor.shape)))
    mine.load_state_dict({name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()})
    return mine, theirs


class Batches:
    """The same 20 batches for both, as one epoch; the numbers are the same in both dtypes."""

    def __init__(self, dtype: str, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.items = [
            (rng.normal(size=(BATCH, 3, 12, 12)).astype(np.float32).astype(dtype), rng.integers(0, 4, BATCH))
            for _ in range(STEPS)
        ]

    def __len__(self) -> int:
        return STEPS

    def batches(self, epoch: int, start: int = 0) -> Any:
        return iter(self.items[start:])


OPTIMIZERS = {
    "SGD": ({"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}, None),
    "Adam": ({"lr": 1e-2, "amsgrad": True, "eps": 1e-3}, None),
    "AdamW": ({"lr": 1e-2, "eps": 1e-3}, {"max_lr": 0.02, "total_steps": STEPS}),
}


def mine_after(name: str, dtype: str, seed: int = 1) -> tuple[dict[str, np.ndarray], float]:
    """(state dict, mean loss) after the 20 steps of tinynet's Trainer."""
    options, cycle = OPTIMIZERS[name]
    model, _ = both(dtype)
    optimizer = getattr(optim, name)(model.named_parameters(), **options)
    schedule = optim.OneCycleLR(**cycle) if cycle else None
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    data = Batches(dtype, seed)
    run = Trainer(model, loss, optimizer, data, epochs=1, schedule=schedule, max_norm=0.5, progress="none")
    history = run.fit()
    return model.state_dict(), history[0].train_loss


def theirs_after(name: str, dtype: str, seed: int = 1) -> tuple[dict[str, np.ndarray], float]:
    """The same of PyTorch's own loop."""
    options, cycle = OPTIMIZERS[name]
    _, model = both(dtype)
    optimizer = getattr(torch.optim, name)(model.parameters(), **options)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **cycle) if cycle else None
    loss = tnn.CrossEntropyLoss(label_smoothing=0.1)
    losses = []
    for x, y in Batches(dtype, seed).items:
        optimizer.zero_grad()
        value = loss(model(torch.tensor(x)), torch.tensor(y))
        value.backward()
        tnn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if schedule is not None and len(losses) + 1 < STEPS:
            schedule.step()
        losses.append(value.item())
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}, float(np.mean(losses))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_of_every_layer_in_float64(name):
    got, got_loss = mine_after(name, "float64")
    want, want_loss = theirs_after(name, "float64")
    start = both("float64")[0].state_dict()
    assert got_loss == pytest.approx(want_loss, rel=1e-11)
    for key, value in want.items():
        assert got[key].dtype == value.dtype, key
        assert not np.array_equal(value, start[key]), f"{key} was not trained"
        # Weights of order 1; twenty steps, and Adam's division by small gradients, amplify the rounding.
        np.testing.assert_allclose(got[key], value, rtol=1e-10, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_twenty_steps_of_every_layer_in_float32(name):
    """As near to the float64 run as PyTorch's own float32 run comes.

    A run that crosses a kink (of ReLU, of max-pooling) on the other side is a hundred times further away, on either
    side and by chance: so it is the medians over five runs that are compared.
    """
    mine, theirs = [], []
    for seed in range(5):
        truth, _ = theirs_after(name, "float64", seed)
        floats = [key for key, value in truth.items() if value.dtype.kind == "f"]
        for errors, state in [
            (mine, mine_after(name, "float32", seed)[0]), (theirs, theirs_after(name, "float32", seed)[0]),
        ]:  # fmt: skip
            assert {str(state[key].dtype) for key in floats} == {"float32"}
            errors.append(np.sqrt(np.mean(np.concatenate([(state[k] - truth[k]).ravel() for k in floats]) ** 2)))
    assert np.median(mine) < 3 * np.median(theirs) < 1e-3


KINDS_2D = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d)


def test_every_layer_kind_is_in_the_net():
    """A layer that is added to tinynet.nn must be added to this run as well, or be named here with its reason."""
    elsewhere = {
        "Container": "a base", "Layer": "a base", "Softmax": "below", "LogSoftmax": "below",
        "GroupLogSumExp": "tests/functional/test_softmax.py", "ReLU6": "tests/nn/test_layers.py",
        **{f"MaxUnpool{n}d": "takes switches besides its input" for n in (1, 2, 3)},
        **{f"{kind.__name__[:-2]}{n}d": "below" for n in (1, 3) for kind in KINDS_2D},
    }  # fmt: skip
    mine, _ = both("float64")
    used = {type(layer).__name__ for _, layer in mine.layers()}
    kinds = {n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Layer)}
    assert kinds - used - elsewhere.keys() == set()


def chain(n: Any, dims: int) -> list[Any]:
    """The layers of one and three dimensions."""
    def kind(name: str) -> Any:
        return getattr(n, f"{name}{dims}d")

    return [
        kind("Conv")(2, 4, 3, padding=1), kind("BatchNorm")(4), n.ReLU(), kind("MaxPool")(2),
        kind("ConvTranspose")(4, 3, 2, 2), n.LeakyReLU(), kind("AvgPool")(2), n.Flatten(), n.Linear(3 * 2**dims, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("loss", ["NLLLoss", "MSELoss"])
def test_one_and_three_dimensions_and_the_other_losses(dims, loss):
    last = [lambda n: n.LogSoftmax(1)] if loss == "NLLLoss" else [lambda n: n.Softmax(1), lambda n: n.Sigmoid()]
    mine = nn.Sequential(*chain(nn, dims), *(make(nn) for make in last)).to(dtype=np.float64)
    theirs = tnn.Sequential(*chain(tnn, dims), *(make(tnn) for make in last)).double()
    mine.load_state_dict({name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()})
    rng = np.random.default_rng(dims)
    items = []
    for _ in range(STEPS):
        target = rng.integers(0, 3, 5) if loss == "NLLLoss" else rng.random((5, 3))
        items.append((rng.normal(size=(5, 2, *[4] * dims)), target))
    data = Batches("float64")
    data.items = items
    Trainer(
        mine, getattr(nn, loss)(), optim.SGD(mine.named_parameters(), 0.1, 0.9), data, epochs=1, progress="none"
    ).fit()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, 0.9)
    for x, y in items:
        optimizer.zero_grad()
        getattr(tnn, loss)()(theirs(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[key], tensor.numpy(), rtol=1e-10, atol=1e-10, err_msg=key)
