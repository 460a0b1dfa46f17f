"""A run that was stopped anywhere and resumed ends with the same bits as one that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train import runs
from tinynet import nn, optim
from tinynet.errors import ArgumentError, FileError, ShapeError
from tinynet.nn.group import current_member
from tinynet.train import Callback, EarlyStopping, TrainingInterrupted, load_checkpoint, save_checkpoint
from tinynet.train.interrupt import PatientInterrupt


class CtrlC(Callback):
    """Press Ctrl-C (a real signal) after that many steps."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_batch_end(self, trainer, loss):
        if trainer.state.step == self.step:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def whole() -> dict:
    """The uninterrupted runs, by optimiser."""
    results = {}
    for name in ("SGD", "AdamW"):
        run = runs.trainer(optimizer=name)
        run.fit()
        results[name] = runs.fingerprint(run)
    return results


def test_the_run_has_something_to_lose(whole):
    start = runs.net().state_dict()
    for name, value in start.items():
        assert whole["SGD"][f"model {name}"] != value.tobytes(), f"{name} was not trained"
    assert whole["SGD"]["history"][-1]["train_loss"] < whole["SGD"]["history"][0]["train_loss"]
    again = runs.trainer()
    again.fit()
    assert runs.fingerprint(again) == whole["SGD"]
    other = runs.trainer(seed=6)
    other.fit()
    assert runs.fingerprint(other) != whole["SGD"], "the seed of dropout changes nothing"


def test_every_step_and_every_worker_draws_its_own_numbers():
    class Draw(nn.Identity):
        def forward(self, x, train=False, rng=None):
            if train:
                drawn.append(float(rng.random()))
            return super().forward(x, train, rng)

    seen = []
    for seed in (5, 5, 6):
        drawn: list[float] = []
        run = runs.trainer(seed=seed, workers=2, validation_loader=None)
        run.model = nn.Sequential(draw=Draw(), rest=runs.net())
        run.optimizer = optim.SGD(run.model.named_parameters())
        run.fit()
        assert len(set(drawn)) == len(drawn) == 2 * runs.STEPS
        seen.append(set(drawn))  # the two threads of a step come in either order
    assert seen[0] == seen[1]
    assert not seen[0] & seen[2]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("step", [1, 4, 5, 7, 14])  # 5: the last batch of an epoch, before its validation
def test_after_ctrl_c_in_the_middle_of_an_epoch(tmp_path, whole, optimizer, step):
    with pytest.raises(TrainingInterrupted) as caught:
        runs.trainer(tmp_path, optimizer=optimizer, callbacks=[CtrlC(step)]).fit()
    assert isinstance(caught.value, KeyboardInterrupt)  # so that the exit code is 130
    last = tmp_path / "last.safetensors"
    assert str(caught.value).startswith(f"interrupted after {step} steps")
    assert f"saved as {last}; resume with fit(resume='{last}')" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_checkpoint(last).record["state"]["step"] == step
    resumed = runs.trainer(tmp_path, optimizer=optimizer)
    resumed.fit(resume=True)
    assert runs.fingerprint(resumed) == whole[optimizer]


def test_after_three_interruptions_in_new_trainers(tmp_path, whole):
    for step in (2, 6, 9):
        with pytest.raises(TrainingInterrupted):
            runs.trainer(tmp_path, callbacks=[CtrlC(step)]).fit(resume=step > 2)
    resumed = runs.trainer(tmp_path)
    resumed.fit(resume=tmp_path / "last.safetensors")
    assert runs.fingerprint(resumed) == whole["SGD"]


def test_the_same_trainer_goes_on_after_ctrl_c(whole):
    run = runs.trainer(callbacks=[CtrlC(7)])
    with pytest.raises(TrainingInterrupted, match="nothing is saved"):
        run.fit()
    run.fit()
    assert runs.fingerprint(run) == whole["SGD"]


@pytest.mark.parametrize("where", ["loss", "loader", "validation", "epoch end"])
def test_an_interrupt_that_does_not_wait_leaves_the_last_whole_step(tmp_path, whole, where):
    """KeyboardInterrupt from within: after the forward pass has moved the running statistics, or elsewhere."""
    run, calls = runs.trainer(tmp_path), []

    def at_call(number, function):
        def call(*args):
            calls.append(0)
            if len(calls) == number:
                raise KeyboardInterrupt
            return function(*args)

        return call

    if where == "loss":
        run.loss = at_call(10, run.loss)  # after 5 steps and 3 batches of validation: the second step of epoch 2
    elif where == "loader":
        run.train_loader.transform = at_call(60, run.train_loader.transform)
        run.train_loader.workers = 0
    elif where == "validation":
        run.validation_loader.transform = at_call(25, run.validation_loader.transform)
        run.validation_loader.workers = 0
    else:
        callback = Callback()
        callback.on_epoch_end = at_call(2, callback.on_epoch_end)
        run.callbacks.append(callback)
    with pytest.raises(TrainingInterrupted, match="resume with"):
        run.fit()
    if where == "loss":
        assert run.state.step == 6
        assert run.model.norm.num_batches_tracked == 6
    resumed = runs.trainer(tmp_path)
    resumed.fit(resume=True)
    assert runs.fingerprint(resumed) | {"state": 0} == whole["SGD"] | {"state": 0}


def test_an_interrupt_within_the_update_saves_no_half_step(tmp_path, whole):
    run = runs.trainer(tmp_path)
    original = run.optimizer.update

    def update(parameter, gradient, state, options, fresh):
        if run.state.step == 8 and parameter.shape == (2,):
            raise KeyboardInterrupt
        original(parameter, gradient, state, options, fresh)

    run.optimizer.update = update
    with pytest.raises(TrainingInterrupted, match=r"within step 8, half .* not saved; the last .* is .*; resume with"):
        run.fit()
    assert load_checkpoint(tmp_path / "last.safetensors").record["state"]["step"] == 5  # of the epoch's end
    with pytest.raises(ArgumentError, match="half a step"):
        run.fit()
    del run.optimizer.update
    run.fit(resume=True)
    assert runs.fingerprint(run) == whole["SGD"]


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    run, seen = runs.trainer(tmp_path, callbacks=[CtrlC(3, times=2)]), []
    before = signal.getsignal(signal.SIGINT)                    # ignored, if the tests themselves run in the background
    run.callbacks[0].on_epoch_end = lambda *args: seen.append(args)
    with pytest.raises(TrainingInterrupted, match="after 3 steps"):
        run.fit()
    assert not seen
    assert signal.getsignal(signal.SIGINT) is before  # it is put back
    assert not [t for t in threading.enumerate() if t.name.startswith("tinynet-loader")]


def test_a_run_killed_without_warning_resumes_from_its_last_epoch(tmp_path, whole):
    """SIGKILL: nothing can be done any more, so what counts is what each epoch wrote."""
    code = (
        "import os, signal\nfrom tests.train import runs\nfrom tinynet.train import Callback\n"
        "class Kill(Callback):\n    def on_batch_end(self, trainer, loss):\n"
        "        if trainer.state.step == 12: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"runs.trainer({str(tmp_path)!r}, callbacks=[Kill()]).fit()\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert process.returncode == -signal.SIGKILL
    resumed = runs.trainer(tmp_path)
    resumed.load(tmp_path / "last.safetensors")
    assert resumed.state.step == 10
    resumed.fit()
    assert runs.fingerprint(resumed) == whole["SGD"]


def test_more_epochs_can_be_added_later(tmp_path):
    one = runs.trainer(tmp_path, epochs=2, schedule=None)
    one.fit()
    longer = runs.trainer(tmp_path, epochs=3, schedule=None)
    longer.fit(resume=True)
    straight = runs.trainer(schedule=None)
    straight.fit()
    assert runs.fingerprint(longer) == runs.fingerprint(straight)
    assert len(longer.fit()) == 3  # there is nothing left to do


def test_a_run_in_shards_resumes_with_as_many(tmp_path):
    """Sums in another order have other last bits, so the number of threads comes from the checkpoint."""
    straight = runs.trainer(workers=3)
    straight.fit()
    with pytest.raises(TrainingInterrupted):
        runs.trainer(tmp_path, workers=3, callbacks=[CtrlC(7)]).fit()
    resumed = runs.trainer(tmp_path, workers=None)
    resumed.fit(resume=True)
    assert runs.fingerprint(resumed) == runs.fingerprint(straight)


def test_shards_that_still_run_at_a_second_ctrl_c_change_nothing_afterwards(tmp_path, monkeypatch):
    handled = threading.Semaphore(0)
    note = PatientInterrupt._note

    def note_and_tell(self, number, frame):
        handled.release()
        note(self, number, frame)

    monkeypatch.setattr(PatientInterrupt, "_note", note_and_tell)

    class Slow(nn.Identity):
        def forward(self, x, train=False, rng=None):
            if train and run.state.step == 3:
                if current_member().rank == 0:  # the shard that moves the running statistics
                    for _ in range(2):  # one after the other: two signals at once would arrive as one
                        told = False
                        while not told:  # again if it came as the main thread was about to wait for this one
                            time.sleep(0.1)
                            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                            told = handled.acquire(timeout=2)
                time.sleep(0.2)  # the main thread has been told by now, and nobody has got to the batch norm yet
            return super().forward(x, train, rng)

    run = runs.trainer(tmp_path, workers=2)
    run.model = nn.Sequential(slow=Slow(), rest=runs.net())
    run.optimizer = optim.SGD(run.model.named_parameters())
    with pytest.raises(TrainingInterrupted, match="after 3 steps"):
        run.fit()
    time.sleep(0.3)
    for name, value in load_checkpoint(tmp_path / "last.safetensors").model.items():
        np.testing.assert_array_equal(run.model.state_dict()[name], value, err_msg=name)
    assert run.model.state_dict()["rest.norm.num_batches_tracked"] == 3


def test_in_a_thread_where_no_signals_come(whole):
    run = runs.trainer()
    thread = threading.Thread(target=run.fit)
    thread.start()
    thread.join()
    assert runs.fingerprint(run) == whole["SGD"]


def test_callbacks_are_resumed_too(tmp_path):
    first = EarlyStopping("val_loss", patience=9)
    with pytest.raises(TrainingInterrupted):
        runs.trainer(tmp_path, callbacks=[first, CtrlC(12)]).fit()
    again = EarlyStopping("val_loss", patience=9)
    runs.trainer(tmp_path, callbacks=[Callback(), again]).load(tmp_path / "last.safetensors")
    assert (again.best, again.waited) == (first.best, first.waited)
    assert first.best is not None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with pytest.raises(TrainingInterrupted):
        runs.trainer(tmp_path, callbacks=[CtrlC(2)]).fit()
    path = tmp_path / "last.safetensors"
    other_loader = runs.trainer()
    other_loader.train_loader.batch_size = 4
    other_kind = runs.trainer(optimizer="AdamW")
    other_model = runs.trainer()
    fc = other_model.model.fc
    fc.weight, fc.bias = np.zeros((3, 64), np.float32), np.zeros(3, np.float32)
    other_model.optimizer = optim.SGD(other_model.model.named_parameters())
    damaged = load_checkpoint(path)
    del damaged.record["state"]
    save_checkpoint(tmp_path / "damaged.safetensors", damaged)
    for run, file, error, text in [
        (runs.trainer(seed=6), path, ArgumentError, "its run had seed 5, this one has 6"),
        (runs.trainer(workers=2), path, ArgumentError, "its run had workers 1, this one has 2"),
        (other_loader, path, ArgumentError, "its run had batches per epoch 5, this one has 10"),
        (other_kind, path, ArgumentError, "another kind of optimiser"),
        (other_model, path, ShapeError, "fc.bias"),
        (runs.trainer(), tmp_path / "damaged.safetensors", FileError, "damaged checkpoint"),
        (runs.trainer(), tmp_path / "none.safetensors", FileError, "no such file; expected a checkpoint"),
        (runs.trainer(tmp_path / "new"), True, FileError, "no such file; expected a checkpoint"),
        (runs.trainer(), True, ArgumentError, "needs an output folder"),
    ]:
        with pytest.raises(error, match=text) as caught:
            run.fit(resume=file)
        assert "\n" not in str(caught.value)
        assert run.state.step == 0


def test_the_optimizer_must_hold_the_models_arrays():
    run = runs.trainer()
    run.model.to(dtype=np.float64)
    with pytest.raises(ArgumentError, match=r"not the model's; build it from model\.named_parameters"):
        run.fit()
