"""Training with gradients that stay products: the bits of a training that writes them, less memory, and the same refusals."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.train import runs
from tinynet import nn, optim
from tinynet.distributed import Shards
from tinynet.kernels import blocks, factors
from tinynet.kernels.factors import Product
from tinynet.train import Callback, NonFiniteError, Trainer


def net(seed: int = 0) -> nn.Sequential:
    """With two layers that keep factors, of a batch of 8 whole and in parts."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding=1, rng=rng), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
        one=nn.Linear(64, 96, rng=rng), act=nn.ReLU(), two=nn.Linear(96, 80, rng=rng), drop=nn.Dropout(0.3),
        fc=nn.Linear(80, 2, rng=rng),
    )


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with (
        mock.patch.object(runs, "net", net), mock.patch.object(blocks, "NUMBERS", 500), mock.patch.object(factors, "_ENOUGH", 3),
    ):
        yield


def trained(factored: bool | None, optimizer: str = "SGD", **options: Any) -> tuple[Trainer, set[str]]:
    """A run, and the names of the gradients that reached its optimiser as products. factored None: as the Trainer has it."""
    run, seen = runs.trainer(optimizer=optimizer, **{"max_norm": None, "epochs": 2, **options}), set()
    step = optim.Optimizer.step

    def watched(self: Any, gradients: Any, *rest: Any) -> None:
        seen.update(name for name, gradient in gradients.items() if isinstance(gradient, Product))
        step(self, gradients, *rest)

    with mock.patch.object(optim.Optimizer, "step", watched):
        if factored is None:
            run.fit()
        else:
            with mock.patch.object(Trainer, "_factored", factored):
                run.fit()
    return run, seen


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip_value", [None, 1e-3])
def test_the_same_training_to_the_bit(workers: int, optimizer: str, clip_value: float | None) -> None:
    """Clipped value by value, too, for which they are written before the step."""
    run, seen = trained(None, optimizer, workers=workers, clip_value=clip_value)
    written, none = trained(False, optimizer, workers=workers, clip_value=clip_value)
    assert seen == ({"one.weight", "two.weight"} if clip_value is None else set()) and none == set()
    assert runs.fingerprint(run) == runs.fingerprint(written)


def test_clipped_by_the_norm_it_is_the_same_but_for_rounding() -> None:
    """The norm and what it scales are rounded elsewhere: 15 steps of a few ulps."""
    (run, seen), (written, _) = (trained(factored, workers=2, max_norm=0.05) for factored in (None, False))
    assert seen == {"one.weight", "two.weight"}
    for name, value in written.model.state_dict().items():
        np.testing.assert_allclose(run.model.state_dict()[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_frozen_layers_and_callbacks_change_nothing() -> None:
    looked: list[float] = []

    class Looking(Callback):
        def on_batch_end(self, trainer: Trainer, loss: float) -> None:
            looked.append(float(np.abs(trainer.model.named_parameters()["two.weight"]).sum()))

    def run(factored: bool) -> dict[str, Any]:
        model = net()
        trained = {name: p for name, p in model.named_parameters().items() if name.startswith(("two", "fc.bias"))}
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optim.SGD(trained, lr=0.1), runs.loaders()[0], epochs=1, workers=2, progress="none",
            callbacks=[Looking()],
        )
        with mock.patch.object(Trainer, "_factored", factored):
            trainer.fit()
        return runs.fingerprint(trainer)

    assert run(True) == run(False)
    assert looked[:5] == looked[5:] and len(set(looked[:5])) == 5


class Own(optim.SGD):
    """With a step of its own, which looks at whole arrays."""

    def step(self, gradients: Any, ok: Any = True, each: Any = None) -> None:
        assert all(isinstance(gradient, np.ndarray) for gradient in gradients.values())
        super().step(gradients, ok)


def test_who_looks_at_the_gradients_gets_arrays() -> None:
    model = net()
    optimizer = Own(model.named_parameters(), lr=0.1)
    Trainer(model, nn.CrossEntropyLoss(), optimizer, runs.loaders()[0], epochs=1, progress="none").fit()
    with Shards(2) as shards:
        step = shards.step(model, nn.CrossEntropyLoss(), np.zeros((8, 3, 8, 8), np.float32), np.zeros(8, int), generators())
    assert all(type(gradient) is np.ndarray for gradient in step.gradients.values())


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(2)]


@pytest.mark.parametrize(("factor", "cause"), [
    (np.nan, "the gradient of fc.bias"), (1e30, "the norm of the gradients, which are finite but too large"),
])  # fmt: skip
@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_whose_gradients_are_not_finite_is_refused_and_changes_nothing(
    factor: float, cause: str, max_norm: float | None, workers: int
) -> None:
    """Only two.weight is trained: its product alone can say so."""
    model = net()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    inner = nn.CrossEntropyLoss()

    def loss(logits: Any, target: Any) -> Any:
        value, dlogits = inner(logits, target)
        return value, dlogits * np.float32(factor)

    optimizer = optim.Adam({"two.weight": model.named_parameters()["two.weight"]})
    run = Trainer(model, loss, optimizer, runs.loaders()[0], epochs=1, workers=workers, progress="none", max_norm=max_norm)
    with pytest.raises(NonFiniteError, match=f"step 0 .* the gradients are not finite .*{cause}"):
        run.fit()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert not optimizer.state.get("two.weight")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("max_norm", [None, 0.01])
def test_a_step_makes_no_array_of_the_gradients_size(workers: int, max_norm: float | None) -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(one=nn.Linear(700, 600, rng=rng), two=nn.Linear(600, 2, rng=rng))
    x, target, size = rng.standard_normal((8, 700), np.float32), np.zeros(8, int), model.one.weight.nbytes
    optimizer = optim.SGD(model.named_parameters(), lr=1e-3, momentum=0.9)

    def most(factored: bool) -> int:
        with Shards(workers, keep=0) as shards:
            for number in range(2):                             # the first makes the momentum
                if number:
                    tracemalloc.start()
                gradients = shards.step(model, nn.CrossEntropyLoss(), x, target, generators(), factored=factored).gradients
                if max_norm is not None:
                    optim.clip_grad_norm(gradients, max_norm, each=shards.each)
                optimizer.step(gradients, each=shards.each)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert most(False) > size > 3 * most(True)
