"""The oracle itself: what it computes by hand, its fast forms, and what it tells of a failure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from laws.alone import Axis, Geometry, Operator, conv
from laws.chains import true_frame
from laws.draws import Pick, draw_box, draw_normalised, draw_operator, draw_sizes, image
from laws.operators import average, bilinear, normalised, random_weights
from laws.oracle import (
    apply,
    apply_endless,
    apply_links,
    apply_windows,
    assert_close,
    assert_well_formed,
    crop_to,
    describe,
    error,
    exists,
    output_sizes,
)
from laws.properties import for_ranks


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


def _windows_agree_with_loops(pick: Pick, rank: int) -> None:
    operator = draw_operator(pick, draw_sizes(pick, rank), pick(1, 4))
    x = image(operator, pick(0, 99))
    assert_well_formed(operator)
    assert_close(apply_windows(operator, x), apply(operator, x))
    assert operator.geometry.sizes == output_sizes(operator)


test_the_fast_oracle_agrees_with_the_loops = for_ranks(_windows_agree_with_loops)


def test_the_fast_oracle_of_a_plain_matrix() -> None:
    operator = random_weights(channels=(4, 6), groups=2, biased=True, ones=True)
    x = np.random.default_rng(0).normal(size=4)
    assert_close(apply_windows(operator, x), apply(operator, x))


def _windows_agree_on_normalised(pick: Pick, rank: int) -> None:
    sizes = draw_sizes(pick, rank)
    operator = draw_normalised(pick, sizes, pick(1, 3))
    x = image(operator, pick(0, 99))
    assert_close(apply_windows(operator, x), apply(operator, x))
    ones = np.ones_like(x)
    assert_close(apply(operator, ones), np.ones((*output_sizes(operator), x.shape[-1])))


test_the_fast_oracle_agrees_on_normalised_operators = for_ranks(_windows_agree_on_normalised, 0.3)


def test_the_oracle_divides_by_the_weights_on_real_samples() -> None:
    weights = np.array([0.5, 0.125, 0.375])
    operator = normalised([(Axis(4, 3, crop=(1, 0), pad=(1, 1)), weights)], channels=1)
    x = np.array([[1000.0], [8.0], [16.0], [32.0]])
    # The cropped sample is not real. Windows: - 8 16, 8 16 32, 16 32 -.
    expected = [(1 + 6) / 0.5, 4 + 2 + 12, (8 + 4) / 0.625]
    assert apply(operator, x).ravel().tolist() == expected


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_average_pooling_is_the_mean_of_the_pixels_there(k: int, stride: int) -> None:
    for sizes in ((1,), (4,), (5,), (9,), (3, 8), (6, 7)):
        operator = average(*sizes, k=k, stride=stride)
        x = image(operator, 1)
        expected = np.empty((*(math.ceil(n / stride) for n in sizes), 2))
        for p in np.ndindex(*expected.shape[:-1]):
            window = []
            for i, n, out in zip(p, sizes, expected.shape, strict=False):
                first = i * stride - max((out - 1) * stride + k - n, 0) // 2
                window.append(slice(max(first, 0), first + k))
            expected[p] = x[tuple(window)].reshape(-1, 2).mean(axis=0)
        assert_close(apply_windows(operator, x), expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_bilinear_upsampling_is_clamped_interpolation(factor: int) -> None:
    for sizes in ((1,), (2,), (7,), (3, 5), (1, 4)):
        operator = bilinear(*sizes, factor=factor)
        x = expected = image(operator, 2)
        for axis, n in enumerate(sizes):
            source = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
            left = np.floor(source).astype(int)
            right = np.minimum(left + 1, n - 1)
            share = (source - left).reshape((-1,) + (1,) * (expected.ndim - 1 - axis))
            expected = expected.take(left, axis) * (1 - share) + expected.take(right, axis) * share
        assert_close(apply_windows(operator, x), expected)


def test_one_kernel_of_two_sums_by_hand() -> None:
    total = random_weights(Axis(3, 3, pad=(1, 1)), channels=(1, 1), biased=True)
    total = replace(total, kernel=np.ones((3, 1, 1)), bias=np.array([0.5]))
    x = np.array([[1.0], [2.0], [4.0]])
    # Sums of three with 1/2 added: 1.5 | 3.5 7.5 6.5 | 4.5, of which the chain sees the middle.
    assert apply_links([total, total], x).ravel().tolist() == [11.5, 18, 14.5]
    assert apply_endless([total, total], x, [(0, 3)]).ravel().tolist() == [13, 18, 19]
    assert apply_endless([total, total], x, [(1, 3)]).ravel().tolist() == [18, 19]
    assert true_frame([total, total]) == (1, 1)


def _one_kernel_where_nothing_pads(pick: Pick, rank: int) -> None:
    operators: list[Any] = [draw_operator(pick, draw_sizes(pick, rank), 2, "same")]
    while len(operators) < 3:
        kind = ("valid", "pool", "pointwise")[pick(0, 2)]
        before = operators[-1]
        after = draw_operator(pick, output_sizes(before), before.geometry.channels[1], kind)
        operators.append(after if after.ones is None else before)
        if operators[-1] is before:
            return
    x = image(operators[0], pick(0, 99))
    y = apply_links(operators, x)
    box = draw_box(pick, y.shape[:-1])
    assert_close(apply_endless(operators, x, box), crop_to(y, box))


test_one_kernel_gives_a_chain_without_inner_borders = for_ranks(_one_kernel_where_nothing_pads, 0.3)


def test_the_error_of_shapes_and_of_nan() -> None:
    assert error(np.zeros(2), np.zeros(3)) == error(np.array([np.nan]), np.zeros(1)) == math.inf
    assert error(np.array([200.0]), np.array([100.0])) == 1.0
    assert error(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0


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
