"""Models with pools of volumes are compared in float64, of which TensorFlow's CPU has none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence.volumes import pooling
from kerasfold.read.inside import inside_of
from kerasfold.read.model import functional_graph

SIZES = (5, 6, 7)
SLIDING = [
    {"pool_size": pool, "strides": strides, "padding": padding}
    for pool, strides in [(2, None), (3, 2), ((1, 3, 2), (2, 1, 3)), ((5, 2, 3), (1, 4, 2))]
    for padding in ("valid", "same")
]
ADAPTIVE = [{"output_size": sizes} for sizes in [(5, 3, 7), (1, 2, 3), (4, 4, 4)]]
POOLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    *itertools.product([layers.AveragePooling3D, layers.MaxPooling3D], SLIDING),
    *itertools.product([layers.AdaptiveAveragePooling3D, layers.AdaptiveMaxPooling3D], ADAPTIVE),
]


def made_by(pool: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
    """The call of a pool, and the model of it."""
    x = keras.Input(shape)
    model = keras.Model(x, pool(x))
    (made,) = inside_of(functional_graph(model)).calls
    return made, model


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("kind", "config"), POOLS)
def test_it_is_what_the_layer_gives(
    kind: Callable[..., Any], config: dict[str, Any], layout: str
) -> None:
    shape = (2, *SIZES) if layout == "channels_first" else (*SIZES, 2)
    made, model = made_by(kind(**config, data_format=layout), shape)
    x = np.random.default_rng(0).normal(size=(3, *shape))
    pooled = pooling(made)
    assert pooled is not None
    y = ops.convert_to_numpy(pooled(ops.convert_to_tensor(x, "float64")))
    single = ops.convert_to_numpy(model(x.astype("float32")))
    assert (y.dtype, y.shape) == ("float64", single.shape)
    np.testing.assert_allclose(y, single, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mean", [True, False])
def test_it_is_so_in_float64(mean: bool) -> None:
    kind = layers.AveragePooling3D if mean else layers.MaxPooling3D
    made, _ = made_by(kind(3, 2, padding="same"), (*SIZES, 1))
    x = np.random.default_rng(0).normal(size=SIZES)
    pooled = pooling(made)
    assert pooled is not None
    y = ops.convert_to_numpy(pooled(ops.convert_to_tensor(x[None, ..., None], "float64")))
    for place in np.ndindex(y.shape[1:4]):
        # TensorFlow pads an even size by 0 before and 1 behind, an odd one by 1 and 1.
        starts = [2 * i - n % 2 for i, n in zip(place, SIZES, strict=True)]
        window = x[tuple(slice(max(s, 0), s + 3) for s in starts)]
        true = window.mean() if mean else window.max()
        assert abs(y[(0, *place, 0)] - true) < 1e-15


def test_an_infinity_is_one_in_its_own_windows_alone() -> None:
    made, model = made_by(layers.AveragePooling3D(3, 2, padding="same"), (4, 4, 4, 1))
    x = np.zeros((1, 4, 4, 4, 1))
    x[0, 3, 3, 3] = np.inf
    pooled = pooling(made)
    assert pooled is not None
    y = ops.convert_to_numpy(pooled(ops.convert_to_tensor(x, "float64")))
    np.testing.assert_array_equal(y, ops.convert_to_numpy(model(x.astype("float32"))))
    assert np.isinf(y).sum() == 1


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: layers.AveragePooling2D(2)(x[:, 0]),
        lambda x: ops.max_pool(x[:, 0], 2),
        lambda x: layers.GlobalAveragePooling3D()(x),
    ],
)
def test_what_the_backend_has_in_float64_is_left_to_it(pool: Callable[[Any], Any]) -> None:
    x = keras.Input((*SIZES, 2))
    model = keras.Model(x, pool(x))
    assert [pooling(made) for made in inside_of(functional_graph(model)).calls][-1] is None


def network(pool: Callable[[Any], Any]) -> keras.Model:
    """A network of volumes with a BatchNormalization that merges, before a pool and behind it."""
    x = image = keras.Input((9, 9, 9, 2))
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, padding="same")(x))
    x = pool(layers.ReLU()(x))
    x = layers.BatchNormalization()(layers.Conv3D(4, 3)(x))
    model = keras.Model(image, layers.ReLU()(x))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "max": layers.MaxPooling3D(3, 2, padding="same"),
    "mean": layers.AveragePooling3D(2),
    "by_keyword": lambda x: layers.MaxPooling3D(2)(inputs=x),
    "adaptive": layers.AdaptiveAveragePooling3D(4),
    "op_max": lambda x: ops.max_pool(x, 2, 2),
    "op_mean": lambda x: ops.average_pool(x, (3, 2, 1), (2, 2, 2), padding="same"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fold_is_proved_and_a_small_fault_found(name: str) -> None:
    model = network(NETWORKS[name])
    folded = model.fold()
    report = folded.fold_report.equivalence
    assert (report.verdict, report.dtype) == ("equivalent", "float64")
    assert report.max_rel_error < 1e-10
    wrong = keras.models.clone_model(folded)
    wrong.set_weights(folded.get_weights())
    kernel = wrong.weights[0]
    kernel.assign(kernel * (1 + 1e-4))
    assert kerasfold.verify(model, folded).equivalent
    assert kerasfold.verify(model, wrong).verdict == "different"
