"""What is held against the oracle: compositions, sums, concatenations, frames and tiles."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from laws.alone import conv
from laws.draws import (
    LARGEST,
    Pick,
    chain_at_sizes,
    draw_box,
    draw_chain,
    draw_known,
    draw_links,
    draw_siblings,
    forget_sizes,
    image,
)
from laws.oracle import (
    TOLERANCE,
    apply_endless,
    apply_links,
    apply_windows,
    assert_well_formed,
    at_sizes,
    crop_to,
    describe,
    error,
    exists,
    output_sizes,
    samples_read,
)


class Failure(AssertionError):
    """A broken law, with a program that shows it."""


@dataclass
class Tally:
    """What a run did."""

    checked: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0

    def __str__(self) -> str:
        lines = [f"{count:8}  checked: {what}" for what, count in sorted(self.checked.items())]
        lines += [f"{count:8}  refused: {why}" for why, count in self.refused.most_common()]
        return "\n".join([*lines, f"worst error {self.worst:.1e} of the scale"])

    def attempt(self, build: Callable[..., Any], *arguments: Any) -> Any | None:
        """The operator, or None where it is refused."""
        try:
            return build(*arguments)
        except conv.Refused as refusal:
            self.refuse(refusal)
            return None

    def refuse(self, refusal: Any) -> None:
        """Count a refusal."""
        self.refused[re.sub(r"\d+", "#", refusal.reason)] += 1

    def compare(
        self, what: str, result: Any, expected: np.ndarray, x: np.ndarray, *given: Any
    ) -> None:
        """Hold one operator against the values it should give."""
        try:
            assert_well_formed(result)
            actual = apply_windows(at_sizes(result, x.shape[:-1]), x)
        except (AssertionError, ValueError) as problem:
            raise Failure(
                f"{what}: {problem}\n{result.geometry}\n\n{describe(*given)}"
            ) from problem
        self.compare_values(what, actual, expected, f"{result.geometry}", *given)

    def compare_values(
        self, what: str, actual: np.ndarray, expected: np.ndarray, found: str, *given: Any
    ) -> None:
        """Hold values against what they should be."""
        difference = error(actual, expected)
        self.checked[what] += 1
        self.worst = max(self.worst, difference)
        if difference > TOLERANCE:
            shapes = f"output {actual.shape}, expected {expected.shape}"
            raise Failure(
                f"{what}: {shapes}, error {difference:.1e}\n{found}\n\n{describe(*given)}"
            )


def check_composition(tally: Tally, pick: Pick, rank: int) -> None:
    """Two or three operators, in either association."""
    operators, _ = draw_chain(pick, rank, pick(2, 3))
    x = image(operators[0], pick(0, 2**31))
    values = [apply_windows(operators[0], x)]
    total = operators[0]
    for operator in operators[1:]:
        values.append(apply_windows(operator, values[-1]))
        total = tally.attempt(conv.compose, operator, total)
        if total is None:
            break
        tally.compare("composition", total, values[-1], x, *operators)
    if len(operators) == 3:
        tail = tally.attempt(conv.compose, operators[2], operators[1])
        both = None if tail is None else tally.attempt(conv.compose, tail, operators[0])
        if both is not None:
            expected = apply_windows(operators[2], apply_windows(operators[1], values[0]))
            tally.compare("composition, last two first", both, expected, x, *operators)


def check_unknown_size(tally: Tally, pick: Pick, rank: int) -> None:
    """Two or three operators for images of any size, in either association, at a few sizes."""
    known = draw_known(pick, rank)
    operators, first = draw_chain(pick, rank, pick(2, 3), known)
    total: Any = operators
    while len(total) > 1:
        i = pick(0, len(total) - 2)
        link = tally.attempt(conv.compose, total[i + 1], total[i])
        if link is None:
            return
        total = [*total[:i], link, *total[i + 2 :]]
    for _ in range(3):
        sizes = [
            size if is_known else pick(1, LARGEST[rank])
            for size, is_known in zip(first, known, strict=True)
        ]
        concrete = chain_at_sizes(operators, sizes)
        if concrete is None:
            continue
        x = expected = image(concrete[0], pick(0, 2**31))
        for operator in concrete:
            expected = apply_windows(operator, expected)
        what = "composition at an unknown size"
        tally.compare(what, total[0], expected, x, *operators)


def check_unknown_siblings(tally: Tally, pick: Pick, rank: int) -> None:
    """A sum and a concatenation for images of any size, at a few sizes."""
    terms = draw_siblings(pick, rank, 2, same_outputs=True)
    sizes = [axis.size for axis in terms[0].geometry.axes]
    known = draw_known(pick, rank)
    terms = [forget_sizes(term, known) for term in terms]
    total, stacked = tally.attempt(conv.add, terms), tally.attempt(conv.concatenate, terms)
    for _ in range(3):
        seen = [
            n if is_known else pick(1, LARGEST[rank])
            for n, is_known in zip(sizes, known, strict=True)
        ]
        concrete = [at_sizes(term, seen) for term in terms]
        if not all(map(exists, concrete)):
            continue
        x = image(concrete[0], pick(0, 2**31))
        values = [apply_windows(term, x) for term in concrete]
        if values[0].shape != values[1].shape:
            if total is not None or stacked is not None:
                raise Failure(f"branches of different sizes, seen at {seen}\n\n{describe(*terms)}")
            continue
        if total is not None:
            tally.compare("sum at an unknown size", total, values[0] + values[1], x, *terms)
        if stacked is not None:
            joined = np.concatenate(values, axis=-1)
            tally.compare("concatenation at an unknown size", stacked, joined, x, *terms)


def check_sum(tally: Tally, pick: Pick, rank: int) -> None:
    """Operators on one input, added."""
    terms = draw_siblings(pick, rank, pick(2, 3), same_outputs=True)
    x = image(terms[0], pick(0, 2**31))
    total = tally.attempt(conv.add, terms)
    if total is not None:
        tally.compare("sum", total, sum(apply_windows(term, x) for term in terms), x, *terms)


def check_concatenation(tally: Tally, pick: Pick, rank: int) -> None:
    """Operators on one input, stacked."""
    parts = draw_siblings(pick, rank, pick(2, 3), same_outputs=False)
    x = image(parts[0], pick(0, 2**31))
    stacked = tally.attempt(conv.concatenate, parts)
    if stacked is not None:
        expected = np.concatenate([apply_windows(part, x) for part in parts], axis=-1)
        tally.compare("concatenation", stacked, expected, x, *parts)


def check_frame(tally: Tally, pick: Pick, rank: int) -> None:
    """A chain with borders: inside its frame one kernel; any part of it as the whole has it."""
    operators = draw_links(pick, rank, pick(1, 4))
    seed = pick(0, 2**31)
    if hold_frame(tally, operators, seed):
        hold_tiles(tally, operators, seed)
    hold_part(tally, operators, draw_box(pick, output_sizes(operators[-1])), seed)


def hold_frame(tally: Tally, operators: Sequence[Any], seed: int) -> bool:
    """Hold the frame of a chain against its outputs; whether it has one."""
    links = [operator.geometry for operator in operators]
    frame = tally.attempt(conv.frame_of, links)
    if frame is None:
        return False
    x = image(operators[0], seed)
    expected = apply_links(operators, x)
    interior, _ = conv.frame_boxes(expected.shape[:-1], frame)
    found = f"frame {frame}, interior {interior}"
    if any(first >= last for first, last in interior):
        raise Failure(f"a frame without an interior: {found}\n\n{describe(*operators)}")
    expected = crop_to(expected, interior)
    read = samples_read(operators, interior)
    if read is not None and all(operator.ones is None for operator in operators):
        unread = np.ones(x.shape, dtype=bool)
        crop_to(unread, read)[...] = False
        endless = apply_endless(operators, np.where(unread, 0.0, x), interior)
        tally.compare_values("interior, one kernel", endless, expected, found, *operators)
    inside = restrict(tally, operators, interior)
    if inside is None:
        return True
    actual = apply_links(inside, x)
    tally.compare_values("interior, link by link", actual, expected, found, *operators)
    if any(link.geometry.normalised for link in inside):
        raise Failure(f"normalised within the frame: {found}\n\n{describe(*operators)}")
    try:
        total = conv.chain(inside)
    except conv.Refused as refusal:
        if must_compose(inside, refusal.reason):
            problem = f"refused within the frame: {refusal}\n{found}"
            raise Failure(f"{problem}\n\n{describe(*operators)}") from None
        tally.refuse(refusal)
    else:
        tally.compare("interior, composed", total, expected, x, *operators)
    return True


def hold_tiles(tally: Tally, operators: Sequence[Any], seed: int) -> None:
    """Hold tiles of a chain, each one operator, against its outputs."""
    links = [operator.geometry for operator in operators]
    x = image(operators[0], seed)
    expected = apply_links(operators, x)
    parts = conv.tiling_of(expected.shape[:-1], conv.frame_of(links))
    boxes = [box for groups in itertools.product(*parts) for box in conv.products(groups).values()]
    assert len({*boxes}) == len(boxes)
    assert sum(math.prod(b - a for a, b in box) for box in boxes) == expected[..., 0].size
    for box in boxes[:: max(1, len(boxes) // 9)]:
        whole = tally.attempt(conv.tile, operators, box)
        if whole is not None:
            assert whole.geometry == conv.tile_geometry(links, box)
            if whole.geometry.normalised:
                raise Failure(f"tile {box} is normalised\n\n{describe(*operators)}")
            tally.compare("tile", whole, crop_to(expected, box), x, *operators)


def hold_mirrored(tally: Tally, operators: Sequence[Any], seed: int) -> None:
    """Hold tiles that are outputs of one operator against the outputs of a chain."""
    links = [operator.geometry for operator in operators]
    x = image(operators[0], seed)
    expected = apply_links(operators, x)
    parts = conv.mirrored_tiling(expected.shape[:-1], conv.frame_of(links))
    seen = np.zeros(expected.shape[:-1], int)
    for groups in itertools.product(*parts):
        boxes = conv.products(groups)
        for box in boxes.values():
            seen[tuple(slice(*part) for part in box)] += 1
        tiles = {place: tally.attempt(conv.tile, operators, box) for place, box in boxes.items()}
        if None in tiles.values():
            continue
        made = tally.attempt(conv.mirrored, tiles)
        if made is None:
            continue
        one, biases = made
        assert_well_formed(one)
        geometry = conv.mirrored_geometry({place: t.geometry for place, t in tiles.items()})
        assert one.geometry in (geometry, replace(geometry, biased=False))
        actual = apply_windows(one, x) + (0 if biases is None else biases)
        for place, box in boxes.items():
            ends = zip(place, groups, strict=True)
            got = actual[tuple(slice(i, i + 1) if len(g) > 1 else slice(None) for i, g in ends)]
            right, found = crop_to(expected, box), f"{one.geometry}"
            tally.compare_values("mirrored", got, right, found, *operators)
    assert (seen == 1).all()


def must_compose(links: Sequence[Any], reason: str) -> bool:
    """Whether links without a border may not be refused for that reason.

    Without upsampling no reason is left. With it, a bias may vary from phase to phase; and with
    strides as well, what `compose` knows of padding is a bound.
    """
    if any(link.ones is not None for link in links):
        return False
    axes = [axis for link in links for axis in link.geometry.axes]
    strides, upsamplings = ({getattr(a, name) for a in axes} for name in ("stride", "upsampling"))
    return upsamplings <= {1} or (strides <= {1} and reason.startswith("zero padding"))


def hold_part(tally: Tally, operators: Sequence[Any], box: Sequence[Any], seed: int) -> None:
    """Hold a chain that computes only the outputs in `box` against the chain."""
    inside = restrict(tally, operators, box)
    if inside is not None:
        x = image(operators[0], seed)
        expected = crop_to(apply_links(operators, x), box)
        actual = apply_links(inside, x)
        tally.compare_values("restriction", actual, expected, f"box {box}", *operators)


def restrict(tally: Tally, operators: Sequence[Any], box: Sequence[Any]) -> list[Any] | None:
    """The operators that compute the outputs in `box`, each well-formed; None where refused."""
    links = tally.attempt(conv.restricted, [operator.geometry for operator in operators], box)
    if links is None:
        if samples_read(operators, box) is not None:
            raise Failure(f"refused to compute {box}\n\n{describe(*operators)}")
        return None
    inside = [
        replace(operator, geometry=link) for operator, link in zip(operators, links, strict=True)
    ]
    sizes = [tuple(axis.size for axis in operators[0].geometry.axes)]
    sizes += [output_sizes(link) for link in inside]
    try:
        for operator, link, size in zip(operators, inside, sizes, strict=False):
            assert_well_formed(link)
            old, new = operator.geometry, link.geometry
            assert tuple(axis.size for axis in new.axes) == size, "links that do not fit"
            assert new.normalised <= old.normalised
            kept = replace(new, axes=old.axes, steady=old.steady, normalised=old.normalised)
            assert kept == old, "another operator"
        assert sizes[-1] == tuple(last - first for first, last in box), "another box"
    except AssertionError as problem:
        found = "\n".join(str(link) for link in links)
        raise Failure(f"box {box}: {problem}\n{found}\n\n{describe(*operators)}") from problem
    return inside
