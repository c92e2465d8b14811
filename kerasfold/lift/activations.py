"""The laws of activations: what may change places with which of them, in one table.

A law is of mathematics, for all finite numbers. Each activation states its own, by its function
(of `keras.activations` or `keras.ops`) or the class of its layer; of what stands nowhere here,
nothing is known. `obeys` adds those of a user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from keras import Layer, Operation, activations, layers, ops

from kerasfold.errors import FoldError
from kerasfold.options import require_flags
from kerasfold.read.model import public_op
from kerasfold.read.weights import as_array

Kind = TypeVar("Kind", bound=Any)


@dataclass(frozen=True, slots=True)
class Laws:
    """What holds of an activation f.

    Attributes:
        pointwise: each sample of f(x) is one function of the sample of x at its place, the same
            at every place: whatever moves, selects or repeats samples passes it.
        positively_homogeneous: f(g x) = g f(x) for every g > 0, of each channel its own.
        monotone: f(x) <= f(y) where x <= y: it passes a maximum.
        odd: f(-x) = -f(x), of each channel by itself.
        idempotent: f(f(x)) = f(x).
    """

    pointwise: bool = True
    positively_homogeneous: bool = False
    monotone: bool = False
    odd: bool = False
    idempotent: bool = False

    def passes(self, gain: np.ndarray) -> np.ndarray:
        """Of each gain of a channel, whether f(gain x) = gain f(x)."""
        size = np.abs(gain)
        known = (size > 0) if self.positively_homogeneous else (size == 1)
        return known & ((gain > 0) | self.odd)


def name_of(activation: Any) -> str:
    """What a function, or a layer that serves as one, is called."""
    return str(getattr(activation, "__name__", type(activation).__name__))


UNKNOWN = Laws(pointwise=False)
LINEAR = Laws(positively_homogeneous=True, monotone=True, odd=True, idempotent=True)
_RECTIFIES = Laws(positively_homogeneous=True, monotone=True, idempotent=True)
_MAXIMUM = Laws(pointwise=False, positively_homogeneous=True, monotone=True)


def _relu(f: Any) -> Laws:
    """Of f(x) = x from a threshold on, up to a largest value; a slope before it."""
    slope, low, high = float(f.negative_slope), float(f.threshold), f.max_value
    return Laws(
        positively_homogeneous=low == 0 and high is None,
        monotone=slope >= 0 and 0 <= low <= (np.inf if high is None else high),
        idempotent=slope == 0 and 0 <= low <= (np.inf if high is None else high),
    )


def _leaky_relu(f: Any) -> Laws:
    return Laws(positively_homogeneous=True, monotone=f.negative_slope >= 0)


def _prelu(f: Any) -> Laws:
    slopes = getattr(f, "alpha", None)  # none before it is built
    rises = slopes is not None and bool(np.all(as_array(slopes) >= 0))
    return Laws(pointwise=False, positively_homogeneous=True, monotone=rises)


def _elu(f: Any) -> Laws:
    return Laws(monotone=f.alpha > 0)


def _squareplus(f: Any) -> Laws:
    return Laws(monotone=f.b >= 0)


def _clip(f: Any) -> Laws:
    numbers = all(isinstance(x, (int, float)) for x in (f.x_min, f.x_max))
    clips = numbers and f.x_min <= f.x_max
    return Laws(pointwise=numbers, monotone=clips, idempotent=clips)


def _threshold(f: Any) -> Laws:
    return Laws(monotone=f.default_value <= f.threshold, idempotent=True)


def _soft_shrink(f: Any) -> Laws:
    return Laws(monotone=f.threshold >= 0, odd=f.threshold >= 0)


def _hard_shrink(f: Any) -> Laws:
    return Laws(monotone=True, odd=True, idempotent=True)


# fmt: off
_ALWAYS: tuple[tuple[Laws, tuple[Any, ...]], ...] = (
    (LINEAR, (activations.linear,)),
    (_RECTIFIES, (activations.relu, ops.relu)),
    (Laws(monotone=True, idempotent=True), (activations.relu6, ops.relu6, ops.floor, ops.ceil)),
    (Laws(positively_homogeneous=True, idempotent=True), (ops.abs, ops.absolute)),
    (Laws(positively_homogeneous=True, monotone=True), (activations.leaky_relu,)),
    (Laws(monotone=True, odd=True, idempotent=True), (
        activations.hard_tanh, ops.hard_tanh, activations.hard_shrink, ops.sign, ops.round,
        ops.trunc,
    )),
    (Laws(monotone=True, odd=True), (
        activations.tanh, ops.tanh, activations.softsign, ops.softsign, activations.tanh_shrink,
        ops.tanh_shrink, activations.soft_shrink, ops.cbrt, ops.arctan, ops.sinh, ops.arcsinh,
        ops.erf,
    )),
    (Laws(monotone=True), (
        activations.sigmoid, ops.sigmoid, activations.hard_sigmoid, ops.hard_sigmoid,
        activations.log_sigmoid, ops.log_sigmoid, activations.sparse_sigmoid, ops.sparse_sigmoid,
        activations.softplus, ops.softplus, activations.sparse_plus, ops.sparse_plus,
        activations.squareplus, activations.exponential, ops.exp, ops.exp2, ops.expm1,
        activations.elu, activations.selu, ops.selu, activations.celu,
    )),
    (Laws(positively_homogeneous=True, odd=True), (ops.negative,)),
    (Laws(odd=True), (ops.sin, ops.tan, ops.reciprocal)),
    (Laws(), (
        activations.gelu, ops.gelu, activations.silu, ops.silu, ops.swish, activations.mish,
        activations.hard_silu, ops.hard_silu, ops.hard_swish, ops.square,
        ops.sqrt, ops.rsqrt, ops.log, ops.log1p, ops.log2, ops.log10, ops.cos,
        ops.arcsin, ops.arccos, ops.cosh, ops.arccosh, ops.arctanh, ops.cast, ops.logical_not,
    )),
    (_MAXIMUM, (
        layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, ops.max_pool,
        layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D,
    )),
)
# fmt: on
_TABLE: dict[Any, Laws | Callable[[Any], Laws]] = {
    **{kind: laws for laws, kinds in _ALWAYS for kind in kinds},
    layers.Activation: lambda f: laws_of(f.activation),
    layers.ReLU: _relu,
    layers.LeakyReLU: _leaky_relu,
    ops.leaky_relu: _leaky_relu,
    layers.PReLU: _prelu,
    layers.ELU: _elu,
    ops.elu: _elu,
    ops.celu: _elu,
    ops.squareplus: _squareplus,
    ops.clip: _clip,
    ops.threshold: _threshold,
    ops.soft_shrink: _soft_shrink,
    ops.hard_shrink: _hard_shrink,
}
_OWN = frozenset(_TABLE)


def laws_of(activation: Any) -> Laws:
    """The laws of what a layer has for its activation, or of what a call is of.

    Args:
        activation: a function, a layer, an operation, or None, which is linear.
    """
    if activation is None:
        return LINEAR
    is_made = isinstance(activation, Operation)
    try:
        found = _TABLE.get(_kind(activation), UNKNOWN)
    except TypeError:  # an object that is called, and has no hash
        return UNKNOWN
    if isinstance(found, Laws):
        return found
    return found(activation) if is_made else Laws()  # a function says nothing of its defaults


def _kind(activation: Any) -> Any:
    """What the laws of an activation are found by."""
    if isinstance(activation, Layer):
        return type(activation)
    return public_op(type(activation)) if isinstance(activation, Operation) else activation


def acts_on_samples(activation: Any) -> bool:
    """Whether an activation acts on each sample by itself, on all alike; None does."""
    return laws_of(activation).pointwise


def obeys(
    *,
    pointwise: bool = True,
    positively_homogeneous: bool = False,
    monotone: bool = False,
    odd: bool = False,
    idempotent: bool = False,
) -> Callable[[Kind], Kind]:
    """State the laws of an activation of your own: a function, or the class of a layer.

    What a law lets pass is moved to where it costs less. `kerasfold.testing.check_laws` holds
    them against random numbers; a fold that is wrong by one is refused when it is verified.

    Args:
        pointwise: each sample of f(x) is one function of the sample at its place, the same at
            every place and in every channel.
        positively_homogeneous: f(g x) = g f(x) for every g > 0, of each channel its own.
        monotone: f(x) <= f(y) where x <= y.
        odd: f(-x) = -f(x), of each channel by itself.
        idempotent: f(f(x)) = f(x).

    Returns:
        A decorator, which gives back what it is given. A class is matched exactly, never a
        subclass.

    Raises:
        FoldError: a law that is neither True nor False, an activation of Keras, whose laws are
            known, or what is neither a function nor a class of layers.

    Example:
        >>> @kerasfold.obeys(positively_homogeneous=True, monotone=True)
        ... def leaky(x):
        ...     return keras.ops.maximum(x, 0.1 * x)
        >>> from kerasfold.testing import check_laws
        >>> check_laws(leaky)
    """
    require_flags(
        pointwise=pointwise,
        positively_homogeneous=positively_homogeneous,
        monotone=monotone,
        odd=odd,
        idempotent=idempotent,
    )
    laws = Laws(pointwise, positively_homogeneous, monotone, odd, idempotent)

    def register(kind: Kind) -> Kind:
        is_class = isinstance(kind, type)
        if is_class != (is_class and issubclass(kind, Layer)) or not callable(kind):
            raise FoldError(f"obeys() takes a function, or a class of layers. Received: {kind!r}")
        if kind in _OWN:
            raise FoldError(f"the laws of {kind.__name__} are known: they are Keras's own")
        _TABLE[kind] = laws
        return kind

    return register
