"""Networks by name, and trained ones as files."""

from . import catnet
from .file import TrainedModel, check_classes, load_model
from .registry import create, names, register

__all__ = ["create", "names", "register", "TrainedModel", "load_model", "check_classes", "catnet"]
