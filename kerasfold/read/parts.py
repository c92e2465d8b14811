"""Models of a class of their own, made again of other parts.

A class that predicts in its own way, such as a keras-hub task with its preprocessor, takes the
models that it is made of as arguments, and says them in its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import tree

from kerasfold.algebra.axis import Refused
from kerasfold.errors import words_of
from kerasfold.read.copies import copy_state
from kerasfold.read.model import functional_graph


@keras.saving.register_keras_serializable("kerasfold")
class Part(keras.Model):
    """A folded model that still says of itself what its original's config said.

    Some classes ask a part for such things as its `image_shape`. Files that hold one are read with
    kerasfold imported.
    """

    told: Mapping[str, Any]

    @classmethod
    def of(cls, folded: keras.Model, original: keras.Model) -> Part:
        """A folded model that says what its original did, in its config and its attributes."""
        public = {k: v for k, v in vars(original).items() if not k.startswith("_")}
        told = {
            name: _plain(value)
            for name, value in (public | original.get_config()).items()
            if _is_plain(value) and not hasattr(folded, name)
        }
        return _saying(cls(folded.input, folded.output, name=folded.name), told)

    def get_config(self) -> dict[str, Any]:
        """The functional model's, and what it says."""
        return {**super().get_config(), "told": dict(self.told)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Part:
        """The functional model, saying the same."""
        told = config["told"]
        rest = {key: value for key, value in config.items() if key != "told"}
        return _saying(super().from_config(rest, custom_objects=custom_objects), told)


def _is_plain(value: Any) -> bool:
    """Whether a file can say a value in words and numbers."""
    return all(isinstance(x, (str, int, float, bool, type(None))) for x in tree.flatten(value))


def _plain(value: Any) -> Any:
    """A value without what Keras makes of lists and dicts that are attributes."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, (list, tuple)) else value


def _saying(part: Part, told: Mapping[str, Any]) -> Part:
    part.told = told
    for name, value in told.items():
        setattr(part, name, value)
    return part


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
    made = type(model).from_config({**config, **beside, **parts})
    for old, new in zip(model.layers, made.layers, strict=True):
        if not any(new is part for part in parts.values()):
            copy_state(old, new)
    type(model).from_config(made.get_config())  # as reading it from a file does
    return made
