"""Stochastic gradient descent with momentum.

With gradient g (weight decay λ added), momentum μ, dampening τ and learning rate η, as PyTorch defines it:

    g ← ∂ℓ/∂p + λ p
    b ← g at the first step, μ b + (1 − τ) g afterwards
    p ← p − η (g + μ b)   if nesterov,   p − η b   otherwise

Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, has η inside b; the
two differ when η changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Array, array_module
from ..errors import ArgumentError
from ..kernels.cuda import optimiser
from ..kernels.lasting import lasting_zeros
from ..kernels.scratch import scratch
from .optimizer import Optimizer, Parameters, Row, check_not_negative


class SGD(Optimizer):
    """Stochastic gradient descent; arguments as torch.optim.SGD.

    momentum: μ, 0 keeps no buffer. dampening: τ. weight_decay: λ, an L2 penalty λ‖p‖²/2. nesterov: look ahead;
    needs momentum > 0 and dampening 0. maximize: climb instead of descend.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        self.check(options)
        super().__init__(params, options)

    def check(self, options: dict[str, Any]) -> None:
        """Raise ArgumentError where torch.optim.SGD does."""
        check_not_negative("SGD", **{name: options[name] for name in ("lr", "momentum", "weight_decay")})
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ArgumentError(
                "SGD: nesterov needs momentum > 0 and dampening 0, "
                f"got momentum {options['momentum']} and dampening {options['dampening']}"
            )

    def begin(self, parameter: Array, state: dict[str, Any], options: dict[str, Any]) -> bool:
        if options["momentum"] == 0 or "momentum_buffer" in state:
            return False
        state["momentum_buffer"] = lasting_zeros(parameter)
        return True

    def update_all(self, rows: Sequence[Row], fresh: set[int], options: dict[str, Any], ok: Array | None) -> None:
        chosen = {name: options[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")}
        for first in (True, False):
            some = [(p, g, slots.get("momentum_buffer")) for p, g, slots in rows if (id(slots) in fresh) == first]
            optimiser.sgd(some, fresh=first, ok=ok, **chosen)

    def update(self, parameter: Array, gradient: Array, state: dict[str, Any], options: dict[str, Any], fresh: bool) -> None:
        """The formulas above; all arrays share one shape."""
        xp = array_module(parameter)
        work, more = (scratch(xp, place, parameter.shape, parameter.dtype) for place in ("work", "more"))
        if options["maximize"]:
            gradient = xp.negative(gradient, out=work)
        if options["weight_decay"] != 0:
            xp.multiply(parameter, options["weight_decay"], out=more)
            gradient = xp.add(gradient, more, out=work)  # g = ∂ℓ/∂p + λ p
        momentum = options["momentum"]
        if momentum != 0:
            buffer = state["momentum_buffer"]
            if fresh:
                buffer[...] = gradient  # b = g, undampened, as PyTorch starts it
            else:
                buffer *= momentum
                if options["dampening"] == 0:
                    buffer += gradient
                else:
                    buffer += xp.multiply(gradient, 1 - options["dampening"], out=more)
            if options["nesterov"]:
                gradient = xp.add(xp.multiply(buffer, momentum, out=more), gradient, out=more)
            else:
                gradient = buffer
        parameter -= xp.multiply(gradient, options["lr"], out=work)
