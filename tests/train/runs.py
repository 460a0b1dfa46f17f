"""A small real training for the tests: a net with batch norm and dropout on random pictures, shuffled and flipped."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinynet import data, nn, optim
from tinynet.data import transforms
from tinynet.train import Trainer

PICTURES, BATCH, EPOCHS = 40, 8, 3
STEPS = PICTURES // BATCH * EPOCHS


def pictures(count: int = PICTURES, seed: int = 0) -> data.ArrayDataset:
    """Noise, brighter in class 1, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 180, (count, 8, 8, 3)) + 60 * labels[:, None, None, None]
    return data.ArrayDataset(images.astype(np.uint8), labels, ["dark", "bright"])


def net(seed: int = 0) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding=1, rng=rng),
        norm=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        drop=nn.Dropout(0.3),
        flatten=nn.Flatten(),
        fc=nn.Linear(64, 2, rng=rng),
    )


def loaders() -> tuple[data.Loader, data.Loader]:
    train = data.Loader(
        pictures(), BATCH, transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToArray()]),
        shuffle=True, seed=7,
    )  # fmt: skip
    return train, data.Loader(pictures(20, seed=1), BATCH)


def trainer(output: Any = None, *, optimizer: str = "SGD", **options: Any) -> Trainer:
    """The run; the same arguments give the same run."""
    model = net()
    schedule = optim.OneCycleLR(max_lr=0.05, total_steps=STEPS)
    make = {
        "SGD": lambda p: optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=1e-3),
        "AdamW": lambda p: optim.AdamW(p, amsgrad=True),
    }
    train, validation = loaders()
    defaults: dict[str, Any] = {
        "validation_loader": validation, "epochs": EPOCHS, "schedule": schedule, "max_norm": 1.0, "output": output,
        "seed": 5, "workers": 1, "progress": "none",
    }  # fmt: skip
    return Trainer(
        model, nn.CrossEntropyLoss(), make[optimizer](model.named_parameters()), train, **{**defaults, **options}
    )


def fingerprint(run: Trainer) -> dict[str, Any]:
    """Everything that must be equal, bit for bit, between two runs; the clock's columns are left out."""
    everything: dict[str, Any] = {f"model {k}": v.tobytes() for k, v in run.model.state_dict().items()}
    for name, slots in run.optimizer.state.items():
        for slot, value in slots.items():
            everything[f"{slot} {name}"] = value if isinstance(value, int) else value.tobytes()
    everything["options"] = [{k: v for k, v in g.items() if k != "params"} for g in run.optimizer.param_groups]
    clock = ("seconds", "images_per_second")
    everything["history"] = [{k: v for k, v in row.items() if k not in clock} for row in run.history.to_dicts()]
    everything["state"] = (run.state.step, run.state.epoch, run.state.batch, run.state.best)
    return everything
