"""Many small perceptrons fitted at once: one tensor program with an axis of models."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

FOCUS = 2.0  # gamma of the focal loss (Lin et al. 2017)
EFFECTIVE = 0.999  # beta of the effective number of rows (Cui et al. 2019)

Loss = Callable[[Tensor, Tensor | None], Tensor]
"""From outputs [M, O, B] and the row numbers [M, B] of the step, None for all rows, to the loss summed over M."""


@dataclass(slots=True)
class Nets:
    """M perceptrons of one shape: relu between layers, none after the last.

    Attributes
    ----------
    weights : list of float32 [M, out, in]
    biases : list of float32 [M, out, 1]
    """

    weights: list[Tensor]
    biases: list[Tensor]

    def __call__(self, inputs: Tensor) -> Tensor:
        """From inputs [M, D, N] to outputs [M, O, N]."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs = torch.baddbmm(bias, weight, inputs).relu_()
        return torch.baddbmm(self.biases[-1], self.weights[-1], inputs)

    def started_from(self, other: "Nets") -> "Nets":
        """Take the hidden layers of other nets, which may have another end."""
        kept = len(self.weights) - 1
        return Nets(
            [weight.clone() for weight in other.weights[:kept]] + self.weights[kept:],
            [bias.clone() for bias in other.biases[:kept]] + self.biases[kept:],
        )

    def part(self, models: slice) -> "Nets":
        """Return some of the nets; they share their memory."""
        return Nets([weight[models] for weight in self.weights], [bias[models] for bias in self.biases])


def joined(several: Sequence[Nets]) -> Nets:
    """Nets of one shape behind each other."""
    return Nets(
        [torch.cat(layer) for layer in zip(*(one.weights for one in several), strict=True)],
        [torch.cat(layer) for layer in zip(*(one.biases for one in several), strict=True)],
    )


def initial(sizes: Sequence[int], seeds: Sequence[int]) -> Nets:
    """Nets of Glorot's uniform weights and zero biases, each drawn from a seed of its own."""
    weights: list[list[Tensor]] = [[] for _ in sizes[1:]]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for layer, (wide, out) in enumerate(pairwise(sizes)):
            drawn = torch.rand((out, wide), generator=generator) * 2 - 1
            weights[layer].append(drawn * (6 / (wide + out)) ** 0.5)
    return Nets(
        [torch.stack(layer) for layer in weights], [torch.zeros(len(seeds), out, 1) for out in sizes[1:]]
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of Adam, and what may move.

    Attributes
    ----------
    epochs : int
    rate, l1, l2 : float
    batch : int, optional
        Rows of a step, in an order drawn anew for each epoch and model; None for all rows.
    last_only : bool
    """

    epochs: int
    rate: float
    l1: float = 0.0
    l2: float = 0.0
    batch: int | None = None
    last_only: bool = False


def fit(
    nets: Nets, inputs: Tensor, loss: Loss, schedule: Schedule, present: Tensor, seeds: Sequence[int]
) -> Nets:
    """Fit nets in place, and return them.

    Parameters
    ----------
    nets : Nets
    inputs : float32 [M, D, N]
    loss : callable
    schedule : Schedule
    present : bool [M, N]
        Rows that a net has; the others are padding, which its steps take last.
    seeds : sequence of M int
        Of the order of rows; nets of one seed and as many rows take them in one order.
    """
    first = -1 if schedule.last_only else 0
    weights, biases = nets.weights[first:], nets.biases[first:]
    for tensor in (*weights, *biases):
        tensor.requires_grad_()
    # Adam's decay is the gradient of the squared penalty, and cheaper than to have it found.
    groups = [{"params": weights, "weight_decay": 2 * schedule.l2}, {"params": biases}]
    adam = torch.optim.Adam(groups, lr=schedule.rate, fused=True)
    rows = inputs.transpose(1, 2).contiguous()
    for index in _orders(present, schedule, seeds):
        taken = inputs if index is None else _taken(rows, index)
        adam.zero_grad()
        loss(nets(taken), index).backward()
        if schedule.l1:
            signs = torch._foreach_sign([weight.detach() for weight in weights])
            torch._foreach_add_([weight.grad for weight in weights], signs, alpha=schedule.l1)
        adam.step()
    for tensor in (*weights, *biases):
        tensor.requires_grad_(False)
        tensor.grad = None
    return nets


def _orders(present: Tensor, schedule: Schedule, seeds: Sequence[int]) -> Iterator[Tensor | None]:
    generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
    for _ in range(schedule.epochs):
        if schedule.batch is None:
            yield None
            continue
        drawn = {seed: torch.rand(present.shape[1], generator=own) for seed, own in generators.items()}
        keys = torch.stack([drawn[seed] for seed in seeds]).masked_fill_(~present, 2.0)
        yield from keys.argsort(dim=1).split(schedule.batch, dim=1)


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    """From rows [M, N, D] those of a step [M, B], as [M, D, B]."""
    return rows.gather(1, index[:, :, None].expand(-1, -1, rows.shape[2])).transpose(1, 2)


def of_rows(values: Tensor, index: Tensor | None) -> Tensor:
    """Values [M, N] of the rows of a step [M, B]."""
    return values if index is None else values.gather(1, index)


def binary_loss(labels: Tensor, weights: Tensor, *, focal: bool = False) -> Loss:
    """Cross-entropy of labels [M, N] under weights [M, N], mean over the rows of a weight."""

    def loss(output: Tensor, index: Tensor | None) -> Tensor:
        wanted, logit = of_rows(labels, index), output[:, 0]
        each = F.binary_cross_entropy_with_logits(logit, wanted, reduction="none")
        if focal:
            each = (
                each * (1 - torch.exp(-each)) ** FOCUS
            )  # exp(-cross-entropy) is the probability of the label
        return _mean(each, of_rows(weights, index))

    return loss


def class_loss(classes: Tensor, weights: Tensor) -> Loss:
    """Cross-entropy of classes [M, N] under weights [M, N], mean over the rows of a weight."""

    def loss(output: Tensor, index: Tensor | None) -> Tensor:
        each = F.cross_entropy(output, of_rows(classes, index), reduction="none")
        return _mean(each, of_rows(weights, index))

    return loss


def _mean(each: Tensor, weights: Tensor) -> Tensor:
    counts = (weights > 0).sum(dim=1).clamp(min=1)
    return ((each * weights).sum(dim=1) / counts).sum()


def copy_loss(inputs: Tensor) -> Loss:
    """Mean squared difference of the output from the inputs [M, D, N] themselves."""
    rows = inputs.transpose(1, 2).contiguous()

    def loss(output: Tensor, index: Tensor | None) -> Tensor:
        wanted = inputs if index is None else _taken(rows, index)
        return ((output - wanted) ** 2).mean(dim=(1, 2)).sum()

    return loss


def class_weights(labels: Tensor, present: Tensor, kind: str, balance: float) -> Tensor:
    """Weights [M, N] of rows, by class: 0 for those that a net does not have, 1 on average over the others.

    Parameters
    ----------
    labels : float32 [M, N]
    present : bool [M, N]
    kind : {"weighted", "focal", "class_balanced"}
    balance : float
        Power of the inverse class frequencies.
    """
    counts = [(present & (labels == value)).sum(dim=1, keepdim=True) for value in (0, 1)]
    if kind == "class_balanced":
        of_class = [(1 - EFFECTIVE) / (1 - EFFECTIVE**count).clamp(min=1e-9) for count in counts]
    else:
        of_class = [count.clamp(min=1) ** -balance for count in counts]
    weights = torch.where(labels > 0, of_class[1], of_class[0]) * present
    return weights * (present.sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True))


def packed(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the rows of each mask [M, N], as int64 [M, most], and which of them are no padding, bool [M, most]."""
    most = int(masks.sum(dim=1).max())
    order = (~masks).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return order, masks.gather(1, order)
