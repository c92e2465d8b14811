"""Tiles, each alone, and those as far from either end as outputs of one operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st

from laws.alone import Axis, Geometry, Refused, conv
from laws.chains import EXACT, geometries, stack
from laws.checks import Failure, Tally, hold_mirrored, hold_tiles
from laws.draws import draw_links
from laws.operators import cropping, random_weights, same
from laws.properties import law, picking

Hold = Callable[[Tally, Sequence[Any], int], None]
HELD: dict[str, Hold] = {"tile": hold_tiles, "mirrored": hold_mirrored}
PLAIN = [case for case in EXACT if not any(x in case for x in ("bilinear", "pool", "padding_then"))]


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [16, 17])
def test_every_tile_of_a_common_chain_is_one_operator(case: str, size: int) -> None:
    tally = Tally()
    operators = stack(size, *EXACT[case])
    hold_tiles(tally, operators, 0)
    tiles = sum(conv.frame_of(geometries(operators))[0]) + 1
    assert tally.checked["tile"] == tiles or case not in PLAIN, f"not composed\n{tally}"


@pytest.mark.parametrize(("what", "hold"), HELD.items(), ids=HELD)
@pytest.mark.parametrize(("rank", "tiles"), [(1, 200), (2, 40), (3, 10)])
def test_tiles_are_the_outputs_in_their_boxes(rank: int, tiles: int, what: str, hold: Hold) -> None:
    tally = Tally()

    @law(rank, 3.0)
    def examples(data: st.DataObject) -> None:
        pick = picking(data)
        operators = draw_links(pick, rank, pick(1, 4))
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

    hold_tiles(Tally(), operators, 0)
    monkeypatch.setattr(Axis, "trimmed", faulty)
    with pytest.raises(Failure, match="tile"):
        hold_tiles(Tally(), operators, 0)


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("size", [16, 17])
def test_two_ends_of_a_common_chain_are_one_operator(case: str, size: int) -> None:
    tally = Tally()
    operators = stack(size, *EXACT[case])
    hold_mirrored(tally, operators, 0)
    frame = conv.frame_of(geometries(operators))[0]
    interior = case != "same_same_transposed"  # which takes an image of ones there
    assert tally.checked["mirrored"] == sum(frame) + interior, f"not composed\n{tally}"


PADDED, ENDED = Axis(2, 3, pad=(1, 0)), Axis(8, 3, crop=(0, 5))


def padded_behind(size: int) -> Any:
    return random_weights(Axis(size, 3, 2, pad=(0, 1)).tight(), channels=(2, 2))


def test_an_end_alone_is_the_last_output_of_one_operator() -> None:
    for layers in ((same,), (lambda n: cropping(n, 0, 14), same)):  # with samples behind, or none
        tally = Tally()
        hold_mirrored(tally, stack(20, *layers, padded_behind), 0)
        assert tally.checked["mirrored"] == 2, tally


def test_an_end_that_reads_the_whole_image_is_refused() -> None:
    tally = Tally()
    hold_mirrored(tally, stack(4, lambda n: same(n, k=5), padded_behind), 0)
    assert tally.checked["mirrored"] == 1
    assert [*tally.refused] == ["an output at the high end that reads the image from its start"]


@pytest.mark.parametrize(
    ("axes", "settings", "reason"),
    [
        ([[PADDED], [PADDED]], {}, "an output that reads padding, in one convolution with another"),
        ([[ENDED], [ENDED]], {"ones": True}, "a tile with a bias before zero padding"),
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

    hold_mirrored(Tally(), operators, 0)
    if fault == "a bias":
        monkeypatch.setattr(conv, "mirrored", one_bias)
    else:
        monkeypatch.setattr(conv.tiles, "_ends", one_place)
    with pytest.raises(Failure, match="mirrored"):
        hold_mirrored(Tally(), operators, 0)
