"""What the project promises as a whole: what is installed, what an import costs, what the README says."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import mutate

ROOT = Path(__file__).parents[1]


def test_every_package_is_installed():
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tinynet").rglob("__init__.py")}
    assert named == found | {"tinynet.data.photos"}


def test_import_loads_numpy_and_pillow_and_nothing_else_heavy():
    code = (
        "import sys; before = set(sys.modules); import tinynet;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"matplotlib", "tqdm", "typer", "click", "rich", "safetensors", "pooch", "requests", "threadpoolctl", "torch", "cupy",
             "jinja2", "scipy", "onnx", "google"}
    assert not heavy & set(loaded)


def test_what_looks_inside_is_found_by_its_name_whatever_was_imported_first():
    names = ("explain", "explain_photos", "family", "localisation", "make_atlas", "covered", "occlusion", "invariance")
    for first in ("tinynet", "tinynet.interpret.explain", "tinynet.interpret.explain_photos", "tinynet.interpret.family"):
        code = f"import {first}, tinynet; print(*(callable(getattr(tinynet.interpret, name)) for name in {names!r}))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
        assert found == ["True"] * len(names), first


def test_the_mutants_are_of_modules_that_there_are_and_so_are_their_tests():
    for family in mutate.FAMILIES:
        module = family if "." in family else f"functional.{family}"
        assert (ROOT / "tinynet" / f"{module.replace('.', '/')}.py").is_file(), family
        for test in mutate.tests_of(family):
            assert (ROOT / test).is_file(), (family, test)          # pytest would run nothing at all, and no mutant would survive


def test_readme_has_its_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("pip install")]
    assert commands[:2] == ["pip install -e . && python examples/cat_classifier.py", 'pip install -e ".[test]" && pytest']


def test_what_is_drawn_does_not_depend_on_numbers_in_the_modules() -> None:
    providers = pytest.importorskip("hypothesis.internal.conjecture.providers")
    assert not providers._get_local_constants().integers        # tests/conftest.py sees to it
