"""What is said before a fold, of it, and of the folded model agree, for the models of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

import kerasfold
from kerasfold.cost import UNTIMED
from kerasfold.reports.record import COUNTS
from zoo import choices
from zoo.cases import CASES
from zoo.composites import COMPOSITES, NESTED
from zoo.graphs import GRAPHS, built

ODD = ("Transpose", "Padding", "Pooling", "UpSampling", "Einsum", "Flatten", "causal")
MODELS: dict[str, Callable[[], keras.Model]] = {
    **{name: lambda name=name: built(name) for name in GRAPHS},
    **{f"nested: {name}": make for name, make in NESTED.items()},
    **{f"composite: {name}": make for name, make in COMPOSITES.items()},
    **{
        case.id: lambda case=case: case.model("float32")
        for case in [case for case in CASES if any(word in case.id for word in ODD)][::4]
    },
}


def counts(report: kerasfold.FoldReport, side: str) -> dict[str, int]:
    return {name: getattr(report, f"{name}_{side}") for name in COUNTS}


@pytest.mark.parametrize("name", MODELS)
def test_reports_agree_and_of_a_fold_nothing_is_left(name: str, fresh: None) -> None:
    model = MODELS[name]()
    folded = kerasfold.fold(model, verify=False)
    said, told = kerasfold.explain(model), folded.fold_report
    again = kerasfold.explain(folded)
    assert counts(said, "after") == counts(told, "after") == counts(again, "before")
    assert told.params_after == folded.count_params()
    assert told.keras_layers_after == len(folded.layers) == again.keras_layers_before
    left: dict[str, Any] = {
        what: getattr(again, what) for what in ("merged", "removed", "repeated", "opened")
    }
    assert not any(left.values()), left
    assert counts(again, "before") == counts(again, "after")


@pytest.mark.parametrize("name", choices.MODELS)
def test_of_what_can_be_computed_in_several_ways_nothing_is_left(name: str, fresh: None) -> None:
    model = choices.MODELS[name]()
    for objective in UNTIMED:
        folded = kerasfold.fold(model, objective=objective, verify=False)
        again = kerasfold.explain(folded, objective=objective)
        assert (again.merged, again.removed, again.narrowed) == ((), (), ())
        assert counts(again, "before") == counts(again, "after")


def test_a_padding_and_a_convolution_stay_what_they_are() -> None:
    """Merged, they would be a padding and a convolution."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.ZeroPadding2D(2, name="pad")(image)
    model = keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(x))
    report = kerasfold.explain(model)
    assert not report.merged
    assert [row.layer for row in report.kept] == ["pad", "conv"]


def test_outputs_go_by_the_user_s_own_keys() -> None:
    x = keras.Input((4,), name="x")
    heads = [keras.layers.Dense(2, name=f"head{i}")(x) for i in range(3)]
    model = keras.Model(x, {"score": heads[0], "boxes": heads[1:]})
    found = kerasfold.verify(model, model.fold())
    assert [out.name for out in found.outputs] == ["boxes[0]", "boxes[1]", "score"]
