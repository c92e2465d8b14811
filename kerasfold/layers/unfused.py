"""Sums that TensorFlow's graphs would fuse with an activation, and compute wrongly.

On a CPU, with oneDNN, a graph computes a biased convolution, a sum of two and the activation
after it by one kernel. That takes the slope of every LeakyReLU for 0.2, and has no Mish, for which
it stops. Called eagerly, or under XLA, the same model is right. A difference is not fused so, and
x + y is x - (-y) to the bit: the convolution gives its negative, which is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras

from kerasfold.layers.names import Names
from kerasfold.read.copies import called_copy
from kerasfold.read.model import inputs_of, is_keras_own, is_of_keras, made_by, public_op

_FUSED_SLOPE = 0.2
_NEGATED = {
    keras.layers.Conv2D: ("kernel", "bias"),
    keras.layers.Conv3D: ("kernel", "bias"),
    keras.layers.SeparableConv2D: ("pointwise_kernel", "bias"),
}


def is_miscomputed(activation: Any) -> bool:
    """Whether an activation may be fused into another one: also where it is not Keras's own.

    Args:
        activation: a function, a layer, an operation, or None.
    """
    if isinstance(activation, keras.layers.Activation):
        return is_miscomputed(activation.activation)
    if isinstance(activation, keras.layers.LeakyReLU) or _op(activation) is keras.ops.leaky_relu:
        return float(activation.negative_slope) != _FUSED_SLOPE
    if isinstance(activation, keras.layers.ReLU):
        return float(activation.negative_slope) not in (0.0, _FUSED_SLOPE)
    if isinstance(activation, keras.Operation):
        # Mish is found in x tanh(softplus(x)) as well.
        return _op(activation) is keras.ops.softplus or not is_of_keras(activation)
    if activation in (keras.activations.mish, keras.activations.softplus):
        return True
    return activation is not None and not is_keras_own(activation)


def fused_summand(
    value: keras.KerasTensor, alone: Callable[[keras.KerasTensor], bool]
) -> keras.KerasTensor | None:
    """The convolution that would be fused with a sum and what reads that; None if none would.

    Args:
        value: what the activation reads.
        alone: of a summand, whether nothing else reads it, so that it may be another.
    """
    maker = made_by(value)
    if not (isinstance(maker, keras.layers.Add) or _op(maker) is keras.ops.add):
        return None
    parts = inputs_of(value)
    if len(parts) != 2 or parts[0] is parts[1]:
        return None
    return next((x for x in parts if _is_biased(made_by(x)) and alone(x)), None)


def as_difference(
    value: keras.KerasTensor,
    summand: keras.KerasTensor,
    name: str,
    names: Names,
    made: dict[Hashable, Any],
) -> keras.KerasTensor:
    """A sum as the other summand less the negative of one, which is a convolution.

    Args:
        value: the sum.
        summand: the convolution.
        name: of the layer that subtracts.
        names: of the model, for that of the negative.
        made: layers of the model that several calls share.
    """
    source, total = made_by(summand), made_by(value)
    (other,) = (x for x in inputs_of(value) if x is not summand)
    key = ("negated", source)
    if key not in made:
        made[key] = _negated(source, names.reserve(f"{source.name}_negated"), inputs_of(summand))
    negative = made[key](*inputs_of(summand))
    policy = total.dtype_policy if isinstance(total, keras.Layer) else value.dtype
    return keras.layers.Subtract(name=name, dtype=policy)([other, negative])


def _negated(layer: Any, name: str, inputs: Sequence[keras.KerasTensor]) -> keras.Layer:
    copied, _ = called_copy(layer, name, None, tuple(inputs), {})
    for attribute in _NEGATED[type(layer)]:
        variable = getattr(copied, attribute)
        variable.assign(-variable.value)
    return copied


def _op(activation: Any) -> Any:
    return public_op(type(activation)) if isinstance(activation, keras.Operation) else None


def _is_biased(operation: keras.Operation) -> bool:
    return (
        type(operation) in _NEGATED
        and operation.use_bias
        and getattr(operation, "groups", 1) == 1
        and operation.activation is keras.activations.linear
    )
