"""`tinynet models`: the table is true, fits a terminal, and is the one in the docs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tinynet.cli import app
from tinynet.models import create, entry, model_rows, models_table, names
from tinynet.nn import init
from tinynet.train.classifier import recipe_for

ROOT = Path(__file__).parents[2]


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_every_model_has_its_row() -> None:
    rows = model_rows()
    assert sorted(row.name for row in rows) == names()
    # Multiply-adds of one photo as fvcore or torchvision publish them, in units of 10⁹ to the digits given there.
    published = {"alexnet": 0.71, "vgg11": 7.61, "vgg16": 15.47, "resnet18": 1.81, "resnet50": 4.09, "squeezenet1_0": 0.82,
                 "squeezenet1_1": 0.35, "mobilenet_v2": 0.30, "googlenet": 1.50}
    found = {row.name: row for row in rows}
    for name, billions in published.items():
        assert round(found[name].multiply_adds / 1e9, 2) == billions, name
    assert found["zfnet"].field == 139 and found["vgg16"].field == 196 and found["resnet18"].field == 435
    assert found["catnet"].paper is None and found["resnet18"].paper is entry("resnet34").paper


def test_the_docs_say_how_large_the_catnet_is_that_is_trained() -> None:
    arguments = {**recipe_for(32).arguments, "classes": 10, "groups": [[0], list(range(1, 10))]}
    count = sum(p.size for p in create("catnet", rng=init.no_draws, **arguments).named_parameters().values())
    assert f"with {count:,} parameters" in (ROOT / "docs" / "models.md").read_text()


def test_the_table_fits_a_terminal_and_is_the_one_in_the_docs() -> None:
    table = models_table()
    assert max(map(len, table.splitlines())) <= 100
    assert max(map(len, models_table(90).splitlines())) <= 90
    assert table in (ROOT / "docs" / "models.md").read_text(), "put what `tinynet models` prints into docs/models.md"
    result = run("models")
    assert result.exit_code == 0 and result.stdout == table + "\n"


def test_the_block_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "examples" / "photos" / "chelsea.png", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "models.md").read_text(), re.S | re.M)
    space: dict[str, Any] = {}
    exec(compile(block, "models.md", "exec"), space)
    assert capsys.readouterr().out == "tiger cat\n"
    assert space["picture"].shape == space["x"].shape == (1, 3, 224, 224) and space["picture"].any()


@pytest.mark.parametrize("command", ["models", "summary"])
def test_one_of_them(command: str) -> None:
    result = run(command, "vgg11")
    assert result.exit_code == 0
    assert "features.18" in result.stdout and "132,863,336" in result.stdout and "7,609,090,048" in result.stdout
    assert ("Simonyan" in result.stdout) == (command == "models")
    result = run(command, "lenet5")
    assert result.exit_code == 0 and "1×32×32" in result.stdout and "61,706" in result.stdout


def test_what_a_model_wants_to_see_is_said() -> None:
    assert "shorter side 256 pixels, the central 224×224 cut out, mean 0.485, 0.456, 0.406" in run("models", "resnet50").stdout
    assert "mean 0.5, 0.5, 0.5" in run("models", "googlenet").stdout


@pytest.mark.parametrize("command", ["models", "summary"])
def test_an_unknown_name_lists_the_nearest(command: str) -> None:
    result = run(command, "resnet-20")
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "nearest: " in result.stderr and "cifar_resnet20" in result.stderr
