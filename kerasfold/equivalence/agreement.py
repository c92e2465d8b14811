"""How often two models name the same class, and the right one: counted batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

TOP = 5
NONE = -1  # the class that is named by scores with a NaN among them


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """Two models on the inputs of one class.

    Attributes:
        label: the class, from 0.
        inputs: that are of it.
        top1: the share of these for which both models name the same class.
        accuracy_a: the share for which the first names this one.
        accuracy_b: the share for which the second does.
    """

    label: int
    inputs: int
    top1: float
    accuracy_a: float
    accuracy_b: float


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Two models whose output is a score of each class, or the probability of the second of two.

    Attributes:
        output: its name.
        inputs: that are counted: those for which the first model gives no NaN.
        top1: the share of these for which both models name the same class.
        top5: the share for which the first model's class is among the second's best five; None of
            five classes or fewer.
        accuracy_a: the share for which the first model names the class that the labels say; None
            without labels.
        accuracy_b: the share for which the second model does.
        per_class: a record of each class that the labels hold.
    """

    output: str
    inputs: int
    top1: float
    top5: float | None = None
    accuracy_a: float | None = None
    accuracy_b: float | None = None
    per_class: tuple[ClassAgreement, ...] = ()

    def __str__(self) -> str:
        said = [f"top class of '{self.output}' agrees on {self.top1:.2%} of {self.inputs} inputs"]
        if self.top5 is not None:
            said.append(f"is among the best five for {self.top5:.2%}")
        if self.accuracy_a is not None:
            said.append(f"accuracy {self.accuracy_a:.2%} -> {self.accuracy_b:.2%}")
        least = min(self.per_class, key=lambda one: one.top1, default=None)
        if least is not None and least.top1 < 1:
            said.append(f"least for class {least.label}, {least.top1:.2%} of {least.inputs}")
        return ", ".join(said)


def class_indices(labels: np.ndarray, classes: int) -> np.ndarray | None:
    """The class of each input (n,), or None where labels are none of an output of so many columns.

    Args:
        labels: (n,) or (n, 1) of whole numbers from 0, or (n, classes) of one-hot rows.
        classes: columns of the output: of 1, the labels are 0 or 1.
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2):
        return None
    if values.ndim == 2 and values.shape[1] == classes > 1:
        one_hot = np.all((values == 0) | (values == 1)) and np.all(values.sum(axis=1) == 1)
        return np.argmax(values, axis=1) if one_hot else None
    if values.ndim == 2 and values.shape[1] != 1:
        return None
    values = values.reshape(-1)
    are_classes = np.isin(values, np.arange(max(classes, 2))).all()
    return values.astype("int64") if are_classes else None


class Agreement:
    """Counts of the classes that two models name; nothing but counts is kept.

    An output is a score of each class where it is (n, classes) with two classes and more. One
    column, (n, 1), is the probability of the second of two where it is labelled, each label is 0
    or 1, and no value is below 0 or above 1.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Nothing is counted yet.

        Args:
            names: of the outputs, in flat order.
        """
        self._names = names
        self.counts: list[_Counts | None] = []

    def saw(
        self,
        a: Sequence[np.ndarray],
        b: Sequence[np.ndarray],
        labels: Sequence[np.ndarray] = (),
    ) -> None:
        """Count one batch.

        Args:
            a: the first model's outputs, in flat order.
            b: the second's.
            labels: an array for each output, or none.
        """
        batch = [_scored(*columns) for columns in itertools.zip_longest(a, b, labels)]
        self.counts = self.counts or [
            None if one is None else _Counts(one.a.shape[1]) for one in batch
        ]
        for index, one in enumerate(batch):
            counts = self.counts[index]
            if one is None or counts is None or counts.classes != one.a.shape[1]:
                self.counts[index] = None
            else:
                counts.add(one)

    def merge(self, other: Agreement) -> None:
        """Count what another counted of the same models."""
        if not (self.counts and other.counts):
            self.counts = self.counts or other.counts
            return
        for index, (mine, theirs) in enumerate(zip(self.counts, other.counts, strict=True)):
            if mine is None or theirs is None or mine.classes != theirs.classes:
                self.counts[index] = None
            else:
                mine.merge(theirs)

    def result(self) -> list[AgreementReport | None]:
        """What was found of each output; None of one that is no score of classes."""
        return [
            counts.report(name) if counts is not None and counts.inputs else None
            for name, counts in itertools.zip_longest(self._names, self.counts)
        ]


@dataclass(frozen=True, eq=False, slots=True)
class _Scores:
    """Of each class (n, classes), by two models, and the class (n,) that is right, or None."""

    a: np.ndarray
    b: np.ndarray
    right: np.ndarray | None


def _scored(a: np.ndarray, b: np.ndarray, labels: np.ndarray | None) -> _Scores | None:
    """An output of two models as scores of classes; None if it is none."""
    if a.ndim != 2 or a.shape != b.shape or not a.shape[1]:
        return None
    right = None if labels is None else class_indices(labels, a.shape[1])
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape[1] > 1:
        return _Scores(a, b, right)
    if right is None or any(np.any((v < 0) | (v > 1)) for v in (a, b)):
        return None
    return _Scores(np.hstack([1 - a, a]), np.hstack([1 - b, b]), right)


class _Counts:
    """Of one output: how many inputs there were, and for how many the models agreed."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.inputs = self.same = self.among = 0
        self.labelled = True
        # For each class: its inputs, those of one class by both, of the right one by a, by b.
        self.by_class = np.zeros((4, classes), "int64")

    def add(self, scores: _Scores) -> None:
        known = ~np.isnan(scores.a).any(axis=1)
        a, b = scores.a[known], scores.b[known]
        first = a.argmax(axis=1)
        second = np.where(np.isnan(b).any(axis=1), NONE, b.argmax(axis=1))
        better = np.sum(b > np.take_along_axis(b, first[:, None], axis=1), axis=1)
        same = first == second
        self.inputs += len(a)
        self.same += int(np.sum(same))
        self.among += int(np.sum((better < TOP) & (second != NONE)))
        self.labelled &= scores.right is not None
        if scores.right is not None:
            right = scores.right[known]
            for row, hit in enumerate((right == right, same, first == right, second == right)):
                self.by_class[row] += np.bincount(right[hit], minlength=self.classes)

    def merge(self, other: _Counts) -> None:
        self.inputs += other.inputs
        self.same += other.same
        self.among += other.among
        self.labelled &= other.labelled
        self.by_class += other.by_class

    def report(self, name: str) -> AgreementReport:
        found = AgreementReport(
            name,
            self.inputs,
            self.same / self.inputs,
            self.among / self.inputs if self.classes > TOP else None,
        )
        if not self.labelled:
            return found
        _, _, right_a, right_b = (self.by_class.sum(axis=1) / self.inputs).tolist()
        per_class = tuple(
            ClassAgreement(label, inputs, *(hits / inputs for hits in found))
            for label, (inputs, *found) in enumerate(self.by_class.T.tolist())
            if inputs
        )
        return replace(found, accuracy_a=right_a, accuracy_b=right_b, per_class=per_class)
