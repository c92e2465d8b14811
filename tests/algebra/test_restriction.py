"""A chain restricted to a box gives the outputs in it, and an image is tiled by its strips."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from laws.alone import conv
from laws.chains import EXACT, geometries, stack
from laws.checks import Failure, Tally, hold_frame, hold_part
from laws.draws import Pick, draw_box, draw_links, image
from laws.operators import average, same
from laws.oracle import apply_links, assert_close, crop_to, output_sizes, sample_read, samples_read
from laws.properties import attempt, for_ranks, law, picking


@pytest.mark.parametrize(("rank", "restricted"), [(1, 200), (2, 40), (3, 10)])
def test_restriction_gives_the_outputs_in_the_box(rank: int, restricted: int) -> None:
    tally = Tally()

    @law(rank)
    def examples(data: st.DataObject) -> None:
        pick = picking(data)
        operators = draw_links(pick, rank, pick(1, 4))
        box = draw_box(pick, output_sizes(operators[-1]))
        hold_part(tally, operators, box, pick(0, 99))

    examples()
    assert tally.checked["restriction"] >= restricted, f"too few to mean anything\n{tally}"


@pytest.mark.parametrize("case", EXACT)
def test_a_common_chain_restricted_to_every_box(case: str) -> None:
    """No pixel is computed that is not read: each image is as small as its reads allow."""
    operators = stack(7, *EXACT[case])
    links = geometries(operators)
    x = image(operators[0], 3)
    expected = apply_links(operators, x)
    for box in itertools.combinations(range(len(expected) + 1), 2):
        if samples_read(operators, [box]) is None:
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


def _boxes_tile(pick: Pick, rank: int) -> None:
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


def _frame_and_interior_are_the_chain(pick: Pick, rank: int) -> None:
    operators = draw_links(pick, rank, pick(2, 3))
    links = geometries(operators)
    frame = attempt(conv.frame_of, links)
    if frame is None or any(operator.ones is not None for operator in operators):
        return
    x = image(operators[0], pick(0, 99))
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


def test_a_restriction_that_is_off_by_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    restricted = conv.restricted

    def shifted(links: Any, box: Any) -> Any:
        ((first, last),) = box
        return restricted(links, ((first + 1, last + 1),))

    operators = stack(12, same, same)
    monkeypatch.setattr(conv, "restricted", shifted)
    with pytest.raises(Failure, match="interior, link by link"):
        hold_frame(Tally(), operators, 0)
