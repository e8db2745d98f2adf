"""Baselines from scikit-learn, one configuration each, behind the same inputs and masks as the deep members."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from imblearn.over_sampling import SMOTE
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from lithostream.training.transfer.config import Baseline, View
from lithostream.training.transfer.data import Flags, Floats, Integers
from lithostream.training.transfer.features import Inputs, Rows, fit_inputs

TREES = 100
NEIGHBOURS = 5  # of SMOTE, fewer where there are fewer deposits


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
    kind: Baseline, rows: Rows, masks: Flags, seed: int, view: View = "components"
) -> list[list[ClassicMember]]:
    """Fit one classifier for each mask, on principal components unless another view is asked for.

    Parameters
    ----------
    kind : str
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
        if kind == "smote_forest":
            near = min(NEIGHBOURS, int(labels.sum()) - 1)
            if near:  # one deposit has no neighbour to draw towards
                seen, labels = SMOTE(k_neighbors=near, random_state=seed).fit_resample(seen, labels)
        classifier = make(kind, seed)
        classifier.fit(seen, labels)
        members.append([ClassicMember(inputs, classifier)])
    return members


def make(kind: Baseline, seed: int) -> Classifier:
    """Make a classifier: random forest, SVM and logistic regression as published, and what goes beyond."""
    classifier: Classifier
    if kind == "svm":
        classifier = SVC(C=10, gamma=0.01)
    elif kind == "logistic":
        classifier = LogisticRegression(max_iter=1000)
    elif kind == "gradient_boosting":
        classifier = GradientBoostingClassifier(
            n_estimators=TREES, max_depth=2, learning_rate=0.05, subsample=0.7, random_state=seed
        )
    else:
        classifier = RandomForestClassifier(TREES, random_state=seed)
    return classifier
