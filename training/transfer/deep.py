"""Deep members under many masks at once: inputs, the start from another task, and the fit."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from lithostream.training.transfer.config import Net, View
from lithostream.training.transfer.data import Flags, Floats
from lithostream.training.transfer.features import Inputs, Rows, fit_inputs
from lithostream.training.transfer.nets import (
    Nets,
    Schedule,
    binary_loss,
    class_loss,
    class_weights,
    copy_loss,
    fit,
    initial,
)

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
        fitted, inputs = _fit_view(net, view, rows, masks, pretext_masks, seed + 1000 * number)
        for fold, own in enumerate(members):
            for model in range(fold * net.seeds, (fold + 1) * net.seeds):
                own.append(_member(fitted, model, inputs[fold]))
    return members


def _fit_view(
    net: Net, view: View, rows: Rows, masks: Flags, pretext_masks: Flags, seed: int
) -> tuple[Nets, list[Inputs]]:
    inputs = [fit_inputs(rows.extended, mask, view, rows.logarithms, net.clip) for mask in masks]
    seeds = [seed + one for _ in masks for one in range(net.seeds)]
    sizes = [inputs[0].matrix.shape[1], *net.hidden, 1]

    def stacked(values: Floats) -> Tensor:
        return _repeat(np.stack([one(values).T for one in inputs]), net.seeds)

    nets = initial(sizes, seeds)
    if net.start == "pretext":
        nets = nets.started_from(
            _pretext(sizes, seeds, stacked(rows.pretext), rows, pretext_masks, net.seeds)
        )
    elif net.start == "autoencoder":
        drawn = np.random.default_rng(seed).permutation(len(rows.unlabelled))
        nets = nets.started_from(_copy(sizes, seeds, stacked(rows.unlabelled[drawn])))
    labels = torch.from_numpy(rows.labels.astype(np.float32)).expand(len(seeds), -1)
    weights = class_weights(labels, _repeat(masks, net.seeds), net.loss, net.balance)
    schedule = Schedule(net.steps, net.learning_rate, net.l1, net.l2, last_only=net.probe)
    loss = binary_loss(labels, weights, focal=net.loss == "focal")
    return fit(nets, stacked(rows.extended), loss, schedule, seed), inputs


def _pretext(
    sizes: list[int], seeds: list[int], inputs: Tensor, rows: Rows, masks: Flags, repeat: int
) -> Nets:
    """Learn the rock classes of the pretext rows of each mask."""
    classes = int(rows.pretext_labels.max()) + 1
    seen = _repeat(masks, repeat)
    weights = seen * (seen.shape[1] / seen.sum(dim=1, keepdim=True).clamp(min=1))
    wanted = torch.from_numpy(rows.pretext_labels).expand(len(seeds), -1)
    schedule = Schedule(PRETRAIN_STEPS, PRETRAIN_RATE)
    return fit(
        initial([*sizes[:-1], classes], seeds), inputs, class_loss(wanted, weights), schedule, seeds[0]
    )


def _copy(sizes: list[int], seeds: list[int], inputs: Tensor) -> Nets:
    """Learn to give unlabelled rows back through the narrowest layer."""
    mirrored = [*sizes[:-1], *sizes[-3:0:-1], sizes[0]]
    part = inputs[:, :, : COPIED_ROWS * 4].contiguous()
    epochs = PRETRAIN_STEPS * COPIED_ROWS // part.shape[2]
    schedule = Schedule(max(epochs, 1), PRETRAIN_RATE, batch=COPIED_ROWS)
    nets = fit(initial(mirrored, seeds), part, copy_loss(part), schedule, seeds[0])
    kept = len(sizes) - 1
    return Nets(nets.weights[:kept], nets.biases[:kept])


def _repeat(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], times: int) -> Tensor:
    return torch.from_numpy(np.repeat(values.astype(np.float32), times, axis=0))


def _member(nets: Nets, model: int, inputs: Inputs) -> DeepMember:
    layers = tuple(
        (weight[model].numpy().copy(), bias[model, :, 0].numpy().copy())
        for weight, bias in zip(nets.weights, nets.biases, strict=True)
    )
    return DeepMember(inputs, layers)
