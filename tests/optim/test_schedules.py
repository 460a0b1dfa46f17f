"""Every schedule sets the learning rate and the momentum that PyTorch's scheduler sets, at every step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from tinynet import optim
from tinynet.errors import ArgumentError

rates = st.floats(1e-5, 2.0)


def pair(name: str = "SGD", lr: float = 0.3, groups: int = 1):
    """The same optimiser here and there; SGD has no momentum until a schedule gives it one."""
    mine = getattr(optim, name)([{"params": {f"w{i}": np.zeros(1)}, "lr": lr * (i + 1)} for i in range(groups)])
    tensors = [torch.zeros(1, requires_grad=True) for _ in range(groups)]
    its = getattr(torch.optim, name)([{"params": [w], "lr": lr * (i + 1)} for i, w in enumerate(tensors)])
    return mine, its


def compare(schedule, scheduler, mine, its, steps, momentum=None, start=0):
    """Walk both; each step's lr (and momentum or β₁) must agree. The closed form may differ by rounding only."""
    for step in range(steps):
        if step >= start:
            schedule.apply(mine, step)
            for ours, theirs in zip(mine.param_groups, its.param_groups, strict=True):
                # 1e-9 of the largest rate: a chained sequence that has come close to zero has lost its last digits
                assert ours["lr"] == pytest.approx(theirs["lr"], rel=1e-9, abs=1e-13), step
                if momentum == "momentum":
                    assert ours["momentum"] == pytest.approx(theirs["momentum"], rel=1e-14), step
                if momentum == "betas":
                    assert ours["betas"] == pytest.approx(theirs["betas"], rel=1e-14), step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch wants optimizer.step() first, and mentions its deprecations
            its.step()
            if step + 1 < steps:
                scheduler.step()


@settings(max_examples=30, deadline=None)
@given(lr=rates, step_size=st.integers(1, 12), gamma=st.floats(0.05, 1.2))
def test_step_lr(lr, step_size, gamma):
    mine, its = pair(lr=lr, groups=2)
    compare(optim.StepLR(step_size, gamma), lr_scheduler.StepLR(its, step_size, gamma), mine, its, 40)


@settings(max_examples=30, deadline=None)
@given(lr=rates, T_max=st.integers(1, 30), eta_min=st.sampled_from([0.0, 1e-4, 0.01]))
def test_cosine(lr, T_max, eta_min):
    mine, its = pair(lr=lr, groups=2)
    scheduler = lr_scheduler.CosineAnnealingLR(its, T_max, eta_min)
    compare(optim.CosineAnnealingLR(T_max, eta_min), scheduler, mine, its, 70)


one_cycle = st.fixed_dictionaries(
    {
        "max_lr": rates, "pct_start": st.floats(0.0, 1.0), "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "cycle_momentum": st.booleans(), "base_momentum": st.floats(0.0, 0.9), "max_momentum": st.floats(0.5, 0.99),
        "div_factor": st.floats(1.0, 50.0), "final_div_factor": st.floats(1.0, 1e4), "three_phase": st.booleans(),
    }
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(["SGD", "AdamW"]), options=one_cycle, steps=st.integers(2, 60))
@example("SGD", {"max_lr": 0.1}, 30)  # the defaults
@example("AdamW", {"max_lr": 0.1, "pct_start": 0.0}, 30)
@example("SGD", {"max_lr": 0.1, "cycle_momentum": False}, 30)
@example("AdamW", {"max_lr": 0.1, "cycle_momentum": False}, 30)
def test_one_cycle(name, options, steps):
    mine, its = pair(name)
    try:
        scheduler = lr_scheduler.OneCycleLR(its, total_steps=steps, **options)
    except ZeroDivisionError:
        assume(False)
    schedule = optim.OneCycleLR(total_steps=steps, **options)
    try:                                                        # also where the momentum is to stay as it is
        compare(schedule, scheduler, mine, its, steps, {"SGD": "momentum", "AdamW": "betas"}[name])
    except ZeroDivisionError:  # PyTorch's, in a phase of no length
        assume(False)


def test_one_cycle_counts_epochs_times_steps_and_takes_a_rate_for_each_group():
    mine, its = pair(groups=2)
    options = {"max_lr": [0.1, 0.4], "base_momentum": [0.8, 0.7], "max_momentum": [0.9, 0.95]}
    scheduler = lr_scheduler.OneCycleLR(its, epochs=4, steps_per_epoch=5, **options)
    compare(optim.OneCycleLR(epochs=4, steps_per_epoch=5, **options), scheduler, mine, its, 21, "momentum")


def test_a_momentum_for_an_optimiser_that_has_none_is_an_error():
    class Plain(optim.Optimizer):
        def check(self, options):
            pass

    plain = Plain({"w": np.zeros(1)}, {"lr": 0.1})
    optim.OneCycleLR(0.1, 10, cycle_momentum=False).apply(plain, 0)
    with pytest.raises(ArgumentError, match="needs an optimiser with momentum or betas"):
        optim.OneCycleLR(0.1, 10).apply(plain, 0)


def test_one_cycle_of_a_rise_that_lasts_no_step_starts_at_the_top():
    schedule = optim.OneCycleLR(max_lr=0.1, total_steps=10, pct_start=0.1)
    assert schedule.lr_at(0) == pytest.approx(0.1)
    assert schedule.lr_at(9) == pytest.approx(0.1 / 25 / 1e4)
    assert optim.OneCycleLR(max_lr=0.1, total_steps=1, pct_start=1.0).lr_at(0) == pytest.approx(0.1)


@settings(max_examples=20, deadline=None)
@given(lr=rates, total=st.integers(1, 10), factor=st.floats(0.01, 1.0))
def test_warmup_then_cosine(lr, total, factor):
    mine, its = pair(lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = lr_scheduler.SequentialLR(
            its,
            [
                lr_scheduler.LinearLR(its, start_factor=factor, total_iters=total),
                lr_scheduler.CosineAnnealingLR(its, 20),
            ],
            milestones=[total],
        )
    schedule = optim.LinearWarmup(total, factor, then=optim.CosineAnnealingLR(20))
    compare(schedule, scheduler, mine, its, total + 20)


def test_defaults_equal_pytorch():
    mine, its = pair()
    compare(optim.StepLR(3), lr_scheduler.StepLR(its, 3), mine, its, 10)
    mine, its = pair()
    compare(optim.CosineAnnealingLR(7), lr_scheduler.CosineAnnealingLR(its, 7), mine, its, 10)
    mine, its = pair()
    compare(optim.LinearWarmup(), lr_scheduler.LinearLR(its), mine, its, 10)
    mine, its = pair()
    schedule = optim.OneCycleLR(0.1, total_steps=20)
    compare(schedule, lr_scheduler.OneCycleLR(its, 0.1, total_steps=20), mine, its, 20, "momentum")
    grouped = optim.OneCycleLR([0.1, 0.2], total_steps=20)
    assert grouped.lr_at(5) == grouped.lr_at(5, group=0) != grouped.lr_at(5, group=1)
    assert grouped.momentum_at(5) == schedule.momentum_at(5)


def test_warmup_alone_holds_and_before_a_cycle_keeps_its_first_momentum():
    mine, _ = pair(lr=0.5)
    optim.LinearWarmup(4, 0.2).apply(mine, 100)
    assert mine.lr == 0.5
    assert mine.param_groups[0]["momentum"] == 0
    optim.LinearWarmup(4, 0.2, then=optim.OneCycleLR(0.5, total_steps=20)).apply(mine, 2)
    assert mine.param_groups[0]["momentum"] == pytest.approx(0.95)
    assert mine.lr == pytest.approx(0.5 * 0.6)


def test_a_schedule_has_no_memory_and_starts_from_the_rate_that_was_set():
    mine, _ = pair()
    mine.lr = 0.8
    schedule = optim.StepLR(2, 0.5)
    for step, want in [(5, 0.2), (0, 0.8), (3, 0.4), (3, 0.4)]:
        schedule.apply(mine, step)
        assert mine.lr == pytest.approx(want)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optim.StepLR(0), "step_size"),
        (lambda: optim.StepLR(2.0), "step_size"),
        (lambda: optim.CosineAnnealingLR(-1), "T_max"),
        (lambda: optim.LinearWarmup(0), "total_iters"),
        (lambda: optim.LinearWarmup(3, 0.0), "start_factor"),
        (lambda: optim.LinearWarmup(3, 1.5), "start_factor"),
        (lambda: optim.OneCycleLR(0.1), "total_steps"),
        (lambda: optim.OneCycleLR(0.1, epochs=3), "total_steps"),
        (lambda: optim.OneCycleLR(0.1, total_steps=0), "total_steps"),
        (lambda: optim.OneCycleLR(0.1, epochs=0, steps_per_epoch=3), "epochs"),
        (lambda: optim.OneCycleLR(0.1, epochs=2, steps_per_epoch=1.5), "steps_per_epoch"),
        (lambda: optim.OneCycleLR(0.1, total_steps=9, pct_start=1.1), "pct_start"),
        (lambda: optim.OneCycleLR(0.1, total_steps=9, pct_start=1), "pct_start"),
        (lambda: optim.OneCycleLR(0.1, total_steps=9, anneal_strategy="step"), "anneal_strategy"),
        (lambda: optim.OneCycleLR(0.1, total_steps=9).lr_at(10), "9 steps, got step 10"),
        (lambda: optim.OneCycleLR([0.1], total_steps=9).apply(pair(groups=2)[0], 0), "parameter group 1"),
        (lambda: optim.StepLR(3).apply(pair()[0], -1), "step >= 0"),
    ],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ArgumentError, match=text):
        make()
