"""Laws of the frame: which outputs of a chain one kernel gives, and how to compute the others.

A chain with borders between its operators is the composition only inside a frame. Whatever the
frame leaves inside must be exactly that composition, and the chain restricted to any box must
give exactly the pixels in it. The oracle of both is the chain itself, operator by operator on
real tensors; `oracle.apply_endless` is what one kernel gives.
"""

from __future__ import annotations

import itertools
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
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import fuzz_conv as fuzz

import oracle
from oracle import (
    apply,
    apply_endless,
    apply_links,
    apply_windows,
    assert_close,
    conv,
    crop_to,
    output_sizes,
    same_padding,
    sample_read,
)
from test_conv import attempt, depthwise, for_ranks, law, nearest, random_weights

Axis, Geometry, Operator, Refused = conv.Axis, conv.Geometry, conv.Operator, conv.Refused


def geometries(operators: Sequence[Any]) -> list[Any]:
    return [operator.geometry for operator in operators]


def normalised(windows: Sequence[tuple[Any, np.ndarray]], channels: int = 2) -> Any:
    """A normalised operator of one window (axis, weights) per axis."""
    geometry = Geometry(
        tuple(axis for axis, _ in windows), (channels, channels), channels, normalised=True
    )
    kernel = reduce(np.multiply.outer, [weights for _, weights in windows])
    kernel = np.broadcast_to(kernel[..., None, None], geometry.kernel_shape)
    return Operator(geometry, kernel, np.zeros(channels))


def average(*sizes: int, k: int = 3, stride: int = 1, channels: int = 2) -> Any:
    """Average pooling with padding='same'."""
    axes = [Axis(n, k, stride) for n in sizes]
    axes = [replace(axis, pad=same_padding(axis, axis.size)).tight() for axis in axes]
    return normalised([(axis, np.full(k, 1 / k)) for axis in axes], channels)


def bilinear(*sizes: int, factor: int = 2, channels: int = 2) -> Any:
    """Linear interpolation between half-pixel centres."""
    low = (3 * factor - 2) // 2
    distance = np.arange(2 * factor - factor % 2) - low + (factor - 1) / 2
    window = 1 - np.abs(distance) / factor
    taps = len(window)
    return normalised(
        [(Axis(n, taps, upsampling=factor, pad=(low, low)), window) for n in sizes], channels
    )


def same(*sizes: int, k: int = 3, biased: bool = True, dilation: int = 1, seed: int = 0) -> Any:
    """A convolution with padding='same' that keeps the size."""
    axes = [Axis(n, k, 1, dilation if k > 1 else 1) for n in sizes]
    axes = [replace(axis, pad=same_padding(axis, axis.size)) for axis in axes]
    return random_weights(*axes, channels=(2, 2), biased=biased, seed=seed)


def valid(*sizes: int, k: int = 3, stride: int = 1, biased: bool = True) -> Any:
    axes = [Axis(n, k, stride).tight() for n in sizes]
    return random_weights(*axes, channels=(2, 2), biased=biased)


def transposed(size: int, k: int = 3, factor: int = 2) -> Any:
    axis = Axis(size, k, upsampling=factor, pad=(k - 1, k - 1))
    return random_weights(axis, channels=(2, 2), biased=True)


def cropping(size: int, low: int, high: int) -> Any:
    return depthwise(Axis(size, crop=(low, high)))


def padding(size: int, low: int, high: int) -> Any:
    return depthwise(Axis(size, pad=(low, high)))


def picking(data: st.DataObject) -> fuzz.Pick:
    return lambda low, high: data.draw(st.integers(low, high))


Layer = Callable[[int], Any]


def stack(size: int, *layers: Layer) -> list[Any]:
    """Each layer on what the one before it gives, in 1-D."""
    operators: list[Any] = []
    for layer in layers:
        operators.append(layer(size))
        (size,) = output_sizes(operators[-1])
    return operators


def true_frame(operators: Sequence[Any]) -> tuple[int, int]:
    """How far, at either end, the outputs are not those of one kernel, in 1-D.

    From the values: what lies outside the longest run where both agree.
    """
    x = fuzz.image(operators[0], 0)
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


# The oracle.


def _windows_agree_with_loops(pick: fuzz.Pick, rank: int) -> None:
    sizes = fuzz.draw_sizes(pick, rank)
    operator = fuzz.draw_normalised(pick, sizes, pick(1, 3))
    x = fuzz.image(operator, pick(0, 99))
    assert_close(apply_windows(operator, x), apply(operator, x))
    ones = np.ones_like(x)
    assert_close(apply(operator, ones), np.ones((*output_sizes(operator), x.shape[-1])))


test_the_fast_oracle_agrees_on_normalised_operators = for_ranks(_windows_agree_with_loops, 0.3)


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
        x = fuzz.image(operator, 1)
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
        x = expected = fuzz.image(operator, 2)
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


def _one_kernel_where_nothing_pads(pick: fuzz.Pick, rank: int) -> None:
    operators: list[Any] = [fuzz.draw_operator(pick, fuzz.draw_sizes(pick, rank), 2, "same")]
    while len(operators) < 3:
        kind = ("valid", "pool", "pointwise")[pick(0, 2)]
        before = operators[-1]
        after = fuzz.draw_operator(pick, output_sizes(before), before.geometry.channels[1], kind)
        operators.append(after if after.ones is None else before)
        if operators[-1] is before:
            return
    x = fuzz.image(operators[0], pick(0, 99))
    y = apply_links(operators, x)
    box = fuzz.draw_box(pick, y.shape[:-1])
    assert_close(apply_endless(operators, x, box), crop_to(y, box))


test_one_kernel_gives_a_chain_without_inner_borders = for_ranks(_one_kernel_where_nothing_pads, 0.3)


# The interior.


@pytest.mark.parametrize(("rank", "framed"), [(1, 150), (2, 40), (3, 10)])
def test_inside_its_frame_a_chain_is_its_composition(rank: int, framed: int) -> None:
    tally = fuzz.Tally()

    @law(rank)
    def examples(data: st.DataObject) -> None:
        pick = picking(data)
        fuzz.hold_frame(tally, fuzz.draw_links(pick, rank, pick(1, 4)), pick(0, 99))

    examples()
    for what in ("interior, one kernel", "interior, link by link", "interior, composed"):
        assert tally.checked[what] >= framed, f"too few to mean anything\n{tally}"


LAYERS: tuple[Layer, ...] = (
    lambda n: same(n, k=3),
    lambda n: same(n, k=2, biased=False, seed=1),
    lambda n: same(n, k=4, seed=2),
    lambda n: same(n, k=1, seed=3),
    lambda n: valid(n, k=3),
    lambda n: average(n, k=3),
    lambda n: average(n, k=2),
    lambda n: cropping(n, 1, 2),
)


@law(1, 0.7)
def test_a_frame_is_not_much_wider_than_the_outputs_that_differ(data: st.DataObject) -> None:
    layers = data.draw(st.lists(st.sampled_from(LAYERS), min_size=2, max_size=4))
    operators = stack(data.draw(st.integers(12, 24)), *layers)
    truth = true_frame(operators)
    frame = attempt(conv.frame_of, geometries(operators))
    if frame is None:
        assert sum(truth) + 4 >= output_sizes(operators[-1])[0], f"refused, not {truth}"
    else:
        assert all(truth[side] <= frame[0][side] <= truth[side] + 2 for side in (0, 1)), (
            f"{frame}, not {truth}"
        )


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


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [16, 17])
def test_the_frame_is_exactly_the_outputs_that_differ(case: str, size: int) -> None:
    operators = stack(size, *EXACT[case])
    assert conv.frame_of(geometries(operators)) == (true_frame(operators),)


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [16, 17])
def test_the_interior_of_a_common_chain_composes(case: str, size: int) -> None:
    operators = stack(size, *EXACT[case])
    tally = fuzz.Tally()
    assert fuzz.hold_frame(tally, operators, 0)
    assert tally.checked["interior, composed"] == 1, f"not composed\n{tally}"

    # In either order: planning collapses any run of the links.
    links = geometries(operators)
    interior, _ = conv.frame_boxes(output_sizes(operators[-1]), conv.frame_of(links))
    inside = [
        replace(operator, geometry=link)
        for operator, link in zip(operators, conv.restricted(links, interior), strict=True)
    ]
    x = fuzz.image(operators[0], 4)
    expected = crop_to(apply_links(operators, x), interior)
    assert_close(apply_windows(reduce(lambda a, b: conv.compose(b, a), inside), x), expected)
    assert_close(apply_windows(reduce(conv.compose, inside[::-1]), x), expected)


@pytest.mark.parametrize("ks", [(3, 3), (2, 2), (3, 5), (5, 4), (1, 3), (3, 1), (2, 7), (1, 2)])
def test_the_frame_of_two_same_convolutions(ks: tuple[int, int]) -> None:
    operators = [same(20, k=k) for k in ks]
    k2 = ks[1]
    assert conv.frame_of(geometries(operators)) == (((k2 - 1) // 2, k2 - 1 - (k2 - 1) // 2),)
    planes = [same(20, 18, k=k) for k in ks]
    assert conv.frame_of(geometries(planes)) == conv.frame_of(geometries(operators)) * 2


@pytest.mark.parametrize("ks", [(3, 3, 3), (2, 3, 4), (5, 4, 2), (1, 2, 3), (3, 1, 3)])
def test_the_frame_of_three_same_convolutions(ks: tuple[int, int, int]) -> None:
    low = sum((k - 1) // 2 for k in ks[1:])
    high = sum(k - 1 for k in ks[1:]) - low
    assert conv.frame_of(geometries([same(24, k=k) for k in ks])) == ((low, high),)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_a_pool_is_framed_by_the_windows_that_reach_out(k: int) -> None:
    low, high = (k - 1) // 2, k - 1 - (k - 1) // 2

    def frame(*layers: Layer) -> Any:
        return conv.frame_of(geometries(stack(20, lambda n: average(n, k=k), *layers)))

    assert frame() == frame(valid) == frame(valid, valid) == ((low, high),)
    for crop in range(4):
        cropped = frame(lambda n, c=crop: cropping(n, c, c))
        assert cropped == ((max(low - crop, 0), max(high - crop, 0)),)


def test_a_chain_without_inner_borders_has_no_frame() -> None:
    for layers in ((same,), (same, valid), (valid, valid), (same, lambda n: nearest(n, 3))):
        assert conv.frame_of(geometries(stack(16, *layers))) == ((0, 0),)


def test_each_axis_has_a_frame_of_its_own() -> None:
    first = random_weights(Axis(12, 3), Axis(13, 2, pad=(0, 1)), channels=(2, 2), biased=True)
    second = random_weights(Axis(10, 3), Axis(13, 4, pad=(1, 2)), channels=(2, 2))
    operators = [first, second]
    assert conv.frame_of(geometries(operators)) == ((0, 0), (1, 2))
    assert fuzz.hold_frame(fuzz.Tally(), operators, 0)


# Tiles, each alone, and those as far from either end as outputs of one operator.


Hold = Callable[[fuzz.Tally, Sequence[Any], int], None]
HELD: dict[str, Hold] = {"tile": fuzz.hold_tiles, "mirrored": fuzz.hold_mirrored}
PLAIN = [case for case in EXACT if not any(x in case for x in ("bilinear", "pool", "padding_then"))]


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [16, 17])
def test_every_tile_of_a_common_chain_is_one_operator(case: str, size: int) -> None:
    tally = fuzz.Tally()
    operators = stack(size, *EXACT[case])
    fuzz.hold_tiles(tally, operators, 0)
    tiles = sum(conv.frame_of(geometries(operators))[0]) + 1
    assert tally.checked["tile"] == tiles or case not in PLAIN, f"not composed\n{tally}"


@pytest.mark.parametrize(("what", "hold"), HELD.items(), ids=HELD)
@pytest.mark.parametrize(("rank", "tiles"), [(1, 200), (2, 40), (3, 10)])
def test_tiles_are_the_outputs_in_their_boxes(rank: int, tiles: int, what: str, hold: Hold) -> None:
    tally = fuzz.Tally()

    @law(rank)
    def examples(data: st.DataObject) -> None:
        pick = picking(data)
        operators = fuzz.draw_links(pick, rank, pick(1, 4))
        if tally.attempt(conv.frame_of, geometries(operators)) is not None:
            hold(tally, operators, pick(0, 99))

    examples()
    assert tally.checked[what] >= tiles, f"too few to mean anything\n{tally}"


def test_a_wrong_tap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = stack(12, same, same)
    trimmed = Axis.trimmed

    def faulty(axis: Any) -> Any:
        cut, kept = trimmed(axis)
        return cut, slice(kept.start - 1, kept.stop - 1) if kept.start else kept

    fuzz.hold_tiles(fuzz.Tally(), operators, 0)
    monkeypatch.setattr(Axis, "trimmed", faulty)
    with pytest.raises(fuzz.Failure, match="tile"):
        fuzz.hold_tiles(fuzz.Tally(), operators, 0)


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("size", [16, 17])
def test_two_ends_of_a_common_chain_are_one_operator(case: str, size: int) -> None:
    tally = fuzz.Tally()
    operators = stack(size, *EXACT[case])
    fuzz.hold_mirrored(tally, operators, 0)
    frame = conv.frame_of(geometries(operators))[0]
    interior = case != "same_same_transposed"  # which takes an image of ones there
    assert tally.checked["mirrored"] == sum(frame) + interior, f"not composed\n{tally}"


PADDED, ENDED = Axis(2, 3, pad=(1, 0)), Axis(8, 3, crop=(0, 5))


def padded_behind(size: int) -> Any:
    return random_weights(Axis(size, 3, 2, pad=(0, 1)).tight(), channels=(2, 2))


def test_an_end_alone_is_the_last_output_of_one_operator() -> None:
    for layers in ((same,), (lambda n: cropping(n, 0, 14), same)):  # with samples behind, or none
        tally = fuzz.Tally()
        fuzz.hold_mirrored(tally, stack(20, *layers, padded_behind), 0)
        assert tally.checked["mirrored"] == 2, tally


def test_an_end_that_reads_the_whole_image_is_refused() -> None:
    tally = fuzz.Tally()
    fuzz.hold_mirrored(tally, stack(4, lambda n: same(n, k=5), padded_behind), 0)
    assert tally.checked["mirrored"] == 1
    assert [*tally.refused] == ["an output at the high end that reads the image from its start"]


@pytest.mark.parametrize(
    ("axes", "settings", "reason"),
    [
        ([[PADDED], [PADDED]], {}, "an output that reads padding, in one convolution with another"),
        ([[ENDED], [ENDED]], {"ones": True}, "a tile with an image of ones"),
        (
            [[ENDED, ENDED], [Axis(8, 2, crop=(0, 6)), ENDED]],
            {},
            "tiles of one row whose windows differ",
        ),
    ],
)
def test_why_tiles_are_not_one_operator(axes: Any, settings: Any, reason: str) -> None:
    places = [(0,), (1,)] if len(axes[0]) == 1 else [(0, 0), (0, 1)]
    tiles = {
        place: Geometry(tuple(own), (2, 2), **settings)
        for place, own in zip(places, axes, strict=True)
    }
    with pytest.raises(Refused) as refused:
        conv.mirrored_geometry(tiles)
    assert refused.value.reason == reason


@pytest.mark.parametrize("fault", ["a bias", "a place"])
def test_a_wrong_end_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = stack(12, same, same)
    mirrored, ends = conv.mirrored, conv.tiles._ends

    def one_bias(tiles: Any) -> Any:
        operator, biases = mirrored(tiles)
        return operator, None if biases is None else biases[::-1]

    def one_place(low: Any, high: Any) -> Any:
        axis, (here, there) = ends(low, high)
        return axis, (there, here)

    fuzz.hold_mirrored(fuzz.Tally(), operators, 0)
    if fault == "a bias":
        monkeypatch.setattr(conv, "mirrored", one_bias)
    else:
        monkeypatch.setattr(conv.tiles, "_ends", one_place)
    with pytest.raises(fuzz.Failure, match="mirrored"):
        fuzz.hold_mirrored(fuzz.Tally(), operators, 0)


# Restriction.


@pytest.mark.parametrize(("rank", "restricted"), [(1, 200), (2, 40), (3, 10)])
def test_restriction_gives_the_outputs_in_the_box(rank: int, restricted: int) -> None:
    tally = fuzz.Tally()

    @law(rank)
    def examples(data: st.DataObject) -> None:
        pick = picking(data)
        operators = fuzz.draw_links(pick, rank, pick(1, 4))
        box = fuzz.draw_box(pick, output_sizes(operators[-1]))
        fuzz.hold_part(tally, operators, box, pick(0, 99))

    examples()
    assert tally.checked["restriction"] >= restricted, f"too few to mean anything\n{tally}"


@pytest.mark.parametrize("case", EXACT)
def test_a_common_chain_restricted_to_every_box(case: str) -> None:
    """No pixel is computed that is not read: each image is as small as its reads allow."""
    operators = stack(7, *EXACT[case])
    links = geometries(operators)
    x = fuzz.image(operators[0], 3)
    expected = apply_links(operators, x)
    for box in itertools.combinations(range(len(expected) + 1), 2):
        if oracle.samples_read(operators, [box]) is None:
            continue
        inside = [
            replace(operator, geometry=link)
            for operator, link in zip(operators, conv.restricted(links, (box,)), strict=True)
        ]
        assert_close(apply_links(inside, x), expected[slice(*box)])
        for link in inside[1:]:
            (axis,) = link.geometry.axes
            if axis.dilation > 1:  # where it is cut off by the border, its taps may miss the end
                continue
            reads = {
                sample_read(axis, p, t)
                for p in range(output_sizes(link)[0])
                for t in range(axis.taps)
            }
            assert {0, axis.size - 1} <= reads, f"an unread pixel at the end of {axis}, for {box}"


def test_a_cut_has_no_border() -> None:
    """A window at a cut is whole; only at the end of the image is it still divided."""
    pool = average(8, k=3)
    for box, pad in (((2, 5), (0, 0)), ((0, 3), (1, 0)), ((6, 8), (0, 1)), ((0, 8), (1, 1))):
        (link,) = conv.restricted([pool.geometry], (box,))
        assert link.axes[0].pad == pad
        assert link.normalised == any(pad)


# Boxes.


def _boxes_tile(pick: fuzz.Pick, rank: int) -> None:
    frame = tuple((pick(0, 3), pick(0, 3)) for _ in range(rank))
    sizes = tuple(sum(pair) + pick(1, 4) for pair in frame)
    interior, strips = conv.frame_boxes(sizes, frame)
    assert tuple(interior) == tuple(
        (low, n - high) for (low, high), n in zip(frame, sizes, strict=True)
    )
    covered = np.zeros(sizes, dtype=int)
    for box in (interior, *(box for _, _, box in strips)):
        assert len(box) == rank
        assert all(0 <= first < last <= n for (first, last), n in zip(box, sizes, strict=True))
        crop_to(covered, box)[...] += 1
    assert (covered == 1).all()
    assert len({(axis, side) for axis, side, _ in strips}) == len(strips)
    assert {(axis, side) for axis, side, _ in strips} == {
        (axis, side) for axis in range(rank) for side in (0, 1) if frame[axis][side]
    }
    for axis, side, box in strips:
        first, last = box[axis]
        assert last - first == frame[axis][side]
        assert (first == 0) if side == 0 else (last == sizes[axis])

    # Concatenated axis by axis, last first, they are the image.
    image = np.arange(math.prod(sizes)).reshape(sizes)
    whole = crop_to(image, interior)
    for axis in reversed(range(rank)):
        parts = {side: crop_to(image, box) for at, side, box in strips if at == axis}
        row = [parts.get(0), whole, parts.get(1)]
        whole = np.concatenate([part for part in row if part is not None], axis=axis)
    assert np.array_equal(whole, image)


test_the_interior_and_the_strips_tile_the_image = for_ranks(_boxes_tile)


def _frame_and_interior_are_the_chain(pick: fuzz.Pick, rank: int) -> None:
    operators = fuzz.draw_links(pick, rank, pick(2, 3))
    links = geometries(operators)
    frame = attempt(conv.frame_of, links)
    if frame is None or any(operator.ones is not None for operator in operators):
        return
    x = fuzz.image(operators[0], pick(0, 99))
    expected = apply_links(operators, x)
    interior, strips = conv.frame_boxes(expected.shape[:-1], frame)
    y = np.full(expected.shape, np.nan)
    for box in (interior, *(box for _, _, box in strips)):
        inside = attempt(conv.restricted, links, box)
        if inside is None:
            crop_to(y, box)[...] = crop_to(expected, box)
            continue
        pieces = [
            replace(operator, geometry=link)
            for operator, link in zip(operators, inside, strict=True)
        ]
        total = attempt(conv.chain, pieces) if box == interior else None
        crop_to(y, box)[...] = apply_links(pieces if total is None else [total], x)
    assert_close(y, expected)


test_the_composition_and_the_strips_are_the_chain = for_ranks(
    _frame_and_interior_are_the_chain, 0.5
)


# Refusals.


def _normalised_operands() -> dict[str, Callable[[], Any]]:
    pool, plain, wide = average(8), same(8), bilinear(8)
    cases: dict[str, Callable[[], Any]] = {}
    for name, first, second in (
        ("pool, conv", pool, plain),
        ("conv, pool", plain, pool),
        ("pool, pool", pool, pool),
        ("conv, bilinear", plain, wide),
        ("bilinear, conv", wide, same(16)),
    ):
        pair = [first, second]
        cases[f"compose {name}"] = lambda a=first, b=second: conv.compose(b, a)
        cases[f"compose_geometry {name}"] = lambda a=first, b=second: conv.Geometry.__matmul__(
            b.geometry, a.geometry
        )
        cases[f"chain {name}"] = lambda pair=pair: conv.chain(pair)
        if output_sizes(first) != output_sizes(second) or second.geometry.axes[0].size != 8:
            continue
        for build in ("add", "concatenate"):
            of_operators, of_geometries = getattr(conv, build), getattr(conv, f"{build}_geometry")
            cases[f"{build} {name}"] = lambda pair=pair, build=of_operators: build(pair)
            cases[f"{build}_geometry {name}"] = lambda pair=pair, build=of_geometries: build(
                geometries(pair)
            )
    return cases


NORMALISED = _normalised_operands()


@pytest.mark.parametrize("case", NORMALISED)
def test_a_normalised_operator_composes_with_nothing(case: str) -> None:
    with pytest.raises(Refused, match=re.escape("weights change at the border")):
        NORMALISED[case]()


def test_the_border_of_an_unknown_size() -> None:
    for links in (
        [Geometry((Axis(None, 3, pad=(1, 1)),), (2, 2))] * 2,
        [Geometry((Axis(8), Axis(None, 3, pad=(1, 1))), (2, 2))] * 2,
        [replace(average(8).geometry, axes=(Axis(None, 3, same=True),))] * 2,
    ):
        with pytest.raises(Refused, match="unknown size"):
            conv.frame_of(links)
    with pytest.raises(Refused, match="unknown"):
        conv.restricted([Geometry((Axis(None, 3, pad=(1, 1)),), (2, 2))], ((0, 4),))


@pytest.mark.parametrize(
    ("size", "layers"),
    [
        (2, (same, same)),
        (4, (same, same, same)),
        (1, (average, same)),
        (2, (lambda n: average(n, k=5), lambda n: same(n, k=1))),
        (1, (bilinear, lambda n: same(n, k=1))),
        (1, (lambda n: average(n, k=2, stride=2),)),
        (2, (lambda n: average(n, k=5),)),
        (1, (bilinear,)),
    ],
)
def test_an_image_too_small_for_its_frame(size: int, layers: tuple[Layer, ...]) -> None:
    operators = stack(size, *layers)
    with pytest.raises(Refused, match="too small to have an interior"):
        conv.frame_of(geometries(operators))
    if len(layers) == 2 and layers[1] is same:
        larger = stack(size + 4, *layers)
        assert fuzz.hold_frame(fuzz.Tally(), larger, 0)


def test_a_border_that_reads_nothing_but_padding() -> None:
    operators = stack(6, same, lambda n: padding(n, 4, 0), same)
    with pytest.raises(Refused, match="nothing but padding"):
        conv.restricted(geometries(operators), ((0, 2),))
    conv.restricted(geometries(operators), ((0, 4),))


# The comparison can fail.


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("sizes", [(12,), (9, 10)])
def test_an_interior_one_pixel_too_large_is_noticed(
    side: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, biased in ((3, True), (3, False), (4, True)):
        operators = [same(*sizes, k=k, biased=biased), same(*sizes, k=k, seed=1)]
        right = conv.frame_of(geometries(operators))
        assert fuzz.hold_frame(fuzz.Tally(), operators, 0)
        for axis in range(len(sizes)):
            pair = tuple(width - (end == side) for end, width in enumerate(right[axis]))
            wrong = (*right[:axis], pair, *right[axis + 1 :])
            with monkeypatch.context() as patch:
                patch.setattr(conv, "frame_of", lambda _, wrong=wrong: wrong)
                with pytest.raises(fuzz.Failure, match="interior, one kernel"):
                    fuzz.hold_frame(fuzz.Tally(), operators, 0)


@pytest.mark.parametrize("layer", [average, bilinear])
def test_a_normalised_operator_taken_as_plain_is_noticed(layer: Layer) -> None:
    for layers in ((layer,), (layer, same), (same, layer)):
        operators = stack(8, *layers)
        plain = [
            replace(operator, geometry=replace(operator.geometry, normalised=False))
            for operator in operators
        ]
        x = fuzz.image(operators[0], 0)
        expected = apply_links(operators, x)
        with pytest.raises(AssertionError, match="values differ"):
            assert_close(apply_links(plain, x), expected)
        with pytest.raises(AssertionError, match="values differ"):
            assert_close(reduce(lambda value, b: apply(b, value), plain, x), expected)
        assert true_frame(operators) != (0, 0)


def test_a_restriction_that_is_off_by_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    restricted = conv.restricted

    def shifted(links: Any, box: Any) -> Any:
        ((first, last),) = box
        return restricted(links, ((first + 1, last + 1),))

    operators = stack(12, same, same)
    monkeypatch.setattr(conv, "restricted", shifted)
    with pytest.raises(fuzz.Failure, match="interior, link by link"):
        fuzz.hold_frame(fuzz.Tally(), operators, 0)


def test_a_normalised_operator_within_the_frame_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = stack(12, average, valid)
    monkeypatch.setattr(conv, "frame_of", lambda links: ((0, 1),))
    with pytest.raises(fuzz.Failure, match="interior, one kernel"):
        fuzz.hold_frame(fuzz.Tally(), operators, 0)
    monkeypatch.setattr(fuzz, "apply_endless", lambda *_: apply_links(operators, x)[:-1])
    x = fuzz.image(operators[0], 0)
    with pytest.raises(fuzz.Failure, match="normalised within the frame"):
        fuzz.hold_frame(fuzz.Tally(), operators, 0)
