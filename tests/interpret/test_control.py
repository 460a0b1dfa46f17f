"""The control: what is redrawn, what stays, and that the model given never changes."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.checking import Backend, values
from tests.nn.helpers import place, randomise, snapshot
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret.control import cascade, randomised, untrained


def net() -> nn.Sequential:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), conv2=shared, relu2=nn.ReLU(), again=shared,
        block=nn.Concat(a=nn.Conv2d(4, 2, 1), b=nn.Sequential(deep=nn.Conv2d(4, 2, 3, padding=1, bias=False), relu=nn.ReLU())),
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4, 3),
    )


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


WEIGHTS = {
    "conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "conv2.weight", "conv2.bias",
    "again.weight", "again.bias", "block.a.weight", "block.a.bias", "block.b.deep.weight", "fc.weight", "fc.bias",
}  # fmt: skip


@pytest.mark.parametrize(("down_to", "expected"), [
    (None, WEIGHTS),
    ("", WEIGHTS),
    ("fc", {"fc.weight", "fc.bias"}),
    ("pool", {"fc.weight", "fc.bias"}),
    ("block.b", {"fc.weight", "fc.bias", "block.b.deep.weight"}),
    ("block.b.deep", {"fc.weight", "fc.bias", "block.b.deep.weight"}),
    ("block", {"fc.weight", "fc.bias", "block.b.deep.weight", "block.a.weight", "block.a.bias"}),
    ("again", WEIGHTS - {n for n in WEIGHTS if n.startswith(("conv1", "bn1"))}),    # conv2 is the same layer
    ("bn1", WEIGHTS - {"conv1.weight", "conv1.bias"}),
])  # fmt: skip
def test_from_the_top_down_to_a_layer(down_to: str | None, expected: set[str]) -> None:
    model = randomise(net())
    before = snapshot(model, Backend("numpy", np))
    after = snapshot(randomised(model, np.random.default_rng(0), down_to), Backend("numpy", np))
    assert changed(before, after) == expected
    assert changed(before, snapshot(model, Backend("numpy", np))) == set()


@pytest.mark.parametrize("down_to", [None, "fc", "block.b", "block", "again", "bn1"])
def test_sharing_keeps_the_models_own_layers_and_draws_the_same(down_to: str | None) -> None:
    model = randomise(net())
    before = snapshot(model, Backend("numpy", np))
    copied, shared = (randomised(model, np.random.default_rng(0), down_to, share) for share in (False, True))
    for name, value in snapshot(copied, Backend("numpy", np)).items():
        np.testing.assert_array_equal(shared.state_dict()[name], value, err_msg=name)
    gone = changed(before, snapshot(copied, Backend("numpy", np)))
    for path, layer in model.layers():
        redrawn = any(name.startswith(f"{path}." if path else "") for name in gone)
        assert (shared.layer(path) is layer) == (not redrawn), path
        assert copied.layer(path) is not layer
    assert shared.conv2 is shared.again                         # type: ignore[attr-defined]
    assert changed(before, snapshot(model, Backend("numpy", np))) == set()


def test_scale_type_and_fresh_statistics(backend: Backend) -> None:
    model = nn.Sequential(conv=nn.Conv2d(8, 64, 5), bn=nn.BatchNorm2d(64), dead=nn.Conv2d(64, 64, 3))
    model.conv.weight[...] = 7 + values(1, model.conv.weight.shape)
    model.bn.running_var[...] = 9
    model.dead.weight[...] = 0
    model = place(model, backend)
    fresh = randomised(model, np.random.default_rng(0))
    state = snapshot(fresh, backend)
    assert state["conv.weight"].dtype == np.float32
    assert abs(state["conv.weight"].mean()) < 0.3
    assert state["conv.weight"].std() == pytest.approx(np.sqrt(50), rel=0.03)       # √(7² + 1²)
    assert state["dead.weight"].std() == pytest.approx(np.sqrt(2 / 576), rel=0.03)
    assert (state["conv.bias"] == 0).all()
    for name, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
        assert (state[f"bn.{name}"] == value).all(), name


def test_a_vector_that_is_neither_bias_nor_norm_keeps_its_statistics() -> None:
    class Scale(nn.Layer):
        parameter_names = ("scale",)

        def __init__(self) -> None:
            self.scale = np.linspace(3, 5, 4000)

    model = Scale()
    fresh = randomised(model, np.random.default_rng(0)).scale
    assert not np.array_equal(fresh, model.scale)
    assert (fresh.mean(), fresh.std()) == (pytest.approx(4, rel=0.02), pytest.approx(model.scale.std(), rel=0.05))


def test_same_generator_same_copy() -> None:
    model = randomise(net())
    a, b, c = (randomised(model, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a.fc.weight, b.fc.weight)
    assert not np.array_equal(a.fc.weight, c.fc.weight)


def test_cascade_adds_a_layer_at_a_time() -> None:
    model = randomise(net())
    before = snapshot(model, Backend("numpy", np))
    copies = cascade(model, np.random.default_rng(0))
    assert [path for path, _ in copies] == ["fc", "block.b.deep", "block.a", "again", "bn1", "conv1"]
    last = before
    for path, fresh in copies:
        state = snapshot(fresh, Backend("numpy", np))
        names = {"again": ("again", "conv2")}.get(path, (path,))
        assert changed(last, state) == {n for n in WEIGHTS if n.rpartition(".")[0] in names}, path
        assert fresh.conv2 is fresh.again
        last = state
    assert changed(before, snapshot(model, Backend("numpy", np))) == set()


def test_unknown_layer_is_told_with_the_nearest() -> None:
    with pytest.raises(ArgumentError, match=r"no layer 'conv3'; nearest: conv\d, conv\d"):
        randomised(net(), np.random.default_rng(0), "conv3")
    with pytest.raises(ArgumentError, match="'block' holds no layer"):
        randomised(nn.Sequential(block=nn.Sequential(), fc=nn.Linear(2, 2)), np.random.default_rng(0), "block")


def test_untrained_models_are_known() -> None:
    assert untrained(net()) == "its BatchNorms have never seen a batch"
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    assert untrained(plain) == "its weights are spread as freshly drawn ones"
    assert untrained(randomised(plain, np.random.default_rng(0))) is not None
    trained = copy.deepcopy(plain)
    trained[0].weight *= 1.3                                    # type: ignore[union-attr]
    assert untrained(trained) is None
    seen = net()
    seen.forward(values(0, (2, 3, 8, 8)).astype(np.float32), train=True)
    assert untrained(seen) is None
    for _, layer in seen.layers():                              # a file from before 2018 does not count batches
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked[...] = 0
    assert untrained(seen) is None
    assert untrained(nn.Sequential(nn.ReLU())) is None


def test_statistics_without_gain_and_shift_are_redrawn_in_the_copy_alone() -> None:
    model = randomise(nn.Sequential(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4, affine=False), relu=nn.ReLU()))
    model.norm.running_mean[...] = 3                            # type: ignore[attr-defined]
    for share in (False, True):
        other = randomised(model, np.random.default_rng(0), share=share)
        np.testing.assert_array_equal(other.norm.running_mean, 0)               # type: ignore[attr-defined]
        np.testing.assert_array_equal(model.norm.running_mean, 3)               # type: ignore[attr-defined]
    assert [path for path, _ in cascade(model, np.random.default_rng(0))] == ["norm", "conv"]
