"""Deep members under many masks at once: inputs, the start from another task, and the fit."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lithostream.training.transfer.features import Inputs, Rows, fit_inputs
from lithostream.training.transfer.models import Net, View
from lithostream.training.transfer.nets import (
    Nets,
    Schedule,
    binary_loss,
    class_loss,
    class_weights,
    copy_loss,
    fit,
    initial,
    joined,
    packed,
)
from lithostream.training.transfer.tables import Flags, Floats, Integers

TOGETHER = 24  # networks of one tensor program: more leave the cache, fewer pay for each operation
COPIED_ROWS = 256  # unlabelled rows of a step of the autoencoder
PRETRAIN_RATE = 3e-3
PRETRAIN_STEPS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class DeepMember:
    """One perceptron and what stands before it.

    Attributes
    ----------
    inputs : Inputs
    layers : tuple of (float32 [out, in], float32 [out])
    """

    inputs: Inputs
    layers: tuple[tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...], ...]

    def score(self, extended: Floats) -> Floats:
        """Return the sigmoid of the output for rows [N, P + L], float64 [N]."""
        values = self.inputs(extended).astype(np.float32).T
        for weight, bias in self.layers[:-1]:
            values = np.maximum(weight @ values + bias[:, None], 0)
        weight, bias = self.layers[-1]
        score: Floats = 1 / (1 + np.exp(-(weight @ values + bias[:, None])[0].astype(np.float64)))
        return score


class Start(NamedTuple):
    """Hidden layers that learned another task, and the inputs that they learned it on."""

    nets: Nets
    inputs: Inputs

    def behind(self, inputs: Inputs) -> Nets:
        """Return the same layers behind other inputs of the same view: both are affine maps of the predictors."""
        turn = np.linalg.pinv(inputs.matrix) @ self.inputs.matrix
        move = self.inputs.offset - inputs.offset @ turn
        first, bias = self.nets.weights[0], self.nets.biases[0]
        turned = first @ torch.from_numpy(turn.T.astype(np.float32))
        moved = bias + first @ torch.from_numpy(move[:, None].astype(np.float32))
        return Nets([turned, *self.nets.weights[1:]], [moved, *self.nets.biases[1:]])


def fit_deep(net: Net, rows: Rows, masks: Flags, pretext_masks: Flags, seed: int) -> list[list[DeepMember]]:
    """Fit the members of a net for each mask.

    Parameters
    ----------
    net : Net
    rows : Rows
    masks : bool [F, N]
        Labelled rows that may be seen; inputs are scaled on them alone.
    pretext_masks : bool [F, T]
        Rows of the pretext task that may be seen.
    seed : int

    Returns
    -------
    list of F lists of DeepMember
    """
    members: list[list[DeepMember]] = [[] for _ in masks]
    for number, view in enumerate(net.views):
        inputs = [fit_inputs(rows.extended, mask, view, rows.logarithms, net.clip) for mask in masks]
        start = _copied(net, view, rows, seed + 1000 * number) if net.start == "autoencoder" else None
        for part in _parts(masks, net.seeds):
            own = [inputs[mask] for mask in part]
            nets = _fit_nets(net, rows, own, masks[part], pretext_masks[part], seed + 1000 * number, start)
            for place, mask in enumerate(part):
                for model in range(place * net.seeds, (place + 1) * net.seeds):
                    members[mask].append(_member(nets, model, inputs[mask]))
    return members


def _parts(masks: Flags, seeds: int) -> list[Integers]:
    """Numbers of masks whose networks are fitted together: of like numbers of rows, which are padded to the most."""
    order = masks.sum(axis=1).argsort(kind="stable")
    return np.array_split(order, -(-len(order) * seeds // TOGETHER))


def _fit_nets(
    net: Net,
    rows: Rows,
    inputs: list[Inputs],
    masks: Flags,
    pretext_masks: Flags,
    seed: int,
    start: Start | None,
) -> Nets:
    """Fit networks for some masks: those of the first, of each seed, then those of the next."""
    seeds = [seed + one for _ in masks for one in range(net.seeds)]
    sizes = [inputs[0].matrix.shape[1], *net.hidden, 1]

    def stacked(values: Floats) -> Tensor:
        return _repeat(np.stack([one(values).T for one in inputs]).astype(np.float32), net.seeds)

    nets = initial(sizes, seeds)
    if net.start == "pretext":
        taught = _pretext(sizes, seeds, stacked(rows.pretext), rows, _repeat(pretext_masks, net.seeds))
        nets = nets.started_from(taught)
    elif start is not None:
        nets = nets.started_from(joined([start.behind(one) for one in inputs]))
    index, present = packed(_repeat(masks, net.seeds))
    labels = torch.from_numpy(rows.labels.astype(np.float32))[index]
    weights = class_weights(labels, present, net.loss, net.balance)
    schedule = Schedule(net.steps, net.learning_rate, net.l1, net.l2, last_only=net.probe)
    loss = binary_loss(labels, weights, focal=net.loss == "focal")
    return fit(nets, _of_rows(stacked(rows.extended), index), loss, schedule, present, seeds)


def _pretext(sizes: list[int], seeds: list[int], inputs: Tensor, rows: Rows, masks: Tensor) -> Nets:
    """Learn the rock classes of the pretext rows of each mask."""
    classes = int(rows.pretext_labels.max()) + 1
    index, present = packed(masks)
    loss = class_loss(torch.from_numpy(rows.pretext_labels)[index], present.to(torch.float32))
    nets = initial([*sizes[:-1], classes], seeds)
    return fit(nets, _of_rows(inputs, index), loss, Schedule(PRETRAIN_STEPS, PRETRAIN_RATE), present, seeds)


def _copied(net: Net, view: View, rows: Rows, seed: int) -> Start:
    """Learn to give unlabelled rows back through the narrowest layer: no label is in them, so once for all masks."""
    every = np.ones(len(rows.unlabelled), np.bool_)
    inputs = fit_inputs(rows.unlabelled, every, view, rows.logarithms, net.clip)
    drawn = np.random.default_rng(seed).permutation(len(rows.unlabelled))[: 4 * COPIED_ROWS]
    seen = _repeat(inputs(rows.unlabelled[drawn]).T[None].astype(np.float32), net.seeds)
    seeds = [seed + one for one in range(net.seeds)]
    width = seen.shape[1]
    epochs = PRETRAIN_STEPS * COPIED_ROWS // len(drawn)
    schedule = Schedule(max(epochs, 1), PRETRAIN_RATE, batch=COPIED_ROWS)
    present = torch.ones((len(seeds), len(drawn)), dtype=torch.bool)
    nets = initial([width, *net.hidden, *net.hidden[-2::-1], width], seeds)
    fit(nets, seen, copy_loss(seen), schedule, present, seeds)
    kept = len(net.hidden)
    return Start(Nets(nets.weights[:kept], nets.biases[:kept]), inputs)


def _of_rows(inputs: Tensor, index: Tensor) -> Tensor:
    """Take rows [M, n] of inputs [M, D, N], as [M, D, n]."""
    return inputs.gather(2, index[:, None].expand(-1, inputs.shape[1], -1))


def _repeat(values: npt.NDArray[Any], times: int) -> Tensor:
    return torch.from_numpy(np.repeat(values, times, axis=0))


def _member(nets: Nets, model: int, inputs: Inputs) -> DeepMember:
    layers = tuple(
        (weight[model].numpy().copy(), bias[model, :, 0].numpy().copy())
        for weight, bias in zip(nets.weights, nets.biases, strict=True)
    )
    return DeepMember(inputs, layers)
