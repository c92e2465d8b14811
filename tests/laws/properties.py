"""Properties of random operators, and what is asserted of one.

Whatever is built is held against `oracle.apply` on real tensors: B on A's output, which it pads
with true zeros. Refusing is allowed to a random case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laws.alone import Refused, conv
from laws.draws import Pick, chain_at_sizes, image
from laws.oracle import apply, assert_close, assert_well_formed, at_sizes

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
            check(picking(data), rank)

        examples()

    return test


def picking(data: st.DataObject) -> Pick:
    """Integers that Hypothesis draws, and shrinks."""
    return lambda low, high: data.draw(st.integers(low, high))


def has_phases(operator: Any) -> bool:
    """Whether a common factor of stride and upsampling leaves only one phase of some axis."""
    return any(math.gcd(axis.stride, axis.upsampling) > 1 for axis in operator.geometry.axes)


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


def assert_chain_exists(operators: Sequence[Any], sizes: Sequence[Sequence[int]]) -> Any:
    """Compose without refusal, and compare at `sizes`; the operators may not know their own."""
    total = reduce(lambda composed, operator: conv.compose(operator, composed), operators)
    compared = 0
    for size in sizes:
        concrete = chain_at_sizes(operators, size)
        if concrete is not None:
            assert_same_map(total, concrete, image(concrete[0], 1))
            compared += 1
    assert compared, "no size to compare at"
    return total
