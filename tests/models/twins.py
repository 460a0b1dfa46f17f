"""The zoo once more, in plain torch.nn, written from the papers and torchvision's published names.

Every module has the name of its tinynet layer, so that all maps can be compared by name; torchvision calls ReLU as a function
here and there, or one module several times, which changes no name of the state dict. relu, pool and norm are what stands at a
rectifier, a max-pooling and a normalisation across maps, so that a walk back may have another rule there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

T = torch.nn
Make = Callable[..., T.Module]


class Parts:
    """What the twins are made of, for a while: see `parts`."""

    relu: Make = T.ReLU
    relu6: Make = T.ReLU6
    pool: Make = T.MaxPool2d
    norm: Make = T.LocalResponseNorm


@contextmanager
def parts(**made: Make) -> Iterator[None]:
    """Within the block twins are built with these: parts(relu=…, relu6=…, pool=…, norm=…)."""
    before = {name: getattr(Parts, name) for name in made}
    for name, make in made.items():
        setattr(Parts, name, make)
    try:
        yield
    finally:
        for name, make in before.items():
            setattr(Parts, name, make)


def named(**layers: T.Module) -> T.Sequential:
    model = T.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def lenet5() -> T.Module:
    p = Parts
    return named(
        conv1=T.Conv2d(1, 6, 5), relu1=p.relu(), pool1=p.pool(2), conv2=T.Conv2d(6, 16, 5), relu2=p.relu(), pool2=p.pool(2),
        flatten=T.Flatten(), fc1=T.Linear(400, 120), relu3=p.relu(), fc2=T.Linear(120, 84), relu4=p.relu(), fc3=T.Linear(84, 10),
    )


def alexnet() -> T.Module:
    p = Parts
    features = T.Sequential(
        T.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), p.relu(), p.pool(kernel_size=3, stride=2),
        T.Conv2d(64, 192, kernel_size=5, padding=2), p.relu(), p.pool(kernel_size=3, stride=2),
        T.Conv2d(192, 384, kernel_size=3, padding=1), p.relu(),
        T.Conv2d(384, 256, kernel_size=3, padding=1), p.relu(),
        T.Conv2d(256, 256, kernel_size=3, padding=1), p.relu(), p.pool(kernel_size=3, stride=2),
    )  # fmt: skip
    classifier = T.Sequential(
        T.Dropout(), T.Linear(9216, 4096), p.relu(), T.Dropout(), T.Linear(4096, 4096), p.relu(), T.Linear(4096, 1000)
    )
    return named(features=features, avgpool=T.AdaptiveAvgPool2d((6, 6)), flatten=T.Flatten(), classifier=classifier)


def zfnet() -> T.Module:
    p = Parts
    return named(
        conv1=T.Conv2d(3, 96, 7, 2, padding=1), relu1=p.relu(), pool1=p.pool(3, 2, ceil_mode=True),
        norm1=p.norm(5, 1e-4, 0.75, 2),
        conv2=T.Conv2d(96, 256, 5, 2), relu2=p.relu(), pool2=p.pool(3, 2, ceil_mode=True), norm2=p.norm(5, 1e-4, 0.75, 2),
        conv3=T.Conv2d(256, 384, 3, padding=1), relu3=p.relu(), conv4=T.Conv2d(384, 384, 3, padding=1), relu4=p.relu(),
        conv5=T.Conv2d(384, 256, 3, padding=1), relu5=p.relu(), pool5=p.pool(3, 2), flatten=T.Flatten(),
        fc6=T.Linear(9216, 4096), relu6=p.relu(), dropout6=T.Dropout(), fc7=T.Linear(4096, 4096), relu7=p.relu(),
        dropout7=T.Dropout(), fc8=T.Linear(4096, 1000),
    )  # fmt: skip


VGG: dict[str, list[Any]] = {
    "11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "19": [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"],
}


def vgg(depth: str, norm: bool) -> T.Module:
    layers: list[T.Module] = []
    channels = 3
    for v in VGG[depth]:
        if v == "M":
            layers.append(Parts.pool(kernel_size=2, stride=2))
            continue
        layers.append(T.Conv2d(channels, v, kernel_size=3, padding=1))
        if norm:
            layers.append(T.BatchNorm2d(v))
        layers.append(Parts.relu())
        channels = v
    classifier = T.Sequential(
        T.Linear(512 * 7 * 7, 4096), Parts.relu(), T.Dropout(), T.Linear(4096, 4096), Parts.relu(), T.Dropout(),
        T.Linear(4096, 1000),
    )
    return named(
        features=T.Sequential(*layers), avgpool=T.AdaptiveAvgPool2d((7, 7)), flatten=T.Flatten(), classifier=classifier
    )


class Fire(T.Module):
    def __init__(self, into: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = T.Conv2d(into, squeeze, 1), Parts.relu()
        self.expand1x1, self.expand1x1_activation = T.Conv2d(squeeze, expand, 1), Parts.relu()
        self.expand3x3, self.expand3x3_activation = T.Conv2d(squeeze, expand, 3, padding=1), Parts.relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)


def squeezenet(version: str) -> T.Module:
    relu, pool = Parts.relu, partial(Parts.pool, kernel_size=3, stride=2, ceil_mode=True)
    if version == "1_0":
        features = T.Sequential(
            T.Conv2d(3, 96, 7, 2), relu(), pool(), Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), pool(),
            Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), pool(), Fire(512, 64, 256),
        )
    else:
        features = T.Sequential(
            T.Conv2d(3, 64, 3, 2), relu(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128),
            Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )
    classifier = T.Sequential(T.Dropout(0.5), T.Conv2d(512, 1000, 1), relu(), T.AdaptiveAvgPool2d((1, 1)))
    return named(features=features, classifier=classifier, flatten=T.Flatten())


def _downsample(into: int, out: int, stride: int) -> T.Module:
    return T.Sequential(T.Conv2d(into, out, 1, stride, bias=False), T.BatchNorm2d(out))


class BasicBlock(T.Module):
    expansion = 1

    def __init__(self, into: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = T.Conv2d(into, planes, 3, stride, 1, bias=False), T.BatchNorm2d(planes)
        self.relu1 = Parts.relu()
        self.conv2, self.bn2 = T.Conv2d(planes, planes, 3, 1, 1, bias=False), T.BatchNorm2d(planes)
        self.downsample = _downsample(into, planes, stride) if stride != 1 or into != planes else None
        self.relu2 = Parts.relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(T.Module):
    expansion = 4

    def __init__(self, into: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = T.Conv2d(into, planes, 1, bias=False), T.BatchNorm2d(planes)
        self.conv2, self.bn2 = T.Conv2d(planes, planes, 3, stride, 1, bias=False), T.BatchNorm2d(planes)
        self.conv3, self.bn3 = T.Conv2d(planes, planes * 4, 1, bias=False), T.BatchNorm2d(planes * 4)
        self.downsample = _downsample(into, planes * 4, stride) if stride != 1 or into != planes * 4 else None
        self.relu1, self.relu2, self.relu3 = Parts.relu(), Parts.relu(), Parts.relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return self.relu3(y + (x if self.downsample is None else self.downsample(x)))


def resnet(kind: Any, depths: list[int]) -> T.Module:
    into, layers = 64, {}
    for i, (planes, depth, stride) in enumerate(zip([64, 128, 256, 512], depths, [1, 2, 2, 2], strict=True), 1):
        blocks = [kind(into, planes, stride)]
        into = planes * kind.expansion
        blocks += [kind(into, planes) for _ in range(1, depth)]
        layers[f"layer{i}"] = T.Sequential(*blocks)
    return named(
        conv1=T.Conv2d(3, 64, 7, 2, 3, bias=False), bn1=T.BatchNorm2d(64), relu=Parts.relu(), maxpool=Parts.pool(3, 2, 1),
        **layers,
        avgpool=T.AdaptiveAvgPool2d((1, 1)), flatten=T.Flatten(), fc=T.Linear(into, 1000),
    )


class OptionA(T.Module):
    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4), "constant", 0)


class CifarBlock(T.Module):
    def __init__(self, into: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = T.Conv2d(into, planes, 3, stride, 1, bias=False), T.BatchNorm2d(planes)
        self.conv2, self.bn2 = T.Conv2d(planes, planes, 3, 1, 1, bias=False), T.BatchNorm2d(planes)
        self.shortcut = OptionA(planes) if stride != 1 or into != planes else T.Sequential()
        self.relu1, self.relu2 = Parts.relu(), Parts.relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def cifar_resnet(depth: int) -> T.Module:
    into, layers = 16, {}
    for i, (planes, stride) in enumerate([(16, 1), (32, 2), (64, 2)], 1):
        blocks = [CifarBlock(into, planes, stride)] + [CifarBlock(planes, planes) for _ in range(1, (depth - 2) // 6)]
        layers[f"layer{i}"], into = T.Sequential(*blocks), planes
    return named(
        conv1=T.Conv2d(3, 16, 3, 1, 1, bias=False), bn1=T.BatchNorm2d(16), relu=Parts.relu(), **layers,
        avgpool=T.AdaptiveAvgPool2d(1), flatten=T.Flatten(), linear=T.Linear(64, 10),
    )


def basic_conv(into: int, out: int, **how: Any) -> T.Module:
    return named(conv=T.Conv2d(into, out, bias=False, **how), bn=T.BatchNorm2d(out, eps=0.001), relu=Parts.relu())


class Inception(T.Module):
    def __init__(self, into: int, c1: int, c3r: int, c3: int, c5r: int, c5: int, pool: int) -> None:
        super().__init__()
        self.branch1 = basic_conv(into, c1, kernel_size=1)
        self.branch2 = T.Sequential(basic_conv(into, c3r, kernel_size=1), basic_conv(c3r, c3, kernel_size=3, padding=1))
        self.branch3 = T.Sequential(basic_conv(into, c5r, kernel_size=1), basic_conv(c5r, c5, kernel_size=3, padding=1))
        self.branch4 = T.Sequential(
            Parts.pool(kernel_size=3, stride=1, padding=1, ceil_mode=True), basic_conv(into, pool, kernel_size=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def googlenet() -> T.Module:
    pool = partial(Parts.pool, stride=2, ceil_mode=True)
    return named(
        conv1=basic_conv(3, 64, kernel_size=7, stride=2, padding=3), maxpool1=pool(3), conv2=basic_conv(64, 64, kernel_size=1),
        conv3=basic_conv(64, 192, kernel_size=3, padding=1), maxpool2=pool(3),
        inception3a=Inception(192, 64, 96, 128, 16, 32, 32), inception3b=Inception(256, 128, 128, 192, 32, 96, 64),
        maxpool3=pool(3),
        inception4a=Inception(480, 192, 96, 208, 16, 48, 64), inception4b=Inception(512, 160, 112, 224, 24, 64, 64),
        inception4c=Inception(512, 128, 128, 256, 24, 64, 64), inception4d=Inception(512, 112, 144, 288, 32, 64, 64),
        inception4e=Inception(528, 256, 160, 320, 32, 128, 128), maxpool4=pool(2),
        inception5a=Inception(832, 256, 160, 320, 32, 128, 128), inception5b=Inception(832, 384, 192, 384, 48, 128, 128),
        avgpool=T.AdaptiveAvgPool2d((1, 1)), flatten=T.Flatten(), dropout=T.Dropout(0.2), fc=T.Linear(1024, 1000),
    )  # fmt: skip


def auxiliary(into: int) -> T.Module:
    """One of GoogLeNet's auxiliary classifiers, as far as its state goes."""
    return named(conv=basic_conv(into, 128, kernel_size=1), fc1=T.Linear(2048, 1024), fc2=T.Linear(1024, 1000))


def _conv_bn6(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> T.Module:
    conv = T.Conv2d(into, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return T.Sequential(conv, T.BatchNorm2d(out), Parts.relu6())


class InvertedResidual(T.Module):
    def __init__(self, into: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden, layers = into * expand, []
        if expand != 1:
            layers.append(_conv_bn6(into, hidden, 1))
        layers += [_conv_bn6(hidden, hidden, 3, stride, hidden), T.Conv2d(hidden, out, 1, bias=False), T.BatchNorm2d(out)]
        self.conv, self.adds = T.Sequential(*layers), stride == 1 and into == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def mobilenet_v2() -> T.Module:
    table = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    layers, into = [_conv_bn6(3, 32, 3, 2)], 32
    for t, c, n, s in table:
        for i in range(n):
            layers.append(InvertedResidual(into, c, s if i == 0 else 1, t))
            into = c
    layers.append(_conv_bn6(into, 1280, 1))
    return named(
        features=T.Sequential(*layers), avgpool=T.AdaptiveAvgPool2d((1, 1)), flatten=T.Flatten(),
        classifier=T.Sequential(T.Dropout(0.2), T.Linear(1280, 1000)),
    )  # fmt: skip


def tinyvgg() -> T.Module:
    p = Parts
    return named(
        conv_1_1=T.Conv2d(3, 10, 3), relu_1_1=p.relu(), conv_1_2=T.Conv2d(10, 10, 3), relu_1_2=p.relu(), max_pool_1=p.pool(2),
        conv_2_1=T.Conv2d(10, 10, 3), relu_2_1=p.relu(), conv_2_2=T.Conv2d(10, 10, 3), relu_2_2=p.relu(), max_pool_2=p.pool(2),
        flatten=T.Flatten(), output=T.Linear(1690, 10),
    )  # fmt: skip


TWINS: dict[str, Make] = {
    "lenet5": lenet5, "alexnet": alexnet, "zfnet": zfnet, "googlenet": googlenet, "mobilenet_v2": mobilenet_v2,
    "tinyvgg": tinyvgg,
    **{f"vgg{depth}{'_bn' if norm else ''}": partial(vgg, depth, norm) for depth in VGG for norm in (False, True)},
    **{f"squeezenet{version}": partial(squeezenet, version) for version in ("1_0", "1_1")},
    "resnet18": partial(resnet, BasicBlock, [2, 2, 2, 2]), "resnet34": partial(resnet, BasicBlock, [3, 4, 6, 3]),
    "resnet50": partial(resnet, Bottleneck, [3, 4, 6, 3]),
    **{f"cifar_resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 56)},
}  # fmt: skip
