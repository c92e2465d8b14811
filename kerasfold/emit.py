"""Plan -> a new Keras model, of stock layers and `keras.ops` only.

Layers are always fresh: calling a layer of the source model again would add a node to it.
A tensor that the plan materialises keeps the name of the call that made it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.algebra.axis import Axis, Pair
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator, concatenate
from kerasfold.algebra.tiles import Group, Place, mirrored, products
from kerasfold.layers.limits import is_depthwise_layer
from kerasfold.layers.rewrite import (
    constant_ones,
    homogeneous,
    on_image,
    pad_value,
    unpadded,
    written_kernel,
)
from kerasfold.layers.spelling import keras_padding, transposed_padding
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Lifted, Regions
from kerasfold.plan import Plan
from kerasfold.read.copies import blank_weights, copy_operation, copy_state
from kerasfold.read.graph import Call, Tensor
from kerasfold.read.weights import largest
from kerasfold.segment import Segment, framed_geometries

Compose = Callable[[Segment], Mapping[Any, Operator | None]]


@dataclass(frozen=True, eq=False, slots=True)
class Emission:
    """An emitted model, and the symbolic tensor of every graph tensor that it computes."""

    model: keras.Model
    tensors: Mapping[int, Any]


def emit(regions: Regions, plan: Plan, composed: Compose, dtype: str | None = None) -> Emission:
    """Build the planned model.

    Args:
        regions: the lifted model.
        plan: what to materialise, and how.
        composed: gives the operators of a segment that is not kept, by the node they read
            (of a 'separable' one, by 'depthwise' and 'pointwise').
        dtype: dtype policy for every layer and input, or None for the original's own.

    Returns:
        The uncompiled functional model, and its tensors.

    Raises:
        UnsupportedModelError: a layer that its config does not rebuild.
    """
    return _Emitter(regions, plan, composed, dtype).run()


class _Emitter:
    def __init__(self, regions: Regions, plan: Plan, composed: Compose, dtype: str | None) -> None:
        self.regions, self.plan, self.composed, self.dtype = regions, plan, composed, dtype
        self.graph = regions.graph
        self.values: dict[int, Any] = {}  # KerasTensor by graph tensor
        self.nodes: dict[int, Any] = {}  # KerasTensor by program node
        self.copies: dict[int, keras.Operation] = {}  # by id of the original
        self.activations: dict[int, tuple[keras.Layer, keras.Layer]] = {}
        self.joints: dict[tuple[int, ...], Any] = {}  # KerasTensor by the nodes it holds
        self.made: dict[Any, keras.Layer] = {}  # emitted layers that several calls share
        self.names: set[str] = {layer.name for layer in self.graph.input_layers}
        # Layers at the top keep their names; those lifted out of nested models give way.
        self.outer = {c.name for c in self.graph.calls if c.name == c.operation.name}
        self.owner = regions.owner
        self.renamed = self._output_names()

    def run(self) -> Emission:
        graph = self.graph
        for layer, tensor in zip(graph.input_layers, tree.flatten(graph.inputs), strict=True):
            self.values[tensor.index] = self._input(layer)
        steps: dict[int, Lifted] = {
            lifted.call.index: lifted for lifted in self.regions.lifted.values()
        }
        for call in graph.calls:
            if call.index in self.regions.barriers:
                self._keep(call)
            elif call.index in steps and steps[call.index].node in self.plan.segments:
                self._segment(steps[call.index], self.plan.segments[steps[call.index].node])
        for activation, copied in self.activations.values():
            if activation.built and not copied.built:  # Keras builds it when it first runs
                copied.build_from_config(activation.get_build_config())
            copy_state(activation, copied)
        outputs = [
            self._named_output(tensor, name)
            for tensor, name in zip(tree.flatten(graph.outputs), graph.output_names, strict=True)
        ]
        inputs = tree.map_structure(lambda t: self.values[t.index], graph.inputs)
        with warnings.catch_warnings():
            # The original's own mismatch of dict keys and input names was reported there.
            warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
            model = keras.Model(
                inputs, tree.pack_sequence_as(graph.outputs, outputs), name=graph.name
            )
        if model.output_names != list(graph.output_names):
            model.output_names = list(graph.output_names)
        return Emission(model, self.values)

    # ------------------------------------------------------------------------ tensors

    def _input(self, layer: keras.layers.InputLayer) -> Any:
        dtype = layer.dtype
        if self.dtype is not None and keras.backend.is_float_dtype(dtype):
            dtype = self.dtype
        return keras.Input(
            batch_shape=layer.batch_shape,
            dtype=dtype,
            name=layer.name,
            sparse=layer.sparse,
            optional=layer.optional,
        )

    def _tensor(self, tensor: Tensor) -> Any:
        if tensor.index in self.values:
            return self.values[tensor.index]
        return self._node(self.regions.tensors[tensor.index])

    def policy_of(self, dtype: str) -> Any:
        """The dtype policy of the model's layers that compute in `dtype`."""
        for call in self.graph.calls:
            if getattr(call.operation, "compute_dtype", None) == dtype:
                return call.operation.dtype_policy
        return dtype

    def _node(self, node: int) -> Any:
        if node in self.nodes:
            return self.nodes[node]
        return self._tensor(self.regions.roots[node])

    # -------------------------------------------------------------------------- names

    def _name(self, wanted: str, own: bool = False) -> str:
        """A legal name that nothing else has; its `own` name for a layer at the top."""
        name, count = wanted, 0
        while name in self.names or (name in self.outer and not (own and name == wanted)):
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name

    def named(self, value: Any, wanted: str) -> Any:
        """The output of a `keras.ops` call, under a name that no layer of the model has."""
        return self.named_exactly(value, self._name(wanted))

    def named_exactly(self, value: Any, name: str) -> Any:
        """The output of a `keras.ops` call, under a name that is reserved already."""
        value._keras_history.operation.name = name
        return value

    def _output_names(self) -> dict[int, str]:
        """Operations, by id, that take an output's name: a nested model's, or a lost identity's."""
        maker = {t.index: call for call in self.graph.calls for t in call.outputs}
        own = {maker[t.index].index for t in tree.flatten(self.graph.outputs) if t.index in maker}
        renamed: dict[int, str] = {}
        for tensor, name in zip(
            tree.flatten(self.graph.outputs), self.graph.output_names, strict=True
        ):
            call = maker.get(tensor.index)
            if call is None:
                continue
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
        return self._name(wanted, own=call.name == call.operation.name or wanted != call.name)

    def _named_output(self, tensor: Tensor, name: str) -> Any:
        """An output; behind an Identity layer where the layer that gave its name is gone."""
        value = self._tensor(tensor)
        made_by = value._keras_history.operation
        identity = any(tensor is lifted.call.outputs[0] for lifted in self.regions.identities)
        if made_by.name != name and identity and name not in self.names:
            return keras.layers.Identity(name=self._name(name, own=True), dtype=value.dtype)(value)
        return value

    # ------------------------------------------------------------------ kept as they are

    def _keep(self, call: Call) -> Any:
        """The original call, on a copy of its layer; one copy for all calls of a layer."""
        operation = call.operation
        args, kwargs = tree.map_structure(
            lambda x: self._tensor(x) if isinstance(x, Tensor) else x, (call.args, call.kwargs)
        )
        fresh = id(operation) not in self.copies
        if fresh:
            self.copies[id(operation)] = copy_operation(
                operation, self._call_name(call), self.dtype
            )
        copied = self.copies[id(operation)]
        if fresh:
            with blank_weights(copied):
                result = copied(*args, **kwargs)
            copy_state(operation, copied)
        else:
            result = copied(*args, **kwargs)
        for tensor, value in zip(call.outputs, tree.flatten(result), strict=True):
            self.values[tensor.index] = value
        return result

    # ------------------------------------------------------------------------ segments

    def _segment(self, lifted: Lifted, segment: Segment) -> None:
        call = lifted.call
        if segment.form == "keep":
            self.nodes[segment.node] = self._keep(call)
            return
        name, key = self._call_name(call), self._sharing_key(segment)
        style = _Style(self, segment, key)
        activation = self._activation(lifted.activation)
        if segment.form == "separable":
            (root,) = segment.terms
            weights = self.composed(segment)
            value = style.separable(
                self._node(root), weights["depthwise"], weights["pointwise"], name, activation
            )
        elif segment.form == "pooled":
            (root,) = segment.terms
            operator = self.composed(segment)["operator"]
            assert operator is not None
            value = style.pooled(self._node(root), operator, name, activation)
        elif segment.form == "joined":
            value = self._joint_slice(segment, style, name, activation)
        elif segment.form == "framed":
            (root,) = segment.terms
            value = style.framed(self._node(root), self.composed(segment), name, activation)
        elif segment.form == "tiled":
            (root,) = segment.terms
            value = style.tiled(self._node(root), self.composed(segment), name, activation)
        else:
            terms = self.composed(segment)
            single = len(terms) == 1
            parts = [
                self._node(root)
                if operator is None
                else style.convolution(
                    self._node(root),
                    operator,
                    name if single else self._name(f"{name}_{i}"),
                    activation if single else None,
                    i,
                )
                for i, (root, operator) in enumerate(terms.items())
            ]
            value = parts[0]
            if not single:
                added = name if activation is None else self._name(f"{name}_sum")
                value = style.layer(keras.layers.Add, "sum", name=added)(parts)
                if activation is not None:
                    value = style.activated(value, activation, name)
        self.nodes[segment.node] = value
        self.values[call.outputs[0].index] = value

    def _joint_slice(self, segment: Segment, style: _Style, name: str, activation: Any) -> Any:
        """The channels of one node, of the convolution that its siblings share."""
        (root,) = segment.terms
        siblings = segment.siblings
        if siblings not in self.joints:
            parts = []
            for sibling in siblings:
                (operator,) = self.composed(self.plan.segments[sibling]).values()
                assert operator is not None
                parts.append(operator)
            label = self._name(f"{name}_joined")
            self.joints[siblings] = style.convolution(
                self._node(root), concatenate(parts), label, None, "joined"
            )
        widths = [self.regions.program.nodes[sibling].channels for sibling in siblings]
        start = sum(widths[: siblings.index(segment.node)])
        place: list[Any] = [slice(None)] * len(self.joints[siblings].shape)
        axis = 1 if self.graph.layout == "channels_first" else -1
        place[axis] = slice(start, start + self.regions.program.nodes[segment.node].channels)
        cut = name if activation is None else self._name(f"{name}_slice")
        value = self.named_exactly(self.joints[siblings][tuple(place)], cut)
        return value if activation is None else style.activated(value, activation, name)

    def _activation(self, activation: Any) -> Any:
        """An inline activation; a copy of it where it is a layer, and may hold weights."""
        if not isinstance(activation, keras.Layer):
            return activation
        if id(activation) not in self.activations:
            copied = copy_operation(activation, self._name(activation.name), self.dtype)
            self.activations[id(activation)] = (activation, copied)
        return self.activations[id(activation)][1]

    def _sharing_key(self, segment: Segment) -> Any:
        """Equal for segments that are the same layers over again, so that they may share weights.

        They do where those are emitted alike, with equal weights: the sizes of images may differ.
        """
        owners = [self.owner[i].call.operation for i in segment.visited]
        weighty = {id(o) for o in owners if isinstance(o, keras.Layer) and o.weights}
        if not weighty or min(self.regions.uses[o] for o in weighty) == 1:
            return object()
        place = {node: i for i, node in enumerate(segment.visited)}
        roots: dict[int, int] = {}
        steps = []
        for index, owner in zip(segment.visited, owners, strict=True):
            node = self.regions.program.nodes[index]
            reads = tuple(
                ("inside", place[o]) if o in place else ("root", roots.setdefault(o, len(roots)))
                for o in node.operands
            )
            what = id(owner) if id(owner) in weighty else _content(node)
            steps.append((what, index - self.owner[index].start, self._constants(index), reads))
        activation = id(self.owner[segment.node].activation)
        return tuple(steps), segment.form, activation

    def _constants(self, index: int) -> str:
        """What else than tensors a node's call was given."""
        call = self.owner[index].call
        rest = [x for x in tree.flatten((call.args, call.kwargs)) if not isinstance(x, Tensor)]
        return repr(rest)


class _Style:
    """The layers of one segment: their dtype policy, layout, and sharing."""

    def __init__(self, emitter: _Emitter, segment: Segment, key: Any) -> None:
        self.emitter, self.segment, self.key = emitter, segment, key
        layers = [
            emitter.owner[i].call.operation
            for i in segment.visited
            if isinstance(emitter.owner[i].call.operation, keras.Layer)
        ]
        weighty = [layer for layer in layers if layer.weights]
        self.policy = emitter.dtype or (
            (weighty or layers)[-1].dtype_policy
            if layers
            else emitter.policy_of(emitter.owner[segment.node].call.outputs[0].dtype)
        )
        self.compute_dtype = emitter.dtype or emitter.owner[segment.node].call.outputs[0].dtype
        self.trainable = any(layer.trainable for layer in weighty) if weighty else True
        self.layout = emitter.graph.layout

    def layer(self, kind: Any, role: Any, **config: Any) -> keras.Layer:
        """A layer of this segment; the same one wherever the segment is repeated."""
        key = self._key(kind, role, config)
        if key not in self.emitter.made:
            self.emitter.made[key] = kind(dtype=self.policy, trainable=self.trainable, **config)
        return self.emitter.made[key]

    def _key(self, kind: Any, role: Any, config: Mapping[str, Any]) -> Any:
        """What a layer of this segment is, but for its name and its weights."""
        settings = frozenset((k, v) for k, v in config.items() if k != "name")
        return self.key, role, kind, settings

    def copied(self, node: int, x: Any, name: str) -> Any:
        """The pool or upsampling layer that a node is, on another tensor."""
        key = (self.key, ("copy", self.segment.visited.index(node)))
        if key not in self.emitter.made:
            operation = self._call(node).operation
            self.emitter.made[key] = copy_operation(operation, name, self.emitter.dtype)
        return self.emitter.made[key](x)

    def pooled(self, x: Any, operator: Operator, name: str, activation: Any) -> Any:
        """A pool or an upsampling, and one convolution, in the cheaper order."""
        segment, reserve = self.segment, self.emitter._name
        assert segment.middle is not None
        pool = segment.middle
        if segment.pool_first:
            moved = reserve(f"{name}_moved" if pool == segment.node else self._call(pool).name)
            x = self.copied(pool, x, moved)
            return self.convolution(x, operator, name, activation, "operator")
        x = self.convolution(x, operator, reserve(f"{name}_operator"), None, "operator")
        if activation is None:
            return self.copied(pool, x, name)
        return self.activated(self.copied(pool, x, reserve(f"{name}_pool")), activation, name)

    def _call(self, node: int) -> Call:
        return self.emitter.owner[node].call

    def framed(
        self, x: Any, weights: Mapping[Any, Operator | None], name: str, activation: Any
    ) -> Any:
        """The interior by one convolution, the border by the stages on thin strips."""
        stages = [op for role, op in weights.items() if role != "interior" and op is not None]
        interior = weights["interior"]
        assert interior is not None
        _, strips = framed_geometries([stage.geometry for stage in stages])
        image = self.convolution(
            x, interior, self.emitter._name(f"{name}_interior"), None, "interior"
        )
        last = len(strips) - 1
        for axis in reversed(range(len(interior.geometry.axes))):
            parts = {1: image}  # low strip, interior, high strip
            for number, (strip_axis, side, geometries) in enumerate(strips):
                if strip_axis == axis:
                    parts[2 * side] = self._strip(
                        x, stages, geometries, f"{name}_border_{number}", name
                    )
            if len(parts) > 1:
                done = activation is None and axis == strips[0][0]
                ordered = [parts[position] for position in sorted(parts)]
                image = self._joined(ordered, axis, name, done)
        if activation is not None or last < 0:
            image = self.activated(image, activation or "linear", name)
        return image

    def tiled(
        self, x: Any, weights: Mapping[Any, Operator | None], name: str, activation: Any
    ) -> Any:
        """The tiles of one group of each axis by one convolution, joined along the last first."""
        parts = self.segment.parts
        split = [axis for axis, groups in enumerate(parts) if len(groups) > 1]

        def row(groups: tuple[Group, ...]) -> Any:
            axis = len(groups)
            if axis == len(parts):
                tiles = {place: weights[box] for place, box in products(groups).items()}
                return self._mirrored(x, tiles, name, groups)
            pieces: dict[Pair, Any] = {}
            for group in parts[axis]:
                outputs = self._split(row((*groups, group)), len(group), axis, name)
                pieces |= {p: y for p, y in zip(group, outputs, strict=True) if p is not None}
            ordered = [pieces[part] for part in sorted(pieces)]
            if axis not in split:
                return ordered[0]
            return self._joined(
                ordered, axis, name, activation is None and axis == split[0], groups
            )

        image = row(())
        if split and activation is None:
            return image
        return self.activated(image, activation or "linear", name)

    def _mirrored(self, x: Any, tiles: Mapping[Place, Any], name: str, role: Any) -> Any:
        """Tiles as the outputs of one convolution; what their biases differ by is added."""
        operator, biases = mirrored(tiles)
        label = self.emitter._name(f"{name}_tile")
        image = self.convolution(x, operator, label, None, ("tile", role))
        if biases is None:
            return image
        if self.layout == "channels_first":
            biases = np.moveaxis(biases, -1, 0)
        # In this order: TensorFlow's backend takes a second summand of one axis for a bias, of
        # the last axis, or the second, where that is as long.
        added = keras.ops.add(biases[None].astype(image.dtype), image)
        return self.emitter.named(added, f"{name}_tile_bias")

    def _split(self, x: Any, count: int, axis: int, name: str) -> list[Any]:
        """The outputs of a convolution along a spatial axis, one by one.

        By a split and not by cropping layers: OpenVINO moves its transpositions past it.
        """
        if count == 1:
            return [x]
        parts = keras.ops.split(x, count, axis=axis + (2 if self.layout == "channels_first" else 1))
        self.emitter.named(parts[0], f"{name}_split")
        return list(parts)

    def _joined(self, parts: list[Any], axis: int, name: str, last: bool, key: Any = ()) -> Any:
        """Parts of an image put together along a spatial axis; under its name if that is all."""
        label = name if last else self.emitter._name(f"{name}_join_{axis}")
        place = axis + (2 if self.layout == "channels_first" else 1)
        return self.layer(keras.layers.Concatenate, ("join", axis, key), name=label, axis=place)(
            parts
        )

    def _strip(
        self, x: Any, stages: list[Operator], geometries: list[Geometry], name: str, shared: str
    ) -> Any:
        """One strip of the border: every stage on the pixels that the next one reads."""
        for position, (stage, geometry) in enumerate(zip(stages, geometries, strict=True)):
            label = f"{name}_{position}"
            if stage.geometry.normalised:
                x = self._cut_out(x, position, stage.geometry, geometry, label)
                continue
            role = ("stage", position)
            own = self.emitter._name(f"{shared}_stage_{position}")
            operator = Operator(geometry, stage.kernel, stage.bias)
            if any(axis.upsampling > 1 for axis in geometry.axes):
                common = {"name": own, "activation": None, "use_bias": geometry.biased}
                x = self._transposed_whole(x, operator, common, role)
                continue
            crops, pads = [a.crop for a in geometry.axes], [a.pad for a in geometry.axes]
            x = self._pad_and_crop(x, crops, pads, label)
            bare = tuple(Axis(None, a.taps, a.stride, a.dilation) for a in geometry.axes)
            operator = replace(operator, geometry=replace(geometry, axes=bare))
            x = self.convolution(x, operator, own, None, role)
        return x

    def _cut_out(self, x: Any, position: int, whole: Geometry, part: Geometry, name: str) -> Any:
        """Some outputs of a normalised operator, by its own layer on what they read.

        The layer runs on a cut of the image, with zeros at the cut edges so that its windows
        fall where they did, and its outputs that see a cut edge are dropped.
        """
        pads, drops = [], []
        for axis, full in zip(part.axes, whole.axes, strict=True):
            assert axis.size is not None
            assert axis.out is not None
            assert full.size is not None
            seen, step = axis.size - sum(axis.crop), axis.stride
            # A 'same' layer pads by the remainder of the size.
            low = (axis.pad[0] - full.pad[0]) % step
            high = (full.size - low - seen) % step
            given = -(-(low + seen + high) * axis.upsampling // step)
            first = (low * axis.upsampling - axis.pad[0] + full.pad[0]) // step
            pads.append((low, high))
            drops.append((first, given - first - axis.out))
        x = self._pad_and_crop(x, [a.crop for a in part.axes], pads, name)
        (node,) = self.segment.stages[position]
        x = self.copied(node, x, self.emitter._name(f"{name}_pool"))
        return self._pad_and_crop(x, drops, [(0, 0)] * len(drops), f"{name}_cut")

    def convolution(self, x: Any, operator: Operator, name: str, activation: Any, role: Any) -> Any:
        """One convolution, with the padding it needs."""
        geometry, kernel = operator.geometry, operator.kernel
        rank = len(geometry.axes)
        common: dict[str, Any] = {
            "name": name,
            "activation": activation,
            "use_bias": geometry.biased,
        }
        if operator.ones is not None and geometry.vector:
            operator = constant_ones(operator)
            geometry, common["use_bias"] = operator.geometry, True
        if operator.ones is not None:
            value = pad_value(operator, largest(self.compute_dtype))
            if value is None:
                x = self._with_ones(x, geometry, name)
                operator = homogeneous(operator)
            else:
                x = self._padded_with(x, geometry, value, name)
                operator = unpadded(operator, value)
                common["use_bias"] = True
            geometry, kernel = operator.geometry, operator.kernel
        if geometry.vector:
            return self._vector(x, operator, common, role)
        if any(axis.upsampling > 1 for axis in geometry.axes):
            return self._transposed(x, operator, common, role)
        if rank == 0:
            return self._weighted(
                keras.layers.Dense,
                role,
                x,
                {"kernel": kernel, "bias": operator.bias},
                units=geometry.channels[1],
                **common,
            )
        x, padding = self._padded(x, geometry, name)
        kernel, geometry = written_kernel(kernel, geometry)
        common |= self._window(geometry, padding)
        if is_depthwise_layer(geometry):
            shape = (*geometry.taps, geometry.channels[0], -1)
            kernel = kernel.reshape(shape)
            return self._weighted(
                _kind("DepthwiseConv", rank),
                role,
                x,
                {"kernel": kernel, "bias": operator.bias},
                initializers={"kernel": "depthwise_initializer"},
                depth_multiplier=kernel.shape[-1],
                **common,
            )
        return self._weighted(
            _kind("Conv", rank),
            role,
            x,
            {"kernel": kernel, "bias": operator.bias},
            filters=geometry.channels[1],
            groups=geometry.groups,
            **common,
        )

    def _vector(self, x: Any, operator: Operator, common: dict[str, Any], role: Any) -> Any:
        """An operator with one output pixel, as a vector: a Dense layer where it sees all."""
        geometry, name = operator.geometry, common["name"]
        kernel = on_image(operator)
        if geometry.groups == 1 and kernel is not None:
            x = self.layer(
                keras.layers.Flatten,
                (role, "flat"),
                name=self.emitter._name(f"{name}_flat"),
                data_format=self.layout,
            )(x)
            return self._weighted(
                keras.layers.Dense,
                role,
                x,
                {"kernel": kernel.reshape(-1, geometry.channels[1]), "bias": operator.bias},
                units=geometry.channels[1],
                **common,
            )
        image = Operator(replace(geometry, vector=False), operator.kernel, operator.bias)
        x = self.convolution(x, image, self.emitter._name(f"{name}_image"), None, role)
        activation = common["activation"]
        flat = name if activation is None else self.emitter._name(f"{name}_flat")
        x = self.layer(keras.layers.Flatten, (role, "flat"), name=flat, data_format=self.layout)(x)
        return x if activation is None else self.activated(x, activation, name, role)

    def activated(self, x: Any, activation: Any, name: str, role: Any = None) -> Any:
        """An activation in a layer of its own, which takes the name of the call."""
        return self.layer(
            keras.layers.Activation, (role, "activation"), name=name, activation=activation
        )(x)

    def _transposed(self, x: Any, operator: Operator, common: dict[str, Any], role: Any) -> Any:
        """An upsampling operator: a transposed convolution, padded as Keras can say it."""
        padding = transposed_padding(operator.geometry)
        if padding is None:
            return self._transposed_whole(x, operator, common, role)
        return self._transposed_layer(x, operator, role, **padding, **common)

    def _transposed_whole(
        self, x: Any, operator: Operator, common: dict[str, Any], role: Any
    ) -> Any:
        """An upsampling operator, cut from all that a transposed convolution can give."""
        axes, name = operator.geometry.axes, common["name"]
        # The full result, L(n - 1) + span samples, starts span - 1 - lo before ours does.
        pads = [(_input_padding(a, 0), _input_padding(a, 1)) for a in axes]
        x = self._pad_and_crop(x, [a.crop for a in axes], pads, name)
        crops = [
            (
                a.span - 1 - a.pad[0] + a.upsampling * pad[0],
                a.span - 1 - a.pad[1] + a.upsampling * pad[1],
            )
            for a, pad in zip(axes, pads, strict=True)
        ]
        short = any(a.span < a.upsampling for a in axes)
        full: dict[str, Any] = {
            "padding": "valid",
            "output_padding": (0,) * len(axes) if short else None,
        }
        if not any(map(any, crops)):
            return self._transposed_layer(x, operator, role, **full, **common)
        activation = common["activation"]
        common = {**common, "activation": None, "name": self.emitter._name(f"{name}_full")}
        x = self._transposed_layer(x, operator, role, **full, **common)
        last = name if activation is None else self.emitter._name(f"{name}_crop")
        x = self._cropped(x, crops, last)
        if activation is None:
            return x
        return self.activated(x, activation, name, role)

    def _transposed_layer(self, x: Any, operator: Operator, role: Any, **config: Any) -> Any:
        rank = len(operator.geometry.axes)
        kernel, _ = written_kernel(operator.kernel, operator.geometry)
        kernel = np.flip(kernel, axis=tuple(range(rank))).swapaxes(-1, -2)
        return self._weighted(
            _kind("Conv", rank, "Transpose"),
            role,
            x,
            {"kernel": kernel, "bias": operator.bias},
            filters=operator.geometry.channels[1],
            kernel_size=kernel.shape[:rank],
            strides=tuple(a.upsampling for a in operator.geometry.axes),
            data_format=self.layout,
            **config,
        )

    def separable(
        self, x: Any, first: Operator | None, last: Operator | None, name: str, activation: Any
    ) -> Any:
        """A SeparableConv layer."""
        assert first is not None
        assert last is not None
        geometry = first.geometry
        x, padding = self._padded(x, geometry, name)
        depthwise = first.kernel.reshape(*geometry.taps, geometry.channels[0], -1)
        return self._weighted(
            _kind("SeparableConv", len(geometry.axes)),
            "separable",
            x,
            {"depthwise_kernel": depthwise, "pointwise_kernel": last.kernel, "bias": last.bias},
            initializers={
                "depthwise_kernel": "depthwise_initializer",
                "pointwise_kernel": "pointwise_initializer",
            },
            filters=last.geometry.channels[1],
            depth_multiplier=depthwise.shape[-1],
            name=name,
            activation=activation,
            use_bias=last.geometry.biased,
            **self._window(geometry, padding),
        )

    def _window(self, geometry: Geometry, padding: str) -> dict[str, Any]:
        strides = tuple(axis.stride for axis in geometry.axes)
        if padding == "valid" and not geometry.is_depthwise:
            # OpenVINO 2026.4 computes columns of one pixel wrongly, in bfloat16, with a stride;
            # a depthwise layer needs equal strides.
            cut = keras_padding(geometry) is None
            strides = tuple(
                1 if _is_one_window(axis, cut) else axis.stride for axis in geometry.axes
            )
        return {
            "kernel_size": geometry.taps,
            "strides": strides,
            "dilation_rate": tuple(axis.dilation for axis in geometry.axes),
            "padding": padding,
            "data_format": self.layout,
        }

    def _weighted(
        self,
        kind: Any,
        role: Any,
        x: Any,
        weights: dict[str, np.ndarray],
        initializers: Mapping[str, str] | None = None,
        **config: Any,
    ) -> Any:
        """Call a layer whose variables start as `weights`, at no second copy."""
        if isinstance(self.key, tuple):  # not an object of its own: other segments may share it
            digests = (hashlib.sha256(w.tobytes()).digest() for w in weights.values())
            role = (role, *digests)
        known = self.emitter.made.get(self._key(kind, role, config))
        if known is not None:
            return known(x)
        layer: Any = self.layer(kind, role, **config)
        attributes = {
            name: (initializers or {}).get(name, f"{name}_initializer") for name in weights
        }
        usual = {attribute: getattr(layer, attribute) for attribute in attributes.values()}
        for name, attribute in attributes.items():
            setattr(layer, attribute, _start_as(weights[name]))
        value = layer(x)
        for attribute, initializer in usual.items():
            setattr(layer, attribute, initializer)
        return value

    def _padded(self, x: Any, geometry: Geometry, name: str) -> tuple[Any, str]:
        """`x` with the padding that no `padding=` says, and the one to give the layer."""
        padding = keras_padding(geometry)
        if padding is not None:
            return x, padding
        crops = [axis.crop for axis in geometry.axes]
        pads = [axis.pad for axis in geometry.axes]
        return self._pad_and_crop(x, crops, pads, name), "valid"

    def _pad_and_crop(self, x: Any, crops: Any, pads: Any, name: str) -> Any:
        """`x` cropped, then padded with zeros."""
        if any(map(any, crops)):
            x = self._cropped(x, crops, self.emitter._name(f"{name}_crop"))
        if any(map(any, pads)):
            label = self.emitter._name(f"{name}_pad")
            kind = _kind("ZeroPadding", len(pads))
            x = kind(_keras_pairs(pads), data_format=self.layout, name=label, dtype=self.policy)(x)
        return x

    def _cropped(self, x: Any, crops: Any, name: str) -> Any:
        if len(crops) > 1:
            return _kind("Cropping", len(crops))(
                tuple(crops), data_format=self.layout, name=name, dtype=self.policy
            )(x)
        if self.layout == "channels_last":
            return keras.layers.Cropping1D(crops[0], name=name, dtype=self.policy)(x)
        # Cropping1D knows channels_last alone.
        (low, high) = crops[0]
        return self.emitter.named_exactly(x[:, :, low : -high or None], name)

    def _with_ones(self, x: Any, geometry: Geometry, name: str) -> Any:
        """`x` with an image of ones after each group of channels."""
        axis = 1 if self.layout == "channels_first" else len(geometry.axes) + 1
        place = [slice(None)] * (len(geometry.axes) + 2)
        groups, width = geometry.groups, geometry.channels[0] // geometry.groups
        place[axis] = slice(0, 1)
        named = self.emitter.named
        ones = named(keras.ops.ones_like(named(x[tuple(place)], f"{name}_one")), f"{name}_ones")
        parts = []
        for group in range(groups):
            place[axis] = slice(group * width, (group + 1) * width)
            block = named(x[tuple(place)], f"{name}_group") if groups > 1 else x
            parts += [block, ones]
        return named(keras.ops.concatenate(parts, axis=axis), f"{name}_with_ones")

    def _padded_with(self, x: Any, geometry: Geometry, value: float, name: str) -> Any:
        """`x` cropped, then padded with a value other than zero."""
        if x.dtype != self.compute_dtype:  # the value must not be rounded to the input's dtype
            x = self.emitter.named(keras.ops.cast(x, self.compute_dtype), f"{name}_cast")
        x = self._pad_and_crop(
            x, [a.crop for a in geometry.axes], [(0, 0)] * len(geometry.axes), name
        )
        pads = [a.pad for a in geometry.axes]
        around = (
            [(0, 0), (0, 0), *pads] if self.layout == "channels_first" else [(0, 0), *pads, (0, 0)]
        )
        return self.emitter.named(keras.ops.pad(x, around, constant_values=value), f"{name}_pad")


def _kind(family: str, rank: int, end: str = "") -> Any:
    """The layer class of a family for images of `rank` axes."""
    return getattr(keras.layers, f"{family}{rank}D{end}")


def _content(node: Node) -> Any:
    """What a node without Keras weights computes."""
    if node.load is None:
        return node.form, node.factors
    operator = node.load()
    return node.geometry, operator.kernel.tobytes(), operator.bias.tobytes()


def _input_padding(axis: Axis, side: int) -> int:
    """Samples of zeros to put before a transposed convolution that must give more than it has."""
    return max(0, -(-(axis.pad[side] - axis.span + 1) // axis.upsampling))


def _is_one_window(axis: Axis, cut: bool) -> bool:
    """Whether a window fills the axis, `cut` to what is read or not, so that no stride is left."""
    if axis.extent is None or (any(axis.crop) and not cut):
        return False
    return axis.extent + sum(axis.pad) == axis.span


def _keras_pairs(pairs: list[tuple[int, int]]) -> Any:
    return tuple(pairs) if len(pairs) > 1 else pairs[0]


def _start_as(values: np.ndarray) -> Any:
    """An initializer that gives a new variable its values."""

    def initializer(shape: Any, dtype: Any = None) -> Any:
        assert tuple(shape) == values.shape, f"variable {shape}, weights {values.shape}"
        return keras.ops.convert_to_tensor(values.astype(dtype or values.dtype), dtype=dtype)

    return initializer
