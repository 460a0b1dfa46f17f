"""Do the maps point at the people? The pointing game of every method on street photos with masks, beside chance and the centre.

    python benchmarks/pointing_game.py DIR              DIR/images/NAME.jpg, DIR/masks/NAME.png: 0 is background

A small network learns "a person or not" from crops of two thirds of the photos; the maps of its answer are held against the masks
of people in crops of the others, where a person stands anywhere. Prints the table twice: for the network, and for the same with
redrawn weights, and writes both to benchmarks/results/pointing_game.json. A few minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tinynet import nn
from tinynet.data import read_photo
from tinynet.interpret.control import randomised
from tinynet.interpret.family import localisation, localisation_table
from tinynet.models import create
from tinynet.optim import Adam, OneCycleLR

RESULTS = Path(__file__).parent / "results"
SIDE = 64
SHARE = (0.06, 0.35)                                            # how much of a crop with a person the people cover


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder with images/ and masks/")
    parser.add_argument("--crops", type=int, default=16, help="crops of each class from a photo to learn from (default: 16)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--photos", type=int, default=100, help="crops to play the game on (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pictures = [(path, options.folder / "masks" / f"{path.stem}.png") for path in sorted((options.folder / "images").glob("*"))]
    pictures = [(photo, mask) for photo, mask in pictures if mask.is_file()]
    if len(pictures) < 6:
        raise SystemExit(f"pointing_game: expected images/ and masks/ with at least six pairs in {options.folder}")
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(pictures))
    learn, test = (crops([pictures[i] for i in part], options.crops, rng) for part in np.split(order, [2 * len(order) // 3]))
    model = learned(learn[0], learn[1], options.epochs, rng)
    right = model(test[0]).argmax(1) == test[1]
    print(f"{len(learn[0]):,} crops to learn from; of {len(right):,} others {100 * right.mean():.1f} % are told right")
    chosen = np.flatnonzero(right & (test[1] == 1))
    chosen = rng.permutation(chosen)[: options.photos]
    record = {"right": float(right.mean()), "photos": len(chosen), "tables": {}}
    for name, network in (("the network", model), ("redrawn weights", randomised(model, np.random.default_rng(0)))):
        rows = localisation(network, test[0][chosen], test[2][chosen], 1)
        print(f"\n{name}, {len(chosen)} crops with people:\n{localisation_table(rows)}", flush=True)
        record["tables"][name] = [row._asdict() for row in rows]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pointing_game.json").write_text(json.dumps(record, indent=2) + "\n")


def crops(pictures: list[tuple[Path, Path]], count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (N, 3, SIDE, SIDE), labels (1: a person), masks (N, SIDE, SIDE): squares from anywhere, of any size that fits."""
    found: list[tuple[np.ndarray, int, np.ndarray]] = []
    for photo, marked in pictures:
        picture = read_photo(photo)
        with Image.open(marked) as image:
            mask = np.asarray(image) > 0
        if mask.shape != picture.shape[:2]:
            raise SystemExit(f"pointing_game: {marked} and its photo have different sizes")
        wanted = {0: count, 1: count}
        for _ in range(60 * count):
            side = int(min(mask.shape) * rng.uniform(0.35, 1))
            top, left = (int(rng.integers(0, size - side + 1)) for size in mask.shape)
            here = np.s_[top : top + side, left : left + side]
            share = mask[here].mean()
            label = 0 if share == 0 else 1 if SHARE[0] <= share <= SHARE[1] else None
            if label is not None and wanted[label]:
                wanted[label] -= 1
                found.append((_resized(picture[here]), label, _resized(mask[here].astype(np.uint8) * 255) >= 128))
    x = np.stack([crop for crop, _, _ in found]).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    return x, np.array([label for _, label, _ in found]), np.stack([mask for _, _, mask in found])


def learned(x: np.ndarray, labels: np.ndarray, epochs: int, rng: np.random.Generator) -> nn.Layer:
    """A small network that has seen each crop `epochs` times, also mirrored."""
    model = create("photonet", classes=2, stem=(5, 2), rng=rng)
    loss, optimiser, size = nn.CrossEntropyLoss(), Adam(model.named_parameters(), lr=1e-3), 32
    schedule = OneCycleLR(max_lr=3e-3, total_steps=epochs * (len(x) // size))
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for begin in range(0, len(x) - size + 1, size):
            part = order[begin : begin + size]
            batch = x[part]
            turned = rng.random(size) < 0.5
            batch[turned] = batch[turned, :, :, ::-1]
            schedule.apply(optimiser, step)
            y, saved = model.forward(batch, train=True, rng=rng)
            optimiser.step(nn.backward(model, saved, loss(y, labels[part])[1], input_gradient=False)[1])
            step += 1
    return model


def _resized(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


if __name__ == "__main__":
    main()
