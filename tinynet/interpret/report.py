"""The atlas as one HTML file: pictures inside, no network, readable on a phone; and the whole way from a model to it."""

from __future__ import annotations

import base64
import io
import os
import platform
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..data.dataset import Dataset
from ..errors import ArgumentError, FileError, some
from ..files import make_folder, write_text
from ..models import TrainedModel
from ..nn import Summary, summary
from .atlas import LayerAtlas, layer_atlas, layer_sheet, tile_side
from .control import randomised, untrained
from .deconvnet import without_rule
from .pictures import Picture, digits
from .top import default_layers, top_activations
from .words import AREAS, BEYOND, WORDS, areas_words, scale, two

UNITS = 32
"""Units of a layer that a report shows unless told otherwise."""


class AtlasFiles(NamedTuple):
    """What make_atlas wrote, and what a reader should be warned of ("" if nothing)."""

    report: Path
    top: Path
    sheets: list[Path]
    warning: str


def make_atlas(
    trained: TrainedModel, dataset: Dataset, output: str | os.PathLike[str], *, layers: Sequence[str] | None = None,
    units: int | None = UNITS, k: int = 9, workers: int | None = None, resume: bool = False, progress: bool = True,
    command: str = "", photos: str = "",
) -> AtlasFiles:
    """Find every unit's strongest activations over the photos, and write the report, a sheet for each layer, and the findings.

    output: a folder; atlas.html, top.safetensors and <layer>.png go there. units: shown of each layer, evenly spread over those
    that are active; None: all. resume: go on from output/top.safetensors where an earlier run was interrupted.
    photos: what the report calls them. Raises as top_activations does.
    """
    model = trained.model
    chosen = list(dict.fromkeys(layers)) if layers else default_layers(model)
    barred = {layer: without_rule(model, layer) for layer in chosen}     # before the folder is made
    left_out = [layer for layer in chosen if barred[layer]]
    if left_out and (layers or left_out == chosen):
        layer = left_out[0]
        raise ArgumentError(f"layer {layer!r}: its projections cannot pass {barred[layer]}, for which the deconvnet has no rule")
    chosen = [layer for layer in chosen if layer not in left_out]
    folder = make_folder(output)
    findings = folder / "top.safetensors"
    if not resume:
        findings.unlink(missing_ok=True)
    preprocessing = trained.preprocessing
    top = top_activations(model, dataset, chosen, k, transform=preprocessing.transform(), workers=workers, resume=findings,
                          progress=progress)
    control = randomised(model, np.random.default_rng(0))
    shown = [min(len(top[layer].values), units or len(top[layer].values)) for layer in chosen]
    side = tile_side(3 * top.k * sum(shown))
    atlases, sheets = [], []
    try:
        for layer in chosen:
            atlases.append(layer_atlas(model, dataset, top, layer, preprocessing, units=units, side=side, control=control,
                                       workers=workers, progress=progress))
            sheets.append(layer_sheet(atlases[-1], folder / f"{layer}.png", classes=trained.classes, command=command))
    except KeyboardInterrupt:
        where = chosen[min(len(atlases), len(chosen) - 1)]
        raise KeyboardInterrupt(
            f"interrupted at the pictures of {where}; what was found is in {findings}: resume (--resume) to go on from it"
        ) from None
    why = untrained(model)
    warnings = [f"the model looks untrained ({why}): these pictures show what a random network gives"] if why else []
    if left_out:
        warnings.append(f"left out: {', '.join(left_out)}; the deconvnet has no rule for {barred[left_out[0]]}")
    warning = "; ".join(warnings)
    where = photos or f"{len(dataset):,} photos"
    report = write_report(
        folder / "atlas.html", atlases, title=f"Atlas of {trained.name}", photos=where, classes=trained.classes,
        table=summary(model, (3, preprocessing.crop, preprocessing.crop)), command=command, warning=warning,
        units_cut=bool(units),
    )
    return AtlasFiles(report, findings, sheets, warning)


def write_report(
    path: str | os.PathLike[str], atlases: Sequence[LayerAtlas], *, title: str = "Atlas", photos: str = "",
    classes: Sequence[str] = (), table: Summary | None = None, command: str = "", warning: str = "", units_cut: bool = False,
) -> Path:
    """Write the atlases as one HTML file that needs nothing else. Raises FileError.

    photos: what they are, in words. table: of the model. command: that made it. units_cut: say how to see all units.
    """
    from .. import __version__

    values = {
        "title": title, "photos": photos, "classes": some(classes), "class_names": list(classes), "atlases": list(atlases),
        "words": WORDS, "scale": f"{scale('each block of projections')} {BEYOND}", "areas": AREAS,
        "warning": warning, "command": command, "units_cut": units_cut, "table": _table(table), "total": table,
        "versions": f"tinynet {__version__}, Python {platform.python_version()}, NumPy {np.__version__}",
    }
    write_text(path, render("atlas.html", **values))
    return Path(path)


def render(template: str, **values: Any) -> str:
    """A page of a template of this package; whatever is put in is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        picture=data_uri, number=digits, likeness=two, areas=areas_words
    )
    text = resources.files(__package__).joinpath("templates", template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)


def data_uri(picture: Picture) -> str:
    """A picture (H, W, 3) or, with clear parts, (H, W, 4) as an address that holds it: WebP, lossless where that costs little."""
    kinds: list[dict[str, Any]] = [{"quality": 75}]
    if max(picture.shape[:2]) <= 130:                           # few pixels, shown as squares: a lossy picture would smear them
        kinds.append({"lossless": True})
    lossy, *lossless = [_webp(picture, **kind) for kind in kinds]
    best = lossless[0] if lossless and len(lossless[0]) < 1.5 * len(lossy) else lossy
    return f"data:image/webp;base64,{base64.b64encode(best).decode()}"


def _webp(picture: Picture, **options: Any) -> bytes:
    file = io.BytesIO()
    try:
        Image.fromarray(picture).save(file, "WEBP", method=4, **options)
    except (OSError, KeyError) as error:
        raise FileError(f"Pillow cannot write WebP pictures here ({error}); install its usual build") from None
    return file.getvalue()


def _table(table: Summary | None) -> list[list[str]]:
    """The rows of a model's summary as text."""
    if table is None:
        return []
    return [
        [row.path, row.kind, "×".join(map(str, row.output)), f"{row.parameters:,}", f"{row.multiply_adds:,}",
         "all" if row.field is None else "×".join(f"{f:g}" for f in row.field)]
        for row in table.rows
    ]


__all__ = ["UNITS", "AtlasFiles", "data_uri", "make_atlas", "render", "write_report"]
