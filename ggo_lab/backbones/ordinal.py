"""What a network's outputs stand for: logits, classes in an order (CORN), or the involvement, which the bands grade."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ggo_lab.tasks import Task

# An output moves the involvement by a quarter, about a band of the four grades, so that a learning rate that suits
# logits suits it too. The spread is that of a logistic distribution; it stays so wide that no image costs too much.
_PER_OUTPUT, _LEAST_SPREAD = 0.25, 0.02


def corn_logits(outputs: Tensor) -> Tensor:
    """Return the log-probabilities of classes in an order, from a network's outputs.

    After CORN (Shi, Cao and Raschka 2021, arXiv:2111.08851): the difference between an output and the one before is
    the log-odds of "higher than this class, given that it is at least this class". The probability of a class is that
    of being at least that high, and not higher.

    Log-probabilities are logits too: their softmax gives the probabilities back, and their cross-entropy, times the
    images and divided by the questions asked, is CORN's loss. So nothing else in the package needs to know.

    Args:
        outputs: float (B, K), of the network.

    Returns:
        Float32 (B, K), at most 0.

    >>> corn_logits(torch.zeros(1, 4)).exp()
    tensor([[0.5000, 0.2500, 0.1250, 0.1250]])
    """
    higher = outputs.float().diff(dim=1)
    start = torch.zeros_like(outputs[:, :1], dtype=torch.float32)
    at_least = torch.cat([start, logsigmoid(higher).cumsum(dim=1)], dim=1)
    not_higher = torch.cat([logsigmoid(-higher), start], dim=1)  # above the last class there is nothing
    return at_least + not_higher


def involvement_of(outputs: Tensor) -> Tensor:
    """Return the involvement that a network's first output stands for, float32 (B,), in no bounds: 0 stands for 0.5."""
    return 0.5 + _PER_OUTPUT * outputs[:, 0].float()


def involvement_logits(outputs: Tensor, task: Task) -> Tensor:
    """Return the log-probabilities of a task's classes where the network regresses the involvement.

    The first output is the involvement, the second says how sure it is (the width of a logistic distribution around
    it), further ones are not used. A class is as likely as the share of that distribution in its band. Their
    cross-entropy is the loss of regressing a number of which only the interval is known (grouped data; an ordered
    logistic model whose thresholds are given, McCullagh 1980): it needs the grades that data sets have, and no more.

    Args:
        outputs: float (B, K), of the network.
        task: with bands.

    Returns:
        Float32 (B, K), at most 0.

    >>> from ggo_lab.tasks import GGO_SEVERITY
    >>> round(float(involvement_logits(torch.zeros(1, 4), GGO_SEVERITY).exp().sum()), 4)
    1.0
    """
    middle, spread = involvement_of(outputs)[:, None], _LEAST_SPREAD + _PER_OUTPUT * softplus(outputs[:, 1:2].float())
    edges = (
        torch.tensor([task.band(label)[0] for label in range(1, len(task))], device=outputs.device, dtype=torch.float32)
        - middle
    ) / spread
    nothing = torch.zeros_like(middle)  # the first band has no lower edge, the last none above it
    below_upper = torch.cat([logsigmoid(edges), nothing], dim=1)
    above_lower = torch.cat([nothing, logsigmoid(-edges)], dim=1)
    # The logarithm of sigmoid(upper) - sigmoid(lower), without the difference of two numbers that are nearly equal.
    both = torch.cat([nothing, torch.log1p(-torch.exp(-edges.diff(dim=1))), nothing], dim=1)
    return below_upper + above_lower + both


# By the name that a model file holds.
READINGS: dict[str, Callable[[Tensor, Task], Tensor]] = {
    "logits": lambda outputs, task: outputs.float() if outputs.itemsize < 4 else outputs,  # of 16-bit arithmetic
    "corn": lambda outputs, task: corn_logits(outputs),
    "involvement": involvement_logits,
}
