"""Keras model -> calls and tensors.

A layer used twice is two calls; nested models, and layers made of others, are walked through, to
any depth, so that the calls of a `Graph` are calls of plain layers and operations, in topological
order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.algebra.axis import Refused
from kerasfold.errors import UnsupportedModelError
from kerasfold.options import how_to_read
from kerasfold.read.anew import Left, Together
from kerasfold.read.batches import shape_given, shapes_anew
from kerasfold.read.inside import Inside, Made, Told, follower, idle, inside_of
from kerasfold.read.model import (
    functional_graph,
    is_masked,
    keeps_masks,
    layout_of,
    made_by,
    output_names,
    passes_masks,
    public_op,
    refuse_quantised,
    takes_other_layout,
    takes_training,
    trains_unasked,
)
from kerasfold.read.nodes import symbolic
from kerasfold.read.plain import plainly


@dataclass(frozen=True, slots=True)
class Tensor:
    """A symbolic tensor of the model; `index` is its identity."""

    index: int
    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call of one layer or operation.

    Attributes:
        index: position in `Graph.calls`.
        operation: the `keras.Layer` or `keras.Operation` that is called.
        name: its name, with the names of the nested models around it in front.
        args: positional arguments as the model's author passed them, `Tensor` for tensors.
        kwargs: the same for keyword arguments.
        outputs: the tensors it makes.
        training: the `training` flag this call was made with, or None, also where that is True
            as it is by default.
        closed: of a layer that is made of others, why its calls are not here instead; or "".
        cut: what is kept of its output, as a key for each axis; None for all of it.
        gain: what the channels of its output are multiplied by, before an inline activation, and
            before it is cut; None for nothing.
        exact: whether its constants are in float64, to be rounded to the dtype of its output, but
            to no half one.
        foreign: whether it takes channels to be elsewhere than the model has them.
        inputs: the tensors it reads, in order of appearance.
        constants: what else it is given.
    """

    index: int
    operation: keras.Operation
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    training: bool | None
    closed: str = ""
    cut: tuple[slice, ...] | None = None
    gain: Gain | None = None
    exact: bool = False
    foreign: bool = False
    inputs: tuple[Tensor, ...] = field(init=False)
    constants: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        given = tree.flatten((self.args, self.kwargs))
        inputs = tuple(x for x in given if isinstance(x, Tensor))
        constants = tuple(x for x in given if not isinstance(x, Tensor))
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "constants", constants)

    @property
    def parts(self) -> tuple[Call, ...]:
        """The calls that it does the work of, itself the first."""
        return (self,) if self.gain is None else (self, *self.gain.of)

    @property
    def kind(self) -> Any:
        """What goes by kind is known of it: its `rule`; of a call that is foreign, nothing is."""
        return None if self.foreign else self.rule

    @property
    def rule(self) -> Any:
        """The key of the lift rules: the exact class of a layer, or the `keras.ops` function."""
        operation = self.operation
        if isinstance(operation, keras.Layer):
            return type(operation)
        return public_op(type(operation))


@dataclass(frozen=True, eq=False, slots=True)
class Gain:
    """What a call multiplies the channels of its output by, too.

    Attributes:
        values: one for each channel, in float64.
        of: the calls that did it before.
    """

    values: np.ndarray
    of: tuple[Call, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """A model as a list of calls.

    Attributes:
        name: the model's name.
        inputs: the model's input structure, with `Tensor` at the leaves.
        input_layers: the `keras.layers.InputLayer` of each input, in flat order.
        outputs: the model's output structure, with `Tensor` at the leaves.
        output_names: the model's name for each output, in flat order.
        calls: every call, in topological order.
        layout: 'channels_last' or 'channels_first', as most of the calls that have one.
        opened: names of the layers whose calls are here instead of them, but for functional models.
        original: the same with calls that are equal to others, or are done together; None where
            there are none.
        together: calls that are done together.
        left: channels that are not computed any more.
        dropped: names of calls of which none are.
    """

    name: str
    inputs: Any
    input_layers: tuple[keras.layers.InputLayer, ...]
    outputs: Any
    output_names: tuple[str, ...]
    calls: tuple[Call, ...]
    layout: str
    opened: tuple[str, ...] = ()
    original: Graph | None = None
    together: tuple[Together, ...] = ()
    left: tuple[Left, ...] = ()
    dropped: tuple[str, ...] = ()


def read(
    model: keras.Model, opens: Callable[[Any], bool] = lambda _: False, told: Told | None = None
) -> Graph:
    """Read a built functional or Sequential model.

    Args:
        model: the model.
        opens: of a layer that is made of others, whether to look inside it.
        told: what is known of its layers, as by reading a part of it with the same `opens`.

    Raises:
        UnsupportedModelError: not a Keras model, a subclassed model, or one not built yet.
    """
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"kerasfold folds a keras.Model. Received: {type(model).__module__}."
            f"{type(model).__name__}{how_to_read(model)}"
        )
    functional = functional_graph(model)
    if functional is None:
        if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
            raise UnsupportedModelError(
                f"Sequential model '{model.name}' is not built, so its sizes are unknown: call "
                "model.build(input_shape) or add a keras.Input first"
            )
        raise UnsupportedModelError(
            f"model '{model.name}' of class {type(model).__name__} is subclassed: its call() is "
            "Python code, not a graph of layers. Write it as keras.Model(inputs, outputs), or "
            "fold the functional models inside it"
        )
    refuse_quantised(model)
    reader = _Reader(opens, (told or Told()).read_anew())
    inputs = tree.map_structure(reader.tensor, functional._inputs_struct)
    for source in functional._inputs:
        reader.known[id(source)] = reader.tensor(source)
    outputs = reader.walk(inside_of(functional), prefix="", training=None)
    calls = calls_read(reader.calls, outputs)
    layout = layout_of(call.operation for call in calls)
    calls = tuple(
        replace(call, foreign=True) if takes_other_layout(call.operation, layout) else call
        for call in calls
    )
    return Graph(
        name=model.name,
        inputs=inputs,
        input_layers=tuple(map(made_by, functional._inputs)),
        outputs=tree.pack_sequence_as(functional._outputs_struct, outputs),
        output_names=tuple(output_names(model)),
        calls=calls,
        layout=layout,
        opened=tuple(dict.fromkeys(reader.opened)),
    )


class _Reader:
    """Walks what is inside models and layers, and numbers what it meets."""

    def __init__(self, opens: Callable[[keras.Operation], bool], told: Told) -> None:
        self.opens, self.told = opens, told
        self.known: dict[int, Tensor] = {}
        self.calls: list[Call] = []
        self.opened: list[str] = []
        self.reshaped: dict[int, Tensor] = {}  # of a reshape's output, its input
        self.unseen: set[int] = set()  # tensors whose mask Keras's symbolic ones do not show
        self.count = 0
        self._alive: list[Any] = []  # so that no id() is given out twice

    def tensor(self, source: Any) -> Tensor:
        """The `Tensor` of a KerasTensor."""
        if id(source) not in self.known:
            tensor = Tensor(self.count, tuple(source.shape), source.dtype, is_masked(source))
            self.count += 1
            self._learn(source, tensor)
        return self.known[id(source)]

    def _shapes(
        self, made: Made, args: tuple, kwargs: dict, tensors: Sequence[Tensor]
    ) -> list[tuple[int | None, ...]]:
        """The shapes of what a call makes: as Keras says, of any batch where that was wrong."""
        given, said = [x.shape for x in tensors], [tuple(x.shape) for x in made.outputs]
        if given != [tuple(x.shape) for x in symbolic((made.args, made.kwargs))]:
            said = shapes_anew(made.operation, *_symbolic(args, kwargs)) or said
        return [shape_given(made.operation, shape, given) for shape in said]

    def _made(
        self,
        source: Any,
        shape: tuple[int | None, ...],
        operation: keras.Operation,
        given: Sequence[Tensor],
    ) -> Tensor:
        """The `Tensor` that a call makes, masked also where Keras alone shows that when it runs."""
        tensor = replace(self.tensor(source), shape=shape)
        masked = [x.shape == tensor.shape for x in given if x.masked]
        kept = bool(masked) and keeps_masks(operation, any(masked))
        passed = passes_masks(operation) and any(x.index in self.unseen for x in given)
        if not tensor.masked and (kept or passed):
            tensor = replace(tensor, masked=True)
            self.unseen.add(tensor.index)
        self._learn(source, tensor)
        return tensor

    def _learn(self, source: Any, tensor: Tensor) -> None:
        self._alive.append(source)
        self.known[id(source)] = tensor

    def walk(self, inside: Inside, prefix: str, training: bool | None) -> list[Tensor]:
        """Read every call inside a layer whose inputs are known; its outputs.

        Args:
            inside: the calls.
            prefix: of their names.
            training: the flag that Keras gives them all.
        """
        for made in inside.calls:
            args, kwargs = tree.map_structure(self._argument, (made.args, made.kwargs))
            before = self._reshaped_back(made, args)
            if before is not None:
                self._learn(made.outputs[0], before)
                continue
            if training is not None and takes_training(made.operation):
                kwargs = {**kwargs, "training": training}  # Keras: the outer flag wins
            closed = ""
            try:
                inner = self._inside(made, args, kwargs)
            except Refused as refusal:
                inner, closed = None, refusal.reason
            if inner is not None:
                self._walk_inside(inner, made, args, kwargs, prefix)
                continue
            given = _tensors((args, kwargs))
            shapes = self._shapes(made, args, kwargs, given)
            outputs = tuple(
                self._made(x, shape, made.operation, given)
                for x, shape in zip(made.outputs, shapes, strict=True)
            )
            if public_op(type(made.operation)) is keras.ops.reshape:
                self.reshaped[outputs[0].index] = args[0]
            flag = kwargs.get("training")
            if flag and training is None and trains_unasked(made.operation):
                flag = None  # Keras writes the default of the layer's `call` into its node
            name = prefix + made.name
            index, operation = len(self.calls), plainly(made.operation)
            self.calls.append(Call(index, operation, name, args, kwargs, outputs, flag, closed))
        return [self.tensor(x) for x in inside.outputs]

    def _reshaped_back(self, made: Made, args: tuple) -> Tensor | None:
        """What a tensor was before a reshape that a call takes back, as between two for steps."""
        if public_op(type(made.operation)) is not keras.ops.reshape:
            return None
        before, shape = self.reshaped.get(args[0].index), tuple(made.outputs[0].shape)
        if before is None or before.shape != shape or shape.count(None) > 1:
            return None
        return before

    def _argument(self, value: Any) -> Any:
        return self.tensor(value) if isinstance(value, keras.KerasTensor) else value

    def _inside(self, made: Made, args: tuple, kwargs: dict) -> Inside | None:
        """The calls inside a call; None of a layer that is not looked into.

        Raises:
            Refused: a model, or a layer to be looked into, whose call is no graph.
        """
        functional, follow = functional_graph(made.operation), follower(made.operation)
        if follow is None or (functional is None and not self.opens(made.operation)):
            return None
        given = _tensors((args, kwargs))
        if follow is idle and (kwargs.get("training") or any(x.masked for x in given)):
            return None
        if any(x.masked for x in given):
            raise Refused("is called on a masked tensor")
        if functional is not None and _takes(functional, args, kwargs, given):
            return inside_of(functional)
        if kwargs.get("training"):
            raise Refused("is called with training=True")
        inner, wanted = made.inside, [(x.shape, x.dtype) for x in given]
        if inner is not None and [(tuple(x.shape), x.dtype) for x in inner.inputs] == wanted:
            return inner
        kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        return follow(made.operation, *_symbolic(args, kwargs), self.opens, self.told)

    def _walk_inside(
        self, inner: Inside, made: Made, args: tuple, kwargs: dict, prefix: str
    ) -> None:
        """Read the calls inside a call."""
        name = prefix + made.name
        if functional_graph(made.operation) is None:
            self.opened.append(name)
        given = _tensors((args, kwargs))
        outside = self.known
        self.known = {}
        for source, tensor in zip(inner.inputs, given, strict=True):
            self._learn(source, tensor)
        outputs = self.walk(inner, f"{name}_", kwargs.get("training"))
        self.known = outside
        for source, tensor in zip(made.outputs, outputs, strict=True):
            self._learn(source, tensor)


def calls_read(calls: Sequence[Call], outputs: Sequence[Tensor]) -> tuple[Call, ...]:
    """The calls whose outputs are read, numbered."""
    wanted = {x.index for x in outputs}
    kept: list[Call] = []
    for call in reversed(calls):
        if any(x.index in wanted for x in call.outputs):
            kept.append(call)
            wanted |= {x.index for x in call.inputs}
    numbered = enumerate(reversed(kept))
    return tuple(call if call.index == i else replace(call, index=i) for i, call in numbered)


def read_counts(graph: Graph) -> Counter[int]:
    """How often each tensor is read, by its index: by calls, and by whoever calls the model."""
    outputs = (x for x in tree.flatten(graph.outputs) if isinstance(x, Tensor))
    return Counter(x.index for call in graph.calls for x in call.inputs) + Counter(
        x.index for x in outputs
    )


def given_others(call: Call, other: Callable[[Tensor], Tensor]) -> Call:
    """A call that is given another tensor for each; itself where none is another."""
    now = {x.index: other(x) for x in call.inputs}
    if all(now[x.index] is x for x in call.inputs):
        return call
    args, kwargs = tree.map_structure(
        lambda x: now[x.index] if isinstance(x, Tensor) else x, (call.args, call.kwargs)
    )
    return replace(call, args=args, kwargs=kwargs)


def _symbolic(args: tuple, kwargs: dict) -> Any:
    """Arguments with Keras's symbolic tensors."""
    return tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Tensor) else x,
        (args, kwargs),
    )


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in tree.flatten(value) if isinstance(x, Tensor)]


def _takes(functional: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> bool:
    """Whether a functional model is called on tensors just as it was built with, in its order."""
    rest = {k: v for k, v in kwargs.items() if k not in ("training", "inputs")}
    taken = tree.flatten((args, kwargs.get("inputs", ())))
    wanted = functional._inputs
    structure = args[0] if args else kwargs.get("inputs")
    return (
        all(v is None for v in tree.flatten(rest))
        and len(taken) == len(given) == len(wanted)
        and (len(wanted) == 1 or _same_structure(structure, functional._inputs_struct))
        and all(
            (x.shape, x.dtype) == (tuple(y.shape), y.dtype)
            for x, y in zip(given, wanted, strict=True)
        )
    )


def _same_structure(a: Any, b: Any) -> bool:
    try:
        tree.assert_same_structure(tree.lists_to_tuples(a), tree.lists_to_tuples(b))
    except (ValueError, TypeError):
        return False
    return True
