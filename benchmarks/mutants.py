"""Models that have a fault, and whether any input shows it.

`mutants` plants each kind of fault in one place of a model, drawn by a seed. `shown_by_inputs`
looks for an input that shows it beyond rounding: what none shows, no verification need find.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from faults import (
    OF_LAYERS,
    OF_MODELS,
    OF_WEIGHTS,
    Array,
    Change,
    Random,
    WeightFault,
    leaves,
    remade,
)
from keras import ops
from verified import Verified

ENOUGH = 30.0  # times the rounding of both models
UNITS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
TRIED = (  # counts, scales and offsets of random inputs
    (8, 1.0, 0.0),
    (8, 128.0, 128.0),
    (1, 1.0, 0.0),
    (8, 1e3, 0.0),
    (8, 1e5, 0.0),
    (8, 1e-2, 0.0),
    (64, 4.0, 0.0),
)
FREE = ((32, 32), (33, 33), (17, 30), (8, 8))  # image sizes


class Mutant(NamedTuple):
    """A model with a fault.

    Attributes:
        kind: what is wrong.
        place: the layer that has it, or what of the whole model.
        model: the model.
        is_signature: whether it computes the same, and callers break all the same.
    """

    kind: str
    place: str
    model: keras.Model
    is_signature: bool = False


KINDS = (*OF_WEIGHTS, *OF_LAYERS, *OF_MODELS)


def mutants(
    model: keras.Model, entry: Verified, seed: int, kinds: Container[str] = KINDS
) -> Iterator[Mutant]:
    """One mutant of each kind that a model can have, in a place drawn for the kind."""
    for number, kind in enumerate(KINDS):
        if kind in kinds:
            yield from itertools.islice(_wrong(model, entry, kind, [seed, number]), 1)


def _wrong(model: keras.Model, entry: Verified, kind: str, seed: list[int]) -> Iterator[Mutant]:
    if kind in OF_WEIGHTS:
        yield from _weights_wrong(model, kind, OF_WEIGHTS[kind], seed)
    elif kind in OF_LAYERS:
        yield from _layers_wrong(model, kind, OF_LAYERS[kind], seed)
    else:
        for place, wrong in OF_MODELS[kind](model, entry):
            yield Mutant(kind, place, wrong, is_signature=True)


def _in_any_order(model: keras.Model, random: Random) -> list[int]:
    """Numbers of its leaves."""
    return [int(i) for i in random.permutation(len(list(leaves(model))))]


def _weights_wrong(
    model: keras.Model, kind: str, fault: WeightFault, seed: list[int]
) -> Iterator[Mutant]:
    random = np.random.default_rng(seed)
    each = list(leaves(model))
    for number in _in_any_order(model, random):
        before = {w.name: ops.convert_to_numpy(w) for w in each[number].weights}
        after = {name: value.copy() for name, value in before.items()}
        try:
            fault(after, random, each[number])
        except KeyError:
            continue
        if all(np.array_equal(before[name], value) for name, value in after.items()):
            continue
        copy = remade(model, {})
        for name, weight in {w.name: w for w in list(leaves(copy))[number].weights}.items():
            weight.assign(after[name])
        yield Mutant(kind, each[number].name, copy)


def _layers_wrong(
    model: keras.Model, kind: str, change: Change, seed: list[int]
) -> Iterator[Mutant]:
    each = list(leaves(model))
    for number in _in_any_order(model, np.random.default_rng(seed)):
        layer = each[number]
        try:
            change(layer)
        except (KeyError, AttributeError):
            continue
        try:
            yield Mutant(kind, layer.name, remade(model, {id(layer): change}))
        except ValueError:  # such as branches of different widths, swapped
            continue


# The oracle.


def in_float64(model: keras.Model) -> keras.Model:
    """The same model in float64, from its inputs on."""
    config = json.dumps(keras.saving.serialize_keras_object(model))
    for name in ("mixed_float16", "mixed_bfloat16", "float32", "float16", "bfloat16"):
        config = config.replace(f'"{name}"', '"float64"')
    copy = keras.saving.deserialize_keras_object(json.loads(config), safe_mode=False)
    copy.set_weights(model.get_weights())
    return copy


def drawn(x: Any, size: tuple[int, ...], tried: tuple[int, float, float], entry: Verified) -> Array:
    """A batch for one input: every row of a table many times, or random numbers."""
    count, scale, shift = tried
    random = np.random.default_rng([count, *size])
    free = iter(size)
    shape = [next(free) if n is None else n for n in x.shape[1:]]
    if x.name in entry.rows:
        count = count if count == 1 else 64 * count
        return random.integers(0, entry.rows[x.name], (count, *shape))
    return (random.normal(size=(count, *shape)) * scale + shift).astype(x.dtype)


def inputs_to_try(model: keras.Model, entry: Verified) -> Iterator[Any]:
    """Batches of all sizes and scales, in the model's structure."""
    is_free = any(None in x.shape[1:] for x in model.inputs)
    for size, tried in itertools.product(FREE if is_free else ((),), TRIED):
        yield keras.tree.map_structure(
            lambda x, size=size, tried=tried: drawn(x, size, tried, entry), model.input
        )


def shown_by_inputs(model: keras.Model, mutant: keras.Model, entry: Verified) -> bool:
    """Whether some input, of those tried, tells the two apart by more than they round."""
    exact, wrong = in_float64(model), in_float64(mutant)
    unit = max(UNITS[x.dtype] for x in model.outputs)
    for batch in inputs_to_try(model, entry):
        runs = [_flat(each, batch) for each in (model, mutant, exact, wrong)]
        for a, b, a64, b64 in zip(*runs, strict=True):
            if np.isnan(a64).any() != np.isnan(b64).any():
                return True
            with np.errstate(all="ignore"):
                own = np.abs(a - a64) + np.abs(b - b64) + 4 * unit * np.abs(a64)
                usual = np.median(own, tuple(range(own.ndim - 1)), keepdims=True)
                rounding = np.maximum(own, usual) + np.finfo("float32").tiny
                if (np.abs(a64 - b64) > ENOUGH * rounding).any():
                    return True
    return False


def _flat(model: keras.Model, batch: Any) -> list[Array]:
    outputs = keras.tree.flatten(model(batch, training=False))
    return [ops.convert_to_numpy(ops.cast(y, "float64")) for y in outputs]
