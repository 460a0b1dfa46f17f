"""Photos a second of the loader alone: decoding, augmentation, normalisation, batches; beside what a training step takes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cases import NETS, network
from PIL import Image

from tinynet import nn, optim
from tinynet.data import Dataset, ImageFolder, Loader, cached, transforms
from tinynet.distributed import Shards
from tinynet.train.classifier import recipe_for
from tinynet.train.photos import embedded_parts

COUNT, EPOCHS = 256, 3


def measure_loading(workers: int) -> list[dict[str, Any]]:
    """The recipe of photos at 224², from JPEG files of 341×256 and from decoded photos in memory; and the cat net's step."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _write_photos(Path(folder))
        files = ImageFolder(folder, size=256)
        for name, dataset in (("from JPEG files of 341×256", files), ("from photos in memory", cached(files, 256))):
            rows.append({"name": f"loader, {name}", "images/s": round(_rate(dataset))})
            print(rows[-1], flush=True)
    rows.append({"name": "cat net, training step alone", "images/s": round(_training(workers))})
    print(rows[-1], flush=True)
    return rows


def _write_photos(folder: Path) -> None:
    """Embedded photos, enlarged: what a JPEG costs to decode goes by its size."""
    photos = embedded_parts(0).train
    for i in range(COUNT):
        path = folder / ("a", "b")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(photos[i][0])).resize((341, 256), Image.Resampling.BICUBIC).save(path, quality=90)


def _rate(dataset: Dataset) -> float:
    recipe = recipe_for(224)
    to_input = recipe.preprocessing.to_input()
    transform = transforms.Compose([*recipe.augment, to_input, *recipe.finish])
    loader = Loader(dataset, recipe.batch_size, transform, shuffle=True, seed=0)
    best = 0.0
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in loader.batches(epoch))
        best = max(best, count / (time.perf_counter() - start))
    return best


def _training(workers: int) -> float:
    name = "cat net, 224², batch 16"
    rng = np.random.default_rng(0)
    model, x = network(name, rng), rng.standard_normal(NETS[name][1], dtype=np.float32)
    target, rngs = np.arange(len(x)) % 2, [np.random.default_rng(i) for i in range(workers)]
    loss, sgd = nn.CrossEntropyLoss(), optim.SGD(model.named_parameters(), lr=1e-6)
    times = []
    with Shards(workers) as shards:
        for _ in range(20):
            start = time.perf_counter()
            sgd.step(shards.step(model, loss, x, target, rngs, factored=True).gradients, each=shards.each)
            times.append(time.perf_counter() - start)
    return len(x) / float(np.median(times))
