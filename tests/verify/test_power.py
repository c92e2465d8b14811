"""Faults are found and right models are not refused: a part of benchmarks/verification.py."""

from __future__ import annotations

import pytest
from mutants import KINDS
from verification import alarms_of, fold_rows, hard_rows, missed_of, mutation_rows, rewrite_rows
from verified import MODELS

NAMES = list(MODELS)
FAULTY = ("labels", "improbable class", "quiet channel", "permuted", "categories", "generator")


@pytest.mark.parametrize("name", FAULTY)
def test_every_fault_that_an_input_shows_is_found(name: str) -> None:
    number = NAMES.index(name)
    rows = list(mutation_rows(number, KINDS[FAULTY.index(name) % 3 :: 3]))
    assert len(rows) > 4
    assert not missed_of(rows)


# What showed in one sample of many, or within bounds that were too wide.
SMALL = {
    "excited": "rounded to float16",
    "one-hot": "one number 1 % off",
    "two vocabularies": "the bias of the least class",
    "dictionary": "clipped at 100",
    "mixed float16": "an input clipped at 100",
    "float64": "one number 1 % off",
    "labels": "an input clipped at 100",
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_fault_is_found(name: str) -> None:
    (row,) = mutation_rows(NAMES.index(name), (SMALL[name],))
    assert row["found"]


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_no_right_fold_is_called_different(first: int) -> None:
    rows = [row for number in range(first, first + 10) for row in fold_rows(number)]
    assert not alarms_of(rows)


@pytest.mark.parametrize("name", ["inverted residual", "nested"])
def test_no_rewrite_is_called_different(name: str) -> None:
    assert not alarms_of(rewrite_rows(NAMES.index(name)))


@pytest.mark.parametrize("number", [1, 2, 3])  # saturated, underflowing, stateful
def test_no_model_that_is_hard_to_judge_is_called_different(number: int) -> None:
    assert not alarms_of(hard_rows(number))
