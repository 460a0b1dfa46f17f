"""From a graph to containers: the series-parallel decomposition.

PyTorch's tracer and ONNX both write a network down as a graph: every value is made by a layer from one value, or by a
concatenation or a sum of several. What tinynet runs is built of Sequential, Concat and Residual. Going up from the output, a
layer is a step of a path; a join is a Concat or a Residual between itself and the nearest value that all its branches come
through (its immediate dominator), and each branch is such a path again. Branches that meet again before that value belong
together and are joined first: cat([a(y), b(y), c(x)]) with y = f(x) is Concat(Sequential(f, Concat(a, b)), c).

The paths of the layers are kept: `layer1.0.conv1` stands in containers layer1 and 0; what the decomposition adds is hidden.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import ArgumentError
from ..nn import AdaptiveAvgPool2d, Concat, Flatten, Layer, Residual, Sequential


class Refused(Exception):
    """Why something of another library has no counterpart; the reader of its graph adds where."""


class Node(NamedTuple):
    """One value and how it is made."""

    name: str
    """Of the value; no other has it."""
    path: str
    """Dotted: where the layer shall stand. No two layers have the same (Names sees to that)."""
    op: Any
    """A Layer, or Concat or Residual: the class stands for the join of all inputs."""
    inputs: tuple[str, ...]
    """Names of the values it takes: one for a layer."""


class Graph(NamedTuple):
    """A network: nodes in an order in which every value is made before it is taken."""

    input: str
    nodes: Sequence[Node]
    output: str


class Names:
    """Paths that are free, and fit to be containers' names: no empty parts, none that begins with an underscore."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = {clean(path) for path in reserved}
        self._taken: set[str] = set()

    def __call__(self, path: str, own: bool = False) -> str:
        """`path`, or the first of path_1, path_2, … that is free; a reserved one is free to its owner alone."""
        free = path = clean(path)
        number = 0
        while free in self._taken or (free in self._reserved and not (own and free == path)):
            number += 1
            free = f"{path}_{number}"
        self._taken.add(free)
        return free

    def __contains__(self, path: str) -> bool:
        """Whether a path is taken."""
        return clean(path) in self._taken


def clean(path: str) -> str:
    """The path without leading underscores of its parts (they would be hidden) and without empty parts."""
    return ".".join(part.lstrip("_") or "layer" for part in path.split(".") if part)


def axes_after(layer: Layer, before: int | None) -> int | None:
    """How many axes a layer's output has, as far as that can be told. before: of its input."""
    kind = type(layer).__name__
    if isinstance(layer, Flatten):
        if (layer.start_dim, layer.end_dim) == (1, -1):
            return 2
        return None if before is None else before - (layer.end_dim % before - layer.start_dim % before)
    if isinstance(layer, AdaptiveAvgPool2d):
        return 4
    return int(kind[-2]) + 2 if re.fullmatch(r"(Conv|ConvTranspose|MaxPool|AvgPool)[123]d", kind) else before


def to_containers(graph: Graph) -> Layer:
    """The graph as Sequential, Concat and Residual around its layers, which are used as they are.

    Raises ArgumentError that names the join where the graph is not series-parallel.
    """
    nodes = _needed(graph, {node.name: node for node in graph.nodes})
    try:
        items = _Decomposition(graph.input, *_joins(graph.output, nodes, False)).items()
    except ArgumentError:
        # DenseNet's way: cat([x, y]) is used and then cat([x, y, z]) made afresh, which is cat([cat([x, y]), z]).
        items = _Decomposition(graph.input, *_joins(graph.output, nodes, True)).items()
    if len(items) == 1 and isinstance(items[0], _Leaf) and not items[0].path:
        return items[0].layer
    return _sequential(_assemble(items, 0))


def _needed(graph: Graph, nodes: dict[str, Node]) -> dict[str, Node]:
    """The nodes that the output depends on, in their order. Raises ArgumentError for a value that nothing makes."""
    known = {graph.input}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in known:
                raise ArgumentError(f"{node.path or node.name}: takes {name}, which nothing before it makes")
        known.add(node.name)
    if graph.output not in known:
        raise ArgumentError(f"the output {graph.output} is made by nothing")
    wanted, left = set(), [graph.output]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left += nodes[name].inputs if name in nodes else ()
    if graph.input not in wanted:
        raise ArgumentError("the output does not depend on the input")
    return {name: node for name, node in nodes.items() if name in wanted}


def _joins(output: str, nodes: dict[str, Node], fold: bool) -> tuple[dict[str, Node], str]:
    """The nodes and the output with joins in plain form: none of one value, none inside another that alone takes it.

    fold: the values of an earlier Concat, where they stand side by side in a later one, become that Concat.
    """
    same: dict[str, str] = {}                                   # joins of one value are that value
    for node in nodes.values():
        if not isinstance(node.op, Layer) and len(node.inputs) == 1:
            same[node.name] = same.get(node.inputs[0], node.inputs[0])
    uses = Counter([same.get(output, output)])
    for node in nodes.values():
        uses.update(same.get(name, name) for name in node.inputs if node.name not in same)
    plain: dict[str, Node] = {}
    for node in nodes.values():
        if node.name in same:
            continue
        inputs: list[str] = []
        for name in (same.get(name, name) for name in node.inputs):
            inside = not isinstance(node.op, Layer) and name in plain and plain[name].op is node.op and uses[name] == 1
            inputs += plain.pop(name).inputs if inside else [name]
        if fold and node.op is Concat:
            for earlier in plain.values():
                if earlier.op is Concat:
                    inputs = _folded(inputs, earlier)
        if not isinstance(node.op, Layer) and len(inputs) == 1:
            same[node.name] = inputs[0]
        else:
            plain[node.name] = node._replace(inputs=tuple(inputs))
    return plain, same.get(output, output)


def _folded(inputs: list[str], earlier: Node) -> list[str]:
    count = len(earlier.inputs)
    for i in range(len(inputs) - count + 1):
        if tuple(inputs[i : i + count]) == earlier.inputs:
            return [*inputs[:i], earlier.name, *_folded(inputs[i + count :], earlier)]
    return inputs


def _above(names: Sequence[str], nodes: dict[str, Node], stop: str) -> set[str]:
    """The given values and all they are made from, up to `stop`, which is not among them."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name != stop and name not in found:
            found.add(name)
            left += nodes[name].inputs if name in nodes else ()
    return found


class _Leaf(NamedTuple):
    path: str
    layer: Layer


class _Join(NamedTuple):
    path: str
    op: Any
    branches: list[list[Any]]
    """Each a list of _Leaf and _Join, in order; an empty one is the identity."""


class _Decomposition:
    def __init__(self, source: str, nodes: dict[str, Node], output: str) -> None:
        self.source, self.nodes, self.output = source, nodes, output
        self.dominator: dict[str, str] = {}                     # the last value that every way to this one comes through
        self.depth = {source: 0}                                # in the tree of dominators
        for node in nodes.values():
            self.dominator[node.name] = above = self.common(node.inputs)
            self.depth[node.name] = self.depth[above] + 1

    def common(self, names: Sequence[str]) -> str:
        """The last value that every way to each of these comes through (they themselves count)."""
        here, *others = names
        for other in others:
            while here != other:
                if self.depth[here] >= self.depth[other]:
                    here = self.dominator[here]
                else:
                    other = self.dominator[other]
        return here

    def items(self) -> list[Any]:
        return self.path(self.source, self.output)

    def path(self, begin: str, end: str) -> list[Any]:
        """The steps that make the value `end` of the value `begin`, which is one of its dominators."""
        steps: list[Any] = []
        while end != begin:
            node = self.nodes[end]
            if isinstance(node.op, Layer):
                steps.append(_Leaf(node.path, node.op))
            else:
                steps.append(self.join(node, node.inputs))
            end = self.dominator[end]
        return steps[::-1]

    def join(self, node: Node, inputs: Sequence[str]) -> _Join:
        """The join of these inputs, which are all those of the node or some."""
        source = self.common(inputs)
        branches = []
        for group in self.groups(node, inputs, source):
            if len(group) == 1:
                branches.append(self.path(source, group[0]))
            else:                                               # they come through a value of their own: joined first
                branches.append([*self.path(source, self.common(group)), self.join(node, group)])
        return _Join(node.path, node.op, branches)

    def groups(self, node: Node, inputs: Sequence[str], source: str) -> list[list[str]]:
        """The inputs, those together that have something in common below `source`."""
        groups: list[tuple[list[int], set[str]]] = []           # places among the inputs, and everything above them
        for place, name in enumerate(inputs):
            places, above = [place], _above([name], self.nodes, source)
            apart = []
            for group in groups:
                if group[1].isdisjoint(above):
                    apart.append(group)
                else:
                    places, above = group[0] + places, group[1] | above
            groups = [*apart, (places, above)]
        for places, _ in groups:
            scattered = node.op is Concat and sorted(places) != list(range(min(places), max(places) + 1))
            if len(places) > 1 and (len(places) == len(inputs) or scattered):
                raise ArgumentError(self.refusal(node, [inputs[place] for place in sorted(places)], source, scattered))
        return [[inputs[place] for place in sorted(places)] for places, _ in sorted(groups, key=lambda group: min(group[0]))]

    def refusal(self, node: Node, inputs: list[str], source: str, scattered: bool) -> str:
        cones = [_above([name], self.nodes, source) for name in inputs]
        counts = {name: sum(name in cone for cone in cones) for name in self.nodes}
        shared = [self.nodes[name].path or name for name, count in counts.items() if count > 1]
        why = "with another branch between" if scattered else "which one of them takes beside something else"
        return f"{node.path}: not series-parallel: branches share {shared[-1]}, {why}"


def _scope(item: Any) -> list[str]:
    """The names of the containers that an item stands in: of a join, those that all inside and itself have in common."""
    scope = item.path.split(".")[:-1]
    if isinstance(item, _Join):
        for branch in item.branches:
            for inner in branch:
                other = _scope(inner)
                same = [a == b for a, b in zip(scope, other, strict=False)] + [False]
                scope = scope[: same.index(False)]
    return scope


def _assemble(items: Sequence[Any], depth: int) -> dict[str, Layer]:
    """Children by name for items that all stand `depth` containers deep, or deeper."""
    children: dict[str, Layer] = {}
    group: list[Any] = []
    for number, item in enumerate(items):
        following = items[number + 1] if number + 1 < len(items) else None
        scope = _scope(item)[depth:]
        if scope:                                               # gathered for as long as they are in one container
            group.append(item)
            if following is None or _scope(following)[depth : depth + 1] != scope[:1]:
                _add(children, scope[0], _sequential(_assemble(group, depth + 1)))
                group = []
        elif isinstance(item, _Leaf):
            _add(children, item.path.rpartition(".")[2], item.layer)
        else:
            _add(children, "_" + item.path.rpartition(".")[2], _parallel(item, depth))
    return children


def _parallel(item: _Join, depth: int) -> Layer:
    branches = item.branches
    if item.op is Residual and len(branches) == 2 and any(not branch for branch in branches) and any(branches):
        branches = [branch for branch in branches if branch]    # one branch alone is added to the identity
    children: dict[str, Layer] = {}
    for number, branch in enumerate(branches):
        named = _assemble(branch, depth)
        name = next(iter(named), "_")
        if len(named) == 1 and not name.startswith("_"):
            _add(children, name, named[name])
        else:
            children[f"_{number}"] = _sequential(named)
    return item.op(children)


def _add(children: dict[str, Layer], name: str, layer: Layer) -> None:
    """Under that name, or, where it is taken, within a hidden container, so that the path is the same."""
    hidden, number = name, 1
    while hidden in children:
        number += 1
        hidden = f"_{name.lstrip('_')}_{number}"
    children[hidden] = layer if hidden == name or name.startswith("_") else Sequential({name: layer})


def _sequential(children: dict[str, Layer]) -> Layer:
    (name, child), *others = children.items() if children else [("", None)]
    return child if child is not None and not others and name.startswith("_") else Sequential(children)
