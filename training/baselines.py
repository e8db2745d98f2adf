"""What any model has to beat: regressions on the mean colour of a row."""

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lithostream.training.data.profile import Rows, on_scale
from lithostream.training.data.splits import check_measured

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BASELINES = ("ridge", "random_forest")
TREES, MIN_LEAF = 200, 3


def predict_baseline(name: str, rows: Rows, train: Bools, seed: int, logarithmic: Bools) -> Floats:
    """Fit a baseline per target on the `train` rows [R] and predict every row, float64 [R, T].

    Targets that are `logarithmic` [T] are learned and predicted as such.

    Raises
    ------
    ConfigError
        A target has no reading among them.
    """
    check_measured(rows, train, logarithmic)
    colour = rows.mean_colour()
    found = np.full(rows.labels.shape, np.nan)
    for target, label in enumerate(on_scale(rows.labels, logarithmic).T):
        known = train & np.isfinite(label)
        if name == "ridge":
            model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
        else:
            model = RandomForestRegressor(TREES, min_samples_leaf=MIN_LEAF, random_state=seed)
        found[:, target] = model.fit(colour[known], label[known]).predict(colour)
    return found
