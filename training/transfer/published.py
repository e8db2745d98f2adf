"""The study as it was published: every model on the components as given, nothing held out, over several seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC
from torch import Tensor

from lithostream.training.transfer.config import Published
from lithostream.training.transfer.data import Study
from lithostream.training.transfer.models import PublishedNet
from lithostream.training.transfer.nets import (
    Loss,
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
from lithostream.training.transfer.tables import Floats, Integers

FOLDS = 5

Figures = dict[str, dict[str, list[float]]]
"""By model, then by metric: one value for each seed."""


class _Job(NamedTuple):
    """A net to fit, of every seed, to some of the labelled rows."""

    name: str
    net: PublishedNet
    rows: Integers

    @property
    def schedule(self) -> Schedule:
        net = self.net
        return Schedule(net.epochs, net.rate, net.l1, net.l2, net.batch, last_only=net.probe)


def reproduce(study: Study, settings: Published, validation: tuple[Floats, Integers] | None) -> Figures:
    """Fit the published models to the labelled rows, and to every experiment where a net asks for it.

    Parameters
    ----------
    study : Study
    settings : Published
    validation : (float64 [V, C], int64 [V]), optional
        Components and labels of rows to score too.

    Returns
    -------
    dict
        `accuracy` and `auc` on the rows learned from, at a threshold of one half, and the same of `validation`; of the
        forest the out-of-bag accuracy, of the support vectors also that of 5 random folds.
    """
    jobs = []
    for name, net in settings.nets.items():
        jobs.append(_Job(name, net, np.arange(len(study.labels))))
        if net.experiments:
            jobs += [_Job(f"{name}, {part}", net, rows) for part, rows in study.experiments.items()]
    # Nets of one shape that take as many and like steps are one tensor program.
    together: dict[object, list[_Job]] = {}
    for job in jobs:
        steps = -(-len(job.rows) // job.net.batch)
        together.setdefault((job.net.hidden, job.schedule, job.net.balance, steps), []).append(job)
    starts = _Starts(study, settings)
    figures: Figures = {}
    for some in together.values():
        figures |= _fitted(some, study, starts, validation)
    return _classics(study, settings) | {job.name: figures[job.name] for job in jobs}


class _Starts:
    """Nets of every seed that learned another task before, each task once."""

    def __init__(self, study: Study, settings: Published) -> None:
        self._study, self._settings = study, settings
        self._found: dict[object, Nets] = {}
        self.seeds = list(range(settings.seeds))

    def __call__(self, net: PublishedNet) -> Nets:
        fresh = initial([self._study.components.shape[1], *net.hidden, 1], self.seeds)
        if net.start == "scratch":
            return fresh
        key = (net.start, net.hidden)
        if key not in self._found:
            learn = self._pretext if net.start == "pretext" else self._copied
            self._found[key] = learn(net.hidden)
        return fresh.started_from(self._found[key])

    def _pretext(self, hidden: tuple[int, ...]) -> Nets:
        rows, labels = self._study.pretext_components, torch.from_numpy(self._study.pretext_labels)
        nets = initial([rows.shape[1], *hidden, int(labels.max()) + 1], self.seeds)
        classes = labels.expand(len(self.seeds), -1)
        loss = class_loss(classes, torch.ones(classes.shape))
        return self._fit(nets, rows, loss, self._settings.pretrain_epochs)

    def _copied(self, hidden: tuple[int, ...]) -> Nets:
        rows = self._study.unlabelled_components[self._study.fresh]
        nets = initial([rows.shape[1], *hidden, *hidden[-2::-1], rows.shape[1]], self.seeds)
        # As many steps as the pretext task: there are several times its rows.
        epochs = max(1, self._settings.pretrain_epochs * len(self._study.pretext_labels) // len(rows))
        self._fit(nets, rows, copy_loss(_stack(rows, len(self.seeds))), epochs)
        kept = len(hidden) + 1
        return Nets(nets.weights[:kept], nets.biases[:kept])

    def _fit(self, nets: Nets, rows: Floats, loss: Loss, epochs: int) -> Nets:
        schedule = Schedule(epochs, self._settings.pretrain_rate, batch=self._settings.pretrain_batch)
        every = torch.ones((len(self.seeds), len(rows)), dtype=torch.bool)
        return fit(nets, _stack(rows, len(self.seeds)), loss, schedule, every, self.seeds)


def _fitted(
    jobs: Sequence[_Job], study: Study, starts: _Starts, validation: tuple[Floats, Integers] | None
) -> Figures:
    """Fit and score jobs of one shape and schedule."""
    count = len(starts.seeds)
    nets = joined([starts(job.net) for job in jobs])
    masks = torch.zeros((len(jobs), len(study.labels)), dtype=torch.bool)
    for mask, job in zip(masks, jobs, strict=True):
        mask[torch.from_numpy(job.rows)] = True
    index, present = packed(masks.repeat_interleave(count, dim=0))
    inputs = torch.from_numpy(study.components.astype(np.float32))[index].transpose(1, 2).contiguous()
    labels = torch.from_numpy(study.labels.astype(np.float32))[index]
    weights = class_weights(labels, present, "weighted", jobs[0].net.balance)
    fit(nets, inputs, binary_loss(labels, weights), jobs[0].schedule, present, starts.seeds * len(jobs))
    figures: Figures = {}
    for number, job in enumerate(jobs):
        own = nets.part(slice(number * count, (number + 1) * count))
        figures[job.name] = _scored(own, study.components[job.rows], study.labels[job.rows], "")
        if validation is not None:
            figures[job.name] |= _scored(own, *validation, "validation_")
    return figures


def _scored(nets: Nets, components: Floats, labels: Integers, prefix: str) -> dict[str, list[float]]:
    outputs = nets(_stack(components, len(nets.weights[0])))[:, 0].numpy()
    return {
        f"{prefix}accuracy": [float(((output > 0) == labels).mean()) for output in outputs],
        f"{prefix}auc": [float(roc_auc_score(labels, output)) for output in outputs],
    }


def _classics(study: Study, settings: Published) -> Figures:
    rows, labels, seeds = study.components, study.labels, range(settings.seeds)
    last = list(study.experiments.values())[-1]
    kernel, trees = {"C": settings.svm.cost, "gamma": settings.svm.gamma}, settings.random_forest.trees
    machine = SVC(**kernel).fit(rows, labels)
    folds = [
        cross_val_score(
            SVC(**kernel),
            rows,
            labels,
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        ).mean()
        for seed in seeds
    ]
    forests = [
        RandomForestClassifier(trees, oob_score=True, random_state=seed).fit(rows[last], labels[last])
        for seed in seeds
    ]
    return {
        "svm": {
            "accuracy": [float(machine.score(rows, labels))] * len(seeds),
            "auc": [float(roc_auc_score(labels, machine.decision_function(rows)))] * len(seeds),
            "folds_accuracy": [float(value) for value in folds],
        },
        "random forest, fewest": {"out_of_bag_accuracy": [float(forest.oob_score_) for forest in forests]},
    }


def _stack(rows: Floats, count: int) -> Tensor:
    return torch.from_numpy(rows.T.astype(np.float32)).expand(count, -1, -1).contiguous()
