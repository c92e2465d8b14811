"""The networks Keras ships, with random weights that are calibrated so that outputs tell.

Each BatchNormalization's statistics are those of its own input, so that activations stay of order
one, and its gammas have both signs. Its betas are around 1.5: with betas around zero, ReLUs cut
half of everything, and such a network amplifies float32 noise (the originals alone are then up to
5e-4 off their float64 selves). Errors are measured against the spread of the outputs over inputs;
a float32 fold's may be a few times the original's own, which depends on the processor. A kernel
times 1.01 in a layer of the fold must fail the very same test.

KERASFOLD_SLOW=1 tries every kernel instead of four of each network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import keras
import numpy as np
import pytest
from keras import applications as apps

import kerasfold
from kerasfold.backend import unfilled
from zoo.making import policy
from zoo.same import kinds, layers_of

LOSS = 3  # times the original's own error in float32
EVERY_LAYER = bool(os.environ.get("KERASFOLD_SLOW"))

# Constructor, image side, most BatchNormalizations left, checked with each kernel perturbed.
APPS: dict[str, tuple[Callable[..., keras.Model], int, int]] = {
    "MobileNet": (apps.MobileNet, 64, 0),
    "MobileNetV2": (apps.MobileNetV2, 64, 0),
    "Xception": (apps.Xception, 80, 0),
    "ResNet50": (apps.ResNet50, 64, 0),
    "InceptionV3": (apps.InceptionV3, 80, 0),
    "EfficientNetB0": (apps.EfficientNetB0, 64, 0),
    "DenseNet121": (apps.DenseNet121, 64, 62),
}


def calibrate(model: keras.Model, images: np.ndarray, rng: np.random.Generator) -> None:
    """Walk the model once, each BatchNormalization taking the statistics of its input."""
    values = {
        id(t): v for t, v in zip(model.inputs, [keras.ops.convert_to_tensor(images)], strict=True)
    }
    for operation in model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        node = operation._inbound_nodes[-1]
        filled = keras.tree.map_structure(
            lambda t: values.get(id(t), t), (node.arguments.args, node.arguments.kwargs)
        )
        args, kwargs = filled
        if isinstance(operation, keras.layers.BatchNormalization):
            flat = np.asarray(args[0])
            axes = tuple(range(flat.ndim - 1))
            width = flat.shape[-1]
            operation.moving_mean.assign(flat.mean(axes))
            operation.moving_variance.assign(flat.var(axes) + 1e-6)
            if operation.scale:
                operation.gamma.assign(rng.uniform(0.7, 1.3, width) * rng.choice([-1, 1], width))
            if operation.center:
                operation.beta.assign(rng.normal(1.5, 0.3, width))
        elif isinstance(operation, keras.layers.Normalization):
            pass
        elif isinstance(operation, keras.Layer):
            for weight in operation.weights:
                if weight.name == "bias":
                    weight.assign(rng.normal(0, 0.2, weight.shape))
                elif "kernel" in weight.name:
                    shape = tuple(weight.shape)
                    depthwise = (
                        isinstance(operation, keras.layers.DepthwiseConv2D)
                        or "depthwise" in weight.name
                    )
                    fan_in = np.prod(shape[:2]) if depthwise else np.prod(shape[:-1])
                    weight.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
        result = operation(*args, **kwargs)
        for tensor, value in zip(node.output_tensors, keras.tree.flatten(result), strict=True):
            values[id(tensor)] = value


def build(name: str, dtype: str) -> keras.Model:
    make, side, _ = APPS[name]
    with policy(dtype):
        return make(
            weights=None, classifier_activation=None, input_shape=(side, side, 3), classes=20
        )


@cache
def case(name: str) -> tuple[keras.Model, keras.Model, np.ndarray, np.ndarray]:
    """The application, its fold, images, and the application's outputs."""
    side = APPS[name][1]
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    single = build(name, "float32")
    # Smooth images of differing colour and contrast, so that pooled outputs differ between them.
    coarse = rng.normal(size=(12, 4, 4, 3)) * rng.uniform(0.3, 2.0, (12, 1, 1, 1))
    images = np.asarray(keras.ops.image.resize(coarse.astype("float32"), (side, side)))
    images = (images + rng.normal(size=images.shape) * 0.3).astype("float32")
    if "Efficient" in name:
        images = images * 60 + 120
    calibrate(single, images, rng)
    folded = kerasfold.fold(single, verify=False)
    return single, folded, images[:6], outputs(single, images[:6])


@cache
def reference(name: str) -> tuple[keras.Model, np.ndarray, float]:
    """The application in float64, its outputs, and what the fold's may be off them in float32."""
    single, _, images, expected = case(name)
    with unfilled():
        double = build(name, "float64")
    double.set_weights(single.get_weights())
    for layer in double.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # of its weights as they are now
    truth = outputs(double, images.astype("float64"))
    return double, truth, LOSS * error(truth, expected)


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False)).astype("float64")


def error(expected: np.ndarray, got: np.ndarray) -> float:
    """Largest difference, in standard deviations of that output over inputs."""
    return float((np.abs(expected - got) / expected.std(axis=0)).max())


def kernels(model: keras.Model) -> list[keras.Variable]:
    return [
        weight for layer in layers_of(model) for weight in layer.weights if "kernel" in weight.name
    ]


EACH = pytest.mark.parametrize("name", APPS)


@EACH
def test_calibrated(name: str) -> None:
    """Outputs are of order one and really depend on the input."""
    _, _, _, expected = case(name)
    assert np.isfinite(expected).all()
    assert 0.02 < expected.std(axis=0).mean() < 50
    assert expected.std(axis=0).min() > 0.01 * np.abs(expected).max()


@EACH
def test_equal(name: str) -> None:
    _, folded, images, _ = case(name)
    _, truth, bound = reference(name)
    assert error(truth, outputs(folded, images)) <= bound


@EACH
def test_batchnorms_gone(name: str) -> None:
    model, folded, _, _ = case(name)
    assert kinds(model).count("BatchNormalization") > 0
    assert kinds(folded).count("BatchNormalization") <= APPS[name][2]
    assert folded.count_params() <= model.count_params()


@EACH
def test_a_kernel_times_1_01_fails_the_same_test(name: str) -> None:
    _, folded, images, _ = case(name)
    _, truth, bound = reference(name)
    every = kernels(folded)
    count = len(every)
    picks = range(count) if EVERY_LAYER else sorted({0, count // 3, 2 * count // 3, count - 1})
    slept = []
    for k in picks:
        kept = every[k].numpy()
        every[k].assign(kept * 1.01)
        if not error(truth, outputs(folded, images)) > bound:
            slept.append(every[k].path)
        every[k].assign(kept)
    assert slept == []
    assert error(truth, outputs(folded, images)) <= bound


@EACH
def test_exact_in_float64(name: str) -> None:
    double, truth, _ = reference(name)
    refolded = kerasfold.fold(double, verify=False)
    images = case(name)[2].astype("float64")
    assert error(truth, outputs(refolded, images)) <= 1e-10


def test_verified_by_default() -> None:
    single, *_ = case("MobileNet")
    assert kerasfold.fold(single).fold_report.equivalence.equivalent
