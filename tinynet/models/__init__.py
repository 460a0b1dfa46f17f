"""Networks by name, and trained ones as files."""

from . import alexnet, catnet, cifar_resnet, googlenet, lenet, mobilenet, resnet, squeezenet, tinyvgg, vgg, zfnet
from .file import TrainedModel, check_classes
from .from_onnx import OnnxModel, from_onnx, read_onnx
from .from_torch import from_torch
from .loading import BOXED, boxed, convert, imagenet_classes, load, load_model, names_model, trained
from .registry import IMAGENET, Entry, Paper, create, entry, names, nearest, register
from .state import Weights, load_weights
from .structure import last_weighted, with_classes
from .table import ModelRow, model_rows, models_table
from .to_onnx import to_onnx

__all__ = [
    "create", "names", "entry", "nearest", "register", "Entry", "Paper", "IMAGENET", "ModelRow", "model_rows", "models_table",
    "TrainedModel", "load", "load_model", "load_weights", "Weights", "trained", "BOXED", "boxed", "convert", "imagenet_classes",
    "names_model", "check_classes", "last_weighted", "with_classes",
    "catnet", "lenet", "alexnet", "zfnet", "vgg", "googlenet", "resnet", "cifar_resnet", "squeezenet", "mobilenet", "tinyvgg",
    "from_torch", "from_onnx", "read_onnx", "OnnxModel", "to_onnx",
]
