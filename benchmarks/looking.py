"""Interpretation against Captum, on VGG11 with drawn weights: projection, an atlas, occlusion."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from captum.attr import Deconvolution, NeuronDeconvolution, Occlusion
from measuring import alternate, row
from twin import twin

from tinynet import interpret
from tinynet.data import ArrayDataset
from tinynet.interpret.patches import unit_patches
from tinynet.models import create

PHOTOS, UNITS, TARGET = 64, 16, 7
LAYER = "features.7"
"""The ReLU behind the third convolution, 256 maps of 56²."""


def measure_looking(workers: int) -> list[dict[str, Any]]:
    """One unit projected in 64 photos; the nine strongest places of 16 units of one layer; occlusion at stride 8."""
    warnings.filterwarnings("ignore")                           # Captum's, about the hooks it sets
    model = create("vgg11", rng=np.random.default_rng(0))
    module = twin(model).eval()
    images = np.random.default_rng(1).integers(0, 256, (PHOTOS, 224, 224, 3), dtype=np.uint8)
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / 255
    photos = torch.from_numpy(x)
    rows = []

    ours, theirs = interpret.deconvnet(model, workers=workers), Deconvolution(module)

    def captum_projects(at_once: int) -> None:
        for i in range(0, PHOTOS, at_once):
            theirs.attribute(photos[i : i + at_once], target=TARGET)

    rows.append(row(f"VGG11: projection of one unit in {PHOTOS} photos", *alternate(
        lambda: ours.attribute(x, target=TARGET),               # which goes some photos at a time by itself
        *[lambda at_once=at_once: captum_projects(at_once) for at_once in (8, PHOTOS)], rounds=1,
    )))

    dataset = ArrayDataset(images, np.zeros(PHOTOS, np.int64), ["photo"])

    def atlas() -> None:
        top = interpret.top_activations(model, dataset, [LAYER], workers=workers, progress=False)
        unit_patches(model, dataset, top, LAYER, range(UNITS), workers=workers)

    layer = dict(module.named_modules())[twin_path(model, LAYER)]
    rows.append(row(f"VGG11: atlas of {UNITS} units of {LAYER}, top 9 of {PHOTOS} photos", *alternate(
        atlas, lambda: captum_atlas(module, layer, photos), rounds=1,
    )))
    rows.append(row("VGG11: occlusion of one photo, patch 32, stride 8", *alternate(
        lambda: interpret.occlusion(model, x[0], patch=32, stride=8, target=TARGET, workers=workers),
        lambda: Occlusion(module).attribute(
            photos[:1], (3, 32, 32), (3, 8, 8), 0.0, TARGET, perturbations_per_eval=16,
        ), rounds=1,
    )))
    return rows


def twin_path(model: Any, path: str) -> str:
    """The name in the twin, whose layers have numbers, of a layer of ours."""
    numbers = []
    for name in path.split("."):
        numbers.append([key for key, _ in model.named_children()].index(name))
        model = dict(model.named_children())[name]
    return ".".join(map(str, numbers))


def captum_atlas(module: torch.nn.Module, layer: torch.nn.Module, photos: torch.Tensor) -> None:
    """The same with PyTorch and Captum: each unit's strongest place in every photo by a hook, then nine projections a unit."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(_: Any, __: Any, y: torch.Tensor) -> None:
        found.append(y.flatten(2).max(2))

    hook = layer.register_forward_hook(look)
    with torch.inference_mode():
        for i in range(0, len(photos), 8):
            module(photos[i : i + 8])
    hook.remove()
    values, places = (torch.cat(parts) for parts in zip(*found, strict=True))
    best = values.topk(9, dim=0).indices                        # (9, units)
    way = NeuronDeconvolution(module, layer)
    for unit in range(UNITS):
        chosen = best[:, unit]
        where = places[chosen, unit]

        def select(y: torch.Tensor, unit: int = unit, where: torch.Tensor = where) -> torch.Tensor:
            return y.flatten(2)[torch.arange(len(y)), unit, where]

        way.attribute(photos[chosen], neuron_selector=select)
