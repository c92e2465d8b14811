"""What is inside a layer, as calls: of a functional model its graph, of others what `call` does.

A layer whose `call` is Python code is called once on symbolic tensors, as a model calls it at
inference. Its sublayers and `keras.ops` record what they are called on, as they do for whoever
builds a model of them. What that leaves behind in the layers is taken back.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.algebra.axis import Refused
from kerasfold.errors import UnsupportedModelError, words_of
from kerasfold.quiet import unsaid
from kerasfold.read.batches import of_any_batch
from kerasfold.read.copies import copy_operation
from kerasfold.read.model import (
    function_name,
    functional_graph,
    is_layer,
    is_masked,
    is_of_keras,
    operations,
    sublayers,
)
from kerasfold.read.nodes import maker, symbolic, topological
from kerasfold.read.plain import plainly
from kerasfold.read.told import Told, said_by


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """One call inside a layer, of KerasTensors.

    Attributes:
        operation: the layer or operation that is called.
        name: its own, or of an operation what it does.
        args: positional arguments.
        kwargs: keyword arguments.
        outputs: the tensors it makes.
        inside: the calls inside it, where they were traced with it; else None.
    """

    operation: keras.Operation
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Any, ...]
    inside: Inside | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Inside:
    """The calls that one call of a layer makes.

    Attributes:
        inputs: the KerasTensors that it is called on, in flat order.
        outputs: the KerasTensors that it gives, in flat order.
        calls: those between them, producers first.
    """

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    calls: Sequence[Made]


def inside_of(functional: Any) -> Inside:
    """The graph of a functional model."""
    inputs, outputs = functional._inputs, functional._outputs
    calls = [
        Made(
            node.operation,
            node.operation.name,
            node.arguments.args,
            node.arguments.kwargs,
            tuple(node.outputs),
        )
        for node in topological(inputs, outputs)
    ]
    return Inside(inputs, outputs, calls)


def is_composite(operation: keras.Operation) -> bool:
    """Whether a layer is made of others, and not one of Keras's own; or applies such to each step.

    A `TimeDistributed` layer around a model, or around a layer for images, is that on all steps
    as one batch.
    """
    if not is_layer(operation):
        return False
    if type(operation) is keras.layers.TimeDistributed:
        inner, shape = operation.layer, operation.get_build_config()["input_shape"]
        of_images = is_of_keras(inner) and len(shape) > 3
        return of_images or functional_graph(inner) is not None or is_composite(inner)
    return not is_of_keras(operation) and len(list(sublayers(operation))) > 1


def follower(operation: keras.Operation) -> Callable[..., Inside | None] | None:
    """How a layer is looked into, if it may be: `traced`; `idle` if it has no layers or weights."""
    if is_composite(operation) or functional_graph(operation) is not None:
        return traced
    bare = is_layer(operation) and not is_of_keras(operation) and not operation.weights
    return idle if bare and len(list(sublayers(operation))) == 1 else None


def _each_step(layer: Any, inputs: Any, **flags: Any) -> Any:
    """What a `TimeDistributed` layer computes: its layer on a batch of (batch * steps, ...)."""
    if None in inputs.shape[1:]:
        raise Refused(
            "is called on an unknown number of steps, or on steps of unknown size: give the Input "
            "both"
        )
    steps = inputs.shape[1]
    given = keras.ops.reshape(inputs, (-1, *inputs.shape[2:]))
    return tree.map_structure(
        lambda y: keras.ops.reshape(y, (-1, steps, *y.shape[1:])), layer.layer(given)
    )


# How layers of Keras's own call what is inside them, where their `call` is no graph.
_CALLS: dict[type, Callable[..., Any]] = {keras.layers.TimeDistributed: _each_step}


def traced(
    layer: keras.Layer, args: Any, kwargs: Any, opens: Callable[[Any], bool], told: Told
) -> Inside:
    """The calls that a layer makes at inference; the layer stays as it was.

    Args:
        layer: a built one.
        args: as it is called, with `keras.KerasTensor` for tensors.
        kwargs: the same, with no flag `training`.
        opens: of a layer inside, whether what is inside it is asked for too.
        told: what is known of layers from other traces, and more from this one.

    Raises:
        Refused: its call is not a graph of layers and `keras.ops`, or computes with weights of
            its own. The reason follows on the layer as a subject.
    """

    def trace() -> Inside:
        _refuse_weights(layer)
        _refuse_hidden(layer)
        inside = _Trace(layer, opens, told).run(args, kwargs)
        constants = _constants(inside)
        if constants:
            again = _constants(_Trace(layer, opens, told).run(args, kwargs))
            same = len(again) == len(constants) and all(map(np.array_equal, constants, again))
            if not same:
                raise Refused("computes with other constants in every call")
        return inside

    return told.inside(layer, args, kwargs, trace)


def idle(
    layer: keras.Layer, args: Any, kwargs: Any, opens: Callable[[Any], bool], told: Told
) -> Inside | None:
    """The same of a bare layer that hands on what it is given at inference; None of any other."""
    try:
        inside = traced(layer, args, kwargs, opens, told)
    except Refused:
        return None
    return None if inside.calls else inside


class _Trace:
    """One symbolic call of a layer."""

    def __init__(self, layer: keras.Layer, opens: Callable[[Any], bool], told: Told) -> None:
        self.layer = layer
        self.told = told
        self.parts = list(sublayers(layer))
        self.held = {id(part) for part in self.parts}
        self.opened = [
            part
            for part in self.parts
            if part is not layer
            and (functional_graph(part) is not None or (is_composite(part) and opens(part)))
        ]
        opened = {id(part) for part in (layer, *self.opened)}
        self.closed = [p for p in self.parts if id(p) not in opened and not is_of_keras(p)]
        self.found: dict[int, Inside] = {}  # by the first tensor that the call gives
        self.strays: list[tuple[keras.Layer, Any]] = []  # layers not held, with what they noted

    def run(self, args: Any, kwargs: Any) -> Inside:
        """What the layer calls. Raises `Refused`."""
        inputs = symbolic((args, kwargs))
        inside: list[Inside | Refused] = []
        self.told.tried.clear()

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                result, calls = self._recorded(self.layer, inputs, args, kwargs)
            except Refused as refusal:
                inside.append(refusal)  # in its own words: Keras adds to those of what it raises
                raise
            inside.append(calls)
            return result

        with _left_as_it_was(self.parts), keras.StatelessScope() as scope:
            vars(self.layer)["symbolic_call"] = call
            for part in self.opened:
                vars(part)["symbolic_call"] = self._opening(part)
            for part in self.closed:
                vars(part)["symbolic_call"] = self._closed(part)
            known, counts = len(self.layer.variables), _numbers(self.parts)
            try:
                with unsaid(), of_any_batch(self.parts):  # they were given when the model was built
                    self.layer(*args, **kwargs, training=False)
            except Exception as error:
                if inside and isinstance(inside[0], Refused):
                    raise inside[0] from None
                raise Refused(f"cannot be called on symbolic tensors ({words_of(error)})") from None
            finally:
                for layer, node in self.strays:
                    layer._inbound_nodes.remove(node)
            if len(self.layer.variables) != known:
                raise Refused("makes weights when it is called")
            if _numbers(self.parts) != counts:
                raise Refused("counts its calls")
        if scope.state_mapping:
            raise Refused("changes its state when it is called")
        (calls,) = inside
        assert isinstance(calls, Inside)
        self.told.keep()  # what layers give that did nothing else
        return calls

    def _opening(self, part: keras.Layer) -> Callable[..., Any]:
        """What a layer inside does when it is called: the same, and we see how.

        A functional model is one call wherever Keras takes it for one: it may be called on sizes
        that it refuses to be built on.
        """

        def whole(*args: Any, **kwargs: Any) -> Any:
            return type(part).symbolic_call(part, *args, **kwargs)

        def seen(*args: Any, **kwargs: Any) -> Any:
            _refuse_weights(part)
            result, inside = self._recorded(part, symbolic((args, kwargs)), args, kwargs)
            self.found[id(inside.outputs[0])] = inside  # which holds it, so that the id stays its
            return result

        first, second = (seen, whole) if functional_graph(part) is None else (whole, seen)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return first(*args, **kwargs)
            except Exception:
                return second(*args, **kwargs)

        return call

    def _closed(self, part: keras.Layer) -> Callable[..., Any]:
        """What a layer does that is not looked into, and whose call Keras would trace each time."""
        says = said_by(part)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = tree.flatten((args, kwargs))
            known = self.told.known(says, given)
            if known is not None:
                return known
            result = type(part).symbolic_call(part, *args, **kwargs)
            self.told.learn(says, given, result)
            return result

        return call

    def _recorded(
        self, layer: keras.Layer, inputs: Sequence[Any], args: Any, kwargs: Any
    ) -> tuple[Any, Inside]:
        """What a layer's `call` gives, and the calls it makes for it. Raises `Refused`."""
        own = _CALLS.get(type(layer))
        makers = list(map(maker, inputs))
        result = layer.call(*args, **kwargs) if own is None else own(layer, *args, **kwargs)
        outputs = tree.flatten(result)
        if not outputs or not all(isinstance(x, keras.KerasTensor) for x in outputs):
            raise Refused("gives what is no tensor that depends on its inputs")
        if makers != list(map(maker, inputs)):  # which then hides the call that gives it back
            raise Refused("calls what gives back a tensor that it was given")
        calls = [self._made(node) for node in topological(inputs, outputs)]
        return result, Inside(inputs, outputs, calls)

    def _made(self, node: Any) -> Made:
        operation, args, kwargs = node.operation, node.arguments.args, node.arguments.kwargs
        flat = tree.flatten((args, kwargs))
        if any(isinstance(x, keras.Variable) for x in flat):
            raise Refused("computes with weights of the layers inside it")
        if any(map(callable, flat)):  # whose own calls are seen nowhere
            raise Refused(f"gives a function to {type(operation).__name__}")
        if any(map(is_masked, (*node.outputs, *flat))):
            raise Refused("computes with masks")
        if is_layer(operation) and id(operation) not in self.held:
            if operation.weights:
                raise Refused(f"calls layer '{operation.name}', which it does not hold")
            self.strays.append((operation, node))  # such as one made in the call
        inside = self.found.get(id(node.outputs[0]))
        if inside is None and not (is_layer(operation) and is_of_keras(operation)):
            operation = _written(plainly(operation), node.input_tensors, self.told.written)
        kwargs = {k: v for k, v in kwargs.items() if k != "mask"}
        # It follows the flag of the model, as the whole layer does.
        if kwargs.pop("training", False):  # and here goes before it, as it would not in a graph
            raise Refused(f"calls '{operation.name}' with training=True")
        name = operation.name if is_layer(operation) else function_name(type(operation))
        return Made(operation, name, args, kwargs, tuple(node.outputs), inside)


def _numbers(layers: Iterable[keras.Layer]) -> list[dict[str, Any]]:
    """The numbers that layers hold: one that changes them may compute with them next time."""
    return [{k: v for k, v in vars(x).items() if type(v) in (int, float)} for x in layers]


def _refuse_weights(layer: keras.Layer) -> None:
    if layer._trainable_variables or layer._non_trainable_variables:
        raise Refused("computes with weights of its own")


def _refuse_hidden(layer: keras.Layer) -> None:
    """Refuse parts that refer to layers they do not own: a copy of one alone would lack those."""
    for part in sublayers(layer):
        if part is layer or is_of_keras(part):
            continue
        own = {id(x) for x in sublayers(part)}
        values = vars(part).values()
        lists = (x.values() if isinstance(x, dict) else x for x in values if _is_container(x))
        for x in (*values, *itertools.chain.from_iterable(lists)):
            if is_layer(x) and id(x) not in own:
                raise Refused(f"holds layer '{part.name}', which uses layer '{x.name}' of another")


def _is_container(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict))


def _written(
    operation: keras.Operation, inputs: Sequence[Any], known: set[Hashable]
) -> keras.Operation:
    """An operation as it can be written into a model again.

    A `reshape` to a shape with an unknown batch is one that works the size of the batch out.

    Args:
        operation: the operation.
        inputs: the tensors that it is called on.
        known: what layers say that can be, and what this one says, if so.

    Raises:
        Refused: one that cannot.
    """
    if is_layer(operation) and said_by(operation) in known:
        return operation
    try:
        config = copy_operation(operation, operation.name, None).get_config()
    except UnsupportedModelError as error:
        raise Refused(f"holds what cannot be rebuilt: {error}") from None
    if is_layer(operation):
        known.add(said_by(operation))
        return operation
    unknown = [
        key for key, value in config.items() if isinstance(value, (list, tuple)) and None in value
    ]
    if not unknown:
        return operation
    shape = _of_any_batch(config["newshape"], inputs[0].shape) if unknown == ["newshape"] else None
    if shape is None:
        raise Refused(f"gives an unknown size to {type(operation).__name__}")
    return type(operation).from_config({**config, "newshape": shape})


def _of_any_batch(shape: Sequence[int | None], before: Sequence[int | None]) -> Any:
    """A new shape with one unknown size as -1, or None where it is not that alone."""
    if sum(n is None for n in shape) > 1:
        return None
    known = tuple(-1 if n is None else n for n in shape)
    if -1 not in shape:
        return known
    if None in before[1:]:
        return None
    sizes = math.prod(
        n for n in before[1:] if n is not None
    )  # so that the batch is the unknown one
    inferred = sizes // math.prod(n for n in known if n != -1)
    return tuple(-1 if n is None else inferred if n == -1 else n for n in shape)


_PLAIN = (keras.KerasTensor, int, str, type(None), slice)


def _constants(inside: Inside) -> list[np.ndarray]:
    """The numbers among the arguments of the calls, to any depth; counts and places are none."""
    arrays: list[np.ndarray] = []
    for made in inside.calls:
        if made.inside is not None:
            arrays += _constants(made.inside)
        arrays += [
            np.asarray(keras.ops.convert_to_numpy(x))
            for x in tree.flatten((made.args, made.kwargs))
            if isinstance(x, (float, np.ndarray, np.generic))
            or (not isinstance(x, _PLAIN) and keras.ops.is_tensor(x))
        ]
    return arrays


@contextlib.contextmanager
def _left_as_it_was(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Take back what layers note of calls meanwhile: attributes set, and items appended."""
    touched = dict.fromkeys(layers)
    touched |= dict.fromkeys(
        operation
        for layer in layers
        if isinstance(layer, keras.Model)
        for operation in operations(layer)
    )
    held = [(vars(operation), dict(vars(operation))) for operation in touched]
    lists = [(v, len(v)) for _, own in held for v in own.values() if isinstance(v, list)]
    try:
        yield
    finally:
        for now, before in held:
            for key in now.keys() - before.keys():
                del now[key]
            now.update((k, v) for k, v in before.items() if now.get(k) is not v)
        for values, length in lists:
            del values[length:]
