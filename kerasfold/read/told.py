"""What layers say of themselves in their settings, and what those that say the same share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
from keras import tree

from kerasfold.read.model import sublayers

if TYPE_CHECKING:
    from kerasfold.read.inside import Inside

_OF_EVERY_LAYER = frozenset(vars(keras.layers.Layer(name="any")))  # nodes, trackers and such
_WATCHED = ("symbolic_call", "compute_output_spec")  # put there by whoever watches its call
_PLAIN = (str, int, float, type(None))


def said_by(layer: keras.Layer) -> Hashable:
    """All settings of a layer that is built, but for names; nothing equals those not plain.

    Layers that have the same compute the same, but for their weights. A config may leave some out.
    """
    told: list[Hashable] = []
    for part in sublayers(layer):
        own = {key: value for key, value in vars(part).items() if _is_setting(key)}
        values = [x for x in tree.flatten(own) if not isinstance(x, (keras.Variable, keras.Layer))]
        if not all(isinstance(x, _PLAIN) for x in values):
            return object()
        settings = tuple((type(x), x) for x in values)
        told.append((type(part), part.compute_dtype, tuple(sorted(own)), settings))
    return tuple(told)


def _is_setting(attribute: str) -> bool:
    """Whether an attribute is a layer's own; TensorFlow notes what a layer holds, too."""
    usual = attribute in _OF_EVERY_LAYER or attribute in _WATCHED
    return not usual and not attribute.startswith("_self_")


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of layers by what they say.

    Attributes:
        gives: shape and dtype of the one tensor that they give, by what they are given.
        tried: the same, of a call that may yet turn out to do more.
        written: what those say of which a copy can be made.
        traced: what was traced in this reading, by the layer and what it is called on; with the
            layer, so that its identity is not given out again.
        before: the same of readings before, but for what this one has taken.
    """

    gives: dict[Hashable, tuple[Any, str]] = field(default_factory=dict)
    tried: dict[Hashable, tuple[Any, str]] = field(default_factory=dict)
    written: set[Hashable] = field(default_factory=set)
    traced: dict[Hashable, tuple[keras.Layer, Inside]] = field(default_factory=dict)
    before: dict[Hashable, tuple[keras.Layer, Inside]] = field(default_factory=dict)

    def known(self, says: Hashable, given: Sequence[Any]) -> keras.KerasTensor | None:
        """A new tensor like the one that such a layer gave, or None where there was none."""
        key = _called(says, given)
        spec = self.tried.get(key) or self.gives.get(key)
        return spec and keras.KerasTensor(*spec)

    def learn(self, says: Hashable, given: Sequence[Any], result: Any) -> None:
        """Note what a layer gave, if that is a tensor of its own; for as long as it is `tried`."""
        is_dense = isinstance(result, keras.KerasTensor) and not (result.sparse or result.ragged)
        if is_dense and all(result is not x for x in given):
            self.tried[_called(says, given)] = tuple(result.shape), result.dtype

    def keep(self) -> None:
        """Nothing more came of what was tried."""
        self.gives.update(self.tried)

    def read_anew(self) -> Told:
        """The same for another reading, which may take what those before it have traced."""
        self.before.update(self.traced)
        self.traced.clear()
        return self

    def inside(
        self, layer: keras.Layer, args: Any, kwargs: Any, trace: Callable[[], Inside]
    ) -> Inside:
        """What a reading before has traced of a layer that is called so, or what `trace` gives.

        Each is given once in a reading: two calls of a layer make two of every operation.
        """
        structure = repr(tree.map_structure(lambda _: 0, (args, kwargs)))
        key = structure, _called(id(layer), tree.flatten((args, kwargs)))
        self.traced[key] = found = self.before.pop(key, None) or (layer, trace())
        return found[1]


def _called(says: Hashable, given: Sequence[Any]) -> Hashable:
    """What a call depends on; nothing equals that of arguments that are no tensors and not plain.

    Of an array, no text says all.
    """
    return says, *map(_specified, given)


def _specified(x: Any) -> Hashable:
    if isinstance(x, keras.KerasTensor):
        return tuple(x.shape), x.dtype, x.sparse, x.ragged
    return (type(x), x) if type(x) in (bool, *_PLAIN) else object()
