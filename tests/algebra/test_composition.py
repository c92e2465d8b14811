"""Laws of composition: what `conv` composes computes what it should."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from laws.alone import Axis, Operator, conv
from laws.draws import (
    Pick,
    chain_at_sizes,
    draw_axis,
    draw_chain,
    draw_known,
    draw_operator,
    draw_siblings,
    draw_sizes,
    image,
)
from laws.operators import random_weights
from laws.oracle import apply, assert_close, assert_well_formed, output_sizes
from laws.properties import assert_same_map, attempt, for_ranks, has_phases, outcome


def _tight_keeps_the_map(pick: Pick, rank: int) -> None:
    sizes = draw_sizes(pick, rank)
    axes = []
    for size in sizes:
        axis = draw_axis(pick, size)
        # More zeros at the far end than a window reaches, and a trim where the map allows one.
        spare = pick(0, axis.stride - 1)
        axes.append(replace(axis, pad=(axis.pad[0], axis.pad[1] + spare)))
    loose = random_weights(*axes, channels=(2, 2), biased=True)
    tight_axes = tuple(axis.tight() for axis in axes)
    tight = replace(loose, geometry=replace(loose.geometry, axes=tight_axes))
    assert_same_map(tight, [loose], image(loose, 0))


test_normal_form_keeps_the_map = for_ranks(_tight_keeps_the_map, 0.5)


def _composition_is_application(pick: Pick, rank: int) -> None:
    operators, _ = draw_chain(pick, rank, 2)
    if len(operators) < 2:
        return
    a, b = operators
    composed = attempt(conv.compose, b, a)
    if composed is not None:
        assert_same_map(composed, [a, b], image(a, pick(0, 99)))
        assert composed.geometry.sizes == output_sizes(b)


test_composition_is_application = for_ranks(_composition_is_application)


def _composition_at_unknown_sizes(pick: Pick, rank: int) -> None:
    known = draw_known(pick, rank)
    operators, first = draw_chain(pick, rank, pick(2, 3), known)
    total = attempt(reduce, lambda composed, operator: conv.compose(operator, composed), operators)
    if total is None:
        return
    smaller = draw_sizes(pick, rank)
    for shift in range(3):
        sizes = [
            size if is_known else size if shift == 0 else other + shift - 1
            for size, other, is_known in zip(first, smaller, known, strict=True)
        ]
        concrete = chain_at_sizes(operators, sizes)
        if concrete is not None:
            assert_same_map(total, concrete, image(concrete[0], pick(0, 99)))


test_composition_at_unknown_sizes = for_ranks(_composition_at_unknown_sizes)


def _composition_is_associative(pick: Pick, rank: int) -> None:
    operators, _ = draw_chain(pick, rank, 3)
    if len(operators) < 3:
        return
    a, b, c = operators
    x = image(a, pick(0, 99))
    first, last = attempt(conv.compose, b, a), attempt(conv.compose, c, b)
    for total in (
        None if first is None else attempt(conv.compose, c, first),
        None if last is None else attempt(conv.compose, last, a),
        attempt(conv.chain, operators),
    ):
        if total is not None:
            assert_same_map(total, operators, x)


test_composition_is_associative_and_chain_is_its_fold = for_ranks(_composition_is_associative)


def _identity_is_neutral(pick: Pick, rank: int) -> None:
    operator = draw_operator(pick, draw_sizes(pick, rank), pick(1, 4))
    x = image(operator, pick(0, 99))
    inputs, outputs = operator.geometry.channels
    before = conv.Operator.identity([axis.size for axis in operator.geometry.axes], inputs)
    after = conv.Operator.identity(operator.geometry.sizes, outputs)
    assert_close(apply(before, x), x)
    for second, first in ((operator, before), (after, operator)):
        composed = attempt(conv.compose, second, first)
        if has_phases(operator):
            if composed is not None:
                assert_same_map(composed, [operator], x)
            continue
        assert composed is not None, "the identity refused"
        assert_same_map(composed, [operator], x)
        fewer = attempt(conv.Geometry.trimmed, operator.geometry)
        ways = [operator.geometry, *([] if fewer is None else [fewer])]
        assert composed.geometry.axes in [geometry.axes for geometry in ways]
        assert composed.geometry.groups == operator.geometry.groups


test_identity_is_neutral = for_ranks(_identity_is_neutral)


def _geometry_agrees(pick: Pick, rank: int) -> None:
    known = draw_known(pick, rank)
    operators, _ = draw_chain(pick, rank, 2, known)
    siblings = draw_siblings(pick, rank, 2, same_outputs=True)
    for sizes_only, whole, arguments in (
        (conv.Geometry.__matmul__, conv.compose, operators[::-1] if len(operators) == 2 else None),
        (conv.add_geometry, conv.add, [siblings]),
        (conv.concatenate_geometry, conv.concatenate, [siblings]),
    ):
        if arguments is None:
            continue
        geometries = [
            argument.geometry
            if isinstance(argument, Operator)
            else [term.geometry for term in argument]
            for argument in arguments
        ]
        planned, built = outcome(sizes_only, *geometries), outcome(whole, *arguments)
        assert planned == (built.geometry if isinstance(built, Operator) else built)


test_planning_and_building_agree = for_ranks(_geometry_agrees)


def _steady_maps_constants_to_constants(pick: Pick, rank: int) -> None:
    a = draw_operator(pick, draw_sizes(pick, rank), 2, "nearest")
    b = draw_operator(pick, a.geometry.sizes, 2, "valid")
    bias = random_weights(
        *map(Axis, b.geometry.sizes), channels=(b.geometry.channels[1], 2), biased=True
    )
    composed = attempt(conv.chain, [a, b, bias])
    if composed is not None:
        assert composed.geometry.steady
        assert_same_map(composed, [a, b, bias], image(a, 0))


test_steady_operators_compose_to_steady_ones = for_ranks(_steady_maps_constants_to_constants, 0.5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (1, 3), (2, 3), (5, 2)])
@pytest.mark.parametrize("groups", [1, 4], ids=["dense", "depthwise"])
@pytest.mark.parametrize("runs", ["whole", "row by row"])
def test_every_spacing_of_the_taps(
    rank: int, steps: tuple[int, int], groups: int, runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taps of A and of B spaced alike or not, more or fewer than there are phases."""
    if runs == "row by row":
        monkeypatch.setattr(conv.product, "ENTRIES", 1)
        monkeypatch.setattr(conv.product, "ROWS", 1)
    for taps_a, taps_b in ((4, 3), (3, 4), (1, 3), (4, 1), (2, 2)):
        a = random_weights(*[Axis(40, taps_a, dilation=steps[0]).tight()] * rank, channels=(3, 4))
        after = [Axis(a.geometry.sizes[0], taps_b, dilation=steps[1]).tight()] * rank
        b = random_weights(*after, channels=(4, 4), groups=groups)
        total = conv.compose(b, a)
        expected = np.zeros((*total.geometry.taps, 3, 4))
        spacing = total.geometry.axes[0].dilation
        dense = conv.regroup(b.kernel, groups, 1)
        for tap_a in np.ndindex(a.geometry.taps):
            for tap_b in np.ndindex(b.geometry.taps):
                lands = [t * steps[0] + v * steps[1] for t, v in zip(tap_a, tap_b, strict=True)]
                expected[tuple(n // spacing for n in lands)] += a.kernel[tap_a] @ dense[tap_b]
        assert_close(total.kernel, expected)


def test_matrices_compose_add_and_stack() -> None:
    a = random_weights(channels=(4, 6), groups=2, biased=True)
    b = random_weights(channels=(6, 3), groups=3, seed=1, biased=True)
    c = random_weights(channels=(4, 6), seed=2)
    x = np.random.default_rng(0).normal(size=4)
    assert_same_map(conv.compose(b, a), [a, b], x)
    assert_close(apply(conv.add([a, c]), x), apply(a, x) + apply(c, x))
    assert_close(apply(conv.concatenate([a, c]), x), np.concatenate([apply(a, x), apply(c, x)]))


def test_a_matrix_on_a_flattened_image() -> None:
    convolution = random_weights(Axis(6, 3, 2).tight(), Axis(5, 2), channels=(2, 3), biased=True)
    sizes = output_sizes(convolution)
    dense = random_weights(channels=(3 * math.prod(sizes), 4), seed=1, biased=True)
    last = random_weights(channels=(4, 2), groups=2, seed=2, biased=True)
    x = image(convolution, 0)
    expected = apply(last, apply(dense, apply(convolution, x).ravel()))
    flattening = conv.Rearrangement.reshape((*sizes, 3), (3 * math.prod(sizes),))
    flattened = conv.applied(dense, conv.rearranged(None, flattening))
    assert isinstance(flattened, conv.Operator)
    for total in (
        conv.compose(last, conv.compose(flattened, convolution)),
        conv.compose(conv.compose(last, flattened), convolution),
        conv.chain([convolution, flattened, last]),
    ):
        assert total.geometry.vector
        assert_well_formed(total)
        assert_close(apply(total, x).ravel(), expected)
