"""The mask of dropout on a GPU: the same numbers as on the host, without drawing them there and sending them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...backend import Array
from .launch import index_type, launch

RUN = 16
"""Numbers that a thread draws behind its jump, which costs as much as some dozens of them; even."""
GENERATOR = np.dtype([("state", np.uint64, 2), ("increment", np.uint64, 2), ("left", np.int32), ("rest", np.uint32)])
_MULTIPLIER, _WORD = 0x2360ED051FC65DA44385DF649FCCF645, (1 << 64) - 1


def can_draw(rng: np.random.Generator) -> bool:
    """Whether it is of NumPy's default kind, which a GPU can go on with."""
    return type(rng.bit_generator) is np.random.PCG64


def mask(shape: Sequence[int], p: float, scale: float, rng: np.random.Generator, dtype: Any, xp: Any) -> Array:
    """`scale` where rng.random(shape, float32) >= p, otherwise 0; rng goes on behind these numbers, as if it had drawn them."""
    drawn, kind = xp.empty(tuple(shape), dtype=dtype), index_type(prod(shape) + RUN)
    before: Any = rng.bit_generator.state
    record = np.zeros((), dtype=GENERATOR)
    record["state"], record["increment"] = (divmod(before["state"][name], 1 << 64) for name in ("state", "inc"))
    record["left"], record["rest"] = before["has_uint32"], before["uinteger"]
    flat = drawn.reshape(-1)
    launch("dropout", "dropout_mask", (flat.dtype, kind), (
        flat, record, np.float32(p), flat.dtype.type(scale), kind(RUN), kind(flat.size)), threads=-(-flat.size // RUN))
    _go_on(rng, flat.size)
    return drawn


def _go_on(rng: np.random.Generator, count: int) -> None:
    """Move rng behind `count` numbers of 32 bits."""
    state: Any = rng.bit_generator.state
    fresh = count - (count and state["has_uint32"])             # of these, two come from one output
    if count:
        steps, odd = -(-fresh // 2), fresh % 2
        rest = state["uinteger"]
        rng.bit_generator.advance(steps)                        # type: ignore[attr-defined]
        moved = rng.bit_generator.state["state"]["state"]
        if steps:
            x, turn = (moved >> 64) ^ (moved & _WORD), moved >> 122
            rest = ((x >> turn) | (x << (64 - turn)) & _WORD) >> 32
        state["state"]["state"], state["has_uint32"], state["uinteger"] = moved, odd, rest
        rng.bit_generator.state = state
