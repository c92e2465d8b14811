"""The softmax or sigmoid that an output ends in: behind it, what differs may no longer show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasfold.read.inside import Made
from kerasfold.read.model import is_of_keras, public_op

_FUNCTIONS = {
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.ops.softmax: "softmax",
    keras.ops.sigmoid: "sigmoid",
}
_KERNELS = ("kernel", "depthwise_kernel")  # of layers that apply their activation last


@dataclass(frozen=True, slots=True)
class Ending:
    """A call whose last step is a softmax or a sigmoid.

    Attributes:
        inline: whether that is the activation of a layer that does more.
        axis: of a softmax; None of a sigmoid.
    """

    inline: bool
    axis: int | tuple[int, ...] | None

    def __str__(self) -> str:
        return "sigmoid" if self.axis is None else f"softmax along axis {self.axis}"

    def run(self, operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What goes into that step, and what the call gives."""
        if not self.inline:
            return args[0], operation(*args, **kwargs)
        activation = operation.activation
        operation.activation = keras.activations.linear
        try:
            before = operation(*args, **kwargs)
        finally:
            operation.activation = activation
        return before, activation(before)

    def centred(self, before: np.ndarray) -> np.ndarray:
        """Logits; of a softmax, which a common shift does not change, against the largest."""
        before = np.asarray(before, "float64")
        if self.axis is None:
            return before
        largest = np.max(before, axis=self.axis, keepdims=True, initial=-np.inf)
        with np.errstate(over="ignore"):
            return before - np.where(np.isfinite(largest), largest, 0.0)


def ending_of(made: Made) -> Ending | None:
    """What a call ends in, if that is a softmax or a sigmoid, of one tensor and no mask."""
    operation: Any = made.operation
    if not is_of_keras(operation) or len(made.outputs) > 1 or len(made.args) != 1:
        return None
    function = getattr(operation, "activation", None) or public_op(type(operation))
    if isinstance(operation, keras.layers.Softmax):
        return None if made.kwargs.get("mask") is not None else Ending(False, operation.axis)
    try:
        kind = _FUNCTIONS.get(function)
    except TypeError:  # an activation that is no function
        return None
    if kind is None:
        return None
    inline = any(isinstance(getattr(operation, name, None), keras.Variable) for name in _KERNELS)
    alone = isinstance(operation, keras.layers.Activation) or not isinstance(operation, keras.Layer)
    if not inline and not alone:
        return None
    axis = getattr(operation, "axis", -1) if kind == "softmax" else None
    return Ending(inline, -1 if inline and kind == "softmax" else axis)
