"""Networks as people write them in PyTorch: the well-known families, small, with all their habits of style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AlexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 5, padding=2), nn.ReLU(inplace=True), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((3, 2))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(72, 20), nn.ReLU(inplace=True), nn.Linear(20, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        x = torch.flatten(x, 1)
        return self.classifier(x)


class VGG(nn.Module):
    """With BatchNorm, and features flattened by view with a computed size."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in [4, "M", 6, 6, "M"]:
            if width == "M":
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            else:
                layers += [nn.Conv2d(channels, int(width), 3, padding=1), nn.BatchNorm2d(int(width)), nn.ReLU(True)]
                channels = int(width)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(6 * 7 * 6, 10), nn.ReLU(True), nn.Dropout(0.2), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.view(x.size(0), -1)
        return self.classifier(x)


class Fire(nn.Module):
    def __init__(self, into: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = nn.Conv2d(into, squeeze, 1), nn.ReLU(inplace=True)
        self.expand1x1, self.expand1x1_activation = nn.Conv2d(squeeze, expand, 1), nn.ReLU(inplace=True)
        self.expand3x3, self.expand3x3_activation = nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(6, 4, 5), Fire(10, 4, 5),
            nn.MaxPool2d(3, 2, ceil_mode=True), Fire(10, 4, 6),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(12, 5, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class BasicBlock(nn.Module):
    def __init__(self, into: int, out: int, stride: int = 1, functional: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu: Any = F.relu if functional else nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, into: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, groups=2, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(into, 2 * width, 1, stride, bias=False), nn.BatchNorm2d(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out = out + self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, blocks: Callable[[], list[nn.Module]] | None = None, channels: int = 8, functional: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 7, 2, 3, bias=False), nn.BatchNorm2d(6, eps=1e-3)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        made = [BasicBlock(6, 6, 1, functional), BasicBlock(6, 6, 1, functional), BasicBlock(6, 8, 2, functional)]
        self.layer1 = nn.Sequential(*(blocks() if blocks else made))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer1(x)), 1))


def bottlenecks() -> list[nn.Module]:
    return [Bottleneck(6, 4), Bottleneck(8, 4, 2)]


class PreActivation(nn.Module):
    """He et al. 2016 b. The ReLU works in place on what the shortcut takes, so the shortcut gets the rectified maps, too."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn, self.relu, self.conv1 = nn.BatchNorm2d(6), nn.ReLU(inplace), nn.Conv2d(6, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x = x + self.conv1(self.relu(x))
        x = x + self.conv2(self.relu(x))
        return x.mean((2, 3))


class BasicConv2d(nn.Module):
    def __init__(self, into: int, out: int, **how: Any) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(into, out, bias=False, **how), nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    def __init__(self, into: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(into, 3, kernel_size=1)
        self.branch2 = nn.Sequential(BasicConv2d(into, 2, kernel_size=1), BasicConv2d(2, 4, kernel_size=3, padding=1))
        self.branch3 = nn.Sequential(BasicConv2d(into, 2, kernel_size=1), BasicConv2d(2, 2, kernel_size=3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), BasicConv2d(into, 3, kernel_size=1))

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self._forward(x), 1)


class InceptionE(nn.Module):
    """Inception v3: a branch that branches again, and a pooled one."""

    def __init__(self, into: int) -> None:
        super().__init__()
        self.branch1x1, self.branch3x3_1 = BasicConv2d(into, 3, kernel_size=1), BasicConv2d(into, 4, kernel_size=1)
        self.branch3x3_2a = BasicConv2d(4, 2, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(4, 2, kernel_size=(3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(into, 3, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch3x3_1(x)
        y = torch.cat([self.branch3x3_2a(y), self.branch3x3_2b(y)], 1)
        pooled = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([self.branch1x1(x), y, pooled], 1)


class GoogLeNet(nn.Module):
    """With the auxiliary head that is there in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.inception3a, self.inception3b = BasicConv2d(3, 5, kernel_size=3), Inception(5), InceptionE(12)
        self.aux1, self.dropout, self.fc = nn.Linear(12, 4), nn.Dropout(0.2), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.inception3a(self.conv1(x))
        aux = self.aux1(x.mean([2, 3])) if self.training else None
        x = torch.flatten(F.adaptive_avg_pool2d(self.inception3b(x), 1), 1)
        x = self.fc(self.dropout(x))
        return (x, aux) if self.training else x


class ConvBNReLU(nn.Sequential):
    def __init__(self, into: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(into, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False), nn.BatchNorm2d(out),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    def __init__(self, into: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and into == out
        hidden = into * expand
        self.conv = nn.Sequential(
            ConvBNReLU(into, hidden, 1), ConvBNReLU(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvBNReLU(3, 4, stride=2), InvertedResidual(4, 4, 1, 2), InvertedResidual(4, 6, 2, 3), ConvBNReLU(6, 10, 1)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class DenseLayer(nn.Module):
    def __init__(self, into: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1, self.conv1 = nn.BatchNorm2d(into), nn.ReLU(inplace=True), nn.Conv2d(into, 4, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv2, self.drop_rate = nn.Conv2d(4, growth, 3, padding=1, bias=False), 0.1

    def forward(self, inputs: Any) -> Tensor:
        features = [inputs] if isinstance(inputs, Tensor) else inputs
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        x = self.conv2(self.relu2(self.norm2(x)))
        return F.dropout(x, p=self.drop_rate, training=self.training)


class DenseBlock(nn.ModuleDict):
    """torchvision's way: every layer concatenates everything so far afresh."""

    def __init__(self, layers: int, into: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(into + i * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _, layer in self.items():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, 5, 3, 2, bias=False))
        self.features.add_module("denseblock1", DenseBlock(4, 5, 3))
        self.features.add_module("transition1", nn.Sequential(nn.Conv2d(17, 6, 1), nn.AvgPool2d(2, 2)))
        self.features.add_module("denseblock2", DenseBlock(2, 6, 2))
        self.features.add_module("norm5", nn.BatchNorm2d(10))
        self.classifier = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class LeNet(nn.Module):
    """PyTorch's own tutorial: one pool used twice, everything else functions, view(-1, K)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 8, 5), nn.MaxPool2d(2, 2)
        self.fc1, self.fc2 = nn.Linear(8 * 5 * 5, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 8 * 5 * 5)
        x = F.dropout(F.relu(self.fc1(x)), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class Functions(nn.Module):
    """Every function that is known, with arguments by place and by name, and methods."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self.up = nn.Conv2d(3, 6, 3, 1, "same", dilation=2), nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, 2, True, 1)
        self.branches = nn.ModuleList([nn.Conv2d(6, 2, 1, padding=0), nn.Conv2d(6, 4, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 2, 0, 1), mode="reflect")
        x = F.leaky_relu(self._conv_stem(x), 0.1)
        x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        x = torch.cat(tensors=[b(x) for b in self.branches], dim=1)
        x = x.add(torch.sigmoid(x)).relu_().tanh()
        x = F.interpolate(self.up(x), scale_factor=2, mode="bilinear", align_corners=False)
        x = F.max_pool2d(x, 3, stride=2, padding=1, dilation=1, ceil_mode=True)
        x = F.local_response_norm(x, 3, k=2.0)
        x = torch.add(x, torch.clamp(x, min=0)).clone().contiguous()
        x = F.softmax(x, 1)
        x = torch.mean(x, dim=[2, 3], keepdim=True)
        x = x.reshape((x.shape[0], -1))
        return x.flatten(start_dim=1)


class Shared(nn.Module):
    """A convolution used twice, a block used twice, a Sequential with the same module at two places, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.conv, self.block = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), BasicBlock(4, 4)
        self.twice = nn.Sequential(conv, nn.ReLU(), conv)
        self.tied, self.again = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.again.weight = self.tied.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.relu(self.conv(self.first(x))))
        return self.again(self.tied(self.block(self.twice(self.block(x)))))


class OptionA(nn.Module):
    """CIFAR ResNets: a shortcut of every other cell and channels of zeros; the last pooling as wide as the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.first, self.bn1, self.linear = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(8), nn.Linear(8, 3)
        self.shortcut: Any = lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.conv2(out)
        out += self.shortcut(x)
        out = F.relu(out)
        out = F.avg_pool2d(out, out.size()[2:])
        out = out.view(out.size(0), -1)
        return self.linear(out)


# name → (what makes it, shape of an input)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "alexnet": (AlexNet, (2, 3, 63, 60)),
    "vgg": (VGG, (2, 3, 28, 27)),
    "squeezenet": (SqueezeNet, (2, 3, 32, 27)),
    "resnet": (ResNet, (2, 3, 33, 30)),
    "resnet with functions": (lambda: ResNet(functional=True), (2, 3, 33, 30)),
    "resnet of bottlenecks": (lambda: ResNet(bottlenecks), (2, 3, 31, 32)),
    "pre-activation": (lambda: PreActivation(False), (2, 3, 9, 8)),
    "pre-activation in place": (lambda: PreActivation(True), (2, 3, 9, 8)),
    "googlenet": (GoogLeNet, (2, 3, 12, 13)),
    "mobilenet": (MobileNetV2, (2, 3, 16, 17)),
    "densenet": (DenseNet, (2, 3, 17, 16)),
    "option a": (OptionA, (2, 3, 9, 8)),
    "lenet": (LeNet, (2, 3, 32, 32)),
    "functions": (Functions, (2, 3, 11, 12)),
    "shared": (Shared, (2, 3, 7, 6)),
}


def drawn(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The net in float64 and eval mode, with weights of order one, and statistics and biases other than the default."""
    torch.manual_seed(seed)
    module = make().double().eval()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.3, 0.5)
    return module
