"""The whole study of Zeiler & Fergus (2014) on a model of one's own: what needs both training and interpretation."""

from .ablation import Ablation, ablation, rebuilt, resized, without
from .study import Study, read_boxes, run_study
from .transfer import Features, Transfer, frozen_features, plot_transfer, transfer

__all__ = [
    "Study", "run_study", "read_boxes",
    "Ablation", "ablation", "rebuilt", "resized", "without",
    "Features", "Transfer", "frozen_features", "plot_transfer", "transfer",
]
