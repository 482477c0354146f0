"""Fine-tune a network: the loop, early stopping, the best state, and model files."""

from ggo_lab.training.batches import training_batches
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.history import History
from ggo_lab.training.loop import fit
from ggo_lab.training.model_files import load_model, save_model
from ggo_lab.training.steps import score, train_epoch

__all__ = [
    "PLAIN",
    "History",
    "Speed",
    "TrainConfig",
    "fit",
    "load_model",
    "save_model",
    "score",
    "train_epoch",
    "training_batches",
]
