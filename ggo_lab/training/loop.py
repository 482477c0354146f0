"""The loop: fine-tune, watch the validation loss, keep the best state."""

import math
import time
from copy import deepcopy
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ggo_lab.backbones import Backbone
from ggo_lab.images import ImageSet
from ggo_lab.training.batches import grade_weights, training_batches
from ggo_lab.training.checkpoints import Checkpoint, Progress, changing_state
from ggo_lab.training.checks import check_splits, check_unfreezing
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.devices import choose_device, device_name, on_device, reproducible
from ggo_lab.training.history import COLUMNS, History
from ggo_lab.training.memory import Memory
from ggo_lab.training.speed import choose_speed, memory_format
from ggo_lab.training.steps import diverged, make_optimizer, score, train_epoch


def fit(
    model: Backbone,
    train: ImageSet,
    validation: ImageSet,
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> History:
    """Fine-tune a model; leave it with the state of the best validation accuracy, in evaluation mode.

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
    check_splits(train, validation)
    check_unfreezing(model, config)
    device = choose_device(config.device)
    kept = None if checkpoint is None else Checkpoint(checkpoint, model, train, validation, config)
    images, targets = on_device(train, device)
    unseen, unseen_targets = on_device(validation, device)
    model.to(device)
    model.ordinal = config.loss == "corn"
    class_weights = grade_weights(targets) if config.balance == "loss" else None
    memory = Memory()
    speed = (kept and kept.speed) or choose_speed(model, images, targets, config, memory)
    model.to(memory_format=memory_format(speed))
    optimizer = make_optimizer(model, config)
    draws = torch.Generator().manual_seed(config.seed)  # of the order and the mirroring

    for _ in range(sum(epoch <= (kept.epochs if kept else 0) for epoch in config.unfreeze_at)):
        optimizer.add_param_group({"params": model.unfreeze()})
    interrupted = False
    with reproducible(config.seed, device), _bar(config.max_epochs, progress) as bar:
        so_far = kept.resume(model, optimizer, draws, memory) if kept else Progress()
        bar.update(len(so_far.rows))
        try:
            for epoch in range(len(so_far.rows) + 1, config.max_epochs + 1):
                if so_far.epochs_without_better >= config.patience:
                    break
                start = time.perf_counter()
                if epoch in config.unfreeze_at:
                    optimizer.add_param_group({"params": model.unfreeze()})
                batches = training_batches(images, targets, config, draws)
                train_loss, train_accuracy = train_epoch(model, batches, optimizer, speed, epoch, memory, class_weights)
                loss, accuracy = score(model, unseen, unseen_targets)
                if not math.isfinite(loss):
                    raise diverged(f"The validation loss is {loss} after epoch {epoch}", model, optimizer)
                so_far.rows.append((epoch, train_loss, train_accuracy, loss, accuracy, time.perf_counter() - start))
                if (accuracy, -loss) > so_far.best:
                    # A copy: the tensors of the state are the model's own, and go on changing.
                    so_far.best, so_far.best_epoch = (accuracy, -loss), epoch
                    so_far.best_state = deepcopy(changing_state(model, config))
                if loss < so_far.least_loss - config.min_delta:
                    so_far.least_loss, so_far.epochs_without_better = loss, 0
                else:
                    so_far.epochs_without_better += 1
                if kept:
                    kept.store(model, optimizer, draws, memory, so_far, speed)
                bar.update()
                bar.set_postfix_str(f"validation loss {loss:.2f}, accuracy {accuracy:.2f}")
        except KeyboardInterrupt:
            if not so_far.best_state:
                raise
            interrupted = True
    model.load_state_dict(so_far.best_state, strict=False)
    model.eval()
    model.recipe = train.recipe
    early = so_far.epochs_without_better >= config.patience
    ended = "interrupted" if interrupted else "early" if early else "max_epochs"
    table = pd.DataFrame(so_far.rows, columns=COLUMNS).assign(best=lambda made: made["epoch"] == so_far.best_epoch)
    return History(table, so_far.best_epoch, ended, config, speed, device_name(device), memory.images_at_once)


def _bar(epochs: int, progress: bool) -> tqdm:
    return tqdm(total=epochs, desc="epochs", delay=2, leave=False, disable=not progress)
