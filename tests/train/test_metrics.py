"""Metrics against cases worked by hand and against their definitions, counted pair by pair."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinynet import nn
from tinynet.errors import ArgumentError, DtypeError, ShapeError
from tinynet.train import Evaluation, evaluate, metrics, predict

# Eight samples, three classes. Class 0: 3 samples, found 2; class 1: 3 samples, found 1; class 2: 2 samples, found 2.
LABELS = [0, 0, 0, 1, 1, 1, 2, 2]
PREDICTIONS = [0, 0, 1, 1, 2, 2, 2, 2]

samples = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2)
)


def test_worked_by_hand():
    assert metrics.accuracy(LABELS, PREDICTIONS) == 5 / 8
    np.testing.assert_array_equal(metrics.confusion_matrix(LABELS, PREDICTIONS), [[2, 1, 0], [0, 1, 2], [0, 0, 2]])
    np.testing.assert_allclose(metrics.precision(LABELS, PREDICTIONS), [2 / 2, 1 / 2, 2 / 4])
    np.testing.assert_allclose(metrics.recall(LABELS, PREDICTIONS), [2 / 3, 1 / 3, 2 / 2])
    np.testing.assert_allclose(metrics.f1_score(LABELS, PREDICTIONS), [4 / 5, 2 / 5, 4 / 6])
    assert metrics.macro(metrics.recall(LABELS, PREDICTIONS)) == pytest.approx(2 / 3)


@given(samples)
def test_confusion_precision_recall_f1_by_counting(case):
    labels, predictions = case
    pairs = list(zip(labels, predictions, strict=True))
    matrix = metrics.confusion_matrix(labels, predictions, 4)
    for i, j in itertools.product(range(4), range(4)):
        assert matrix[i, j] == pairs.count((i, j))
    assert metrics.accuracy(labels, predictions) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    precision, recall = metrics.precision(labels, predictions, 4), metrics.recall(labels, predictions, 4)
    f1 = metrics.f1_score(labels, predictions, 4)
    for c in range(4):
        taken = [a == c for a, b in pairs if b == c]
        there = [b == c for a, b in pairs if a == c]
        if not taken and not there:
            assert math.isnan(precision[c]) and math.isnan(recall[c]) and math.isnan(f1[c])
            continue
        p = sum(taken) / len(taken) if taken else 0.0
        r = sum(there) / len(there) if there else 0.0
        assert (precision[c], recall[c]) == (pytest.approx(p), pytest.approx(r))
        assert f1[c] == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=25))
def test_auc_is_the_share_of_pairs_in_the_right_order(case):
    labels, scores = np.array([a for a, _ in case]), np.array([b / 2 for _, b in case])
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[labels] for n in scores[~labels]]
    got = metrics.roc_auc(labels, scores)
    if wins:
        assert got == pytest.approx(sum(wins) / len(wins), abs=1e-12)
        two = np.stack([-scores, scores], axis=1)
        assert metrics.roc_auc(labels.astype(int), two) == pytest.approx(got, abs=1e-12)
        assert metrics.roc_auc(~labels, -scores) == pytest.approx(got, abs=1e-12)
    else:
        assert math.isnan(got)


def test_auc_by_hand():
    assert metrics.roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert metrics.roc_auc([0, 1], [0.5, 0.5]) == 0.5
    assert metrics.roc_auc([1, 0], [0.1, 0.9]) == 0.0
    # three classes: the mean of the three against the rest; class 3 has no samples and is left out
    labels, scores = np.array([0, 0, 1, 1, 2]), np.random.default_rng(0).random((5, 4))
    parts = [metrics.roc_auc(labels == c, scores[:, c]) for c in range(3)]
    assert metrics.roc_auc(labels, scores) == pytest.approx(sum(parts) / 3)


def test_degenerate_cases_are_nan():
    assert math.isnan(metrics.roc_auc([1, 1], [0.2, 0.4]))
    assert math.isnan(metrics.roc_auc([0, 0, 0], np.eye(3)))
    assert math.isnan(metrics.roc_auc([0, 1], [0.2, math.nan]))
    assert math.isnan(metrics.roc_auc([], []))
    assert math.isnan(metrics.accuracy([], []))
    assert math.isnan(metrics.top_k_accuracy([], np.zeros((0, 3)), 1))
    assert math.isnan(metrics.macro(metrics.precision([], [], 2)))
    assert metrics.confusion_matrix([], []).shape == (0, 0)
    # never predicted, but there: 0, and it counts in the mean; neither there nor predicted: no figure
    np.testing.assert_array_equal(metrics.precision([0, 1], [0, 0], 3), [0.5, 0.0, math.nan])
    assert metrics.macro(metrics.precision([0, 1], [0, 0], 3)) == 0.25


def test_top_k():
    scores = [[0.1, 0.5, 0.4], [0.2, 0.2, 0.2], [3, 2, 1]]
    assert metrics.top_k_accuracy([1, 2, 2], scores, 1) == pytest.approx(1 / 3)
    assert metrics.top_k_accuracy([2, 1, 2], scores, 2) == pytest.approx(2 / 3)  # of equal scores, the lower class
    assert metrics.top_k_accuracy([0, 2, 2], scores, 3) == 1
    assert metrics.top_k_accuracy([2, 2, 2], scores, 1) == metrics.accuracy([2, 2, 2], np.argmax(scores, 1))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: metrics.accuracy([0, 1], [0]), ShapeError),
        (lambda: metrics.accuracy([[0]], [[0]]), ShapeError),
        (lambda: metrics.accuracy([0.5], [0.5]), DtypeError),
        (lambda: metrics.confusion_matrix([0, -1], [0, 0]), ArgumentError),
        (lambda: metrics.confusion_matrix([0, 3], [0, 0], 3), ArgumentError),
        (lambda: metrics.roc_auc([0, 1, 2], [0.1, 0.2, 0.3]), ArgumentError),
        (lambda: metrics.roc_auc([0, 3], np.zeros((2, 3))), ArgumentError),
        (lambda: metrics.roc_auc([0], np.zeros((2, 3))), ShapeError),
        (lambda: metrics.top_k_accuracy([0], [[1.0, 2.0]], 3), ArgumentError),
        (lambda: metrics.top_k_accuracy([0], [[1.0, 2.0]], 0), ArgumentError),
        (lambda: metrics.top_k_accuracy([0], [1.0], 1), ShapeError),
        (lambda: Evaluation(np.zeros((2, 2)), np.array([0, 1])).metrics(positive=2), ArgumentError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_evaluation_of_a_model_equals_the_whole_set_at_once():
    rng = np.random.default_rng(0)
    model, x, y = nn.Linear(5, 3, rng=rng), rng.normal(size=(17, 5)).astype(np.float32), rng.integers(0, 3, 17)
    batches = [(x[i : i + 5], y[i : i + 5]) for i in range(0, 17, 5)]
    result = evaluate(model, batches, nn.CrossEntropyLoss())
    logits = model(x)  # batches are cut into shards, so the sums may be taken in another order
    np.testing.assert_allclose(result.logits, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.labels, y)
    assert result.loss == pytest.approx(float(nn.CrossEntropyLoss()(logits, y)[0]), rel=1e-6)
    odds = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(result.probabilities, odds / odds.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(result.predictions, logits.argmax(1))
    figures = result.metrics()
    assert figures["accuracy"] == result.accuracy == metrics.accuracy(y, logits.argmax(1))
    assert figures["f1"] == metrics.macro(metrics.f1_score(y, logits.argmax(1), 3))
    assert figures["auc"] == metrics.roc_auc(y, result.probabilities)
    assert result.metrics(positive=1)["recall"] == metrics.recall(y, logits.argmax(1), 3)[1]
    assert result.metrics(positive=1)["precision"] == metrics.precision(y, logits.argmax(1), 3)[1]
    np.testing.assert_array_equal(result.confusion_matrix, metrics.confusion_matrix(y, logits.argmax(1), 3))
    assert math.isnan(evaluate(model, batches).loss)
    np.testing.assert_allclose(predict(model, x, batch_size=4), result.probabilities, rtol=1e-5)
    np.testing.assert_allclose(predict(model, batches), result.probabilities, rtol=1e-5)
    for empty in (lambda: evaluate(model, []), lambda: predict(model, []), lambda: predict(model, x[:0])):
        with pytest.raises(ArgumentError, match="at least one"):
            empty()


def test_two_classes_are_ranked_by_logits_that_probabilities_cannot_tell_apart():
    logits = np.array([[0.0, 100.0], [0.0, 200.0]], np.float32)
    result = Evaluation(logits, np.array([0, 1]))
    assert result.metrics()["auc"] == 1.0
