"""The order of a chain: as cheap as can be, and no step refused that another undoes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from laws.alone import Axis, Geometry, conv
from laws.draws import Pick, chain_at_sizes, image
from laws.operators import average_pool, nearest, random_weights
from laws.oracle import apply, assert_close
from laws.properties import applied, assert_same_map, attempt, law


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
        concrete = chain_at_sizes(operators, (seen,))
        assert concrete is not None
        assert_same_map(total, concrete, image(concrete[0], 0))


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


def draw_unpadded(pick: Pick, count: int) -> list[Any]:
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
    x = image(operators[0], 0)
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
    assert_same_map(total, operators, image(operators[0], 0))


def test_a_chain_is_written_over_none_of_its_links() -> None:
    """Scales take the memory of what was composed before them, and of nothing else."""
    links = [
        random_weights(Axis(9), channels=(4, 4), groups=4, seed=1, biased=True),
        random_weights(Axis(9, 3), channels=(4, 6), seed=2, biased=True),
        *(random_weights(Axis(7), channels=(6, 6), groups=6, seed=s, biased=True) for s in (3, 4)),
    ]
    before = [link.kernel.copy() for link in links]
    total = conv.chain(links)
    assert all((link.kernel == kernel).all() for link, kernel in zip(links, before, strict=True))
    before_last = links[1] @ links[0]
    assert np.shares_memory(
        conv.compose(links[2], before_last, over=True).kernel, before_last.kernel
    )
    assert not np.shares_memory(conv.compose(links[2], before_last).kernel, before_last.kernel)
    one_by_one = links[3] @ (links[2] @ (links[1] @ links[0]))
    assert_close(total.kernel, one_by_one.kernel)
    assert_close(total.bias, one_by_one.bias)
    assert_same_map(total, links, image(links[0], 0))
