"""A batch in shards: the gradients of the whole, the same bits again, and an error that reaches everybody."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tests.device_double import device_module
from tinynet import nn
from tinynet.distributed import Shards
from tinynet.errors import ArgumentError
from tinynet.nn.group import current_member


def network(rng: np.random.Generator) -> nn.Sequential:
    return nn.Sequential(
        conv=nn.Conv2d(2, 6, 3, rng=rng), bn=nn.BatchNorm2d(6), relu=nn.ReLU(), flatten=nn.Flatten(),
        fc=nn.Linear(6 * 36, 3, rng=rng),
    ).to(dtype=np.float64)


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_shards_give_the_gradients_of_the_whole_batch_and_the_same_bits_again(workers: int) -> None:
    rng = np.random.default_rng(0)
    model, x, labels = network(rng), rng.standard_normal((7, 2, 8, 8)), rng.integers(0, 3, 7)
    loss, rngs = nn.CrossEntropyLoss(), [np.random.default_rng(i) for i in range(workers)]
    logits, saved = model.forward(x, train=True)
    value, dlogits = loss(logits, labels)
    _, whole = nn.backward(model, saved, dlogits)
    with Shards(workers) as shards:
        steps = [shards.step(model, loss, x, labels, rngs) for _ in range(2)]
    for step in steps:
        np.testing.assert_allclose(step.loss, value, rtol=0, atol=1e-13)
        assert step.gradients.keys() == whole.keys()
        for name, gradient in whole.items():
            np.testing.assert_allclose(step.gradients[name], gradient, rtol=0, atol=1e-12, err_msg=name)
            np.testing.assert_array_equal(steps[0].gradients[name], step.gradients[name], err_msg=name)


def test_a_part_and_a_generator_for_each_shard_and_the_gradients_that_were_asked_for() -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(flatten=nn.Flatten(), drop=nn.Dropout(0.5), one=nn.Linear(8, 6, rng=rng), two=nn.Linear(6, 3, rng=rng))
    model = model.to(dtype=np.float64)
    x, labels, loss = rng.standard_normal((5, 2, 2, 2)), rng.integers(0, 3, 5), nn.CrossEntropyLoss()
    with Shards(2) as shards:
        step = shards.step(model, loss, x, labels, [np.random.default_rng(i) for i in range(2)], only={"two.weight"})
        assert step.gradients.keys() == {"two.weight"}
        np.testing.assert_array_equal(shards.infer(model, x), model(x))
        got = shards.apply(lambda *parts: parts, x, labels, None)
    halves = [model.forward(part, train=True, rng=np.random.default_rng(i))[0] for i, part in enumerate((x[:2], x[2:]))]
    np.testing.assert_array_equal(step.logits, np.concatenate(halves))
    for (part, names, nothing), cut in zip(got, (slice(0, 2), slice(2, 5)), strict=True):
        np.testing.assert_array_equal(part, x[cut])
        np.testing.assert_array_equal(names, labels[cut])
        assert nothing is None


def test_an_array_of_a_gpu_stays_whole() -> None:
    with Shards(2) as shards:
        assert shards.apply(len, device_module.asarray(np.zeros((4, 3)))) == [4]
        assert shards.apply(len, np.zeros((4, 3))) == [2, 2]


def test_what_numpy_does_about_errors_is_the_callers_in_every_thread() -> None:
    """NumPy keeps it for each thread."""
    x = np.zeros(4)
    with Shards(2) as shards:
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            shards.apply(lambda part: 1 / part, x)
        with np.errstate(divide="ignore"):
            assert np.isinf(np.concatenate(shards.apply(lambda part: 1 / part, x))).all()


INTERRUPTED = """
import os, signal, time
import numpy as np
from tinynet.distributed import Shards
from tinynet.nn.group import current_member

signal.signal(signal.SIGINT, signal.default_int_handler)     # a shell's background jobs begin with it ignored

def work(part):
    if current_member().rank == WAITING:
        return current_member().sum(part)       # for which nobody else will come
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)

try:
    with Shards(2) as shards:
        shards.apply(work, np.zeros(2))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("waiting", [0, 1])
def test_ctrl_c_leaves_nobody_waiting(waiting: int) -> None:
    """The first shard is in the caller's own thread, which is the one that is interrupted."""
    code = INTERRUPTED.replace("WAITING", str(waiting))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "interrupted\n"


def test_the_callers_thread_does_the_first_shard_and_others_the_others_at_once() -> None:
    def work(part: np.ndarray) -> tuple[list[int], int]:
        member = current_member()
        assert member is not None and member.sum(part).tolist() == [3]      # which waits for all
        return part.tolist(), threading.get_ident()

    with Shards(3) as shards:
        found = shards.apply(work, np.arange(3))
    assert [part for part, _ in found] == [[0], [1], [2]]
    assert found[0][1] == threading.get_ident() and len({thread for _, thread in found}) == 3


@pytest.mark.parametrize("failing", [0, 1])
def test_the_error_of_a_shard_is_raised_not_that_of_those_who_waited_for_it(failing: int) -> None:
    def work(part: np.ndarray) -> np.ndarray:
        member = current_member()
        assert member is not None
        if member.rank == failing:
            raise ZeroDivisionError("mine")
        return member.sum(part)

    with Shards(2) as shards:
        with pytest.raises(ZeroDivisionError, match="mine"):
            shards.apply(work, np.zeros(2))
        assert current_member() is None and shards.apply(len, np.zeros(2)) == [1, 1]


FAILING = """
import numpy as np, threading
from tinynet import nn
from tinynet.distributed import Shards
from tinynet.nn.group import current_member

class Fails(nn.Identity):
    def input_gradient(self, saved, dy):
        if current_member().rank == 1:
            raise ZeroDivisionError("on the way back")
        return dy

rng = np.random.default_rng(0)
model = nn.Sequential(nn.Conv2d(2, 3, 3, rng=rng), nn.BatchNorm2d(3), Fails(), nn.Flatten(), nn.Linear(108, 3, rng=rng))
x = rng.standard_normal((4, 2, 8, 8), dtype=np.float32)
with Shards(2) as shards:
    try:
        shards.step(model, nn.CrossEntropyLoss(), x, np.zeros(4, int), [rng, rng])
    except ZeroDivisionError as error:
        print(error)
"""


def test_a_shard_that_fails_on_the_way_back_leaves_nobody_waiting() -> None:
    """The others wait for its share of BatchNorm's sums. In a process of its own: a thread that waits cannot be ended."""
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "on the way back\n"


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_has_one_thread_within_and_its_own_again_behind_also_after_an_error() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError), Shards(2):
        assert set(threads()) == {1}
        raise ZeroDivisionError
    assert threads() == before


@pytest.mark.parametrize("arguments", [
    {"workers": 0}, {"workers": True}, {"workers": 1.5}, {"keep": -1}, {"keep": 0.5}, {"keep": True},
])  # fmt: skip
def test_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="Shards: expected"):
        Shards(**arguments)  # type: ignore[arg-type]


def test_blocks_that_overlap_leave_blas_as_it_was() -> None:
    def threads() -> list[int]:
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    before, entered, leave = threads(), threading.Event(), threading.Event()

    def other() -> None:
        with Shards(2):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with Shards(2):
        thread.start()
        assert entered.wait(10)
    within = threads()                                          # the first is gone, the other is still there
    leave.set()
    thread.join(10)
    assert set(within) == {1} and threads() == before


def test_a_block_is_entered_once() -> None:
    with Shards(2) as shards:
        with pytest.raises(ArgumentError, match="entered already"), shards:
            pass
        assert shards.infer(nn.Identity(), np.ones((4, 2))).shape == (4, 2)
    with shards:                                                # and again, behind the first
        pass
