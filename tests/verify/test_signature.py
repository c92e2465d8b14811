"""What callers rely on is compared: names that a person gave, keys, structure, dtypes, batch."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.equivalence import models
from kerasfold.equivalence.signature import Difference, differences, refuse_other_shapes


def broken(a: keras.Model, b: keras.Model) -> list[str]:
    return [str(x) for x in differences(a, b) if x.breaks]


def noted(a: keras.Model, b: keras.Model) -> list[str]:
    return [str(x) for x in differences(a, b) if not x.breaks]


def net(name: str | None = None, out: str | None = None, **given: Any) -> keras.Model:
    x = keras.Input(**{"shape": (4,), "name": name, **given})
    return keras.Model(x, layers.Dense(3, name=out)(x))


def two(left: str | None, right: str | None, as_dict: bool = False) -> keras.Model:
    a, b = keras.Input((4,), name=left), keras.Input((4,), name=right)
    given = {left: a, right: b} if as_dict else [a, b]
    return keras.Model(given, layers.Add()([a, b]))


def giving(outputs: Any) -> keras.Model:
    """A model of two equal outputs, or one, in a structure of their names."""
    x = keras.Input((4,), name="x")
    return keras.Model(
        x, keras.tree.map_structure(lambda name: layers.Dense(2, name=name)(x), outputs)
    )


def test_a_model_is_like_itself() -> None:
    for model in (net("x", "y"), two("a", "b", as_dict=True), giving({"p": "p", "q": None})):
        assert differences(model, model) == []


def test_names_that_keras_counted_never_matter() -> None:
    assert differences(net(), net()) == []
    assert differences(two(None, None), two(None, None)) == []
    assert differences(giving(["dense_3", "dense"]), giving(["dense_8", "dense_1"])) == []
    assert differences(net("keras_tensor_7"), net("input_1")) == []


def test_a_name_counted_for_another_layer_is_counted() -> None:
    """Where a fold ends in a convolution, its output still has the name of the Dense."""
    x = keras.Input((4, 4, 3), name="x")
    outputs = [layers.Conv2D(2, 1, name=name)(x) for name in ("dense", "batch_normalization_2")]
    folded = keras.Model(x, outputs)
    rebuilt = keras.Model(x, [layers.Dense(2)(x), layers.BatchNormalization()(outputs[1])])
    assert differences(folded, rebuilt) == []


def test_a_named_input_is_missing() -> None:
    (words,) = broken(net("image"), net())
    assert words.startswith("input 'image' is named 'image' in the first and 'keras_tensor_")
    assert broken(net("image"), net("picture"))


def test_named_inputs_in_another_order() -> None:
    assert len(broken(two("left", "right"), two("right", "left"))) == 2


def test_a_name_where_there_was_none_changes_nothing() -> None:
    assert differences(net(), net("image", "scores")) == []


def test_a_named_output_of_several_is_missing() -> None:
    (words,) = broken(giving(["boxes", "scores"]), giving(["boxes", None]))
    assert words.startswith("output 'scores' is named 'scores' in the first and 'dense")


def test_the_name_of_the_only_output_is_noted() -> None:
    assert not broken(net(out="scores"), net(out="fused"))
    assert noted(net(out="scores"), net(out="fused")) == [
        "output 'scores' is named 'scores' in the first and 'fused' in the second"
    ]


def test_other_keys_of_outputs() -> None:
    (words,) = broken(giving({"p": "a", "q": "b"}), giving({"p": "a", "r": "b"}))[:1]
    assert words == (
        "the outputs are {'p': *, 'q': *} in the first and {'p': *, 'r': *} in the second"
    )


def test_keys_are_what_callers_see_not_the_layers_behind_them() -> None:
    assert differences(giving({"p": "a", "q": "b"}), giving({"q": "d", "p": "c"})) == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("y", ["y"]),
        (["y"], "y"),
        (["p", "q"], {"p": "p", "q": "q"}),
        (["p", "q"], ["p", ["q"]]),
        ("y", {"y": "y"}),
    ],
)
def test_another_structure_of_outputs(a: Any, b: Any) -> None:
    assert broken(giving(a), giving(b))


def test_a_list_for_a_tuple_is_noted() -> None:
    assert not broken(giving(["p", "q"]), giving(("p", "q")))
    assert len(noted(giving(["p", "q"]), giving(("p", "q")))) == 1


def test_another_structure_of_inputs() -> None:
    assert broken(two("a", "b"), two("a", "b", as_dict=True))


def test_a_single_input_may_come_in_any_structure() -> None:
    x = keras.Input((4,), name="x")
    y = layers.Dense(3)(x)
    alone = keras.Model(x, y)
    for given in ([x], {"x": x}):
        other = keras.Model(given, y)
        assert not broken(alone, other)
        assert not broken(other, alone)
        assert len(noted(alone, other)) == 1


def test_another_dtype_of_an_input() -> None:
    (words,) = broken(net("x", dtype="uint8"), net("x", dtype="float32"))
    assert words == "input 'x' is uint8 in the first and float32 in the second"


def test_another_dtype_of_an_output() -> None:
    x = keras.Input((4,), name="x")
    half = keras.Model(x, layers.Dense(3, dtype="mixed_float16")(x))
    (words,) = broken(keras.Model(x, layers.Dense(3)(x)), half)
    assert "is float32 in the first and float16 in the second" in words


def test_a_batch_that_was_free_is_fixed() -> None:
    free, fixed, other = (net("x", "y", shape=None, batch_shape=(n, 4)) for n in (None, 2, 3))
    assert broken(free, fixed) == [
        "input 'x' has a batch that is free in the first and 2 in the second",
        "output 'y' has a batch that is free in the first and 2 in the second",
    ]
    assert not broken(fixed, free)
    assert len(noted(fixed, free)) == 2
    assert broken(fixed, other)


def test_a_sequential_model_is_as_its_functional_twin() -> None:
    x = keras.Input((4,), name="x")
    layer = layers.Dense(3, name="y")
    functional = keras.Model(x, layer(x))
    assert differences(functional, keras.Sequential([keras.Input((4,), name="x"), layer])) == []


@pytest.mark.parametrize(
    "model",
    [
        net("image", "scores", dtype="float16"),
        two("left", "right"),
        two("left", "right", as_dict=True),
        giving({"p": "a", "q": None}),
        giving([None, ("head", "tail")]),
        net("x", shape=None, batch_shape=(2, 4)),
    ],
)
def test_a_fold_has_the_signature_of_its_original(model: keras.Model) -> None:
    assert differences(model, kerasfold.fold(model)) == []


def test_shapes_that_cannot_be_compared() -> None:
    refuse_other_shapes(net(), net(shape=None, batch_shape=(2, 4)))
    with pytest.raises(kerasfold.FoldError, match=r"inputs of different shapes: \[\(4,\)\] and"):
        refuse_other_shapes(net(), net(shape=(5,)))
    with pytest.raises(kerasfold.FoldError, match="outputs of different shapes"):
        refuse_other_shapes(giving(["p"]), giving(["p", "q"]))
    other = known(6)
    wide = keras.Model(other.input, layers.Reshape((6, 4, 1))(other.output))
    with pytest.raises(kerasfold.FoldError, match=r"\[\(None, 4\)\] and \[\(6, 4, 1\)\]"):
        refuse_other_shapes(less_known(6), wide)


def less_known(size: int, scale: float = 1.0) -> keras.Model:
    """Of (size, 4), twice as much; statically, of any size."""
    x = keras.Input((size, 4), name="x")
    y = layers.Lambda(lambda t: 2.0 * scale * t, output_shape=(None, 4), name="y")(x)
    return keras.Model(x, y, name="less")


def known(size: int) -> keras.Model:
    x = keras.Input((size, 4), name="x")
    return keras.Model(x, layers.Rescaling(2.0, name="y")(x), name="known")


def test_a_shape_of_which_less_is_known_is_compared_and_noted() -> None:
    assert less_known(6).output_shape == (None, None, 4)
    for pair in ([known(6), less_known(6)], [less_known(6), known(6)]):
        report = kerasfold.verify(*pair)
        assert (report.equivalent, report.signature) == (True, ())
        assert re.search(r"output 'y' has the shape \((6|None), 4\) in the first", report.note)


def test_what_differs_is_found_whatever_is_known_of_its_shape() -> None:
    assert kerasfold.verify(known(6), less_known(6, 1.001)).verdict == "different"
    x = keras.Input((6, 4), name="x")
    y = layers.Lambda(lambda t: 2.0 * t[:, :5], output_shape=(None, 4), name="y")(x)
    report = kerasfold.verify(known(6), keras.Model(x, y))
    assert report.verdict == "different"
    assert report.reason == "output 'y' has shape (6, 4) in one, (5, 4) in the other"


def test_a_model_without_symbolic_inputs_cannot_be_compared() -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    own = Own()
    own(np.zeros((1, 4), "float32"))
    with pytest.raises(kerasfold.UnsupportedModelError, match="no symbolic inputs"):
        refuse_other_shapes(net(), own)


def test_what_breaks_callers_is_a_failure_unless_told() -> None:
    a, b = net("image"), net("picture")
    b.set_weights(a.get_weights())
    report = kerasfold.verify(a, b)
    words = "input 'image' is named 'image' in the first and 'picture' in the second"
    assert (report.verdict, report.reason) == ("different", words)
    with pytest.raises(AssertionError, match=words):
        kerasfold.assert_equivalent(a, b)
    report = kerasfold.verify(a, b, strict_signature=False)
    assert (report.verdict, report.reason, report.note) == ("equivalent", "", words)
    kerasfold.assert_equivalent(a, b, strict_signature=False)


def test_what_breaks_no_caller_is_noted() -> None:
    a, b = net("x", "scores"), net("x", "fused")
    b.set_weights(a.get_weights())
    report = kerasfold.verify(a, b)
    assert report.equivalent
    assert "output 'scores' is named" in report.note
    assert report.note in str(report)


def test_a_wrong_function_is_said_first() -> None:
    report = kerasfold.verify(net("image", "scores"), net("picture", "scores"))
    assert report.reason.startswith("output 'scores' differs")
    assert "'picture'" in report.reason


def test_a_fold_of_another_signature_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    other = [Difference("input 'x' is float32 in the first and float16 in the second", True)]
    monkeypatch.setattr(models, "differences", lambda a, b: other)
    with pytest.raises(kerasfold.EquivalenceError, match="float16 in the second"):
        kerasfold.fold(net("x"))
