"""Fine-tune a network: the loop, early stopping, the best state, and model files."""

from ggo_lab.training.batches import training_batches
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.history import History
from ggo_lab.training.loop import fit, score
from ggo_lab.training.losses import LOSSES, Loss
from ggo_lab.training.model_files import load_model, save_model
from ggo_lab.training.speed import fastest, set_speed

__all__ = [
    "LOSSES",
    "PLAIN",
    "History",
    "Loss",
    "Speed",
    "TrainConfig",
    "fastest",
    "fit",
    "load_model",
    "save_model",
    "score",
    "set_speed",
    "training_batches",
]
