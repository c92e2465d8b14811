"""The comparison can fail, and the bulk run reports what does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from laws import fuzz
from laws.alone import Axis, conv
from laws.draws import image
from laws.operators import random_weights, same3
from laws.oracle import apply, assert_close
from laws.properties import applied, assert_same_map

# The comparison can fail.


def changed(array: np.ndarray, index: tuple[int, ...], factor: float) -> np.ndarray:
    copy = array.copy()
    copy[index] *= factor
    return copy


def with_axis(operator: Any, **fields: Any) -> Any:
    (axis,) = operator.geometry.axes
    return replace(operator, geometry=replace(operator.geometry, axes=(replace(axis, **fields),)))


def shifted(operator: Any, by: int) -> Any:
    low, high = operator.geometry.axes[0].pad
    return with_axis(operator, pad=(low + by, high - by))


FAULTS: dict[str, Callable[[Any], Any]] = {
    "a kernel entry 0.1 % off": lambda op: replace(op, kernel=changed(op.kernel, (1, 0, 1), 1.001)),
    "a border tap 0.1 % off": lambda op: replace(op, kernel=changed(op.kernel, (0, 0, 0), 1.001)),
    "a bias dropped": lambda op: replace(op, bias=np.zeros_like(op.bias)),
    "an entry of the ones kernel 0.1 % off": lambda op: replace(
        op, ones=changed(op.ones, (1, 0), 1.001)
    ),
    "ones taken for a bias": lambda op: replace(
        op, ones=np.zeros_like(op.ones), bias=op.bias + op.ones.sum(axis=0)
    ),
    "the pad shifted up": lambda op: shifted(op, 1),
    "the pad shifted down": lambda op: shifted(op, -1),
    "one output too many": lambda op: with_axis(op, pad=(op.geometry.axes[0].pad[0], 3)),
    "the taps reversed": lambda op: replace(op, kernel=op.kernel[::-1]),
    "the input channels swapped": lambda op: replace(op, kernel=op.kernel[:, ::-1]),
    "the output channels swapped": lambda op: replace(op, kernel=op.kernel[..., ::-1]),
    "other groups": lambda op: replace(
        op, geometry=replace(op.geometry, groups=2), kernel=op.kernel[:, :1]
    ),
    "a sample cropped and padded": lambda op: with_axis(op, crop=(1, 0), pad=(2, 1)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_notices(fault: str) -> None:
    a = random_weights(Axis(6), channels=(2, 2), biased=True)
    b = random_weights(Axis(6, 3, pad=(1, 1)), channels=(2, 2), seed=1, biased=True)
    composed = conv.compose(b, a)
    x = image(a, 0)
    assert_same_map(composed, [a, b], x)
    assert composed.geometry.axes[0].pad == (1, 1)
    with pytest.raises(AssertionError, match=r"values differ|output sizes"):
        assert_same_map(FAULTS[fault](composed), [a, b], x)


def test_the_comparison_notices_a_naive_border() -> None:
    """Two 'same' layers by the formula of the interior: wrong at the outermost samples alone."""
    a, b = same3(8), same3(8, seed=1)
    valid = [
        replace(op, geometry=replace(op.geometry, axes=(Axis(n, 3),))) for op, n in ((a, 8), (b, 6))
    ]
    naive = with_axis(conv.compose(valid[1], valid[0]), pad=(2, 2))
    x = image(a, 0)
    assert_close(apply(naive, x)[1:-1], applied([a, b], x)[1:-1])
    with pytest.raises(AssertionError, match="values differ"):
        assert_same_map(naive, [a, b], x)


# The bulk run.


def test_a_twentieth_of_the_bulk_run() -> None:
    tally = fuzz.run(5_000, 250, seed=0)
    least = {
        "composition": 1000,
        "composition, last two first": 150,
        "composition at an unknown size": 1000,
        "sum": 400,
        "sum at an unknown size": 1000,
        "concatenation": 400,
        "concatenation at an unknown size": 1000,
        "interior, one kernel": 200,
        "interior, composed": 200,
        "restriction": 400,
    }
    for what, count in least.items():
        assert tally.checked[what] >= count, f"too few to mean anything: {what}\n{tally}"
    assert tally.worst < 1e-13


def test_the_bulk_run_reports_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compose = conv.compose

    def wrong(b: Any, a: Any) -> Any:
        right = compose(b, a)
        return replace(right, kernel=right.kernel * 1.001)

    monkeypatch.setattr(conv, "compose", wrong)
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--rank1", "200", "--rank23", "0", "--seed", "3"])
    assert fuzz.main() == 1
    report = capsys.readouterr().out
    for part in ("seed 3, case ", "a = Operator(", "b = Operator("):
        assert part in report


def test_the_bulk_run_succeeds_with_a_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--rank1", "50", "--rank23", "5"])
    assert fuzz.main() == 0
    report = capsys.readouterr().out
    for part in ("checked: composition", "refused: ", "worst error"):
        assert part in report
