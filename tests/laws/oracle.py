"""What an operator means, in loops that can be checked against the formula by eye.

`apply` follows the formula at the head of `kerasfold/algebra` one multiplication at a time.
`apply_windows` is the same sum with the loop over output positions left to NumPy slices, for
runs too long for `apply`; the tests hold it against `apply`. A normalised operator divides what
its window sums by the weights that fell on real samples. `apply_endless` is what one kernel for
a whole chain gives. None of them calls any method of the module under test: they read the fields
of its dataclasses, and define every size themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

TOLERANCE = 1e-10

Box = Sequence[tuple[int, int]]
"""[first, last) along each axis."""


def extent(axis: Any) -> int:
    """Positions of the input once it is cropped and spread."""
    return axis.upsampling * (axis.size - axis.crop[0] - axis.crop[1] - 1) + 1


def output_size(axis: Any) -> int:
    """Output samples, from the definition."""
    window = axis.dilation * (axis.taps - 1) + 1
    return math.floor((extent(axis) + axis.pad[0] + axis.pad[1] - window) / axis.stride) + 1


def output_sizes(operator: Any) -> tuple[int, ...]:
    """Output samples along every axis."""
    return tuple(output_size(axis) for axis in operator.geometry.axes)


def sample_read(axis: Any, output: int, tap: int) -> int | None:
    """Which input sample a tap multiplies at an output; None where it reads a zero."""
    position = output * axis.stride + tap * axis.dilation - axis.pad[0]
    if position % axis.upsampling != 0:
        return None
    sample = position // axis.upsampling
    if 0 <= sample < axis.size - axis.crop[0] - axis.crop[1]:
        return axis.crop[0] + sample
    return None


def apply(operator: Any, x: np.ndarray) -> np.ndarray:
    """`operator` on `x`, of shape (*sizes, channels), one output and one tap at a time."""
    geometry = operator.geometry
    axes = geometry.axes
    inputs, outputs = geometry.channels
    assert x.shape == (*(axis.size for axis in axes), inputs), "the input does not fit the operator"
    inputs_per_group, outputs_per_group = inputs // geometry.groups, outputs // geometry.groups
    y = np.zeros((*output_sizes(operator), outputs))
    for p in np.ndindex(*y.shape[:-1]):
        y[p] = operator.bias
        weight = np.zeros(outputs)
        for t in np.ndindex(*(axis.taps for axis in axes)):
            samples = tuple(sample_read(*read) for read in zip(axes, p, t, strict=True))
            if None in samples:
                continue
            weight += operator.kernel[t].sum(axis=0)
            for o in range(outputs):
                first = o // outputs_per_group * inputs_per_group
                for i in range(inputs_per_group):
                    y[(*p, o)] += operator.kernel[(*t, i, o)] * x[(*samples, first + i)]
                if operator.ones is not None:
                    y[(*p, o)] += operator.ones[(*t, o)]
        if geometry.normalised:
            y[p] /= weight
    return y


def apply_windows(operator: Any, x: np.ndarray) -> np.ndarray:
    """The same as `apply`: pad an image with zeros, then add one shifted copy of it per tap."""
    geometry = operator.geometry
    axes = geometry.axes
    inputs, outputs = geometry.channels
    assert x.shape == (*(axis.size for axis in axes), inputs), "the input does not fit the operator"
    sizes = output_sizes(operator)
    image = np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)
    spread_out, real = [], []
    for axis, m in zip(axes, sizes, strict=True):
        reach = (m - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1
        reads = [sample_read(replace(axis, stride=1, dilation=1), q, 0) for q in range(reach)]
        spread_out.append([0 if sample is None else sample for sample in reads])
        real.append([sample is not None for sample in reads])
    padded = image[np.ix_(*spread_out)] * np.expand_dims(_outer(real), -1)
    groups = geometry.groups
    kernel = operator.kernel.reshape(*operator.kernel.shape[:-1], groups, outputs // groups)
    y = np.zeros((*sizes, outputs)) + operator.bias
    weight = np.zeros((*sizes, outputs))
    for t in np.ndindex(*(axis.taps for axis in axes)):
        window = padded[
            tuple(
                slice(
                    tap * axis.dilation,
                    tap * axis.dilation + (m - 1) * axis.stride + 1,
                    axis.stride,
                )
                for tap, axis, m in zip(t, axes, sizes, strict=True)
            )
        ]
        channels = window[..., :-1].reshape(*sizes, groups, inputs // groups, 1)
        y += (channels * np.moveaxis(kernel[t], 0, 1)).sum(axis=-2).reshape(*sizes, outputs)
        if operator.ones is not None:
            y += window[..., -1:] * operator.ones[t]
        weight += window[..., -1:] * operator.kernel[t].sum(axis=0)
    return y / weight if geometry.normalised else y


def apply_links(operators: Sequence[Any], x: np.ndarray) -> np.ndarray:
    """`apply_windows`, one operator after another."""
    for operator in operators:
        x = apply_windows(operator, x)
    return x


def apply_endless(operators: Sequence[Any], x: np.ndarray, box: Box) -> np.ndarray:
    """The outputs in `box` of a chain in which only the first image ends: what one kernel gives.

    Whatever lies beyond an image between two operators, or is cropped there, is what the
    operator before gives at that place, not zero; and every kernel is taken as it stands.
    """
    *before, last = operators
    axes, reads = [], []
    for axis, (first, end) in zip(last.geometry.axes, box, strict=True):
        low = first * axis.stride - axis.pad[0]
        high = (end - 1) * axis.stride - axis.pad[0] + axis.dilation * (axis.taps - 1)
        begin = math.ceil(low / axis.upsampling)
        until = max(math.floor(high / axis.upsampling), begin)
        pad = (begin * axis.upsampling - low, high - until * axis.upsampling)
        axes.append(replace(axis, size=until - begin + 1, crop=(0, 0), pad=pad))
        reads.append((axis.crop[0] + begin, axis.crop[0] + until + 1))
    if before:
        values = apply_endless(before, x, reads)
    else:
        values = np.zeros((*(end - first for first, end in reads), x.shape[-1]))
        for p in np.ndindex(*values.shape[:-1]):
            samples = tuple(i + first for i, (first, _) in zip(p, reads, strict=True))
            if all(
                axis.crop[0] <= i < axis.size - axis.crop[1]
                for i, axis in zip(samples, last.geometry.axes, strict=True)
            ):
                values[p] = x[samples]
    assert last.ones is None, "an image of ones ends where its image does"
    geometry = replace(last.geometry, axes=tuple(axes), normalised=False)
    return apply_windows(replace(last, geometry=geometry), values)


def crop_to(y: np.ndarray, box: Box) -> np.ndarray:
    """The pixels of `y` in `box`."""
    return y[tuple(slice(*pair) for pair in box)]


def samples_read(operators: Sequence[Any], box: Box) -> list[tuple[int, int]] | None:
    """What of the first image the outputs in `box` read; None where some image is not read."""
    for operator in reversed(operators):
        before = []
        for axis, outputs in zip(operator.geometry.axes, box, strict=True):
            reads = [sample_read(axis, p, t) for p in range(*outputs) for t in range(axis.taps)]
            samples = [sample for sample in reads if sample is not None]
            if not samples:
                return None
            before.append((min(samples), max(samples) + 1))
        box = before
    return list(box)


def _outer(masks: Sequence[Sequence[bool]]) -> np.ndarray:
    """1.0 where every axis says so."""
    product = np.ones(())
    for mask in masks:
        product = product[..., None] * np.asarray(mask, dtype="float64")
    return product


def same_padding(axis: Any, size: int) -> tuple[int, int]:
    """Keras's zeros for padding='same': the fewest that give ceil(size / stride) outputs.

    The odd one goes to the far end.
    """
    window = axis.dilation * (axis.taps - 1) + 1
    total = max((math.ceil(size / axis.stride) - 1) * axis.stride + window - size, 0)
    return total // 2, total - total // 2


def at_sizes(operator: Any, sizes: Sequence[int]) -> Any:
    """`operator`, made for images of unknown size, on images of `sizes`."""
    axes = []
    for axis, size in zip(operator.geometry.axes, sizes, strict=True):
        assert axis.size in (None, size), "the operator has another size"
        if axis.same:
            axis = replace(axis, same=False, pad=same_padding(axis, size))
        axes.append(replace(axis, size=size))
    return replace(operator, geometry=replace(operator.geometry, axes=tuple(axes)))


def exists(operator: Any) -> bool:
    """Whether every tensor around the operator has a sample: its cropped input, its output."""
    return all(
        axis.size - axis.crop[0] - axis.crop[1] >= 1 and output_size(axis) >= 1
        for axis in operator.geometry.axes
    )


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, in units of the largest expected value (or of 1)."""
    if actual.shape != expected.shape:
        return math.inf
    if not expected.size:
        return 0.0
    difference = float(np.max(np.abs(actual - expected)))
    return (
        difference / max(1.0, float(np.max(np.abs(expected))))
        if difference == difference
        else math.inf
    )


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal shapes, and equal values to `TOLERANCE`, every border sample included."""
    assert actual.shape == expected.shape, f"output sizes {actual.shape}, expected {expected.shape}"
    worst = error(actual, expected)
    assert worst <= TOLERANCE, f"values differ by {worst:.2e} of their scale"


def assert_well_formed(operator: Any) -> None:
    """What every operator promises beside its values: normal form, and flags that are true."""
    geometry = operator.geometry
    inputs, outputs = geometry.channels
    assert inputs % geometry.groups == outputs % geometry.groups == 0
    for axis in geometry.axes:
        assert axis == axis.tight(), f"not in normal form: {axis}"
        assert min(axis.taps, axis.stride, axis.dilation, axis.upsampling) >= 1
        assert min(axis.crop) >= 0
    if not geometry.biased:
        assert not np.any(operator.bias), "a bias that the geometry denies"
    arrays = [operator.kernel, operator.bias, *([] if operator.ones is None else [operator.ones])]
    assert all(array.dtype == np.float64 for array in arrays)
    if geometry.steady and all(axis.size for axis in geometry.axes) and exists(operator):
        constants = np.arange(1.0, inputs + 1)
        y = apply_windows(
            operator, np.broadcast_to(constants, (*(a.size for a in geometry.axes), inputs))
        )
        assert_close(y, np.broadcast_to(y[(0,) * len(geometry.axes)], y.shape))


def describe(*operators: Any) -> str:
    """Python that builds `operators` again, named a, b, ..., for the report of a failure."""
    np_repr = "np.array({})".format
    lines = ["import numpy as np", "from kerasfold.algebra import *", ""]
    for name, operator in zip("abcdef", operators, strict=False):
        parts = [
            repr(operator.geometry),
            np_repr(operator.kernel.tolist()),
            np_repr(operator.bias.tolist()),
        ]
        if operator.ones is not None:
            parts.append(np_repr(operator.ones.tolist()))
        lines.append(f"{name} = Operator({', '.join(parts)})")
    return "\n".join(lines)
