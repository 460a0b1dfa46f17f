"""A loss that is not finite stops the run with step, rate and cause, and costs nothing that was saved."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.train import runs
from tinynet import nn, optim
from tinynet.errors import TinynetError
from tinynet.train import Callback, NonFiniteError, Trainer, load_checkpoint


class At(Callback):
    """Do something once that many steps are done."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_batch_end(self, trainer, loss):
        if trainer.state.step == self.step:
            self.action(trainer)


def spoil_batch(trainer):
    inner = trainer.train_loader.transform

    def transform(image, rng):
        x = inner(image, rng)
        x[0, 0, 0] = np.nan
        return x

    trainer.train_loader.transform = transform


def spoil_loss(value_factor, gradient_factor):
    def action(trainer):
        inner = trainer.loss

        def loss(logits, target):
            value, dlogits = inner(logits, target)
            return value * value_factor, dlogits * np.float32(gradient_factor)

        trainer.loss = loss

    return action


CASES = {
    "batch": (spoil_batch, r"the loss is nan .* the input batch \(sample 0 of 8 holds nan or inf\)"),
    "parameter": (lambda t: t.model.fc.weight.__setitem__((1, 2), np.inf), "parameter fc.weight"),
    "buffer": (lambda t: t.model.norm.running_var.__setitem__(1, np.nan), None),
    "layer": (lambda t: t.model.conv.weight.fill(3e38), r"the output of layer conv \(Conv2d\)"),
    "loss": (spoil_loss(np.nan, 1), r"the loss \(the model's output is finite\)"),
    "gradient": (spoil_loss(1, np.nan), "the gradients are not finite .* the gradient of fc.bias"),
    "norm": (spoil_loss(1, 1e30), "the norm of the gradients, which are finite but too large"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_it_says_where_it_began_and_the_last_good_checkpoint_remains(tmp_path, case, max_norm):
    action, cause = CASES[case]
    run = runs.trainer(tmp_path, callbacks=[At(7, action)], max_norm=max_norm)
    if case == "batch":
        run.train_loader.workers = 0  # nothing is prepared ahead
    with pytest.raises(NonFiniteError, match=cause) as caught:
        run.fit()
    error = caught.value
    assert isinstance(error, TinynetError)
    assert isinstance(error, ArithmeticError)
    assert "\n" not in str(error)
    if case == "buffer":  # training does not look at it, so it shows when the epoch's checkpoint is about to be written
        assert str(error).startswith("buffer norm.running_var is not finite after step 9 at learning rate ")
        assert error.step == 9
    else:
        rate = runs.trainer().schedule.lr_at(7)
        assert str(error).startswith("step 7 (epoch 2, batch 3): the ")
        assert f"at learning rate {rate:.3g}; it begins in " in str(error)
        assert (error.step, error.lr) == (7, rate)
    assert f"the last good checkpoint is {tmp_path / 'last.safetensors'}" in str(error)
    good = load_checkpoint(tmp_path / "last.safetensors")
    assert good.record["state"]["step"] == 5
    assert all(np.isfinite(value).all() for value in good.model.values())


def test_the_failed_step_changes_nothing():
    run = runs.trainer(callbacks=[At(7, spoil_loss(np.nan, 1))])
    before = {}
    run.callbacks.append(At(7, lambda t: before.update({k: v.copy() for k, v in t.model.state_dict().items()})))
    with pytest.raises(NonFiniteError, match="try a lower learning rate or max_norm") as caught:
        run.fit()
    assert "checkpoint" not in str(caught.value)
    for name, value in run.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_the_failed_step_is_not_counted_by_the_optimiser():
    run = runs.trainer(callbacks=[At(7, spoil_loss(np.nan, 1))], optimizer="AdamW")
    with pytest.raises(NonFiniteError):
        run.fit()
    assert {slots["step"] for slots in run.optimizer.state.values()} == {7}


def test_parameters_that_overflow_in_an_epochs_last_step_do_not_replace_the_checkpoint(tmp_path):
    run = runs.trainer(tmp_path, callbacks=[At(10, lambda t: t.model.fc.bias.fill(np.inf))])
    run.validation_loader = None
    run.monitor = "train_loss"
    with pytest.raises(NonFiniteError, match=r"parameter fc\.bias is not finite after step 9"):
        run.fit()
    for name in ("last", "best"):
        good = load_checkpoint(tmp_path / f"{name}.safetensors")
        assert np.isfinite(good.model["fc.bias"]).all()


def test_a_rate_that_is_too_high_is_told_so(capsys):
    rng = np.random.default_rng(0)
    model = nn.Sequential(flat=nn.Flatten(), first=nn.Linear(192, 8, rng=rng), second=nn.Linear(8, 2, rng=rng))
    optimizer = optim.SGD(model.named_parameters(), lr=1e30)
    run = Trainer(model, nn.CrossEntropyLoss(), optimizer, runs.loaders()[0], epochs=2, progress="none")
    with pytest.raises(NonFiniteError, match=r"step 1 .*at learning rate 1e\+30; .* output of layer second"):
        run.fit()
    assert capsys.readouterr() == ("", "")  # NumPy's own warnings of overflow are not shown besides


def test_a_model_that_is_one_layer():
    model = nn.Linear(3, 2, rng=np.random.default_rng(0))
    model.weight.fill(3e38)
    x, y = np.full((4, 3), 100, np.float32), np.zeros(4, np.int64)
    loader = [(x, y)]
    run = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.named_parameters()), Batches(loader), epochs=1)
    with pytest.raises(NonFiniteError, match="it begins in the model's output"):
        run.fit()


class Batches(SimpleNamespace):
    """A loader of given batches."""

    def __init__(self, items):
        super().__init__(items=items)

    def __len__(self):
        return len(self.items)

    def batches(self, epoch, start=0):
        return iter(self.items[start:])
