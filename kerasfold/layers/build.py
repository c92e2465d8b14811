"""An operator -> one stock Keras layer, with the padding it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np

from kerasfold.algebra.axis import Pair
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.layers.limits import is_depthwise_layer, is_pointwise_matrix
from kerasfold.layers.names import Names
from kerasfold.layers.reorder import in_tensors, steps
from kerasfold.layers.rewrite import (
    constant_ones,
    constants,
    homogeneous,
    input_padding,
    keras_pairs,
    on_image,
    pad_value,
    unpadded,
    written_kernel,
)
from kerasfold.layers.spelling import keras_padding, transposed_padding, without_idle_strides
from kerasfold.read.calling import called
from kerasfold.read.copies import called_copy
from kerasfold.read.graph import Call
from kerasfold.read.weights import largest, starting_as

Value: TypeAlias = keras.KerasTensor
T = TypeVar("T")

Activation: TypeAlias = Any  # what Keras takes for `activation=`: a function, a layer, or None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Builder:
    """Makes the layers of one form.

    Attributes:
        names: of the model that is emitted.
        made: its layers and tensors that several calls share.
        key: of the form; equal for forms that may share their layers. An object of its own for
            one that shares with none.
        policy: dtype policy of the layers.
        compute_dtype: what they compute in.
        dtype: dtype policy that every layer of the model gets, or None for the original's own.
        trainable: whether their weights are.
        layout: 'channels_last' or 'channels_first'.
        is_matrix: whether what is pointwise becomes a Dense layer, as its parts are.
        visited: nodes composed into the form.
        call: of a node, the call that it is.
        keep: emits the call of a node as it is.
        result: reserves the name of the layer that gives the node of the form, and gives it with
            the activation that is to be applied to it, or None.
        compose: composes the weights of another form.
        joint: by their role, what gives convolutions that are a part of another: of the name of
            the step, and that of the part.
    """

    names: Names
    made: dict[Hashable, Any]
    key: Hashable
    policy: Any
    compute_dtype: str
    dtype: str | None
    trainable: bool
    layout: str
    is_matrix: bool
    visited: Sequence[int]
    call: Callable[[int], Call]
    keep: Callable[[int], Value]
    result: Callable[[], tuple[str, Activation]]
    compose: Callable[[Any], Any]
    joint: Mapping[Hashable, Callable[[str, str], Value]] = field(default_factory=dict)

    @staticmethod
    def kind(family: str, rank: int, end: str = "") -> Any:
        """The layer class of a family for images of `rank` axes."""
        return getattr(keras.layers, f"{family}{rank}D{end}")

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What several forms use, made for the first of them."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def copied(self, node: int, x: Value, name: str, **settings: Any) -> Value:
        """The layer that a node is, on another tensor, with other `settings`."""
        key = (self.key, ("copy", self.visited.index(node)))
        if key in self.made:
            return called(self.made[key], x)
        operation = self.call(node).operation
        self.made[key], value = called_copy(operation, name, self.dtype, (x,), {}, settings)
        return value

    def sum(self, parts: Sequence[Value], name: str) -> Value:
        """The sum of tensors of one shape."""
        return self.applied(keras.layers.Add, "sum", parts, name=name)

    def as_computed(self, x: Value, name: str) -> Value:
        """A tensor in the dtype that the form computes in."""
        if x.dtype == self.compute_dtype:
            return x
        return self.names.give(keras.ops.cast(x, self.compute_dtype), f"{name}_cast")

    def same(self, x: Value, name: str) -> Value:
        """A tensor as it is, which needs no name."""
        self.names.release(name)
        return self.as_computed(x, name)

    def scaled(
        self, x: Value, gain: np.ndarray | None, shift: np.ndarray | None, name: str
    ) -> Value:
        """An image times constants, channels last, plus such; the last call takes the name."""
        x = self.as_computed(x, name)
        if gain is not None:
            label = name if shift is None else self.names.reserve(f"{name}_gain")
            x = self.names.give_exactly(
                keras.ops.multiply(constants(gain, x, self.layout), x), label
            )
        if shift is None:
            return x
        # In this order: TensorFlow's backend takes a second summand of one axis for a bias, of
        # the last axis, or the second, where that is as long.
        return self.names.give_exactly(keras.ops.add(constants(shift, x, self.layout), x), name)

    def rearranged(self, x: Value, r: Rearrangement, name: str, role: Hashable = None) -> Value:
        """An image, rearranged; the last layer takes the name. `role` tells it from others."""
        taken = steps(in_tensors(r, self.layout))
        if not taken:
            return self.same(x, name)
        for number, step in enumerate(taken, 1):
            label = name if step is taken[-1] else self.names.reserve(f"{name}_{number}")
            kind, config = step.layer
            x = self.applied(kind, ("rearranged", role, number), x, name=label, **config)
        return x

    def channels(self, x: Value, first: int, last: int, name: str) -> Value:
        """The channels [first, last) of a tensor."""
        place: list[Any] = [slice(None)] * len(x.shape)
        place[1 if self.layout == "channels_first" else -1] = slice(first, last)
        return self.names.give_exactly(x[tuple(place)], name)

    def split(self, x: Value, count: int, axis: int, name: str) -> list[Value]:
        """The outputs of a convolution along a spatial axis, one by one.

        By a split and not by cropping layers: OpenVINO moves its transpositions past it.
        """
        if count == 1:
            return [x]
        parts = keras.ops.split(x, count, axis=self._place(axis))
        self.names.give(parts[0], f"{name}_split")
        return list(parts)

    def concatenated(
        self, parts: Sequence[Value], axis: int, name: str, last: bool, key: Hashable = ()
    ) -> Value:
        """Parts of an image put together along a spatial axis; under its name if that is all."""
        label = name if last else self.names.reserve(f"{name}_join_{axis}")
        role = ("join", axis, key)
        place = self._place(axis)
        return self.applied(keras.layers.Concatenate, role, parts, name=label, axis=place)

    def stacked(self, parts: Sequence[Value], name: str) -> Value:
        """Tensors side by side along the channels."""
        axis = 1 if self.layout == "channels_first" else -1
        return self.applied(keras.layers.Concatenate, "stack", parts, name=name, axis=axis)

    def flattened(self, x: Value, name: str, role: Hashable) -> Value:
        """An image as a vector, the channels last."""
        kind, config = keras.layers.Flatten, {"name": name, "data_format": self.layout}
        return self.applied(kind, (role, "flat"), x, **config)

    def _place(self, axis: int) -> int:
        """A spatial axis in the Keras tensor."""
        return axis + (2 if self.layout == "channels_first" else 1)

    def layer(self, kind: Any, role: Hashable, **config: Any) -> keras.Layer:
        """A layer of this form; the same one wherever the form is repeated."""
        key = self._key(kind, role, config)
        if key not in self.made:
            self.made[key] = kind(dtype=self.policy, trainable=self.trainable, **config)
        return self.made[key]

    def applied(self, kind: Any, role: Hashable, x: Any, **config: Any) -> Value:
        """What a layer of this form gives of a tensor, or of several."""
        return called(self.layer(kind, role, **config), x)

    def _key(self, kind: Any, role: Hashable, config: Mapping[str, Any]) -> Hashable:
        """What a layer of this form is, but for its name and its weights."""
        settings = frozenset((k, v) for k, v in config.items() if k != "name")
        return self.key, role, kind, settings

    def convolution(
        self,
        x: Value,
        operator: Operator,
        name: str,
        activation: Activation,
        role: Hashable,
    ) -> Value:
        """One convolution, with the padding it needs."""
        if role in self.joint:
            part = name if activation is None else self.names.reserve(f"{name}_slice")
            value = self.joint[role](name, part)
            return value if activation is None else self.activated(value, activation, name)
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
        if rank == 0 or (self.is_matrix and is_pointwise_matrix(geometry)):
            return self.weighted(
                keras.layers.Dense,
                role,
                x,
                {"kernel": kernel.reshape(geometry.channels), "bias": operator.bias},
                units=geometry.channels[1],
                **common,
            )
        kernel, geometry = written_kernel(kernel, without_idle_strides(geometry))
        x, padding = self.padded(x, geometry, name)
        common |= self.window(geometry, padding)
        if is_depthwise_layer(geometry):
            shape = (*geometry.taps, geometry.channels[0], -1)
            kernel = kernel.reshape(shape)
            return self.weighted(
                self.kind("DepthwiseConv", rank),
                role,
                x,
                {"kernel": kernel, "bias": operator.bias},
                depth_multiplier=kernel.shape[-1],
                **common,
            )
        return self.weighted(
            self.kind("Conv", rank),
            role,
            x,
            {"kernel": kernel, "bias": operator.bias},
            filters=geometry.channels[1],
            groups=geometry.groups,
            **common,
        )

    def _vector(
        self, x: Value, operator: Operator, common: dict[str, Any], role: Hashable
    ) -> Value:
        """An operator with one output pixel, as a vector: a Dense layer where it sees all."""
        geometry, name = operator.geometry, common["name"]
        kernel = on_image(operator)
        if geometry.groups == 1 and kernel is not None:
            x = self.flattened(x, self.names.reserve(f"{name}_flat"), role)
            return self.weighted(
                keras.layers.Dense,
                role,
                x,
                {"kernel": kernel.reshape(-1, geometry.channels[1]), "bias": operator.bias},
                units=geometry.channels[1],
                **common,
            )
        image = Operator(replace(geometry, vector=False), operator.kernel, operator.bias)
        x = self.convolution(x, image, self.names.reserve(f"{name}_image"), None, role)
        activation = common["activation"]
        flat = name if activation is None else self.names.reserve(f"{name}_flat")
        x = self.flattened(x, flat, role)
        return x if activation is None else self.activated(x, activation, name, role)

    def activated(
        self, x: Value, activation: Activation, name: str, role: Hashable = None
    ) -> Value:
        """An activation in a layer of its own, which takes the name of the call."""
        kind, config = keras.layers.Activation, {"name": name, "activation": activation}
        return self.applied(kind, (role, "activation"), x, **config)

    def _transposed(
        self, x: Value, operator: Operator, common: dict[str, Any], role: Hashable
    ) -> Value:
        """An upsampling operator: a transposed convolution, padded as Keras can say it."""
        padding = transposed_padding(operator.geometry)
        if padding is None:
            return self.transposed_whole(x, operator, common, role)
        return self._transposed_layer(x, operator, role, **padding, **common)

    def transposed_whole(
        self, x: Value, operator: Operator, common: dict[str, Any], role: Hashable
    ) -> Value:
        """An upsampling operator, cut from all that a transposed convolution can give."""
        axes, name = operator.geometry.axes, common["name"]
        # The full result, L(n - 1) + span samples, starts span - 1 - lo before ours does.
        pads = [(input_padding(a, 0), input_padding(a, 1)) for a in axes]
        x = self.pad_and_crop(x, [a.crop for a in axes], pads, name)
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
        common = {**common, "activation": None, "name": self.names.reserve(f"{name}_full")}
        x = self._transposed_layer(x, operator, role, **full, **common)
        last = name if activation is None else self.names.reserve(f"{name}_crop")
        x = self.cropped(x, crops, last)
        if activation is None:
            return x
        return self.activated(x, activation, name, role)

    def _transposed_layer(
        self, x: Value, operator: Operator, role: Hashable, **config: Any
    ) -> Value:
        rank = len(operator.geometry.axes)
        kernel, _ = written_kernel(operator.kernel, operator.geometry)
        kernel = np.flip(kernel, axis=tuple(range(rank))).swapaxes(-1, -2)
        return self.weighted(
            self.kind("Conv", rank, "Transpose"),
            role,
            x,
            {"kernel": kernel, "bias": operator.bias},
            filters=operator.geometry.channels[1],
            kernel_size=kernel.shape[:rank],
            strides=tuple(a.upsampling for a in operator.geometry.axes),
            data_format=self.layout,
            **config,
        )

    def window(self, geometry: Geometry, padding: str) -> dict[str, Any]:
        """What a layer is told of its kernel."""
        return {
            "kernel_size": geometry.taps,
            "strides": tuple(axis.stride for axis in geometry.axes),
            "dilation_rate": tuple(axis.dilation for axis in geometry.axes),
            "padding": padding,
            "data_format": self.layout,
        }

    def weighted(
        self,
        kind: Any,
        role: Hashable,
        x: Value,
        weights: Mapping[str, np.ndarray],
        **config: Any,
    ) -> Value:
        """Call a layer whose variables start as `weights`, at no second copy."""
        if isinstance(self.key, tuple):  # not an object of its own: other forms may share it
            digests = (hashlib.sha256(w.tobytes()).digest() for w in weights.values())
            role = (role, *digests)
        known = self.made.get(self._key(kind, role, config))
        if known is not None:
            return called(known, x)
        layer: Any = self.layer(kind, role, **config)
        with starting_as(layer, weights):
            return called(layer, x)

    def padded(self, x: Value, geometry: Geometry, name: str) -> tuple[Value, str]:
        """`x` with the padding that no `padding=` says, and the one to give the layer."""
        padding = keras_padding(geometry)
        if padding is not None:
            return x, padding
        crops = [axis.crop for axis in geometry.axes]
        pads = [axis.pad for axis in geometry.axes]
        return self.pad_and_crop(x, crops, pads, name), "valid"

    def pad_and_crop(
        self, x: Value, crops: Sequence[Pair], pads: Sequence[Pair], name: str
    ) -> Value:
        """`x` cropped, then padded with zeros."""
        if any(map(any, crops)):
            x = self.cropped(x, crops, self.names.reserve(f"{name}_crop"))
        if any(map(any, pads)):
            label = self.names.reserve(f"{name}_pad")
            kind = self.kind("ZeroPadding", len(pads))
            x = kind(keras_pairs(pads), data_format=self.layout, name=label, dtype=self.policy)(x)
        return x

    def cropped(self, x: Value, crops: Sequence[Pair], name: str) -> Value:
        """`x` without samples at either end of each axis."""
        if len(crops) > 1:
            return self.kind("Cropping", len(crops))(
                tuple(crops), data_format=self.layout, name=name, dtype=self.policy
            )(x)
        if self.layout == "channels_last":
            return keras.layers.Cropping1D(crops[0], name=name, dtype=self.policy)(x)
        # Cropping1D knows channels_last alone.
        (low, high) = crops[0]
        return self.names.give_exactly(x[:, :, low : -high or None], name)

    def _with_ones(self, x: Value, geometry: Geometry, name: str) -> Value:
        """`x` with an image of ones after each group of channels."""
        axis = 1 if self.layout == "channels_first" else len(geometry.axes) + 1
        place = [slice(None)] * (len(geometry.axes) + 2)
        groups, width = geometry.groups, geometry.channels[0] // geometry.groups
        place[axis] = slice(0, 1)
        named = self.names.give
        ones = named(keras.ops.ones_like(named(x[tuple(place)], f"{name}_one")), f"{name}_ones")
        parts = []
        for group in range(groups):
            place[axis] = slice(group * width, (group + 1) * width)
            block = named(x[tuple(place)], f"{name}_group") if groups > 1 else x
            parts += [block, ones]
        return named(keras.ops.concatenate(parts, axis=axis), f"{name}_with_ones")

    def _padded_with(self, x: Value, geometry: Geometry, value: float, name: str) -> Value:
        """`x` cropped, then padded with a value other than zero."""
        x = self.as_computed(x, name)  # the value must not be rounded to the input's dtype
        x = self.pad_and_crop(
            x, [a.crop for a in geometry.axes], [(0, 0)] * len(geometry.axes), name
        )
        around = [(0, 0), *(a.pad for a in geometry.axes)]
        around.insert(1 if self.layout == "channels_first" else len(around), (0, 0))
        return self.names.give(keras.ops.pad(x, around, constant_values=value), f"{name}_pad")
