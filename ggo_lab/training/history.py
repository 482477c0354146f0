"""What happened in a training run, epoch by epoch."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from ggo_lab.progress import bar as bar_of
from ggo_lab.training.batches import Views
from ggo_lab.training.config import Speed, TrainConfig
from ggo_lab.training.devices import device_name
from ggo_lab.training.ranks import rank_and_size

SILENT_S = 2  # a run that takes no longer shows nothing
MOST_ROWS = 40  # epochs: of longer runs only the best so far have a row
# Of the table, before `best` is added.
COLUMNS = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"]


@dataclass
class Progress:
    """What `fit` remembers from epoch to epoch, besides the model."""

    rows: list[tuple] = field(default_factory=list)  # of the history's table
    best: tuple[float, float] = (-math.inf, -math.inf)  # validation accuracy, minus the loss
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    least_loss: float = math.inf  # of validation
    waited: int = 0  # epochs since the validation loss last fell

    def epochs_left(self, config: TrainConfig) -> range:
        """Return the numbers of the epochs that are still to come, unless the loss falls no more."""
        if self.waited >= config.patience:
            return range(0)
        return range(len(self.rows) + 1, config.max_epochs + 1)


@dataclass(frozen=True, eq=False)
class History:
    """What happened in a training run.

    Attributes:
        table: a row an epoch: epoch (from 1), train_loss and train_accuracy (while learning, so of a network that was
            changing), validation_loss, validation_accuracy, seconds, best (True for the epoch that was kept).
        best_epoch: the epoch whose state the model now holds: best validation accuracy, then lower loss.
        ended: "early" (no better loss for `patience` epochs), "max_epochs" or "interrupted".
        config: the settings.
        speed: how numbers lay in memory, and how precise the arithmetic was.
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


def history_of(
    so_far: Progress,
    config: TrainConfig,
    speed: Speed,
    device: torch.device,
    interrupted: bool,
    images_at_once: int | None,
    inputs: Tensor | Views,
) -> History:
    """Return the history of a run that has ended, whose batches came of `inputs`; see History for the arguments."""
    return History(
        table=pd.DataFrame(so_far.rows, columns=COLUMNS).assign(best=lambda made: made["epoch"] == so_far.best_epoch),
        best_epoch=so_far.best_epoch,
        ended="interrupted" if interrupted else "early" if so_far.waited >= config.patience else "max_epochs",
        config=config,
        speed=speed,
        device=device_name(device),
        images_at_once=images_at_once,
        views=len(inputs.views) if isinstance(inputs, Views) else 0,
    )


@contextmanager
def progress_bar(config: TrainConfig, shown: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar of epochs and a row for each; what it gives is called with the progress at the end of each.

    Nothing is shown of a run of less than two seconds. Of more than 40 epochs only those have a row that were the best
    so far. At the end a line says why it ended and which epoch was kept.
    """
    shown = shown and not rank_and_size()[0]
    start, rows_shown = time.monotonic(), 0
    with bar_of(config.max_epochs, "epochs", delay=SILENT_S, disable=not shown) as bar:
        so_far = Progress()

        def advance(now: Progress) -> None:
            nonlocal so_far, rows_shown
            so_far = now
            _, _, _, loss, accuracy, _ = so_far.rows[-1]
            # Drawn by the update, which keeps the bar's delay.
            bar.set_postfix_str(f"validation loss {loss:.2f}, accuracy {accuracy:.2f}", refresh=False)
            bar.update(len(so_far.rows) - bar.n)
            if shown and time.monotonic() - start > SILENT_S:
                lines, rows_shown = _rows(so_far, rows_shown, config.max_epochs > MOST_ROWS), len(so_far.rows)
                for line in lines:
                    bar.write(line, file=bar.fp)

        yield advance
        if rows_shown:
            bar.write(_end(so_far, config, time.monotonic() - start), file=bar.fp)


def _rows(so_far: Progress, after: int, best_only: bool) -> list[str]:
    """Write down the epochs after so many, a star where an epoch was the best so far; the head of the table first."""
    lines = [] if after else ["epoch   train loss, accuracy   validation loss, accuracy"]
    best = (-math.inf, -math.inf)
    for epoch, train_loss, train_accuracy, loss, accuracy, _ in so_far.rows:
        star, best = (accuracy, -loss) > best, max(best, (accuracy, -loss))
        if epoch > after and (star or not best_only):
            lines.append(
                f"{epoch:5}   {train_loss:10.3f}  {train_accuracy:8.2f}   {loss:15.3f}  {accuracy:8.2f}{' *' * star}"
            )
    return lines


def _end(so_far: Progress, config: TrainConfig, seconds: float) -> str:
    """Say why a run ended, and which epoch was kept."""
    done = len(so_far.rows)
    why = f"all {done} epochs" if done == config.max_epochs else f"stopped at epoch {done}: interrupted"
    if so_far.waited >= config.patience:
        why = f"stopped at epoch {done}: no lower validation loss for {config.patience} epochs"
    return f"{why}; kept epoch {so_far.best_epoch} *, accuracy {so_far.best[0]:.2f}; {seconds:.0f} s"
