"""What callers of a model rely on beside its function."""

from __future__ import annotations

import keras

from kerasfold.errors import FoldError, UnsupportedModelError


def refuse_other_shapes(a: keras.Model, b: keras.Model) -> None:
    """Refuse models that cannot be compared.

    Raises:
        UnsupportedModelError: a model that is subclassed, or not built.
        FoldError: inputs or outputs of other number or shape, batch apart.
    """
    for model in (a, b):
        if not getattr(model, "inputs", None):
            raise UnsupportedModelError(
                f"model '{model.name}' of class {type(model).__name__} has no symbolic inputs: "
                "verify() compares functional and Sequential models"
            )
    for what in ("inputs", "outputs"):
        shapes = [[tuple(x.shape[1:]) for x in getattr(model, what)] for model in (a, b)]
        if shapes[0] != shapes[1]:
            raise FoldError(
                f"models '{a.name}' and '{b.name}' have {what} of different shapes: "
                f"{shapes[0]} and {shapes[1]}"
            )
