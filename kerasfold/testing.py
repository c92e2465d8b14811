"""The property tests of a lift rule and of an activation's laws, for anyone who states them.

`check_lift(layer, input_shape)` runs the rule, evaluates what it wrote with the slow and
obvious loops below, in float64, and compares with what the layer itself computes.
`check_laws(activation)` holds what is stated of an activation against random numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.algebra.axis import Axis
from kerasfold.algebra.operator import Operator
from kerasfold.equivalence.models import original_in_precision
from kerasfold.equivalence.runs import Walk
from kerasfold.equivalence.sizes import FREE_SIZES
from kerasfold.errors import FoldError, words_of
from kerasfold.layers.spelling import padded_axis
from kerasfold.lift.activations import UNKNOWN, laws_of
from kerasfold.lift.program import Node, Program
from kerasfold.lift.regions import Regions, lift
from kerasfold.read.graph import read
from kerasfold.read.model import interpolates, sublayers

_SIGNS = (0.45, 0.1, 0.45)  # how often a number is below, at and above zero
DRAWN = 11  # samples along the first axis, where it is unknown

__all__ = ["apply", "check_laws", "check_lift", "run"]


def check_lift(
    layer: keras.Layer,
    input_shape: tuple[int | None, ...] | Sequence[tuple[int | None, ...]],
    seed: int = 0,
) -> None:
    """Assert that a layer's lift rule computes what the layer computes.

    The weights are drawn at random (variances positive), so that no term hides behind a zero.

    Args:
        layer: a layer whose class has a rule; its weights are replaced.
        input_shape: shape of one input, without the batch: (*sizes, channels), with None for
            sizes that the rule is not to know; a list of them for a layer that is called on a
            list.
        seed: of the random weights and inputs.

    Raises:
        AssertionError: no rule, a refusal, or another result; with the layer, the shapes
            and the largest difference.
        FoldError: what is no layer, or a shape that it does not take.

    Example:
        >>> from kerasfold.testing import check_lift
        >>> check_lift(keras.layers.Conv2D(4, 3), input_shape=(8, 8, 3))
    """
    if not isinstance(layer, keras.layers.Layer):
        raise FoldError(f"check_lift() takes a keras.layers.Layer. Received: {type(layer)}")
    try:
        rng = np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise FoldError(f"seed={seed!r}: expected a whole number, 0 or more") from error
    try:
        several = any(isinstance(shape, (tuple, list)) for shape in input_shape)
        shapes: Any = input_shape if several else [input_shape]
        inputs: Any = [keras.Input(shape) for shape in shapes]
        inputs = inputs if several else inputs[0]
        model = keras.Model(inputs, layer(inputs))
    except (TypeError, ValueError) as error:
        raise FoldError(
            f"layer '{layer.name}' takes no inputs of input_shape={input_shape!r} "
            f"({words_of(error)}): give the shape of one without the batch, or a list of shapes"
        ) from error
    for variable in layer.weights:
        if "float" in variable.dtype:
            values = rng.uniform(0.2, 1.5, variable.shape)
            positive = "variance" in variable.name
            variable.assign(
                values if positive else values * rng.choice([-1.0, 1.0], variable.shape)
            )
    for sublayer in sublayers(layer):
        if isinstance(sublayer, keras.layers.Normalization):
            sublayer.finalize_state()
    regions = lift(read(model))
    reasons = [
        regions.barriers[call.index]
        for call in regions.graph.calls
        if call.index in regions.barriers
    ]
    assert not reasons, (
        f"layer '{layer.name}' of class {type(layer).__name__} is not lifted: {reasons[0]}"
    )
    exact, dtype = in_precision(regions)
    xs = [rng.normal(size=(2, *_sizes(shape))) for shape in shapes]
    (want,) = exact(xs)
    first = regions.graph.layout == "channels_first"
    given = {
        tensor.index: np.moveaxis(x, 1, -1) if first else x
        for tensor, x in zip(tree.flatten(regions.graph.inputs), xs, strict=True)
    }
    (record,) = (*regions.lifted.values(), *regions.identities)
    got = np.stack(
        [
            run(regions.program, {k: given[t.index][i] for k, t in regions.roots.items()})[
                record.node
            ]
            for i in (0, 1)
        ]
    )
    if record.activation is not None:
        got = keras.ops.convert_to_numpy(record.activation(keras.ops.convert_to_tensor(got)))
    got = np.moveaxis(got, -1, 1) if first and got.ndim > 2 else got
    assert got.shape == want.shape, (
        f"layer '{layer.name}' on inputs of shape {input_shape}: its rule gives outputs of shape "
        f"{got.shape[1:]}, the layer {want.shape[1:]}"
    )
    scale = np.max(np.abs(want), initial=0.0)
    missed = np.max(np.abs(got - want), initial=0.0)
    # TensorFlow interpolates in float32 whatever it is given.
    coarse = dtype != "float64" or interpolates(layer)
    bound = (1e-4 if coarse else 1e-10) * scale
    assert missed <= bound, (
        f"layer '{layer.name}' on inputs of shape {input_shape}: its rule differs from the layer "
        f"by {missed:.3g}, with outputs up to {scale:.3g}"
    )


def check_laws(activation: Any, input_shape: Sequence[int] = (5, 4, 3), seed: int = 0) -> None:
    """Assert that an activation obeys the laws that are stated of it, on random numbers.

    They are of all sizes from 1e-3 to 1e3 and of both signs, zeros among them; computed in
    float64, where the activation does.

    Args:
        activation: a function, or a layer.
        input_shape: shape of one input, without the batch, channels last.
        seed: of the random inputs.

    Raises:
        AssertionError: a law that does not hold, with the largest difference.
        FoldError: an activation of which no law is stated.

    Example:
        >>> from kerasfold.testing import check_laws
        >>> check_laws(keras.activations.relu)
        >>> check_laws(keras.layers.LeakyReLU(0.2))
    """
    laws = laws_of(activation)
    if laws == UNKNOWN:
        raise FoldError(f"no law of {activation!r} is stated: decorate it with kerasfold.obeys")
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return 10.0 ** rng.uniform(-3, 3, shape) * rng.choice([-1.0, 0.0, 1.0], shape, p=_SIGNS)

    def f(x: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(activation(_given(activation, x))), "float64")

    x, y = drawn(16, *input_shape), drawn(16, *input_shape)
    gain = np.abs(drawn(input_shape[-1])) + 1e-3
    low, high, given = f(np.minimum(x, y)), f(np.maximum(x, y)), f(x)
    order = rng.permutation(x.size)
    same = given.shape == x.shape
    moved = f(x.ravel()[order].reshape(x.shape)).ravel() if same else given
    sides: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        "pointwise": lambda: (moved, given.ravel()[order] if same else x),
        "positively_homogeneous": lambda: (f(gain * x), gain * given),
        "monotone": lambda: (np.maximum(low, high), high),
        "odd": lambda: (f(-x), -given),
        "idempotent": lambda: (f(given), given),
    }
    for law, both in sides.items():
        if not getattr(laws, law):
            continue
        is_so, should = both()
        assert is_so.shape == should.shape, (
            f"{activation!r} is not {law}: it gives {given.shape[1:]} of {input_shape}"
        )
        with np.errstate(invalid="ignore"):  # of what is infinite, if it is so on both sides
            missed = np.where(is_so == should, 0.0, np.abs(is_so - should))
        scale = np.where(np.isfinite(should), np.abs(should), 0.0)
        coarse = 1e-10 if _computes_double(activation) else 1e-4
        wrong = missed > coarse * np.maximum(scale, 1e-3)
        assert not np.any(wrong), (
            f"{activation!r} is not {law}: it differs by up to {np.max(missed):.3g}"
        )


def _sizes(shape: Sequence[int | None]) -> list[int]:
    """A shape with sizes for those that are unknown, an odd one and an even one."""
    return [DRAWN - axis if n is None else n for axis, n in enumerate(shape)]


def _computes_double(activation: Any) -> bool:
    return not isinstance(activation, keras.Layer) or activation.compute_dtype == "float64"


def _given(activation: Any, x: np.ndarray) -> Any:
    """Numbers as an activation takes them, which as a layer casts them by itself."""
    dtype = "float64" if _computes_double(activation) else activation.compute_dtype
    return keras.ops.convert_to_tensor(x, dtype=dtype)


def run(program: Program, roots: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Evaluate every node of a program on one image per root, (*sizes, channels)."""
    values = dict(roots)
    for node in program.nodes:
        if node.index not in values:
            values[node.index] = _evaluate(node, [values[o] for o in node.operands])
    return values


def _evaluate(node: Node, xs: list[np.ndarray]) -> np.ndarray:
    if node.op == "operator":
        assert node.load is not None
        return apply(node.load(), xs[0])
    if node.op == "sum":
        return np.sum([factor * x for factor, x in zip(node.factors, xs, strict=True)], axis=0)
    if node.op == "concatenate":
        return np.concatenate(xs, axis=-1)
    if node.op == "scale":
        assert node.load is not None is not node.rearrangement
        seen = node.rearrangement.at(xs[0].shape)
        return seen.inverse.applied(apply(node.load(), seen.applied(xs[0])))
    if node.rearrangement is not None:
        return node.rearrangement.applied(xs[0])
    raise ValueError(f"a root of the program without a value: {node}")


def apply(operator: Operator, x: np.ndarray) -> np.ndarray:
    """An operator on one image (*sizes, channels): a loop over taps, straight from the formula.

    Returns:
        The output, (*sizes, channels), or (channels,) where the operator gives a vector.
    """
    geometry = operator.geometry
    axes = [
        padded_axis(Axis(n, a.taps, a.stride, a.dilation), "same")
        if a.same
        else Axis(n, a.taps, a.stride, a.dilation, a.upsampling, a.crop, a.pad)
        for n, a in zip(x.shape, geometry.axes, strict=False)
    ]
    spread = _spread(x, axes)
    ones = _spread(np.ones((*x.shape[:-1], 1)), axes)[..., 0]
    sizes = [(n - a.span) // a.stride + 1 for n, a in zip(spread.shape, axes, strict=False)]
    inputs, outputs = geometry.channels
    per_in, per_out = inputs // geometry.groups, outputs // geometry.groups
    y = np.zeros((*sizes, outputs))
    inside = np.zeros((*sizes, outputs))  # weight of each window that falls inside the image
    for tap in itertools.product(*(range(a.taps) for a in axes)):
        window = tuple(
            slice(t * a.dilation, t * a.dilation + (m - 1) * a.stride + 1, a.stride)
            for t, a, m in zip(tap, axes, sizes, strict=True)
        )
        for group in range(geometry.groups):
            i, o = (
                slice(group * per_in, (group + 1) * per_in),
                slice(group * per_out, (group + 1) * per_out),
            )
            y[..., o] += spread[(*window, i)] @ operator.kernel[tap][:, o]
            inside[..., o] += ones[window][..., None] * operator.kernel[tap][:, o].sum(axis=0)
        if operator.ones is not None:
            y += ones[window][..., None] * operator.ones[tap]
    y = (y / inside if geometry.normalised else y) + operator.bias
    return y.reshape(outputs) if geometry.vector else y


def _spread(x: np.ndarray, axes: list[Axis]) -> np.ndarray:
    """`x` cropped, with zeros between its samples and around it."""
    for d, a in enumerate(axes):
        x = np.moveaxis(x, d, 0)
        x = x[a.crop[0] : len(x) - a.crop[1]]
        wide = np.zeros(((len(x) - 1) * a.upsampling + 1, *x.shape[1:]))
        wide[:: a.upsampling] = x
        lo, hi = a.pad
        wide = np.pad(wide, [(max(lo, 0), max(hi, 0))] + [(0, 0)] * (x.ndim - 1))
        wide = wide[max(-lo, 0) : len(wide) - max(-hi, 0)]
        x = np.moveaxis(wide, 0, d)
    return x


def in_precision(regions: Regions) -> tuple[Walk, str | None]:
    """The original model in the highest precision that it runs in, and that precision."""
    inputs = [
        np.zeros([FREE_SIZES[0] if n is None else n for n in layer.batch_shape[1:]])[None]
        for layer in regions.graph.input_layers
    ]
    return original_in_precision(regions, tree.pack_sequence_as(regions.graph.inputs, inputs))
