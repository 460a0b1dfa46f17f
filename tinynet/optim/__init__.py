"""Optimisers, learning-rate schedules and gradient clipping, with PyTorch's names, defaults and trajectories.

    optimizer = SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    schedule = OneCycleLR(max_lr=0.1, total_steps=1000)
    for step in range(1000):
        ...                                   # forward, loss, backward: gradients is a dict name -> array
        clip_grad_norm(gradients, 5.0)
        schedule.apply(optimizer, step)
        optimizer.step(gradients)             # the parameters change in place
"""

from .adam import Adam, AdamW
from .clip import clip_grad_norm, clip_grad_value, total_norm
from .optimizer import Optimizer
from .schedules import CosineAnnealingLR, LinearWarmup, OneCycleLR, Schedule, StepLR
from .sgd import SGD

__all__ = [
    "Optimizer", "SGD", "Adam", "AdamW",
    "Schedule", "StepLR", "CosineAnnealingLR", "OneCycleLR", "LinearWarmup",
    "clip_grad_norm", "clip_grad_value", "total_norm",
]  # fmt: skip
