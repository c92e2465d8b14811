"""Two models, or a fold and its original, and the float64 copies that are the truth."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import keras
import numpy as np
from keras import tree

from kerasfold.backend import full_precision, held, own_seeds
from kerasfold.compose import Compose
from kerasfold.emit import copy, emit
from kerasfold.equivalence.agreement import Agreement
from kerasfold.equivalence.bounds import SINGLE, eps_of, noise_share, tolerated_share
from kerasfold.equivalence.compare import Comparison, Copy, outputs
from kerasfold.equivalence.culprit import first_difference, unsteady
from kerasfold.equivalence.data import Given
from kerasfold.equivalence.deployed import deployed
from kerasfold.equivalence.judge import judged, off_copies, overflowing
from kerasfold.equivalence.noise import Noise
from kerasfold.equivalence.probes import KINDS, USUAL, Probes, probes
from kerasfold.equivalence.replicas import Replicas
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.equivalence.runs import AsIs, Runner, Walk, as_is
from kerasfold.equivalence.signature import (
    Difference,
    differences,
    refuse_other_shapes,
    with_signature,
)
from kerasfold.equivalence.state import restarted
from kerasfold.equivalence.tolerance import Tolerance
from kerasfold.errors import FoldError, only_fold_errors
from kerasfold.forms.form import AnyForm
from kerasfold.lift.regions import Regions, lifted
from kerasfold.options import how_to_read, require_alone, require_flags
from kerasfold.read.copies import NeverRan
from kerasfold.read.model import input_structure, output_labels, variables_of
from kerasfold.read.weights import require_double, require_values

T = TypeVar("T")

UNSTEADY = 1e-2  # of its bound, that a difference is at least of what is drawn anew in each run


def verify(
    a: keras.Model,
    b: keras.Model | str | os.PathLike[str],
    data: Any = None,
    input_shape: Any = None,
    *,
    labels: Any = None,
    strict_signature: bool = True,
    atol: float | None = None,
    rtol: float | None = None,
    strategy: Any = None,
) -> EquivalenceReport:
    """Compare two models: the same function, and is `b` as accurate as `a`?

    Never raises on a mere difference. Stateful recurrent layers start alike in both, whatever they
    have seen: from drawn states where inputs are drawn, else from zeros.

    Args:
        a: the reference.
        b: the model that should compute the same; or the path of what was deployed of it: a
            `.tflite`, `.onnx` or OpenVINO `.xml` file, or the folder of a SavedModel. Of that the
            second question alone is asked.
        data: optional inputs in place of random ones: an array (n, ...), a structure of
            arrays as the model takes it or by input names, or batches of them
            (`tf.data.Dataset`, `keras.utils.PyDataset`, an iterator). Of pairs `(x, y)`, `y` are
            labels; of one pair of arrays, as `labels` says. Inputs with NaN or infinity are left
            out, and the report says how many.
        input_shape: where inputs are random and sizes free: the shape of one without the batch, or
            a structure of shapes as the model takes its inputs.
        labels: the classes of `data`: whole numbers (n,) or one-hot rows, an array, or one for
            each output in order or by name.
        strict_signature: whether it is a failure, and not only noted, that callers of `a` could not
            call `b`: other dtypes, structure or keys, a fixed batch, a name that is missing.
        atol: with `rtol`, the error that is allowed in place of the measured bounds:
            |b - truth| <= atol + rtol * |truth|, the truth being `a` in float64. Random inputs are
            then of the usual size; on large ones two Keras models may differ by as much in
            proportion, some times over.
        rtol: see `atol`; either is 0 where the other alone is given.
        strategy: a `tf.distribute` strategy of one or several devices to run `data` on, batch by
            batch in turn. Of several workers (MultiWorkerMirroredStrategy), all call `verify`,
            each with `data` of its own, and all get the verdict on all of it.

    Returns:
        An `EquivalenceReport`.

    Raises:
        FoldError: models whose inputs or outputs differ in number or shape, or data or labels that
            do not fit them.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="scores")])
        >>> other = keras.models.clone_model(model)  # with weights of its own
        >>> kerasfold.verify(model, other).verdict
        'different'
        >>> other.set_weights(model.get_weights())
        >>> kerasfold.verify(model, other).equivalent
        True
    """
    require_values("verify()")
    require_double("verify()")
    if not isinstance(a, keras.Model):
        raise FoldError(
            f"verify() compares with a keras.Model. Received: {type(a)}{how_to_read(a)}"
        )
    require_flags(strict_signature=strict_signature)
    if data is not None:
        require_alone("for random inputs, not with data=", input_shape=input_shape)
    if labels is not None and data is None:
        raise FoldError("labels= are those of data=: give both")
    if strategy is not None and data is None:
        raise FoldError("strategy= spreads data=: pass inputs as data=")
    if strategy is not None and not isinstance(b, keras.Model):
        raise FoldError(
            "strategy= is for two Keras models: a deployed one has a runtime of its own"
        )
    tolerance = Tolerance.of(atol, rtol)
    models = [model for model in (a, b) if isinstance(model, keras.Model)]
    weights = [v for model in models for v in variables_of(model)]
    restart = restarted(models, drawn=data is None and len(models) == 2)
    with only_fold_errors("verify()"), own_seeds(), full_precision(), held(weights), restart:
        other = _other(a, b)
        # A tolerance goes with inputs of the usual size, which integers of 8 bits may end at.
        kinds = KINDS if tolerance is None else USUAL
        shape = other.input_shape if input_shape is None else input_shape
        source = probes(a, shape, kinds, other.model) if data is None else Given(a, data, labels)
        twin = other.model if tolerance is None else None  # with a copy in float64

        def unseen(first: Any) -> Comparison:
            return Comparison(
                a=a,
                b=other.runner(),
                a64=exact_copy(a, first),
                b64=None if twin is None else exact_copy(twin, first),
                rounded=True,
                tolerance=tolerance,
                drawn=data is None,
                kinds=len(kinds) if data is None else 1,
            )

        if strategy is not None and isinstance(source, Given):
            report = _spread(Replicas(strategy), unseen, source, output_labels(a))
        else:
            first, batches = _peeked(source)
            report = compared(unseen(first), batches, source)
        return with_signature(report, other.signature, strict_signature)


@dataclass(frozen=True, slots=True)
class _Other:
    """What a model is compared with.

    Attributes:
        model: itself; None of what was deployed.
        runner: makes what runs it.
        input_shape: that it takes alone, or None.
        signature: how it differs from the first model's.
    """

    model: keras.Model | None
    runner: Callable[[], Runner]
    input_shape: Any
    signature: list[Difference]


def _other(a: keras.Model, b: Any) -> _Other:
    """What is to be compared with a model. Raises `FoldError`."""
    if isinstance(b, keras.Model):
        refuse_other_shapes(a, b)
        return _Other(b, partial(as_is, b), None, differences(a, b))
    if isinstance(b, (str, os.PathLike)):
        file = deployed(b, a)
        notes = [Difference(file.note, breaks=False)] if file.note else []
        return _Other(None, lambda: file, file.input_shape, notes)
    raise FoldError(
        f"verify() compares with a keras.Model, or with the path of a deployed one. "
        f"Received: {type(b)}"
    )


def assert_equivalent(
    a: keras.Model, b: Any, data: Any = None, input_shape: Any = None, **options: Any
) -> None:
    """Raise AssertionError, with the report, unless `verify` of the same arguments holds.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> kerasfold.assert_equivalent(model, model.fold())
    """
    __tracebackhide__ = True
    report = verify(a, b, data, input_shape, **options)
    if not report.equivalent:
        raise AssertionError(str(report))


def verify_fold(
    regions: Regions,
    forms: Mapping[int, AnyForm],
    compose: Compose,
    original: keras.Model,
    folded: keras.Model,
    data: Any = None,
    input_shape: Any = None,
) -> EquivalenceReport:
    """Compare a fold that still holds its unrounded weights with its original, as `verify` does."""
    require_double("fold()")
    with full_precision(), restarted([original, folded], drawn=data is None):
        source = probes(original, input_shape) if data is None else Given(original, data)
        first, batches = _peeked(source)
        whole = {node: form.complete() for node, form in forms.items()}

        def both(dtype: str | None) -> tuple[Walk, Walk]:
            # The fold first: it takes over weights that are held till then.
            other = Walk(emit(regions, whole, compose, dtype=dtype).model)
            return _copied(regions, first, dtype), other

        exact, other = _in_precision(both)
        found = Comparison(
            a=original,
            b=as_is(folded),
            a64=exact,
            b64=other,
            rounded=False,
            drawn=data is None,
            kinds=len(KINDS) if data is None else 1,
        )
        report = compared(found, batches, source)
        return with_signature(report, differences(original, folded))


def _in_precision(make: Callable[[str | None], T]) -> T:
    """What is made in the highest precision that there is of it.

    That is float64, or float32 where a layer has no float64, or None where one can be copied in
    its own alone.

    Raises:
        FoldError: in neither.
    """
    for dtype in ("float64", "float32"):
        with contextlib.suppress(FoldError):
            return make(dtype)
    return make(None)


def original_in_precision(regions: Regions, batch: Any) -> tuple[Walk, str | None]:
    """The original model in the highest precision that it runs in, and that precision.

    Args:
        regions: the lifted model.
        batch: inputs to try it on, as the model takes them.

    Raises:
        FoldError: it does not run.
    """
    return _in_precision(lambda dtype: (_copied(regions, batch, dtype), dtype))


def _copied(regions: Regions, batch: Any, dtype: str | None) -> Walk:
    """A copy of a model in some precision, that runs on a batch. Raises `FoldError`."""
    walk = Walk(copy(regions, dtype).model)
    outputs(walk, batch)
    return walk


def exact_copy(model: keras.Model, batch: Any) -> Copy:
    """A copy of a model in the highest precision, or itself where it cannot be read and copied.

    Raises:
        NeverRan: a layer of it has no weights yet.
    """
    try:
        return original_in_precision(lifted(model), batch)[0]
    except NeverRan:  # which a run would change
        raise
    except FoldError:
        return AsIs(model)


def compared(
    found: Comparison, batches: Iterable[Any], source: Probes | Given
) -> EquivalenceReport:
    """What a comparison finds on some batches; of the user's data, how often classes agree."""
    if isinstance(source, Probes):
        found.run(batches, blank=source.blank)
        return _loudly(found, _reported(found), source.loud)
    agreement = Agreement(output_labels(found.a))
    found.run(batches, lambda x, y: agreement.saw(x, y, source.labels()))
    return _with_agreement(_reported(found), agreement, source)


def _spread(
    replicas: Replicas, unseen: Callable[[Any], Comparison], given: Given, names: Sequence[str]
) -> EquivalenceReport:
    """What replicas find together on the user's data; what was left out is of this worker's."""
    mine = Agreement(names)
    found, agreement = replicas.compared(
        unseen, given, lambda x, y: mine.saw(x, y, given.labels()), mine
    )
    report = _with_agreement(_reported(found), agreement, given)
    return replace(report, device=f"{report.device}, {replicas}")


def _with_agreement(
    report: EquivalenceReport, agreement: Agreement, given: Given
) -> EquivalenceReport:
    classes = agreement.result()
    pairs = zip(report.outputs, classes, strict=True)
    outputs = tuple(replace(out, agreement=one) for out, one in pairs)
    unused = given.is_labelled and not any(one and one.per_class for one in classes)
    no_accuracy = "no accuracy: the labels are classes of no output" if unused else ""
    return replace(report, outputs=outputs).noted(given.note, no_accuracy)


def _loudly(found: Comparison, report: EquivalenceReport, loud: list[Any]) -> EquivalenceReport:
    """The verdict with loud inputs beside the usual: they may show another function, and no more.

    Of such the accuracy says nothing: what is exact may overflow in the models' own dtype.
    """
    if not loud or report.verdict == "different" or not isinstance(found.b, Copy):
        return report
    b64 = found.b64 or exact_copy(found.b.model, loud[0])
    apart = replace(found, b64=b64, tolerance=None, kinds=1)
    if eps_of(apart.dtype) > SINGLE:  # half precision overflows, or not, by how it adds up
        return report
    for tally, usual in zip(apart.tallies, found.tallies, strict=True):
        tally.expected = noise_share(usual)
    if found.tolerance is not None:
        shares = [tolerated_share(found.tolerance, tally) for tally in found.tallies]
        apart.noise = Noise(max(shares), max(shares))  # what is near a threshold passes it
        for i, tally in enumerate(apart.tallies):
            saturated = not apart.endings[i] and apart.a64.ends[i]
            tally.tolerated = 1.0 if saturated else shares[i]
    apart.run_copies(loud)
    other = _reported(apart)
    if found.tolerance is not None:
        other = replace(other, note=f"on large inputs, with {found.tolerance} on usual ones")
    shown = other if other.verdict == "different" else report.noted(overflowing(apart))
    return replace(shown, inputs=report.inputs + other.inputs, unreached=other.unreached)


def _peeked(batches: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first batch, and all of them."""
    rest = iter(batches)
    first = next(rest)
    return first, itertools.chain([first], rest)


def _with_cause(
    report: EquivalenceReport, failing: int, said: str, told: bool
) -> EquivalenceReport:
    """The report with why an output fails; instead of a doubt, and beside a difference.

    Args:
        report: of models that are not equivalent.
        failing: which output is the first to fail.
        said: why.
        told: whether a difference is one, and not that the first model moves as far by itself.
    """
    if report.verdict == "different" and told:
        return replace(report, reason=f"{report.reason}; {said}")
    outputs = list(report.outputs)
    outputs[failing] = replace(outputs[failing], accuracy_bound=math.inf, doubt=said)
    return replace(report, verdict="inconclusive", reason=said, outputs=tuple(outputs))


def _may_be_unsteady(report: EquivalenceReport, failing: int) -> bool:
    """Whether a model may fail for giving other values each time: copies differ then, too."""
    out = report.outputs[failing]
    return report.verdict == "different" or out.error > UNSTEADY * out.bound


def _reported(found: Comparison) -> EquivalenceReport:
    """The verdict; where it is not one of equality, with where the models part."""
    report = judged(found)
    if report.equivalent or found.other_shape:
        return report
    failed = [i for i, out in enumerate(report.outputs) if out.verdict == report.verdict]
    failing = next(iter(failed or off_copies(found)), 0)
    batch = (found.shows[failing].batch, found.shows_own[failing].batch)
    in_function = not report.outputs[failing].error <= report.outputs[failing].bound
    shown = batch[0] if in_function or batch[1] is None else batch[1]
    names = [spec.name for spec in tree.flatten(input_structure(found.a))]
    arrays = map(np.asarray, tree.flatten(shown)) if shown is not None else ()
    report = replace(report, shown=dict(zip(names, arrays, strict=False)))
    if shown is not None and _may_be_unsteady(report, failing):
        causes = [
            unsteady(each, shown, failing, found.own_eps) if isinstance(each, Copy) else ""
            for each in (found.reference, found.b)
        ]
        said = next(filter(None, causes), "")
        same = all(out.same_function for out in report.outputs)
        told = not same or bool(failed and not causes[0])
        report = _with_cause(report, failing, said, told) if said else report
    if not in_function or not (isinstance(found.a64, Walk) and isinstance(found.b64, Walk)):
        return report
    small = 64 * found.noise.weights if found.rounded else 1e-9
    return replace(report, where=first_difference(found.a64, found.b64, shown, small))
