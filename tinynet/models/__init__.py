"""Networks by name, and trained ones as files."""

from . import catnet, squeezenet
from .file import TrainedModel, check_classes, load_model
from .from_onnx import OnnxModel, from_onnx, read_onnx
from .from_torch import from_torch
from .registry import IMAGENET, Entry, Paper, create, entry, names, register
from .to_onnx import to_onnx

__all__ = [
    "create", "names", "entry", "register", "Entry", "Paper", "IMAGENET", "TrainedModel", "load_model", "check_classes",
    "catnet", "squeezenet",
    "from_torch", "from_onnx", "read_onnx", "OnnxModel", "to_onnx",
]
