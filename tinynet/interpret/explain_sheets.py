"""The sheets of an explanation: one of units, one of the class's maps. For what the figures mean, see explain.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.preprocessing import Preprocessing
from ..figures import shorten
from . import pictures
from .explain import ClassMap, Explanation, Likeness, UnitPicture
from .patches import cut, seen
from .pictures import Picture, Tile, digits
from .scores import blur
from .words import AREAS, BEYOND, WORDS, areas_words, scale, two

_TILE = 96                                                      # pixels that a small picture is enlarged to, about


def unit_sheet(
    found: Explanation, path: str | os.PathLike[str], preprocessing: Preprocessing, *, classes: Sequence[str] = (),
    title: str = "", command: str = "",
) -> Path:
    """The strongest units of each layer: where they look, what they see, their projections, and the controls. A picture file."""
    shown = pictures.photo(found.x, preprocessing.mean, preprocessing.std)
    rows: list[list[Tile | None]] = [
        [Tile(_strip(unit, shown), _unit_caption(unit, classes)) for unit in units] for units in found.units.values()
    ]
    columns = max(len(row) for row in rows)
    words = [
        "Each unit, five pictures: where in the photo it looks · what it sees there (its receptive field) · the deconvnet's "
        "projection of its strongest activation · two controls, the same walk with its own layer's weights redrawn, and with all "
        "weights redrawn (in the first layer these are one). Below: unit, (row, column) in its map, activation; the ± of its "
        "projection.",
        f"like: structural similarity of the projection and each control (1: the same). {AREAS}",
        f"{scale('each projection')} {BEYOND}", WORDS,
    ]
    return pictures.sheet(
        rows, path, title=title or f"The strongest units: {says(found, classes)}", row_names=list(found.units),
        column_names=["place · sees · projection · own layer redrawn · all redrawn"] * columns, tile=4.7, aspect=0.2,
        notes=_notes(found, [*words, *_mask_words(found)]), command=command,
    )


def class_sheet(
    found: Explanation, path: str | os.PathLike[str], preprocessing: Preprocessing, *, classes: Sequence[str] = (),
    title: str = "", command: str = "",
) -> Path:
    """The family of maps for the class, laid over the photo, and with weights redrawn from the top down. A picture file."""
    shown, name = pictures.photo(found.x, preprocessing.mean, preprocessing.std), _name(found.target, classes)
    down_to = [control.down_to for control in found.maps[0].controls]
    rows: list[list[Tile | None]] = [
        [Tile(_large(shown), "what the model sees"), *(
            Tile(_map_picture(made, made.attribution),
                 f"del. {digits(made.deletion)} · ins. {digits(made.insertion)}\n{_ends(made, made.attribution)}")
            for made in found.maps)],
        [None if found.mask is None else Tile(_large(_outside_paler(shown, found.mask)), "the mask"), *(
            Tile(_laid_over(shown, made.importance), _inside(made)) for made in found.maps)],
        *([None, *(Tile(_map_picture(made, made.controls[i].attribution),
                        f"{_likeness(made.controls[i])}\n{_ends(made, made.controls[i].attribution)}") for made in found.maps)]
          for i in range(len(down_to))),
    ]
    words = [
        f"Maps for the class {name}. In three colours: gradients and projections, channel by channel. Orange speaks for the "
        "class, purple against it. Grad-CAM: dark blue is 0, yellow its largest value. "
        f"{scale('each map', 'Mid grey, and white between orange and purple, is 0')} Gradients are logits per unit of the input; "
        "input × gradient and integrated gradients logits; occlusion a probability.",
        f"Laid over: the importance of a pixel, under a Gaussian of {_sigma(shown.shape):.1g} pixels. Below, the controls: "
        "weights redrawn from the top down to the layer named. ranks: Spearman's correlation with the true map; SSIM: "
        "structural similarity (of maps without detail high in any case). Near 1, the map does not show what was learned.",
        "del., ins.: mean probability of the class while the most important pixels go first (small is good), or come first "
        f"(large is good); in random order {digits(found.random_order[0])} and {digits(found.random_order[1])}.",
        _how(found, preprocessing), *_mask_words(found),
        *(f"The deconvnet's begins with 1 at the class. {WORDS}" for made in found.maps if made.name == "deconvnet"),
    ]
    return pictures.sheet(
        rows, path, title=title or f"Maps for {name}: {says(found, classes)}", tile=1.45,
        row_names=["map", "laid over", *(f"redrawn\ndown to\n{layer}" for layer in down_to)],
        column_names=["photo", *(made.name for made in found.maps)], notes=_notes(found, words), command=command,
    )


def figures_table(found: Explanation) -> str:
    """A line a method, as text."""
    width = max(len(made.name) for made in found.maps)
    heads = (f"  {'':<{width}}       deletion       insertion   likeness to the control",
             f"  {'':<{width}}  small is good  large is good      ranks        SSIM")
    lines = [head + ("" if found.mask is None else more)
             for head, more in zip(heads, ("  pointing  inside", ""), strict=True)]
    for made in found.maps:
        last = made.controls[-1]
        line = f"  {made.name:<{width}}  {digits(made.deletion):>13}  {digits(made.insertion):>13}"
        line += f"  {two(last.ranks):>9}   {two(last.likeness):>9}"
        lines.append(line + ("" if made.energy is None else f"   {_hit(made.pointing):>8}  {100 * made.energy:>4.0f} %"))
    gone, come = map(digits, found.random_order)
    lines.append(f"  {'random order':<{width}}  {gone:>13}  {come:>13}")
    return "\n".join(lines)


def says(found: Explanation, classes: Sequence[str]) -> str:
    """What the model says, and what it was asked about, if that is something else."""
    best = int(found.probabilities.argmax())
    words = f"the model says {_name(best, classes)}, {100 * found.probabilities[best]:.1f} %"
    if best != found.target:
        words += f"; asked about {_name(found.target, classes)}, {100 * found.probabilities[found.target]:.1f} %"
    return words + (" (it looks untrained)" if found.warning else "")


def _how(found: Explanation, preprocessing: Preprocessing) -> str:
    """The settings in words."""
    words = {
        "integrated gradients": "integrated gradients: {steps} steps from the mean",
        "SmoothGrad": "SmoothGrad: {samples} copies, noise {noise:g} of the photo's range", "Grad-CAM": "Grad-CAM of {layer}",
        "occlusion": "occlusion: squares of {square[0]}×{square[1]} pixels of the mean, {stride[0]} apart",
        "deletion": "del.: pixels become the mean, in {steps} steps",
        "insertion": "ins.: they come into the photo under a {baseline}",
    }
    said = [text.format(**found.settings[name]) for name, text in words.items() if name in found.settings]
    mean = ", ".join(f"{255 * value:.0f}" for value in preprocessing.mean)
    return f"How: {'; '.join(said)}. The mean: the colour ({mean}), 0 in the units of the input."


def _name(number: int, classes: Sequence[str]) -> str:
    return classes[number] if number < len(classes) else f"class {number}"


def _notes(found: Explanation, paragraphs: Sequence[str]) -> str:
    warning = [f"WARNING: {found.warning}."] if found.warning else []
    return "\n".join([*warning, *(f"{line[0].upper()}{line[1:]}." for line in found.left_out), *paragraphs])


def _mask_words(found: Explanation) -> list[str]:
    if found.chance is None or found.centre is None:
        return []
    return [
        "Mask: whether the strongest pixel lies in it (hit), and the share of the importance that does; an even map has "
        f"{100 * found.chance[1]:.0f} % inside, and a random point hits as often; a guess at the centre: "
        f"{_hit(found.centre[0])}, {100 * found.centre[1]:.0f} % inside."
    ]


def _hit(pointing: float | None) -> str:
    return "" if pointing is None else "hit" if pointing == 1 else "miss" if pointing == 0 else f"{100 * pointing:.0f} % hit"


def _unit_caption(unit: UnitPicture, classes: Sequence[str]) -> str:
    name = f", {shorten(_name(unit.channel, classes), 24)}," if unit.of_class else ""
    place = f" ({', '.join(map(str, unit.position))})" if unit.position else ""
    likeness = ", ".join(two(control.likeness) for control in unit.controls)
    inside = f" · {_inside(unit)}" if unit.energy is not None else ""
    value = f"{digits(unit.value)}; ±{digits(pictures.magnitude(unit.projection))}"
    return f"unit {unit.channel}{name}{place}: {value}\nlike {likeness} · {areas_words(unit.areas)}{inside}"


def _inside(made: ClassMap | UnitPicture) -> str:
    return "" if made.energy is None else f"{_hit(made.pointing)} · {100 * made.energy:.0f} % inside"


def _likeness(control: Likeness) -> str:
    return f"ranks {two(control.ranks)} · SSIM {two(control.likeness)}"


def _ends(made: ClassMap, attribution: np.ndarray) -> str:
    """What the scale of a map's picture ends at."""
    if made.name == "Grad-CAM":
        return f"0 … {digits(float(attribution.max()))}"
    return f"±{digits(pictures.magnitude(attribution.sum(axis=0) if made.signed else attribution))}"


def _map_picture(made: ClassMap, attribution: np.ndarray) -> Picture:
    if made.name == "Grad-CAM":
        return _large(pictures.heat(attribution[0], low=0.0))
    return _large(pictures.signed(attribution.sum(axis=0)) if made.signed else pictures.centred(attribution))


def _laid_over(shown: Picture, importance: np.ndarray) -> Picture:
    """The photo in grey under what is important; smoothed, so that single pixels show, and cut at its scale's end."""
    smooth = blur(np.maximum(importance, 0).astype(np.float64), _sigma(importance.shape))
    return _large(pictures.overlay(shown, np.minimum(smooth, pictures.magnitude(smooth)), strength=0.75))


def _strip(unit: UnitPicture, shown: Picture) -> Picture:
    """place, patch, projection and controls side by side, on white."""
    projections = [pictures.centred(v) for v in (unit.projection, *(control.attribution for control in unit.controls))]
    inside = seen(unit.where, shown.shape[:2])
    patch = cut(shown.transpose(2, 0, 1), unit.where).transpose(1, 2, 0)
    patch[~cut(inside, unit.where)] = pictures.GREY             # beyond the photo's border
    tiles = [_large(_outside_paler(shown, inside)), _large(patch), *map(_large, projections)]
    side = max(max(tile.shape[:2]) for tile in tiles)
    squares = [_in_square(tile, side) for tile in tiles]
    squares[3:3] = [np.full_like(squares[0], 255)] * (5 - len(squares))     # in the first layer both controls are one
    return np.concatenate(squares, axis=1)


def _in_square(picture: Picture, side: int) -> Picture:
    """The picture, framed, in the middle of a white square, enlarged to fill it."""
    from PIL import Image

    h, w = picture.shape[:2]
    size = (max(1, w * side // max(h, w)), max(1, h * side // max(h, w)))
    if size != (w, h):
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
    edge = 1 + round(0.03 * side)
    out = np.full((side + 2 * edge, side + 2 * edge, 3), 255, np.uint8)
    top, left = edge + (side - size[1]) // 2, edge + (side - size[0]) // 2
    out[top - 1 : top + size[1] + 1, left - 1 : left + size[0] + 1] = pictures.framed(picture)
    return out


def _large(picture: Picture) -> Picture:
    return pictures.enlarged(picture, _TILE)


def _outside_paler(shown: Picture, mask: np.ndarray) -> Picture:
    """The photo, paler outside the mask."""
    return np.where(mask[..., None], shown, (255 - (255 - shown.astype(float)) * 0.35).astype(np.uint8))


def _sigma(size: Sequence[int]) -> float:
    """Of the smoothing of what is laid over a photo, pixels."""
    return min(size[:2]) / 50


__all__ = ["class_sheet", "figures_table", "says", "unit_sheet"]
