import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytest.importorskip("sklearn", reason="training needs the extra 'train'")
pytest.importorskip("imblearn", reason="training needs the extra 'train'")

from sklearn.ensemble import RandomForestClassifier

from lithostream.training.transfer.blocks import Repeat
from lithostream.training.transfer.classic import ClassicMember, fit_classic
from lithostream.training.transfer.deep import Start
from lithostream.training.transfer.features import Inputs, Logarithms, Rows, fit_inputs
from lithostream.training.transfer.members import arrays_of
from lithostream.training.transfer.models import Baseline, Boosting, Forest
from lithostream.training.transfer.nets import (
    Nets,
    Schedule,
    binary_loss,
    class_weights,
    fit,
    initial,
    packed,
)
from lithostream.training.transfer.protocol import calibrated
from lithostream.training.transfer.scores import (
    best_threshold,
    calibration_error,
    evaluate,
    fit_calibration,
    interval,
)


def test_many_nets_learn_as_one_alone() -> None:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(3, 4, 50)).astype(np.float32))
    labels = (inputs[:, 0] > 0).float()
    every = torch.ones_like(labels, dtype=torch.bool)
    weights = class_weights(labels, every, "weighted", 1.0)
    schedule = Schedule(40, 1e-2, l1=1e-4, l2=1e-4)
    seeds = [4, 5, 6]
    together = fit(initial([4, 8, 1], seeds), inputs, binary_loss(labels, weights), schedule, every, seeds)
    for one in range(3):
        part = slice(one, one + 1)
        loss = binary_loss(labels[part], weights[part])
        alone = fit(initial([4, 8, 1], seeds[part]), inputs[part], loss, schedule, every[part], seeds[part])
        np.testing.assert_allclose(alone(inputs[part])[0], together(inputs)[one], atol=1e-4)
    accuracy = ((together(inputs)[:, 0] > 0) == (labels > 0)).float().mean()
    assert accuracy > 0.85


@pytest.mark.parametrize("batch", [None, 8])
def test_padding_teaches_nothing(batch: int | None) -> None:
    rng = np.random.default_rng(3)
    every = torch.from_numpy(rng.normal(size=(2, 3, 40)).astype(np.float32))
    labels = (every[:, 1] > 0).float()
    masks = torch.from_numpy(np.arange(40) < np.array([[36], [40]])) & (torch.arange(40) % 9 > 0)
    index, present = packed(masks)
    assert index.shape == (2, 35) and present.sum(dim=1).tolist() == [32, 35]
    inputs, labels = every.gather(2, index[:, None].expand(-1, 3, -1)), labels.gather(1, index)
    weights = class_weights(labels, present, "weighted", 1.0)
    inputs[0, :, 32:] = 1e3  # padding may hold anything
    schedule = Schedule(5, 1e-2, l2=1e-3, batch=batch)
    together = fit(
        initial([3, 6, 1], [1, 1]), inputs, binary_loss(labels, weights), schedule, present, [1, 1]
    )
    own = np.s_[:1, ..., :32]
    loss = binary_loss(labels[own], weights[own])
    if batch is None:  # in batches a net of fewer rows takes other steps
        alone = fit(initial([3, 6, 1], [1]), inputs[own], loss, schedule, present[own], [1])
        np.testing.assert_allclose(alone.weights[0][0], together.weights[0][0], atol=1e-6)
    inputs[0, :, 32:] = -1e3
    again = fit(initial([3, 6, 1], [1, 1]), inputs, binary_loss(labels, weights), schedule, present, [1, 1])
    assert torch.equal(again.weights[0], together.weights[0])


def test_penalties_are_their_gradients() -> None:
    inputs = torch.randn((2, 3, 30), generator=torch.Generator().manual_seed(2))
    labels = (inputs[:, 0] > 0).float()
    every = labels >= 0
    loss = binary_loss(labels, class_weights(labels, every, "weighted", 1.0))
    nets, wanted = initial([3, 4, 1], [1, 2]), initial([3, 4, 1], [1, 2])
    fit(nets, inputs, loss, Schedule(20, 1e-2, l1=0.03, l2=0.05), every, [1, 2])
    moving = [tensor.requires_grad_() for tensor in (*wanted.weights, *wanted.biases)]
    adam = torch.optim.Adam(moving, lr=1e-2)
    for _ in range(20):
        adam.zero_grad()
        penalty = sum(0.03 * one.abs().sum() + 0.05 * (one * one).sum() for one in wanted.weights)
        (loss(wanted(inputs), None) + penalty).backward()
        adam.step()
    np.testing.assert_allclose(nets.weights[0], wanted.weights[0].detach(), atol=1e-5)
    np.testing.assert_allclose(nets.biases[1], wanted.biases[1].detach(), atol=1e-5)


def test_the_gradient_is_that_of_one_net_by_hand() -> None:
    inputs, labels = torch.tensor([[[1.0, -2.0, 0.5]]]), torch.tensor([[1.0, 0.0, 1.0]])
    nets = initial([1, 1], [0])
    before = nets.weights[0].item()
    weights = torch.tensor([[1.0, 2.0, 0.0]])
    fit(nets, inputs, binary_loss(labels, weights), Schedule(1, 0.1), weights > 0, [0])
    # Adam's first step is the rate against the sign of the gradient.
    slope = sum(w * (1 / (1 + np.exp(-before * x)) - y) * x for x, y, w in ((1, 1, 1), (-2, 0, 2)))
    assert nets.weights[0].item() == pytest.approx(before - 0.1 * np.sign(slope), abs=1e-4)


def test_probes_move_the_last_layer_alone() -> None:
    inputs = torch.randn((2, 3, 20), generator=torch.Generator().manual_seed(1))
    labels = (inputs[:, 0] > 0).float()
    nets = initial([3, 5, 1], [1, 2])
    first, last = nets.weights[0].clone(), nets.weights[1].clone()
    schedule = Schedule(3, 0.1, batch=8, last_only=True)
    fit(nets, inputs, binary_loss(labels, torch.ones_like(labels)), schedule, labels >= 0, [1, 2])
    assert torch.equal(nets.weights[0], first) and not torch.equal(nets.weights[1], last)


def test_weights_of_classes() -> None:
    labels = torch.tensor([[1.0, 0, 0, 0, 1.0, 0]])
    masks = torch.tensor([[True, True, True, True, False, False]])
    weighted = class_weights(labels, masks, "weighted", 1.0)[0]
    np.testing.assert_allclose(weighted, [2, 2 / 3, 2 / 3, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(labels, masks, "weighted", 0.0)[0], [1] * 4 + [0, 0])
    balanced = class_weights(labels, masks, "class_balanced", 1.0)[0]
    # Cui et al. 2019: (1 - beta) / (1 - beta^n) for n = 1 and 3.
    assert balanced[0] / balanced[1] == pytest.approx((1 - 0.999**3) / (1 - 0.999), rel=1e-4)


def test_focal_loss_is_the_formula() -> None:
    output, labels = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[1.0, 1.0]])
    found = binary_loss(labels, torch.ones_like(labels), focal=True)(output, None)
    p = 1 / (1 + np.exp([-2.0, 1.0]))
    assert float(found) == pytest.approx(float(np.mean(-((1 - p) ** 2) * np.log(p))), rel=1e-5)


@pytest.mark.parametrize("baseline", [Forest(trees=20), Boosting(trees=20)])
def test_arrays_of_trees_are_the_trees(baseline: Baseline) -> None:
    rng = np.random.default_rng(2)
    raw = rng.normal(size=(60, 3)).astype(np.float32).astype(np.float64)
    labels = (raw[:, 0] * raw[:, 1] > 0).astype(np.int64)
    rows = Rows(Logarithms(), raw, labels, raw, labels, raw)
    ((member,),) = fit_classic(baseline, rows, np.ones((1, 60), np.bool_), 0)
    arrays = arrays_of(member)
    inputs = member.inputs(raw).astype(np.float32)
    total = np.full(60, float(arrays["base"]))
    for tree in np.unique(arrays["tree"]):
        own = {
            name: arrays[name][arrays["tree"] == tree]
            for name in arrays
            if arrays[name].ndim == 1 and name != "offset"
        }
        for row in range(60):
            at = 0
            while own["feature"][at] >= 0:
                left = inputs[row, own["feature"][at]] <= own["threshold"][at]
                at = own["left"][at] if left else own["right"][at]
            total[row] += own["value"][at]
    wanted = member.score(raw)
    np.testing.assert_allclose(
        total if isinstance(baseline, Forest) else 1 / (1 + np.exp(-total)), wanted, atol=1e-5
    )


def test_thresholds_are_rounded_so_that_no_float32_row_changes_sides() -> None:
    rows = np.array([[0.1], [0.2], [0.3], [0.4]])
    forest = RandomForestClassifier(3, random_state=0).fit(rows, [0, 0, 1, 1])
    identity = Inputs(np.eye(1), np.zeros(1), None)
    arrays = arrays_of(ClassicMember(identity, forest))
    exact = np.concatenate([one.tree_.threshold for one in forest.estimators_])
    inner = arrays["feature"] >= 0
    stored = arrays["threshold"][inner].astype(np.float64)
    assert (stored <= exact[inner]).all() and (
        np.nextafter(stored.astype(np.float32), np.float32(9)) > exact[inner]
    ).all()


def test_calibration_is_found_again() -> None:
    rng = np.random.default_rng(4)
    score = rng.normal(size=4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-(2 * score - 1)))).astype(np.int64)
    slope, intercept = fit_calibration(score, labels)
    assert slope == pytest.approx(2, abs=0.15) and intercept == pytest.approx(-1, abs=0.12)
    assert fit_calibration(-score, labels).slope == pytest.approx(0, abs=1e-6)
    probability = fit_calibration(score, labels)(score)
    assert calibration_error(probability, labels) < 0.03
    assert calibration_error(np.full(4000, 0.9), labels) == pytest.approx(0.9 - labels.mean())


def test_metrics_by_hand() -> None:
    labels = np.array([1, 1, 0, 0, 0])
    found = evaluate(np.array([0.9, 0.2, 0.6, 0.1, 0.1]), np.array([1, 0, 1, 0, 0]), labels)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["f1"] == pytest.approx(1 / 2)
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.36 + 0.02) / 5)
    assert best_threshold(np.array([0.9, 0.7, 0.6, 0.1, 0.1]), labels) == pytest.approx(0.65)
    assert best_threshold(np.full(5, 0.3), labels) == 0.5
    low_high = interval(np.array([1.0, 2.0, 3.0]))
    assert low_high.mean == 2 and low_high.high - 2 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_a_fold_is_called_by_what_the_other_folds_say() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0] * 10)
    fold = np.repeat([0, 1, 2], 20)
    held = fold[None] == np.arange(3)[:, None]
    repeat = Repeat(fold, ~held, ~held[:, None] & ~held[None], held)
    score = labels + np.where(fold == 0, 100.0, 0.0)  # fold 0 scores on another scale
    inner = np.where(held, np.nan, labels * 1.0)
    probability, called = calibrated(score, inner, repeat, labels)
    np.testing.assert_array_equal(called[fold > 0], labels[fold > 0])
    assert (called[fold == 0] == 1).all() and (probability[fold == 0] > 0.99).all()


def test_what_was_learned_is_carried_behind_other_inputs() -> None:
    rng = np.random.default_rng(5)
    raw = rng.normal(size=(80, 4)) * [1, 5, 0.1, 30]
    extended = Logarithms((3,), (2.0,)).extend(raw)
    for view in ("logarithmic", "components", "whitened", "both"):
        wide, narrow = (
            fit_inputs(extended, mask, view, Logarithms((3,), (2.0,)))
            for mask in (np.ones(80, np.bool_), np.arange(80) < 30)
        )
        nets = initial([wide.matrix.shape[1], 6, 1], [1, 2])

        start = Start(Nets(nets.weights[:1], nets.biases[:1]), wide).behind(narrow)
        moved = nets.started_from(start)
        taken = [
            torch.from_numpy(one(extended).T.astype(np.float32)).expand(2, -1, -1) for one in (wide, narrow)
        ]
        np.testing.assert_allclose(nets(taken[0]), moved(taken[1]), atol=1e-4)
