"""What pictures show is what the model computes, and they are written whole."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib import image

import kerasfold
from kerasfold.lift.regions import lifted
from kerasfold.plots.effective import effective
from kerasfold.plots.figure import LINE, mosaic
from kerasfold.plots.steps import Step
from zoo.articles import A1_5, A2_5, D1_5, average, conv, sequence
from zoo.commands import assert_fails
from zoo.same import in_float64

SIZE = 8  # of images, along each axis


def branches(x):
    y = layers.Conv2D(3, 3, padding="same")(x)
    return layers.Add()([y, layers.Conv2D(3, 1)(x)])


PARTS = {
    "line": (1, [layers.Conv1D(3, 3), layers.AveragePooling1D(2)]),
    "image": (2, [layers.Conv2D(3, 3), layers.AveragePooling2D(2), layers.Conv2D(2, 2)]),
    "padded": (2, [layers.Conv2D(3, 3, padding="same"), layers.Conv2D(2, 3, padding="same")]),
    "dilated": (2, [layers.DepthwiseConv2D(2, dilation_rate=3)]),
    "branches": (2, [branches]),
    "volume": (3, [layers.Conv3D(2, 2), layers.Conv3D(3, (1, 2, 3))]),
}


def built(rank, steps, channels=2):
    """A model of these steps, one after another."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((SIZE,) * rank + (channels,))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def impulse_responses(model):
    """What the middle output makes of each input sample by itself: (*sizes, inputs, outputs)."""
    exact, (*sizes, channels) = in_float64(model), model.input_shape[1:]
    count = np.prod(sizes) * channels
    zero = np.zeros((1, *sizes, channels))
    middle = tuple(n // 2 for n in model.output_shape[1:-1])
    outputs = [
        np.asarray(exact(x))[(slice(None), *middle)]
        for x in (zero, np.eye(count).reshape(count, *sizes, channels))
    ]
    return (outputs[1] - outputs[0]).reshape(*sizes, channels, -1)


@pytest.mark.parametrize(("rank", "steps"), PARTS.values(), ids=PARTS)
def test_the_kernel_is_what_one_output_makes_of_each_sample(rank, steps):
    model = built(rank, steps)
    part = effective([lifted(model)])
    response = impulse_responses(model)
    axes = part.operator.geometry.axes
    starts = [axis.stride * (axis.out // 2) - axis.pad[0] for axis in axes]
    window = part.window
    where = tuple(slice(s, s + n) for s, n in zip(starts, window.shape[:-2], strict=True))
    dense = window
    if part.operator.geometry.groups > 1:  # of each channel by itself
        dense = window * np.eye(2)
    np.testing.assert_allclose(response[where], dense, atol=1e-12)
    response[where] = 0.0
    assert not response.any()


def test_the_kernel_of_section_5_is_the_one_the_article_prints():
    model = sequence((12, 12, 1), conv(A1_5), average(), conv(A2_5))
    part = effective([lifted(model)])
    np.testing.assert_array_equal(part.window[..., 0, 0], D1_5 / 4)
    assert part.strides == (2, 2)
    assert [part.reads, *part.layers] == [layer.name for layer in model.layers]


@pytest.mark.parametrize("frequencies", [8, 4])  # more and fewer than the window has samples
def test_the_gain_is_the_size_of_the_frequency_response(frequencies):
    part = effective([lifted(built(*PARTS["line"]))])
    window = part.window
    for place, w in enumerate(2 * np.pi * np.arange(frequencies) / frequencies - np.pi):
        response = np.tensordot(np.exp(1j * w * np.arange(len(window))), window, 1)
        assert part.gain(frequencies)[place] == pytest.approx(np.linalg.norm(response), abs=1e-12)


def test_a_mosaic_shows_the_kernels_of_the_first_channels_apart():
    window = np.random.default_rng(0).normal(size=(3, 2, 6, 5))
    shown = mosaic(window, most=2)
    assert shown.shape == (3 + 1 + 3, 2 + 1 + 2)
    np.testing.assert_array_equal(shown[4:, :2], window[:, :, 0, 1])
    np.testing.assert_array_equal(shown[:3, 3:], window[:, :, 1, 0])
    assert np.isnan(shown[3]).all()
    assert mosaic(window[0], most=1).shape == (LINE, 2)
    np.testing.assert_array_equal(mosaic(window[None], most=1), window[:, :, 0, 0])
    np.testing.assert_array_equal(mosaic(window[0, 0]), window[0, 0].T)


def test_a_flow_tells_which_calls_became_which_step():
    x = inputs = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(3, 3, padding="same", name="wide")(x)
    z = layers.Dropout(0.5, name="dropout")(layers.BatchNormalization(name="norm")(y))
    outputs = layers.Add(name="sum")([layers.ReLU(name="relu")(z), x])
    (flow,) = kerasfold.explain(keras.Model(inputs, outputs)).flows
    assert flow.before == (
        Step("image", "InputLayer"),
        Step("wide", "Conv2D", (0,)),
        Step("norm", "BatchNormalization", (1,)),
        Step("dropout", "Dropout", (2,)),
        Step("relu", "ReLU", (3,)),
        Step("sum", "Add", (4, 0)),
    )
    assert flow.after == (
        Step("image", "InputLayer", (), (0,)),
        Step("norm", "Conv2D 3x3", (0,), (1, 2)),
        Step("relu", "ReLU", (1,), (4,)),
        Step("sum", "Add", (2, 0), (5,)),
    )
    assert flow.removed == {3}


def test_what_is_drawn_is_the_kernel():
    model = built(*PARTS["image"])
    figure = model.fold(objective="layers").fold_report.plot()
    drawn = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn, mosaic(effective([lifted(model)]).window), atol=1e-6)


@pytest.mark.parametrize(("rank", "steps"), PARTS.values(), ids=PARTS)
def test_pictures_of_any_number_of_axes_are_drawn(rank, steps, tmp_path):
    kerasfold.explain(built(rank, steps)).plot(tmp_path / "picture.png")
    assert np.ptp(image.imread(tmp_path / "picture.png"))


def test_a_fold_is_drawn_as_svg_alike_each_time(tmp_path):
    report = built(2, [layers.Conv2D(2, 3), layers.ReLU(), layers.Dense(2)]).fold().fold_report
    written = []
    for name in ("first.svg", "second.svg"):
        report.plot(str(tmp_path / name))
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert ElementTree.fromstring(written[0]).tag.endswith("svg")


def test_a_part_is_named_by_the_layer_it_ends_in():
    wide, narrow = layers.Conv2D(2, 5, name="wide"), layers.Conv2D(2, 3, name="narrow")
    report = kerasfold.explain(built(2, [wide, layers.ReLU(), narrow]))
    for layer, side in ((None, 5), ("wide", 5), ("narrow", 3)):
        assert report.plot(layer=layer).axes[0].get_title("left") == f"kernel {side}x{side}"
    with pytest.raises(kerasfold.FoldError, match=r"no linear part .* ends in a layer 'other'"):
        report.plot(layer="other")


def test_what_has_no_one_kernel_is_drawn_without(tmp_path):
    x = keras.Input((8, 8, 2))
    figure = kerasfold.explain(keras.Model(x, layers.ReLU()(x))).plot()
    assert "no linear part of the model is one kernel: no layer of it is linear" in [
        text.get_text() for text in figure.texts
    ]


def test_a_notebook_shows_it():
    figure = kerasfold.explain(built(*PARTS["image"])).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_reports_hold_plain_values_but_for_what_is_drawn():
    report = kerasfold.explain(built(*PARTS["image"]))
    assert "models" not in json.loads(json.dumps(report.to_dict()))
    assert "flows" not in repr(report)


def test_a_missing_matplotlib_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = kerasfold.explain(built(*PARTS["image"]))
    with pytest.raises(kerasfold.FoldError, match=r"pip install 'kerasfold\[plot\]'"):
        report.plot()


def test_the_command_line_draws(files, run, tmp_path):
    code, stdout, stderr = run("explain", files["linear.keras"], "--plot", tmp_path / "a.png")
    assert (code, stderr) == (0, "")
    assert "Conv2D + BatchNormalization -> Conv2D 3x3 (bn)" in stdout
    assert np.ptp(image.imread(tmp_path / "a.png"))


def test_the_command_line_refuses_other_pictures(files, run, tmp_path, monkeypatch):
    arguments = ("explain", files["linear.keras"], "--plot")
    assert_fails(
        run(*arguments, tmp_path / "a.gif"), 2, r".*a\.gif has an unknown .*: expected .png or .svg"
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert_fails(run(*arguments, tmp_path / "a.png"), 2, r".*pip install 'kerasfold\[plot\]'")
    assert not list(tmp_path.iterdir())
