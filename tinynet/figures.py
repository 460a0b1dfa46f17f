"""What all pictures share: a figure that belongs to no window, colours that colour-blind readers can tell apart, saving.

matplotlib is imported when a picture is made, and only its Figure: no state is shared between pictures.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from .errors import FileError
from .files import replacing

# Okabe & Ito's palette.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
DPI = 120


def new_figure(width: float, height: float, arranged: bool = True) -> Any:
    """A figure of that size in inches that belongs to no window. arranged: matplotlib finds the places of its parts."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained" if arranged else None)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write the figure as its file's ending says (PNG, PDF, SVG), whole or not at all. Raises FileError."""
    from matplotlib.backend_bases import FigureCanvasBase

    path = Path(path)
    kind = path.suffix.lstrip(".").lower() or "png"
    if kind not in FigureCanvasBase.get_supported_filetypes():
        raise FileError(f"{path}: expected a picture's ending, such as .png or .pdf, got .{kind}")
    with replacing(path) as temporary:
        # Level 1 takes a quarter of the time of zlib's usual 6, for files about a tenth larger.
        figure.savefig(temporary, format=kind, **({"pil_kwargs": {"compress_level": 1}} if kind == "png" else {}))
    return path


def notes_below(figure: Any, notes: str, command: str = "") -> None:
    """The small print of a picture: what it shows, its units, and the command that made it, in lines that fit."""
    text = wrapped(notes, command, figure.get_size_inches()[0])
    if text:
        figure.supxlabel(text, size=7.5, color="0.3", parse_math=False, ha="left", x=0.01)


def wrapped(notes: str, command: str, inches: float) -> str:
    """The notes, paragraph by paragraph, and then the command, in lines for a picture of that width."""
    paragraphs = [*(notes.split("\n") if notes else []), *([f"Made by: {command}"] if command else [])]
    return "\n".join(textwrap.fill(paragraph, int(17 * inches)) for paragraph in paragraphs)


def shorten(name: str, most: int = 18) -> str:
    """A name cut to `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"
