"""A model's outputs on fixed inputs in a small file, which later builds are held against.

The original is not needed then: the file has its outputs in float64 and as they were, the inputs
or what they are drawn from, and what rounding noise changed. The verdict is that of `verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold import __version__
from kerasfold.backend import full_precision, own_seeds
from kerasfold.equivalence.bounds import (
    coarsest_dtype,
    computed_eps,
    eps_of,
    interpolation_unit,
    stored_eps,
)
from kerasfold.equivalence.compare import Copy, outputs, ran, tallies_of
from kerasfold.equivalence.data import Given
from kerasfold.equivalence.judge import report_of
from kerasfold.equivalence.models import exact_copy, verify
from kerasfold.equivalence.probes import probes
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.equivalence.runs import AsIs, Noise, Ran
from kerasfold.equivalence.state import restarted
from kerasfold.equivalence.tolerance import Tolerance
from kerasfold.errors import FoldError, UnusableError, only_fold_errors, words_of
from kerasfold.options import path_of, require_alone
from kerasfold.paths import check_file, checked_output
from kerasfold.read.model import input_structure, operations
from kerasfold.read.weights import as_dtype, require_double
from kerasfold.replacing import replacing
from kerasfold.unpacking import check_archive

FORMAT = 1
EXTENSION = (".npz",)
SAMPLES = 4  # of each batch of random inputs
LEVELS = 256  # of which a random number is one
SEED = 0

Flat: TypeAlias = list[np.ndarray]  # of one batch, in flat order


@dataclass(frozen=True, eq=False, slots=True)
class _Golden:
    """What a file holds.

    Attributes:
        about: all that is not an array.
        arrays: inputs (if they are the user's) and outputs, by kind, batch and number; effects of
            noise, by kind and number.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def of(self, kind: str, batch: int) -> Flat:
        """The arrays of one kind and batch, such as 'truth'."""
        count = len(self.about["inputs" if kind == "input" else "outputs"])
        return [self.arrays[f"{kind}.{batch}.{i}"] for i in range(count)]

    def batches(self) -> list[Flat]:
        """The inputs.

        Raises:
            UnusableError: they are not those that the outputs are of.
        """
        drawn = self.about["drawn"]
        count = self.about["batches"]
        batches = _drawn(drawn) if drawn else [self.of("input", i) for i in range(count)]
        if _digest(batches) != self.about["digest"]:
            raise UnusableError("its inputs are not those that its outputs were computed of")
        return batches


def write_golden(
    model: keras.Model,
    path: str | os.PathLike[str],
    data: Any = None,
    input_shape: Any = None,
) -> None:
    """Write a model's outputs on fixed inputs, for `check_golden`.

    Args:
        model: the original.
        path: of the file, `.npz`; it is replaced at once, or left as it is.
        data: inputs in place of random ones, as for `kerasfold.verify`: they become part of the
            file. Of random ones it has the seed and the ranges.
        input_shape: of random inputs where sizes are free, as for `kerasfold.verify`.

    Raises:
        FoldError: a model that cannot be verified, or for which nothing can be told by it.
        UnusableError: a file that cannot be written.

    Example:
        >>> from kerasfold.golden import check_golden, write_golden
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> write_golden(model, folder / "release-1.npz")
        >>> check_golden(model, folder / "release-1.npz").equivalent
        True
    """
    if data is not None:
        require_alone("for random inputs, not with data=", input_shape=input_shape)
    target = checked_output(path_of("path", path), EXTENSION)
    with only_fold_errors("write_golden()"):
        drawn = [] if data is not None else _ranges(model, input_shape)
        flat = _drawn(drawn) if drawn else [_plain(batch) for batch in Given(model, data)]
        batches = [_taken(model, batch) for batch in flat]
        report = verify(model, model, iter(batches))
        if not report.equivalent:
            raise FoldError(f"model '{model.name}' is no reference: {report.reason}")
        with own_seeds(), full_precision(), restarted([model], drawn=bool(drawn)):
            about, arrays = _recorded(model, batches)
    about |= {
        "format": FORMAT,
        "kerasfold": __version__,
        "drawn": drawn,
        "digest": _digest(flat),
    }
    if not drawn:
        arrays |= {f"input.{i}.{j}": x for i, batch in enumerate(flat) for j, x in enumerate(batch)}
    with replacing(target) as written:
        named: Any = {"about": np.array(json.dumps(about)), **arrays}
        np.savez_compressed(written, **named)


def check_golden(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    atol: float | None = None,
    rtol: float | None = None,
) -> EquivalenceReport:
    """Compare a model with the one whose outputs are in a file, as `verify` does.

    Never raises on a mere difference.

    Args:
        model: the model that should compute the same, as accurately.
        path: of a file that `write_golden` wrote.
        atol: with `rtol`, the error that is allowed, as for `kerasfold.verify`.
        rtol: see `atol`.

    Raises:
        UnusableError: a file that does not exist, or is not what `write_golden` writes.
        FoldError: a model with inputs or outputs of other number or shape.

    Example:
        >>> from kerasfold.golden import check_golden, write_golden
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> write_golden(model, folder / "model.npz")
        >>> other = keras.models.clone_model(model)  # with weights of its own
        >>> check_golden(other, folder / "model.npz").verdict
        'different'
    """
    name = path_of("path", path)
    check_file(name, EXTENSION)
    if not isinstance(model, keras.Model):
        raise FoldError(f"check_golden() compares a keras.Model. Received: {type(model)}")
    try:
        golden = _read(name)
        batches = golden.batches()
    except Exception as error:
        raise UnusableError(
            f"{name} cannot be read as a golden file ({words_of(error)})"
        ) from error
    for what in ("inputs", "outputs"):
        shapes = [list(x.shape[1:]) for x in getattr(model, what)]
        wanted = [each["shape"][1:] for each in golden.about[what]]
        if shapes != wanted:
            raise FoldError(
                f"model '{model.name}' has {what} of shapes {shapes}, model "
                f"'{golden.about['model']}' of {name} has {wanted}"
            )
    tolerance = Tolerance.of(atol, rtol)
    require_double("check_golden()")
    restart = restarted([model], drawn=bool(golden.about["drawn"]))
    with only_fold_errors("check_golden()"), own_seeds(), full_precision(), restart:
        return _compared(model, golden, [_taken(model, batch) for batch in batches], tolerance)


def _recorded(
    model: keras.Model, batches: Sequence[Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What is kept of a model: in words and numbers, and as arrays."""
    exact, own, tallies = exact_copy(model, batches[0]), AsIs(model), tallies_of(model)
    dtype, unit = _dtype_and_unit(exact)
    own_eps = computed_eps(model)
    before = tallies_of(model)  # of what goes into a last softmax or sigmoid
    arrays: dict[str, np.ndarray] = {}
    for i, batch in enumerate(batches):
        plain, mine = ran(exact, batch), outputs(own, batch)
        noisy = exact.ran(batch, Noise(max(stored_eps(model), unit), unit))
        own_noisy = exact.ran(batch, Noise(own_eps, own_eps))
        for j, tally in enumerate(tallies):
            tally.saw_own(plain.outputs[j], mine[j], mine[j])
            tally.saw_noise(plain.outputs[j], noisy.outputs[j])
            before[j].saw_noise(plain.judged[j], noisy.judged[j])
            tally.saw_own_noise(plain.outputs[j], own_noisy.outputs[j])
            arrays[f"truth.{i}.{j}"] = plain.outputs[j].astype("float64")
            arrays[f"judged.{i}.{j}"] = plain.judged[j].astype("float64")
            arrays[f"own.{i}.{j}"] = _storable(mine[j])
    for j, tally in enumerate(tallies):
        arrays |= {f"effect.{j}": tally.effect, f"effect_before.{j}": before[j].effect}
        arrays[f"own_effect.{j}"] = tally.own_effect
    about = {
        "model": model.name,
        "batches": len(batches),
        "inputs": [{"shape": list(x.shape)} for x in model.inputs],
        "outputs": [
            {"name": t.name, "shape": list(t.shape), "dtype": t.own_dtype, "end": end}
            for t, end in zip(tallies, exact.ends, strict=True)
        ],
        "dtype": dtype,
        "unit": unit,
        "own_eps": own_eps,
    }
    return about, arrays


def _compared(
    model: keras.Model, golden: _Golden, batches: Sequence[Any], tolerance: Tolerance | None
) -> EquivalenceReport:
    """The verdict on a model, on the inputs of a file."""
    alone = tolerance is not None  # then the model's own outputs are all that is judged
    exact, own, tallies = exact_copy(model, batches[0]), AsIs(model), tallies_of(model, alone)
    dtype, unit = _dtype_and_unit(exact)
    unit = max(unit, golden.about["unit"])
    noise = Noise(max(stored_eps(model), unit), unit)
    own_noise = Noise(golden.about["own_eps"], golden.about["own_eps"])
    share = 0.0 if tolerance is None else tolerance.rtol
    ends = zip(exact.ends, golden.about["outputs"], strict=True)
    alike = [not alone and mine == known["end"] != "" for mine, known in ends]
    for i, batch in enumerate(batches):
        plain, mine = ran(exact, batch), outputs(own, batch)
        noisy, own_noisy = exact.ran(batch, noise), exact.ran(batch, own_noise)
        kept = {kind: golden.of(kind, i) for kind in ("truth", "judged", "own")}
        known = Ran(kept["truth"], kept["judged"]).judged_where(alike)
        mine64, noisy64 = plain.judged_where(alike), noisy.judged_where(alike)
        for j, tally in enumerate(tallies):
            tally.saw_copies(known[j], None if alone else mine64[j])
            tally.saw_own(kept["truth"][j], kept["own"][j], mine[j], share)
            tally.saw_noise(mine64[j], noisy64[j])
            tally.saw_own_noise(plain.outputs[j], own_noisy.outputs[j])
    for j, (tally, about) in enumerate(zip(tallies, golden.about["outputs"], strict=True)):
        tally.name, tally.own_dtype = about["name"], about["dtype"]
        effect = golden.arrays[f"effect_before.{j}" if alike[j] else f"effect.{j}"]
        tally.effect = np.maximum(tally.effect, effect)
        tally.own_effect = np.maximum(tally.own_effect, golden.arrays[f"own_effect.{j}"])
    coarser = max(dtype, golden.about["dtype"], key=eps_of)
    own_unit = max(unit, interpolation_unit(operations(model)))
    return report_of(tallies, coarser, unit, own_unit, tolerance, both=not alone)


def _dtype_and_unit(exact: Copy) -> tuple[str, float]:
    """The coarsest dtype of a float64 copy, and the unit that it rounds to."""
    dtype = coarsest_dtype([exact.model])
    return dtype, max(eps_of(dtype), interpolation_unit(exact.operations))


def _ranges(model: keras.Model, input_shape: Any) -> list[list[dict[str, Any]]]:
    """Of what shapes and between which values the random inputs of a model are."""
    specs = tree.flatten(input_structure(model))
    fixed = any(spec.shape[0] is not None for spec in specs)
    return [
        [
            {
                "shape": [len(x) if fixed else min(len(x), SAMPLES), *x.shape[1:]],
                "low": float(np.min(x)),
                "high": float(np.max(x)),
                "integer": "float" not in spec.dtype,
            }
            for x, spec in zip(_plain(batch), specs, strict=True)
        ]
        for batch in probes(model, input_shape).usual
    ]


def _drawn(ranges: Sequence[Sequence[Mapping[str, Any]]]) -> list[Flat]:
    """Random inputs, the same wherever and whenever they are drawn.

    NumPy promises that of the integers of RandomState, and arithmetic is IEEE 754's.
    """

    def draw(batch: int, index: int, wanted: Mapping[str, Any]) -> np.ndarray:
        stream = np.random.RandomState([SEED, batch, index])
        low, high, shape = wanted["low"], wanted["high"], wanted["shape"]
        if wanted["integer"]:
            return stream.randint(int(low), int(high) + 1, shape, "int64")
        return low + (high - low) * (stream.randint(0, LEVELS, shape, "int64") / (LEVELS - 1))

    return [
        [draw(i, j, wanted) for j, wanted in enumerate(batch)] for i, batch in enumerate(ranges)
    ]


def _digest(batches: Sequence[Flat]) -> str:
    """What tells these inputs from others."""
    sha = hashlib.sha256()
    for x in (x for batch in batches for x in batch):
        sha.update(f"{x.shape} {x.dtype}".encode())
        sha.update(np.ascontiguousarray(x).tobytes())
    return sha.hexdigest()


def _taken(model: keras.Model, flat: Flat) -> Any:
    """A batch as a model takes it."""
    structure = input_structure(model)
    specs = tree.flatten(structure)
    typed = [as_dtype(x, spec.dtype) for x, spec in zip(flat, specs, strict=True)]
    return tree.pack_sequence_as(structure, typed)


def _plain(batch: Any) -> Flat:
    return [_storable(np.asarray(x)) for x in tree.flatten(batch)]


def _storable(x: np.ndarray) -> np.ndarray:
    """The same numbers in a dtype that NumPy has: bfloat16 is not one."""
    return x if x.dtype.kind in "fiub" else x.astype("float32")


def _read(name: str) -> _Golden:
    check_archive(name)
    with np.load(name, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    about = json.loads(str(arrays.pop("about")))
    if about["format"] != FORMAT:
        raise UnusableError(
            f"it is of format {about['format']}, written by kerasfold {about['kerasfold']}; "
            f"this one reads format {FORMAT}"
        )
    return _Golden(about, arrays)


__all__ = ["check_golden", "write_golden"]
