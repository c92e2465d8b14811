"""Old model against new: the same function, and as accurate as before.

Two questions, because float32 noise and a wrong fold must not be confusable:

1. *Same function?* Both models in float64, on random inputs. A fold still holds its
   unrounded weights, so both sides agree to 1e-10 of the output scale or the fold is wrong.
   Two stored models have been rounded; there the bound is a small multiple of the change
   that rounding noise of half a unit in the last place makes, measured on those models.
2. *As accurate?* Both models as they are, each against the float64 truth.

Errors are measured against the spread of the outputs over inputs: against their size, the
softmax of a random network would look right with any kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.backend import device, full_precision
from kerasfold.compose import Compose
from kerasfold.emit import Emission, copy, emit
from kerasfold.errors import FoldError, UnsupportedModelError, words_of
from kerasfold.forms.form import AnyForm
from kerasfold.lift.regions import Regions, lift
from kerasfold.read.graph import read
from kerasfold.read.model import (
    computed_dtypes,
    input_structure,
    interpolates,
    operations,
    output_names,
)
from kerasfold.read.weights import as_array, as_dtype

EXACT = 1e-10  # of the output scale, in float64
ARITHMETIC = 256.0  # units of float rounding, of the output scale, that any order of sums may make
NOISE = 8.0  # times the measured effect of rounding noise
LOSS = 8.0  # times the original's own error in its own dtype
SINGLE = 2.0**-23  # unit of float32 rounding
REBUILT = 16.0  # times rounding effects that a model may be off its rebuilt float64 copy
PROBES = (4, 16)  # random inputs, at least and at most
PROBED = 200_000  # numbers in all of them, between the two
FREE_SIZES = (33, 64, 97, 128, 224, 299)  # tried along unknown axes


Arrays = list[np.ndarray]
Run = Callable[[Any], Arrays]


@dataclass(frozen=True, slots=True)
class OutputReport:
    """Agreement of one output.

    Attributes:
        name: of the output.
        max_abs_error: largest difference in float64.
        max_border_error: the same among the outermost pixels of an image.
        spread: standard deviation of the output over inputs.
        scale: largest absolute value of the output.
        bound: what `max_abs_error` may be.
        original_error: the first model's own error in its own dtype, against float64.
        folded_error: the second model's.
        accuracy_bound: what `folded_error` may be.
    """

    name: str
    max_abs_error: float
    max_border_error: float
    spread: float
    scale: float
    bound: float
    original_error: float = 0.0
    folded_error: float = 0.0
    accuracy_bound: float = math.inf

    @property
    def equivalent(self) -> bool:
        """Whether both questions are answered with yes."""
        return self.max_abs_error <= self.bound and self.folded_error <= self.accuracy_bound


@dataclass(frozen=True, slots=True)
class EquivalenceReport:
    """What `verify` found.

    Attributes:
        equivalent: whether the models compute the same, as accurately.
        max_abs_error: largest difference of any output, in `dtype`.
        max_rel_error: largest difference relative to the output's spread over inputs.
        dtype: precision of the comparison.
        device: where the models ran.
        inputs: number of inputs compared.
        outputs: one record per output.
        agreement: for given data and outputs that look like class scores, the share of
            inputs with the same top class; else None.
        reason: what failed, or "".
    """

    equivalent: bool
    max_abs_error: float
    max_rel_error: float
    dtype: str
    device: str
    inputs: int
    outputs: tuple[OutputReport, ...]
    agreement: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        verdict = "equivalent" if self.equivalent else f"NOT equivalent: {self.reason}"
        lines = [
            f"{verdict} ({self.inputs} inputs, {self.dtype}, {self.device}; largest difference "
            f"{self.max_abs_error:.2g}, {self.max_rel_error:.2g} of the spread)"
        ]
        for out in self.outputs:
            lines.append(
                f"  {out.name}: difference {out.max_abs_error:.2g} (at the border "
                f"{out.max_border_error:.2g}), bound {out.bound:.2g}; own error "
                f"{out.original_error:.2g} -> {out.folded_error:.2g}, "
                f"bound {out.accuracy_bound:.2g}"
            )
        if self.agreement is not None:
            lines.append(f"  top class agrees on {100 * self.agreement:.2f} % of the data")
        return "\n".join(lines)


def verify(a: keras.Model, b: keras.Model, data: Any = None) -> EquivalenceReport:
    """Compare two models: the same function, and is `b` as accurate as `a`?

    Never raises on a mere difference.

    Args:
        a: the reference.
        b: the model that should compute the same.
        data: optional inputs in place of random ones: an array (n, ...), a structure of
            arrays as the model takes it or by input names, or batches of them
            (`tf.data.Dataset`, `keras.utils.PyDataset`, an iterator), of which `(x, y)` pairs
            give `x`.

    Returns:
        An `EquivalenceReport`.

    Raises:
        FoldError: models whose inputs or outputs differ in number or shape, or data that does
            not fit them.
    """
    for model in (a, b):
        if not isinstance(model, keras.Model):
            raise FoldError(f"verify() compares keras.Model values. Received: {type(model)}")
    _refuse_other_signature(a, b)
    first, second = _in_float64(a), _in_float64(b)
    batches = _given(a, data) if data is not None else _probes(a)

    def bound(truth: Arrays, dtype: str, unit: float) -> list[float]:
        return _noise_bound(
            [(copy, max(_stored_eps(m), unit)) for m, copy in ((a, first), (b, second))], batches
        )

    report = _compare(a, b, first, second, batches, bound)
    return _with_agreement(report, a, b, batches) if data is not None else report


def assert_equivalent(a: keras.Model, b: keras.Model, data: Any = None) -> None:
    """Raise AssertionError, with the report, unless `verify(a, b, data)` holds."""
    report = verify(a, b, data)
    if not report.equivalent:
        raise AssertionError(str(report))


def verify_fold(
    regions: Regions,
    forms: Mapping[int, AnyForm],
    compose: Compose,
    original: keras.Model,
    folded: keras.Model,
) -> EquivalenceReport:
    """Compare a fold that still holds its unrounded weights with its original."""
    batches = _probes(original)
    first, dtype = _original(regions, batches[:1])
    second = emit(regions, forms, compose, dtype=dtype)

    def bound(truth: Arrays, dtype: str, unit: float) -> list[float]:
        if dtype == "float64" and not unit:
            return [EXACT * _spread(t) for t in truth]
        eps = max(unit, SINGLE)
        return _noise_bound([(first.model, eps), (second.model, eps)], batches)

    report = _compare(original, folded, first.model, second.model, batches, bound)
    if not report.equivalent:
        culprit = _first_difference(first, second, batches[0], regions)
        report = replace(report, reason=f"{report.reason}; {culprit}")
    return report


def in_precision(regions: Regions) -> tuple[keras.Model, str]:
    """The original model in the highest precision that it runs in, and that precision."""
    inputs = [
        np.zeros([FREE_SIZES[0] if n is None else n for n in layer.batch_shape[1:]])[None]
        for layer in regions.graph.input_layers
    ]
    emission, dtype = _original(regions, [tree.pack_sequence_as(regions.graph.inputs, inputs)])
    return emission.model, dtype


def _original(regions: Regions, batches: list[Any]) -> tuple[Emission, str]:
    for dtype in ("float64", "float32"):
        emission = copy(regions, dtype)
        try:
            _run(emission.model, batches)
        except Exception:  # such as AveragePooling3D, which TensorFlow's CPU has not in float64
            if dtype == "float32":
                raise
        else:
            return emission, dtype
    raise AssertionError("unreachable")


def _compare(
    a: keras.Model,
    b: keras.Model,
    a64: keras.Model,
    b64: keras.Model,
    batches: list[Any],
    bound: Callable[[Arrays, str, float], list[float]],
) -> EquivalenceReport:
    """Both questions of two models and their float64 copies.

    Args:
        a: the reference.
        b: the other model.
        a64: `a` in float64.
        b64: `b` in float64.
        batches: the inputs.
        bound: largest difference allowed of each output, given the outputs, their dtype, and
            the rounding unit of operations that have no float64 (0.0 where there are none).
    """
    with full_precision():
        runs = tuple(_ran(m, batches) for m in (a64, b64, a, b))
    dtype = _coarsest([a64, b64], runs[0])
    report = _judge(a, a64, batches, runs, dtype, bound(runs[0], dtype, 0.0))
    if report.equivalent or report.dtype != "float64":
        return report
    if not any(_rounds(m, batches) for m in (a64, b64)):
        return report
    unit = _single_unit([a64, b64])
    report = _judge(a, a64, batches, runs, dtype, bound(runs[0], dtype, unit), unit)
    return replace(report, dtype="float64, with operations that round to float32")


def _judge(
    a: keras.Model,
    a64: keras.Model,
    batches: list[Any],
    runs: tuple[Arrays, ...],
    dtype: str,
    bounds: list[float],
    unit: float = 0.0,
) -> EquivalenceReport:
    """The report on what `a64`, `b64`, `a` and `b` gave, in that order."""
    truth, other, own_a, own_b = runs
    outputs = []
    for name, t, o, x, y, limit in zip(
        output_names(a), truth, other, own_a, own_b, bounds, strict=True
    ):
        scale = float(np.max(np.abs(t), initial=0.0, where=np.isfinite(t)))
        floor = ARITHMETIC * _eps(dtype) * scale
        own = _error(x, t)
        outputs.append(
            OutputReport(
                name,
                _error(o, t),
                _border_error(o, t),
                _spread(t),
                scale,
                limit + floor,
                own,
                _error(y, t),
                LOSS * own + ARITHMETIC * max(_eps(str(x.dtype)), _eps(dtype), unit) * scale,
            )
        )
    blind = [n for n, t in zip(output_names(a), truth, strict=True) if not _tells(t)]
    worst = max(outputs, key=lambda r: r.max_abs_error / (r.spread or r.scale or 1.0))
    reason = f"output '{blind[0]}' is nowhere finite, so nothing can be told of it" if blind else ""
    for name, x, y in zip(output_names(a), own_a, own_b, strict=True):
        if x.shape[1:] != y.shape[1:]:
            reason = f"output '{name}' has shape {x.shape[1:]} in one, {y.shape[1:]} in the other"
    reason = reason or _unlike_its_copy(a, a64, outputs, batches) or _first_failure(outputs)
    return EquivalenceReport(
        not reason,
        max(r.max_abs_error for r in outputs),
        worst.max_abs_error / (worst.spread or worst.scale or 1.0),
        dtype,
        device(),
        sum(len(tree.flatten(batch)[0]) for batch in batches),
        tuple(outputs),
        reason=reason,
    )


def _coarsest(copies: list[keras.Model], truth: Arrays) -> str:
    """The float dtype that rounds most, among what the copies compute in and what they give."""
    computed = set().union(*(computed_dtypes(copy) for copy in copies))
    floats = {d for d in computed | {str(t.dtype) for t in truth} if d in _FLOAT_EPS}
    return max(floats, key=_eps, default="float64")


def _first_failure(outputs: list[OutputReport]) -> str:
    """What is wrong with the first output that is not equivalent, or ""."""
    failing = next((r for r in outputs if not r.equivalent), None)
    if failing is None:
        return ""
    if not failing.max_abs_error <= failing.bound:
        return (
            f"output '{failing.name}' differs by {failing.max_abs_error:.3g}, "
            f"more than {failing.bound:.3g}"
        )
    return (
        f"output '{failing.name}' is less accurate: error {failing.folded_error:.3g} "
        f"against {failing.original_error:.3g} before"
    )


def _unlike_its_copy(
    model: keras.Model, copy: keras.Model, outputs: list[OutputReport], batches: list[Any]
) -> str:
    """Why the float64 copy that serves as truth is none of this model, or ""."""
    eps = _computed_eps(model)
    if copy is model or all(r.original_error <= ARITHMETIC * eps * r.scale for r in outputs):
        return ""
    for r, change in zip(outputs, _noise_effect(copy, batches, eps), strict=True):
        if math.isinf(r.original_error):
            return (
                f"output '{r.name}' of model '{model.name}' overflows its dtype on these inputs: "
                "use fold(verify=False), and kerasfold.verify(model, folded, data=...) with yours"
            )
        if not r.original_error <= REBUILT * (change + ARITHMETIC * eps * r.scale):
            return (
                f"model '{model.name}' differs from its own copy by {r.original_error:.3g} at "
                f"output '{r.name}': a layer's get_config() or weights do not say all that "
                "it computes"
            )
    return ""


def _eps(dtype: str) -> float:
    return (
        float(keras.backend.epsilon()) if "float" not in dtype else _FLOAT_EPS.get(dtype, 2.0**-52)
    )


_FLOAT_EPS = {"float64": 2.0**-52, "float32": SINGLE, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def _tells(truth: np.ndarray) -> bool:
    """Whether an output has a value to compare."""
    return not truth.size or bool(np.isfinite(truth).any())


def _error(value: np.ndarray, truth: np.ndarray) -> float:
    """Largest difference; infinite where one is finite and the other is not."""
    value, truth = np.asarray(value, "float64"), np.asarray(truth, "float64")
    if value.shape != truth.shape:
        return math.inf
    finite = np.isfinite(truth)
    if not np.array_equal(truth[~finite], value[~finite], equal_nan=True):
        return math.inf
    if not np.all(np.isfinite(value[finite])):
        return math.inf
    return float(np.max(np.abs(value[finite] - truth[finite]), initial=0.0))


def _border_error(value: np.ndarray, truth: np.ndarray) -> float:
    if value.shape != truth.shape or truth.ndim < 3 or any(n < 3 for n in truth.shape[1:-1]):
        return _error(value, truth)
    inside = (slice(None), *(slice(1, -1) for _ in truth.shape[1:-1]))
    value, truth = np.array(value, "float64"), np.array(truth, "float64")
    value[inside] = truth[inside]
    return _error(value, truth)


def _spread(truth: np.ndarray) -> float:
    """Standard deviation over inputs; the scale where an output ignores its input."""
    truth = np.where(np.isfinite(truth), truth, 0.0).astype("float64")
    spread = float(np.sqrt(np.mean(np.var(truth, axis=0)))) if len(truth) > 1 else 0.0
    scale = float(np.max(np.abs(truth), initial=0.0))
    return spread if spread > 1e-12 * scale else scale


def _in_float64(model: keras.Model) -> keras.Model:
    """A float64 copy, or the model itself where it cannot be read as a graph."""
    try:
        regions = lift(read(model))
        return copy(regions, "float64").model
    except FoldError:
        return model


def _noise_effect(copy: keras.Model, batches: list[Any], eps: float) -> list[float]:
    """Change of each output of a float64 model when its weights move by up to half of `eps`."""
    rng = np.random.default_rng(0)
    before = _run(copy, batches)
    saved = [(v, keras.ops.convert_to_numpy(v)) for v in copy.weights if "float" in v.dtype]
    try:
        for variable, value in saved:
            variable.assign(value * (1 + eps * rng.uniform(-0.5, 0.5, value.shape)))
        after = _run(copy, batches)
    finally:
        for variable, value in saved:
            variable.assign(value)
    return [_error(y, x) for x, y in zip(before, after, strict=True)]


def _noise_bound(copies: list[tuple[keras.Model, float]], batches: list[Any]) -> list[float]:
    """A multiple of what noise in the weights, of a unit of rounding per model, changes."""
    changes = [_noise_effect(copy, batches, eps) for copy, eps in copies]
    return [NOISE * max(pair) for pair in zip(*changes, strict=True)]


def _rounds(copy: keras.Model, batches: list[Any]) -> bool:
    """Whether some operation rounds to float32 whatever it is given, as bilinear resizing does.

    Outputs then move in steps: under the same noise, 1,024 times smaller, by far more than a
    1,024th of what they moved.
    """
    if any(interpolates(operation) for operation in operations(copy)):
        return True
    fine, coarse = (_noise_effect(copy, batches, 2.0**-n) for n in (30, 20))
    return any(f > 4 * c / 1024 for f, c in zip(fine, coarse, strict=True))


def _single_unit(models: list[keras.Model]) -> float:
    """Unit of rounding of interpolation in float32, whose positions are rounded too."""
    sides = [
        n or max(FREE_SIZES)
        for model in models
        for operation in operations(model)
        for tensor in tree.flatten(operation.output)
        for n in tensor.shape[1:]
        if len(tensor.shape) > 2
    ]
    return SINGLE * max(sides, default=1)


def _stored_eps(model: keras.Model) -> float:
    """Unit of rounding of a model's coarsest weights."""
    return max((_eps(v.dtype) for v in model.weights if "float" in v.dtype), default=SINGLE)


def _computed_eps(model: keras.Model) -> float:
    """Unit of rounding of the coarsest tensor or layer of a model."""
    dtypes = computed_dtypes(model)
    return max((_eps(d) for d in dtypes if "float" in d), default=SINGLE)


def _run(model: keras.Model, batches: Iterable[Any]) -> Arrays:
    """Outputs in flat order, the batches stacked."""
    parts = []
    specs = input_structure(model)
    for batch in batches:
        flat = zip(tree.flatten(batch), tree.flatten(specs), strict=True)
        typed = tree.pack_sequence_as(
            specs, [keras.ops.convert_to_tensor(x, dtype=spec.dtype) for x, spec in flat]
        )
        parts.append(
            [keras.ops.convert_to_numpy(y) for y in tree.flatten(model(typed, training=False))]
        )
    same = all(p[i].shape[1:] == parts[0][i].shape[1:] for p in parts for i in range(len(parts[0])))
    if same:
        columns = zip(*parts, strict=True)
        return [np.concatenate([np.atleast_1d(y) for y in column]) for column in columns]
    # Images of several sizes: one flat row per input.
    return [
        np.concatenate([c.reshape(-1) for c in column])[None] for column in zip(*parts, strict=True)
    ]


def _ran(model: keras.Model, batches: list[Any]) -> Arrays:
    """The same, of a model that may not run here. Raises `FoldError`."""
    try:
        return _run(model, batches)
    except Exception as error:
        raise FoldError(
            f"model '{model.name}' does not run on {device()}, where it was to be compared "
            f"({words_of(error)}): pass verify=False, and compare where it does run"
        ) from error


def _probes(model: keras.Model) -> list[Any]:
    """Random inputs; where the image size is free, of a size that the model takes."""
    error: Exception | None = None
    for size in FREE_SIZES:
        batches = _random(model, size)
        try:
            _run(model, batches[:1])
        except Exception as failure:
            error = failure
        else:
            return batches
        if all(n is not None for x in tree.flatten(input_structure(model)) for n in x.shape[1:]):
            break
    assert error is not None
    raise FoldError(
        f"model '{model.name}' does not run on random inputs "
        f"({words_of(error)}): pass verify=False, and "
        "compare with kerasfold.verify(model, folded, data=...)"
    ) from error


def _random(model: keras.Model, size: int) -> list[Any]:
    rng = np.random.default_rng(0)
    fixed = {x.shape[0] for x in tree.flatten(input_structure(model))} - {None}
    numbers = sum(
        math.prod(size if n is None else n for n in x.shape[1:])
        for x in tree.flatten(input_structure(model))
    )
    wanted = min(max(PROBED // max(numbers, 1), PROBES[0]), PROBES[1])
    count = 1 if not fixed else -(-wanted // max(fixed))
    words = [
        layer.input_dim
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]

    def draw(spec: Any) -> np.ndarray:
        shape = [
            wanted if n is None and i == 0 else size if n is None else n
            for i, n in enumerate(spec.shape)
        ]
        if "float" in spec.dtype:
            # Rounded as the model will round it, so that both precisions see one input.
            return as_array(as_dtype(rng.normal(size=shape), spec.dtype))
        few = 256 if spec.dtype == "uint8" else 2
        return rng.integers(0, min(words, default=few), size=shape)

    return [tree.map_structure(draw, input_structure(model)) for _ in range(max(count, 1))]


def _given(model: keras.Model, data: Any) -> list[Any]:
    """The user's data as batches that fit the model.

    Raises:
        FoldError: no data, or data of another structure or shape.
    """
    try:
        batches = list(_batches(model, data))
    except (TypeError, ValueError) as error:
        if isinstance(error, FoldError):
            raise
        raise FoldError(
            f"data of type {type(data).__name__} does not fit the inputs of '{model.name}': {error}"
        ) from error
    if not batches or any(len(x) == 0 for x in tree.flatten(batches)):
        raise FoldError("data holds no input")
    specs = tree.flatten(input_structure(model))
    for batch in batches:
        for x, spec in zip(tree.flatten(batch), specs, strict=True):
            fits = len(x.shape) == len(spec.shape) and all(
                n is None or n == m for n, m in zip(spec.shape[1:], x.shape[1:], strict=True)
            )
            if not fits:
                raise FoldError(
                    f"data of shape {tuple(x.shape)} does not fit input '{spec.name}' of shape "
                    f"{tuple(spec.shape)}"
                )
    return [
        tree.map_structure(lambda x, spec: as_dtype(x, spec.dtype), batch, input_structure(model))
        for batch in batches
    ]


def _batches(model: keras.Model, data: Any) -> Iterator[Any]:
    """Inputs of the model, batch by batch, whatever `data` is."""
    specs = input_structure(model)
    if keras.ops.is_tensor(data):
        data = keras.ops.convert_to_numpy(data)
    if isinstance(data, (str, bytes, int, float)):
        raise FoldError(f"data of type {type(data).__name__}: pass arrays, or batches of them")
    flat = tree.flatten(data) if isinstance(data, (Mapping, list, tuple, np.ndarray)) else []
    if flat and all(hasattr(x, "shape") for x in flat):
        arrays = _arrays(specs, data)
        for start in range(0, len(arrays[0]), 32):
            yield tree.pack_sequence_as(specs, [x[start : start + 32] for x in arrays])
        return
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    for item in (data[i] for i in range(len(data))) if indexed else data:
        x = item[0] if isinstance(item, tuple) else item
        arrays = [keras.ops.convert_to_numpy(v) for v in _arrays(specs, x)]
        yield tree.pack_sequence_as(specs, arrays)


def _arrays(specs: Any, data: Any) -> list[Any]:
    """One array for each input, in the model's order: of a mapping, those of their names."""
    inputs = tree.flatten(specs)
    if isinstance(data, Mapping):
        names = list(specs) if isinstance(specs, Mapping) else [spec.name for spec in inputs]
        missing = [name for name in names if name not in data]
        if missing:
            raise FoldError(
                f"data has no array for input(s) {missing}. Received: {sorted(map(str, data))}"
            )
        chosen = {name: data[name] for name in names}
        data = chosen if isinstance(specs, Mapping) else list(chosen.values())
    arrays = tree.flatten(data)
    if len(arrays) != len(inputs):
        raise FoldError(f"data holds {len(arrays)} array(s), the model takes {len(inputs)}")
    lengths = {spec.name: len(x) for spec, x in zip(inputs, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        raise FoldError(f"data holds arrays of different lengths: {lengths}")
    return arrays


def _with_agreement(
    report: EquivalenceReport, a: keras.Model, b: keras.Model, batches: list[Any]
) -> EquivalenceReport:
    scores = [
        (x, y)
        for x, y in zip(_run(a, batches), _run(b, batches), strict=True)
        if x.ndim == 2 and x.shape[-1] > 1
    ]
    if not scores:
        return report
    same = [np.mean(x.argmax(-1) == y.argmax(-1)) for x, y in scores]
    return replace(report, agreement=float(min(same)))


def _refuse_other_signature(a: keras.Model, b: keras.Model) -> None:
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


def _first_difference(first: Emission, second: Emission, batch: Any, regions: Regions) -> str:
    """The first tensor, in the order of the calls, that both models make and that differs."""
    shared = [
        (call, t)
        for call in regions.graph.calls
        for t in call.outputs
        if t.index in first.tensors and t.index in second.tensors
    ]
    if not shared:
        return "no tensor between input and output is common to both models"
    values = []
    for emission in (first, second):
        probe = keras.Model(emission.model.input, [emission.tensors[t.index] for _, t in shared])
        values.append(_run(probe, [batch]))
    for (call, _), x, y in zip(shared, *values, strict=True):
        if x.dtype.kind == "f" and _error(y, x) > 1e-9 * (_spread(x) or 1.0):
            return f"the first tensor that differs is that of layer '{call.name}'"
    return "no tensor between input and output differs on its own"
