"""A folded model that a class of models takes for the part that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import tree


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
