"""What lies in a training's folder is not lost: an unfinished run, or another one, is replaced only when told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.train import runs
from tests.train.test_resume import CtrlC
from tinynet.errors import ArgumentError, FileError, TinynetError
from tinynet.train import EarlyStopping, TrainingInterrupted, load_checkpoint, save_checkpoint


def interrupted(folder: Path, step: int = 7) -> Path:
    with pytest.raises(TrainingInterrupted):
        runs.trainer(folder, callbacks=[CtrlC(step)]).fit()
    return folder / "last.safetensors"


def test_an_unfinished_run_is_not_written_over(tmp_path: Path) -> None:
    last = interrupted(tmp_path)
    before = last.read_bytes()
    with pytest.raises(ArgumentError) as caught:
        runs.trainer(tmp_path).fit()
    ways = "resume=True goes on with it, overwrite=True replaces it, or give another output"
    assert str(caught.value) == f"{last}: holds an unfinished training (1 of 3 epochs); {ways}"
    assert last.read_bytes() == before
    with pytest.raises(TrainingInterrupted):
        runs.trainer(tmp_path, callbacks=[CtrlC(1)]).fit(overwrite=True)
    assert load_checkpoint(last).record["state"]["step"] == 1


def test_a_run_that_goes_on_or_was_stopped_before_its_first_step_is_no_obstacle(tmp_path: Path) -> None:
    last = interrupted(tmp_path)
    run = runs.trainer(tmp_path)
    run.load(last)
    assert len(run.fit()) == runs.EPOCHS
    assert len(run.fit()) == runs.EPOCHS
    run = runs.trainer(tmp_path / "new")
    (tmp_path / "new").mkdir()
    run.save(tmp_path / "new" / "last.safetensors")
    run.fit()


def test_a_finished_run_is_made_again_but_not_replaced_by_another(tmp_path: Path) -> None:
    first = runs.trainer(tmp_path, config={"classes": ["a", "b"], "command": "train it"})
    first.fit()
    before = (tmp_path / "last.safetensors").read_bytes()
    words = r"holds another training \(3 of 3 epochs; train it\); overwrite=True replaces it, or"
    others = ({"config": {"command": "another"}}, {"config": {"classes": ["a"]}}, {"seed": 6}, {"epochs": 4, "schedule": None})
    for options in others:
        with pytest.raises(ArgumentError, match=words):
            runs.trainer(tmp_path, **{"config": first.config, **options}).fit()
    assert (tmp_path / "last.safetensors").read_bytes() == before
    again = runs.trainer(tmp_path, config={"classes": ("a", "b"), "command": "train it"})
    again.fit()
    assert runs.fingerprint(again) == runs.fingerprint(first)


def test_a_run_that_was_stopped_early_is_finished(tmp_path: Path) -> None:
    for _ in range(2):
        run = runs.trainer(tmp_path, callbacks=[EarlyStopping("val_loss", 1, min_delta=99.0)])
        run.fit()
        assert run.state.epoch == 2 < runs.EPOCHS


@pytest.mark.parametrize("content", ["damaged", "foreign", "older"])
def test_a_file_that_nobody_can_go_on_from_is_left_alone(tmp_path: Path, content: str) -> None:
    last = interrupted(tmp_path)
    if content == "damaged":
        last.write_bytes(last.read_bytes()[:100])
    elif content == "foreign":
        save_file({"x": np.zeros(3)}, last)
    else:                                                       # of before the number of epochs was kept
        checkpoint = load_checkpoint(last)
        del checkpoint.record["state"]["epochs"], checkpoint.record["stopped"]
        save_checkpoint(last, checkpoint)
    before = last.read_bytes()
    words = "unfinished training .1 epochs" if content == "older" else "not replaced, for it is no checkpoint"
    with pytest.raises(TinynetError, match=words) as caught:
        runs.trainer(tmp_path).fit()
    assert isinstance(caught.value, ArgumentError if content == "older" else FileError)
    assert last.read_bytes() == before and "\n" not in str(caught.value) and str(caught.value).count(str(last)) == 1
    if content == "older":
        assert len(runs.trainer(tmp_path).fit(resume=True)) == runs.EPOCHS


# What is said where a run goes on


def test_where_nothing_is_left_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.trainer(tmp_path).fit()
    runs.trainer(tmp_path, epochs=2, progress="lines").fit(resume=True)
    assert capsys.readouterr().out == "nothing is left to train: 3 epochs are done, 2 were asked for\n"
    runs.trainer(tmp_path, progress="lines", epochs=0).fit(overwrite=True)
    assert not capsys.readouterr().out


def test_another_number_of_epochs_says_how_the_learning_rate_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.trainer(tmp_path, epochs=2).fit()
    last = load_checkpoint(tmp_path / "last.safetensors").optimizer["param_groups"][0]["lr"]
    run = runs.trainer(tmp_path, progress="lines")
    run.fit(resume=True)
    goes_on = run.schedule.lr_at(10, run.optimizer.param_groups[0]["initial_lr"])
    assert capsys.readouterr().out.splitlines()[0] == (
        f"goes on to 3 epochs, which were to be 2: by the schedule of 3 the learning rate, last {last:.3g}, is now {goes_on:.3g}"
    )
    run = runs.trainer(tmp_path, epochs=4, schedule=None, progress="lines")
    run.fit(resume=True)
    assert capsys.readouterr().out.splitlines()[0] == "goes on to 4 epochs, which were to be 3"
