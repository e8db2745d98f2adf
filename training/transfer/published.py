"""The study as it was published: every model on the components as given, nothing held out, over several seeds."""

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC
from torch import Tensor

from lithostream.training.transfer.config import Published
from lithostream.training.transfer.data import Floats, Integers, Study
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

HIDDEN = (100, 8, 6, 4, 2)
TREES = 200
FOLDS = 5

Figures = dict[str, dict[str, list[float]]]
"""By model, then by metric: one value for each seed."""


def reproduce(study: Study, settings: Published, validation: tuple[Floats, Integers] | None) -> Figures:
    """Fit the published models to the labelled rows, and fine-tune the autoencoder on every experiment.

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
    seeds = list(range(settings.seeds))
    every = np.arange(len(study.labels))
    start = Schedule(settings.pretrain_epochs, settings.rate, batch=settings.batch)
    pretext, copied = _pretext(study, start, seeds), _copied(study, start, seeds)
    probe = Schedule(
        settings.probe_epochs, settings.rate, settings.l1, settings.l2, settings.batch, last_only=True
    )
    fine = Schedule(settings.epochs, settings.fine_rate, settings.l1, settings.l2, settings.batch)
    whole = Schedule(settings.epochs, settings.rate, settings.l1, settings.l2, settings.batch)
    line = Schedule(settings.probe_epochs, settings.rate, batch=settings.batch)
    width = study.components.shape[1]
    fresh = initial([width, *HIDDEN, 1], seeds)
    task = _Task(study, validation)
    figures = _classics(study, seeds)
    figures["logistic regression"] = task.run(every, initial([width, 1], seeds), line, balance=0.0)
    figures["from scratch"] = task.run(every, _copy(fresh), whole)
    for name, found in (("pretext", pretext), ("autoencoder", copied)):
        figures[f"{name}, linear probe"] = task.run(every, fresh.started_from(found), probe)
        figures[f"{name}, fine-tuned"] = task.run(every, fresh.started_from(found), fine)
    for experiment, rows in study.experiments.items():
        figures[f"autoencoder, fine-tuned, {experiment}"] = task.run(rows, fresh.started_from(copied), fine)
    return figures


class _Task:
    """Fits nets of several seeds to some of the labelled rows, and scores them."""

    def __init__(self, study: Study, validation: tuple[Floats, Integers] | None) -> None:
        self._study, self._validation = study, validation

    def run(
        self, rows: Integers, nets: Nets, schedule: Schedule, balance: float = 1.0
    ) -> dict[str, list[float]]:
        count = len(nets.weights[0])
        labels = self._study.labels[rows]
        inputs = _stack(self._study.components[rows], count)
        wanted = torch.from_numpy(labels.astype(np.float32)).expand(count, -1).contiguous()
        weights = class_weights(wanted, torch.ones_like(wanted), "weighted", balance)
        fit(nets, inputs, binary_loss(wanted, weights), schedule, seed=0)
        figures = _scored(nets, self._study.components[rows], labels, "")
        if self._validation is not None:
            figures |= _scored(nets, *self._validation, "validation_")
        return figures


def _scored(nets: Nets, components: Floats, labels: Integers, prefix: str) -> dict[str, list[float]]:
    outputs = nets(_stack(components, len(nets.weights[0])))[:, 0].numpy()
    return {
        f"{prefix}accuracy": [float(((output > 0) == labels).mean()) for output in outputs],
        f"{prefix}auc": [float(roc_auc_score(labels, output)) for output in outputs],
    }


def _classics(study: Study, seeds: list[int]) -> Figures:
    rows, labels = study.components, study.labels
    last = list(study.experiments.values())[-1]
    machine = SVC(C=10, gamma=0.01).fit(rows, labels)
    folds = [
        cross_val_score(
            SVC(C=10, gamma=0.01),
            rows,
            labels,
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        ).mean()
        for seed in seeds
    ]
    forests = [
        RandomForestClassifier(TREES, oob_score=True, random_state=seed).fit(rows[last], labels[last])
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


def _pretext(study: Study, schedule: Schedule, seeds: list[int]) -> Nets:
    classes = torch.from_numpy(study.pretext_labels).expand(len(seeds), -1)
    sizes = [study.components.shape[1], *HIDDEN, int(study.pretext_labels.max()) + 1]
    loss = class_loss(classes, torch.ones(classes.shape))
    return fit(initial(sizes, seeds), _stack(study.pretext_components, len(seeds)), loss, schedule, seed=1)


def _copied(study: Study, schedule: Schedule, seeds: list[int]) -> Nets:
    rows = study.unlabelled_components[study.fresh]
    inputs, width = _stack(rows, len(seeds)), rows.shape[1]
    sizes = [width, *HIDDEN, *HIDDEN[-2::-1], width]
    # As many steps as the pretext task: there are several times its rows.
    epochs = max(1, schedule.epochs * len(study.pretext_labels) // len(rows))
    shorter = Schedule(epochs, schedule.rate, batch=schedule.batch)
    nets = fit(initial(sizes, seeds), inputs, copy_loss(inputs), shorter, seed=2)
    kept = len(HIDDEN) + 1
    return Nets(nets.weights[:kept], nets.biases[:kept])


def _stack(rows: Floats, count: int) -> Tensor:
    return torch.from_numpy(rows.T.astype(np.float32)).expand(count, -1, -1).contiguous()


def _copy(nets: Nets) -> Nets:
    return Nets([one.clone() for one in nets.weights], [one.clone() for one in nets.biases])
