"""Which layer it is: where two models part, and what a backend computes wrongly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

from kerasfold.emit import Emission, copy
from kerasfold.equivalence.bounds import computed_eps, eps_of
from kerasfold.equivalence.compare import outputs
from kerasfold.equivalence.report import Parting
from kerasfold.equivalence.runs import Arrays, Runner, Walk, as_is, real
from kerasfold.equivalence.tally import at_border, distances, holds
from kerasfold.errors import FoldError
from kerasfold.lift.regions import Regions, as_read, lift, lifted
from kerasfold.read.graph import Call
from kerasfold.read.inside import Made
from kerasfold.read.model import layout_of, made_by, sublayers, variables_of
from kerasfold.read.nodes import symbolic
from kerasfold.read.pieces import part_of
from kerasfold.read.weights import as_array


def first_difference(a: Walk, b: Walk, batch: Any, small: float) -> Parting:
    """The first tensor that layers of one name make in both models and that differs.

    In the order of the calls of `a`. A tensor that differs, and of which one is made that does
    not, differs by how the models divide their work: that is passed over.

    Args:
        a: the reference.
        b: the other.
        batch: inputs on which they differ.
        small: the largest difference that is none, of the spread of a tensor.
    """
    ours, theirs = (
        {made.operation.name: made for made in walk.inside.calls if len(made.outputs) == 1}
        for walk in (a, b)
    )
    shared = {
        name
        for name in ours.keys() & theirs.keys()
        if ours[name].outputs[0].shape[1:] == theirs[name].outputs[0].shape[1:]
    }
    values: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}

    def keep(made: Made, results: Sequence[Any]) -> None:
        if made.operation.name in shared:
            values[made.operation.name] = keras.ops.convert_to_numpy(results[0])

    def hold_against(made: Made, results: Sequence[Any]) -> None:
        x = values.pop(made.operation.name, None)
        if x is None or x.dtype.kind != "f":
            return
        errors[made.operation.name] = np.zeros(0)
        y = keras.ops.convert_to_numpy(results[0])
        if x.shape == y.shape:
            error = distances(y, x)
            if np.max(error, initial=0.0) > small * (_spread(x) or 1.0):
                errors[made.operation.name] = error

    a.ran(batch, saw=keep)
    b.ran(batch, saw=hold_against)
    layout = layout_of(made.operation for made in a.inside.calls)
    for name in _parting(a.inside.calls, errors):
        error = errors[name]
        first = 2 if layout == "channels_first" else 1
        border, inside = at_border(error, range(first, first + error.ndim - 2))
        place = tuple(map(int, np.unravel_index(np.argmax(error), error.shape)))
        return Parting(name, float(np.max(error)), place, border, inside)
    return Parting("")


def unsteady(model: Runner, batch: Any, index: int, eps: float) -> str:
    """How far a model's values move from run to run on one batch, in words; or "".

    Args:
        model: as it is.
        batch: inputs, as it takes them.
        index: of the output that is looked at.
        eps: unit of rounding of what they compute in; sums may be added up in another order.
    """
    again = tree.map_structure(np.array, batch)  # a copy, as a walk of the same batch is kept
    first, second = (outputs(model, x)[index] for x in (batch, again))
    moved = distances(first, second)
    told = np.isfinite(moved) & np.isfinite(first)
    most = np.max(moved, initial=0.0, where=told)
    if most <= math.sqrt(eps) * np.max(np.abs(first), initial=0.0, where=told):
        return ""
    return (
        f"model '{model.name}' does not give the same twice: run again on the same inputs, "
        f"an output is {most:.3g} off"
    )


def _parting(calls: Sequence[Made], errors: Mapping[str, np.ndarray]) -> list[str]:
    """The names of calls that differ, and of whose outputs nothing is made that does not."""
    mended: set[int] = set()  # tensors, of which something is made that does not differ
    found = []
    for made in reversed(calls):
        error = errors.get(made.operation.name)
        differs = error is not None and error.size > 0
        agrees = error is not None and not error.size
        below = any(id(t) in mended for t in made.outputs)
        if agrees or below:
            mended |= {id(x) for x in symbolic((made.args, made.kwargs))}
        elif differs:
            found.append(made.operation.name)
    return found[::-1]


def _spread(values: np.ndarray) -> float:
    """Standard deviation over samples and places, of what is finite."""
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.std(finite)) if finite.size else 0.0


class Miscomputed(NamedTuple):
    """A layer that gives something else in its own dtype than in float64.

    Attributes:
        layer: its name.
        error: by how much, on the same inputs.
        draws: whether it draws random numbers, which are others in float64.
    """

    layer: str
    error: float
    draws: bool


def miscomputed(model: keras.Model, batch: Any) -> Miscomputed | None:
    """The layer that the backend computes wrongly in its own dtype.

    Found by running the one layer both ways, on the same inputs: a copy of it as it is, and one
    in float64. Two copies of one config part by more than rounding where the backend errs.

    Args:
        model: one that differs from its own float64 copy.
        batch: inputs that it differs on.

    Returns:
        None where there is no such layer.
    """
    try:
        regions = lifted(model)
        own, double = copy(regions), copy(regions, "float64")
        made = own.tensors.keys() & double.tensors.keys()
        calls = [
            c for c in regions.graph.calls if {t.index for t in (*c.inputs, *c.outputs)} <= made
        ]
        tensors = sorted({t.index for c in calls for t in (*c.inputs, *c.outputs)})
        given, exact = (
            dict(zip(tensors, _tensors(emission, tensors, batch), strict=True))
            for emission in (own, double)
        )
        for call in calls:
            if not all(holds(given[t.index].dtype, exact[t.index]).all() for t in call.inputs):
                continue  # it was given what has overflowed
            if any(_parts(given[t.index], exact[t.index]) for t in call.outputs):
                culprit = _both_ways(regions, call, [exact[t.index] for t in call.inputs])
                if culprit.error:
                    return culprit
    except FoldError:  # what is no graph, or does not run in float64
        return None
    return None


def is_its_copy(model: keras.Model, batch: Any) -> bool:
    """Whether a model gives what a copy of it in its own dtype gives, but for rounding.

    Args:
        model: one that can be copied.
        batch: inputs, as it takes them.
    """
    copied = outputs(as_is(copy(lifted(model)).model), batch)
    pairs = zip(outputs(as_is(model), batch), copied, strict=True)
    return not any(_parts(x, np.asarray(y, "float64")) for x, y in pairs)


def undescribed(model: keras.Model, batch: Any) -> tuple[str, float] | None:
    """The layer that gives something else than a copy of it does, and by how much.

    Each is run beside its copy, in its own dtype, on what the layers before it give: the two do
    the same operations, and what they differ by is no rounding that others have made more of.

    Args:
        model: one that can be copied.
        batch: inputs, as it takes them.

    Returns:
        None where there is no such layer. One that does not give the same twice is none.
    """
    try:
        regions = as_read(lifted(model))
        emission = copy(regions)
    except FoldError:  # what has no copy in its own dtype
        return None
    calls = {
        id(made_by(emission.tensors[t.index])): call
        for call in regions.graph.calls
        for t in call.outputs
        if t.index in emission.tensors
    }
    walk, eps = Walk(emission.model, is_copy=False), computed_eps(model)
    walk.variables += variables_of(model)
    found: list[tuple[str, float]] = []

    def beside(call: Call, copied: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            gave = call.operation(*args, **kwargs)
            off = _beyond(gave, copied(*args, **kwargs), eps)
            if off and not _beyond(gave, call.operation(*args, **kwargs), eps):
                found.append((call.name, off))
            return gave

        return run

    for index, made in enumerate(walk.inside.calls):
        call = calls.get(id(made.operation))
        if call is not None and type(call.operation) is type(made.operation):
            walk.exact[index] = beside(call, made.operation)
    with contextlib.suppress(FoldError):  # layer by layer it may not run where it does as a whole
        outputs(walk, batch)
    return next(iter(found), None)


def _beyond(gave: Any, other: Any, eps: float) -> float:
    """How far two results of a layer are apart; 0.0 where it is by a unit of rounding at most."""
    pairs = zip(tree.flatten(gave), tree.flatten(other), strict=True)
    values = [
        [real(keras.ops.convert_to_numpy(x)) for x in pair]
        for pair in pairs
        if all(map(keras.ops.is_tensor, pair))
    ]
    apart = [(_off(y, x), eps * _size(x)) for x, y in values]
    return max((off for off, most in apart if off > most), default=0.0)


def _both_ways(regions: Regions, call: Call, inputs: Sequence[np.ndarray]) -> Miscomputed:
    """How far a layer is off itself in float64, on the same inputs; by 0.0 if by rounding."""
    one = lift(part_of(regions.graph, [call], call.outputs))
    distinct = dict(zip((t.index for t in call.inputs), inputs, strict=True))
    batch = [distinct[t.index] for t in one.graph.inputs]
    own, exact = (copy(one, dtype).model for dtype in (None, "float64"))
    pairs = zip(*(outputs(Walk(x), batch) for x in (own, exact)), strict=True)
    off = max((_off(x, y) for x, y in pairs if _parts(x, y)), default=0.0)
    return Miscomputed(call.name, off, _draws(own, batch))


def _draws(model: keras.Model, batch: Any) -> bool:
    """Whether a model draws random numbers; it is changed as it does."""
    held = (value for layer in sublayers(model) for value in vars(layer).values())
    seeds = [x.state for x in held if isinstance(x, keras.random.SeedGenerator)]
    before = [as_array(seed) for seed in seeds]
    model(batch, training=False)
    return any(np.any(as_array(x) != y) for x, y in zip(seeds, before, strict=True))


def _parts(own: np.ndarray, exact: np.ndarray) -> bool:
    """Whether two results part by more than rounding does."""
    scale = _size(exact)
    is_float = keras.backend.is_float_dtype(str(own.dtype))
    return is_float and not (_off(own, exact) <= math.sqrt(eps_of(str(own.dtype))) * scale)


def _size(values: np.ndarray) -> float:
    """The largest of what is finite."""
    return float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))


def _off(own: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, but of what overflows the first's dtype."""
    held = holds(own.dtype, exact)
    return float(np.max(distances(own, exact), initial=0.0, where=held))


def _tensors(emission: Emission, tensors: Sequence[int], batch: Any) -> Arrays:
    """The values of some tensors of an emitted model."""
    made = [emission.tensors[index] for index in tensors]
    return outputs(Walk(keras.Model(emission.model.input, made)), batch)
