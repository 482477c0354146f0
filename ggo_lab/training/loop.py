"""The loop: fine-tune, watch the validation loss, keep the best state."""

import math
import time
from copy import deepcopy
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ggo_lab.backbones import Backbone
from ggo_lab.images import ImageSet
from ggo_lab.training.checkpoints import Progress, changing_state
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.devices import device_name, freed_memory_kept, reproducible
from ggo_lab.training.history import COLUMNS, History
from ggo_lab.training.ranks import rank_and_size
from ggo_lab.training.setup import Run, set_up
from ggo_lab.training.steps import diverged, score, train_epoch


@freed_memory_kept()
def fit(
    model: Backbone,
    train: ImageSet,
    validation: ImageSet,
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> History:
    """Fine-tune a model; leave it with the state of the best validation accuracy, in evaluation mode.

    The same seed gives the same numbers on one machine; with another number of threads sums are added in another order,
    and weights differ by rounding errors (in the tests less than 0.1% of what was learnt), which deep networks with
    BatchNorm on few images enlarge from epoch to epoch.

    Interrupted (Ctrl-C, or the stop button of a notebook), it keeps the best state so far.

    Args:
        train: teaches.
        validation: decides when to stop and which state is kept. Nothing else is looked at.
        progress: show a bar of epochs.
        checkpoint: a file written at the end of each epoch. Where it exists, the run goes on from there: give the
            same arguments, and a model built in the same way. Only max_epochs may be another.
    Raises:
        CohortError: an empty split, unknown grades, or a patient in both splits.
        ChoiceError: a device that is not there.
        ModelError: images that do not fit the network, a loss that is no longer a number, a device too small for two
            images, or the checkpoint of another run.
    """
    rank, _ = rank_and_size()  # (0, 1) unless torchrun has started several processes
    run = set_up(model, train, validation, config, progress, checkpoint)
    interrupted = False
    with reproducible(config.seed + rank, run.device), _bar(config.max_epochs, progress and not rank) as bar:
        so_far = run.resume()
        bar.update(len(so_far.rows))
        try:
            for epoch in range(len(so_far.rows) + 1, config.max_epochs + 1):
                if so_far.epochs_without_better >= config.patience:
                    break
                start = time.perf_counter()
                if epoch in config.unfreeze_at:
                    run.unfreeze()
                # Learn from every image once, then judge on images that nothing is learnt from.
                train_loss, train_accuracy = train_epoch(
                    run.learner, run.batches(), run.optimizer, run.speed, epoch, run.memory, run.class_weights
                )
                loss, accuracy = score(run.learner, run.unseen, run.unseen_targets)
                if not math.isfinite(loss):
                    raise diverged(f"The validation loss is {loss} after epoch {epoch}", model, run.optimizer)
                so_far.rows.append((epoch, train_loss, train_accuracy, loss, accuracy, time.perf_counter() - start))
                # Keep the best state: by accuracy, of equal ones that with the lower loss.
                if (accuracy, -loss) > so_far.best:
                    # A copy: the tensors of the state are the model's own, and go on changing.
                    so_far.best, so_far.best_epoch = (accuracy, -loss), epoch
                    so_far.best_state = deepcopy(changing_state(model, config))
                # Count the epochs without a better loss, by which the first lines above stop early.
                if loss < so_far.least_loss - config.min_delta:
                    so_far.least_loss, so_far.epochs_without_better = loss, 0
                else:
                    so_far.epochs_without_better += 1
                run.store(so_far)
                bar.update()
                bar.set_postfix_str(f"validation loss {loss:.2f}, accuracy {accuracy:.2f}")
        except KeyboardInterrupt:
            if not so_far.best_state:
                raise
            interrupted = True
    model.load_state_dict(so_far.best_state, strict=False)
    model.eval()
    model.recipe = train.recipe
    return _history(so_far, run, interrupted)


def _history(so_far: Progress, run: Run, interrupted: bool) -> History:
    early = so_far.epochs_without_better >= run.config.patience
    return History(
        table=pd.DataFrame(so_far.rows, columns=COLUMNS).assign(best=lambda made: made["epoch"] == so_far.best_epoch),
        best_epoch=so_far.best_epoch,
        ended="interrupted" if interrupted else "early" if early else "max_epochs",
        config=run.config,
        speed=run.speed,
        device=device_name(run.device),
        images_at_once=run.memory.images_at_once,
        views=run.views,
        tried=run.tried,
    )


def _bar(epochs: int, progress: bool) -> tqdm:
    return tqdm(total=epochs, desc="epochs", delay=2, leave=False, disable=not progress)
