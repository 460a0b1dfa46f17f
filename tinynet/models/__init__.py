"""Networks by name, and trained ones as files."""

from . import catnet, squeezenet
from .file import TrainedModel, check_classes, load_model
from .from_torch import from_torch
from .registry import IMAGENET, Entry, Paper, create, entry, names, register

__all__ = [
    "create", "names", "entry", "register", "Entry", "Paper", "IMAGENET", "TrainedModel", "load_model", "check_classes",
    "catnet", "squeezenet",
    "from_torch",
]
