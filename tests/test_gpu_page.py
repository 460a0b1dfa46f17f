"""docs/gpu.md does what it says: its Python block runs on the double of a GPU, and prints what stands behind it."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from pathlib import Path

from tests.fake_gpu import fake_gpu
from tinynet import backend
from tinynet.kernels.cuda import choice

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"


def test_the_block_of_the_page() -> None:
    ((block, expected),) = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    with fake_gpu(), contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(block, str(PAGE), "exec"), {"__name__": "page"})
    assert output.getvalue() == expected


def test_its_figures_are_those_of_the_code() -> None:
    page, options = PAGE.read_text(), backend.GpuOptions()
    assert options.precision == "float32" and options.workspace == 64 << 20 and "| `workspace` | 64 MiB |" in page
    assert f"{choice.BALANCE:g} operations of float32 in the time of a byte" in page and choice.LAUNCH == 3e-6 * 3e12
    assert f"{choice.SHARE:.0%} of cuBLAS's rate" in page and f"{choice.WORTH:.0%} of the" in page
    assert set(inspect.signature(backend.gpu_options).parameters) == set(re.findall(r"^\| `(\w+)` \|", page, re.M))
