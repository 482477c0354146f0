"""Mistakes in the numbers: selecting on the test split, miscounted losses, states not copied, accuracy alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from ggo_lab.errors import ChoiceError
from ggo_lab.evaluation import Predictions, Report
from ggo_lab.pitfalls.verdict import Verdict

_TOLERANCE = 1e-4  # of a loss, in which rounding differs
_ENOUGH = 3  # scans of a class, none of which was recognised, that are no accident


def plant_test_selection(test: Sequence[Predictions]) -> int:
    """Choose the state (its position) that is most accurate on the test split."""
    return int(np.argmax([_accuracy(state) for state in test]))


def find_test_selection(validation: Sequence[Predictions], test: Sequence[Predictions], chosen: int) -> Verdict:
    """See whether a state was chosen that validation would not choose and the test split would.

    Args:
        validation: predictions of every state that stood for choice.
        test: of the same states, in the same order.
        chosen: the position of the one reported.
    """
    if len(validation) != len(test) or not 0 <= chosen < len(test):
        raise ChoiceError(
            f"{len(validation)} and {len(test)} states, of which {chosen} was chosen, do not fit.", chosen
        )
    on_validation, on_test = (np.array([_accuracy(state) for state in states]) for states in (validation, test))
    by_rule = on_validation == on_validation.max()
    caught = not by_rule[chosen] and on_test[chosen] == on_test.max()
    return Verdict(
        bool(caught),
        f"of {len(test)} states number {chosen} was reported: validation accuracy {on_validation[chosen]:.2f} (best "
        f"{on_validation.max():.2f}), test accuracy {on_test[chosen]:.2f} (best {on_test.max():.2f}; "
        f"{on_test[by_rule].mean():.2f} for what validation chooses).",
    )


def _accuracy(predictions: Predictions) -> float:
    known = predictions.known
    return float(np.mean(known.predicted == known.labels))


def plant_last_batch_loss(losses: Sequence[float], sizes: Sequence[int]) -> float:
    """Report the last batch's loss as the epoch's."""
    return float(losses[-1])


def plant_mean_of_batches(losses: Sequence[float], sizes: Sequence[int]) -> float:
    """Average the batches' mean losses as if all batches were of one size."""
    return float(np.mean(losses))


def find_wrong_loss(reported: float, losses: Sequence[float], sizes: Sequence[int]) -> Verdict:
    """Hold the loss that was reported for an epoch against the mean over its images.

    Args:
        reported: the number under suspicion.
        losses: mean loss of every batch.
        sizes: number of images in every batch.
    """
    right = float(np.average(losses, weights=sizes))
    return Verdict(
        abs(reported - right) > _TOLERANCE * max(1.0, abs(right)),
        f"reported {reported:.4f}; the mean over the images is {right:.4f}.",
    )


def plant_uncopied_state(model: nn.Module) -> dict[str, Tensor]:
    """Keep the best state without a copy: what is kept goes on learning."""
    return model.state_dict()


def find_uncopied_state(kept: dict[str, Tensor], model: nn.Module) -> Verdict:
    """See whether a kept state is still the model's own memory."""
    own = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
    shared = [name for name, tensor in kept.items() if tensor.numel() and tensor.data_ptr() in own]
    return Verdict(bool(shared), f"{len(shared)} of {len(kept)} tensors that were kept are the model's own.")


def plant_majority(predictions: Predictions) -> Predictions:
    """Give every scan the commonest class, which no network is needed for."""
    classes = len(predictions.task)
    commonest = np.bincount(predictions.known.labels, minlength=classes).argmax()
    return replace(predictions, probabilities=np.tile(np.eye(classes)[commonest], (len(predictions), 1)))


def find_accuracy_trap(report: Report) -> Verdict:
    """See whether an accuracy says less than it seems: no better than the commonest class, or a class never found."""
    low, majority = report.interval("accuracy").low, float(report.scores.loc["accuracy", "majority"])
    classes = report.per_class
    missed = classes.index[(classes["scans"] >= _ENOUGH) & (classes["recall"] == 0)].tolist()
    never = f" None of the {' or '.join(missed)} scans was recognised." if missed else ""
    return Verdict(
        bool(low <= majority or missed),
        f"accuracy {report.scores.loc['accuracy', 'value']:.2f} (95% interval from {low:.2f}); the commonest class for "
        f"all gives {majority:.2f}; macro-F1 {report.macro_f1:.2f}.{never}",
    )
