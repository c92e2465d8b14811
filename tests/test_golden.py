"""Nothing that a user can see changes while code is moved."""

from __future__ import annotations

import gzip
import json

import numpy as np

import golden


def test_plans_and_reports_are_those_of_before():
    with gzip.open(golden.PLANS, "rt") as file:
        before = json.load(file)
    seen = 0
    for name, lines in golden.plans():
        assert lines == before[name], name
        seen += 1
    assert seen == len(before)


def test_weights_are_those_of_before_to_a_unit_in_the_last_place():
    before = np.load(golden.WEIGHTS)
    seen = 0
    for name, found in golden.weights():
        for k, got in enumerate(found):
            want = before[f"{name} {k}"]
            assert got.shape == want.shape, name
            largest = np.max(np.abs(want), initial=0.0)  # of what cancels, the digits are chance
            unit = np.spacing(np.maximum(np.abs(want), 1e-8 * largest))
            assert np.all(np.abs(got - want) <= unit), name
            seen += 1
    assert seen == len(before.files)
