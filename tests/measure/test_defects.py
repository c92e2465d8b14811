"""Runtimes with defects, and weights that overflow: passed over, or the original."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.errors import FoldError, RuntimeUnavailableError
from kerasfold.measure import measured, runtimes
from zoo.blocks import conv
from zoo.choices import MODELS, stack
from zoo.same import kinds
from zoo.stopwatch import by_measuring, few_calls, is_part

pytestmark = pytest.mark.usefixtures("nothing_known")


def test_what_a_runtime_computes_wrongly_is_never_chosen(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.wrong = lambda m: len(kinds(m)) == 1
    folded = by_measuring(model)
    assert len(kinds(folded)) == 2
    assert all(len(kinds(m)) > 1 for models in found.timed for m in models)
    assert any(len(kinds(m)) == 1 for m in found.deployed)


def test_what_a_runtime_refuses_is_passed_over(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.refused = lambda m: len(kinds(m)) == 1
    assert len(kinds(by_measuring(model))) == 2
    found.refused = lambda m: is_part(m) and len(kinds(m)) == 3  # the original alone
    measured._CACHE.clear()
    assert len(kinds(by_measuring(model))) == 1


def test_what_tensorflow_refuses_is_held_against_the_original_on_the_runtime(watch, monkeypatch):
    found = watch(few_calls)

    def deploy(model: keras.Model, runtime: str, inputs: Any) -> Any:
        if runtime == "tensorflow":
            raise FoldError("tensorflow does not take it")
        return found.deploy(model, runtime, inputs)

    monkeypatch.setattr(measured, "deploy", deploy)
    model = MODELS["3x3-pool-3x3"]()
    assert len(kinds(by_measuring(model, verify=False))) == 1
    measured._CACHE.clear()
    found.wrong = lambda m: len(kinds(m)) == 1
    assert len(kinds(by_measuring(model, verify=False))) == 2


@pytest.mark.parametrize("fault", ["wrong", "refused"])
def test_a_fold_that_a_runtime_takes_in_parts_alone_is_replaced_by_the_original(fault, watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    setattr(found, fault, lambda m: not is_part(m) and len(kinds(m)) == 1)
    folded = by_measuring(model)
    assert kinds(folded) == kinds(model)
    assert folded.fold_report.merged == ()


def test_a_fold_is_kept_where_the_original_is_what_a_runtime_computes_wrongly(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.wrong = lambda m: len(kinds(m)) == 3
    assert kinds(by_measuring(model)) == ["Conv2D"]


def test_a_runtime_that_computes_nothing_right_gets_the_original(watch):
    found = watch(few_calls)
    found.wrong = lambda m: True
    model = MODELS["expand"]()
    assert kinds(by_measuring(model)) == kinds(model)
    assert found.timed == []


def test_a_runtime_that_refuses_everything_is_named(monkeypatch):
    def refuses(model: keras.Model, inputs: Any) -> Any:
        raise RuntimeError("no such kernel\nand a long story")

    monkeypatch.setitem(runtimes.RUNTIMES, "xla", runtimes.Runtime(refuses))
    message = r"^xla does not take model 'stack': RuntimeError: no such kernel$"
    for model in (MODELS["expand"](), stack(conv(3))):  # with and without a choice
        with pytest.raises(FoldError, match=message):
            by_measuring(model)


@pytest.mark.parametrize("runtime", ["tpu", 3, ""])
def test_an_unknown_runtime_is_refused_before_the_model_is_read(runtime):
    with pytest.raises(FoldError, match=r"unknown runtime .*: choose one of 'tensorflow'"):
        kerasfold.fold("not even a model", "measured", runtime=runtime)  # type: ignore[arg-type]


def test_a_missing_package_is_named_before_the_model_is_read(monkeypatch):
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "openvino":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(RuntimeUnavailableError, match=r'pip install "kerasfold\[openvino\]"'):
        kerasfold.fold("not even a model", "measured", runtime="openvino")  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"runtime": "xla"}, {"batch_size": 8}, {"budget": 5.0}])
def test_other_objectives_take_no_runtime(option):
    (name,) = option
    with pytest.raises(
        FoldError, match=rf"{name}= is for objective='.*measured'. Received: {name}="
    ):
        kerasfold.fold(MODELS["expand"](), "layers", **option)


# weights that overflow


def halves(*scales: float) -> keras.Model:
    """Convolutions in float16 with weights of these sizes, and a BatchNormalization."""
    own = [conv(4, dtype="float16", use_bias=False) for _ in scales]
    norm = layers.BatchNormalization(dtype="float16", name="norm")
    model = keras.Sequential([keras.Input((6, 6, 4), dtype="float16"), *own, norm])
    for layer, scale in zip(own, scales, strict=True):
        layer.kernel.assign(np.full(layer.kernel.shape, scale))
    return model


def test_weights_that_overflow_are_passed_over_where_others_do_not(watch):
    """The two convolutions have no product in float16; the second takes its norm all the same."""
    found = watch(few_calls)
    folded = by_measuring(halves(3e2, 3e2), verify=False)
    assert kinds(folded) == ["Conv2D", "Conv2D"]
    assert [kinds(m) for m in found.deployed if is_part(m)] == [["Conv2D", "Conv2D"]]
    measured._CACHE.clear()
    assert kinds(by_measuring(halves(1.0, 1.0), verify=False)) == ["Conv2D"]


def test_a_choice_among_weights_that_overflow_is_not_taken_as_known(watch):
    watch(few_calls)
    assert len(kinds(by_measuring(halves(3e2, 3e2), verify=False))) == 2
    assert len(kinds(by_measuring(halves(1.0, 1.0), verify=False))) == 1
    # And a choice that is known is given up where its weights overflow.
    assert len(kinds(by_measuring(halves(3e2, 3e2), verify=False))) > 1


def test_the_only_way_overflows_and_is_pinned(watch):
    watch(few_calls)
    model = halves(3e2)
    norm = model.get_layer("norm")
    norm.gamma.assign(np.full(4, 6e4))
    norm.moving_variance.assign(np.full(4, 0.5))
    folded = by_measuring(model, verify=False)
    assert kinds(folded) == ["Conv2D", "BatchNormalization"]
    assert any("would not fit their dtype" in kept.reason for kept in folded.fold_report.kept)
