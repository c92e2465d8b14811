"""Chosen forms -> a new Keras model, of stock layers and `keras.ops` only.

Layers are always fresh: calling a layer of the source model again would add a node to it.
A tensor that is materialised keeps the name of the call that made it.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.backend import by_default, double_precision
from kerasfold.compose import Compose, exact
from kerasfold.cost import Cost
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import is_matrix_alone
from kerasfold.forms.sharing import sharing_key
from kerasfold.layers.build import Builder, Value
from kerasfold.layers.names import Names
from kerasfold.layers.rewrite import constants
from kerasfold.layers.unfused import as_difference, fused_summand, is_miscomputed
from kerasfold.lift.regions import Lifted, Regions, as_read
from kerasfold.quiet import unsaid
from kerasfold.read.calling import called
from kerasfold.read.copies import called_copy, copy_operation
from kerasfold.read.graph import Call, Tensor
from kerasfold.read.model import is_masked, made_by
from kerasfold.read.nodes import symbolic
from kerasfold.read.states import copy_policy, copy_state
from kerasfold.read.weights import Constant, as_array, is_float_array


@dataclass(frozen=True, eq=False, slots=True)
class Emission:
    """An emitted model, and the symbolic tensor of every graph tensor that it computes."""

    model: keras.Model
    tensors: Mapping[int, Value]


def emit(
    regions: Regions, forms: Mapping[int, AnyForm], compose: Compose, dtype: str | None = None
) -> Emission:
    """Build the model that chosen forms are.

    Args:
        regions: the lifted model.
        forms: of each node that is materialised, how.
        compose: gives the weights of a form.
        dtype: dtype policy for every layer and input, or None for the original's own.

    Returns:
        The uncompiled functional model, and its tensors.

    Raises:
        UnsupportedModelError: a layer that its config does not rebuild.
    """
    with contextlib.ExitStack() as scopes:
        if dtype is not None:
            scopes.enter_context(by_default(dtype))
        if dtype == "float64":
            scopes.enter_context(double_precision())
        return _Emitter(regions, forms, compose, dtype).run()


def copy(regions: Regions, dtype: str | None = None) -> Emission:
    """Build the original again, every call as it is but for identities. See `emit`."""
    regions = as_read(regions)
    kept: dict[int, AnyForm] = {
        index: Kept(node=index, reads={}, visited=tuple(lifted.added), cost=Cost())
        for index, lifted in regions.lifted.items()
    }
    return emit(regions, kept, exact(regions), dtype)


class _Emitter:
    def __init__(
        self,
        regions: Regions,
        forms: Mapping[int, AnyForm],
        compose: Compose,
        dtype: str | None,
    ) -> None:
        self.regions, self.forms, self.compose, self.dtype = regions, forms, compose, dtype
        self.graph, self.owner = regions.graph, regions.owner
        self.values: dict[int, Value] = {}  # KerasTensor by graph tensor
        self.nodes: dict[int, Value] = {}  # KerasTensor by program node
        self.copies: dict[int, keras.Operation] = {}  # by id of the original
        self.activations: dict[int, tuple[keras.Layer, keras.Layer]] = {}
        self.made: dict[Hashable, Any] = {}  # what several calls share
        self.renamed = self._output_names()
        self.names = Names(
            [layer.name for layer in self.graph.input_layers],
            {c.name for c in self.graph.calls if c.name == c.operation.name}
            | {*self.renamed.values()},
        )
        self.reads = Counter(read for form in forms.values() for read in form.reads)
        self.misread = self._misread()

    def run(self) -> Emission:
        graph = self.graph
        for layer, tensor in zip(graph.input_layers, tree.flatten(graph.inputs), strict=True):
            self.values[tensor.index] = self._input(layer)
        steps: dict[int, list[Lifted]] = defaultdict(list)
        for lifted in self.regions.lifted.values():
            steps[lifted.call.index].append(lifted)
        for call in graph.calls:
            if call.index in self.regions.barriers:
                self._keep(call)
            for lifted in steps[call.index]:
                if lifted.node in self.forms:
                    self._form(lifted, self.forms[lifted.node])
        for activation, copied in self.activations.values():
            if activation.built and not copied.built:  # Keras builds it when it first runs
                copied.build_from_config(activation.get_build_config())
            copy_state(activation, copied)
        outputs = [
            self._named_output(tensor, name)
            for tensor, name in zip(tree.flatten(graph.outputs), graph.output_names, strict=True)
        ]
        inputs = tree.map_structure(lambda t: self.values[t.index], graph.inputs)
        # The original's own mismatch of dict keys and input names was reported there.
        with unsaid("When providing `inputs` as a dict"):
            model = keras.Model(
                inputs, tree.pack_sequence_as(graph.outputs, outputs), name=graph.name
            )
        if model.output_names != list(graph.output_names):
            model.output_names = list(graph.output_names)
        return Emission(model, self.values)

    def _input(self, layer: keras.layers.InputLayer) -> Value:
        dtype = layer.dtype
        if self.dtype is not None and keras.backend.is_float_dtype(dtype):
            dtype = self.dtype
        made: Value = keras.Input(
            batch_shape=layer.batch_shape,
            dtype=dtype,
            name=layer.name,
            sparse=layer.sparse,
            optional=layer.optional,
        )
        if self.dtype is None:
            copy_policy(layer, made_by(made))
        return made

    def _tensor(self, tensor: Tensor) -> Value:
        if tensor.index in self.values:
            return self.values[tensor.index]
        return self._node(self.regions.tensors[tensor.index])

    def _policy_of(self, dtype: str) -> Any:
        """The dtype policy of the model's layers that compute in `dtype`."""
        for call in self.graph.calls:
            if getattr(call.operation, "compute_dtype", None) == dtype:
                return call.operation.dtype_policy
        return dtype

    def _node(self, node: int) -> Value:
        if node in self.nodes:
            return self.nodes[node]
        return self._tensor(self.regions.roots[node])

    def _output_names(self) -> dict[int, str]:
        """Operations, by id, that take an output's name: a nested model's, or a lost identity's."""
        maker = {t.index: call for call in self.graph.calls for t in call.outputs}
        own = {maker[t.index].index for t in tree.flatten(self.graph.outputs) if t.index in maker}
        renamed: dict[int, str] = {}
        named: set[int] = set()
        for tensor, name in zip(
            tree.flatten(self.graph.outputs), self.graph.output_names, strict=True
        ):
            call = maker.get(tensor.index)
            if call is None or tensor.index in named:
                continue
            named.add(tensor.index)
            node = self.regions.tensors.get(tensor.index)
            if node is not None and (node not in self.owner or self.owner[node].call is not call):
                # An identity: the call before it, unless that is an output itself.
                if node not in self.owner or self.owner[node].call.index in own:
                    continue
                call = self.owner[node].call
            taken = name in renamed.values() or id(call.operation) in renamed
            if not taken and call.name != name:
                renamed[id(call.operation)] = name
        return renamed

    def _call_name(self, call: Call) -> str:
        wanted = self.renamed.get(id(call.operation), call.name)
        return self.names.reserve(
            wanted, own=call.name == call.operation.name or wanted != call.name
        )

    def _in_dtype(self, value: Value, tensor: Tensor, name: str) -> Value:
        """A value in the dtype of the tensor that it stands for.

        Without the layers between, a sum of float32 inputs is float32 in a model of float16 too.
        """
        if self.dtype is not None or value.dtype == tensor.dtype:
            return value
        return self.names.give(keras.ops.cast(value, tensor.dtype), f"{name}_cast")

    def _named_output(self, tensor: Tensor, name: str) -> Value:
        """An output; behind an Identity layer where the layer that gave its name is gone."""
        value = self._in_dtype(self._tensor(tensor), tensor, name)
        if made_by(value).name != name and name not in self.names.taken:
            return keras.layers.Identity(
                name=self.names.reserve(name, own=True), dtype=value.dtype
            )(value)
        return value

    def _argument(self, value: Any, dtype: str | None) -> Any:
        """What a call is given: its tensors, and constants in the dtype that they are to be in."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, Constant):
            return np.asarray(value, self.dtype or value.written)
        if dtype is not None and is_float_array(value):
            return as_array(value).astype(dtype)
        return value

    def _kept(self, lifted: Lifted) -> Value:
        """An output of the original call, which is made once for all that are kept of it."""
        if lifted.tensor.index not in self.values:
            self._keep(lifted.call)
        return self.values[lifted.tensor.index]

    def _keep(self, call: Call) -> None:
        """The original call, on a copy of its layer; one copy for all calls of a layer."""
        operation = call.operation
        dtype = self.dtype
        if call.exact and dtype is None:  # as `constants` are
            dtype = keras.backend.result_type(call.outputs[0].dtype, "float32")
        args, kwargs = tree.map_structure(
            lambda x: self._argument(x, dtype), (call.args, call.kwargs)
        )
        if id(operation) in self.copies:
            result = called(self.copies[id(operation)], *args, **kwargs)
        else:
            self.copies[id(operation)], result = called_copy(
                *(operation, self._call_name(call), self.dtype, args, kwargs),
                gives=self._given(call, args, kwargs),
            )
        if call.gain is not None:
            gain = constants(call.gain.values, result, self.graph.layout)
            result = self.names.give(result * gain, f"{call.name}_gain")
        if call.gain is not None or call.exact:
            result = self._in_dtype(result, call.outputs[0], call.name)
        if call.cut is not None:
            result = self.names.give(result[call.cut], f"{call.name}_cut")
        for tensor, value in zip(call.outputs, tree.flatten(result), strict=True):
            self.values.setdefault(tensor.index, value)

    def _given(self, call: Call, args: Any, kwargs: Any) -> Value | None:
        """What a call gives, if it is one tensor: that of the original, on tensors like its own."""
        inputs = symbolic((args, kwargs))
        alike = all(
            (tuple(x.shape), x.dtype) == (tensor.shape, tensor.dtype) and not (x.sparse or x.ragged)
            for x, tensor in zip(inputs, call.inputs, strict=True)
        )
        whole = call.cut is None and call.gain is None and not call.exact
        if self.dtype is not None or not (whole and alike) or len(call.outputs) > 1:
            return None
        return keras.KerasTensor(call.outputs[0].shape, call.outputs[0].dtype)

    def _form(self, lifted: Lifted, form: AnyForm) -> None:
        xs = {read: self._read(read, lifted, form) for read in form.reads}
        value = form.emit(self._builder(lifted, form), self.compose(form), xs)
        value = self._in_dtype(value, lifted.tensor, lifted.call.name)
        if is_masked(value) and not lifted.tensor.masked:
            value = self.names.give(keras.ops.copy(value), f"{lifted.call.name}_unmasked")
        if form.node in self.misread:
            value = self._unfused(lifted, value)
        self.nodes[form.node] = value
        self.values[lifted.tensor.index] = value

    def _read(self, index: int, lifted: Lifted, form: AnyForm) -> Value:
        """A node as a form reads it: a pool, which may read a mask, is given none.

        No call that is lifted reads one, but a pool may stand now where a layer dropped it.
        """
        value = self._node(index)
        if not is_masked(value) or isinstance(form, Kept):
            return value
        nodes = (self.regions.program.nodes[i] for i in form.visited)
        if any(node.mean or node.work == "pool" for node in nodes):
            value = self.names.give(keras.ops.copy(value), f"{lifted.call.name}_bare")
        return value

    def _misread(self) -> set[int]:
        """Nodes that a kept activation reads with which graphs may fuse them, wrongly."""
        calls = [call for call in self.graph.calls if call.index in self.regions.barriers]
        read = (x.index for call in calls if is_miscomputed(call.operation) for x in call.inputs)
        return {self.regions.tensors[x] for x in read if x in self.regions.tensors}

    def _unfused(self, lifted: Lifted, value: Value) -> Value:
        """A sum that such an activation reads, otherwise if graphs would fuse it."""
        summand = fused_summand(value, self._is_own)
        if summand is None:
            return value
        operation, name = lifted.call.operation, made_by(value).name
        if self.regions.uses[id(operation)] > 1:
            name = self.names.reserve(f"{name}_difference")
        for index in [i for i, x in self.nodes.items() if x is summand]:
            del self.nodes[index], self.values[self.owner[index].tensor.index]
        return as_difference(value, summand, name, self.names, self.made)

    def _is_own(self, value: Value) -> bool:
        """Whether a value is composed, and read by one step alone."""
        nodes = [index for index, x in self.nodes.items() if x is value]
        if not nodes:  # a part of a form
            return not any(x is value for x in self.values.values())
        return all(
            self.reads[i] == 1 and i not in self.regions.sinks and not isinstance(form, Kept)
            for i, form in ((i, self.forms[i]) for i in nodes)
        )

    def _builder(self, lifted: Lifted, form: AnyForm) -> Builder:
        layers = [
            operation
            for operation in (self.owner[i].call.operation for i in form.visited)
            if isinstance(operation, keras.Layer)
        ]
        weighty = [layer for layer in layers if layer.weights]
        made = lifted.tensor.dtype
        return Builder(
            names=self.names,
            made=self.made,
            key=sharing_key(self.regions, form),
            policy=self.dtype
            or ((weighty or layers)[-1].dtype_policy if layers else self._policy_of(made)),
            compute_dtype=self.dtype or made,
            dtype=self.dtype,
            trainable=any(layer.trainable for layer in weighty) if weighty else True,
            layout=self.graph.layout,
            is_matrix=is_matrix_alone(self.regions, form.visited),
            visited=form.visited,
            call=lambda node: self.owner[node].call,
            keep=lambda node: self._kept(self.owner[node]),
            result=lambda: (self._call_name(lifted.call), self._activation(lifted.activation)),
            compose=self.compose,
        )

    def _activation(self, activation: Any) -> Any:
        """An inline activation; a copy of it where it is a layer, and may hold weights."""
        if not isinstance(activation, keras.Layer):
            return activation
        if id(activation) not in self.activations:
            copied = copy_operation(activation, self.names.reserve(activation.name), self.dtype)
            self.activations[id(activation)] = (activation, copied)
        return self.activations[id(activation)][1]
