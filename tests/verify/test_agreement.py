"""How often two models name the same class, counted in batches, against a count input by input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kerasfold.equivalence.agreement import Agreement, AgreementReport, class_indices


def scores(seed: int, inputs: int = 60, classes: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(inputs, classes))


def agreement(
    a: np.ndarray, b: np.ndarray, labels: Any = None, batch: int = 7
) -> AgreementReport | None:
    counted = Agreement(["class"])
    for i in range(0, len(a), batch):
        here = slice(i, i + batch)
        counted.saw([a[here]], [b[here]], () if labels is None else [labels[here]])
    (report,) = counted.result()
    return report


def test_the_top_class_and_the_best_five() -> None:
    a, b = scores(0), scores(0) + 2.0 * scores(1)
    report = agreement(a, b)
    assert report is not None
    pairs = [(x.tolist(), y.tolist()) for x, y in zip(a, b, strict=True)]
    tops = [x.index(max(x)) for x, _ in pairs]
    same = sum(y[top] == max(y) for top, (_, y) in zip(tops, pairs, strict=True))
    among = sum(y[top] in sorted(y)[-5:] for top, (_, y) in zip(tops, pairs, strict=True))
    assert 0 < same < among < 60
    assert (report.top1, report.top5) == (same / 60, among / 60)
    assert (report.inputs, report.accuracy_a, report.per_class) == (60, None, ())


def test_labels_give_accuracies_and_the_agreement_of_each_class() -> None:
    a, b = scores(2), scores(2) + scores(3)
    labels = np.random.default_rng(4).integers(0, 7, 60)  # none of class 7
    report = agreement(a, b, labels)
    assert report is not None
    tops = [(int(x.argmax()), int(y.argmax())) for x, y in zip(a, b, strict=True)]
    for one in report.per_class:
        mine = [pair for pair, label in zip(tops, labels, strict=True) if label == one.label]
        assert one.inputs == len(mine)
        assert one.top1 == sum(x == y for x, y in mine) / len(mine)
        assert one.accuracy_a == sum(x == one.label for x, _ in mine) / len(mine)
        assert one.accuracy_b == sum(y == one.label for _, y in mine) / len(mine)
    assert [one.label for one in report.per_class] == sorted(set(labels.tolist()))
    assert report.accuracy_b == sum(y == n for (_, y), n in zip(tops, labels, strict=True)) / 60
    assert report.accuracy_a != report.accuracy_b


def test_one_hot_labels_and_columns_are_the_same_labels() -> None:
    a, b, labels = scores(5), scores(6), np.arange(60) % 8
    expected = agreement(a, b, labels)
    assert expected is not None
    assert expected.accuracy_a is not None
    for same in (np.eye(8)[labels], labels[:, None], labels.astype("float32")):
        assert agreement(a, b, same) == expected


def test_a_probability_names_one_of_two_classes() -> None:
    a = np.array([[0.2], [0.5], [0.51], [0.9]])
    b = np.array([[0.6], [0.4], [0.7], [0.1]])
    report = agreement(a, b, np.array([0, 0, 1, 1]))
    assert report is not None
    assert (report.top1, report.top5) == (0.5, None)
    assert (report.accuracy_a, report.accuracy_b) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("output", "labels"),
    [
        (scores(0, classes=1), None),
        (scores(0, classes=1), np.arange(60) % 2),  # no probabilities
        (np.full((60, 1), 0.5), None),
        (np.full((60, 1), 0.5), np.linspace(0, 1, 60)),
        (np.zeros((60, 4, 4, 3)), np.zeros(60)),
    ],
    ids=["number", "logit", "unlabelled", "regression", "image"],
)
def test_what_is_no_score_of_classes(output: np.ndarray, labels: Any) -> None:
    assert agreement(output, output, labels) is None


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(60),
        np.arange(60) - 1,
        np.full(60, 0.5),
        np.ones((60, 8)),
        np.zeros((60, 3)),
        np.full(60, "cat"),
    ],
    ids=["large", "negative", "fraction", "several", "columns", "text"],
)
def test_what_is_no_label_gives_no_accuracy(labels: np.ndarray) -> None:
    assert class_indices(labels, 8) is None
    report = agreement(scores(0), scores(0), labels)
    assert report is not None
    assert (report.top1, report.accuracy_a) == (1.0, None)


def test_nan_of_the_second_model_is_no_agreement_and_of_the_first_not_counted() -> None:
    a, b = scores(0, 10), scores(0, 10)
    a[0] = np.nan
    b[:3, 0] = np.nan
    report = agreement(a, b, np.arange(10) % 8)
    assert report is not None
    assert (report.inputs, report.top1, report.top5) == (9, 7 / 9, 7 / 9)


def test_it_reads() -> None:
    a, labels = np.eye(6)[np.arange(60) % 6], np.arange(60) % 6
    b = a.copy()
    b[0] = np.eye(6)[1]
    assert str(agreement(a, b, labels)) == (
        "top class of 'class' agrees on 98.33% of 60 inputs, is among the best five for 100.00%, "
        "accuracy 100.00% -> 98.33%, least for class 0, 90.00% of 10"
    )
