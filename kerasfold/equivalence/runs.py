"""Running models on batches of inputs: as they are, or call by call; no state of theirs changes."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.backend import by_default, double_precision, in_graph, place, placed
from kerasfold.equivalence.endings import Ending, ending_of
from kerasfold.equivalence.interpolation import resizing
from kerasfold.equivalence.noise import Drawn, Noise
from kerasfold.equivalence.steps import Step, Taken, steps_of
from kerasfold.equivalence.units import Units, has_flat_part
from kerasfold.equivalence.volumes import pooling
from kerasfold.layers.unfused import fused_summand, is_miscomputed
from kerasfold.quiet import unsaid
from kerasfold.read.inside import Made, inside_of
from kerasfold.read.model import (
    computed_dtypes,
    functional_graph,
    input_structure,
    layout_of,
    operations,
    own_predictions,
    takes_training,
    variables_of,
)
from kerasfold.read.nodes import symbolic

Arrays: TypeAlias = list[np.ndarray]
Saw: TypeAlias = Callable[[Made, Sequence[Any]], None]

TOLD = 2.0**-53  # that two sigmoids differ by, at most, where float64 tells no one from 1


@dataclass(frozen=True, eq=False, slots=True)
class Ran:
    """What a model gives on one batch.

    Attributes:
        outputs: in flat order.
        judged: the same; of an output that ends in a softmax or a sigmoid, what goes into it.
        stepped: by step that makes few values of many, what goes into it and what it gives; or
            nothing.
    """

    outputs: Arrays
    judged: Arrays
    stepped: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    def where_finite(self, truth: Ran) -> Ran:
        """The same, with the values of another wherever either's are not finite."""
        pairs = zip(self.outputs, truth.outputs, strict=True)
        outputs = [_where_finite(y, x) for y, x in pairs]
        pairs = zip(self.judged, truth.judged, strict=True)
        return Ran(outputs, [_where_finite(y, x) for y, x in pairs])

    def where_told(self, truth: Ran, ends: Sequence[str]) -> Ran:
        """The same, with what goes into a sigmoid that is as good as 0 or 1 as it is in another.

        Args:
            truth: the other.
            ends: what each output ends in.
        """
        judged = [
            np.where(np.abs(y - x) <= TOLD, given, mine)
            if end == "sigmoid" and y.shape == x.shape == mine.shape == given.shape
            else mine
            for y, x, mine, given, end in zip(
                self.outputs, truth.outputs, self.judged, truth.judged, ends, strict=True
            )
        ]
        return Ran(self.outputs, judged, self.stepped)

    def excused(self, truth: Ran, last: int) -> Ran:
        """The same, with NaN wherever the truth has it, among so many of the last samples."""
        judged = excused(self.judged, truth.judged, last)
        return Ran(excused(self.outputs, truth.outputs, last), judged, self.stepped)

    def judged_where(self, endings: Sequence[str]) -> Arrays:
        """What is judged of outputs that end alike in both models, and the others as they are."""
        triples = zip(self.outputs, self.judged, endings, strict=True)
        return [before if ending else output for output, before, ending in triples]


class Runner(Protocol):
    """Whatever can be run on batches of inputs: a Keras model, or what was made of one."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def __call__(self, batch: Any) -> Arrays:
        """The outputs, in the flat order of the reference, of one batch as that takes it."""
        ...


class Truth(Protocol):
    """What gives a reference's outputs in the highest precision."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def ends(self) -> list[str]:
        """The softmax or sigmoid that each output ends in, or ""."""
        ...

    @property
    def steps(self) -> Sequence[Step]:
        """Those that make few values of many, in the order in which a run has them."""
        ...

    def ran(self, batch: Any, noise: Noise | None = None) -> Ran:
        """What it gives on one batch."""
        ...


class AsIs:
    """A Keras model, run as its user runs it, at inference."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.name = model, model.name
        self.variables = variables_of(model)
        self.specs = input_structure(model)
        self.ends = [""] * len(tree.flatten(getattr(model, "outputs", [])))
        self.steps: Sequence[Step] = ()
        self.operations = operations(model)

    def __call__(self, batch: Any) -> Arrays:
        """See `Runner`; on the device whose scope this is in, if in one."""
        with keras.StatelessScope(placed(self.variables)):
            return self._outputs(batch)

    def ran(self, batch: Any, noise: Noise | None = None) -> Ran:
        """The same, with noise in its weights alone."""
        noisy = [] if noise is None else Drawn(noise).weights(self.model)
        with keras.StatelessScope([*placed(self.variables), *noisy]):
            outputs = self._outputs(batch)
        return Ran(outputs, outputs)

    def _outputs(self, batch: Any, run: Callable[[Any], Any] | None = None) -> Arrays:
        outputs = (run or self._run)(_tensors(batch, tree.flatten(self.specs)))
        return [keras.ops.convert_to_numpy(y) for y in outputs]

    def _run(self, tensors: list[Any]) -> list[Any]:
        # A nested model called with another structure was reported when it was built.
        with unsaid("The structure of `inputs`"):
            given = tree.pack_sequence_as(self.specs, tensors)
            return tree.flatten(self.model(given, training=False))


class InGraph(AsIs):
    """A Keras model, run as `predict` runs it: the backend may fuse calls of it."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self.graphs: dict[str, Callable[[Any], Any]] = {}  # by the device that they run on

    def __call__(self, batch: Any) -> Arrays:
        """See `Runner`."""
        where = place()
        if where not in self.graphs:
            self.graphs[where] = in_graph(self._run)
        with keras.StatelessScope(placed(self.variables)):
            return self._outputs(batch, self.graphs[where])


class _Inference(keras.Layer):
    """The call around others, from which layers inside them learn that it is none of training."""

    def __init__(self) -> None:
        super().__init__(name="inference", dtype="float32", autocast=False)

    def build(self, shape: Any) -> None:
        """Nothing."""
        self.built = True

    def call(self, x: Any, run: Callable[[], None], training: bool = False) -> Any:
        """Run something, and hand back what was given."""
        run()
        return x

    def of(self, run: Callable[[], Ran]) -> Ran:
        """What something gives that is run so."""
        found: list[Ran] = []
        self(keras.ops.zeros(()), run=lambda: found.append(run()), training=False)
        return found[0]


class Walk:
    """A functional model of its own, run call by call, as Keras runs it.

    What no later call reads is freed at once: run by Keras, every tensor lives to the end. `units`
    holds which units of its activations no batch so far has reached, `operations` what it computes
    as the backend does.

    Args:
        model: the model.
        is_copy: of one that nobody else uses: then what goes into the last activation of an output
            is looked at, for which that is taken off meanwhile, and units are watched.
            A copy in float64 runs in that, whatever the backend makes of float64 elsewhere, or of
            images that are resized and volumes that are pooled.
    """

    def __init__(self, model: keras.Model, is_copy: bool = True) -> None:
        self.model, self.name = model, model.name
        self.variables = variables_of(model)
        functional = functional_graph(model)
        assert functional is not None, model
        self.inside = inside_of(functional)
        self.specs = tree.flatten(input_structure(model))
        self.makers = {id(t): i for i, made in enumerate(self.inside.calls) for t in made.outputs}
        self.taken = steps_of(self.inside.calls, self.inside.outputs) if is_copy else {}
        self.steps = [taken.step for taken in self.taken.values()]
        self.endings = self._endings() if is_copy else {}
        self.freed = self._freed()
        calls = enumerate(self.inside.calls)
        self.flat = {index for index, made in calls if is_copy and has_flat_part(made.operation)}
        self.units = Units(layout_of(made.operation for made in self.inside.calls))
        self.is_double = is_copy and "float64" in computed_dtypes(model)
        found = enumerate(map(_exactly, self.inside.calls) if self.is_double else ())
        self.exact = {index: call for index, call in found if call is not None}
        self.operations = [
            made.operation for i, made in enumerate(self.inside.calls) if i not in self.exact
        ]
        self.inference = _Inference()
        self.last: tuple[Any, str, Ran] | None = None  # run last, of which one may ask again

    def __call__(self, batch: Any) -> Arrays:
        """See `Runner`."""
        return self.ran(batch).outputs

    def ran(self, batch: Any, noise: Noise | None = None, saw: Saw | None = None) -> Ran:
        """Run it on one batch.

        Args:
            batch: the inputs.
            noise: to be added to weights and to what calls give, the same on every batch.
            saw: told every call, and the tensors it gives.
        """
        plain, where = noise is None and saw is None, place()
        if plain and self.last is not None and self.last[0] is batch and self.last[1] == where:
            return self.last[2]
        moved = [] if self.is_double else placed(self.variables)
        with contextlib.ExitStack() as scopes:
            if self.is_double:
                scopes.enter_context(double_precision())
                scopes.enter_context(by_default("float64"))  # of layers that calls make
            scope = scopes.enter_context(keras.StatelessScope(moved))
            scopes.enter_context(unsaid())  # the original gave its own warnings
            found = self.inference.of(lambda: self._run(batch, noise, saw, scope))
        if plain:
            self.last = batch, where, found
        return found

    def _run(self, batch: Any, noise: Noise | None, saw: Saw | None, scope: Any) -> Ran:
        given = _tensors(batch, self.specs)
        values = dict(zip(map(id, self.inside.inputs), given, strict=True))
        before: dict[int, Any] = {}  # of an output, what goes into its last activation
        stepped: list[tuple[np.ndarray, np.ndarray]] = []
        drawn = None if noise is None else Drawn(noise)
        for index, made in enumerate(self.inside.calls):
            args, kwargs = tree.map_structure(
                lambda x: values[id(x)] if isinstance(x, keras.KerasTensor) else x,
                (made.args, made.kwargs),
            )
            if takes_training(made.operation):
                kwargs = {**kwargs, "training": False}
            if drawn is not None:
                noisy = drawn.weights(made.operation)
                scope.state_mapping |= {id(v): x for v, x in noisy}
            ending = self.endings.get(index)
            if ending is None:
                call = self.exact.get(index, made.operation)
                results = tree.flatten(call(*args, **kwargs))
            else:
                before[id(made.outputs[0])], result = ending.run(made.operation, args, kwargs)
                results = [result]
            if drawn is not None:
                for variable, _ in noisy:
                    scope.state_mapping.pop(id(variable), None)
                results = drawn.values(made, results, bool(noisy))
            elif index in self.flat:
                self.units.saw(made.name, results[0])
            if saw is not None:
                saw(made, results)
            if index in self.taken:
                into = self._into(self.taken[index], values, before)
                stepped.append((into, keras.ops.convert_to_numpy(results[0])))
            values.update(zip(map(id, made.outputs), results, strict=True))
            for name in self.freed[index]:
                values.pop(name, None)
        outputs = [real(keras.ops.convert_to_numpy(values[id(y)])) for y in self.inside.outputs]
        judged = [
            self.endings[self.makers[id(t)]].centred(keras.ops.convert_to_numpy(before[id(t)]))
            if id(t) in before
            else y
            for t, y in zip(self.inside.outputs, outputs, strict=True)
        ]
        return Ran(outputs, judged, stepped)

    @property
    def ends(self) -> list[str]:
        """The softmax or sigmoid that each output ends in, or ""."""
        endings = (self.endings.get(self.makers.get(id(t), -1)) for t in self.inside.outputs)
        return ["" if ending is None else str(ending) for ending in endings]

    def _endings(self) -> dict[int, Ending]:
        """The calls, by number, that are the last activation of an output."""
        last = {self.makers[id(t)] for t in self.inside.outputs if id(t) in self.makers}
        found = {i: ending_of(self.inside.calls[i]) for i in last}
        for taken in self.taken.values():
            index = self.makers.get(id(taken.tensors[0]))
            ending = None if index is None else ending_of(self.inside.calls[index])
            if index is not None and ending is not None and taken.passes(ending):
                found[index] = ending
        return {i: ending for i, ending in found.items() if ending is not None}

    def _into(
        self, taken: Taken, values: Mapping[int, Any], before: Mapping[int, Any]
    ) -> np.ndarray:
        """What counts of what a step is given, or of what goes into the softmax before it."""
        ending = self.endings.get(self.makers.get(id(taken.tensors[0]), -1))
        behind = before if ending is not None and taken.passes(ending) else {}
        tensors = (behind.get(id(t), values[id(t)]) for t in taken.tensors)
        return taken.given([keras.ops.convert_to_numpy(x) for x in tensors])

    def _freed(self) -> list[list[int]]:
        """After each call, the tensors that nothing reads any more."""
        last: dict[int, int] = {}
        for index, made in enumerate(self.inside.calls):
            last |= dict.fromkeys(map(id, symbolic((made.args, made.kwargs))), index)
            last |= {id(t): index for t in made.outputs if id(t) not in last}
        kept = set(map(id, self.inside.outputs))
        freed: dict[int, list[int]] = defaultdict(list)
        for tensor, index in last.items():
            if tensor not in kept:
                freed[index].append(tensor)
        return [freed[i] for i in range(len(self.inside.calls))]


def as_is(model: keras.Model) -> AsIs | Walk:
    """A model as its user runs it; call by call where that is the same, which holds less memory."""
    if functional_graph(model) is None or "__call__" in own_predictions(model):
        return AsIs(model)
    walk = Walk(model, is_copy=False)
    return InGraph(model) if any(map(_may_be_fused, walk.inside.calls)) else walk


def _exactly(made: Made) -> Callable[..., Any] | None:
    """What computes a call in float64 where the backend does not; None where it does."""
    return resizing(made) or pooling(made)


def _may_be_fused(made: Made) -> bool:
    """Whether a graph computes a call together with those before it, and not as it does alone."""
    return is_miscomputed(made.operation) and any(
        fused_summand(x, lambda _: True) is not None for x in symbolic((made.args, made.kwargs))
    )


def real(values: np.ndarray) -> np.ndarray:
    """An output as it is compared: at least a vector, the parts of complex numbers side by side."""
    values = np.atleast_1d(values)
    if np.iscomplexobj(values):
        return np.stack([values.real, values.imag], axis=-1)
    return values


def excused(values: Arrays, truths: Arrays, last: int) -> Arrays:
    """Outputs with NaN wherever the true ones have it, among so many of the last samples."""
    return [_excused(y, x, last) for y, x in zip(values, truths, strict=True)]


def _excused(value: np.ndarray, truth: np.ndarray, last: int) -> np.ndarray:
    whole = any(x.dtype.kind in "iub" for x in (value, truth))
    if not last or whole or value.shape != truth.shape:
        return value
    lost = np.isnan(truth)
    lost[:-last] = False
    return np.where(lost, np.asarray(np.nan, value.dtype), value)


def _where_finite(value: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if value.shape != truth.shape:
        return value
    return np.where(np.isfinite(value) & np.isfinite(truth), value, truth)


def _tensors(batch: Any, specs: Sequence[Any]) -> list[Any]:
    """The inputs in flat order, of the dtypes that a model takes them in."""
    pairs = zip(tree.flatten(batch), specs, strict=True)
    return [keras.ops.convert_to_tensor(x, dtype=spec.dtype) for x, spec in pairs]
