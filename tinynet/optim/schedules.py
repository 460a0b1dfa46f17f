"""Learning-rate schedules: pure functions of the step, applied to an optimiser.

`schedule.apply(optimizer, step)` before step 0, 1, 2, … sets what PyTorch's scheduler of the same name has set by
then. A schedule has no state, so a resumed run needs only its step. Where PyTorch chains each value from the last
one, these are its closed forms; they agree to rounding. "Step" is whatever is counted: batches or epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ArgumentError
from .optimizer import Optimizer


class Schedule:
    """Base: a subclass writes lr_at and, if it steers the momentum too, momentum_at."""

    def lr_at(self, step: int, base_lr: float, group: int = 0) -> float:
        """The learning rate of the given step (from 0), for parameter group `group` with that initial rate."""
        raise NotImplementedError

    def momentum_at(self, step: int, group: int = 0) -> float | None:
        """The momentum (SGD) or β₁ (Adam) of that step; None leaves the optimiser's own."""
        return None

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set learning rate and momentum of every group for that step. Raises ArgumentError for a step it lacks."""
        if step < 0:
            raise ArgumentError(f"{type(self).__name__}: expected a step >= 0, got {step}")
        for number, group in enumerate(optimizer.param_groups):
            group["lr"] = self.lr_at(step, group["initial_lr"], number)
            momentum = self.momentum_at(step, number)
            if momentum is None:
                continue
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = momentum
            else:
                raise ArgumentError(f"{type(self).__name__}: cycle_momentum needs an optimiser with momentum or betas")


class StepLR(Schedule):
    """base_lr · gamma^⌊step / step_size⌋."""

    def __init__(self, step_size: int, gamma: float = 0.1) -> None:
        _check_positive_integer("StepLR", "step_size", step_size)
        self.step_size, self.gamma = step_size, gamma

    def lr_at(self, step: int, base_lr: float, group: int = 0) -> float:
        return base_lr * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule):
    """eta_min + (base_lr − eta_min)(1 + cos(π step / T_max)) / 2: half a cosine in T_max steps, then up again.

    Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, eq. 5 without restarts.
    """

    def __init__(self, T_max: int, eta_min: float = 0.0) -> None:
        _check_positive_integer("CosineAnnealingLR", "T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min

    def lr_at(self, step: int, base_lr: float, group: int = 0) -> float:
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


class LinearWarmup(Schedule):
    """Rise from start_factor · base_lr to base_lr in total_iters steps, then hold it or follow another schedule.

    then: the schedule that begins, at its step 0, where the warm-up ends. Equals torch's LinearLR(start_factor,
    total_iters=total_iters), followed by `then` in a SequentialLR.
    """

    def __init__(self, total_iters: int = 5, start_factor: float = 1.0 / 3, then: Schedule | None = None) -> None:
        _check_positive_integer("LinearWarmup", "total_iters", total_iters)
        if not 0 < start_factor <= 1:
            raise ArgumentError(f"LinearWarmup: expected 0 < start_factor <= 1, got {start_factor}")
        self.total_iters, self.start_factor, self.then = total_iters, start_factor, then

    def lr_at(self, step: int, base_lr: float, group: int = 0) -> float:
        if step < self.total_iters:
            return base_lr * (self.start_factor + (1 - self.start_factor) * step / self.total_iters)
        return base_lr if self.then is None else self.then.lr_at(step - self.total_iters, base_lr, group)

    def momentum_at(self, step: int, group: int = 0) -> float | None:
        if self.then is None:
            return None
        # While the rate warms up, the momentum waits at the value with which the next schedule begins.
        return self.then.momentum_at(max(step - self.total_iters, 0), group)


class OneCycleLR(Schedule):
    """One cycle: up from max_lr / div_factor to max_lr, then down to (max_lr / div_factor) / final_div_factor.

    Arguments as torch.optim.lr_scheduler.OneCycleLR. The rise takes the share pct_start of total_steps (or of epochs ·
    steps_per_epoch). three_phase: come down to the first rate in the same time, then on to the last one.
    anneal_strategy: "cos" or "linear". cycle_momentum: the momentum (or β₁) moves the other way, from max_momentum to
    base_momentum and back. max_lr, base_momentum, max_momentum: a number, or one for each parameter group.
    Smith & Topin, "Super-convergence", 2018. Where the rise would last no step at all (pct_start · total_steps = 1,
    at which PyTorch divides by zero), it is over at once: step 0 has max_lr.
    """

    def __init__(
        self,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is not None:
            _check_positive_integer("OneCycleLR", "total_steps", total_steps)
        elif epochs is not None and steps_per_epoch is not None:
            _check_positive_integer("OneCycleLR", "epochs", epochs)
            _check_positive_integer("OneCycleLR", "steps_per_epoch", steps_per_epoch)
            total_steps = epochs * steps_per_epoch
        else:
            raise ArgumentError("OneCycleLR: expected total_steps, or epochs and steps_per_epoch; got neither")
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ArgumentError(f"OneCycleLR: expected pct_start as a float between 0 and 1, got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f'OneCycleLR: expected anneal_strategy "cos" or "linear", got {anneal_strategy!r}')
        self.max_lr, self.total_steps = max_lr, total_steps
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.base_momentum, self.max_momentum, self.cycle_momentum = base_momentum, max_momentum, cycle_momentum
        self._anneal = _cosine if anneal_strategy == "cos" else _linear
        # (last step of the phase, level at its start, level at its end); levels: 0 start, 1 top, 2 end of the cycle.
        rise, last = pct_start * total_steps - 1, total_steps - 1
        if three_phase:
            self._phases = [(rise, 0, 1), (2 * pct_start * total_steps - 2, 1, 0), (last, 0, 2)]
        else:
            self._phases = [(rise, 0, 1), (last, 1, 2)]

    def lr_at(self, step: int, base_lr: float = 0.0, group: int = 0) -> float:
        start, end, share = self._where(step)
        top = _of_group(self.max_lr, group, "max_lr")
        bottom = top / self.div_factor
        levels = (bottom, top, bottom / self.final_div_factor)
        return self._anneal(levels[start], levels[end], share)

    def momentum_at(self, step: int, group: int = 0) -> float | None:
        if not self.cycle_momentum:
            return None
        start, end, share = self._where(step)
        high = _of_group(self.max_momentum, group, "max_momentum")
        levels = (high, _of_group(self.base_momentum, group, "base_momentum"), high)
        return self._anneal(levels[start], levels[end], share)

    def _where(self, step: int) -> tuple[int, int, float]:
        """(level at the start, level at the end, share done) of the phase that the step lies in."""
        if step > self.total_steps:
            raise ArgumentError(f"OneCycleLR: the schedule has {self.total_steps} steps, got step {step}")
        begin = 0.0
        for last, start, end in self._phases[:-1]:
            if step <= last:
                return start, end, _share(step, begin, last)
            begin = last
        last, start, end = self._phases[-1]
        return start, end, _share(step, begin, last)


def _share(step: int, begin: float, last: float) -> float:
    return (step - begin) / (last - begin) if last != begin else 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


def _of_group(value: float | Sequence[float], group: int, name: str) -> float:
    if not isinstance(value, Sequence):
        return value
    if group >= len(value):
        raise ArgumentError(f"OneCycleLR: {name} has {len(value)} values, but there is a parameter group {group}")
    return value[group]


def _check_positive_integer(owner: str, name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ArgumentError(f"{owner}: expected {name} as an integer > 0, got {value!r}")
