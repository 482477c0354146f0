"""What happened in a training run, epoch by epoch."""

from dataclasses import dataclass, field

import pandas as pd

from ggo_lab.training.config import Speed, TrainConfig

# Of the table, before `best` is added.
COLUMNS = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"]


@dataclass(frozen=True, eq=False)
class History:
    """What happened in a training run.

    Attributes:
        table: a row an epoch: epoch (from 1), train_loss and train_accuracy (while learning, so of a network that was
            changing), validation_loss, validation_accuracy, seconds, best (True for the epoch that was kept).
        best_epoch: the epoch whose state the model now holds: best validation accuracy, then lower loss.
        ended: "early" (no better loss for `patience` epochs), "max_epochs" or "interrupted".
        config: the settings.
        speed: the speed settings used.
        tried: seconds per step of each setting that was tried on this machine to choose them, fastest first (inf: it
            cannot be used here); empty where none was.
        device: where it ran.
        images_at_once: how many went through the network at once where its memory did not hold a batch; else None.
        views: of each image, for which the outputs of frozen layers were computed once; 0 where every step computed
            all layers.
    """

    table: pd.DataFrame
    best_epoch: int
    ended: str
    config: TrainConfig
    speed: Speed
    device: str
    images_at_once: int | None = None
    views: int = 0
    tried: dict[Speed, float] = field(default_factory=dict)

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss had reached its plateau."""
        return self.ended == "early"

    def __repr__(self) -> str:
        best = self.table[self.table["best"]].iloc[0]
        why = {
            "early": f"no lower validation loss for {self.config.patience} epochs",
            "max_epochs": "max_epochs reached",
            "interrupted": "interrupted",
        }[self.ended]
        return (
            f"History: {len(self.table)} epochs in {self.table['seconds'].sum():.0f} s on {self.device} ({why}); kept "
            f"epoch {self.best_epoch}: validation accuracy {best['validation_accuracy']:.2f}, loss "
            f"{best['validation_loss']:.2f}"
        )
