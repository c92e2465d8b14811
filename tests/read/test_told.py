"""What is known of one layer is not worked out again for another that says the same of itself."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.compose import exact
from kerasfold.emit import emit
from kerasfold.lift.regions import lifted
from kerasfold.plan.choose import plan
from kerasfold.read.told import Told
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same
from zoo.tasks import Classifier, Halve

pytestmark = pytest.mark.usefixtures("fresh")


@keras.saving.register_keras_serializable("told")
class Gain(layers.Layer):
    """A weight that keeps a shape, which Keras finds out by tracing; it counts its traces."""

    traces: ClassVar[int] = 0

    def __init__(self, power: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.power = power

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(), name="gain", initializer="ones")
        super().build(shape)

    def call(self, x: Any) -> Any:
        Gain.traces += 1
        return self.gain**self.power * x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable("told")
class Tripled(Gain):
    """Its config does not say how often it repeats the channels."""

    def __init__(self, times: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.times = times

    def call(self, x: Any) -> Any:
        return super().call(keras.ops.concatenate([x] * self.times, axis=-1))


@keras.saving.register_keras_serializable("told")
class Fickle(Gain):
    """It notes how often it was called, and computes with that."""

    called: int = 0

    def call(self, x: Any) -> Any:
        self.called = self.called + 1
        return super().call(x) * float(self.called)


@keras.saving.register_keras_serializable("told")
class Block(layers.Layer):
    """A convolution, its BatchNormalization and a layer of one's own."""

    def __init__(self, power: int = 1, fickle: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.conv = layers.Conv2D(4, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.inner = Fickle() if fickle else Gain(power)

    def build(self, shape: Any) -> None:
        for part in (self.conv, self.norm, self.inner):
            part.build(shape)
        super().build(shape)

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(self.inner(self.norm(self.conv(x))))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 4)


def stack(*blocks: Block) -> keras.Model:
    y = x = keras.Input((6, 5, 4))
    for block in blocks:
        y = block(y)
    return randomise(keras.Model(x, y))


def test_layers_that_say_the_same_are_traced_once():
    model = stack(Block(), Block(), Block(2), Block())
    Gain.traces = 0
    lifted(model)
    assert Gain.traces == 2
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT32)


def test_a_copy_is_not_traced():
    model = stack(Block(), Block(2))
    regions = lifted(model)
    forms = plan(regions).forms
    Gain.traces = 0
    folded = emit(regions, forms, exact(regions)).model
    assert Gain.traces == 0
    assert "compute_output_spec" not in vars(folded.get_layer(folded.layers[-2].name))
    assert_same(model, folded, FLOAT32)


def test_a_copy_that_says_other_things_gives_what_it_gives():
    """The copy has another shape, which the fold of it must not hide."""
    x = keras.Input((6, 5, 4))
    model = keras.Model(x, layers.Conv2D(2, 1)(layers.ReLU()(Tripled(2)(x))))
    with pytest.raises(kerasfold.FoldError, match=r"weights of 'conv2d\w*' have shapes"):
        kerasfold.fold(model, verify=False)


def test_what_a_layer_does_besides_is_found_of_each():
    model = stack(Block(fickle=True), Block(fickle=True))
    report = kerasfold.explain(model)
    reasons = [row.reason for row in report.kept if "counts its calls" in row.reason]
    assert len(reasons) == 2
    assert [layer.inner.called for layer in model.layers[1:]] == [0, 0]


def test_a_layer_of_a_part_is_traced_once_for_the_part_and_the_whole():
    backbone = stack(Block(), Block(2))
    task = randomise(Classifier(backbone, 3, Halve()))
    Gain.traces = 0
    told = Told()
    part, whole = lifted(backbone, told=told).graph, lifted(task, told=told).graph
    assert Gain.traces == 2
    pairs = zip(part.calls, whole.calls, strict=False)
    assert all(x.operation is y.operation for x, y in pairs)
    assert_same(task, kerasfold.fold(task, verify=False), FLOAT32)


def test_two_calls_of_a_layer_are_two_of_every_operation_in_it():
    """What one reading has traced another takes, and not a second call in the same."""
    block, told = Block(), Told()
    model = stack(block, block)
    for _ in range(2):
        calls = lifted(model, told=told).graph.calls
        acts = [id(x.operation) for x in calls if x.kind is keras.ops.tanh]
        assert len(set(acts)) == 2
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT32)


def test_what_another_size_is_traced_on_is_no_other_size():
    block, told = Block(), Told()
    shapes = []
    for size in (6, 8, 6):
        x = keras.Input((size, size, 4))
        shapes.append(lifted(keras.Model(x, block(x)), told=told).graph.calls[-1].outputs[0].shape)
    assert shapes == [(None, n, n, 4) for n in (6, 8, 6)]


@keras.saving.register_keras_serializable("told")
class Tabled(layers.Layer):
    """Layers, and a table that it is called with."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner, self.act = layers.Dense(1600), layers.Activation("tanh")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        super().build(shape)

    def call(self, x: Any, table: Any) -> Any:
        return self.act(self.inner(x) + table)


def test_a_table_is_no_other_that_is_written_alike():
    """NumPy writes the ends of long arrays alone."""
    layer, told = Tabled(), Told()
    tables = [np.zeros(1600, "float32") for _ in range(3)]
    tables[1][800] = 5.0
    read = []
    for table in tables:
        x = keras.Input((4,))
        calls = lifted(keras.Model(x, layer(x, table)), told=told).graph.calls
        read += [np.asarray(c) for call in calls for c in call.constants if np.size(c) == 1600]
    assert repr(tables[0]) == repr(tables[1])
    assert [each.max() for each in read] == [0.0, 5.0, 0.0]
