"""Laws of sums, concatenations and groups."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from laws.alone import Axis, conv
from laws.draws import Pick, draw_operator, draw_siblings, draw_sizes, image
from laws.operators import random_weights, selection
from laws.oracle import apply, assert_close, assert_well_formed, at_sizes, output_sizes
from laws.properties import assert_same_map, attempt, for_ranks, has_phases


def _addition(pick: Pick, rank: int) -> None:
    terms = draw_siblings(pick, rank, 2, same_outputs=True)
    x = image(terms[0], pick(0, 99))
    total = attempt(conv.add, terms)
    swapped = attempt(conv.add, terms[::-1])
    assert (total is None) == (swapped is None)
    if total is None:
        return
    assert_well_formed(total)
    assert total.geometry == swapped.geometry
    assert_close(apply(total, x), sum(apply(term, x) for term in terms))
    np.testing.assert_allclose(total.kernel, swapped.kernel, rtol=0, atol=1e-14)
    assert_close(apply(swapped, x), apply(total, x))


test_addition_adds_and_commutes = for_ranks(_addition)


def _reading(pick: Pick, rank: int) -> None:
    """An operator is the sum of what it makes of the first channels and of the others."""
    operator = draw_operator(pick, draw_sizes(pick, rank), pick(2, 6))
    x, (inputs, outputs) = image(operator, pick(0, 99)), operator.geometry.channels
    cut, width = pick(1, inputs - 1), inputs // operator.geometry.groups
    pieces = [attempt(operator.reading, *part) for part in ((0, cut), (cut, inputs - cut))]
    alone = [cut <= width or cut % width == 0, inputs - cut <= width or cut % width == 0]
    assert [piece is not None for piece in pieces] == alone
    if None in pieces:
        return
    (low, _), (high, at) = pieces
    shares = at < low.geometry.channels[1]  # a group that reads both
    total = np.zeros((*output_sizes(operator), outputs))
    total[..., : low.geometry.channels[1]] = apply(low, x[..., :cut])
    total[..., at:] += apply(high.linear() if shares else high, x[..., cut:])
    assert_close(total, apply(operator, x))


test_an_operator_on_some_of_its_channels = for_ranks(_reading)


def _blocks(pick: Pick, rank: int) -> None:
    """A row adds up what its operators make of channels of their own; a diagonal stacks it."""
    operators = draw_siblings(pick, rank, 2, same_outputs=True)
    images = [image(operator, pick(0, 99)) for operator in operators]
    both, made = np.concatenate(images, axis=-1), list(map(apply, operators, images))
    first, second = (operator.geometry for operator in operators)
    dense = first.groups == second.groups == 1
    row = attempt(conv.Operator.row, operators) if dense else None
    if row is not None:
        assert_well_formed(row)
        assert_close(apply(row, both), sum(made))
    alike = first.groups == second.groups and first.channels == second.channels
    diagonal = attempt(conv.Operator.diagonal, operators) if alike else None
    if diagonal is not None:
        assert_well_formed(diagonal)
        assert_close(apply(diagonal, both), np.concatenate(made, axis=-1))


test_blocks_on_channels_of_their_own = for_ranks(_blocks)


def _distributes(pick: Pick, rank: int) -> None:
    a, b = draw_siblings(pick, rank, 2, same_outputs=True)
    total = attempt(conv.add, [a, b])
    if total is None:
        return
    x = image(a, pick(0, 99))
    after = draw_operator(pick, output_sizes(a), a.geometry.channels[1])
    after = replace(after, geometry=replace(after.geometry, biased=False), bias=0 * after.bias)
    if after.ones is None:
        expected = apply(after, apply(a, x) + apply(b, x))
        parts = [attempt(conv.compose, after, term) for term in (a, b)]
        for result in (
            attempt(conv.compose, after, total),
            None if None in parts else attempt(conv.add, parts),
        ):
            if result is not None:
                assert_well_formed(result)
                assert_close(apply(result, x), expected)

    sizes = [axis.size for axis in a.geometry.axes]
    before = draw_operator(pick, sizes, a.geometry.channels[0], ("same", "pointwise")[pick(0, 1)])
    if (
        output_sizes(before) != tuple(sizes)
        or before.geometry.channels[1] != a.geometry.channels[0]
    ):
        return
    x = image(before, pick(0, 99))
    middle = apply(before, x)
    expected = apply(a, middle) + apply(b, middle)
    parts = [attempt(conv.compose, term, before) for term in (a, b)]
    for result in (
        attempt(conv.compose, total, before),
        None if None in parts else attempt(conv.add, parts),
    ):
        if result is not None:
            assert_well_formed(result)
            assert_close(apply(result, x), expected)


test_composition_distributes_over_sums = for_ranks(_distributes)


def _concatenation(pick: Pick, rank: int) -> None:
    parts = draw_siblings(pick, rank, pick(2, 3), same_outputs=False)
    stacked = attempt(conv.concatenate, parts)
    if stacked is None:
        return
    x = image(parts[0], pick(0, 99))
    assert_well_formed(stacked)
    assert_close(apply(stacked, x), np.concatenate([apply(part, x) for part in parts], axis=-1))
    first = 0
    for part in parts:
        outputs = part.geometry.channels[1]
        kept = selection(
            stacked.geometry.sizes, stacked.geometry.channels[1], slice(first, first + outputs)
        )
        split = attempt(conv.compose, kept, stacked)
        assert split is not None or has_phases(stacked)
        if split is not None:
            assert_same_map(split, [part], x)
        first += outputs


test_concatenation_stacks_and_splits_again = for_ranks(_concatenation, 0.5)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs"), [(6, 6, 6), (6, 12, 6), (4, 4, 12), (4, 8, 8)]
)
def test_regrouping_keeps_the_map(groups: int, inputs: int, outputs: int) -> None:
    grouped = random_weights(Axis(5, 3), channels=(inputs, outputs), groups=groups)
    x = image(grouped, 0)
    for fewer in (g for g in range(1, groups + 1) if groups % g == 0):
        kernel = conv.regroup(grouped.kernel, groups, fewer)
        assert kernel.shape == (3, inputs // fewer, outputs)
        rewritten = replace(
            grouped, geometry=replace(grouped.geometry, groups=fewer), kernel=kernel
        )
        assert_same_map(rewritten, [grouped], x)


@pytest.mark.parametrize("groups_a", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("groups_b", [1, 2, 3, 4, 6, 12])
def test_composition_of_any_two_group_counts(groups_a: int, groups_b: int) -> None:
    a = random_weights(Axis(5, 2), channels=(12, 12), groups=groups_a, biased=True)
    b = random_weights(Axis(4, 3, pad=(0, 0)), channels=(12, 24), groups=groups_b, biased=True)
    composed = conv.compose(b, a)
    assert_same_map(composed, [a, b], image(a, 0))
    assert composed.geometry.groups == math.gcd(groups_a, groups_b)


def test_scaling_and_the_operator_signs() -> None:
    a = random_weights(Axis(6, 3), biased=True, ones=True)
    b = random_weights(Axis(6, 2, crop=(1, 0), pad=(0, 0)), seed=1, biased=True)
    after = random_weights(Axis(4, 2), channels=(3, 1))
    x = image(a, 0)
    assert_close(apply(a.scaled(-2.5), x), -2.5 * apply(a, x))
    assert_close(apply(a + b, x), apply(a, x) + apply(b, x))
    assert_close(apply(after @ a, x), apply(after, apply(a, x)))


def test_a_chain_of_one_and_a_sum_of_one_are_the_operator() -> None:
    operator = random_weights(Axis(6, 3))
    assert (
        conv.chain([operator]) is conv.add([operator]) is conv.concatenate([operator]) is operator
    )


@pytest.mark.parametrize("size", [None, 1, 5])
def test_sums_and_concatenations_of_same_branches(size: int | None) -> None:
    branches = [
        random_weights(Axis(size, 3, dilation=2, pad=(2, 2)), channels=(2, 2), biased=True),
        random_weights(Axis(size, 4, pad=(1, 2)), channels=(2, 2), seed=1),
        conv.Operator.identity([size], 2),
        conv.compose(
            random_weights(Axis(size, 3, pad=(1, 1)), channels=(2, 2), seed=2),
            random_weights(Axis(size), channels=(2, 2), seed=3, biased=True),
        ),
    ]
    total, stacked = conv.add(branches), conv.concatenate(branches)
    for n in [size] if size else range(1, 9):
        concrete = [at_sizes(branch, (n,)) for branch in branches]
        x = image(concrete[0], 0)
        values = [apply(branch, x) for branch in concrete]
        assert_close(apply(at_sizes(total, (n,)), x), sum(values))
        assert_close(apply(at_sizes(stacked, (n,)), x), np.concatenate(values, axis=-1))
