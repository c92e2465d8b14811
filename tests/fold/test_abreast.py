"""Activations of convolutions of one tensor that become one, before they are parted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import activations, layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same, kinds, run_under_xla

SHAPE = (6, 5, 3)

# Of each sample by itself, and all alike.
POINTWISE: tuple[Callable[[], Any], ...] = (
    lambda: layers.ReLU(),
    lambda: layers.ReLU(6.0, negative_slope=0.1),
    lambda: layers.LeakyReLU(0.3),
    lambda: layers.ELU(0.7),
    lambda: layers.Activation("gelu"),
    lambda: layers.Activation("tanh"),
    lambda: ops.silu,
    lambda: lambda x: ops.maximum(x, 0.2),
)


def siblings(
    make: Sequence[Callable[[Any], Any]], end: Callable[[list[Any]], Any], shape: Any = SHAPE
) -> keras.Model:
    x = keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype)
    return randomise(keras.Model(x, end([one(x) for one in make])))


def conv(filters: int, activation: Any = None, **config: Any) -> Callable[[Any], Any]:
    """A convolution, its activation a call of its own unless it is a name."""
    if activation is None or isinstance(activation, str):
        return layers.Conv2D(filters, config.pop("size", 1), activation=activation, **config)
    layer = layers.Conv2D(filters, config.pop("size", 1), **config)
    return lambda x: activation(layer(x))


def assert_exact(model: keras.Model, objective: str = "layers") -> keras.Model:
    folded = kerasfold.fold(model, objective)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.equivalence.verdict == "equivalent"
    return folded


def activating(model: keras.Model) -> int:
    """How many calls activate something."""
    acting = ("Activation", "ReLU", "LeakyReLU", "ELU", "Silu", "Maximum", "Softmax", "PReLU")
    return sum(
        type(x).__name__ in acting or getattr(x, "activation", linear) not in (None, linear)
        for x in model.operations
    )


linear = activations.linear
concatenated = layers.Concatenate


@given(
    st.sampled_from(POINTWISE),
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=2, max_size=4),
    st.sampled_from([(1, 1, "valid"), (3, 2, "same"), (2, 1, "valid")]),
    st.sampled_from(["apart", "side by side", "turned", "read on"]),
)
@settings(max_examples=12, deadline=None)
def test_activations_of_siblings_become_one(
    make: Callable[[], Any], parts: Any, window: Any, end: str
) -> None:
    size, strides, padding = window

    def part(filters: int, normalised: bool) -> Callable[[Any], Any]:
        def made(x: Any) -> Any:
            y = layers.Conv2D(filters, size, strides, padding)(x)
            return make()(layers.BatchNormalization()(y) if normalised else y)

        return made

    ends: dict[str, Callable[[list[Any]], Any]] = {
        "apart": lambda ys: ys,
        "side by side": lambda ys: concatenated()(ys),
        "turned": lambda ys: concatenated()(ys[::-1]),
        "read on": lambda ys: [layers.Conv2D(2, 2)(y) for y in ys],
    }
    with policy("float64"):
        model = siblings([part(*one) for one in parts], ends[end])
    folded = assert_exact(model)
    assert activating(folded) == 1


def test_a_concatenation_that_casts_stays() -> None:
    parts = [conv(2, layers.ReLU(dtype="float64"), dtype="float64") for _ in range(2)]
    model = siblings(parts, concatenated(dtype="float32"))
    assert "Concatenate" in kinds(kerasfold.fold(model, "layers"))


def test_activations_within_layers_become_one() -> None:
    with policy("float64"):
        model = siblings([conv(2, "relu"), conv(3, "relu", name="b")], lambda ys: ys)
    folded = assert_exact(model)
    assert activating(folded) == 1
    assert folded.output_names == model.output_names


def test_one_within_a_layer_and_one_behind_it_become_one() -> None:
    with policy("float64"):
        model = siblings([conv(2, "relu"), conv(3, layers.Activation("relu"))], concatenated())
    assert kinds(assert_exact(model)) == ["Conv2D", "Activation"]


def test_a_unit_of_two_dense_layers_becomes_one() -> None:
    with policy("float64"):
        made = [layers.Dense(4, activation="silu"), layers.Dense(4, activation="silu")]
        model = siblings(made, layers.Multiply(), (7, 5))
    assert kinds(assert_exact(model)).count("Dense") == 1


def leaky(slope: float) -> Callable[[Any], Any]:
    return layers.LeakyReLU(slope)


def softmax() -> Callable[[Any], Any]:
    return layers.Softmax()


def prelu(*shared: int) -> Callable[[Any], Any]:
    return layers.PReLU(shared_axes=shared)


ALMOST: dict[str, Callable[[], list[Callable[[Any], Any]]]] = {
    "another slope": lambda: [conv(2, leaky(0.1)), conv(2, leaky(0.1 + 1e-9))],
    "another stride": lambda: [conv(2, leaky(0.1), strides=1), conv(2, leaky(0.1), strides=2)],
    "over channels": lambda: [conv(2, softmax()), conv(2, softmax())],
    "of each pixel": lambda: [conv(2, layers.PReLU()), conv(2, layers.PReLU())],
    "of each row": lambda: [conv(2, prelu(2)), conv(2, prelu(2))],
    "a function of channels within layers": lambda: [conv(2, "softmax"), conv(2, "softmax")],
    "of other tensors": lambda: [
        conv(2, leaky(0.1)),
        lambda x: leaky(0.1)(layers.Conv2D(2, 1)(ops.sin(x))),
    ],
}


@pytest.mark.parametrize("case", ALMOST)
def test_what_is_almost_one_activation_stays_two(case: str) -> None:
    with policy("float64"):
        model = siblings(ALMOST[case](), lambda ys: ys)
    assert activating(assert_exact(model)) == 2


@pytest.mark.parametrize("widths", [(2, 3), (1, 1), (1, 4, 2)])
@pytest.mark.parametrize("end", [concatenated(), lambda ys: ys, lambda ys: ys[::-1]])
def test_slopes_of_channels_stand_side_by_side(widths: tuple[int, ...], end: Any) -> None:
    with policy("float64"):
        shared = [(1, 2, 3), *((1, 2),) * (len(widths) - 1)]  # the first has one slope for all
        parts = [conv(n, prelu(*axes)) for n, axes in zip(widths, shared, strict=True)]
        model = siblings(parts, end)
    folded = assert_exact(model)
    assert activating(folded) == 1
    assert not kerasfold.explain(folded, "layers").merged


def test_slopes_that_two_calls_share_stay_shared() -> None:
    slopes = prelu(1, 2)
    with policy("float64"):
        model = siblings([conv(2, slopes), conv(2, slopes)], lambda ys: ys)
    kept = [x for x in assert_exact(model).layers if isinstance(x, layers.PReLU)]
    assert [x.alpha.shape[-1] for x in kept] == [2]


def test_what_is_read_before_its_activation_too_stays() -> None:
    def read_twice(x: Any) -> Any:
        y = layers.Conv2D(2, 1)(x)
        return layers.Multiply()([y, layers.ReLU()(y)])

    with policy("float64"):
        model = siblings([read_twice, conv(2, layers.ReLU())], lambda ys: ys)
    assert activating(assert_exact(model)) == 2


def test_outputs_of_one_layer_keep_its_name_in_a_file(tmp_path: Path) -> None:
    layer = layers.ReLU(name="both")
    model = siblings([conv(2, layer), conv(3, layer)], lambda ys: ys)
    kerasfold.fold(model, "layers").save(tmp_path / "fold.keras")
    loaded = keras.models.load_model(tmp_path / "fold.keras")
    assert loaded.output_names == model.output_names == ["both", "both"]


def test_equal_calls_on_equal_tensors_are_one_through_their_activations() -> None:
    with policy("float64"):
        model = siblings(
            [conv(2, layers.ReLU(), name="a"), conv(2, layers.ReLU(), name="b")], layers.Add()
        )
    model.get_layer("b").set_weights(model.get_layer("a").get_weights())
    folded = assert_exact(model)
    assert kinds(folded).count("Conv2D") == activating(folded) == 1


def test_channels_first() -> None:
    with policy("float64"):
        parts = [conv(n, layers.ReLU(), data_format="channels_first") for n in (2, 4)]
        model = siblings(parts, concatenated(axis=1), (3, 6, 5))
    folded = kerasfold.fold(model, "layers", verify=False)
    assert kinds(folded) == ["Conv2D", "ReLU"]
    assert_same(model, folded, FLOAT64, run=run_under_xla)


def parted(ys: list[Any]) -> list[Any]:
    return [layers.Conv2D(4, 3)(y) for y in ys]


@pytest.mark.parametrize(
    ("shape", "widths", "end", "objective", "count"),
    [
        ((56, 56, 16), (4, 4, 4), parted, "latency", 1),
        ((28, 28, 16), (5, 9), concatenated(), "latency", 1),
        ((17, 17, 768), (192, 128), parted, "latency", 2),
        ((17, 17, 768), (192, 128), parted, "layers", 1),
    ],
)
def test_prices_say_where_one_call_is_better(
    shape: Any, widths: tuple[int, ...], end: Any, objective: Any, count: int
) -> None:
    model = siblings([conv(n, layers.ReLU()) for n in widths], end, shape)
    folded = kerasfold.fold(model, objective, verify=False)
    assert sum(isinstance(x, layers.ReLU) for x in folded.layers) == count


def test_the_report_says_what_one_activation_is_of() -> None:
    model = siblings([conv(2, layers.ReLU(name=n)) for n in "ab"], concatenated(name="c"))
    report = kerasfold.fold(model, "layers").fold_report
    assert ("a", "b", "c") in [x.layers for x in report.merged]


def test_two_operations_made_with_the_same_are_no_one_function() -> None:
    """Neither sigmoid nor abs is made with anything."""
    with policy("float64"):
        model = siblings([conv(4, ops.sigmoid), conv(4, ops.absolute)], layers.Subtract())
    assert_exact(model)


@pytest.mark.parametrize("split", [False, True], ids=["one tensor", "its halves"])
def test_what_a_sum_of_convolutions_puts_side_by_side_has_one_activation(split: bool) -> None:
    x = inputs = keras.Input((8, 8, 4), dtype="float64")
    with policy("float64"):
        halves = ops.split(x, 2, axis=-1) if split else [x, x]
        acted = [layers.ReLU()(layers.Conv2D(2, 3, padding="same")(half)) for half in halves]
        ends = [layers.Conv2D(4, 3, padding="same")(y) for y in acted]
        model = randomise(keras.Model(inputs, layers.ReLU()(layers.Add()(ends))))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["Conv2D", "ReLU", "Conv2D", "ReLU"]
    assert_same(model, folded, FLOAT64)
    assert not kerasfold.explain(folded).merged
