"""One batch over several threads: shards, and the same sum of gradients."""

from .shards import Shards, TrainingStep
from .workers import available_cores

__all__ = ["Shards", "TrainingStep", "available_cores"]
