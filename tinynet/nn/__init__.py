"""Layers, containers and losses, named as in torch.nn. Read layer.py first: it is the protocol."""

from . import init
from .activation import GroupLogSumExp, LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, Softmax, Tanh
from .classes import without_softmax
from .containers import Concat, Container, Residual, Sequential
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .dropout import Dropout
from .gradient import backward
from .layer import Layer, Nothing
from .linear import Linear
from .loss import CrossEntropyLoss, MSELoss, NLLLoss
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, LocalResponseNorm
from .pool import (
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from .receptive_field import ReceptiveField, receptive_field, receptive_fields
from .shape import Flatten, Identity, Pad, Upsample
from .split import split
from .summary import Summary, summary

__all__ = [
    "Layer", "Nothing", "backward", "init", "summary", "Summary", "ReceptiveField", "receptive_field", "receptive_fields",
    "Container", "Sequential", "Concat", "Residual", "split", "without_softmax",
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear",
    "ReLU", "ReLU6", "LeakyReLU", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "GroupLogSumExp",
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool2d",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LocalResponseNorm", "Dropout",
    "Flatten", "Identity", "Pad", "Upsample",
    "CrossEntropyLoss", "NLLLoss", "MSELoss",
]
