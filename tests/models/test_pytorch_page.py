"""docs/pytorch.md does what it says: its Python blocks are run one after the other, and print what stands behind them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "pytorch.md"


def test_every_block_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    assert len(blocks) == 10
    space: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert printed == text
            continue
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(text, str(PAGE), "exec"), space)
        printed = output.getvalue()
