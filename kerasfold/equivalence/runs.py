"""Running models on batches of inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.backend import device, unsaid
from kerasfold.errors import FoldError, words_of
from kerasfold.read.model import input_structure

Arrays: TypeAlias = list[np.ndarray]


@dataclass(frozen=True, eq=False, slots=True)
class Ran:
    """A model, inputs, and what it gives on them, so that no model runs twice on the same.

    Attributes:
        model: the model.
        batches: the inputs.
        outputs: in flat order, the batches stacked.
    """

    model: keras.Model
    batches: list[Any]
    outputs: Arrays


def run(model: keras.Model, batches: Iterable[Any]) -> Arrays:
    """Outputs in flat order, the batches stacked."""
    parts = []
    specs = input_structure(model)
    for batch in batches:
        flat = zip(tree.flatten(batch), tree.flatten(specs), strict=True)
        typed = tree.pack_sequence_as(
            specs, [keras.ops.convert_to_tensor(x, dtype=spec.dtype) for x, spec in flat]
        )
        # A nested model called with another structure was reported when it was built.
        with unsaid("The structure of `inputs`"), keras.StatelessScope():
            outputs = tree.flatten(model(typed, training=False))
        parts.append([keras.ops.convert_to_numpy(y) for y in outputs])
    same = all(p[i].shape[1:] == parts[0][i].shape[1:] for p in parts for i in range(len(parts[0])))
    if same:
        columns = zip(*parts, strict=True)
        return [np.concatenate([np.atleast_1d(y) for y in column]) for column in columns]
    # Images of several sizes: one flat row per input.
    return [
        np.concatenate([c.reshape(-1) for c in column])[None] for column in zip(*parts, strict=True)
    ]


def ran(model: keras.Model, batches: list[Any]) -> Ran:
    """Run a model that may not run here. Raises `FoldError`."""
    try:
        return Ran(model, batches, run(model, batches))
    except Exception as error:
        raise FoldError(
            f"model '{model.name}' does not run on {device()}, where it was to be compared "
            f"({words_of(error)}): pass verify=False, and compare where it does run"
        ) from error
