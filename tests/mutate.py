"""Break one line of tinynet at a time, and see that a test fails. Run by hand: python tests/mutate.py [module …]

A module is one of tinynet.functional by its name alone (conv), or with its package (interpret.units). A mutant is one change of
one expression: + for −, a factor dropped, a number one off, a comparison turned, a statement left out. Its module's tests run on
NumPy in a forked process, without shrinking; what passes them all has survived and is printed; some survivors are the same
function written differently. The exit code counts them.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "conv": ["conv"], "conv_transpose": ["conv_transpose"], "max_pool": ["max_pool"], "max_unpool": ["max_unpool"],
    "avg_pool": ["avg_pool"], "linear": ["linear"], "activation": ["activation"], "softmax": ["softmax"],
    "cross_entropy": ["cross_entropy"], "squared_error": ["squared_error"], "_reduction": ["cross_entropy", "squared_error"],
    "dropout": ["dropout"], "batch_norm": ["batch_norm"], "local_response_norm": ["local_response_norm"], "pad": ["pad"],
    "interpolate": ["interpolate"],
    "_geometry": ["conv", "max_pool", "avg_pool"], "_along": ["pad", "interpolate"],
    "_check": ["check", "linear", "conv", "max_pool", "softmax", "cross_entropy"],
    "interpret.units": ["walks"], "interpret.attribution": ["walks", "batches"], "interpret.deconvnet": ["walks"],
    "interpret.guided": ["walks", "captum"], "interpret.gradients": ["walks", "captum", "batches"],
    "interpret.cam": ["walks", "captum"], "interpret.mirror": ["walks"], "interpret.patches": ["patches"],
    "interpret.part": ["unit_walks"], "interpret.unit_walks": ["unit_walks", "patches"],
    "interpret.scores": ["scores"], "interpret.deletion": ["deletion"],
    "interpret.control": ["control"], "interpret.top": ["top"], "interpret.strongest": ["strongest", "top"],
    "interpret.fingerprints": ["fingerprints", "top"], "nn.receptive_field": ["summary"],
    "kernels.winograd": ["algorithms"], "kernels.im2col": ["algorithms"], "kernels.rows": ["algorithms"],
    "kernels.phases": ["algorithms"], "kernels.factors": ["factors"], "kernels.pointwise": ["algorithms"],
    "kernels.blocks": ["functional.activation", "optim.in_blocks"],
    "optim.sgd": ["trajectories"], "optim.adam": ["trajectories"], "optim.clip": ["clip", "factored"],
    "optim.schedules": ["schedules"], "nn.containers": ["containers", "layers", "frozen"],
    "nn.loss": ["loss"], "nn.norm": ["layers"],
    "nn.activation": ["layers"], "nn.pool": ["layers"], "nn.conv": ["layers"], "train.metrics": ["metrics"],
}  # fmt: skip
"""Module → the files of tests that hold it, in the folder of its package, or in another: functional.activation."""
SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult], ast.Lt: [ast.LtE], ast.LtE: [ast.Lt], ast.Gt: [ast.GtE], ast.GtE: [ast.Gt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.And: [ast.Or], ast.Or: [ast.And], ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
}  # fmt: skip
NAMES = {
    "maximum": "minimum", "minimum": "maximum", "zeros": "ones", "ones": "zeros", "reversed": "list", "max": "min",
    "min": "max",
}  # fmt: skip


class Mutant:
    def __init__(self, module: ast.Module, line: int, what: str, function: str) -> None:
        self.source, self.line, self.what, self.function = ast.unparse(module), line, what, function


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module. Docstrings, annotations and the words of error messages are left alone."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(child): f.name for f in functions for child in ast.walk(f)}
    skipped = {
        id(child) for node in ast.walk(tree) if isinstance(node, (ast.Raise, ast.JoinedStr)) for child in ast.walk(node)
    }
    defaults = [d for f in functions for d in [*f.args.defaults, *f.args.kw_defaults] if d is not None]
    annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation]
    annotations += [f.returns for f in functions if f.returns]
    decorators = [d for f in functions for d in f.decorator_list]
    skipped |= {id(child) for node in [*defaults, *annotations, *decorators] for child in ast.walk(node)}
    nodes = [node for node in ast.walk(tree) if id(node) in inside and id(node) not in skipped]
    for node in nodes:
        for what in changes(node):
            fresh = copy.deepcopy(tree)
            twin = list(ast.walk(fresh))[[id(n) for n in ast.walk(tree)].index(id(node))]
            before = ast.unparse(node)
            apply(fresh, twin, what)
            yield Mutant(fresh, getattr(node, "lineno", 0), f"{what} in `{before[:90]}`", inside[id(node)])


def changes(node: ast.AST) -> list[str]:
    """Names of what can be changed about this node."""
    if isinstance(node, ast.BinOp):
        found = [f"{type(node.op).__name__}→{s.__name__}" for s in SWAPS.get(type(node.op), [])]
        return found + (["keep left", "keep right"] if isinstance(node.op, (ast.Mult, ast.Add, ast.Sub, ast.Div)) else [])
    if isinstance(node, ast.AugAssign):
        return [f"{type(node.op).__name__}→{s.__name__}" for s in SWAPS.get(type(node.op), [])] + ["left out"]
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return [f"{type(node.ops[0]).__name__}→{s.__name__}" for s in SWAPS.get(type(node.ops[0]), [])]
    if isinstance(node, ast.BoolOp):
        return [f"{type(node.op).__name__}→{s.__name__}" for s in SWAPS[type(node.op)]]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        return ["sign dropped"]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return ["+1", "-1"]
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        return ["turned"]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ["left out"]
    if isinstance(node, (ast.If, ast.IfExp)):
        return ["always", "never"]
    if isinstance(node, (ast.Attribute, ast.Name)) and getattr(node, "attr", getattr(node, "id", "")) in NAMES:
        return ["renamed"] if isinstance(node.ctx, ast.Load) else []
    if isinstance(node, ast.Slice):
        return [f"no {part}" for part in ("lower", "upper", "step") if getattr(node, part) is not None]
    return []


def apply(tree: ast.Module, node: ast.AST, what: str) -> None:
    swapped = {s.__name__: s for options in SWAPS.values() for s in options}
    if "→" in what:
        new = swapped[what.split("→")[1]]()
        if isinstance(node, ast.Compare):
            node.ops[0] = new
        else:
            node.op = new  # type: ignore[attr-defined]
    elif what in ("keep left", "keep right"):
        replace(tree, node, getattr(node, what.split()[1]))
    elif what == "sign dropped":
        replace(tree, node, node.operand)  # type: ignore[attr-defined]
    elif what in ("+1", "-1"):
        node.value += int(what)  # type: ignore[attr-defined]
    elif what == "turned":
        node.value = not node.value  # type: ignore[attr-defined]
    elif what == "left out":
        replace(tree, node, ast.Pass())
    elif what in ("always", "never"):
        node.test = ast.Constant(what == "always")  # type: ignore[attr-defined]
    elif what == "renamed":
        key = "attr" if isinstance(node, ast.Attribute) else "id"
        setattr(node, key, NAMES[getattr(node, key)])
    else:
        setattr(node, what.split()[1], None)
    ast.fix_missing_locations(tree)


def replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(item is old for item in value):
                value[[item is old for item in value].index(True)] = new


def patch(module: ModuleType, source: str) -> None:
    """Give the functions and methods of a loaded module the code of `source`; whoever has imported them sees the change."""
    fresh = dict(vars(module))
    exec(compile(source, str(module.__file__), "exec"), fresh)

    def swap(old: object, new: object) -> None:
        if isinstance(old, FunctionType) and isinstance(new, FunctionType):
            old.__code__ = new.__code__
        elif isinstance(old, property) and isinstance(new, property):
            swap(old.fget, new.fget)
        elif isinstance(old, cached_property) and isinstance(new, cached_property):
            swap(old.func, new.func)
        elif isinstance(old, (classmethod, staticmethod)) and isinstance(new, (classmethod, staticmethod)):
            swap(old.__func__, new.__func__)
        if hasattr(old, "registry") and hasattr(new, "registry"):  # of a singledispatch: its functions have no name of their own
            for kind, function in old.registry.items():
                swap(function, new.registry.get(kind))

    for name, old in vars(module).items():
        if isinstance(old, type):
            for key, member in vars(old).items():
                swap(member, vars(fresh[name]).get(key))
        elif getattr(old, "__module__", None) == module.__name__:
            swap(old, fresh[name])


class Mutation:
    """A pytest plugin: the tests are collected once, then every mutant runs them in a fork of this process."""

    def __init__(self, families: list[str], gradients_only: bool, part: tuple[int, int] = (1, 1)) -> None:
        self.families, self.gradients_only, self.part = families, gradients_only, part
        self.alive = self.total = 0
        self.in_child = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.in_child and report.failed:
            os._exit(1)

    def survives(self, items: list[pytest.Item], module: ModuleType, source: str) -> bool:
        """Whether the tests pass with the mutant. A crash and two minutes of running count as found."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        try:
            self.in_child = True
            signal.alarm(120)
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            patch(module, source)
            for item, after in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            os._exit(0)
        finally:
            os._exit(2)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for family in self.families:
            wanted = {ROOT / test for test in tests_of(family)}
            items = [item for item in session.items if item.path in wanted]
            module = importlib.import_module(f"tinynet.{family if '.' in family else f'functional.{family}'}")
            source = Path(str(module.__file__)).read_text()
            if not self.survives(items, module, ast.unparse(ast.parse(source))):
                print(f"{family}: the tests fail without any mutation")
                self.alive += 1
                continue
            start, count = time.perf_counter(), 0
            for number, mutant in enumerate(mutants(source)):
                if (self.gradients_only and "gradient" not in mutant.function) or number % self.part[1] != self.part[0] - 1:
                    continue
                count += 1
                if self.survives(items, module, mutant.source):
                    self.alive += 1
                    print(f"survived: {family}:{mutant.line} {mutant.function}: {mutant.what}")
            self.total += count
            print(f"{family}: {count} mutants, {time.perf_counter() - start:.0f} s")
        print(f"{self.alive} of {self.total} mutants survived")
        return True


def tests_of(family: str) -> list[str]:
    """The files of tests of a module, from the root of the project."""
    package, _, _ = family.rpartition(".")
    names = FAMILIES[family] if package else [*FAMILIES[family], "gradient_arguments"]
    places = [name.rpartition(".") for name in names]
    return [f"tests/{folder or package or 'functional'}/test_{name}.py" for folder, _, name in places]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", nargs="*", help=f"{', '.join(FAMILIES)}; all by default")
    parser.add_argument("--gradients", action="store_true", help="only functions with gradient in their name")
    parser.add_argument("--part", default="1/1", help="2/3: the second third of the mutants (default: all)")
    arguments = parser.parse_args()
    which, parts = map(int, arguments.part.split("/"))
    os.nice(10)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    os.chdir(ROOT)
    families = arguments.family or list(FAMILIES)
    plugin = Mutation(families, arguments.gradients, (which, parts))
    tests = sorted({test for family in families for test in tests_of(family)})
    options = ["-q", "-s", "-k", "not double and not cupy", "-p", "no:cacheprovider", "--hypothesis-profile=mutation"]
    pytest.main([*options, *tests], plugins=[plugin])
    return min(plugin.alive, 100)


if __name__ == "__main__":
    sys.exit(main())
