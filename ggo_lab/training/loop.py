"""The loop: learn from every batch, judge, keep the best state, stop in time. All else wraps it from outside."""

import time
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from ggo_lab.backbones import backbone_of
from ggo_lab.images import ImageSet
from ggo_lab.settled import settled
from ggo_lab.training.batches import Memory, Views, batches_of, place, training_batches
from ggo_lab.training.checkpoints import Checkpoint, changing_state, put_back
from ggo_lab.training.checks import check_fit
from ggo_lab.training.config import TrainConfig, make_optimizer
from ggo_lab.training.devices import choose_device, reproducible
from ggo_lab.training.history import History, history_of, progress_bar
from ggo_lab.training.losses import LOSSES, Loss, Weights, main_logits
from ggo_lab.training.prefix import frozen_once
from ggo_lab.training.ranks import share, summed, with_other_ranks
from ggo_lab.training.speed import choose_speed, compiled, set_speed
from ggo_lab.training.tally import Tally, check_finite


@settled()
def fit(
    model: nn.Module,
    train: ImageSet,
    validation: ImageSet,
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> History:
    """Fine-tune a model; leave it with the state of the best validation accuracy, in evaluation mode.

    The same seed gives the same numbers on one machine; with another number of threads sums are added in another order,
    and weights differ by rounding errors (in the tests less than 0.1% of what was learnt), which deep networks with
    BatchNorm on few images enlarge from epoch to epoch. Interrupted (Ctrl-C, or the stop button of a notebook), it
    keeps the best state so far.

    Args:
        model: of build_backbone or Backbone.around.
        train: the images that the model learns from.
        validation: decides when to stop and which state is kept. Nothing else is looked at.
        config: the settings.
        progress: whether to show a bar of epochs.
        checkpoint: a file written at the end of each epoch. Where it exists, the run goes on from there: give the
            same arguments, and a model built in the same way. Only max_epochs may be another.

    Raises:
        CohortError: an empty split, unknown labels, or a patient in both splits.
        ChoiceError: a device that is not there, or settings that do not fit the model.
        ModelError: images that do not fit the network, a loss that is no longer a number, a device too small for two
            images, or the checkpoint of another run.
    """
    model = backbone_of(model)
    check_fit(model, train, validation, config)
    device, loss_of = choose_device(config.device), LOSSES[config.loss]
    kept = Checkpoint(checkpoint, model, train, validation, config)
    speed = kept.speed or choose_speed(model, config, device)
    set_speed(model.to(device), speed)
    model.reading = loss_of.reading
    images, labels = place(train, device)  # once: a whole cohort is small
    judged, judged_labels = share(*place(validation, device))
    optimizer, draws = make_optimizer(model, config), torch.Generator().manual_seed(config.seed)
    weights_of, memory, interrupted = Weights(labels, len(model.task), config.balance == "loss"), Memory(), False

    # Each of these wraps the loop from outside; without its line training is slower, or stops where it could go on.
    learner: nn.Module = model
    inputs: Tensor | Views = images
    gradients_of = gradients
    if model.extent != "all":  # layers that never change are computed once
        learner, inputs, judged = frozen_once(model, images, judged, config, speed, progress)
    learner = compiled(learner, speed)
    gradients_of = memory.in_parts(gradients_of)  # a batch that the device does not hold
    learner, gradients_of = with_other_ranks(learner, gradients_of)  # the processes of torchrun

    with reproducible(config.seed, device), progress_bar(config, progress) as bar:
        so_far = kept.resume(model, optimizer, draws, memory)  # where a run that was killed had arrived
        try:
            for epoch in so_far.epochs_left(config):
                start, tally = time.perf_counter(), Tally()
                if epoch in config.unfreeze_at:
                    optimizer.add_param_group({"params": model.unfreeze()})
                # Learn from every image once.
                learner.train()
                for batch, truth in training_batches(inputs, labels, config, draws):
                    optimizer.zero_grad()
                    batch_loss, right = gradients_of(learner, loss_of, batch, truth, weights_of(truth))
                    optimizer.step()
                    tally.add(batch_loss, right, len(truth))
                train_loss, train_accuracy = tally.means(epoch, model, optimizer)
                # Judge on images that nothing is learnt from.
                loss, accuracy = score(learner, judged, judged_labels, loss_of)
                check_finite(loss, epoch, model, optimizer)
                so_far.rows.append((epoch, train_loss, train_accuracy, loss, accuracy, time.perf_counter() - start))
                # Keep the best state: by accuracy, of equal ones that with the lower loss.
                if (accuracy, -loss) > so_far.best:
                    # A copy: the tensors of the state are the model's own, and go on changing.
                    so_far.best, so_far.best_epoch = (accuracy, -loss), epoch
                    so_far.best_state = deepcopy(changing_state(model, config))
                # Stop where the validation loss has not fallen for `patience` epochs.
                so_far.waited += 1
                if loss < so_far.least_loss - config.min_delta:
                    so_far.least_loss, so_far.waited = loss, 0
                kept.store(model, optimizer, draws, memory, so_far, speed)
                bar(so_far)
                if so_far.waited >= config.patience:
                    break
        except KeyboardInterrupt:
            if not so_far.best_state:
                raise
            interrupted = True
    put_back(changing_state(model, config), so_far.best_state)
    model.eval().recipe = train.recipe
    return history_of(so_far, config, speed, device, interrupted, memory.images_at_once, inputs)


def gradients(
    model: nn.Module, loss_of: Loss, images: Tensor, labels: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the gradients of a batch's mean loss to those there are; return that loss, and how many were right."""
    outputs = model(images)
    loss = (weights * loss_of(outputs, labels)).sum()
    loss.backward()
    return loss.detach(), (main_logits(outputs).argmax(dim=1) == labels).sum()


@torch.inference_mode()
def score(
    model: nn.Module, images: Tensor, labels: Tensor, loss_of: Loss = LOSSES["cross_entropy"]
) -> tuple[float, float]:
    """Return the mean loss and the accuracy on images that the model does not learn from.

    Always in 32-bit arithmetic, so that the state is chosen by the numbers that `predict` will find again.

    Args:
        model: a Backbone, or what stands in its place.
        images: uint8 (N, C, H, W), on the model's device or still in the memory map.
        labels: int64 (N,), on the model's device.
        loss_of: the loss.
    """
    model.eval()
    loss_sum = right = torch.zeros((), dtype=torch.float64, device=labels.device)
    for batch, truth in batches_of(images, labels):
        logits = model(batch)
        loss_sum = loss_sum + loss_of(logits, truth).sum()
        right = right + (logits.argmax(dim=1) == truth).sum()
    # Over all images, of all ranks: averages of batches would count a small last batch as much as a full one.
    loss, accuracy = (summed(torch.stack([loss_sum, right])) / summed(torch.tensor(len(labels)).to(right))).tolist()
    return loss, accuracy
