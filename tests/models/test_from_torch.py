"""Live PyTorch models against themselves: outputs, every map, gradients, projections; and what is refused, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as T

import tinynet
from tests.checking import close, values
from tests.interpret.nets import DeconvReLU, walk_in_torch
from tests.models.torch_nets import NETS, VGG, Functions, GoogLeNet, LeNet, ResNet, Shared, drawn
from tests.models.twins import TWINS
from tests.nn.test_pytorch_modules import MODULES as SAMPLED
from tinynet import nn
from tinynet.errors import ArgumentError
from tinynet.interpret import deconvnet
from tinynet.models import create, from_torch


@pytest.mark.parametrize("name", NETS)
def test_outputs_and_every_map(name: str) -> None:
    make, shape = NETS[name]
    module, x = drawn(make), values(1, shape)
    theirs: dict[str, np.ndarray] = {}

    def keep(path: str) -> Any:
        return lambda _m, _i, y: (theirs.setdefault(path.lstrip("_"), y.detach().numpy().copy()), None)[1]

    for path, m in module.named_modules():
        m.register_forward_hook(keep(path))
    expected = module(torch.from_numpy(x)).detach().numpy()
    for m in module.modules():
        m._forward_hooks.clear()
    model = from_torch(module)
    ours: dict[str, np.ndarray] = {}
    y, _ = model.forward(x, watch=lambda path, layer, y: ours.setdefault(path, y.copy()))
    close(y, expected, "float64")
    np.testing.assert_allclose(model(x), y, rtol=0, atol=1e-12)
    both = [path for path in ours if path in theirs]
    for path in both:
        close(ours[path], theirs[path], "float64", path)
    reached = {path for path in theirs if path} - {"aux1"}
    assert reached == set(both) or name == "shared", reached - set(both)


@pytest.mark.parametrize("name", NETS)
def test_names_of_parameters_are_those_of_the_state_dict(name: str) -> None:
    module = drawn(NETS[name][0])
    model = from_torch(module)
    theirs = {key.lstrip("_"): value for key, value in module.named_parameters() if not key.startswith("aux1")}
    ours = model.named_parameters()
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value.detach().numpy())
        assert not np.shares_memory(ours[key], value.detach().numpy())
    buffers = {key.lstrip("_"): value for key, value in module.named_buffers()}
    assert {key: str(x.dtype) for key, x in model.named_buffers().items()} == {
        key: str(x.numpy().dtype) for key, x in buffers.items()
    }


TRAINED = ["resnet", "resnet of bottlenecks", "pre-activation", "pre-activation in place", "option a", "shared", "functions"]


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_autograds(name: str) -> None:
    """Batch statistics, running ones, and the gradients of layers that are used twice (these nets have no dropout)."""
    make, shape = NETS[name]
    module, x = drawn(make), values(1, shape)
    model = from_torch(module)
    module.train()
    tensor = torch.tensor(x, requires_grad=True)
    expected = module(tensor)
    dy = values(2, tuple(expected.shape))
    expected.backward(torch.from_numpy(dy))
    y, saved = model.forward(x, train=True)
    close(y, expected.detach().numpy(), "float64")
    dx, gradients = nn.backward(model, saved, dy)
    close(dx, tensor.grad.numpy(), "float64")
    theirs = {key.lstrip("_"): p.grad.numpy() for key, p in module.named_parameters()}
    assert set(gradients) == set(theirs)
    for key, want in theirs.items():
        close(gradients[key], want, "float64", key)
    for key, buffer in module.named_buffers():
        close(model.named_buffers()[key], buffer.numpy(), str(buffer.numpy().dtype), key)


@pytest.mark.parametrize("name", [name for name in TWINS if not name.startswith(("vgg1", "alex", "zf")) or name == "vgg11_bn"])
def test_the_zoo_comes_out_as_it_is_here(name: str) -> None:
    """The architectures, written in PyTorch, become those of the registry: every layer at its path, with its options."""
    found = []
    for model in (from_torch(TWINS[name]()), create(name, rng=nn.init.no_draws)):
        inside = [(path, layer) for path, layer in model.layers() if not isinstance(layer, nn.Container)]
        found.append((
            sorted((path, type(layer).__name__, repr(layer) if layer.parameter_names else "") for path, layer in inside),
            {path: x.shape for path, x in model.state_dict().items()},
        ))
    assert found[0] == found[1]


def _rectified(module: T.Module) -> T.Module:
    for name, child in module.named_children():
        if isinstance(child, T.ReLU):
            setattr(module, name, DeconvReLU())
        _rectified(child)
    return module


@pytest.mark.parametrize(("name", "layer"), [
    ("squeezenet", "features.3.expand3x3"), ("squeezenet", "features.6"), ("resnet", "layer1.2.downsample.1"),
    ("resnet", "layer1.2"), ("resnet with functions", "layer1.1.conv2"), ("resnet of bottlenecks", "layer1.1.conv2"),
    ("googlenet", "inception3a.branch2.1.conv"), ("googlenet", "inception3b"), ("densenet", "features.denseblock1.denselayer3"),
    ("densenet", "features.transition1.0"), ("vgg", "features.7"),
])  # fmt: skip
def test_a_projection_is_autograds_with_the_rule_at_every_relu(name: str, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape = NETS[name]
    module, x = drawn(make), values(1, shape)
    picture = deconvnet(from_torch(module)).attribute(x, layer=layer, unit=(1, "max"))
    monkeypatch.setattr(F, "relu", lambda y, inplace=False: DeconvReLU()(y))
    for m in module.modules():
        if getattr(m, "relu", None) is not None and not isinstance(m.relu, T.Module):
            m.relu = F.relu

    def seed(y: Tensor) -> Tensor:
        mask = torch.zeros_like(y)
        for n in range(len(y)):
            mask[n, 1].view(-1)[y[n, 1].argmax()] = 1
        return mask * y

    expected = walk_in_torch(_rectified(module), x, layer, seed)
    close(picture, expected, "float64", layer)
    assert np.abs(expected).max() > 1e-6


@pytest.mark.parametrize("name", [name for name in SAMPLED if not name.endswith("Loss")])
def test_every_option_of_every_module_is_kept_or_refused(name: str) -> None:
    """PyTorch's own samples of constructor arguments."""
    info, kept = SAMPLED[name], 0
    torch.manual_seed(0)
    for sample in info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=False):
        if sample.forward_input is None or len(sample.forward_input.args) != 1 or sample.forward_input.kwargs:
            continue
        options = sample.constructor_input.kwargs
        module = info.module_cls(*sample.constructor_input.args, **options).double().eval()
        try:
            layer = from_torch(module)
        except ArgumentError as error:
            mode = options.get("padding_mode", "zeros")
            assert mode != "zeros" or options.get("return_indices") or getattr(module, "dim", 0) is None, str(error)
            continue
        kept += 1
        assert type(layer).__name__ == name
        x = sample.forward_input.args[0].detach()
        close(layer(x.numpy()), module(x.clone()).detach().numpy(), "float64", f"{sample.constructor_input}")
    assert kept or name.startswith("MaxUnpool")


@pytest.mark.parametrize(("module", "shape"), [
    (T.ZeroPad2d((1, 2, 0, 1)), (1, 2, 3, 4)), (T.ConstantPad1d((2, 1), 3.5), (1, 2, 4)), (T.ReflectionPad2d(2), (1, 2, 3, 4)),
    (T.ReplicationPad3d(1), (1, 2, 3, 4, 2)), (T.CircularPad2d((1, 0, 2, 1)), (1, 2, 3, 4)), (T.Dropout(0.3), (2, 3)),
    (T.Flatten(2, 3), (2, 3, 4, 5)), (T.Flatten(0), (2, 3)), (T.Identity(), (2, 3)), (T.Upsample(scale_factor=2), (1, 2, 3, 4)),
    (T.Upsample((5, 7), mode="bilinear", align_corners=True), (1, 2, 3, 4)),
    (T.UpsamplingBilinear2d(scale_factor=3), (1, 2, 3, 4)),
    (T.UpsamplingNearest2d(5), (1, 2, 3, 4)), (T.AdaptiveAvgPool2d((None, 2)), (1, 2, 3, 4)), (T.LeakyReLU(0.3, True), (2, 3)),
    (T.Upsample(scale_factor=1.7, mode="nearest-exact", recompute_scale_factor=True), (1, 2, 3, 4)), (T.Softmax(-1), (2, 3)),
    (T.BatchNorm2d(2, momentum=None, affine=False, track_running_stats=False), (3, 2, 3, 4)), (T.LogSoftmax(1), (2, 3, 2)),
    (T.ReLU6(True), (5, 8)), (T.Hardtanh(0, 6), (5, 8)),
])  # fmt: skip
def test_modules_that_pytorchs_samples_do_not_have(module: T.Module, shape: tuple[int, ...]) -> None:
    x = 5 * values(3, shape)
    layer = from_torch(module.double().eval())
    assert not isinstance(layer, nn.Container)
    close(layer(x), module(torch.from_numpy(x.copy())).numpy(), "float64")


class Calls(T.Module):
    """One call on the maps of a convolution."""

    def __init__(self, call: Callable[[Tensor], Any], layer: T.Module | None = None) -> None:
        super().__init__()
        self.conv, self.call = layer or T.Conv2d(2, 4, 3), call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.conv(x))


REFUSED: list[tuple[Any, str]] = [
    (lambda x: F.gelu(x), r"gelu: torch.nn.functional.gelu"),
    (lambda x: x * 2, r"mul: operator.mul"),
    (lambda x: x + 1, r"add: operator.add of something that is no tensor"),
    (lambda x: torch.add(x, x, alpha=2), r"with alpha=2"),
    (lambda x: torch.cat([x, x], 2), r"cat: torch.cat along axis 2; expected axis 1"),
    (lambda x: F.softmax(x.flatten(1), dim=None), r"softmax: torch.nn.functional.softmax without dim"),
    (lambda x: F.dropout(x, 0.5), r"dropout: .*whatever the model's mode"),
    (lambda x: x.view(-1, 16), r"view: Tensor.view to \(-1, 16\); expected \(x.size\(0\), -1\), or write flatten"),
    (lambda x: x.mean(1), r"mean: Tensor.mean over the axes 1"),
    (lambda x: F.avg_pool2d(x, x.size(2)), r"avg_pool2d: .*an argument that depends on the input"),
    (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), r'mode="bicubic"'),
    (lambda x: F.max_pool2d(x, 2, return_indices=True), r"max_pool2d"),
    (lambda x: (x, x), r"an output that is not one tensor \(tuple\)"),
    (lambda x: x if x.sum() > 0 else -x, r"forward cannot be followed"),
    (lambda x: F.hardtanh(x, -2, 2), r"clipping to -2 … 2"),
    (lambda x: x[:, :2], r"subsample: operator.getitem other than x\[:, :, ::2, ::2\]"),
    (lambda x: x[:, :, 1::2], r"subsample: operator.getitem other than"),
    (lambda x: F.avg_pool2d(x, x.size()[3]), r"avg_pool2d: .*an argument that depends on the input"),
    (lambda x: F.avg_pool2d(x, F.relu(x).shape[2:]), r"avg_pool2d: .*an argument that depends on the input"),
    (lambda x: torch.cat(x.chunk(2, 1), 1), r"chunk: Tensor.chunk"),
    (lambda x: torch.cat(torch.split(x, 2, 1), 1), r"split: torch.functional.split"),
    (lambda x: torch.add(x, F.relu(x), out=x), r"add: torch.add with out="),
    (lambda x: torch.cat([x, x], dim=1, out=x), r"cat: torch.cat with out="),
    (lambda x: torch.cat([x, x], -1), r"cat: torch.cat along axis -1; expected axis 1"),
    (lambda x: x.squeeze(-1), r"squeeze: Tensor.squeeze of axes -1; expected \(2, 3\) behind a pooling to one cell"),
    (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), r"of all axes; expected"),
    (lambda x: F.adaptive_avg_pool2d(x, (1, 2)).squeeze(2), r"squeeze: Tensor.squeeze of axes 2"),
    (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(1), r"squeeze: Tensor.squeeze of axes 1"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_calls_that_are_refused(call: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        from_torch(Calls(call))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("from_torch: Calls: ")


def test_all_that_is_not_supported_is_said_at_once() -> None:
    class Net(T.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = T.Sequential(T.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), T.GELU(), T.GroupNorm(2, 4))
            self.scale, self.fine = T.Parameter(torch.ones(1)), T.Conv2d(4, 4, 1).half()
            self.attention = T.MultiheadAttention(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fine(self.features(x)) * self.scale
            return self.attention(x, x, x)

    with pytest.raises(ArgumentError) as caught:
        from_torch(Net())
    assert str(caught.value) == (
        'from_torch: Net: not supported: features.0: Conv2d padding_mode="reflect"; features.1: GELU; features.2: GroupNorm; '
        "fine: Conv2d with weight of float16; expected float32 or float64: module.float(); scale: a parameter or tensor that "
        "forward uses itself; mul: operator.mul; attention: MultiheadAttention"
    )


def test_a_graph_that_is_not_series_parallel_is_refused_by_the_node() -> None:
    class Bridge(T.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (T.Conv2d(2, 2, 1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            return self.c(a) + self.d(torch.cat([a, b], 1))

    with pytest.raises(ArgumentError, match=r"^from_torch: Bridge: add: not series-parallel: branches share a,"):
        from_torch(Bridge())


def test_a_module_that_is_called_with_more_than_its_input_is_refused() -> None:
    class Up(T.Module):
        def __init__(self, call: Callable[[T.Module, Tensor], Tensor]) -> None:
            super().__init__()
            self.up, self.call = T.ConvTranspose2d(2, 3, 3, stride=2, padding=1), call

        def forward(self, x: Tensor) -> Tensor:
            return self.call(self.up, x)

    for call in (lambda up, x: up(x, output_size=(10, 8)), lambda up, x: up(x, [10, 8])):
        with pytest.raises(ArgumentError, match="up: ConvTranspose2d called with more than its input"):
            from_torch(Up(call))
    from_torch(Up(lambda up, x: up(input=x)).double(), check=values(0, (1, 2, 5, 4)))


def test_what_wraps_a_module_is_taken_off() -> None:
    module = drawn(VGG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = [torch.compile(module), torch.compile(T.DataParallel(module))]
    for wrapped in (T.DataParallel(module), *compiled):
        assert from_torch(wrapped).state_dict().keys() == from_torch(module).state_dict().keys()
    hooked = T.DataParallel(module)
    hooked.register_forward_hook(lambda m, i, y: 2 * y)
    with pytest.raises(ArgumentError, match="DataParallel has hooks"):
        from_torch(hooked)


def test_a_lazy_module_is_to_be_called_first() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = T.Sequential(T.LazyConv2d(4, 3))
    with pytest.raises(ArgumentError, match="0: LazyConv2d is lazy and has no weights yet; call the module with an input first"):
        from_torch(module)
    module(torch.zeros(1, 2, 5, 5))
    from_torch(module.double(), check=values(0, (1, 2, 5, 5)))


def test_a_sum_of_a_list_begins_with_zero() -> None:
    x = values(0, (1, 2, 5, 4))
    for call in (lambda x: sum([x, F.relu(x), torch.tanh(x)]), lambda x: x + 0, lambda x: F.relu_(sum([x])) + x):
        from_torch(Calls(call).double(), check=x)


def test_axes_that_are_known_may_be_counted_from_the_end() -> None:
    x = values(0, (2, 2, 5, 4))
    for call in (
        lambda x: torch.cat([x, F.relu(x)], -3), lambda x: torch.cat([x.flatten(1), F.relu(x).flatten(1)], dim=-1),
        lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1), lambda x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze((2, 3)),
        lambda x: torch.squeeze(x.mean((2, 3), True), dim=2), lambda x: F.relu(F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(2)),
        lambda x: torch.cat([x.flatten(2), x.flatten(-2)], -2),
    ):  # fmt: skip
        from_torch(Calls(call).double(), check=x)


def test_changes_in_place_are_followed_or_refused() -> None:
    def later(x: Tensor) -> Tensor:                             # another name of the same tensor sees the change
        y = x
        y += F.relu(x)
        return torch.cat([x, y], 1)

    def view(x: Tensor) -> Tensor:
        y = x.flatten(1)
        F.relu(x, inplace=True)
        return y

    x = values(0, (1, 2, 5, 4))
    from_torch(Calls(later).double(), check=x)
    from_torch(Calls(lambda x: torch.cat([F.relu_(x), x], 1)).double(), check=x)
    with pytest.raises(ArgumentError,
                       match=r"relu: torch.nn.functional.relu in place, while flatten, a view of it, is used later"):
        from_torch(Calls(view))

    def part(x: Tensor) -> Tensor:
        y = F.relu(x[:, :, ::2, ::2], inplace=True)
        return torch.cat([F.avg_pool2d(x, 1, 2), y], 1)

    def part_of_what_changes(x: Tensor) -> Tensor:
        y = x[:, :, ::2, ::2]
        return F.avg_pool2d(F.relu_(x), 1, 2) + y

    for call in (part, part_of_what_changes):
        with pytest.raises(ArgumentError, match=r"relu_?: torch.* in place, while .*, a view of it, is used later"):
            from_torch(Calls(call))
    from_torch(Calls(lambda x: F.relu(x[:, :, ::2, ::2], inplace=True)).double(), check=x)


def test_modules_that_are_not_what_they_seem_are_refused() -> None:
    class Standardised(T.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    class Plain(T.Conv2d):
        """The same computation: a subclass like this one is a convolution."""

        def __init__(self) -> None:
            super().__init__(2, 4, 3)

    with pytest.raises(ArgumentError, match=r"weight: a parameter or tensor that forward uses itself"):
        from_torch(Calls(lambda x: x, Standardised(2, 4, 3)))
    assert isinstance(from_torch(Plain()), nn.Conv2d)
    with pytest.raises(ArgumentError, match="conv: ParametrizedConv2d is parametrised"):
        from_torch(Calls(lambda x: x, T.utils.parametrizations.weight_norm(T.Conv2d(2, 4, 3))))
    hooked = Calls(lambda x: x)
    hooked.conv.register_forward_hook(lambda m, i, y: 2 * y)
    with pytest.raises(ArgumentError, match="conv: Conv2d has hooks"):
        from_torch(hooked)
    tied = T.Sequential(T.Conv2d(2, 2, 1), T.Conv2d(2, 2, 1))
    tied[1].weight = tied[0].weight
    with pytest.raises(ArgumentError, match="1: Conv2d whose weight is that of 0, with other options"):
        from_torch(tied)
    for other in (torch.ones(1), "model.pt", T.Conv2d):
        with pytest.raises(ArgumentError, match=r"expected a torch.nn.Module"):
            from_torch(other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(T.Conv2d(2, 2, 1))
    with pytest.raises(ArgumentError, match="not a scripted one"):
        from_torch(scripted)
    with pytest.raises(ArgumentError, match="weight of complex64; expected float32 or float64"):
        from_torch(T.Conv2d(2, 2, 1, dtype=torch.complex64))
    with pytest.raises(ArgumentError, match="a meta tensor"):
        from_torch(T.Linear(2, 2, device="meta"))


def test_layers_that_are_one_stay_one() -> None:
    model = from_torch(drawn(Shared))
    assert model.layer("conv") is model.layer("conv_1") and model.layer("twice.0") is model.layer("twice.2")
    assert model.layer("tied") is model.layer("again") and model.layer("block.conv1") is model.layer("block_1.conv1")
    model = from_torch(drawn(LeNet))
    assert [p for p, _ in model.layers()][1:] == ["conv1", "relu", "pool", "conv2", "relu_1", "pool_1", "view", "fc1", "relu_2",
                                                  "dropout", "fc2", "log_softmax"]  # fmt: skip
    model = from_torch(drawn(ResNet))
    assert model.layer("layer1.0.relu") is model.layer("layer1.0.relu_1") is not model.layer("layer1.1.relu")


def test_the_module_is_left_as_it_was() -> None:
    module = drawn(GoogLeNet).train()
    module.inception3a.eval()
    modes = [m.training for m in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    x = values(0, NETS["googlenet"][1])
    model = from_torch(module, check=torch.from_numpy(x))
    assert [m.training for m in module.modules()] == modes and all(type(m.training) is bool for m in module.modules())
    for _, layer in model.layers():
        for name in layer.parameter_names:
            if getattr(layer, name) is not None:
                getattr(layer, name)[...] = 0
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key])


def test_check_compares() -> None:
    module, x = drawn(VGG), values(0, NETS["vgg"][1])
    assert from_torch(module.float(), check=x.astype(np.float32)).named_parameters()["classifier.3.bias"].dtype == np.float32

    class Odd(T.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x) if torch.fx._symbolic_trace.is_fx_tracing() or isinstance(x, torch.fx.Proxy) else x

    with pytest.raises(ArgumentError, match=r"check: the outputs differ from PyTorch's by 1.0e\+00"):
        from_torch(Odd(), check=-np.ones((1, 2)))


def test_views_of_sizes() -> None:
    x = values(0, (2, 2, 5, 4))
    for view in (
        lambda x: x.view(x.size(0), x.size(1) * x.size(2) * x.size(3)), lambda x: x.reshape(x.shape[0], 24),
        lambda x: x.view((x.size()[0], -1)), lambda x: F.avg_pool2d(x, (x.size(2), x.size(3))).view(x.size(0), x.size(1)),
        lambda x: F.avg_pool2d(x, kernel_size=x.shape[-2:]).flatten(1),
    ):  # fmt: skip
        from_torch(Calls(view).double(), check=x)


def test_dropout_follows_training_as_in_pytorch() -> None:
    model = tinynet.from_torch(Calls(lambda x: x, T.Conv2d(2, 4, 3)))
    assert model.layer("conv")
    model = tinynet.from_torch(drawn(LeNet))
    dropout = model.layer("dropout")
    assert isinstance(dropout, nn.Dropout) and dropout.p == 0.5

    class Never(T.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, training=False)

    assert isinstance(tinynet.from_torch(Never()).layer("dropout"), nn.Identity)


def test_functions_of_every_kind_are_seen() -> None:
    kinds = {type(layer).__name__ for _, layer in from_torch(Functions()).layers()}
    assert kinds >= {"Pad", "LeakyReLU", "AvgPool2d", "Sigmoid", "Tanh", "ReLU", "Upsample", "ConvTranspose2d", "MaxPool2d",
                     "LocalResponseNorm", "Identity", "Softmax", "AdaptiveAvgPool2d", "Flatten", "Concat",
                     "Residual"}  # fmt: skip
