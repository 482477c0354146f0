"""CORN: read a network's four outputs as grades in an order, so that a near miss costs less than a far one."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def corn_logits(outputs: Tensor) -> Tensor:
    """Turn four outputs into the log-probabilities of grades that follow each other.

    Grades are climbed like stairs, after CORN (Shi, Cao and Raschka 2021, arXiv:2111.08851): the difference between
    an output and the one before is the log-odds of "higher still, given that it is at least this high". The
    probability of a grade is that of climbing so far and no farther.

    Log-probabilities are logits too: their softmax gives the probabilities back, and their cross-entropy, times the
    images and divided by the questions asked, is CORN's loss. So nothing else in the package needs to know.

    Args:
        outputs: float (B, 4), of the network.
    Returns: float (B, 4), at most 0.

    >>> corn_logits(torch.zeros(1, 4)).exp()
    tensor([[0.5000, 0.2500, 0.1250, 0.1250]])
    """
    higher = outputs.float().diff(dim=1)
    start = torch.zeros_like(outputs[:, :1], dtype=torch.float32)
    climbed = torch.cat([start, logsigmoid(higher).cumsum(dim=1)], dim=1)
    stayed = torch.cat([logsigmoid(-higher), start], dim=1)  # above the last grade there is nothing
    return climbed + stayed
