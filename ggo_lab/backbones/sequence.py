"""A CNN with a GRU over the slices of a scan: the reference of the challenge's organisers."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

_HIDDEN = 128  # numbers that the GRU remembers in each direction


class SliceGru(nn.Module):
    """Every slice is seen by the same CNN, then a GRU reads what was seen, from feet to head and back.

    Slices come as (B, C, 3, H, W), C being any number. A scan with fewer slices than others of its batch is filled up
    with slices of one grey, such as black: they hold nothing to see, and neither part looks at them.
    """

    def __init__(self, cnn: nn.Module, features: int, classes: int):
        """Put the two together.

        Args:
            cnn: gives (B, features) for images (B, 3, H, W).
            features: numbers that the CNN gives for a slice.
            classes: outputs.
        """
        super().__init__()
        self.slices = SliceReader(cnn, features)
        self.grader = GruGrader(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs (B, K) of normalised slices (B, C, 3, H, W)."""
        return self.grader(self.slices(images))


class SliceReader(nn.Module):
    """Let the CNN see each slice on its own."""

    traced_whole = True  # torch.fx cannot follow what depends on the number of slices

    def __init__(self, cnn: nn.Module, features: int):
        """See SliceGru."""
        super().__init__()
        self.cnn, self.features = cnn, features

    def forward(self, images: Tensor) -> Tensor:
        """Return float (B, C, features + 1): what was seen, and in the last column 1, or 0s for an empty slice."""
        not_empty_slices = not_empty(images[:, :, 0])
        features = self.cnn(images[not_empty_slices])
        read = features.new_zeros(*not_empty_slices.shape, self.features + 1)
        read[not_empty_slices] = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
        return read


class GruGrader(nn.Module):
    """Read the slices' features in order, both ways, and grade the scan."""

    traced_whole = True

    def __init__(self, features: int, classes: int):
        """See SliceGru."""
        super().__init__()
        self.gru = nn.GRU(features, _HIDDEN, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * _HIDDEN, classes)

    def forward(self, read: Tensor) -> Tensor:
        """Return the outputs (B, K) of what SliceReader gives."""
        places = torch.arange(1, read.shape[1] + 1, device=read.device)
        lengths = (places * read[:, :, -1]).amax(1).long().cpu()  # up to the last slice that is there
        packed = pack_padded_sequence(read[:, :, :-1], lengths, batch_first=True, enforce_sorted=False)
        _, ends = self.gru(packed)
        return self.fc(torch.cat([ends[0], ends[1]], dim=1))


def not_empty(images: Tensor) -> Tensor:
    """Mark the slices of images (B, C, H, W) that hold anything to see, bool (B, C); of an empty scan, the first."""
    grey = images.flatten(2)
    holds_image = grey.amax(2) > grey.amin(2)
    holds_image[:, 0] = True
    return holds_image
