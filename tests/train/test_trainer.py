"""What the loop records, shows, keeps and calls."""

from __future__ import annotations

import csv
import json
import math
import re
import weakref
from unittest import mock

import numpy as np
import pytest

from tests.checking import Backend
from tests.train import runs
from tinynet import nn, optim
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError
from tinynet.train import (
    Callback,
    EarlyStopping,
    EpochRecord,
    History,
    NonFiniteError,
    Trainer,
    evaluate,
    load_checkpoint,
)


class Recorder(Callback):
    def __init__(self):
        self.events, self.losses, self.rates = [], [], []

    def on_fit_start(self, trainer):
        self.events.append("start")

    def on_batch_end(self, trainer, loss):
        self.events.append("batch")
        self.losses.append(loss)
        self.rates.append(trainer.optimizer.lr)

    def on_epoch_end(self, trainer, record):
        self.events.append("epoch")
        assert trainer.history[-1] is record

    def on_fit_end(self, trainer):
        self.events.append("end")


def test_callbacks_are_called_in_order_and_the_schedule_sets_every_step():
    recorder = Recorder()
    run = runs.trainer(callbacks=[recorder])
    run.fit()
    assert recorder.events == ["start", *(["batch"] * 5 + ["epoch"]) * 3, "end"]
    assert recorder.rates == [run.schedule.lr_at(step) for step in range(15)]
    assert run.history.column("lr") == recorder.rates[4::5]


def test_a_schedule_by_epochs():
    recorder = Recorder()
    run = runs.trainer(callbacks=[recorder], schedule=optim.StepLR(1, 0.5), schedule_every="epoch")
    run.optimizer.lr = 0.08
    run.fit()
    assert recorder.rates == pytest.approx([0.08] * 5 + [0.04] * 5 + [0.02] * 5)


def test_means_are_over_the_samples_also_with_a_short_last_batch():
    recorder = Recorder()
    run = runs.trainer(callbacks=[recorder], epochs=1, schedule=None)
    run.train_loader.batch_size = 16  # 16, 16, 8
    record = run.fit()[0]
    assert record.train_loss == pytest.approx(np.average(recorder.losses, weights=[16, 16, 8]), rel=1e-12)
    assert len(recorder.losses) == 3
    validation = evaluate(run.model, runs.loaders()[1], run.loss)
    assert (record.val_loss, record.val_accuracy) == (pytest.approx(validation.loss, rel=1e-6), validation.accuracy)
    assert record.epoch == 1
    assert 0 <= record.train_accuracy <= 1
    assert record.seconds > 0
    assert record.images_per_second > 40 / record.seconds * 0.99  # 40 pictures, in a part of the seconds


def test_training_accuracy_counts_right_ones():
    model = runs.net()
    run = runs.trainer(epochs=1, schedule=None)
    run.model, run.optimizer = model, optim.SGD(model.named_parameters(), lr=0.0)  # it stays what it is
    model._children["drop"].p = 0.0
    record = run.fit()[0]
    right = 0
    for x, y in run.train_loader.batches(0):
        logits, _ = model.forward(x, train=True)
        right += int((logits.argmax(axis=1) == y).sum())
    assert record.train_accuracy == right / 40


def test_targets_that_are_no_classes_have_no_accuracy():
    class Regression:
        def __len__(self):
            return 2

        def batches(self, epoch, start=0):
            rng = np.random.default_rng(0)
            return iter([(rng.normal(size=(4, 3)), rng.normal(size=(4, 2))) for _ in range(2)][start:])

    model = nn.Linear(3, 2, rng=np.random.default_rng(0), dtype=np.float64)
    optimizer = optim.Adam(model.named_parameters(), 0.1)
    run = Trainer(model, nn.MSELoss(), optimizer, Regression(), epochs=30, progress="none")
    history = run.fit()
    assert history[-1].train_loss < 0.7 * history[0].train_loss
    assert math.isnan(history[-1].train_accuracy)
    assert "accuracy" not in history[-1].line(30)


@pytest.mark.parametrize(("options", "bound"), [({"max_norm": 1e-4}, 1e-4), ({"clip_value": 1e-5}, 1e-4)])
def test_gradients_are_clipped_before_the_step(options, bound):
    model = runs.net()
    start = {name: value.copy() for name, value in model.named_parameters().items()}
    optimizer = optim.SGD(model.named_parameters(), lr=1.0)
    Trainer(model, nn.CrossEntropyLoss(), optimizer, runs.loaders()[0], epochs=1, progress="none", **options).fit()
    moved = math.sqrt(sum(float(((v - start[n]) ** 2).sum()) for n, v in model.named_parameters().items()))
    count = math.sqrt(sum(value.size for value in start.values()))
    assert 0 < moved <= 5 * (bound if "max_norm" in options else 1e-5 * count) * 1.01  # five steps


def test_history_files_are_written_each_epoch(tmp_path):
    run, seen = runs.trainer(tmp_path), []

    class Look(Callback):
        def on_epoch_end(self, trainer, record):
            if record.epoch > 1:
                seen.append(len(json.loads((tmp_path / "history.json").read_text())))

    run.callbacks.append(Look())
    history = run.fit()
    assert seen == [1, 2]
    rows = json.loads((tmp_path / "history.json").read_text())
    assert History.from_dicts(rows) == history
    with open(tmp_path / "history.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second",
    ]  # fmt: skip
    for row, record in zip(table, history, strict=True):
        assert {key: float(value) for key, value in row.items()} == {k: float(v) for k, v in vars(record).items()}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors", "history.csv", "history.json", "last.safetensors",
    ]  # fmt: skip


def test_json_has_null_for_nan(tmp_path):
    record = EpochRecord(1, 0.5, math.nan, math.inf, math.nan, 0.1, 1.0, 10.0)
    History([record]).write_json(tmp_path / "h.json")
    row = json.loads((tmp_path / "h.json").read_text(), parse_constant=lambda name: pytest.fail(name))[0]
    assert (row["train_accuracy"], row["val_loss"], row["train_loss"]) == (None, None, 0.5)
    assert math.isnan(History.from_dicts([row])[0].val_loss)


@pytest.mark.parametrize(("monitor", "best"), [("val_accuracy", max), ("val_loss", min), ("train_loss", min)])
def test_the_best_checkpoint_is_of_the_best_epoch(tmp_path, monitor, best):
    weights = []

    class Keep(Callback):
        def on_epoch_end(self, trainer, record):
            weights.append({name: value.copy() for name, value in trainer.model.state_dict().items()})

    run = runs.trainer(tmp_path, callbacks=[Keep()], monitor=monitor, epochs=6, schedule=optim.StepLR(3))
    run.optimizer.lr = 0.3  # too high for a steady descent
    history = run.fit()
    column = history.column(monitor)
    number = column.index(best(column))  # the first of equals
    checkpoint = load_checkpoint(tmp_path / "best.safetensors")
    assert checkpoint.record["state"]["epoch"] == number + 1
    run.load_best()
    for name, value in run.model.state_dict().items():
        np.testing.assert_array_equal(value, weights[number][name])


def test_early_stopping(capsys):
    run = runs.trainer(epochs=50, schedule=None, callbacks=[EarlyStopping("val_loss", patience=2)], progress="lines")
    run.optimizer.lr = 0.0
    run.model._children["norm"].momentum = 0.0  # nothing moves, so the validation loss stays
    history = run.fit()
    assert len(history) == 3
    assert run.stop_reason.startswith("val_loss has not improved from 0.")
    assert "stopped early: val_loss has not improved" in capsys.readouterr().out
    assert len(run.fit()) == 3  # still as good as before: no further epoch


@pytest.mark.parametrize(
    ("monitor", "values", "patience", "min_delta", "stops"),
    [
        ("val_loss", [3, 2, 1, 1.5, 0.5, 1, 1], 2, 0.0, 7),
        ("val_loss", [3, 2.95, 2.92, 1], 2, 0.1, 3),
        ("val_accuracy", [0.1, 0.2, 0.2, 0.3, 0.1], 1, 0.0, 3),
        ("val_accuracy", [math.nan, math.nan, 0.3, 0.1], 2, 0.0, 2),
        ("train_loss", [1, math.nan, 0.9, 0.8], 2, 0.0, None),
    ],
)
def test_when_early_stopping_stops(monitor, values, patience, min_delta, stops):
    callback, stopped = EarlyStopping(monitor, patience, min_delta), []

    class Run:
        def stop(self, reason):
            stopped.append(reason)

    for number, value in enumerate(values, 1):
        record = EpochRecord(number, *[value] * 4, lr=0.1, seconds=1.0, images_per_second=1.0)
        callback.on_epoch_end(Run(), record)
        if stopped:
            break
    assert (number if stopped else None) == stops


def test_lines_where_there_is_no_terminal(capsys):
    runs.trainer(progress=None).fit()
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 3
    form = r"epoch 2/3  loss 0\.\d{4}  accuracy \d+\.\d %  val loss 0\.\d{4}  val accuracy \d+\.\d %"
    form += r"  lr 0\.\d+  \d+ images/s  \d+\.\d s"
    assert re.fullmatch(form, lines[1])


def test_a_bar_at_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    runs.trainer(progress=None).fit()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    bar = r"epoch 3/3 100% \|.*\| 15/15 \[\d\d:\d\d, 00:00 left\] .*loss 0\.\d+, accuracy \d+\.\d %, \d+ images/s"
    assert re.search(bar, err)


def test_none_shows_nothing(capsys):
    runs.trainer(progress="none").fit()
    assert capsys.readouterr() == ("", "")


def test_without_validation_the_training_loss_decides(tmp_path):
    run = runs.trainer(tmp_path, validation_loader=None)
    history = run.fit()
    assert run.monitor == "train_loss"
    assert run.state.best == min(history.column("train_loss"))
    assert math.isnan(history[0].val_loss)
    assert "val" not in history[0].line(3)


def on(backend, run):
    """The run with its model on that backend, and without dropout, for which a device may draw other numbers."""
    run.model._children["drop"].p = 0.0
    for _, layer in run.model.layers():
        for name in (*layer.parameter_names, *layer.buffer_names):
            if getattr(layer, name) is not None:
                setattr(layer, name, backend.xp.asarray(getattr(layer, name)))
    run.optimizer = optim.AdamW(run.model.named_parameters(), eps=1e-3)
    return run


def test_every_backend_runs_the_same(backend):
    host, device = on(Backend("numpy", np), runs.trainer(epochs=2)), on(backend, runs.trainer(epochs=2))
    host_history, device_history = host.fit(), device.fit()
    for name, value in host.model.state_dict().items():
        np.testing.assert_allclose(backend.host(device.model.state_dict()[name]), value, rtol=1e-3, atol=1e-4)
    for column in ("train_loss", "val_loss"):
        assert device_history.column(column) == pytest.approx(host_history.column(column), rel=1e-4)
    assert device_history.column("val_accuracy") == host_history.column("val_accuracy")


def test_every_backend_saves_and_resumes_to_the_bit(backend, tmp_path):
    on(backend, runs.trainer(tmp_path, epochs=1)).fit()
    resumed, straight = on(backend, runs.trainer(tmp_path)), on(backend, runs.trainer())
    resumed.fit(resume=True)
    straight.fit()
    for name, value in straight.model.state_dict().items():
        np.testing.assert_array_equal(
            backend.host(resumed.model.state_dict()[name]), backend.host(value), err_msg=name
        )


def test_every_backend_finds_the_cause(backend):
    run = on(backend, runs.trainer())
    run.model.conv.weight[0, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"parameter conv\.weight"):
        run.fit()
    run = on(backend, runs.trainer())
    run.model.fc.weight[...] = 3e38
    with pytest.raises(NonFiniteError, match="layer fc"):
        run.fit()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": -1}, "epochs to be an integer of at least 0, got -1"),
        ({"epochs": 2.5}, "epochs to be an integer of at least 0, got 2.5"),
        ({"schedule_every": "month"}, "schedule_every"),
        ({"progress": True}, "progress"),
        ({"monitor": "lr"}, "monitor to be one of train_loss"),
        ({"config": {"a": object()}}, "JSON"),
        ({"config": {"a": math.nan}}, "JSON"),
    ],
)
def test_bad_arguments_are_refused(options, text):
    with pytest.raises(ArgumentError, match=text):
        runs.trainer(**options)


def test_bad_callbacks_and_an_empty_loader_are_refused():
    with pytest.raises(ArgumentError, match="patience"):
        EarlyStopping(patience=0)
    with pytest.raises(ArgumentError, match="monitor"):
        EarlyStopping("val_los")
    with pytest.raises(ArgumentError, match="at least one batch"):
        model = runs.net()
        Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.named_parameters()), [], epochs=1)
    with pytest.raises(ArgumentError, match=r"batches\(epoch, start\), such as a data\.Loader, got list"):
        Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.named_parameters()), [(0, 1)], epochs=1)
    for callbacks in ([print], [EarlyStopping], EarlyStopping(), print):
        with pytest.raises(ArgumentError, match="expected a list of Callbacks"):
            runs.trainer(callbacks=callbacks)
    with pytest.raises(ArgumentError, match=r"best\.safetensors needs an output folder"):
        runs.trainer().load_best()
    assert runs.trainer(epochs=0).fit() == []


def test_the_gradients_of_a_step_are_gone_when_those_of_the_next_are_made():
    run, before = runs.trainer(), []

    step = Shards.step

    def stepping(self, *given):
        assert not any(gradient() is not None for gradient in before), "two sets of gradients at once"
        result = step(self, *given)
        before[:] = [weakref.ref(gradient) for gradient in result.gradients.values()]
        return result

    with mock.patch.object(Shards, "step", stepping):
        run.fit()
    assert before
