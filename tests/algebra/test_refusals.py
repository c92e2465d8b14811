"""What must not be refused, and what must, by name and with the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from laws.alone import Axis, Operator, Refused, conv
from laws.draws import Pick, chain_at_sizes, draw_known, draw_operator, draw_sizes, image
from laws.operators import average_pool, depthwise, nearest, random_weights, same3
from laws.oracle import at_sizes, output_sizes, same_padding
from laws.properties import assert_chain_exists, assert_same_map, attempt, for_ranks, outcome

# What must not be refused.


def _valid_after_anything(pick: Pick, rank: int) -> None:
    known = draw_known(pick, rank)
    sizes = draw_sizes(pick, rank)
    a = draw_operator(pick, sizes, pick(1, 4), known=known)
    if any(axis.same for axis in a.geometry.axes):
        return
    concrete = at_sizes(a, sizes)
    b = draw_operator(pick, output_sizes(concrete), a.geometry.channels[1], "valid", known)
    reduced = any(
        math.gcd(axis_a.stride * axis_b.stride, axis_a.upsampling) > 1
        for axis_a, axis_b in zip(a.geometry.axes, b.geometry.axes, strict=True)
    )
    total = outcome(conv.compose, b, a)
    if reduced and total == "every window falls between two upsampled samples":
        return
    assert isinstance(total, Operator), f"refused: {total}"
    operators = chain_at_sizes([a, b], sizes)
    assert operators is not None
    assert_same_map(total, operators, image(concrete, pick(0, 99)))


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
        same = replace(same, same=False, pad=same_padding(same, size)).tight()
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
        concrete = chain_at_sizes([same, after], (n,))
        assert concrete is not None
        assert_same_map(total, concrete, image(concrete[0], 0))


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
        concrete = chain_at_sizes(operators, (n,))
        assert concrete is not None
        assert_same_map(total, concrete, image(concrete[0], 0))


# What must be refused, and why.


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
