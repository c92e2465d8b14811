"""Models as they are deployed, written to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras import layers

from kerasfold.measure.runtimes import silent
from zoo.making import randomise
from zoo.same import inputs_of

EXPORTED = {  # by the name of the file: as `keras.Model.export` calls its format
    "model.tflite": "litert",
    "model.onnx": "onnx",
    "model.xml": "openvino",
    "folder": "tf_saved_model",
}


def exported(model: keras.Model, folder: Path, name: str) -> Path:
    """The file, or folder, of that name that Keras exports a model to."""
    path = folder / name
    model.predict_on_batch(inputs_of(model))  # without which ONNX is refused
    with silent(), patch.dict(os.environ, CI="true"):  # or OpenVINO's converter reports home
        model.export(str(path), format=EXPORTED[name], verbose=False)
    return path


def small_net(seed: int = 0, **given: Any) -> keras.Model:
    """A convolution, its statistics, and scores."""
    image = keras.Input(**{"shape": (8, 8, 3), "name": "image", **given})
    x = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(image, layers.Dense(3, name="scores")(x)), seed)


def many_ended() -> keras.Model:
    """Two inputs of one shape, not in the order of their names, and twelve outputs alike."""
    right, left = keras.Input((4,), name="right"), keras.Input((4,), name="left")
    x = keras.ops.relu(right - 2.0 * left)
    return randomise(keras.Model([right, left], [layers.Dense(3)(x) for _ in range(12)]))


def quantised(folder: Path, path: Path) -> Path:
    """A LiteRT file that computes with integers of 8 bits, and takes and gives them.

    Args:
        folder: a SavedModel of `small_net`.
        path: where to write it.
    """
    import tensorflow as tf

    rng = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.normal(size=(1, 8, 8, 3)).astype("float32")] for _ in range(64)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


def in_batches_of_two(model: keras.Model, folder: Path) -> Path:
    """A SavedModel of `small_net` that takes two images at a time."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    module.serve = tf.function(
        lambda image: {"scores": model(image, training=False)},
        input_signature=[tf.TensorSpec((2, 8, 8, 3), tf.float32, "image")],
    )
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return folder
