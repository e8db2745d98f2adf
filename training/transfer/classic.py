"""Baselines from scikit-learn, one configuration each, behind the same inputs and masks as the deep members."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from imblearn.over_sampling import SMOTE
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from lithostream.training.transfer.features import Inputs, Rows, fit_inputs
from lithostream.training.transfer.models import Baseline, Boosting, Logistic, Machine, SmoteForest, View
from lithostream.training.transfer.tables import Flags, Floats, Integers


class Classifier(Protocol):
    """What is used of a scikit-learn classifier."""

    def fit(self, rows: Floats, labels: Integers) -> object:
        """Learn."""


@dataclass(frozen=True, slots=True)
class ClassicMember:
    """One scikit-learn classifier and what stands before it.

    Attributes
    ----------
    inputs : Inputs
    classifier : Classifier
    """

    inputs: Inputs
    classifier: Classifier

    def score(self, extended: Floats) -> Floats:
        """Return the decision function, or the probability where there is none, float64 [N]."""
        rows = self.inputs(extended)
        margin = getattr(self.classifier, "decision_function", None)
        if margin is not None and not isinstance(self.classifier, GradientBoostingClassifier):
            score: Floats = np.asarray(margin(rows), np.float64)
            return score
        both: npt.NDArray[np.float64] = self.classifier.predict_proba(rows)  # type: ignore[attr-defined]
        return both[:, 1]


def fit_classic(
    baseline: Baseline, rows: Rows, masks: Flags, seed: int, view: View = "components"
) -> list[list[ClassicMember]]:
    """Fit one classifier for each mask, on principal components unless another view is asked for.

    Parameters
    ----------
    baseline : Baseline
    rows : Rows
    masks : bool [F, N]
        Labelled rows that may be seen; both classes must be among them.
    seed : int

    Returns
    -------
    list of F lists of one ClassicMember
    """
    members = []
    for mask in masks:
        inputs = fit_inputs(rows.extended, mask, view, rows.logarithms)
        seen, labels = inputs(rows.extended[mask]), rows.labels[mask]
        if isinstance(baseline, SmoteForest):
            near = min(baseline.neighbours, int(labels.sum()) - 1)
            if near:  # one deposit has no neighbour to draw towards
                seen, labels = SMOTE(k_neighbors=near, random_state=seed).fit_resample(seen, labels)
        classifier = make(baseline, seed)
        classifier.fit(seen, labels)
        members.append([ClassicMember(inputs, classifier)])
    return members


def make(baseline: Baseline, seed: int) -> Classifier:
    """Make a classifier."""
    classifier: Classifier
    if isinstance(baseline, Machine):
        classifier = SVC(C=baseline.cost, gamma=baseline.gamma)
    elif isinstance(baseline, Logistic):
        classifier = LogisticRegression(C=baseline.cost, max_iter=1000)
    elif isinstance(baseline, Boosting):
        classifier = GradientBoostingClassifier(
            n_estimators=baseline.trees,
            max_depth=baseline.depth,
            learning_rate=baseline.learning_rate,
            subsample=baseline.share,
            random_state=seed,
        )
    else:
        classifier = RandomForestClassifier(baseline.trees, random_state=seed)
    return classifier
