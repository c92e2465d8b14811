"""A chain of operators as one, in its cheapest order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple, TypeVar

from .axis import Refused
from .geometry import Geometry
from .operator import Operator, compose

LONGEST = 16  # links of a chain whose orders are all compared
ENTRY = 256  # multiplications of a matrix product in the time that a number of its result takes

Link = TypeVar("Link", Geometry, Operator)


def shifted(stack: tuple[Link, ...], link: Link) -> tuple[Link, ...]:
    """A stack of links that do not compose, with one more link, composed as far as it can be.

    A stride refuses an upsampling; but with a pool behind it that undoes the upsampling, the
    two are one, and compose with the stride. So what is refused waits for what is to come.
    """
    while stack:
        try:
            link = link @ stack[-1]
        except Refused:
            break
        stack = stack[:-1]
    stack += (link,)
    return stack


def collapsed(links: Iterable[Link]) -> Link:
    """A chain as one link. Raises `Refused`."""
    stack: tuple[Link, ...] = ()
    for link in links:
        stack = shifted(stack, link)
    return one_of(stack)


def one_of(stack: tuple[Link, ...]) -> Link:
    """The only link of a stack. Raises `Refused`, with the reason, where there are several."""
    if len(stack) > 1:
        _ = stack[1] @ stack[0]  # raises the reason
        raise Refused("a chain that does not compose")
    return stack[0]


class Order(NamedTuple):
    """A way to associate a chain.

    Attributes:
        cost: multiplications of its compositions, and `ENTRY` for each number of their kernels.
        geometry: what they give.
        halves: the two chains that are composed last, or the number of a link.
    """

    cost: int
    geometry: Geometry
    halves: tuple[Order, Order] | int


def chain(operators: Sequence[Operator]) -> Operator:
    """`operators[-1] o ... o operators[0]`, associated by `cheapest_order`.

    That order may be refused, or pad and crop otherwise than the order of `collapsed`, which
    plans are made with; then it does not count.

    Raises:
        Refused: no exact composition in the order of `collapsed`.
    """
    links = [operator.geometry for operator in operators]
    target = collapsed(links)
    order = cheapest_order(links)
    if order is None or replace(order.geometry, steady=target.steady) != target:
        return collapsed(operators)
    return _composed(operators, order)


def cheapest_order(links: Sequence[Geometry]) -> Order | None:
    """The order of least cost, or None where all that were tried are refused.

    That of the matrix chain (Cormen et al., Introduction to Algorithms, section 14.2), whose
    matrices are convolutions here. Longer chains than `LONGEST` are cut into such, and these
    put in order: the number of geometries composed is linear in the number of links.
    """
    orders: list[Order | None] = [Order(0, link, i) for i, link in enumerate(links)]
    while len(orders) > 1:
        cuts = range(0, len(orders), LONGEST)
        orders = [_cheapest(orders[i : i + LONGEST]) for i in cuts]
    return orders[0]


def _cheapest(links: Sequence[Order | None]) -> Order | None:
    """The cheapest order of a short chain, of what the links themselves cost included."""
    count = len(links)
    best = {(i, i + 1): link for i, link in enumerate(links)}
    for length in range(2, count + 1):
        for first in range(count - length + 1):
            last = first + length
            ways = []
            for middle in range(last - 1, first, -1):
                a, b = best[first, middle], best[middle, last]
                if a is not None and b is not None:
                    cost = a.cost + b.cost + product_cost(b.geometry, a.geometry)
                    ways.append((cost, (a, b)))
            best[first, last] = next(_accepted(sorted(ways, key=itemgetter(0))), None)
    return best[0, count]


def _accepted(ways: Iterable[tuple[int, tuple[Order, Order]]]) -> Iterator[Order]:
    """Those of the ways to compose two chains that are not refused."""
    for cost, (a, b) in ways:
        with suppress(Refused):
            geometry = b.geometry @ a.geometry
            yield Order(cost + ENTRY * math.prod(geometry.kernel_shape), geometry, (a, b))


def _composed(operators: Sequence[Operator], order: Order) -> Operator:
    if isinstance(order.halves, int):
        return operators[order.halves]
    first, last = order.halves
    a, b = _composed(operators, first), _composed(operators, last)
    # What was composed just now, nobody else reads; a link is the caller's.
    return compose(b, a, over=not isinstance(first.halves, int))


def product_cost(b: Geometry, a: Geometry) -> int:
    """Multiplications of one composition, of group counts of which one divides the other."""
    pairs = math.prod(a.taps) * math.prod(b.taps)
    return pairs * a.channels[0] * a.channels[1] * b.channels[1] // (a.groups * b.groups)
