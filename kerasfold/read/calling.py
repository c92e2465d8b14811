"""A layer, called on symbolic tensors: its node in the graph, and what it gives."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from kerasfold.read.model import call_parameters, is_keras_own, is_masked


def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What `layer(*args, **kwargs)` gives; at half the time where it has but a shape to tell.

    Most of a symbolic call is spent on masks, scopes, casts and flags. Of a layer of Keras that
    knows the shape of what it gives, on unmasked tensors of the dtype that it takes, nothing comes
    of these: it is built, and its node recorded.
    """
    if not _tells_but_a_shape(layer, args, kwargs):
        return layer(*args, **kwargs)
    if not layer.built:
        layer.build(tree.map_structure(lambda x: tuple(x.shape), args[0]))
    return keras.Operation.symbolic_call(layer, *args)


def _tells_but_a_shape(layer: Any, args: tuple, kwargs: dict) -> bool:
    """Whether nothing is to be told of a call but the shape of what it gives."""
    kind = type(layer)
    return (
        isinstance(layer, keras.Layer)
        and not isinstance(layer, keras.Model)
        and is_keras_own(kind)
        and len(args) == 1
        and not kwargs
        and kind.compute_output_shape is not keras.Layer.compute_output_shape
        and kind.compute_mask in _HANDING_ON
        and not _has_flags(layer)
        and not getattr(layer, "quantization_mode", None)
        and keras.distribution.distribution() is None
        and all(
            isinstance(x, keras.KerasTensor)
            and x.dtype == layer.input_dtype
            and not (x.sparse or x.ragged or is_masked(x))
            for x in tree.flatten(args)
        )
    )


# What masks become, of which there is none where none is given.
_HANDING_ON = (
    *(keras.Layer.compute_mask, keras.layers.Add.compute_mask),
    keras.layers.Concatenate.compute_mask,
)


def _has_flags(layer: keras.Layer) -> bool:
    """Whether Keras writes a flag, or what it finds of a mask, into the node of a call."""
    flags = call_parameters(layer)
    return "mask" in flags or ("training" in flags and flags["training"].default is not None)
