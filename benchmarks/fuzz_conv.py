"""Random compositions, sums, concatenations and frames of operators against the tests' oracle.

    python benchmarks/fuzz_conv.py --rank1 100000 --rank23 5000 --seed 0

NumPy only. Prints what was checked, what was refused and why, and the worst error; stops at
the first failure with a program that shows it, and exit code 1.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from oracle import (
    TOLERANCE,
    apply_endless,
    apply_links,
    apply_windows,
    assert_well_formed,
    at_sizes,
    conv,
    crop_to,
    describe,
    error,
    exists,
    output_size,
    output_sizes,
    same_padding,
    sample_read,
    samples_read,
)

Pick = Callable[[int, int], int]
"""An integer from the first argument to the second, both included."""

LARGEST = {1: 12, 2: 8, 3: 5}
"""Largest input size by rank: what a test of that rank can afford."""

FRAMED = {1: 24, 2: 12, 3: 7}
"""The same for chains with a frame, whose images must be larger than it."""

KINDS = ("any", "valid", "same", "pool", "nearest", "transposed", "pointwise", "pad", "crop")


def numpy_pick(rng: np.random.Generator) -> Pick:
    """Integers from a NumPy generator."""
    return lambda low, high: int(rng.integers(low, high + 1))


def draw_axis(pick: Pick, size: int, kind: str = "any", known: bool = True) -> Any:
    """An axis in normal form that gives at least one output on `size` samples.

    It holds that size where it is `known`, and otherwise None.
    """
    held = size if known else None
    if kind == "pointwise":
        return conv.Axis(held)
    if kind == "pad":
        return conv.Axis(held, pad=(pick(0, 3), pick(0, 3)))
    if kind == "nearest":
        factor = pick(1, 3)
        return conv.Axis(held, factor, upsampling=factor, pad=(factor - 1, factor - 1))
    low = pick(0, min(2, size - 1)) if kind in ("any", "crop") else 0
    high = pick(0, min(2, size - 1 - low)) if kind in ("any", "crop") else 0
    if kind == "crop":
        return conv.Axis(held, crop=(low, high))
    upsampling = pick(1, 3) if kind in ("any", "transposed") else 1
    stride = pick(1, 3) if kind != "transposed" else 1
    dilation = 1 if kind in ("pool", "transposed") else pick(1, 3)
    pad = (pick(0, 3), pick(0, 3)) if kind in ("any", "transposed") else (0, 0)
    room = upsampling * (size - low - high - 1) + 1 + sum(pad)
    taps = pick(1, 4) if kind == "same" else pick(1, min(4, (room - 1) // dilation + 1))
    if kind == "pool":
        stride = taps
    if kind == "same":
        axis = conv.Axis(size, taps, stride, dilation, same=True)
        if known or stride == 1:
            axis = replace(axis, same=False, pad=same_padding(axis, size))
    else:
        axis = conv.Axis(size, taps, stride, dilation, upsampling, (low, high), pad)
    return replace(axis, size=held).tight()


def draw_groups(pick: Pick, inputs: int) -> tuple[int, int]:
    """Groups and output channels for `inputs` channels."""
    groups = [g for g in range(1, inputs + 1) if inputs % g == 0]
    g = groups[pick(0, len(groups) - 1)]
    return g, g * pick(1, 3 if g == 1 else 2 if g <= 2 else 1)


def draw_weights(geometry: Any, seed: int) -> Any:
    """An operator of that geometry with random weights; no weight is near zero."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)

    outputs = geometry.channels[1]
    return conv.Operator(
        geometry,
        weights(*geometry.kernel_shape),
        weights(outputs) if geometry.biased else np.zeros(outputs),
        weights(*geometry.taps, outputs) if geometry.ones else None,
    )


def draw_operator(
    pick: Pick,
    sizes: Sequence[int],
    inputs: int,
    kind: str | None = None,
    known: Sequence[bool] = (True, True, True),
) -> Any:
    """A random operator on images of `sizes`, of a random kind unless told."""
    if kind is None:
        # Half of them of no particular kind; the others so that compositions meet often.
        kind = KINDS[max(0, pick(-len(KINDS) + 2, len(KINDS) - 1))]
    axes = tuple(
        draw_axis(pick, size, kind, is_known) for size, is_known in zip(sizes, known, strict=False)
    )
    if kind in ("pool", "nearest", "pad", "crop"):
        geometry = conv.Geometry(axes, (inputs, inputs), inputs, steady=kind == "nearest")
        value = 1 / math.prod(geometry.taps) if kind == "pool" else 1.0
        return conv.Operator(geometry, np.full(geometry.kernel_shape, value), np.zeros(inputs))
    groups, outputs = draw_groups(pick, inputs)
    ones = kind in ("any", "pointwise") and pick(0, 3) == 0
    geometry = conv.Geometry(axes, (inputs, outputs), groups, pick(0, 1) == 1, ones)
    return draw_weights(geometry, pick(0, 2**31))


def draw_sizes(pick: Pick, rank: int) -> tuple[int, ...]:
    """Sizes of an image."""
    return tuple(pick(1, LARGEST[rank]) for _ in range(rank))


def draw_chain(
    pick: Pick, rank: int, length: int, known: Sequence[bool] = (True, True, True)
) -> tuple[list[Any], tuple[int, ...]]:
    """Operators, each on the output of the one before it, and the size of the image they see."""
    operators: list[Any] = []
    first = sizes = draw_sizes(pick, rank)
    channels = pick(1, 4)
    while len(operators) < length and max(sizes) <= 2 * LARGEST[rank]:
        operators.append(draw_operator(pick, sizes, channels, known=known))
        sizes = output_sizes(at_sizes(operators[-1], sizes))
        channels = operators[-1].geometry.channels[1]
    return operators, first


def draw_window(pick: Pick, size: int, channels: int, seed: int) -> tuple[Any, np.ndarray]:
    """An axis of a normalised operator, and its weights (taps, channels).

    Average pooling 'same', bilinear upsampling, or any positive weights that sum to 1 over
    the samples that a window wholly inside sees, in any place where each window sees one.
    """
    kind = pick(0, 2)
    if kind == 0:
        axis = draw_axis(pick, size, "any")
        phase = np.arange(axis.taps) * axis.dilation % axis.upsampling
        sees = len(set(phase)) == axis.upsampling and all(
            any(sample_read(axis, p, t) is not None for t in range(axis.taps))
            for p in range(output_size(axis))
        )
        if sees:
            weights = np.random.default_rng(seed).uniform(0.5, 1.5, (axis.taps, channels))
            return axis, weights / ((phase[:, None] == phase) @ weights)
    if kind == 1:
        factor = pick(1, 3)
        low = (3 * factor - 2) // 2
        distance = np.arange(2 * factor - factor % 2) - low + (factor - 1) / 2
        axis = conv.Axis(size, len(distance), upsampling=factor, pad=(low, low))
        return axis, np.repeat(1 - np.abs(distance)[:, None] / factor, channels, axis=1)
    axis = conv.Axis(size, pick(1, 4), pick(1, 3))
    axis = replace(axis, pad=same_padding(axis, size)).tight()
    return axis, np.full((axis.taps, channels), 1 / axis.taps)


def draw_normalised(pick: Pick, sizes: Sequence[int], channels: int) -> Any:
    """A random normalised operator."""
    kernel, axes = np.ones((1, channels)), []
    for size in sizes:
        axis, weights = draw_window(pick, size, channels, pick(0, 2**31))
        axes.append(axis)
        kernel = kernel[..., None, :, :] * weights[:, None, :]
    geometry = conv.Geometry(tuple(axes), (channels, channels), channels, normalised=True)
    return conv.Operator(geometry, kernel, np.zeros(channels))


def draw_links(pick: Pick, rank: int, length: int) -> list[Any]:
    """A chain, normalised operators among it."""
    operators: list[Any] = []
    sizes = tuple(pick(1, FRAMED[rank]) for _ in range(rank))
    channels = pick(1, 3)
    while len(operators) < length and max(sizes) <= 2 * FRAMED[rank]:
        draw = draw_normalised if pick(0, 3) == 0 else draw_operator
        operators.append(draw(pick, sizes, channels))
        sizes = output_sizes(operators[-1])
        channels = operators[-1].geometry.channels[1]
    return operators


def draw_box(pick: Pick, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Some of the outputs."""
    box = []
    for size in sizes:
        first = pick(0, size - 1)
        box.append((first, pick(first + 1, size)))
    return tuple(box)


def draw_known(pick: Pick, rank: int) -> list[bool]:
    """Which axes have a known size: mostly none of them."""
    return [pick(0, 4) == 0 for _ in range(rank)]


def draw_sibling_axis(pick: Pick, axis: Any) -> Any:
    """Another window on the same input, of the same stride, upsampling and output size."""
    taps, dilation = pick(1, 4), pick(1, 3)
    crop = axis.crop if pick(0, 3) else (0, 0)
    length = axis.upsampling * (axis.size - sum(crop) - 1) + 1
    reach = axis.stride * (output_size(axis) - 1) + dilation * (taps - 1) + 1
    low = pick(-min(2, length - 1), 3)
    if length + min(low, 0) + min(reach - length - low, 0) < 1:
        return axis
    sibling = replace(
        axis, taps=taps, dilation=dilation, crop=crop, pad=(low, reach - length - low)
    )
    return sibling.tight()


def draw_siblings(pick: Pick, rank: int, count: int, same_outputs: bool) -> list[Any]:
    """Operators on one input whose sum (or whose concatenation) often exists."""
    sizes, inputs = draw_sizes(pick, rank), pick(1, 4)
    first = draw_operator(pick, sizes, inputs)
    siblings = [first]
    for _ in range(count - 1):
        if pick(0, 9) == 0:
            other = draw_operator(pick, sizes, inputs)
            if not same_outputs or other.geometry.channels == first.geometry.channels:
                siblings.append(other)
                continue
        axes = tuple(draw_sibling_axis(pick, axis) for axis in first.geometry.axes)
        groups, outputs = draw_groups(pick, inputs)
        if same_outputs:
            outputs = first.geometry.channels[1]
            groups = groups if outputs % groups == 0 else 1
        geometry = conv.Geometry(axes, (inputs, outputs), groups, pick(0, 1) == 1, pick(0, 3) == 0)
        siblings.append(draw_weights(geometry, pick(0, 2**31)))
    return siblings


def forget_sizes(operator: Any, known: Sequence[bool]) -> Any:
    """`operator` with None for the sizes that are not known; the same padding and cropping."""
    axes = tuple(
        axis if is_known else replace(axis, size=None).tight()
        for axis, is_known in zip(operator.geometry.axes, known, strict=True)
    )
    return replace(operator, geometry=replace(operator.geometry, axes=axes))


def image(operator: Any, seed: int) -> np.ndarray:
    """A random image for `operator`."""
    shape = (*(axis.size for axis in operator.geometry.axes), operator.geometry.channels[0])
    return np.random.default_rng(seed).normal(size=shape)


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


def chain_at_sizes(operators: Sequence[Any], sizes: Sequence[int]) -> list[Any] | None:
    """Operators for unknown sizes, on images of `sizes`; None where a tensor would be empty."""
    concrete = []
    for operator in operators:
        if any(
            axis.size not in (None, n)
            for axis, n in zip(operator.geometry.axes, sizes, strict=True)
        ):
            return None
        concrete.append(at_sizes(operator, sizes))
        if not exists(concrete[-1]):
            return None
        sizes = output_sizes(concrete[-1])
    return concrete


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


CHECKS = (
    check_composition,
    check_composition,
    check_composition,
    check_unknown_size,
    check_unknown_size,
    check_sum,
    check_concatenation,
    check_unknown_siblings,
    check_frame,
)


def run(rank1: int, rank23: int, seed: int) -> Tally:
    """So many random cases; raises `Failure` at the first broken law."""
    tally = Tally()
    for case in range(rank1 + rank23):
        rng = np.random.default_rng((seed, case))
        pick = numpy_pick(rng)
        rank = 1 if case < rank1 else pick(2, 3)
        check = CHECKS[pick(0, len(CHECKS) - 1)]
        try:
            check(tally, pick, rank)
        except Failure as failure:
            raise Failure(f"seed {seed}, case {case}: {failure}") from None
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank1", type=int, default=10_000, metavar="N", help="cases in 1-D")
    parser.add_argument("--rank23", type=int, default=500, metavar="M", help="cases in 2-D and 3-D")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    arguments = parser.parse_args()
    began = time.perf_counter()
    try:
        tally = run(arguments.rank1, arguments.rank23, arguments.seed)
    except Failure as failure:
        print(failure)
        return 1
    print(tally)
    print(
        f"{arguments.rank1} cases in 1-D, {arguments.rank23} in 2-D and 3-D, "
        f"in {time.perf_counter() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
