"""Laws of the affine operators: what `conv` composes, adds and stacks computes what it should.

Whatever is built is held against `oracle.apply` on real tensors: B on A's output, which it pads
with true zeros. Refusing is allowed to a random case; the cases that must not be refused, and
those that must, are listed by name.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import fuzz_conv as fuzz

from oracle import (
    apply,
    apply_windows,
    assert_close,
    assert_well_formed,
    at_sizes,
    conv,
    describe,
    error,
    exists,
    output_sizes,
)

Axis, Geometry, Operator, Refused = conv.Axis, conv.Geometry, conv.Operator, conv.Refused

EXAMPLES = {1: 300, 2: 100, 3: 40}
"""Hypothesis examples by rank: the loops of the oracle cost most in 3-D."""


def law(rank: int, share: float = 1.0) -> Callable[..., Any]:
    """A property of random operators of that rank, the same ones on every run."""
    examples = settings(
        max_examples=max(10, int(EXAMPLES[rank] * share)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return lambda check: examples(given(data=st.data())(check))


def for_ranks(check: Callable[..., None], share: float = 1.0) -> Callable[..., None]:
    """A test of `check(pick, rank)` for rank 1, 2 and 3."""

    @pytest.mark.parametrize("rank", [1, 2, 3])
    def test(rank: int) -> None:
        @law(rank, share)
        def examples(data: st.DataObject) -> None:
            check(lambda low, high: data.draw(st.integers(low, high)), rank)

        examples()

    return test


def attempt(build: Callable[..., Any], *arguments: Any) -> Any | None:
    """What `build` gives, or None where it is refused."""
    try:
        return build(*arguments)
    except Refused:
        return None


def outcome(build: Callable[..., Any], *arguments: Any) -> Any:
    """What `build` gives, or the reason why it is refused."""
    try:
        return build(*arguments)
    except Refused as refusal:
        return refusal.reason


def applied(operators: Sequence[Any], x: np.ndarray) -> np.ndarray:
    """The operators one after another, on real tensors, by the loops."""
    return reduce(lambda value, operator: apply(operator, value), operators, x)


def assert_same_map(operator: Any, operators: Sequence[Any], x: np.ndarray) -> None:
    """`operator` does what `operators` do one after another, at the size of `x`."""
    assert_well_formed(operator)
    assert_close(apply(at_sizes(operator, x.shape[:-1]), x), applied(operators, x))


def has_phases(operator: Any) -> bool:
    """Whether a common factor of stride and upsampling leaves only one phase of some axis."""
    return any(math.gcd(axis.stride, axis.upsampling) > 1 for axis in operator.geometry.axes)


def random_weights(
    *axes: Any, channels: tuple[int, int] = (2, 3), seed: int = 0, **fields: Any
) -> Any:
    """An operator with random weights."""
    return fuzz.draw_weights(Geometry(axes, channels, **fields), seed)


def depthwise(*axes: Any, value: float = 1.0, channels: int = 2, **fields: Any) -> Any:
    """An operator with one number for all weights and one group per channel."""
    geometry = Geometry(axes, (channels, channels), channels, **fields)
    return Operator(geometry, np.full(geometry.kernel_shape, value), np.zeros(channels))


def nearest(size: int | None, factor: int) -> Any:
    axis = Axis(size, factor, upsampling=factor, pad=(factor - 1, factor - 1))
    return depthwise(axis, steady=True)


def average_pool(size: int | None, pool: int) -> Any:
    return depthwise(Axis(size, pool, pool).tight(), value=1 / pool)


def selection(sizes: Sequence[int | None], channels: int, kept: slice) -> Any:
    """The pointwise operator that keeps some channels."""
    kernel = np.eye(channels)[:, kept]
    geometry = Geometry(tuple(map(Axis, sizes)), kernel.shape)
    return Operator(geometry, kernel.reshape(geometry.kernel_shape), np.zeros(kernel.shape[1]))


def assert_chain_exists(operators: Sequence[Any], sizes: Sequence[Sequence[int]]) -> Any:
    """Compose without refusal, and compare at `sizes`; the operators may not know their own."""
    total = reduce(lambda composed, operator: conv.compose(operator, composed), operators)
    compared = 0
    for size in sizes:
        concrete = fuzz.chain_at_sizes(operators, size)
        if concrete is not None:
            assert_same_map(total, concrete, fuzz.image(concrete[0], 1))
            compared += 1
    assert compared, "no size to compare at"
    return total


# The oracle.


def test_the_oracle_crops_then_spreads_then_pads_then_correlates() -> None:
    axis = Axis(5, taps=2, stride=2, dilation=3, upsampling=2, crop=(1, 1), pad=(1, 2))
    operator = Operator(
        Geometry((axis,), (1, 1), 1, True), np.array([[[10.0]], [[1.0]]]), np.array([0.5])
    )
    x = np.array([[100.0], [1.0], [2.0], [3.0], [100.0]])
    # Cropped 1 2 3, spread 1 0 2 0 3, padded 0 1 0 2 0 3 0 0: eight samples, a window of four.
    assert apply(operator, x).ravel().tolist() == [2.5, 3.5, 0.5]


def test_the_oracle_counts_real_samples_with_the_ones_kernel() -> None:
    axis = Axis(4, taps=3, crop=(1, 0), pad=(1, 1))
    geometry = Geometry((axis,), (1, 2), ones=True)
    ones = np.array([[1.0, 1.0], [1.0, 10.0], [1.0, 100.0]])
    operator = Operator(geometry, np.zeros((3, 1, 2)), np.zeros(2), ones)
    assert apply(operator, np.ones((4, 1))).tolist() == [[2, 110], [3, 111], [2, 11]]


def test_the_oracle_keeps_groups_apart() -> None:
    kernel = np.array([[[1.0, 10.0, 1.0, 10.0], [2.0, 20.0, 3.0, 30.0]]])
    operator = Operator(Geometry((Axis(1),), (4, 4), 2), kernel, np.zeros(4))
    assert apply(operator, np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[5, 50, 15, 150]]


def test_the_oracle_of_a_plain_matrix_is_the_matrix() -> None:
    matrix, bias, x = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0])
    operator = Operator(Geometry((), (2, 3), 1, True), matrix, bias)
    assert apply(operator, x).tolist() == (x @ matrix + bias).tolist()


def test_the_oracle_has_rows_and_columns_the_right_way_round() -> None:
    kernel = np.array([[1.0, 10.0]]).reshape(1, 2, 1, 1)
    operator = Operator(Geometry((Axis(2), Axis(3, 2)), (1, 1)), kernel, np.zeros(1))
    x = np.arange(1.0, 7.0).reshape(2, 3, 1)
    assert apply(operator, x)[..., 0].tolist() == [[21, 32], [54, 65]]


def _windows_agree_with_loops(pick: fuzz.Pick, rank: int) -> None:
    operator = fuzz.draw_operator(pick, fuzz.draw_sizes(pick, rank), pick(1, 4))
    x = fuzz.image(operator, pick(0, 99))
    assert_well_formed(operator)
    assert_close(apply_windows(operator, x), apply(operator, x))
    assert operator.geometry.sizes == output_sizes(operator)


test_the_fast_oracle_agrees_with_the_loops = for_ranks(_windows_agree_with_loops)


def test_the_fast_oracle_of_a_plain_matrix() -> None:
    operator = random_weights(channels=(4, 6), groups=2, biased=True, ones=True)
    x = np.random.default_rng(0).normal(size=4)
    assert_close(apply_windows(operator, x), apply(operator, x))


def _tight_keeps_the_map(pick: fuzz.Pick, rank: int) -> None:
    sizes = fuzz.draw_sizes(pick, rank)
    axes = []
    for size in sizes:
        axis = fuzz.draw_axis(pick, size)
        # More zeros at the far end than a window reaches, and a trim where the map allows one.
        spare = pick(0, axis.stride - 1)
        axes.append(replace(axis, pad=(axis.pad[0], axis.pad[1] + spare)))
    loose = random_weights(*axes, channels=(2, 2), biased=True)
    tight_axes = tuple(axis.tight() for axis in axes)
    tight = replace(loose, geometry=replace(loose.geometry, axes=tight_axes))
    assert_same_map(tight, [loose], fuzz.image(loose, 0))


test_normal_form_keeps_the_map = for_ranks(_tight_keeps_the_map, 0.5)


# Composition.


def _composition_is_application(pick: fuzz.Pick, rank: int) -> None:
    operators, _ = fuzz.draw_chain(pick, rank, 2)
    if len(operators) < 2:
        return
    a, b = operators
    composed = attempt(conv.compose, b, a)
    if composed is not None:
        assert_same_map(composed, [a, b], fuzz.image(a, pick(0, 99)))
        assert composed.geometry.sizes == output_sizes(b)


test_composition_is_application = for_ranks(_composition_is_application)


def _composition_at_unknown_sizes(pick: fuzz.Pick, rank: int) -> None:
    known = fuzz.draw_known(pick, rank)
    operators, first = fuzz.draw_chain(pick, rank, pick(2, 3), known)
    total = attempt(reduce, lambda composed, operator: conv.compose(operator, composed), operators)
    if total is None:
        return
    smaller = fuzz.draw_sizes(pick, rank)
    for shift in range(3):
        sizes = [
            size if is_known else size if shift == 0 else other + shift - 1
            for size, other, is_known in zip(first, smaller, known, strict=True)
        ]
        concrete = fuzz.chain_at_sizes(operators, sizes)
        if concrete is not None:
            assert_same_map(total, concrete, fuzz.image(concrete[0], pick(0, 99)))


test_composition_at_unknown_sizes = for_ranks(_composition_at_unknown_sizes)


def _composition_is_associative(pick: fuzz.Pick, rank: int) -> None:
    operators, _ = fuzz.draw_chain(pick, rank, 3)
    if len(operators) < 3:
        return
    a, b, c = operators
    x = fuzz.image(a, pick(0, 99))
    first, last = attempt(conv.compose, b, a), attempt(conv.compose, c, b)
    for total in (
        None if first is None else attempt(conv.compose, c, first),
        None if last is None else attempt(conv.compose, last, a),
        attempt(conv.chain, operators),
    ):
        if total is not None:
            assert_same_map(total, operators, x)


test_composition_is_associative_and_chain_is_its_fold = for_ranks(_composition_is_associative)


def _identity_is_neutral(pick: fuzz.Pick, rank: int) -> None:
    operator = fuzz.draw_operator(pick, fuzz.draw_sizes(pick, rank), pick(1, 4))
    x = fuzz.image(operator, pick(0, 99))
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
        assert composed.geometry.axes == operator.geometry.axes
        assert composed.geometry.groups == operator.geometry.groups


test_identity_is_neutral = for_ranks(_identity_is_neutral)


def _geometry_agrees(pick: fuzz.Pick, rank: int) -> None:
    known = fuzz.draw_known(pick, rank)
    operators, _ = fuzz.draw_chain(pick, rank, 2, known)
    siblings = fuzz.draw_siblings(pick, rank, 2, same_outputs=True)
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


def _steady_maps_constants_to_constants(pick: fuzz.Pick, rank: int) -> None:
    a = fuzz.draw_operator(pick, fuzz.draw_sizes(pick, rank), 2, "nearest")
    b = fuzz.draw_operator(pick, a.geometry.sizes, 2, "valid")
    bias = random_weights(
        *map(Axis, b.geometry.sizes), channels=(b.geometry.channels[1], 2), biased=True
    )
    composed = attempt(conv.chain, [a, b, bias])
    if composed is not None:
        assert composed.geometry.steady
        assert_same_map(composed, [a, b, bias], fuzz.image(a, 0))


test_steady_operators_compose_to_steady_ones = for_ranks(_steady_maps_constants_to_constants, 0.5)


# Sums, concatenations, groups.


def _addition(pick: fuzz.Pick, rank: int) -> None:
    terms = fuzz.draw_siblings(pick, rank, 2, same_outputs=True)
    x = fuzz.image(terms[0], pick(0, 99))
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


def _distributes(pick: fuzz.Pick, rank: int) -> None:
    a, b = fuzz.draw_siblings(pick, rank, 2, same_outputs=True)
    total = attempt(conv.add, [a, b])
    if total is None:
        return
    x = fuzz.image(a, pick(0, 99))
    after = fuzz.draw_operator(pick, output_sizes(a), a.geometry.channels[1])
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
    before = fuzz.draw_operator(
        pick, sizes, a.geometry.channels[0], ("same", "pointwise")[pick(0, 1)]
    )
    if (
        output_sizes(before) != tuple(sizes)
        or before.geometry.channels[1] != a.geometry.channels[0]
    ):
        return
    x = fuzz.image(before, pick(0, 99))
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


def _concatenation(pick: fuzz.Pick, rank: int) -> None:
    parts = fuzz.draw_siblings(pick, rank, pick(2, 3), same_outputs=False)
    stacked = attempt(conv.concatenate, parts)
    if stacked is None:
        return
    x = fuzz.image(parts[0], pick(0, 99))
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


test_concatenation_stacks_and_splits_again = for_ranks(_concatenation)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs"), [(6, 6, 6), (6, 12, 6), (4, 4, 12), (4, 8, 8)]
)
def test_regrouping_keeps_the_map(groups: int, inputs: int, outputs: int) -> None:
    grouped = random_weights(Axis(5, 3), channels=(inputs, outputs), groups=groups)
    x = fuzz.image(grouped, 0)
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
    assert_same_map(composed, [a, b], fuzz.image(a, 0))
    assert composed.geometry.groups == math.gcd(groups_a, groups_b)


def test_scaling_and_the_operator_signs() -> None:
    a = random_weights(Axis(6, 3), biased=True, ones=True)
    b = random_weights(Axis(6, 2, crop=(1, 0), pad=(0, 0)), seed=1, biased=True)
    after = random_weights(Axis(4, 2), channels=(3, 1))
    x = fuzz.image(a, 0)
    assert_close(apply(a.scaled(-2.5), x), -2.5 * apply(a, x))
    assert_close(apply(a + b, x), apply(a, x) + apply(b, x))
    assert_close(apply(after @ a, x), apply(after, apply(a, x)))


def test_a_chain_of_one_and_a_sum_of_one_are_the_operator() -> None:
    operator = random_weights(Axis(6, 3))
    assert (
        conv.chain([operator]) is conv.add([operator]) is conv.concatenate([operator]) is operator
    )


@pytest.mark.parametrize("size", [None, 23])
def test_a_long_chain_without_padding(size: int | None) -> None:
    axes = [Axis(size, 3, 2), Axis(None, 2, dilation=2), Axis(None, 1), Axis(None, 3)]
    operators, n = [], size
    for i, axis in enumerate(axes):
        axis = replace(axis, size=n).tight()
        operators.append(random_weights(axis, channels=(2, 2), seed=i, biased=True))
        n = axis.out
    total = conv.chain(operators)
    for seen in [23] if size else range(11, 24):
        concrete = fuzz.chain_at_sizes(operators, (seen,))
        assert concrete is not None
        assert_same_map(total, concrete, fuzz.image(concrete[0], 0))


# The order of a chain.


def cost_of(order: Any) -> int:
    """The cost of an order, each composition counted again."""
    if isinstance(order.halves, int):
        return 0
    a, b = order.halves
    return cost_of(a) + cost_of(b) + step_cost(b.geometry, a.geometry, order.geometry)


def step_cost(b: Any, a: Any, whole: Any) -> int:
    """Multiplications of one composition, and what its result costs."""
    return conv.product_cost(b, a) + conv.ENTRY * math.prod(whole.kernel_shape)


def links_of(order: Any) -> list[int]:
    """The numbers of the links, in the order of the chain."""
    if isinstance(order.halves, int):
        return [order.halves]
    a, b = map(links_of, order.halves)
    return a + b


def all_orders(links: Sequence[Any]) -> list[tuple[int, Any]]:
    """(cost, geometry) of every parenthesisation that is not refused."""
    if len(links) == 1:
        return [(0, links[0])]
    return [
        (cost_a + cost_b + step_cost(b, a, whole), whole)
        for k in range(1, len(links))
        for cost_a, a in all_orders(links[:k])
        for cost_b, b in all_orders(links[k:])
        if (whole := attempt(conv.Geometry.__matmul__, b, a)) is not None
    ]


def draw_unpadded(pick: fuzz.Pick, count: int) -> list[Any]:
    """Geometries of a chain without padding: convolutions, pools and depthwise ones."""
    size, channels, links = pick(60, 90), pick(1, 4) * 2, []
    for _ in range(count):
        stride = pick(1, 2) if size > 20 else 1
        axis = Axis(size, pick(1, min(4, size)), stride).tight()
        outputs = channels if (kind := pick(0, 2)) else pick(1, 9) * 2
        groups = (1, 2, channels)[kind] if outputs == channels else 1
        links.append(Geometry((axis,), (channels, outputs), groups, biased=True))
        size, channels = axis.out, outputs
    return links


def test_the_order_of_a_chain_is_the_cheapest() -> None:
    orders = set()

    @law(1)
    def examples(data: st.DataObject) -> None:
        links = draw_unpadded(lambda low, high: data.draw(st.integers(low, high)), 5)
        order = conv.cheapest_order(links)
        assert order.cost == cost_of(order) == min(cost for cost, _ in all_orders(links))
        assert links_of(order) == list(range(5))
        assert order.geometry.axes == all_orders(links)[0][1].axes
        orders.add(str(shape_of(order)))

    examples()
    assert len(orders) > 5, "too few orders to mean anything"


def shape_of(order: Any) -> Any:
    """The parentheses of an order."""
    return order.halves if isinstance(order.halves, int) else tuple(map(shape_of, order.halves))


def test_an_expansion_is_undone_first() -> None:
    """1x1 to many channels, 3x3 among them, 1x1 back: only then another 3x3."""
    sizes = [(Axis(9),), (Axis(9, 3),), (Axis(7),), (Axis(7, 3),)]
    channels = [(2, 64), (64, 64), (64, 2), (2, 2)]
    links = [Geometry(axes, both) for axes, both in zip(sizes, channels, strict=True)]
    order = conv.cheapest_order(links)
    products = 3 * 2 * 64 * 64 + 3 * 2 * 64 * 2 + 9 * 2 * 2 * 2
    kernels = 3 * 2 * 64 + 3 * 2 * 2 + 5 * 2 * 2
    assert order.cost == products + conv.ENTRY * kernels


@pytest.mark.parametrize("count", [conv.LONGEST, conv.LONGEST + 1, 3 * conv.LONGEST + 2])
def test_a_chain_of_any_length_is_composed_in_order(count: int) -> None:
    operators = [
        random_weights(Axis(2 * count + 1 - i, 2), channels=(2, 2), seed=i, biased=True)
        for i in range(count)
    ]
    order = conv.cheapest_order([operator.geometry for operator in operators])
    assert links_of(order) == list(range(count))
    assert cost_of(order) == order.cost
    x = fuzz.image(operators[0], 0)
    assert_close(apply(conv.chain(operators), x), applied(operators, x))


def test_a_chain_waits_for_what_undoes_a_refused_step() -> None:
    """A stride refuses an upsampling; the pool behind that undoes it."""
    operators = [
        random_weights(Axis(12, 2, 2), channels=(2, 2)),
        nearest(6, 2),
        average_pool(12, 2),
        random_weights(Axis(6, 3), channels=(2, 2), seed=1),
    ]
    total = conv.chain(operators)
    assert total.geometry.taps == (6,)
    assert_same_map(total, operators, fuzz.image(operators[0], 0))


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
    x = fuzz.image(convolution, 0)
    expected = apply(last, apply(dense, apply(convolution, x).ravel()))
    flattened = conv.Operator.unflattened(dense, sizes, 3)
    for total in (
        conv.compose(last, conv.compose(flattened, convolution)),
        conv.compose(conv.compose(last, flattened), convolution),
        conv.chain([convolution, flattened, last]),
    ):
        assert total.geometry.vector
        assert_well_formed(total)
        assert_close(apply(total, x).ravel(), expected)


# What must not be refused.


def _valid_after_anything(pick: fuzz.Pick, rank: int) -> None:
    known = fuzz.draw_known(pick, rank)
    sizes = fuzz.draw_sizes(pick, rank)
    a = fuzz.draw_operator(pick, sizes, pick(1, 4), known=known)
    if any(axis.same for axis in a.geometry.axes):
        return
    concrete = at_sizes(a, sizes)
    b = fuzz.draw_operator(pick, output_sizes(concrete), a.geometry.channels[1], "valid", known)
    reduced = any(
        math.gcd(axis_a.stride * axis_b.stride, axis_a.upsampling) > 1
        for axis_a, axis_b in zip(a.geometry.axes, b.geometry.axes, strict=True)
    )
    total = outcome(conv.compose, b, a)
    if reduced and total == "every window falls between two upsampled samples":
        return
    assert isinstance(total, Operator), f"refused: {total}"
    operators = fuzz.chain_at_sizes([a, b], sizes)
    assert operators is not None
    assert_same_map(total, operators, fuzz.image(concrete, pick(0, 99)))


test_a_valid_operator_after_anything = for_ranks(_valid_after_anything)


@pytest.mark.parametrize("size", [None, 6, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_then_valid(size: int | None, stride: int) -> None:
    a = random_weights(Axis(size, 3, pad=(1, 1)), biased=True)
    b = random_weights(Axis(size, 3, stride).tight(), channels=(3, 2), biased=True)
    total = assert_chain_exists([a, b], [(n,) for n in range(3, 9)])
    assert total.geometry.taps == (5,)


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_upsampling_then_zero_padding(size: int | None, factor: int) -> None:
    a = nearest(size, factor)
    b = random_weights(Axis(size and size * factor, 3, pad=(1, 1)), biased=True)
    assert_chain_exists([a, b], [(n,) for n in range(1, 7)])


@pytest.mark.parametrize("size", [4, 5, 7])
def test_average_pooling_then_zero_padding(size: int) -> None:
    a = average_pool(size, 2)
    b = random_weights(Axis(size // 2, 3, pad=(1, 1)), biased=True)
    assert_chain_exists([a, b], [(size,)])


@pytest.mark.parametrize("size", [None, 1, 4])
def test_pooling_undoes_nearest_upsampling(size: int | None) -> None:
    total = assert_chain_exists(
        [nearest(size, 2), average_pool(size and 2 * size, 2)], [(n,) for n in range(1, 6)]
    )
    assert total.geometry.is_pointwise
    assert total.geometry.is_depthwise
    assert total.kernel.tolist() == [[[1.0, 1.0]]]


@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize("taps", [1, 3])
def test_cropping_then_zero_padding_is_not_the_identity(size: int | None, taps: int) -> None:
    a = depthwise(Axis(size, crop=(1, 2)))
    b = random_weights(Axis(size and size - 3, taps, pad=(1, 2)), biased=True)
    total = assert_chain_exists([a, b], [(n,) for n in range(4, 9)])
    assert not total.geometry.is_pointwise


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_bias_then_zero_padding(size: int | None, stride: int) -> None:
    a = random_weights(Axis(size), biased=True)
    b = random_weights(Axis(size, 3, stride, pad=(1, 1)).tight(), channels=(3, 2), biased=True)
    total = assert_chain_exists([a, b], [(n,) for n in range(1, 7)])
    assert total.geometry.ones
    assert total.geometry.biased


@pytest.mark.parametrize("size", [4, 6])
def test_a_biased_patch_convolution_then_zero_padding(size: int) -> None:
    a = random_weights(Axis(size, 2, 2), biased=True)
    b = random_weights(Axis(size // 2, 3, pad=(1, 1)), channels=(3, 2), biased=True)
    assert assert_chain_exists([a, b], [(size,)]).geometry.ones


@pytest.mark.parametrize("size", [None, 5])
def test_a_bias_before_nearest_upsampling_stays_a_bias(size: int | None) -> None:
    a = random_weights(Axis(size), channels=(2, 2), biased=True)
    total = assert_chain_exists([a, nearest(size, 2)], [(n,) for n in (1, 2, 5)])
    assert total.geometry.biased
    assert total.geometry.steady
    assert not total.geometry.ones


@pytest.mark.parametrize("size", [None, 5])
def test_a_bias_before_a_transposed_convolution(size: int | None) -> None:
    a = random_weights(Axis(size), channels=(2, 2), biased=True)
    b = random_weights(Axis(size, 3, upsampling=2, pad=(2, 1)), biased=True)
    assert assert_chain_exists([a, b], [(n,) for n in (1, 2, 5)]).geometry.ones


@pytest.mark.parametrize("size", [None, 4, 5])
def test_a_pointwise_operator_around_a_strided_same(size: int | None) -> None:
    same = Axis(size, 3, 2, same=True)
    if size is not None:
        same = replace(same, same=False, pad=fuzz.same_padding(same, size)).tight()
    before = random_weights(Axis(size), channels=(2, 2), biased=True)
    middle = random_weights(same, channels=(2, 2), biased=True)
    after = random_weights(Axis(size and math.ceil(size / 2)), channels=(2, 1), biased=True)
    assert_chain_exists([before, middle, after], [(n,) for n in range(1, 7)])


def test_a_homogeneous_coordinate_after_a_strided_same_of_unknown_size() -> None:
    """`pad` says nothing of a 'same' axis: which tap always sees a sample depends on the size."""
    same = random_weights(Axis(None, 3, 2, same=True), channels=(1, 1))
    after = random_weights(Axis(None), channels=(1, 1), ones=True)
    total = attempt(conv.compose, after, same)
    if total is None:
        return
    for n in range(1, 8):
        concrete = fuzz.chain_at_sizes([same, after], (n,))
        assert concrete is not None
        assert_same_map(total, concrete, fuzz.image(concrete[0], 0))


def test_a_chain_around_a_strided_same_of_unknown_size() -> None:
    """The same, as `chain` meets it: convolution, shift, ZeroPadding1D(1), Cropping1D(1)."""
    operators = [
        random_weights(Axis(None, 3, 2, same=True), channels=(2, 2)),
        random_weights(Axis(None), channels=(2, 2), groups=2, biased=True),
        depthwise(Axis(None, pad=(1, 1))),
        depthwise(Axis(None, crop=(1, 1))),
    ]
    total = attempt(conv.chain, operators)
    if total is None:
        return
    for n in range(1, 8):
        concrete = fuzz.chain_at_sizes(operators, (n,))
        assert concrete is not None
        assert_same_map(total, concrete, fuzz.image(concrete[0], 0))


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
        x = fuzz.image(concrete[0], 0)
        values = [apply(branch, x) for branch in concrete]
        assert_close(apply(at_sizes(total, (n,)), x), sum(values))
        assert_close(apply(at_sizes(stacked, (n,)), x), np.concatenate(values, axis=-1))


# What must be refused, and why.


def same3(size: int | None = 6, **fields: Any) -> Any:
    return random_weights(Axis(size, 3, pad=(1, 1)), channels=(2, 2), **fields)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "padded after padded": (
        lambda: conv.compose(same3(), same3()),
        "zero padding between two layers: at the border the collapsed kernel would read 1 position",
    ),
    "padded after padded, of unknown size": (
        lambda: conv.compose(same3(None), same3(None)),
        "zero padding between two layers",
    ),
    "padded after a pool that may drop a row": (
        lambda: conv.compose(same3(None), average_pool(None, 2)),
        "zero padding between two layers",
    ),
    "upsampling after a stride": (
        lambda: conv.compose(nearest(3, 2), random_weights(Axis(6, 2, 2), channels=(2, 2))),
        "a stride of 2 meets an upsampling by 2",
    ),
    "upsampling after a coprime stride of unknown size": (
        lambda: conv.compose(nearest(None, 2), random_weights(Axis(None, 3, 3), channels=(2, 2))),
        "a stride before an upsampling, at an unknown image size",
    ),
    "a bias that no tap can carry": (
        lambda: conv.compose(
            same3(8), random_weights(Axis(6, 3, pad=(2, 2)), channels=(2, 2), biased=True)
        ),
        "a bias before zero padding",
    ),
    "windows between the samples": (
        lambda: conv.compose(
            depthwise(Axis(6, stride=2, crop=(1, 0)).tight()),
            depthwise(Axis(4, upsampling=2).tight()),
        ),
        "between two upsampled samples",
    ),
    "a strided same of unknown size": (
        lambda: conv.compose(
            random_weights(Axis(None, 3), channels=(2, 2)),
            random_weights(Axis(None, 3, 2, same=True), channels=(2, 2)),
        ),
        "padding='same' depends on the image size",
    ),
    "branches of different stride": (
        lambda: conv.add([random_weights(Axis(6, 1, 2).tight()), random_weights(Axis(6, 4))]),
        "branches of different stride or upsampling",
    ),
    "branches of different sizes": (
        lambda: conv.add([random_weights(Axis(6, 3)), random_weights(Axis(6, 2))]),
        "branches of different output sizes",
    ),
    "branches of different sizes, unknown": (
        lambda: conv.concatenate([random_weights(Axis(None, 3)), random_weights(Axis(None, 2))]),
        "branches of different output sizes",
    ),
    "branches that crop differently": (
        lambda: conv.add(
            [same3(6), random_weights(Axis(6, 3, crop=(1, 0), pad=(2, 1)), channels=(2, 2))]
        ),
        "crop the image differently",
    ),
    "a sum over different channels": (
        lambda: conv.add([random_weights(Axis(6)), random_weights(Axis(6), channels=(2, 1))]),
        "broadcasts over channels",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    build, reason = REFUSED[case]
    with pytest.raises(Refused, match=re.escape(reason)) as refused:
        build()
    assert refused.value.reason == str(refused.value)


def test_operators_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        conv.compose(random_weights(Axis(4)), random_weights(Axis(4)))
    with pytest.raises(ValueError, match="do not fit"):
        conv.compose(random_weights(Axis(4), Axis(4), channels=(3, 3)), random_weights(Axis(4)))


def test_arrays_that_do_not_fit_are_an_error() -> None:
    operator = random_weights(Axis(4, 2), ones=True)
    for fields in (
        {"kernel": operator.kernel[:1]},
        {"bias": np.zeros(1)},
        {"ones": None},
        {"ones": np.zeros((2, 1))},
    ):
        with pytest.raises(ValueError, match="fit the geometry"):
            replace(operator, **fields)


def test_weights_cannot_be_written_through_an_operator() -> None:
    operator = random_weights(Axis(4, 2), ones=True)
    for array in (operator.kernel, operator.bias, operator.ones):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


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
    x = fuzz.image(a, 0)
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
    x = fuzz.image(a, 0)
    assert_close(apply(naive, x)[1:-1], applied([a, b], x)[1:-1])
    with pytest.raises(AssertionError, match="values differ"):
        assert_same_map(naive, [a, b], x)


def test_the_error_of_shapes_and_of_nan() -> None:
    assert error(np.zeros(2), np.zeros(3)) == error(np.array([np.nan]), np.zeros(1)) == math.inf
    assert error(np.array([200.0]), np.array([100.0])) == 1.0
    assert error(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0


# The bulk run.


def test_a_tenth_of_the_bulk_run() -> None:
    tally = fuzz.run(10_000, 500, seed=0)
    least = {
        "composition": 2000,
        "composition, last two first": 300,
        "composition at an unknown size": 2000,
        "sum": 800,
        "sum at an unknown size": 2000,
        "concatenation": 800,
        "concatenation at an unknown size": 2000,
        "interior, one kernel": 400,
        "interior, composed": 400,
        "restriction": 800,
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
    monkeypatch.setattr(
        sys, "argv", ["fuzz_conv.py", "--rank1", "200", "--rank23", "0", "--seed", "3"]
    )
    assert fuzz.main() == 1
    report = capsys.readouterr().out
    for part in ("seed 3, case ", "a = Operator(", "b = Operator("):
        assert part in report


def test_the_bulk_run_succeeds_with_a_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz_conv.py", "--rank1", "50", "--rank23", "5"])
    assert fuzz.main() == 0
    report = capsys.readouterr().out
    for part in ("checked: composition", "refused: ", "worst error"):
        assert part in report


def test_a_reported_operator_can_be_built_again() -> None:
    operators = [
        random_weights(Axis(5, 2), biased=True, ones=True),
        random_weights(channels=(2, 3)),
    ]
    program = describe(*operators).replace("kerasfold.algebra", conv.__name__)
    names: dict[str, Any] = {}
    exec(program, names)
    for name, operator in zip("ab", operators, strict=True):
        again = names[name]
        assert again.geometry == operator.geometry
        assert np.array_equal(again.kernel, operator.kernel)
        assert np.array_equal(again.bias, operator.bias)
        assert (again.ones is None) == (operator.ones is None)
        assert operator.ones is None or np.array_equal(again.ones, operator.ones)
    assert exists(names["a"])
