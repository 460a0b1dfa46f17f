"""The README's opening picture: a photo, the units of the boxed network that it excites most in three layers, and what they see.

    python examples/opening.py                  # writes docs/pictures/opening.png, in a minute
    python examples/opening.py photo.jpg --output mine.png
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from tinynet import data, figures, interpret, models
from tinynet.interpret import pictures
from tinynet.interpret.explain import explain
from tinynet.interpret.patches import unit_patches

HERE = Path(__file__).resolve().parent
LAYERS = {"features.4": "#e69f00", "features.7": "#56b4e9", "features.10": "#cc79a7"}     # Fire modules, and their boxes' colours
UNITS = 2


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture enlarged to `side` pixels, each pixel a square."""
    places = np.arange(side) * len(picture) // side
    return picture[places][:, np.arange(side) * picture.shape[1] // side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=HERE / "photos" / "chelsea.png")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "pictures" / "opening.png")
    arguments = parser.parse_args()

    trained = models.boxed()
    model, preprocessing = trained.model, trained.preprocessing
    x = preprocessing.transform()(data.read_photo(arguments.photo), np.random.default_rng(0))
    found = explain(model, x, layers=list(LAYERS), units=UNITS, methods=())
    best = int(found.probabilities.argmax())
    photos = data.embedded("test")
    top = interpret.top_activations(model, photos, list(LAYERS), 9, transform=preprocessing.transform())

    def shown(v: np.ndarray) -> np.ndarray:
        return pictures.photo(v, preprocessing.mean, preprocessing.std)

    figure = figures.new_figure(12.0, 4.6)
    grid = figure.add_gridspec(len(LAYERS), 3 + 4 * UNITS)
    axes = figure.add_subplot(grid[:, :3])
    axes.imshow(shown(x))
    axes.set_title(f"{trained.classes[best]}, {100 * found.probabilities[best]:.0f} %", size=12, weight="bold")
    axes.set_xlabel("SqueezeNet 1.1, ImageNet's weights, NumPy alone.\nBoxes: what the units on the right see.", size=8.5)
    bare(axes)
    for row, (layer, colour) in enumerate(LAYERS.items()):
        units = found.units[layer]
        blocks = unit_patches(model, photos, top, layer, [u.channel for u in units], transform=preprocessing.transform(), side=64)
        for column, (unit, block) in enumerate(zip(units, blocks, strict=True)):
            where = unit.where
            box = Rectangle((where.left, where.top), where.width, where.height, fill=False, edgecolor=colour, linewidth=2)
            axes.add_patch(box)
            tiles = {
                "sees": shown(unit.patch), "projection": pictures.centred(unit.projection),
                "control": pictures.centred(unit.controls[-1].attribution),
                "sees most": pictures.block([shown(patch) for patch in block.patches]),
            }
            for number, (name, tile) in enumerate(tiles.items()):
                place = figure.add_subplot(grid[row, 3 + 4 * column + number])
                place.imshow(tile if name == "sees most" else square(tile, 180))
                bare(place)
                for side in place.spines.values():
                    side.set(visible=number == 0, color=colour, linewidth=2)
                if not row:
                    place.set_title(name, size=9)
                if not number:
                    place.set_xlabel(f"{layer} unit {unit.channel}", size=7.5, loc="left")
    command = shlex.join(["python", "examples/opening.py", *sys.argv[1:]])
    figures.notes_below(
        figure, "Each unit: what it sees of the photo · the deconvnet's projection of its activation (mid grey is 0) · the "
        "control, the same walk through the network with all weights redrawn · what it sees in those nine of the 1,000 "
        "embedded photos (32×32 pixels, enlarged) that excite it most. What projection and control have in common was not "
        "learned.", command,
    )
    print(figures.save_figure(figure, arguments.output))


def bare(axes: object) -> None:
    axes.set(xticks=[], yticks=[])                              # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
