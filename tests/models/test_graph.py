"""The series-parallel decomposition: nets drawn from containers and written down as graphs come back, and compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checking import values
from tests.nn.helpers import randomise
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.models.graph import Graph, Names, Node, clean, to_containers


def conv(into: int, out: int) -> nn.Layer:
    return nn.Conv2d(into, out, 1, rng=np.random.default_rng(0))


@st.composite
def layers(draw: Any, channels: int, out: int | None = None, depth: int = 0) -> tuple[nn.Layer, int]:
    """A random net that takes `channels` maps, and how many it makes (out, if given)."""
    steps: list[tuple[nn.Layer, int]] = []
    here = channels
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["conv", "relu", "concat", "residual", "sequential"] if depth < 3 else ["conv", "relu"]))
        if kind == "conv":
            step = conv(here, 2), 2
        elif kind == "relu":
            step = nn.ReLU(), here
        elif kind == "sequential":
            step = draw(layers(here, None, depth + 1))
        elif kind == "concat":
            parts = [draw(layers(here, None, depth + 1)) for _ in range(draw(st.integers(1, 3)))]
            step = nn.Concat({name: branch for name, (branch, _) in zip("abc", parts, strict=False)}), sum(c for _, c in parts)
        else:
            same = draw(st.integers(1, 3))
            wanted = here if same == 1 else draw(st.sampled_from([2, here]))
            branches = [draw(layers(here, wanted, depth + 1))[0] for _ in range(same)]
            step = nn.Residual(dict(zip("abc", branches, strict=False))), wanted
        steps.append(step)
        here = step[1]
    if out is not None and here != out:
        steps.append((conv(here, out), out))
        here = out
    return nn.Sequential(*(layer for layer, _ in steps)), here


def graph_of(model: nn.Layer, binary: bool = False) -> Graph:
    """A net of containers, written down. binary: sums of three as sums of two, joins of joins flat."""
    nodes: list[Node] = []

    def add(path: str, op: Any, *inputs: str) -> str:
        nodes.append(Node(f"v{len(nodes)}", path, op, inputs))
        return nodes[-1].name

    def write(layer: nn.Layer, value: str, path: str) -> str:
        below = f"{path}." if path else ""
        if isinstance(layer, nn.Sequential):
            for name, child in layer.named_children():
                value = write(child, value, below + name)
            return value
        if not isinstance(layer, (nn.Concat, nn.Residual)):
            return add(path, layer, value)
        ends = [write(child, value, below + name) for name, child in layer.named_children()]
        if isinstance(layer, nn.Residual) and len(ends) == 1:
            ends.append(value)
        while binary and len(ends) > 2:
            ends = [add(f"{below}join", type(layer), *ends[:2]), *ends[2:]]
        return add(f"{below}join", type(layer), *ends)

    end = write(model, "x", "")
    return Graph("x", nodes, end)


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The graph, node by node."""
    known = {graph.input: x}
    for node in graph.nodes:
        inputs = [known[name] for name in node.inputs]
        if isinstance(node.op, nn.Layer):
            known[node.name] = node.op(inputs[0])
        else:
            known[node.name] = np.concatenate(inputs, 1) if node.op is nn.Concat else sum(inputs[1:], inputs[0])
    return known[graph.output]


def leaves(model: nn.Layer) -> list[tuple[str, int]]:
    return sorted((path, id(layer)) for path, layer in model.layers() if not isinstance(layer, nn.Container))


@given(drawn=layers(2), binary=st.booleans())
def test_a_net_of_containers_comes_back(drawn: tuple[nn.Layer, int], binary: bool) -> None:
    model = randomise(drawn[0])
    graph = graph_of(model, binary)
    if not graph.nodes:
        return
    again = to_containers(graph)
    assert leaves(again) == leaves(model)                       # every layer once, at its path
    x = values(0, (2, 2, 3, 2))
    y = model(x)
    np.testing.assert_allclose(again(x), y, rtol=0, atol=1e-10 * max(1, np.abs(y).max()))
    np.testing.assert_array_equal(model(x), run(graph_of(model), x))
    assert leaves(to_containers(graph_of(again))) == leaves(model)


@st.composite
def graphs(draw: Any) -> Graph:
    """Any graph: every node takes what it likes of what there is. All values have as many channels as their cats make."""
    channels = {"x": 2}
    nodes: list[Node] = []
    for i in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["conv", "relu", "cat", "add"]))
        near = st.sampled_from(list(channels)[-3:])
        name, takes = f"v{i}", [draw(near) for _ in range(2 if kind in ("cat", "add") else 1)]
        if kind == "add":
            takes = [takes[0], *(t for t in takes[1:] if channels[t] == channels[takes[0]])]
        op: Any = {"conv": conv(channels[takes[0]], 2), "relu": nn.ReLU(), "cat": nn.Concat, "add": nn.Residual}[kind]
        nodes.append(Node(name, f"m{i % 2}.{kind}{i}", op, tuple(takes)))
        channels[name] = 2 if kind == "conv" else sum(channels[t] for t in takes) if kind == "cat" else channels[takes[0]]
    return Graph("x", nodes, nodes[-1].name)


@given(graph=graphs())
def test_any_graph_is_refused_or_computed_as_it_stands(graph: Graph) -> None:
    for number, node in enumerate(graph.nodes):
        if isinstance(node.op, nn.Layer):
            randomise(node.op, number)
    try:
        model = to_containers(graph)
    except ArgumentError as error:
        assert "not series-parallel" in str(error) and "\n" not in str(error)
        return
    x = values(0, (2, 2, 3, 2))
    y = run(graph, x)
    np.testing.assert_allclose(model(x), y, rtol=0, atol=1e-10 * max(1, np.abs(y).max()))
    found = [layer for _, layer in leaves(model)]
    assert len(found) == len(set(found)) and set(found) <= {id(node.op) for node in graph.nodes}


def written(**nodes: Any) -> Graph:
    """name=(op, inputs…) …; the last is the output."""
    made = [Node(name, f"net.{name}", op, tuple(inputs)) for name, (op, *inputs) in nodes.items()]
    return Graph("x", made, made[-1].name)


def relu() -> nn.Layer:
    return nn.ReLU()


def test_branches_that_meet_are_joined_first() -> None:
    model = to_containers(written(
        f=(relu(), "x"), a=(relu(), "f"), b=(relu(), "f"), c=(relu(), "x"), cat=(nn.Concat, "a", "b", "c")))  # fmt: skip
    assert [path for path, _ in model.layers()][:2] == ["", "net"]
    outer = model.net
    assert isinstance(outer, nn.Concat) and len(outer) == 2 and isinstance(outer[0][1], nn.Concat) and outer["c"]
    with pytest.raises(ArgumentError, match=r"^net.cat: not series-parallel: branches share net.f, with another branch between"):
        to_containers(written(
            f=(relu(), "x"), a=(relu(), "f"), b=(relu(), "f"), c=(relu(), "x"), cat=(nn.Concat, "a", "c", "b")))  # fmt: skip
    model = to_containers(written(                              # a sum has no order
        f=(relu(), "x"), a=(relu(), "f"), b=(relu(), "f"), c=(relu(), "x"), sum=(nn.Residual, "a", "c", "b")))  # fmt: skip
    assert isinstance(model.net, nn.Residual) and len(model.net) == 2


@pytest.mark.parametrize("op", [nn.Concat, nn.Residual])
def test_a_join_of_joins_is_joined_in_another_way_where_that_helps(op: type) -> None:
    """op(op(a, b(f)), c(f)) is op(a, op(b, c)(f))."""
    graph = written(
        f=(nn.Tanh(), "x"), a=(nn.Sigmoid(), "x"), b=(relu(), "f"), ab=(op, "a", "b"), c=(nn.Sigmoid(), "f"), abc=(op, "ab", "c"),
    )  # fmt: skip
    x = values(0, (2, 2, 3, 2))
    np.testing.assert_allclose(to_containers(graph)(x), run(graph, x), rtol=0, atol=1e-12)


def test_a_bridge_is_refused_by_name() -> None:
    with pytest.raises(ArgumentError, match=r"^net.out: not series-parallel: branches share net.a"):
        to_containers(written(
            a=(relu(), "x"), b=(relu(), "x"), c=(relu(), "a"), mid=(nn.Residual, "a", "b"), d=(relu(), "mid"),
            out=(nn.Concat, "c", "d")))  # fmt: skip


def test_what_is_made_afresh_from_the_same_is_taken_from_there() -> None:
    y, z = conv(2, 2), conv(4, 2)
    model = to_containers(written(
        y=(y, "x"), xy=(nn.Concat, "x", "y"), z=(z, "xy"), xyz=(nn.Concat, "x", "y", "z"), r=(relu(), "xyz")))  # fmt: skip
    assert [layer for _, layer in leaves(model)] and isinstance(model.net[0], nn.Concat) and isinstance(model.net[1], nn.Concat)
    assert model.forward(np.ones((1, 2, 1, 1), np.float32))[0].shape == (1, 6, 1, 1)


def test_what_leads_nowhere_is_left_out_and_what_comes_from_nowhere_is_an_error() -> None:
    model = to_containers(written(dead=(relu(), "x"), a=(relu(), "x")))
    assert [path for path, _ in leaves(model)] == ["net.a"]
    with pytest.raises(ArgumentError, match=r"net.a: takes b"):
        to_containers(written(a=(relu(), "b"), b=(relu(), "x")))
    with pytest.raises(ArgumentError, match="output q is made by nothing"):
        to_containers(Graph("x", [], "q"))
    assert to_containers(Graph("x", [], "x"))(np.ones((1, 1))).shape == (1, 1)


def test_a_container_named_twice_and_a_layer_named_as_a_container() -> None:
    nodes = [("a", "m.one"), ("b", "other"), ("c", "m.two"), ("d", "other.in")]
    before, made = "x", []
    for name, path in nodes:
        made.append(Node(name, path, nn.ReLU(), (before,)))
        before = name
    model = to_containers(Graph("x", made, before))
    assert [path for path, _ in leaves(model)] == ["m.one", "m.two", "other", "other.in"]


def test_names() -> None:
    names = Names(["relu", "m.conv"])
    assert [names("relu"), names("relu", own=True), names("relu", own=True), names("relu")] == ["relu_1", "relu", "relu_2",
                                                                                                "relu_3"]
    assert names("_m._conv") == "m.conv_1" and clean("__a.._b.c") == "a.b.c" and clean("a.__") == "a.layer"
