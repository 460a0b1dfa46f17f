"""Adam and AdamW.

With gradient g, step t = 1, 2, … and learning rate η:

    m ← β₁ m + (1 − β₁) g              v ← β₂ v + (1 − β₂) g²
    p ← p − η / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)

Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1. amsgrad puts the largest v so far in
the place of v (Reddi et al., "On the convergence of Adam and beyond", ICLR 2018). Weight decay λ: Adam adds λ p to
the gradient; AdamW shrinks the parameter itself, p ← (1 − η λ) p (Loshchilov & Hutter, ICLR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backend import Array, array_module
from ..errors import ArgumentError
from ..kernels.cuda import optimiser
from ..kernels.lasting import lasting_zeros
from ..kernels.scratch import scratch
from .optimizer import Optimizer, Parameters, Row, check_not_negative


class Adam(Optimizer):
    """Adam; arguments as torch.optim.Adam.

    betas: (β₁, β₂), each in [0, 1). eps: ε. weight_decay: λ, added to the gradient. amsgrad: never forget a large v.
    maximize: climb instead of descend.
    """

    decoupled_weight_decay = False  # AdamW's only difference

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize,
        }  # fmt: skip
        self.check(options)
        super().__init__(params, options)

    def check(self, options: dict[str, Any]) -> None:
        """Raise ArgumentError where torch.optim.Adam does."""
        name, betas = type(self).__name__, options["betas"]
        check_not_negative(name, **{option: options[option] for option in ("lr", "eps", "weight_decay")})
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ArgumentError(f"{name}: expected two betas, each 0 <= beta < 1, got {betas}")

    def begin(self, parameter: Array, state: dict[str, Any], options: dict[str, Any]) -> bool:
        if state:
            return False
        state["step"] = 0
        state["exp_avg"] = lasting_zeros(parameter)  # m
        state["exp_avg_sq"] = lasting_zeros(parameter)  # v
        if options["amsgrad"]:
            state["max_exp_avg_sq"] = lasting_zeros(parameter)
        return True

    def count(self, state: dict[str, Any]) -> None:
        state["step"] += 1

    def update_all(self, rows: Sequence[Row], fresh: set[int], options: dict[str, Any], ok: Array | None) -> None:
        chosen = {name: options[name] for name in ("lr", "betas", "eps", "weight_decay", "maximize")}
        for step in sorted({slots["step"] for _, _, slots in rows}):     # one, unless some had no gradient once
            some = [
                (p, g, slots["exp_avg"], slots["exp_avg_sq"], slots.get("max_exp_avg_sq"))
                for p, g, slots in rows if slots["step"] == step
            ]
            optimiser.adam(some, step=step, decoupled=self.decoupled_weight_decay, ok=ok, **chosen)

    def update(self, parameter: Array, gradient: Array, state: dict[str, Any], options: dict[str, Any], fresh: bool) -> None:
        """The formulas above; all arrays share one shape."""
        xp = array_module(parameter)
        lr, weight_decay, (beta1, beta2) = options["lr"], options["weight_decay"], options["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        work, more = (scratch(xp, place, parameter.shape, parameter.dtype) for place in ("work", "more"))

        if options["maximize"]:
            gradient = xp.negative(gradient, out=more)
        if weight_decay != 0:
            if self.decoupled_weight_decay:
                parameter *= 1 - lr * weight_decay
            else:
                xp.multiply(parameter, weight_decay, out=work)
                gradient = xp.add(gradient, work, out=more)

        xp.subtract(gradient, m, out=work)  # m += (1 − β₁)(g − m): the first formula with one multiplication
        work *= 1 - beta1
        m += work
        xp.multiply(gradient, gradient, out=work)
        work *= 1 - beta2
        v *= beta2
        v += work

        if options["amsgrad"]:
            v = xp.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        # The corrections for starting at zero are plain numbers: t is counted on the host, nothing waits for a GPU.
        step_size = lr / (1 - beta1 ** state["step"])
        xp.sqrt(v, out=work)
        work /= math.sqrt(1 - beta2 ** state["step"])
        work += options["eps"]
        xp.divide(m, work, out=work)
        work *= step_size
        parameter -= work


class AdamW(Adam):
    """Adam with weight decay on the parameter itself; arguments as torch.optim.AdamW (weight_decay is 0.01)."""

    decoupled_weight_decay = True

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
