"""Models of a class of their own that predict in their own way, as keras-hub's tasks do."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from zoo.composites import ConvNorm, backbone


@keras.saving.register_keras_serializable("zoo")
class Halve(layers.Layer):
    """A preprocessor."""

    def call(self, x: Any) -> Any:
        return x / 2


@keras.saving.register_keras_serializable("zoo")
class Classifier(keras.Model):
    """A backbone, a head, and a preprocessor that `predict` applies."""

    def __init__(
        self, backbone: Any, classes: int, preprocessor: Any = None, **options: Any
    ) -> None:
        pooled = layers.GlobalAveragePooling2D(name="pool")(backbone(backbone.input))
        scores = layers.Dense(classes, name="scores")(pooled)
        super().__init__(backbone.input, scores, **options)
        self.backbone, self.classes, self.preprocessor = backbone, classes, preprocessor

    def predict(self, x: Any, **options: Any) -> Any:
        return super().predict(self.preprocessor(x), **options)

    def get_config(self) -> dict[str, Any]:
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "classes": self.classes,
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Classifier:
        live = ("backbone", "preprocessor")
        read = keras.saving.deserialize_keras_object
        return cls(
            **{k: read(v) if k in live and isinstance(v, dict) else v for k, v in config.items()}
        )


@keras.saving.register_keras_serializable("zoo")
class Sized(keras.Model):
    """A backbone that says its image size."""

    def __init__(self, image_shape: Any, **options: Any) -> None:
        x = keras.Input(image_shape)
        super().__init__(x, backbone(None)(x), **options)
        self.stages = ["conv", "norm"]
        self.image_shape = tuple(image_shape)

    def get_config(self) -> dict[str, Any]:
        return {"image_shape": self.image_shape, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sized:
        return cls(**config)


@keras.saving.register_keras_serializable("zoo")
class Detector(Classifier):
    """It asks its backbone for the image size."""

    def __init__(self, backbone: Any, **options: Any) -> None:
        self.size, self.stages = backbone.image_shape, backbone.stages
        super().__init__(backbone, **options)


@keras.saving.register_keras_serializable("zoo")
class Picky(Classifier):
    """It takes a backbone of one class alone."""

    def __init__(self, backbone: Any, **options: Any) -> None:
        assert isinstance(backbone, Sized)
        super().__init__(backbone, **options)


class Watched(keras.Model):
    """Its steps are its own, and it was not made of models."""

    def predict_step(self, data: Any) -> Any:
        return 2 * super().predict_step(data)


def watched() -> keras.Model:
    x = keras.Input((8, 8, 4))
    return Watched(x, ConvNorm(4, name="block")(x), name="watched")
