"""Containers against the same graph in PyTorch; names, shared layers, walks, state dicts, threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from tests.checking import Backend, close, values
from tests.nn.helpers import attributes, compare, place, randomise, snapshot
from tinynet import nn
from tinynet.errors import ArgumentError, DtypeError, ShapeError, TinynetError


def fire() -> nn.Sequential:
    """A net with every container, one ReLU used four times, one convolution used twice, and names hidden and visible."""
    relu, twice = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(
        stem=nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), relu, nn.MaxPool2d(3, 2, ceil_mode=True)),
        squeeze=nn.Conv2d(4, 3, 1),
        _expand=nn.Concat(
            _1=nn.Sequential(expand1x1=nn.Conv2d(3, 2, 1), relu1=relu),
            _3=nn.Sequential(expand3x3=nn.Conv2d(3, 2, 3, padding=1), relu3=relu),
        ),
        res=nn.Residual(nn.Sequential(twice, nn.BatchNorm2d(4), relu, twice)),
        down=nn.Residual(
            _body=nn.Sequential(conv=nn.Conv2d(4, 5, 3, stride=2, padding=1)), downsample=nn.Conv2d(4, 5, 1, stride=2)
        ),
        pool=nn.AdaptiveAvgPool2d(2),
        flat=nn.Flatten(),
        head=nn.Linear(20, 3),
    )


class TorchFire(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        relu, twice = torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3, padding=1)
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), relu, torch.nn.MaxPool2d(3, 2, ceil_mode=True))
        self.squeeze = torch.nn.Conv2d(4, 3, 1)
        self.expand1x1, self.expand3x3 = torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(3, 2, 3, padding=1)
        self.res = torch.nn.Sequential(torch.nn.Sequential(twice, torch.nn.BatchNorm2d(4), relu, twice))
        self.down = torch.nn.Module()
        self.down.conv = torch.nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.down.downsample = torch.nn.Conv2d(4, 5, 1, stride=2)
        self.head = torch.nn.Linear(20, 3)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(self.stem(x))
        x = torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], 1)
        x = x + self.res(x)
        x = self.down.conv(x) + self.down.downsample(x)
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.mark.parametrize("train", [True, False])
def test_a_net_of_all_containers_with_shared_layers(backend: Backend, train: bool) -> None:
    compare(backend, fire, TorchFire(), (2, 2, 9, 8), train=train)


def test_names_are_those_of_the_paths() -> None:
    model = fire()
    names = list(model.named_parameters())
    assert names == list(dict(TorchFire().named_parameters()))
    assert "expand1x1.weight" in names and "down.conv.weight" in names and "down.downsample.bias" in names
    assert "res.0.3.weight" not in names  # the convolution used twice is named once, under its first path
    assert "res.0.3.weight" in model.state_dict()
    assert model.state_dict()["res.0.3.weight"] is model.state_dict()["res.0.0.weight"]
    assert list(model.named_buffers()) == [f"res.0.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")]
    assert model.layer("down.downsample") is model["down"]["downsample"] is model.down.downsample
    with pytest.raises(TinynetError, match=r"expand1x2.*expand1x1"):
        model.layer("expand1x2")


def test_the_watch_sees_every_named_layer_once_a_pass_and_changes_nothing(backend: Backend) -> None:
    model = place(randomise(fire()), backend)
    x = backend.array(values(0, (2, 2, 9, 8)))
    seen: dict[str, Any] = {}

    def watch(path: str, layer: nn.Layer, y: Any) -> None:
        assert path not in seen
        assert layer is model.layer(path)
        seen[path] = backend.host(y).copy()

    y, _ = model.forward(x, watch=watch)
    named = [path for path, layer in model.layers() if path]  # "down" twice: the container and its hidden body
    assert set(seen) == set(named)
    np.testing.assert_array_equal(seen["head"], backend.host(y))
    np.testing.assert_array_equal(backend.host(model.forward(x)[0]), backend.host(y))
    reference, module = {}, TorchFire().double().eval()
    module.load_state_dict({n: torch.from_numpy(v) for n, v in snapshot(model, backend).items()})
    for path in ("stem", "squeeze", "expand3x3", "down.downsample"):
        module.get_submodule(path).register_forward_hook(
            lambda m, i, o, path=path: reference.__setitem__(path, o.detach().numpy())
        )
    module(torch.from_numpy(backend.host(x)))
    for path, want in reference.items():
        close(seen[path], want, "float64", path)


def test_a_walk_back_that_starts_inside(backend: Backend) -> None:
    # Signal None arrives from the top; the seed puts one in at expand3x3. PyTorch: the gradient of that output's sum with dy.
    model = place(randomise(fire()), backend)
    x = values(0, (2, 2, 9, 8))
    outputs: dict[str, Any] = {}
    _, saved = model.forward(backend.array(x), watch=lambda path, layer, y: outputs.__setitem__(path, y))
    dy = values(1, tuple(outputs["expand3x3"].shape))
    touched = []

    def step(path: str, layer: nn.Layer, kept: Any, signal: Any) -> Any:
        touched.append(path)
        return layer.input_gradient(kept, signal)

    dx = model.reverse(saved, None, step, lambda path, layer, s: backend.array(dy) if path == "expand3x3" else s)
    assert touched == ["expand3x3", "squeeze", "stem.2", "stem.1", "stem.0"]
    module = TorchFire().double().eval()
    module.load_state_dict({n: torch.from_numpy(v) for n, v in snapshot(model, backend).items()})
    tensor = torch.tensor(x, requires_grad=True)
    module.expand3x3(module.squeeze(module.stem(tensor))).backward(torch.from_numpy(dy))
    close(backend.host(dx), tensor.grad.numpy(), "float64")
    assert model.reverse(saved, None, step) is None


@pytest.mark.parametrize("container", [nn.Concat, nn.Residual])
def test_nothing_arriving_at_a_parallel_container_leaves_as_nothing(container: type) -> None:
    model = container(nn.ReLU(), nn.ReLU())
    _, saved = model.forward(np.ones((1, 2, 3)))
    assert model.reverse(saved, None, lambda *a: pytest.fail("a layer was reached")) is None


def test_one_layer_in_many_threads_at_once(backend: Backend) -> None:
    # Were anything cached on a layer, the threads would read each other's.
    model = place(randomise(fire()), backend)
    inputs = [backend.array(values(i, (2, 2, 9, 8))) for i in range(4)]
    signals = [backend.array(values(10 + i, (2, 3))) for i in range(4)]
    expected = [nn.backward(model, model.forward(x)[1], dy) for x, dy in zip(inputs, signals, strict=True)]
    start, problems = threading.Barrier(4), []

    def work(i: int) -> None:
        try:
            for _ in range(5):
                start.wait()
                _, saved = model.forward(inputs[i])
                start.wait()
                dx, gradients = nn.backward(model, saved, signals[i])
                np.testing.assert_array_equal(backend.host(dx), backend.host(expected[i][0]))
                for name, gradient in gradients.items():
                    np.testing.assert_array_equal(backend.host(gradient), backend.host(expected[i][1][name]))
        except Exception as error:
            problems.append(error)
            start.abort()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]


def test_records_of_two_passes_do_not_disturb_each_other(backend: Backend) -> None:
    model = place(randomise(fire()), backend)
    a, b, dy = (backend.array(values(i, s)) for i, s in enumerate([(2, 2, 9, 8), (2, 2, 9, 8), (2, 3)]))
    first = model.forward(a)[1]
    alone = nn.backward(model, first, dy)
    model.forward(b)
    again = nn.backward(model, first, dy)
    np.testing.assert_array_equal(backend.host(alone[0]), backend.host(again[0]))
    for name in alone[1]:
        np.testing.assert_array_equal(backend.host(alone[1][name]), backend.host(again[1][name]))


def test_inference_keeps_nothing_and_changes_nothing(backend: Backend) -> None:
    model = place(randomise(fire()), backend)
    x = backend.array(values(0, (2, 2, 9, 8)))
    before, held = snapshot(model, backend), attributes(model)
    close(backend.host(model(x)), backend.host(model.forward(x)[0]), "float64")     # the normalisation is folded
    assert attributes(model) == held
    for name, value in snapshot(model, backend).items():
        np.testing.assert_array_equal(value, before[name])


def test_load_state_dict_copies_into_the_live_arrays(backend: Backend) -> None:
    model, other = place(randomise(fire(), 1), backend), randomise(fire(), 2)
    live = dict(model.state_dict())
    state = {name: np.asarray(x) for name, x in other.state_dict().items()}
    model.load_state_dict(state)
    for name, x in model.state_dict().items():
        assert x is live[name]
        np.testing.assert_array_equal(backend.host(x), state[name])
        assert not backend.overlap(x, backend.xp.asarray(state[name])) or backend.name != "numpy"
    place_again = {name: backend.xp.asarray(x) for name, x in state.items()}
    model.load_state_dict(place_again)
    single = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in state.items()}
    model.load_state_dict(single)  # a checkpoint of another precision is cast to the model's
    assert all(str(x.dtype) in ("float64", "int64") for x in model.state_dict().values())


def test_load_state_dict_is_strict_and_all_or_nothing(backend: Backend) -> None:
    model = place(randomise(fire()), backend)
    before = snapshot(model, backend)
    good = {name: x + 1 for name, x in before.items()}
    missing = {name: x for name, x in good.items() if name != "head.bias"}
    unexpected = good | {"head.scale": np.zeros(3)}
    wrong = good | {"head.weight": np.zeros((3, 21))}
    cases = [(missing, "missing head.bias"), (unexpected, "unexpected head.scale"), (wrong, r"head.weight.*\(3, 20\)")]
    for state, words in cases:
        with pytest.raises(ShapeError, match=words) as caught:
            model.load_state_dict(state)
        assert "\n" not in str(caught.value)
        for name, value in snapshot(model, backend).items():
            np.testing.assert_array_equal(value, before[name], err_msg="half a state was loaded")
    with pytest.raises(TinynetError):
        model.load_state_dict(good | {"head.weight": [[1.0]]})
    with pytest.raises(ShapeError):
        model.load_state_dict(wrong, strict=False)
    model.load_state_dict(missing | {"head.scale": np.zeros(3)}, strict=False)
    after = snapshot(model, backend)
    np.testing.assert_array_equal(after["head.bias"], before["head.bias"])
    np.testing.assert_array_equal(after["head.weight"], good["head.weight"])


def test_a_state_may_lack_the_count_of_batches_as_in_pytorch() -> None:
    model, module = nn.Sequential(nn.BatchNorm2d(3)), torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    state = {name: np.full(3, 2, np.float32) for name in ("0.weight", "0.bias", "0.running_mean", "0.running_var")}
    model[0].num_batches_tracked[...] = 7
    model.load_state_dict(state)
    module.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()}, strict=True)
    assert (model[0].running_var == 2).all() and model[0].num_batches_tracked == 7
    with pytest.raises(ShapeError, match=r"missing 0\.running_var"):
        model.load_state_dict({name: x for name, x in state.items() if name != "0.running_var"})


def test_to_changes_the_dtype_of_everything_but_the_counters() -> None:
    model = fire()
    assert model.to(dtype=np.float64) is model
    assert {str(x.dtype) for n, x in model.state_dict().items() if "tracked" not in n} == {"float64"}
    assert model.state_dict()["res.0.1.num_batches_tracked"].dtype == np.int64
    assert model.res[0][0] is model.res[0][3]
    for dtype in (np.float16, np.int64):
        with pytest.raises(TinynetError):
            model.to(dtype=dtype)
    with pytest.raises(TinynetError, match="device"):
        model.to("gpu")


def test_errors_name_the_layer(backend: Backend) -> None:
    model = place(randomise(fire()), backend)
    for call in (model, lambda x: model.forward(x)):
        with pytest.raises(ShapeError, match=r"^stem\.0: conv2d: ") as caught:
            call(backend.array(np.zeros((2, 3, 9, 8))))
        assert "\n" not in str(caught.value)
    _, saved = model.forward(backend.array(np.zeros((2, 2, 9, 8))))
    with pytest.raises(ShapeError, match=r"^head: "):
        nn.backward(model, saved, backend.array(np.zeros((2, 4))))
    parallel = nn.Sequential(nn.Concat(nn.Identity(), nn.MaxPool2d(2)))
    with pytest.raises(ShapeError, match=r"^0: Concat.*\(1, 1, 4, 4\).*\(1, 1, 2, 2\)"):
        parallel(np.zeros((1, 1, 4, 4)))
    with pytest.raises(ShapeError, match="Residual"):
        nn.Sequential(nn.Residual(nn.Conv2d(1, 2, 1)))(np.zeros((1, 1, 4, 4), np.float32))


@pytest.mark.parametrize("layers", [
    {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU()},
    {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(5), "relu": nn.ReLU()},
    {"pool": nn.MaxPool2d(2), "norm": nn.BatchNorm2d(5), "relu": nn.ReLU()},
], ids=["one image", "channels", "behind a pooling"])  # fmt: skip
def test_of_layers_in_one_the_one_that_refuses_is_named(layers: dict[str, nn.Layer]) -> None:
    model = nn.Sequential(stem=nn.Sequential(layers))
    x = np.zeros((3, 8, 8) if model["stem"]["norm"].num_features == 4 else (2, 3, 8, 8), np.float32)
    said = []
    for call in (model, lambda x: model.forward(x)[0], lambda x: model(x, watch=lambda *seen: None)):
        with pytest.raises(ShapeError, match=r"^stem\.norm: BatchNorm2d: expected ") as caught:
            call(x)
        said.append(str(caught.value))
        assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert len(set(said)) == 1


def test_a_walk_back_needs_the_record() -> None:
    model = nn.Sequential(fc=nn.Linear(2, 2))
    x = np.ones((1, 2), np.float32)
    for record in (model(x), model.forward(x), None):
        with pytest.raises(ArgumentError, match=r"expected the record that forward gives .*; y, saved = model\.forward\(x"):
            nn.backward(model, record, x)


def test_a_sum_of_integers_which_would_wrap_is_refused() -> None:
    block = nn.Residual(nn.Identity())
    with pytest.raises(DtypeError, match=r"Residual: .*float32 or float64, got uint8"):
        block(np.full((1, 1, 2, 2), 200, np.uint8))
    with pytest.raises(DtypeError, match="Residual: expected one dtype"):
        block._sum(np.ones((1, 2)), [np.ones((1, 2), np.float32)])


def test_containers_refuse_what_is_no_layer_and_names_that_collide() -> None:
    for build in (
        lambda: nn.Sequential(lambda x: x),
        lambda: nn.Sequential(**{"a.b": nn.ReLU()}),
        lambda: nn.Concat(_a=nn.Sequential(conv=nn.Identity()), _b=nn.Sequential(conv=nn.Identity())),
    ):
        with pytest.raises(TinynetError):
            build()
    with pytest.raises(AttributeError, match="nothing"):
        _ = fire().nothing


def test_dropout_in_a_container_draws_from_the_generator_that_is_passed(backend: Backend) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.5))
    x = backend.array(np.abs(values(0, (20, 5))))
    a, b = (backend.host(model.forward(x, train=True, rng=np.random.default_rng(3))[0]) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    c = backend.host(model.forward(x, train=True, rng=np.random.default_rng(4))[0])
    assert (a != c).any()
    rng = np.random.default_rng(3)
    assert len({backend.host(model.forward(x, train=True, rng=rng)[0]).tobytes() for _ in range(3)}) == 3


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_inference_fuses_a_convolution_with_its_relu(kernel: int) -> None:
    """The same numbers as one by one, to the last bit but for the sign of a zero; a watch still sees both layers."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(conv=nn.Conv2d(3, 4, kernel, padding=1, rng=rng), relu=nn.ReLU(), last=nn.Conv2d(4, 2, 1, rng=rng))
    x = rng.standard_normal((2, 3, 7, 6)).astype(np.float32)
    seen: list[str] = []
    one_by_one = net(x, watch=lambda path, layer, y: seen.append(path))
    assert seen == ["conv", "relu", "last"]
    np.testing.assert_array_equal(net(x), one_by_one)
    fused = net["conv"].fused([net["relu"], net["last"]])
    assert fused is not None and fused.others == 1 and (np.asarray(fused.call(x)) >= 0).all()
    assert net["conv"].fused([nn.LeakyReLU()]) is None and nn.ConvTranspose2d(3, 3, 2).fused([nn.ReLU()]) is None
