"""The pages for users of PyTorch do what they say: their Python blocks are run in turn, and print what stands behind them."""

from __future__ import annotations

import contextlib
import io
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import tinynet

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "count"), [("pytorch.md", 10), ("coming-from-pytorch.md", 6)])
def test_every_block_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", (DOCS / name).read_text(), re.S | re.M)
    assert len(blocks) == count
    space: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert printed == text
            continue
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(text, name, "exec"), space)
        printed = output.getvalue()


def test_what_the_table_names_is_there() -> None:
    rows = re.findall(r"^\| `.*? \| (.*) \|$", (DOCS / "coming-from-pytorch.md").read_text(), re.M)
    names = {name for row in rows for name in re.findall(r"\b(?:tinynet|nn|optim|data)\.[A-Za-z_.]*\w", row)}
    assert len(rows) > 20 and {"nn.backward", "optim.clip_grad_norm", "tinynet.backend.to_device"} <= names
    for name in names:
        first, *attributes = name.removeprefix("tinynet.").split(".")
        reduce(getattr, attributes, getattr(tinynet, first))
