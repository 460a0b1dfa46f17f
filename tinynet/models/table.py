"""The models that have a name, as a table."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from ..nn import init, receptive_fields, summary
from ..nn.conv import _Conv
from .registry import Paper, create, entry, names


class ModelRow(NamedTuple):
    """A model as its builder's defaults make it, for one input of its own size."""

    name: str
    input_size: tuple[int, ...]
    parameters: int
    multiply_adds: int
    field: int
    """Side, in pixels, of the receptive field of a unit of the last convolution."""
    paper: Paper | None


def model_rows() -> list[ModelRow]:
    """All of them, the oldest architecture first, those without a paper last. Nothing is drawn and nothing computed."""
    rows = []
    for name in names():
        known, model = entry(name), create(name, rng=init.no_draws)
        table = summary(model, known.input_size)
        fields = [field for _, layer, field in receptive_fields(model) if isinstance(layer, _Conv) and field is not None]
        rows.append(ModelRow(
            name, known.input_size, table.parameters, table.multiply_adds, int(fields[-1].size[0]), known.paper,
        ))
    return sorted(rows, key=lambda row: (row.paper or Paper("", 9999, "")).year)


def models_table(width: int = 100) -> str:
    """The rows in columns, then the papers, no line longer than `width`."""
    rows = model_rows()
    lines = [("model", "input", "parameters", "multiply-adds", "field", "paper")]
    for row in rows:
        lines.append((
            row.name, "×".join(map(str, row.input_size)), f"{row.parameters:,}", f"{row.multiply_adds:,}", str(row.field),
            row.paper.short if row.paper else "",
        ))
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    text = []
    for line in lines:
        cells = [cell.rjust(w) if 2 <= i <= 4 else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    papers = dict.fromkeys(str(row.paper) for row in rows if row.paper)
    text += ["", *(line for paper in papers for line in textwrap.wrap(paper, width, subsequent_indent="  "))]
    return "\n".join(text)
