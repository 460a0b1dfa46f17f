"""Training: the loop, what it keeps and writes, and how well a model does."""

from .callbacks import Callback, EarlyStopping
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .diagnosis import NonFiniteError
from .evaluation import Evaluation, evaluate, predict
from .history import EpochRecord, History
from .interrupt import TrainingInterrupted
from .state import State
from .trainer import Trainer

__all__ = [
    "Trainer", "State", "TrainingInterrupted", "NonFiniteError",
    "Callback", "EarlyStopping",
    "Checkpoint", "save_checkpoint", "load_checkpoint",
    "Evaluation", "evaluate", "predict",
    "EpochRecord", "History",
]  # fmt: skip
