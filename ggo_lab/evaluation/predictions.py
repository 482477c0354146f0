"""What a network says of scans: probabilities beside the truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ggo_lab.backbones import Backbone
from ggo_lab.errors import CohortError, ModelError
from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.images import ImageSet

_BATCH = 64  # images at once; it changes memory and time, not the result


@dataclass(frozen=True, eq=False)
class Predictions:
    """The probabilities that a network (or a rule) gives to scans, and what is known of them.

    Attributes:
        names, patients: of each scan, N of them; no name twice.
        indices: int64 (N,), true grade - 1; -1 where it is not known.
        probabilities: float64 (N, 4), each row sums to 1.
        made_by: what made them, for tables and titles.
    """

    names: list[str]
    patients: list[str]
    indices: np.ndarray
    probabilities: np.ndarray
    made_by: str = "network"

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", np.asarray(self.indices))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, np.float64))
        n = len(self.names)
        if self.probabilities.shape != (n, len(Grade)) or len(self.patients) != n or self.indices.shape != (n,):
            raise CohortError(
                f"{n} names, {len(self.patients)} patients, indices {self.indices.shape} and probabilities "
                f"{self.probabilities.shape} do not fit together; N scans need probabilities ({n}, {len(Grade)})."
            )
        sums = self.probabilities.sum(axis=1)
        if not ((self.probabilities >= 0).all() and np.allclose(sums, 1, atol=1e-4)):
            raise CohortError(
                "Some rows of probabilities are negative, not numbers, or do not sum to 1; pass logits through softmax "
                "first."
            )
        if n and (self.indices.dtype.kind not in "iu" or not np.isin(self.indices, [-1, *range(len(Grade))]).all()):
            raise CohortError(
                f"indices hold {sorted(set(self.indices.tolist()))[:6]} ({self.indices.dtype}); they must be whole "
                "numbers, grade - 1, from 0 to 3, and -1 where the grade is not known."
            )
        if len(set(self.names)) < n:
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise CohortError(
                f"{len(twice)} scans have more than one prediction, such as {twice[0]}; give each scan one, and a name "
                "of its own.",
                twice,
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,): index (grade - 1) of the most probable grade."""
        return self.probabilities.argmax(axis=1)

    @property
    def known(self) -> "Predictions":
        """Those whose true grade is known, which can be judged."""
        return self.subset(self.indices >= 0)

    def subset(self, rows: np.ndarray) -> "Predictions":
        """The predictions of the given rows: a boolean mask or positions."""
        positions = np.arange(len(self))[rows]
        return Predictions(
            [self.names[i] for i in positions],
            [self.patients[i] for i in positions],
            self.indices[positions],
            self.probabilities[positions],
            self.made_by,
        )

    def in_order_of(self, names: list[str], called: str) -> "Predictions":
        """The predictions for these scans, in their order.

        Args:
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
        return self.subset(np.array([row_of[scan] for scan in names]))

    def to_frame(self) -> pd.DataFrame:
        """A row a scan: name, patient, true grade, predicted grade (both 1..4) and the four probabilities."""
        true = pd.Series(self.indices + 1, dtype="Int64").mask(self.indices < 0)
        frame = pd.DataFrame({"name": self.names, "patient": self.patients, "grade": true})
        frame["predicted"] = self.predicted + 1
        return frame.assign(**dict(zip(GRADE_NAMES, self.probabilities.T, strict=True)))

    def __repr__(self) -> str:
        known = int((self.indices >= 0).sum())
        return f"Predictions by {self.made_by} for {len(self)} scans, {known} of known grade"


@torch.inference_mode()
def predict(model: Backbone, images: ImageSet, flips: bool = False) -> Predictions:
    """Give a model's probabilities for every image, on the device where the model is.

    Args:
        flips: average the probabilities of each image and of its mirror image (test-time augmentation).
    Raises:
        CohortError: no image.
        ModelError: images made by another recipe than those the model was fitted on.
    """
    if len(images) == 0:
        raise CohortError("There is no image to predict on; is the split empty?")
    if model.recipe is not None and model.recipe != images.recipe:
        raise ModelError(
            f"The model was fitted on images made by {model.recipe}, and these were made by {images.recipe}; its "
            "answers would mean nothing. Prepare the cohort with model.recipe.",
            images.recipe,
        )
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.array(images.pixels[start : start + _BATCH])).to(device)
        shares = model(batch).double().softmax(dim=1)
        if flips:
            shares = (shares + model(batch.flip(-1)).double().softmax(dim=1)) / 2
        parts.append(shares.cpu())
    return Predictions(images.names, images.patients, images.indices, torch.cat(parts).numpy(), model.name)
