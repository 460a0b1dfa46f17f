"""Networks by name, and trained ones as files."""

from . import catnet
from .file import TrainedModel, check_classes, load_model
from .from_torch import from_torch
from .registry import create, names, register

__all__ = ["create", "names", "register", "TrainedModel", "load_model", "check_classes", "catnet", "from_torch"]
