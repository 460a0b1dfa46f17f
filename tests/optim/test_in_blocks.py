"""Steps and clipping block by block, in threads: the same bits as whole arrays in one thread, whatever the layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.optim.test_trajectories import EVERY_BRANCH
from tinynet import optim
from tinynet.distributed import Shards
from tinynet.kernels import blocks

SHAPES = {"weight": (37, 11), "bias": (37,), "scale": (), "none": (0, 3), "turned": (13, 9)}


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shards]:
    monkeypatch.setattr(blocks, "NUMBERS", 10)
    with Shards(3) as shards:
        yield shards


def arrays(seed: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}
    return {**drawn, "turned": drawn["turned"].T.copy().T}                  # not in C order


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), EVERY_BRANCH)
def test_a_step_in_blocks_and_threads_has_the_same_bits(
    name: str, options: dict[str, Any], dtype: Any, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, whole = arrays(0, dtype), arrays(0, dtype)
    shared, alone = (getattr(optim, name)(params, **options) for params in (ours, whole))
    seen: list[int] = []
    update = shared.update
    monkeypatch.setattr(shared, "update", lambda p, *rest: (seen.append(p.size), update(p, *rest)))
    for step in range(4):
        gradients = {key: g for key, g in arrays(step + 1, dtype).items() if key != "bias" or step != 1}
        gradients["weight"] = np.asfortranarray(gradients["weight"]) if step == 2 else gradients["weight"]
        untouched = {key: g.copy() for key, g in gradients.items()}
        shared.step(gradients, each=shards.each)
        with monkeypatch.context() as large:
            large.setattr(blocks, "NUMBERS", 1 << 20)
            alone.step(gradients)
        for key, g in gradients.items():
            np.testing.assert_array_equal(g, untouched[key])
    assert {10, 7, 117, 37 * 11} <= set(seen)                               # blocks, the last block, and what cannot be cut
    for key in SHAPES:
        np.testing.assert_array_equal(ours[key], whole[key], err_msg=key)
        for slot, value in alone.state[key].items():
            np.testing.assert_array_equal(shared.state[key][slot], value, err_msg=f"{slot} of {key}")


@pytest.mark.parametrize("norm_type", [2, 1, 0, 0.5, float("inf"), -float("inf")])
@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_norm_and_clipping_do_not_depend_on_the_threads_and_little_on_the_blocks(
    norm_type: float, bad: float | None, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> dict[str, np.ndarray]:
        found = arrays(0, np.float64)
        if bad is not None:
            found["weight"][20, 3] = bad
        return {key: g for key, g in found.items() if g.size}

    threads, turns, whole = drawn(), drawn(), drawn()
    norms = [optim.clip_grad_norm(threads, 0.5, norm_type, each=shards.each), optim.clip_grad_norm(turns, 0.5, norm_type)]
    assert np.array_equal(*norms, equal_nan=True)
    with monkeypatch.context() as large:
        large.setattr(blocks, "NUMBERS", 1 << 20)
        want = optim.clip_grad_norm(whole, 0.5, norm_type)
    np.testing.assert_allclose(norms[0], want, rtol=1e-14)
    for key in whole:
        np.testing.assert_array_equal(threads[key], turns[key], err_msg=key)
        np.testing.assert_allclose(threads[key], whole[key], rtol=1e-14, err_msg=key)
    optim.clip_grad_value(threads, 0.01, each=shards.each)
    with np.errstate(invalid="ignore"):
        for key in whole:
            np.testing.assert_array_equal(threads[key], np.clip(turns[key], -0.01, 0.01), err_msg=key)


def test_what_is_not_clipped_stays_as_it_is() -> None:
    gradients = {"w": np.array([3.0, 4.0])}
    gradients["w"].flags.writeable = False                                  # a factor of 1 is not multiplied by
    assert optim.clip_grad_norm(gradients, 6.0) == 5.0
    with pytest.raises(ValueError, match="read-only"):
        optim.clip_grad_norm(gradients, 4.0)


def test_each_keeps_the_order_and_passes_errors_on(shards: Shards) -> None:
    assert shards.each(lambda x: 2 * x, range(50)) == [2 * x for x in range(50)]
    assert shards.each(lambda x: 2 * x, []) == [] and Shards(3).each(abs, [-1, 2]) == [1, 2]

    def fails(x: int) -> int:
        if x == 7:
            raise ZeroDivisionError("at seven")
        return x

    with pytest.raises(ZeroDivisionError, match="at seven"):
        shards.each(fails, range(20))
    assert shards.each(abs, [-3, -4]) == [3, 4]
