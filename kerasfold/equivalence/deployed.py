"""A deployed model beside the Keras model that it was made of: one more thing that runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.formats import Opened, Port, opened
from kerasfold.equivalence.runs import Arrays
from kerasfold.equivalence.signature import Place, inputs_of, outputs_of
from kerasfold.errors import FoldError, words_of

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """An input or output of a deployed model, and which of its original's that is.

    Attributes:
        port: of the deployed model.
        place: of the original.
        at: the number of the port among those of the file.
    """

    port: Port
    place: Place
    at: int


@dataclass(frozen=True, eq=False, slots=True)
class Deployed:
    """Runs a deployed model on batches of its original's inputs.

    Attributes:
        name: of its file or folder.
        file: what runs.
        inputs: in the original's flat order.
        outputs: in the original's flat order.
        note: in which order they are taken that names did not tell apart, or "".
    """

    name: str
    file: Opened
    inputs: tuple[Match, ...]
    outputs: tuple[Match, ...]
    note: str = ""

    @property
    def input_shape(self) -> list[tuple[int, ...]] | None:
        """Shapes of one input without the batch, in the original's order; None where any is free.

        The original may take others.
        """
        shapes = [match.port.shape[1:] for match in self.inputs]
        fixed = [tuple(n for n in shape if n is not None) for shape in shapes]
        return fixed if fixed == shapes else None

    def __call__(self, batch: Any) -> Arrays:
        """Its outputs in the original's flat order; integers that stand for numbers, as these.

        A file that takes batches of one size is run on parts of that size, the last one filled up.

        Args:
            batch: structured as the original takes it.

        Raises:
            FoldError: sizes that the file does not take, or it does not run.
        """
        flat = [np.asarray(keras.ops.convert_to_numpy(x)) for x in tree.flatten(batch)]
        given = {m.at: self._given(x, m) for x, m in zip(flat, self.inputs, strict=True)}
        arrays = [given[at] for at in range(len(given))]
        count = len(flat[0])
        size = next((p.shape[0] for p in self.file.inputs if p.shape[0]), count)
        parts = [
            self._run([_filled(x[start : start + size], size) for x in arrays])
            for start in range(0, count, size)
        ]
        columns = [np.concatenate(column)[:count] for column in zip(*parts, strict=True)]
        return [_meant(columns[match.at], match) for match in self.outputs]

    def _given(self, x: np.ndarray, match: Match) -> np.ndarray:
        """An input in the dtype of the file: rounded where that is one of less precision."""
        port, name = match.port, match.port.names[0]
        if not _fits(port.shape, x.shape):
            raise FoldError(f"{self.name} takes input '{name}' of {port.shape}, and not {x.shape}")
        if _stands_for_numbers(match):
            limits = np.iinfo(port.dtype)
            steps = np.rint(x / port.scale) + port.zero
            return np.clip(steps, limits.min, limits.max).astype(port.dtype)
        cast = x.astype(port.dtype)
        if cast.dtype.kind in "iub" and not np.array_equal(cast, x):
            raise FoldError(
                f"{self.name} takes input '{name}' as {port.dtype}, which does not hold the "
                f"{match.place.dtype} of input '{match.place.name}'"
            )
        return cast

    def _run(self, arrays: Arrays) -> Arrays:
        size = len(arrays[0])
        try:
            found = self.file.run(arrays)
        except Exception as error:
            shapes = [x.shape for x in arrays]
            raise FoldError(
                f"{self.name} does not run on inputs of {_listed(shapes)} ({words_of(error)})"
            ) from error
        for match in self.outputs:
            shape = found[match.at].shape
            if not _fits(match.place.shape, shape) or shape[0] != size:
                raise FoldError(
                    f"{self.name} gives output '{match.port.names[0]}' of {shape} on a batch of "
                    f"{size}: expected {match.place.shape} of output '{match.place.name}'"
                )
        return found


def deployed(path: str | os.PathLike[str], original: keras.Model) -> Deployed:
    """Open a deployed model, and tell which of its inputs and outputs are which.

    They are matched by the names that a person gave, then by the numbers in names (`output_0`,
    `Identity_1:0`), then by the order in the file; as shapes and dtypes allow.

    Args:
        path: a `.tflite`, `.onnx` or OpenVINO `.xml` file, or the folder of a SavedModel.
        original: what it was made of.

    Raises:
        RuntimeUnavailableError: what runs it is not installed; the message names the extra.
        FoldError: there is none, it cannot be read, or its inputs or outputs are others.
    """
    file, name = opened(path), Path(path).name
    matches: list[tuple[Match, ...]] = []
    notes: list[str] = []
    for what, ports, places in (
        ("inputs", file.inputs, inputs_of(original)),
        ("outputs", file.outputs, outputs_of(original)),
    ):
        found, guessed = _matched(ports, places)
        if len(found) != len(ports):
            raise FoldError(
                f"{name} has {what} of {_listed(p.shape for p in ports)}, which are not those of "
                f"model '{original.name}', of {_listed(p.shape for p in places)}: compare it with "
                "the model that it was exported from, in the same layout"
            )
        matches.append(tuple(found))
        if guessed:
            order = ", ".join(match.port.names[0] for match in found)
            notes.append(f"{what} of {name} are taken in this order, by no names: {order}")
    inputs, outputs = matches
    return Deployed(name, file, inputs, outputs, "; ".join(notes))


def _matched(ports: Sequence[Port], places: Sequence[Place]) -> tuple[list[Match], bool]:
    """A port for each place, and whether others would have done; fewer where none does."""
    if len(ports) != len(places):
        return [], False
    left = _in_order(ports)
    everything = {place.name for place in places} <= {n for p in ports for n in _spellings(p)}
    chosen: dict[int, int] = {}
    for index, place in enumerate(places):
        named = [
            at
            for at in left
            if place.name in _spellings(ports[at]) and _fits(ports[at].shape, place.shape)
        ]
        if named and (everything or not place.counted):
            chosen[index] = named[0]
            left.remove(named[0])
    guessed = False
    for index, place in enumerate(places):
        if index in chosen:
            continue
        fitting = [at for at in left if _fits(ports[at].shape, place.shape)]
        alike = [at for at in fitting if ports[at].dtype == place.dtype] or fitting
        if not alike:
            return [], False
        guessed = guessed or len(alike) > 1
        chosen[index] = alike[0]
        left.remove(alike[0])
    return [Match(ports[chosen[k]], place, chosen[k]) for k, place in enumerate(places)], guessed


_NUMBERED = re.compile(r"(.*?)_?(\d*)(?::(\d+))?$", re.DOTALL)  # output_10, Identity_1:0


def _in_order(ports: Sequence[Port]) -> list[int]:
    """Their numbers in the file: by those in their names, where the names are alike but for them.

    Files have their outputs in alphabetical order, the eleventh before the third, or in none.
    """
    numbers, stems = [], set()
    for port in ports:
        stem, number, tensor = _NUMBERED.findall(port.names[0])[0]
        stems.add(stem)
        numbers.append((int(number or 0), int(tensor or 0)))
    order = list(range(len(ports)))
    return order if len(stems) > 1 else sorted(order, key=numbers.__getitem__)


def _spellings(port: Port) -> set[str]:
    """Its names, without what exporters put around them."""
    return {re.sub(r":\d+$", "", name).removeprefix("serving_default_") for name in port.names}


def _fits(shape: Shape, other: Shape) -> bool:
    """Whether two shapes may be one, batch apart."""
    return len(shape) == len(other) and all(
        n is None or m is None or n == m for n, m in zip(shape[1:], other[1:], strict=True)
    )


def _stands_for_numbers(match: Match) -> bool:
    return match.port.scale != 0 and "int" not in match.place.dtype


def _meant(y: np.ndarray, match: Match) -> np.ndarray:
    if not _stands_for_numbers(match):
        return y
    return (y.astype("float64") - match.port.zero) * match.port.scale


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    """A batch with its last sample repeated."""
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


def _listed(shapes: Iterable[Any]) -> str:
    return " and ".join(map(str, shapes))
