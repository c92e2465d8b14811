"""Rearrangements against NumPy's own reshape and transpose, and the operators that pass them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from kerasfold.algebra import Axis, Geometry, Operator, Rearrangement, Refused, passed, settled
from kerasfold.testing import apply

DRAWS = 400
FREE = (None, None, 12)


def drawn(draw: random.Random, shape: tuple[int, ...]) -> Rearrangement:
    """A reshape or a permutation of an image of this shape."""
    if draw.random() < 0.5:
        return Rearrangement.permutation(shape, draw.sample(range(len(shape)), len(shape)))
    rest, target = math.prod(shape), []
    while rest > 1 and draw.random() < 0.8:
        target.append(draw.choice([n for n in range(1, rest + 1) if rest % n == 0]))
        rest //= target[-1]
    return Rearrangement.reshape(shape, [*target, rest])


def several(draw: random.Random) -> Iterator[tuple[Rearrangement, np.ndarray, np.ndarray]]:
    """Compositions of a few, with an image and what NumPy makes of it step by step."""
    for _ in range(DRAWS):
        shape = tuple(draw.choice([1, 2, 3, 4]) for _ in range(draw.randint(1, 4)))
        image = np.arange(math.prod(shape), dtype=float).reshape(shape)
        whole, moved = Rearrangement.reshape(shape, shape), image
        try:
            for _ in range(draw.randint(1, 3)):
                step = drawn(draw, whole.target)
                moved = step.applied(moved)
                whole = step @ whole
        except Refused:
            continue
        yield whole, image, moved


def test_a_step_is_numpys() -> None:
    image = np.arange(24.0).reshape(2, 3, 4)
    for axes in ((0, 2, 1), (2, 0, 1), (1, 0, 2)):
        moved = Rearrangement.permutation(image.shape, axes).applied(image)
        assert (moved == image.transpose(axes)).all()
    for shape in ((24,), (6, 4), (1, 8, 3)):
        assert (
            Rearrangement.reshape(image.shape, shape).applied(image) == image.reshape(shape)
        ).all()


def test_several_are_one() -> None:
    found = list(several(random.Random(0)))
    assert len(found) > DRAWS / 2
    for whole, image, moved in found:
        assert (whole.applied(image) == moved).all()


def test_back_again_is_the_identity() -> None:
    for whole, _, _ in several(random.Random(1)):
        assert (whole.inverse @ whole).is_identity


def test_equal_functions_are_equal() -> None:
    there = Rearrangement.reshape((4, 3, 6), (12, 2, 3))
    shuffled = Rearrangement.permutation((12, 2, 3), (0, 2, 1)) @ there
    fine = Rearrangement.permutation((4, 3, 2, 3), (0, 1, 3, 2))
    again = Rearrangement.reshape((4, 3, 3, 2), (12, 3, 2)) @ (
        fine @ Rearrangement.reshape((4, 3, 6), (4, 3, 2, 3))
    )
    assert shuffled == again


def test_its_parts_lie_within_axes() -> None:
    for whole, _, _ in several(random.Random(2)):
        try:
            parts = whole.parts()
        except Refused:
            continue
        for axes, which in ((whole.source, "source"), (whole.target, "target")):
            for number, size in enumerate(axes):
                sizes = [p.size for p in parts if getattr(p, which) == number]
                assert math.prod(n or 0 for n in sizes) == size


def test_axes_that_do_not_divide_are_refused() -> None:
    turned = Rearrangement.permutation((6, 4), (1, 0))
    with pytest.raises(Refused, match="by 6 samples and by 4, which do not divide"):
        _ = turned @ Rearrangement.reshape((4, 6), (6, 4)) @ turned


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 0, 2), (1, 2, 0)])
def test_unknown_sizes_come_back(axes: tuple[int, ...]) -> None:
    turned = Rearrangement.permutation(FREE, axes)
    assert (turned.inverse @ turned).is_identity
    image = np.arange(2 * 5 * 12.0).reshape(2, 5, 12)
    assert (turned.applied(image) == image.transpose(axes)).all()


def test_what_is_left_of_an_unknown_size() -> None:
    flat = Rearrangement.reshape(FREE, (None, 3))
    image = np.arange(2 * 5 * 12.0).reshape(2, 5, 12)
    assert (flat.applied(image) == image.reshape(-1, 3)).all()
    assert [part.target for part in flat.parts()] == [0, 0, 0, 1]


def test_two_unknown_sizes_are_not_taken_for_each_other() -> None:
    turned = Rearrangement.permutation((None, None, 2, 6), (1, 0, 2, 3))
    with pytest.raises(Refused, match="unknown size"):
        _ = turned @ Rearrangement.permutation((6, None, 2, None), (1, 3, 2, 0))


@pytest.mark.parametrize("channels", [0, -1])
def test_channels_first_and_last(channels: int) -> None:
    other = -1 - channels
    r = Rearrangement.reshape((4, 3, 2), (12, 2))
    image = np.arange(24.0).reshape(4, 3, 2)
    moved = np.moveaxis(r.applied(image), channels, other)
    assert (
        r.channels_at(channels, other).applied(np.moveaxis(image, channels, other)) == moved
    ).all()


def operator(draw: random.Random, shape: tuple[int, ...]) -> Operator:
    """A map, a scale, a convolution, a depthwise one or a pool over axes of such images."""
    *sizes, channels = shape
    kind = draw.choice(["matrix", "scale", "window", "depthwise", "global", "axes"])
    wide = kind in ("window", "depthwise")
    axes = []
    for n in sizes:
        whole = kind == "global" or (kind == "axes" and draw.random() < 0.5)
        k = n if whole else draw.randint(1, 3) if wide else 1
        pad = (draw.randint(0, k - 1), draw.randint(0, k - 1)) if wide else (0, 0)
        axes.append(Axis(n, k, draw.randint(1, 2) if k > 1 else 1, pad=pad))
    if any(a.out is None or a.out < 1 for a in axes):
        axes = [Axis(n) for n in sizes]
    single = kind in ("scale", "depthwise", "global") or (kind == "axes" and draw.random() < 0.5)
    groups = channels if single else draw.choice([n for n in (1, 1, 2, 3) if channels % n == 0])
    outputs = channels if single else groups * draw.randint(1, 3)
    vector = kind == "global" and bool(sizes)
    geometry = Geometry(
        tuple(a.tight() for a in axes), (channels, outputs), groups, True, vector=vector
    )
    weights = np.random.default_rng(draw.randrange(2**32))
    return Operator(
        geometry, weights.normal(size=geometry.kernel_shape), weights.normal(size=outputs)
    )


@pytest.mark.parametrize("seed", range(3))
def test_an_operator_passes_exactly_or_is_refused(seed: int) -> None:
    draw, count = random.Random(seed), 0
    for r, image, moved in several(draw):
        if len(r.target) > 4:
            continue
        b = operator(draw, r.target)
        try:
            geometry, after = passed(b.geometry, r)
        except Refused:
            continue
        before, same = passed(b, r)
        assert (before.geometry, after) == (geometry, same)
        wanted = apply(b, moved)
        got = after.applied(apply(before, image))
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11 * np.abs(wanted).max())
        count += 1
    assert count > 100


def test_an_order_of_channels_is_the_kernels() -> None:
    shuffle = (
        Rearrangement.reshape((5, 2, 3), (5, 6))
        @ Rearrangement.permutation((5, 3, 2), (0, 2, 1))
        @ Rearrangement.reshape((5, 6), (5, 3, 2))
    )
    geometry = Geometry((Axis(5),), (4, 6))
    kernel = np.arange(24.0).reshape(1, 4, 6)
    a, rest = settled(Operator(geometry, kernel, np.arange(6.0)), shuffle)
    assert rest.is_identity
    assert a.bias.tolist() == [0, 2, 4, 1, 3, 5]
    assert (a.kernel == kernel[..., [0, 2, 4, 1, 3, 5]]).all()


@pytest.mark.parametrize("groups", [2, 6])
def test_an_order_of_channels_does_not_pass_groups(groups: int) -> None:
    turned = Rearrangement.permutation((5, 3, 2), (0, 2, 1)) @ Rearrangement.reshape(
        (5, 6), (5, 3, 2)
    )
    shuffle = Rearrangement.reshape((5, 2, 3), (5, 6)) @ turned
    geometry = Geometry((Axis(5),), (6, 6), groups)
    assert settled(geometry, shuffle) == (geometry, shuffle)
