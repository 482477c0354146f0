"""The loop: fine-tune, watch the validation loss, keep the best state."""

import math
import time
from copy import deepcopy

import pandas as pd
import torch
from tqdm.auto import tqdm

from ggo_lab.backbones import Backbone
from ggo_lab.images import ImageSet
from ggo_lab.training.batches import training_batches
from ggo_lab.training.checks import check_splits
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.devices import choose_device, device_name, on_device, reproducible
from ggo_lab.training.history import History
from ggo_lab.training.speed import choose_speed, memory_format
from ggo_lab.training.steps import diverged, make_optimizer, score, train_epoch


def fit(
    model: Backbone,
    train: ImageSet,
    validation: ImageSet,
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
) -> History:
    """Fine-tune a model; leave it with the state of the best validation accuracy, in evaluation mode.

    Interrupted (Ctrl-C, or the stop button of a notebook), it keeps the best state so far.

    Args:
        train: teaches.
        validation: decides when to stop and which state is kept. Nothing else is looked at.
        progress: show a bar of epochs.
    Raises:
        CohortError: an empty split, unknown grades, or a patient in both splits.
        ChoiceError: a device that is not there.
        ModelError: images that do not fit the network, or a loss that is no longer a number.
    """
    check_splits(train, validation)
    device = choose_device(config.device)
    images, targets = on_device(train, device)
    unseen, unseen_targets = on_device(validation, device)
    model.to(device)
    speed = choose_speed(model, images, targets, config)
    model.to(memory_format=memory_format(speed))
    optimizer = make_optimizer(model, config)
    draws = torch.Generator().manual_seed(config.seed)  # of the order and the mirroring

    rows, ended = [], "max_epochs"
    best, best_state, best_epoch = (-math.inf, -math.inf), None, 0
    least_loss, epochs_without_better = math.inf, 0
    with reproducible(config.seed, device), _bar(config.max_epochs, progress) as bar:
        try:
            for epoch in range(1, config.max_epochs + 1):
                start = time.perf_counter()
                batches = training_batches(images, targets, config, draws)
                train_loss, train_accuracy = train_epoch(model, batches, optimizer, speed, epoch)
                loss, accuracy = score(model, unseen, unseen_targets)
                if not math.isfinite(loss):
                    raise diverged(f"The validation loss is {loss} after epoch {epoch}", model, optimizer)
                rows.append((epoch, train_loss, train_accuracy, loss, accuracy, time.perf_counter() - start))
                if (accuracy, -loss) > best:
                    # A copy: the tensors of state_dict() are the model's own, and go on changing.
                    best, best_state, best_epoch = (accuracy, -loss), deepcopy(model.state_dict()), epoch
                if loss < least_loss - config.min_delta:
                    least_loss, epochs_without_better = loss, 0
                else:
                    epochs_without_better += 1
                bar.update()
                bar.set_postfix_str(f"validation loss {loss:.2f}, accuracy {accuracy:.2f}")
                if epochs_without_better >= config.patience:
                    ended = "early"
                    break
        except KeyboardInterrupt:
            if best_state is None:
                raise
            ended = "interrupted"
    model.load_state_dict(best_state)
    model.eval()
    model.recipe = train.recipe
    columns = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"]
    table = pd.DataFrame(rows, columns=columns).assign(best=lambda made: made["epoch"] == best_epoch)
    return History(table, best_epoch, ended, config, speed, device_name(device))


def _bar(epochs: int, progress: bool) -> tqdm:
    return tqdm(total=epochs, desc="epochs", delay=2, leave=False, disable=not progress)
