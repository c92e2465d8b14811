"""Laws of the frame: which outputs of a chain one kernel gives, and how to compute the others.

A chain with borders between its operators is the composition only inside a frame. Whatever the
frame leaves inside must be exactly that composition, and the chain restricted to any box must
give exactly the pixels in it. The oracle of both is the chain itself, operator by operator on
real tensors; `oracle.apply_endless` is what one kernel gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from hypothesis import strategies as st

from laws import checks
from laws.alone import Axis, Geometry, Refused, conv
from laws.chains import EXACT, Layer, geometries, stack, true_frame
from laws.checks import Failure, Tally, hold_frame
from laws.draws import draw_links, image
from laws.operators import (
    average,
    bilinear,
    cropping,
    nearest,
    padding,
    random_weights,
    same,
    valid,
)
from laws.oracle import apply, apply_links, apply_windows, assert_close, crop_to, output_sizes
from laws.properties import attempt, law, picking


@pytest.mark.parametrize(("rank", "framed"), [(1, 150), (2, 40), (3, 10)])
def test_inside_its_frame_a_chain_is_its_composition(rank: int, framed: int) -> None:
    tally = Tally()

    @law(rank)
    def examples(data: st.DataObject) -> None:
        pick = picking(data)
        hold_frame(tally, draw_links(pick, rank, pick(1, 4)), pick(0, 99))

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


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [16, 17])
def test_the_frame_is_exactly_the_outputs_that_differ(case: str, size: int) -> None:
    operators = stack(size, *EXACT[case])
    assert conv.frame_of(geometries(operators)) == (true_frame(operators),)


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [16, 17])
def test_the_interior_of_a_common_chain_composes(case: str, size: int) -> None:
    operators = stack(size, *EXACT[case])
    tally = Tally()
    assert hold_frame(tally, operators, 0)
    assert tally.checked["interior, composed"] == 1, f"not composed\n{tally}"

    # In either order: planning collapses any run of the links.
    links = geometries(operators)
    interior, _ = conv.frame_boxes(output_sizes(operators[-1]), conv.frame_of(links))
    inside = [
        replace(operator, geometry=link)
        for operator, link in zip(operators, conv.restricted(links, interior), strict=True)
    ]
    x = image(operators[0], 4)
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
    assert hold_frame(Tally(), operators, 0)


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
    with pytest.raises(Refused, match=re.escape("weights change along the border")):
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
        assert hold_frame(Tally(), larger, 0)


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
        assert hold_frame(Tally(), operators, 0)
        for axis in range(len(sizes)):
            pair = tuple(width - (end == side) for end, width in enumerate(right[axis]))
            wrong = (*right[:axis], pair, *right[axis + 1 :])
            with monkeypatch.context() as patch:
                patch.setattr(conv, "frame_of", lambda _, wrong=wrong: wrong)
                with pytest.raises(Failure, match="interior, one kernel"):
                    hold_frame(Tally(), operators, 0)


@pytest.mark.parametrize("layer", [average, bilinear])
def test_a_normalised_operator_taken_as_plain_is_noticed(layer: Layer) -> None:
    for layers in ((layer,), (layer, same), (same, layer)):
        operators = stack(8, *layers)
        plain = [
            replace(operator, geometry=replace(operator.geometry, normalised=False))
            for operator in operators
        ]
        x = image(operators[0], 0)
        expected = apply_links(operators, x)
        with pytest.raises(AssertionError, match="values differ"):
            assert_close(apply_links(plain, x), expected)
        with pytest.raises(AssertionError, match="values differ"):
            assert_close(reduce(lambda value, b: apply(b, value), plain, x), expected)
        assert true_frame(operators) != (0, 0)


def test_a_normalised_operator_within_the_frame_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = stack(12, average, valid)
    monkeypatch.setattr(conv, "frame_of", lambda links: ((0, 1),))
    with pytest.raises(Failure, match="interior, one kernel"):
        hold_frame(Tally(), operators, 0)
    monkeypatch.setattr(checks, "apply_endless", lambda *_: apply_links(operators, x)[:-1])
    x = image(operators[0], 0)
    with pytest.raises(Failure, match="normalised within the frame"):
        hold_frame(Tally(), operators, 0)
