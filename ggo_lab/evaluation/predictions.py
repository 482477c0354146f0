"""What a network says of scans: probabilities beside the truth."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ggo_lab.backbones import Backbone, backbone_of, batches_for
from ggo_lab.cohort.splits import Splits, checked_labels, positions_of
from ggo_lab.errors import CohortError, ModelError
from ggo_lab.images import ImageSet
from ggo_lab.settled import settled
from ggo_lab.tasks import GGO_SEVERITY, Task
from ggo_lab.training.prefix import features_of


@dataclass(frozen=True, eq=False)
class Predictions(Splits):
    """The probabilities that a network (or a rule) gives to scans, and what is known of them.

    Attributes:
        table: a row a scan, N of them: name (no name twice), label (0..K-1, missing where unknown), and, where given,
            patient (the name, if left out), split and whatever else. The table of a Cohort or an ImageSet will do.
        probabilities: float64 (N, K), each row sums to 1.
        task: what the K columns and the labels mean.
        made_by: what made them, for tables and titles.

    Raises:
        CohortError: parts that do not fit together, labels that the task does not have, rows that are no
            probabilities, or a name twice.
    """

    table: pd.DataFrame
    probabilities: np.ndarray
    task: Task = GGO_SEVERITY
    made_by: str = "network"

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self._checked_table())
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, np.float64))
        n = len(self.table)
        if self.probabilities.shape != (n, len(self.task)):
            raise CohortError(
                f"{n} scans and probabilities {self.probabilities.shape} do not fit together: {len(self.task)} classes "
                f"({', '.join(self.task.names)}) need probabilities ({n}, {len(self.task)}).",
                self.probabilities.shape,
            )
        if not np.isfinite(self.probabilities).all():
            raise CohortError(
                "Some probabilities are not numbers (nan or infinite): the network's weights may be. Look at its "
                "history: a loss that is nan means a learning rate that is too high."
            )
        if not ((self.probabilities >= 0).all() and np.allclose(self.probabilities.sum(axis=1), 1, atol=1e-4)):
            raise CohortError(
                "Some rows of probabilities are negative or do not sum to 1; pass logits through softmax first."
            )

    def _checked_table(self) -> pd.DataFrame:
        if "name" not in self.table:
            raise CohortError(f"The table of predictions has no column 'name'; it has {list(self.table.columns)}.")
        table = self.table.reset_index(drop=True)
        table["label"] = checked_labels(table, self.task)
        if "patient" not in table:
            table["patient"] = table["name"]
        twice = table["name"][table["name"].duplicated()].unique().tolist()
        if twice:
            raise CohortError(
                f"{len(twice)} scans have more than one prediction, such as {twice[0]}; give each scan one, and a name "
                "of its own.",
                twice,
            )
        return table

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,): label of the most probable class."""
        return self.probabilities.argmax(axis=1)

    @property
    def known(self) -> "Predictions":
        """Those whose true label is known, which can be judged."""
        return self.subset(self.labels >= 0)

    def subset(self, rows: np.ndarray) -> "Predictions":
        """Return the predictions of the given rows: a boolean mask or positions."""
        positions = positions_of(rows, len(self))
        return dataclasses.replace(self, table=self.table.iloc[positions], probabilities=self.probabilities[positions])

    def in_order_of(self, names: list[str], called: str) -> "Predictions":
        """Return the predictions for these scans, in their order.

        Args:
            names: of the scans.
            called: what these predictions are, to begin the message of an error.

        Raises:
            CohortError: some of the scans are not among them.
        """
        row_of = {scan: row for row, scan in enumerate(self.names)}
        absent = [scan for scan in names if scan not in row_of]
        if absent:
            raise CohortError(
                f"{called} has no prediction for {len(absent)} of the scans, such as {absent[0]}.", absent
            )
        return self.subset(np.array([row_of[scan] for scan in names], int))

    def to_frame(self) -> pd.DataFrame:
        """Return a row a scan: name, patient, split, label and predicted label (0..K-1), and the K probabilities.

        The columns of the probabilities are called by the classes.
        """
        frame = self.table[[column for column in ("name", "patient", "split", "label") if column in self.table]].copy()
        frame["predicted"] = pd.array(self.predicted, "Int64")
        return frame.assign(**dict(zip(self.task.names, self.probabilities.T, strict=True)))

    def __repr__(self) -> str:
        known = int(self._column("label").notna().sum())
        return f"Predictions by {self.made_by} for {len(self)} scans, {known} of known {self.task.noun}"


def known_of(predictions: Predictions) -> Predictions:
    """Return the predictions for scans of known label.

    Raises:
        CohortError: there are none.
    """
    judged = predictions.known
    if len(judged) == 0:
        raise CohortError(f"None of the {len(predictions)} scans has a known label, so there is nothing to judge.")
    return judged


@settled()
@torch.inference_mode()
def predict(model: Backbone, images: ImageSet, flips: bool = False, reuse_frozen: bool = False) -> Predictions:
    """Return a model's probabilities for every image, computed on the device where the model is.

    Args:
        model: fitted.
        images: made by the recipe that it was fitted on.
        flips: average the probabilities of each image and of its mirror image (test-time augmentation).
        reuse_frozen: take what frozen layers make of the images from the cache folder, or keep it there, as `fit` does:
            a large network whose head alone has learnt need not see the same images again. Without `flips`.

    Raises:
        CohortError: no image.
        ModelError: images made by another recipe than those the model was fitted on, or of another task.
    """
    model = backbone_of(model)
    if len(images) == 0:
        raise CohortError("There is no image to predict on; is the split empty?")
    if model.recipe is not None and model.recipe != images.recipe:
        raise ModelError(
            f"The model was fitted on images made by {model.recipe}, and these were made by {images.recipe}; its "
            "answers would mean nothing. Prepare the cohort with model.recipe.",
            images.recipe,
        )
    if model.task != images.task:
        raise ModelError(
            f"The model tells {', '.join(model.task.names)}, and the images are of {', '.join(images.task.names)}: its "
            "answers cannot be judged by them.",
            images.task,
        )
    learning = model.training
    try:
        return _predicted(model, images, flips, reuse_frozen)
    finally:
        model.train(learning)  # who asks in the middle of a training of their own goes on with it


def _predicted(model: Backbone, images: ImageSet, flips: bool, reuse_frozen: bool) -> Predictions:
    if reuse_frozen and not flips and (frozen := features_of(model, images.pixels)) is not None:
        rest, features = frozen
        shares = rest(features).double().softmax(dim=1).cpu()
        return Predictions(images.table, shares.numpy(), images.task, model.name)
    parts = []
    for batch in batches_for(model, images.pixels):
        shares = model(batch).double().softmax(dim=1)
        if flips:
            shares = (shares + model(batch.flip(-1)).double().softmax(dim=1)) / 2
        parts.append(shares.cpu())
    return Predictions(images.table, torch.cat(parts).numpy(), images.task, model.name)
