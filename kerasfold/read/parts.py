"""Models of a class of their own, made again of other parts.

A class that predicts in its own way, such as a keras-hub task with its preprocessor, takes the
models that it is made of as arguments, and says them in its config.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from weakref import WeakKeyDictionary

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.backend import unfilled
from kerasfold.errors import words_of
from kerasfold.read.model import functional_graph, is_of_keras, sublayers
from kerasfold.read.part import Part
from kerasfold.read.states import copy_state


def parts_of(model: keras.Model) -> dict[str, keras.Model]:
    """The models that a model was made of, by the argument that they are.

    Raises:
        Refused: it has no such parts.
    """
    layers = {id(layer) for layer in model.layers}
    given = {argument: getattr(model, argument, None) for argument in model.get_config()}
    parts = {
        argument: part
        for argument, part in given.items()
        if id(part) in layers and functional_graph(part) is not None
    }
    if not parts:
        raise Refused("its config holds no model that is a part of it")
    return parts


def made_of(model: keras.Model, folds: Mapping[str, keras.Model]) -> keras.Model:
    """A model of the same class, of other parts; all else is that of the original.

    Args:
        model: the original; what is no layer of its graph, such as a preprocessor, is shared.
        folds: in place of the parts that `parts_of` gives.

    Raises:
        Refused: its class does not take them, or could not be read from a file again.
    """
    try:
        return _made_of(model, folds)
    except Exception:  # it may be asked for more than any model has
        telling = {key: Part.of(fold, getattr(model, key)) for key, fold in folds.items()}
    try:
        return _made_of(model, telling)
    except Exception as error:
        raise Refused(f"its class does not take a folded part ({words_of(error)})") from error


def _made_of(model: keras.Model, parts: Mapping[str, keras.Model]) -> keras.Model:
    inside = set(map(id, model.layers))
    config = model.get_config()
    beside = {
        argument: value
        for argument in config
        if isinstance(value := getattr(model, argument, None), keras.Layer)
        and id(value) not in inside
    }
    with unfilled():
        made = type(model).from_config({**config, **beside, **parts})
    for old, new in zip(model.layers, made.layers, strict=True):
        if not any(new is part for part in parts.values()):
            copy_state(old, new)
    _require_readable(made, parts)
    return made


# Of each class, the parts that it is known to take when it is read from a file.
_TAKEN: WeakKeyDictionary[type, set[Hashable]] = WeakKeyDictionary()


def _require_readable(made: keras.Model, parts: Mapping[str, keras.Model]) -> None:
    """Raise what reading a model from a file would, of the classes of its parts and their layers.

    That builds it once more, so it is done once for a class and parts of Keras's own layers.
    """
    layers = (layer for part in parts.values() for layer in sublayers(part) if layer is not part)
    taken = _TAKEN.setdefault(type(made), set())
    key = frozenset((argument, type(part)) for argument, part in parts.items())
    if key not in taken or not all(map(is_of_keras, layers)):
        with unfilled():
            type(made).from_config(made.get_config())
        taken.add(key)
