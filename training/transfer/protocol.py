"""The honest protocol: repeated spatial-block cross-validation of every model on every experiment."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from lithostream.engine.errors import ConfigError
from lithostream.training.transfer.blocks import Repeat, draw, pairs
from lithostream.training.transfer.classic import ClassicMember, fit_classic
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import Study
from lithostream.training.transfer.deep import DeepMember, fit_deep
from lithostream.training.transfer.features import Rows, extended_rows
from lithostream.training.transfer.scores import (
    best_threshold,
    evaluate,
    fit_calibration,
    ranking,
)
from lithostream.training.transfer.tables import Flags, Floats, Integers

ENSEMBLE = "ensemble"
SEED = 20_240_904  # of the first partition and of all that is drawn in it
BATCH = 5  # partitions whose networks are fitted as one tensor program

Member = DeepMember | ClassicMember


class Scores(NamedTuple):
    """What a model said of rows it had not seen.

    Attributes
    ----------
    unseen : float64 [R, N]
        Score of each row by the model of its fold.
    inner : float64 [R, K, N]
        Scores of the rows outside fold k by models that saw neither k nor the row's own fold; NaN in fold k, and
        everywhere where no threshold is asked for.
    """

    unseen: Floats
    inner: Floats


class Part(NamedTuple):
    """One experiment: its located rows, and its partitions."""

    name: str
    rows: Integers
    repeats: list[Repeat]
    inner: bool


def parts(study: Study, config: TransferConfig) -> list[Part]:
    """Draw the partitions of every experiment; the first and the last also get what a threshold needs.

    Raises
    ------
    ConfigError
        Too few deposits are left to learn from somewhere.
    """
    made = []
    names = list(study.experiments)
    for name, chosen in study.experiments.items():
        rows = chosen[study.located[chosen]]
        full = name in (names[0], names[-1])
        made.append(Part(name, rows, _repeats(study, config, rows, full), full))
    return made


def located_part(study: Study, config: TransferConfig) -> Part:
    """Return all rows that have a place, under one partition: what a model that ships is fitted to."""
    rows = np.flatnonzero(study.located)
    repeat = draw(
        study.place[rows], study.components[rows] / study.spread, study.labels[rows], config.blocks, SEED
    )
    return Part("all", rows, [repeat], False)


def _repeats(study: Study, config: TransferConfig, rows: Integers, full: bool) -> list[Repeat]:
    count = config.blocks.repeats if full else config.blocks.repeats_between
    place, labels = study.place[rows], study.labels[rows]
    components = study.components[rows] / study.spread
    drawn = [draw(place, components, labels, config.blocks, SEED + number) for number in range(count)]
    for repeat in drawn:
        left = (masks(repeat, inner=full) & (labels == 1)).sum(axis=1)
        if left.min() < 2:
            raise ConfigError(
                f"a model would learn from {left.min()} deposits",
                place="blocks",
                fix="use smaller blocks, a smaller buffer, or more folds",
            )
    return drawn


def masks(repeat: Repeat, *, inner: bool) -> Flags:
    """Rows that each model of a partition learns from: of each fold, then of each pair of folds, bool [F, N]."""
    if not inner:
        return repeat.outer
    both = [repeat.inner[k, j] for k, j in pairs(len(repeat.outer))]
    return np.concatenate([repeat.outer, np.array(both)])


def pretext_masks(study: Study, rows: Integers, repeat: Repeat, buffer_m: float, *, inner: bool) -> Flags:
    """Rows of the pretext task outside the buffer around what is held out, bool [F, T]."""
    apart = np.linalg.norm(study.pretext_place[None] - study.place[rows][:, None], axis=2)
    clear = np.array([apart[held].min(axis=0, initial=np.inf) > buffer_m for held in repeat.held])
    if not inner:
        return clear
    return np.concatenate([clear, np.array([clear[k] & clear[j] for k, j in pairs(len(clear))])])


def fit_model(
    name: str, config: TransferConfig, rows: Rows, seen: Flags, pretext_seen: Flags, seed: int
) -> Sequence[Sequence[Member]]:
    """Fit the members of a model, by its name in the configuration, for each mask."""
    baseline = config.baselines.by_name().get(name)
    if baseline is not None:
        return fit_classic(baseline, rows, seen, seed)
    return fit_deep(config.nets[name], rows, seen, pretext_seen, seed)


def score_model(name: str, config: TransferConfig, study: Study, part: Part) -> Scores:
    """Fit a model under all partitions of an experiment, and score the rows it has not seen."""
    rows = extended_rows(study, config).part(part.rows)
    folds, count = config.blocks.folds, len(part.rows)
    unseen = np.empty((len(part.repeats), count))
    inner = np.full((len(part.repeats), folds, count), np.nan)
    for start in range(0, len(part.repeats), BATCH):
        batch = part.repeats[start : start + BATCH]
        seen = np.concatenate([masks(one, inner=part.inner) for one in batch])
        buffer_m = config.blocks.buffer_m
        pretext = [pretext_masks(study, part.rows, one, buffer_m, inner=part.inner) for one in batch]
        fitted = fit_model(name, config, rows, seen, np.concatenate(pretext), SEED + start)
        scores = np.array([mean_score(members, rows.extended) for members in fitted])
        for number, (repeat, own) in enumerate(
            zip(batch, scores.reshape(len(batch), -1, count), strict=True), start
        ):
            unseen[number] = np.take_along_axis(own, repeat.fold[None], axis=0)[0]
            for (k, j), score in zip(pairs(folds), own[folds:], strict=False):
                inner[number, k, repeat.held[j]] = score[repeat.held[j]]
                inner[number, j, repeat.held[k]] = score[repeat.held[k]]
    return Scores(unseen, inner)


def mean_score(members: Sequence[Member], extended: Floats) -> Floats:
    """Mean score of the members for rows [N, P + L], float64 [N]."""
    score: Floats = np.mean([member.score(extended) for member in members], axis=0)
    return score


def judge(scores: Scores, part: Part, labels: Integers) -> dict[str, Floats]:
    """Return each metric of an experiment's rows [N], float64 [R].

    Threshold and calibration of a fold come from the inner scores of the other folds.
    """
    found: dict[str, list[float]] = {}
    for repeat, score, inner in zip(part.repeats, scores.unseen, scores.inner, strict=True):
        metrics = ranking(score, labels)
        if part.inner:
            probability, called = calibrated(score, inner, repeat, labels)
            metrics |= evaluate(probability, called, labels)
        for name, value in metrics.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def calibrated(score: Floats, inner: Floats, repeat: Repeat, labels: Integers) -> tuple[Floats, Integers]:
    """Return the probability of each row [N], and 1 where it reaches the threshold of its fold."""
    probability, called = np.empty(len(score)), np.zeros(len(score), np.int64)
    for held, own in zip(repeat.held, inner, strict=True):
        calibration = fit_calibration(own[~held], labels[~held])
        threshold = best_threshold(calibration(own[~held]), labels[~held])
        probability[held] = calibration(score[held])
        called[held] = probability[held] >= threshold
    return probability, called


def models(config: TransferConfig, *, full: bool) -> tuple[str, ...]:
    """Names of the models of an experiment; between the first and the last, those of the comparison alone."""
    if full:
        return (*config.baselines.by_name(), *config.nets)
    return ("random_forest", "svm", "logistic", config.deep)


def run_all(
    config: TransferConfig,
    study: Study,
    made: Sequence[Part],
    workers: Executor,
    tell: Callable[[str], None],
) -> dict[str, dict[str, Scores]]:
    """Score every model on every experiment: by experiment, then by model."""
    tasks = [(part, name) for part in made for name in models(config, full=part.inner)]
    running = [workers.submit(score_model, name, config, study, part) for part, name in tasks]
    found: dict[str, dict[str, Scores]] = {part.name: {} for part in made}
    for (part, name), task in zip(tasks, running, strict=True):
        found[part.name][name] = task.result()
        tell(f"{part.name}: {name}")
    for part in made:
        own = found[part.name]
        if part.inner:
            pair = zip(own[config.deep], own["random_forest"], strict=True)
            own[ENSEMBLE] = Scores(*(np.mean(both, axis=0) for both in pair))
    return found


def pool(workers: int) -> Executor:
    """Open processes of one thread each, or one thread beside; results do not depend on their number."""
    if workers == 1:
        return ThreadPoolExecutor(1)
    context = multiprocessing.get_context("spawn")  # forked threads of PyTorch would hang
    return ProcessPoolExecutor(workers, context, initializer=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
