"""What lift rules are written on: a tensor of images whose methods record affine steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from kerasfold.algebra.axis import Axis, Pair, Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.algebra.rearranged import scale_of_samples
from kerasfold.layers.spelling import nearest_axis, padded_axis, per_axis, transposed_axis
from kerasfold.lift.program import Node, Op, Program, Sizes, Weights, Work, triangle, weights
from kerasfold.read.weights import as_array


@dataclass(frozen=True, eq=False, slots=True)
class Signal:
    """A batch of images while a lift rule runs: what layers are described on.

    Attributes:
        program: where steps are recorded.
        node: the node this signal is.
        layout: 'channels_last' or 'channels_first', of the Keras tensor behind it.

    Example:
        >>> from kerasfold.testing import check_lift
        >>> @kerasfold.lifts(keras.layers.ZeroPadding2D, override=True)
        ... def zero_padding(layer, x: kerasfold.Signal) -> kerasfold.Signal:
        ...     return x.pad(layer.padding)
        >>> check_lift(keras.layers.ZeroPadding2D(1), input_shape=(8, 8, 3))
    """

    program: Program
    node: Node
    layout: str

    __array_ufunc__: ClassVar[None] = None  # array + signal is the signal's business

    @property
    def sizes(self) -> Sizes:
        """Samples along each spatial axis, None where unknown."""
        return self.node.sizes

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.node.channels

    @property
    def rank(self) -> int:
        """Number of spatial axes; 0 for a batch of vectors."""
        return len(self.node.sizes)

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the Keras tensor, batch included."""
        return 1 if self.layout == "channels_first" else self.rank + 1

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the Keras tensor, without the batch."""
        if self.layout == "channels_first":
            return (self.channels, *self.sizes)
        return (*self.sizes, self.channels)

    def _then(
        self, op: Op, operands: tuple[int, ...], sizes: Sizes, channels: int, **rest: Any
    ) -> Signal:
        node = self.program.append(op, operands, sizes, channels, **rest)
        return Signal(self.program, node, self.layout)

    def apply(
        self,
        geometry: Geometry,
        load: Callable[[], Operator],
        work: Work = "product",
        **rest: Any,
    ) -> Signal:
        """The signal after an operator, whose weights `load` reads; `rest`: see `Node`."""
        return self._then(
            "operator",
            (self.node.index,),
            () if geometry.vector else geometry.sizes,
            geometry.channels[1],
            geometry=geometry,
            load=load,
            work=work,
            **rest,
        )

    def convolve(
        self,
        kernel: Any,
        bias: Any = None,
        *,
        strides: Any = 1,
        padding: str | Sequence[Pair] = "valid",
        dilation: Any = 1,
        groups: int = 1,
        weightless: bool = False,
    ) -> Signal:
        """Cross-correlate with a kernel, then add a bias: `keras.ops.conv`.

        Args:
            kernel: (*taps, channels / groups, outputs): a variable, an array or `Weights`.
            bias: (outputs,), or None.
            strides: per axis or one for all.
            padding: 'valid', 'same', 'causal' (one axis), or zeros (low, high) per axis.
            dilation: `dilation_rate`, per axis or one for all.
            groups: `feature_group_count`.
            weightless: whether the kernel is constant and costs no multiplications.

        Raises:
            Refused: an image smaller than the kernel.
        """
        work: Work = "pool" if weightless else "product"
        return self._correlate(kernel, bias, strides, padding, dilation, groups, work)

    def matrix(self, kernel: Any, bias: Any = None) -> Signal:
        """Multiply the channels by a matrix (channels, outputs), then add a bias: as Dense does."""
        shape = (*(1,) * self.rank, *kernel.shape)
        return self._correlate(weights(kernel).reshape(*shape), bias, work="matrix")

    def _correlate(
        self,
        kernel: Any,
        bias: Any = None,
        strides: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        work: Work = "product",
        **rest: Any,
    ) -> Signal:
        """See `convolve`; `work` is what is done, `rest` what else the node has."""
        kernel, rank = weights(kernel), self.rank
        *taps, _, outputs = kernel.shape
        steps, spacings = per_axis(strides, rank), per_axis(dilation, rank)
        axes = tuple(
            padded_axis(Axis(n, k, s, r), padding if isinstance(padding, str) else padding[d])
            for d, (n, k, s, r) in enumerate(zip(self.sizes, taps, steps, spacings, strict=True))
        )
        offset = np.zeros(outputs) if bias is None else as_array(bias)
        geometry = Geometry(axes, (self.channels, outputs), groups, bool(np.any(offset)))
        if geometry.kernel_shape != kernel.shape:
            raise ValueError(
                f"a kernel of shape {kernel.shape} does not fit {self.channels} channels in "
                f"{groups} group(s): expected {geometry.kernel_shape}"
            )

        def load() -> Operator:
            return Operator(geometry, kernel.read(), offset)

        return self.apply(geometry, load, work, kernel=kernel, bias=offset, **rest)

    def scale(self, gain: Any = 1.0, shift: Any = 0.0) -> Signal:
        """Multiply by `gain`, then add `shift`.

        Args:
            gain: a number, one for each channel, or an array of the axes (*sizes, channels), of
                one sample along those that it does not vary along.
            shift: the same.

        Raises:
            Refused: numbers that are not finite, or arrays that broadcast the image.
        """
        given = [np.asarray(x, dtype="float64") for x in (gain, shift)]
        if not all(np.all(np.isfinite(x)) for x in given):
            raise Refused("its scale or its shift is not finite")
        image = (*self.sizes, self.channels)
        shapes = [(1,) * (len(image) - x.ndim) + x.shape for x in given]
        for shape in shapes:
            if len(shape) > len(image) or any(
                n not in (1, m) for n, m in zip(shape, image, strict=True)
            ):
                raise Refused(f"a constant of shape {shape} on images of {image}")
        if np.all(given[0] == 1) and not np.any(given[1]):
            return self
        varied = [i for i in range(len(image)) if any(shape[i] > 1 for shape in shapes)]
        if varied in ([], [self.rank]):
            gain, shift = (np.broadcast_to(x.ravel(), (self.channels,)) for x in given)
            kernel = gain.reshape((1,) * self.rank + (1, self.channels))
            work: Work = "shift" if np.all(gain == 1) else "scale"
            return self._correlate(kernel, shift, groups=self.channels, work=work)
        scale, seen = scale_of_samples(image, varied, *map(np.reshape, given, shapes))
        return self._then(
            "scale",
            (self.node.index,),
            self.sizes,
            self.channels,
            geometry=scale.geometry,
            load=lambda: scale,
            rearrangement=seen,
            work="shift" if np.all(scale.kernel == 1.0) else "scale",
        )

    def average(self, pool: Any, *, strides: Any, padding: str = "valid") -> Signal:
        """Mean over windows of `pool` samples: `keras.ops.average_pool`.

        A window of padding='same' that reaches beyond the image averages what is there: a
        normalised operator.
        """
        pool, strides = per_axis(pool, self.rank), per_axis(strides, self.rank)
        if set(pool + strides) == {1}:
            return self
        axes = tuple(
            padded_axis(Axis(n, k, s), padding)
            for n, k, s in zip(self.sizes, pool, strides, strict=True)
        )
        return self._normalised(axes, lambda: np.full(pool, 1 / math.prod(pool)))

    def _normalised(self, axes: tuple[Axis, ...], window: Callable[[], np.ndarray]) -> Signal:
        """Every channel through one window, (*taps,), that may be cut off at the border."""
        reaches = any(axis.reaches_out for axis in axes)
        geometry = Geometry(axes, (self.channels,) * 2, self.channels, normalised=reaches)

        def load() -> Operator:
            kernel = np.broadcast_to(window()[..., None, None], geometry.kernel_shape)
            return Operator(geometry, kernel, np.zeros(self.channels))

        return self.apply(geometry, load, "pool", mean=True)

    def pad(self, padding: Sequence[Pair]) -> Signal:
        """Add zeros (low, high) along each axis."""
        return self._resize([Axis(n, pad=(lo, hi)) for n, (lo, hi) in self._along(padding)])

    def crop(self, cropping: Sequence[Pair]) -> Signal:
        """Drop samples (low, high) along each axis."""
        return self._resize([Axis(n, crop=(lo, hi)) for n, (lo, hi) in self._along(cropping)])

    def _along(self, pairs: Sequence[Pair]) -> list[tuple[int | None, Pair]]:
        return list(zip(self.sizes, pairs, strict=True))

    def _resize(self, axes: Sequence[Axis]) -> Signal:
        geometry = Geometry(tuple(axes), (self.channels,) * 2, self.channels)
        if geometry.is_pointwise:
            return self
        ones = Operator(geometry, np.ones(geometry.kernel_shape), np.zeros(self.channels))
        return self.apply(geometry, lambda: ones, "copy")

    def global_average(self, keepdims: bool = False) -> Signal:
        """Mean over the whole image; a vector, or an image of one pixel."""
        sizes = self._known("global pooling")
        shape = (*sizes, 1, self.channels)
        geometry = Geometry(
            tuple(Axis(n, taps=n) for n in sizes),
            (self.channels,) * 2,
            self.channels,
            vector=not keepdims,
        )

        def load() -> Operator:
            return Operator(geometry, np.full(shape, 1 / math.prod(sizes)), np.zeros(self.channels))

        return self.apply(geometry, load, "pool", mean=True)

    def flatten(self) -> Signal:
        """The image as one vector, channels fastest."""
        image = (*self._known("flattening"), self.channels)
        return self._rearranged(Rearrangement.reshape(image, [math.prod(image)]))

    def reshape(self, shape: Sequence[int | None]) -> Signal:
        """The samples of the Keras tensor in their order, in another shape without the batch.

        Args:
            shape: with None for at most one axis, where the size of the image is unknown.
        """
        return self._of_tensor(Rearrangement.reshape(self.shape, shape))

    def permute(self, axes: Sequence[int]) -> Signal:
        """The axes of the Keras tensor in another order, counted without the batch."""
        return self._of_tensor(Rearrangement.permutation(self.shape, axes))

    def _of_tensor(self, r: Rearrangement) -> Signal:
        return self._rearranged(r.channels_at(0, -1) if self.layout == "channels_first" else r)

    def _rearranged(self, r: Rearrangement) -> Signal:
        *sizes, channels = r.target
        if channels is None:
            raise Refused("its number of channels is unknown")
        if r.is_identity:
            return self
        read = (self.node.index,)
        return self._then("rearrange", read, tuple(sizes), channels, rearrangement=r)

    def upsample(self, factors: Any) -> Signal:
        """Repeat each pixel: nearest upsampling."""
        factors = per_axis(factors, self.rank)
        if set(factors) == {1}:
            return self
        axes = tuple(map(nearest_axis, self.sizes, factors))
        geometry = Geometry(axes, (self.channels,) * 2, self.channels, steady=True)

        def load() -> Operator:
            return Operator(geometry, np.ones(geometry.kernel_shape), np.zeros(self.channels))

        return self.apply(geometry, load, "copy", mean=True)

    def interpolate(self, factors: Any) -> Signal:
        """Bilinear upsampling with half-pixel centres: a triangular window, normalised.

        A window that reaches beyond the image sees one sample of it and gives that sample,
        which is what clamping gives.
        """
        factors = per_axis(factors, self.rank)
        windows = [triangle(f) for f in factors]
        axes = tuple(
            Axis(n, taps=len(w), upsampling=f, pad=((3 * f - 2) // 2,) * 2)
            for n, f, w in zip(self.sizes, factors, windows, strict=True)
        )
        return self._normalised(axes, lambda: functools.reduce(np.multiply.outer, windows))

    def convolve_transpose(
        self,
        kernel: Any,
        bias: Any = None,
        *,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        dilation: Any = 1,
    ) -> Signal:
        """Transposed convolution: `keras.ops.conv_transpose`.

        Args:
            kernel: (*taps, outputs, channels).
            bias: (outputs,), or None.
            strides: upsampling factors.
            padding: 'valid' or 'same'.
            output_padding: None, or samples added at the high end.
            dilation: spacing of the taps.
        """
        kernel = weights(kernel)
        *taps, outputs, _ = kernel.shape
        rank = self.rank
        extra = (None,) * rank if output_padding is None else per_axis(output_padding, rank)
        windows = zip(
            self.sizes,
            taps,
            per_axis(strides, rank),
            per_axis(dilation, rank),
            extra,
            strict=True,
        )
        axes = tuple(transposed_axis(n, k, s, r, padding, e) for n, k, s, r, e in windows)
        offset = np.zeros(outputs) if bias is None else as_array(bias)
        geometry = Geometry(axes, (self.channels, outputs), 1, bool(np.any(offset)))

        flipped = Weights(
            geometry.kernel_shape,
            lambda: np.flip(kernel.stored(), axis=tuple(range(rank))).swapaxes(-1, -2),
        )

        def load() -> Operator:
            return Operator(geometry, flipped.read(), offset)

        return self.apply(geometry, load, kernel=flipped)

    def take(self, channels: slice | Sequence[int]) -> Signal:
        """The channels that a slice selects, or those of a list, in its order."""
        chosen = list(range(self.channels)[channels] if isinstance(channels, slice) else channels)
        if not chosen:
            raise Refused("a selection without channels")
        if chosen == list(range(self.channels)):
            return self
        kernel = Weights.selecting(self.rank, self.channels, chosen)
        return self._correlate(kernel, work="copy", selected=tuple(chosen))

    def subsample(self, strides: Sequence[int]) -> Signal:
        """Every so many-th pixel along each axis, the first included."""
        if set(strides) <= {1}:
            return self
        ones = np.ones((*(1,) * (self.rank + 1), self.channels))
        return self._correlate(ones, strides=strides, groups=self.channels, work="copy")

    def _known(self, what: str) -> tuple[int, ...]:
        sizes = tuple(n for n in self.sizes if n is not None)
        if len(sizes) < self.rank:
            raise Refused(f"{what} at an unknown image size: give the model's Input a fixed size")
        return sizes

    def __add__(self, other: Any) -> Signal:
        if isinstance(other, Signal):
            return weighted_sum([self, other])
        return self.scale(shift=other)

    __radd__ = __add__

    def __neg__(self) -> Signal:
        return self.scale(-1.0)

    def __sub__(self, other: Any) -> Signal:
        if isinstance(other, Signal):
            return weighted_sum([self, other], [1.0, -1.0])
        return self.scale(shift=-np.asarray(other))

    def __rsub__(self, other: Any) -> Signal:
        return self.scale(-1.0, other)

    def __mul__(self, other: Any) -> Signal:
        if isinstance(other, Signal):
            raise Refused("a product of two tensors is not linear")
        return self.scale(other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Signal:
        if isinstance(other, Signal):
            raise Refused("a quotient of two tensors is not linear")
        with np.errstate(divide="ignore"):
            return self.scale(1.0 / np.asarray(other, dtype="float64"))


def weighted_sum(terms: Sequence[Signal], factors: Sequence[float] | None = None) -> Signal:
    """Sum of signals of one shape, each times a number.

    Example:
        >>> @kerasfold.lifts(keras.layers.Average, override=True)
        ... def average(layer, xs):
        ...     return kerasfold.weighted_sum(xs, [1 / len(xs)] * len(xs))
    """
    first = terms[0]
    factors = tuple(factors) if factors is not None else (1.0,) * len(terms)
    require_signals(terms)
    for term in terms[1:]:
        if (term.sizes, term.channels) != (first.sizes, first.channels):
            raise Refused(
                f"a sum that broadcasts: {term.sizes} x {term.channels} channels against "
                f"{first.sizes} x {first.channels}"
            )
    total = first.program.totals([term.node for term in terms], factors)
    if 0.0 in total.values():
        factors = tuple(total.values())
        terms = [replace(first, node=node) for node in total]
    operands = tuple(term.node.index for term in terms)
    return first._then("sum", operands, first.sizes, first.channels, factors=factors)


def require_signals(signals: Sequence[Signal]) -> None:
    """Refuse what is no tensor of the model. Raises `Refused`."""
    if any(not isinstance(s, Signal) for s in signals):
        raise Refused("an operand that is not a tensor of the model")
