"""What a model leans on: permutation of components on unseen rows, projected back to the predictors."""

import numpy as np
from sklearn.metrics import roc_auc_score

from lithostream.training.transfer.blocks import Repeat
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import Study
from lithostream.training.transfer.features import Logarithms, extended_rows
from lithostream.training.transfer.final import Final
from lithostream.training.transfer.protocol import SEED
from lithostream.training.transfer.tables import Flags, Floats

PERMUTATIONS = 10


def importances(
    final: Final, study: Study, config: TransferConfig, repeat: Repeat
) -> dict[str, dict[str, float]]:
    """Mean loss of AUC on unseen rows when a column is permuted among them.

    Components are permuted one at a time and turned back into predictors, which the model reads; their losses are shared
    out among the predictors by the squared loadings of the components on the standardised predictors. Beside that, the
    predictors are permuted themselves: those that vary together stand in for each other there.

    Returns
    -------
    dict
        `components`, `predictors_from_components` and `predictors`: by name.
    """
    rows = np.flatnonzero(study.located)
    raw, labels = study.raw[rows], study.labels[rows]
    matrix, offset = study.to_components
    logarithms = extended_rows(study, config).logarithms
    back = np.linalg.pinv(matrix)

    def restored(components: Floats) -> Floats:
        predictors: Floats = (components - offset) @ back
        return predictors

    names, axes = config.columns.predictors, config.columns.components
    rng = np.random.default_rng(SEED)
    base = roc_auc_score(labels, _unseen(final, raw, repeat.held, logarithms))
    components = raw @ matrix + offset
    losses: dict[str, dict[str, float]] = {"components": {}, "predictors": {}}
    for kind, columns, values in (("components", axes, components), ("predictors", names, raw)):
        for column, name in enumerate(columns):
            found = []
            for _ in range(PERMUTATIONS):
                mixed = values.copy()
                for held in repeat.held:
                    mixed[held, column] = rng.permutation(values[held, column])
                predictors = restored(mixed) if kind == "components" else mixed
                found.append(
                    base - roc_auc_score(labels, _unseen(final, predictors, repeat.held, logarithms))
                )
            losses[kind][name] = float(np.mean(found))
    loadings = (matrix * raw.std(axis=0)[:, None]) ** 2
    shares = loadings / loadings.sum(axis=0)
    projected = shares @ np.array([losses["components"][name] for name in axes])
    losses["predictors_from_components"] = dict(zip(names, map(float, projected), strict=True))
    return losses


def _unseen(final: Final, raw: Floats, held: Flags, logarithms: Logarithms) -> Floats:
    """Score of rows by the members that have not seen their fold, float64 [N]."""
    extended = logarithms.extend(raw)
    score = np.empty(len(raw))
    for fold, rows in enumerate(held):
        score[rows] = final.fold_score(fold, extended[rows])
    return score
