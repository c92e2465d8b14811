"""A model's outputs on fixed inputs in a file, which later builds are held against.

The original is not needed then: the file has its outputs in float64 and as they were, the inputs
or what they are drawn of, and what rounding noise changed. The verdict is that of `verify`, on
inputs drawn of the same. Of most models the file is small; it has 12 bytes of each number of an
output, of some dozen inputs (two where they are large) and of one for each row of a table. Of an
output that is a class, a flag or rounded, it has what that is made of, too, if that is small.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
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
from kerasfold.equivalence.compare import Comparison, outputs, ran, tallies_of
from kerasfold.equivalence.data import Given
from kerasfold.equivalence.models import compared, exact_copy, verify
from kerasfold.equivalence.noise import Noise
from kerasfold.equivalence.probes import Probes, draw, recipes
from kerasfold.equivalence.recipes import Lasting, Written, restored, written
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.equivalence.runs import AsIs, Ran, Runner, Truth, as_is
from kerasfold.equivalence.state import restarted
from kerasfold.equivalence.steps import Step
from kerasfold.equivalence.tally import Tally
from kerasfold.equivalence.tolerance import Tolerance
from kerasfold.errors import FoldError, UnusableError, only_fold_errors, words_of
from kerasfold.options import path_of, require_alone
from kerasfold.paths import check_file, checked_output
from kerasfold.read.model import input_structure
from kerasfold.read.weights import as_dtype, require_double
from kerasfold.replacing import replacing
from kerasfold.unpacking import check_archive

FORMAT = 3
EXTENSION = (".npz",)
SEED = 0
KEPT = 2**14  # numbers of one sample that go into a step, of which no more are kept
LARGE = 10 * 2**20  # bytes of a file that are more than one keeps with its tests

Flat: TypeAlias = list[np.ndarray]  # of one batch, in flat order


@dataclass(frozen=True, eq=False, slots=True)
class _Golden:
    """What a file holds.

    Attributes:
        about: all that is not an array.
        arrays: what inputs are drawn of, or inputs if they are the user's; outputs, and effects of
            noise, by kind, batch and number.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def of(self, kind: str, batch: int) -> Flat:
        """The arrays of one kind and batch, such as 'truth'."""
        count = len(self.about["inputs" if kind == "input" else "outputs"])
        return [self.arrays[f"{kind}.{batch}.{i}"] for i in range(count)]

    def inputs(self) -> Probes:
        """The inputs, in flat order.

        Raises:
            UnusableError: they are not those that the outputs are of.
        """
        drawn, count = self.about["drawn"], len(self.about["inputs"])
        if drawn:
            found = draw(restored(Written(drawn, self.arrays)), [0] * count, Lasting(SEED))
        else:
            found = Probes([self.of("input", i) for i in range(self.about["batches"])], [])
        if _digest(found) != self.about["digest"]:
            raise UnusableError("its inputs are not those that its outputs were computed of")
        return found


class _Kept:
    """The original, as a file has it: what it gave on each batch."""

    def __init__(self, golden: _Golden, batches: Probes) -> None:
        self.about, self._golden, self._batches = golden.about, golden, batches
        self.name = golden.about["model"]
        self.steps = [
            Step(**{name: _tuple(value) for name, value in step.items()})
            for step in golden.about["steps"]
        ]
        self.ends = [output["end"] for output in golden.about["outputs"]]
        everything = (*batches.usual, *batches.loud)
        self._numbers = {id(batch): i for i, batch in enumerate(everything)}

    @property
    def taken(self) -> Probes:
        """The batches that it ran on: of sizes that are drawn, some may be refused in a run."""
        usual = [
            x for i, x in enumerate(self._batches.usual) if f"truth.{i}.0" in self._golden.arrays
        ]
        return Probes(usual, self._batches.loud, self._batches.blank)

    def ran(self, batch: Any, noise: Noise | None = None) -> Ran:
        """See `Truth`."""
        assert noise is None, "what noise makes of each number is not kept"
        truth = self._golden.of("truth", self._numbers[id(batch)])
        ends = enumerate(self.ends)
        before = [self._array("judged", batch, i) if end else truth[i] for i, end in ends]
        stepped = [
            (self._array("into", batch, k), self._array("step", batch, k))
            for k in range(len(self.steps))
        ]
        return Ran(truth, before, stepped)

    def __call__(self, batch: Any) -> Flat:
        """See `Runner`."""
        return self._golden.of("own", self._numbers[id(batch)])

    def effect(self, kind: str, batch: Any, output: int) -> np.ndarray:
        """The largest change that noise made of each line."""
        known = kind != "judged" or self.ends[output]
        return self._array(f"effect.{kind if known else 'truth'}", batch, output)

    def _array(self, kind: str, batch: Any, output: int) -> np.ndarray:
        return self._golden.arrays[f"{kind}.{self._numbers[id(batch)]}.{output}"]


@dataclass(kw_only=True)
class _AgainstFile(Comparison):
    """A model, and what a file has of its original.

    Attributes:
        kept: of the original; `a` is the model, for what both have alike.
    """

    kept: _Kept

    def __post_init__(self) -> None:
        super().__post_init__()
        for tally, about in zip(self.tallies, self.kept.about["outputs"], strict=True):
            tally.name = about["name"]

    @cached_property
    def dtype(self) -> str:
        """See `Comparison`."""
        return max(super().dtype, self.kept.about["dtype"], key=eps_of)

    @cached_property
    def unit(self) -> float:
        """See `Comparison`."""
        units = (interpolation_unit(copy.operations) for copy in self._copies)
        return max(self.dtype_unit, self.kept.about["unit"], *units)

    @cached_property
    def noise(self) -> Noise:
        """See `Comparison`."""
        return Noise(max(stored_eps(self.a), self.kept.about["stored_eps"], self.unit), self.unit)

    @cached_property
    def own_eps(self) -> float:
        """See `Comparison`."""
        return float(self.kept.about["own_eps"])

    @property
    def reference(self) -> Runner:
        """See `Comparison`."""
        return self.kept

    def take_noise(self, copy: Truth, batch: Any, plain: Ran, draw: int = 0) -> None:
        """See `Comparison`; of the golden file's there is one draw."""
        if copy is not self.kept:
            super().take_noise(copy, batch, plain, draw)
            return
        for i, (tally, judged) in enumerate(zip(self.tallies, self.endings, strict=True)):
            tally.felt(self.kept.effect("judged" if judged else "truth", batch, i))
        for each in self.within:
            each.tally.felt(self.kept.effect("into", batch, each.mine))

    def take_own_noise(self, batch: Any, exact: Ran) -> None:
        """See `Comparison`."""
        for i, tally in enumerate(self.tallies):
            tally.felt_own(self.kept.effect("own", batch, i))


def write_golden(
    model: keras.Model,
    path: str | os.PathLike[str],
    data: Any = None,
    input_shape: Any = None,
) -> None:
    """Write a model's outputs on fixed inputs, for `check_golden`; warn of more than 10 MB.

    Args:
        model: the original.
        path: of the file, `.npz`; it is replaced at once, or left as it is.
        data: inputs in place of random ones, as for `kerasfold.verify`: they become part of the
            file. Of random ones it has the seed and what they are drawn of.
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
        if data is None:
            drawn = written(recipes(model, input_shape))
            flat = draw(restored(drawn), [0] * len(model.inputs), Lasting(SEED))
        else:
            drawn = Written([], {})
            flat = Probes([_plain(batch) for batch in Given(model, data)], [])
        batches = _taken(model, flat)
        given = None if data is None else iter(batches)
        report = verify(model, model, given, input_shape)
        if not report.equivalent:
            raise FoldError(f"model '{model.name}' is no reference: {report.reason}")
        with own_seeds(), full_precision(), restarted([model], drawn=data is None):
            about, arrays = _recorded(model, batches)
    about |= {
        "format": FORMAT,
        "kerasfold": __version__,
        "drawn": drawn.words,
        "digest": _digest(flat),
    }
    arrays |= drawn.arrays
    if data is not None:
        inputs = enumerate(flat.usual)
        arrays |= {f"input.{i}.{j}": x for i, batch in inputs for j, x in enumerate(batch)}
    with replacing(target) as temporary:
        named: Any = {"about": np.array(json.dumps(about)), **arrays}
        np.savez_compressed(temporary, **named)
    size = target.stat().st_size
    if size > LARGE:
        warnings.warn(
            f"{target} has {size / 2**20:,.0f} MB: outputs of '{model.name}' are large; smaller or "
            "fewer inputs, as input_shape= or data=, make it smaller",
            stacklevel=2,
        )


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
        inputs = golden.inputs()
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
        kept = _Kept(golden, _taken(model, inputs))
        batches = kept.taken
        found = _AgainstFile(
            a=model,
            b=as_is(model),
            a64=kept,
            b64=None if tolerance is not None else exact_copy(model, batches.usual[0]),
            rounded=True,
            tolerance=tolerance,
            drawn=bool(golden.about["drawn"]),
            kept=kept,
        )
        return compared(found, batches, batches)


def _recorded(model: keras.Model, batches: Probes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What is kept of a model: in words and numbers, and as arrays."""
    exact, own = exact_copy(model, batches.usual[0]), AsIs(model)
    dtype = coarsest_dtype([exact.model])
    unit = max(eps_of(dtype), interpolation_unit(exact.operations))
    stored, own_eps = stored_eps(model), computed_eps(model)
    tallies = tallies_of(model)
    steps = {k: x for k, x in enumerate(exact.steps) if x.answers and x.numbers <= KEPT}
    arrays: dict[str, np.ndarray] = {}
    for i, batch in enumerate((*batches.usual, *batches.loud)):
        try:
            plain = ran(exact, batch)
        except FoldError:  # a further size, that `verify` passes over
            continue
        noisy = exact.ran(batch, Noise(max(stored, unit), unit))
        own_noisy = exact.ran(batch, Noise(own_eps, own_eps))
        for j, (tally, end) in enumerate(zip(tallies, exact.ends, strict=True)):
            truth, moved = plain.outputs[j], tally.moved
            arrays[f"truth.{i}.{j}"] = truth.astype("float64")
            arrays[f"effect.truth.{i}.{j}"] = moved(truth, noisy.outputs[j])
            arrays[f"effect.own.{i}.{j}"] = moved(truth, own_noisy.outputs[j])
            if end:
                arrays[f"judged.{i}.{j}"] = plain.judged[j].astype("float64")
                arrays[f"effect.judged.{i}.{j}"] = moved(plain.judged[j], noisy.judged[j])
        for k, number in enumerate(steps):
            into, gives = plain.stepped[number]
            tally = Tally(name="", shape=steps[number].shape, pixels=())
            arrays[f"into.{i}.{k}"], arrays[f"step.{i}.{k}"] = into, gives
            arrays[f"effect.into.{i}.{k}"] = tally.moved(into, noisy.stepped[number][0])
        if i < len(batches.usual):
            arrays |= {f"own.{i}.{j}": _storable(y) for j, y in enumerate(outputs(own, batch))}
    about = {
        "model": model.name,
        "batches": len(batches.usual),
        "inputs": [{"shape": list(x.shape)} for x in model.inputs],
        "outputs": [
            {"name": t.name, "shape": list(t.shape), "end": end}
            for t, end in zip(tallies, exact.ends, strict=True)
        ],
        "steps": [asdict(step) for step in steps.values()],
        "dtype": dtype,
        "unit": unit,
        "stored_eps": stored,
        "own_eps": own_eps,
    }
    return about, arrays


def _digest(batches: Probes) -> str:
    """What tells these inputs from others."""
    sha = hashlib.sha256()
    for x in (x for batch in (*batches.usual, *batches.loud) for x in batch):
        sha.update(f"{x.shape} {x.dtype}".encode())
        sha.update(np.ascontiguousarray(x).tobytes())
    return sha.hexdigest()


def _taken(model: keras.Model, flat: Probes) -> Probes:
    """Batches as a model takes them."""
    structure = input_structure(model)
    specs = tree.flatten(structure)

    def taken(batch: Flat) -> Any:
        pairs = zip(batch, specs, strict=True)
        typed = [x if x.dtype.kind == "U" else as_dtype(x, spec.dtype) for x, spec in pairs]
        return tree.pack_sequence_as(structure, typed)

    return Probes(list(map(taken, flat.usual)), list(map(taken, flat.loud)), flat.blank)


def _tuple(value: Any) -> Any:
    """A list of JSON as what it was."""
    return tuple(value) if isinstance(value, list) else value


def _plain(batch: Any) -> Flat:
    return [_storable(np.asarray(x)) for x in tree.flatten(batch)]


def _storable(x: np.ndarray) -> np.ndarray:
    """The same in a dtype that NumPy has: bfloat16 is not one, and objects are words."""
    if x.dtype.kind in "fiubU":
        return x
    return x.astype(str if x.dtype.kind in "OS" else "float32")


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
