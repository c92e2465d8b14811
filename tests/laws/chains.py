"""Chains of operators, each on the output of the one before it, and where they differ from one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from laws.draws import image
from laws.operators import average, bilinear, cropping, nearest, padding, same, transposed, valid
from laws.oracle import apply_endless, apply_links, output_sizes

Layer = Callable[[int], Any]


def stack(size: int, *layers: Layer) -> list[Any]:
    """Each layer on what the one before it gives, in 1-D."""
    operators: list[Any] = []
    for layer in layers:
        operators.append(layer(size))
        (size,) = output_sizes(operators[-1])
    return operators


def geometries(operators: Sequence[Any]) -> list[Any]:
    return [operator.geometry for operator in operators]


def true_frame(operators: Sequence[Any]) -> tuple[int, int]:
    """How far, at either end, the outputs are not those of one kernel, in 1-D.

    From the values: what lies outside the longest run where both agree.
    """
    x = image(operators[0], 0)
    y = apply_links(operators, x)
    endless = apply_endless(operators, x, [(0, len(y))])
    agrees = np.abs(y - endless).max(axis=1) < 1e-9
    runs = [
        [i for i, _ in run]
        for same_kind, run in itertools.groupby(enumerate(agrees), key=lambda pair: pair[1])
        if same_kind
    ]
    longest = max(runs, key=len, default=[])
    return (longest[0], len(y) - 1 - longest[-1]) if longest else (len(y), 0)


EXACT: dict[str, tuple[Layer, ...]] = {
    "same_same": (same, same),
    "same_same_no_bias": (lambda n: same(n, biased=False), lambda n: same(n, biased=False)),
    "same_same_same": (same, same, same),
    "even_kernels": (lambda n: same(n, k=4), lambda n: same(n, k=2), lambda n: same(n, k=4)),
    "dilated": (lambda n: same(n, dilation=3), lambda n: same(n, dilation=2)),
    "valid_then_same": (valid, same),
    "same_then_valid": (same, valid),
    "pointwise_bias_then_same": (lambda n: same(n, k=1), same),
    "padding_then_bias_then_same": (lambda n: padding(n, 2, 2), lambda n: same(n, k=1), same),
    "same_crop_pad": (same, lambda n: cropping(n, 1, 2), lambda n: padding(n, 2, 1), valid),
    "same_strided_same": (lambda n: valid(n, k=3, stride=2), same, same),
    "pool_alone": (average,),
    "pool_then_valid": (average, valid),
    "pool_then_same": (average, same),
    "same_then_pool": (same, average),
    "strided_pool_then_same": (lambda n: average(n, stride=2), same),
    "pool_of_four_then_pool": (lambda n: average(n, k=4), average),
    "bilinear_alone": (bilinear,),
    "bilinear_then_same": (bilinear, same),
    "bilinear_3_then_same": (lambda n: bilinear(n, factor=3), same),
    "same_then_bilinear": (same, bilinear),
    "same_same_bilinear": (same, same, bilinear),
    "same_same_bilinear_3": (same, same, lambda n: bilinear(n, factor=3)),
    "pool_then_bilinear": (average, bilinear),
    "bilinear_bilinear": (bilinear, bilinear),
    "same_same_nearest": (same, same, lambda n: nearest(n, 2)),
    "nearest_then_same_same": (lambda n: nearest(n, 2), same, same),
    "same_same_transposed": (same, same, transposed),
    "pool_then_transposed": (average, transposed),
    "bilinear_then_strided": (bilinear, same, lambda n: valid(n, stride=2)),
}
