"""Options that are not of their kind: each is refused by name, none is passed over in silence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasfold
from kerasfold.callbacks import FoldCheckpoint
from kerasfold.errors import FoldError
from kerasfold.golden import check_golden, write_golden
from kerasfold.testing import check_lift

ANYTHING = (3, -1, 2.5, "x", b"x", [1.5], {}, object(), np.ones(3), [None], (8.0, 8.0, 3.0))


def small() -> keras.Model:
    """A model of free sizes."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 3)(image))


@pytest.fixture(scope="module")
def calls() -> dict[str, Callable[..., Any]]:
    """Public functions that take options, of one model."""
    model, kernel = small(), np.ones((3, 3, 1, 1))
    report = kerasfold.explain(model)
    return {
        "fold": lambda **options: kerasfold.fold(model, **options),
        "measure": lambda **options: kerasfold.fold(model, "measured", **options),
        "skip": lambda **options: kerasfold.fold(model, verify=False, **options),
        "explain": lambda **options: kerasfold.explain(model, **options),
        "require_linear": lambda **options: kerasfold.require_linear(model, **options),
        "verify": lambda **options: kerasfold.verify(model, model, **options),
        "assert_equivalent": lambda **options: kerasfold.assert_equivalent(model, model, **options),
        "plot": report.plot,
        "lifts": kerasfold.lifts,
        "factor": lambda **options: kerasfold.factor(kernel, **{"into": "spatial"} | options),
        "deconvolve": lambda **options: kerasfold.deconvolve(kernel, **options),
        "FoldCheckpoint": lambda **options: FoldCheckpoint(**{"filepath": "x.keras"} | options),
        "write_golden": lambda **options: write_golden(**{"model": model, "path": "x"} | options),
        "check_golden": lambda **options: check_golden(**{"model": model, "path": "x"} | options),
        "check_lift": lambda **options: check_lift(
            **{"layer": model.layers[-1], "input_shape": (4, 4, 3)} | options
        ),
    }


TAKEN: dict[str, dict[str, tuple[Any, ...]]] = {  # and what they do take of that
    "fold": {
        **dict.fromkeys(("objective", "nonlinear", "verify", "progress", "open_layers"), ()),
        "keep_channels": (),
        **dict.fromkeys(("runtime", "budget", "data", "input_shape", "exact_numbers"), ()),
        "batch_size": (3,),
    },
    "measure": {"runtime": (), "batch_size": (3,), "budget": (3, 2.5)},
    "skip": {"data": (), "input_shape": ()},
    "explain": {
        **dict.fromkeys(("objective", "open_layers", "exact_numbers", "runtime"), ()),
        "keep_channels": (),
        "batch_size": (3,),
    },
    "require_linear": {"objective": ()},
    "verify": dict.fromkeys(("data", "input_shape", "labels", "strict_signature", "strategy"), ())
    | {"atol": (3, 2.5), "rtol": (3, 2.5)},
    "assert_equivalent": {"data": (), "input_shape": ()},
    "plot": {"path": (), "layer": ()},
    "lifts": {"override": ()},
    "factor": {"into": (), "depthwise": (), "tolerance": (3, 2.5), "rank": (3,)},
    "deconvolve": {"first": (), "last": (), "strides": ()},
    "FoldCheckpoint": {"filepath": (), "mode": (), "on_error": (), "save_best_only": ()},
    "write_golden": {"model": (), "path": (), "data": (), "input_shape": ()},
    "check_golden": {"model": (), "path": ()},
    "check_lift": {"layer": (), "input_shape": (), "seed": (3,)},
}


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, options in TAKEN.items() for option in options]
)
def test_what_is_not_of_its_kind_is_refused(
    calls: dict[str, Callable[..., Any]], name: str, option: str
) -> None:
    for value in ANYTHING:
        if not any(value is taken for taken in TAKEN[name][option]):
            with pytest.raises(FoldError):
                calls[name](**{option: value})


def test_every_option_of_a_public_function_is_in_the_table() -> None:
    others = {"model", "a", "b", "kernel", "options"}
    for name in ("fold", "explain", "require_linear", "verify", "assert_equivalent", "deconvolve"):
        assert inspect.signature(getattr(kerasfold, name)).parameters.keys() - others <= (
            TAKEN[name].keys()
        ), name


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("fold", {"verify": 1}, "verify=1: expected True or False"),
        (
            "fold",
            {"objective": "macs", "runtime": "xla"},
            "runtime= is for objective='latency' or 'measured'. Received: runtime='xla'",
        ),
        ("fold", {"runtime": "openvin"}, "unknown runtime='openvin': choose 'tensorflow' or 'xla'"),
        ("explain", {"batch_size": 0}, "batch_size=0: expected a whole number from 1 up"),
        ("measure", {"budget": True}, "budget=True: expected a number of seconds, 0 or more"),
        ("skip", {"input_shape": (8, 8, 3)}, "input_shape= is for comparing, which verify=False"),
        ("verify", {"input_shape": (8.0, 8.0, 3.0)}, "input_shape=(8.0, 8.0, 3.0) does not fit"),
        ("verify", {"data": np.ones((1, 8, 8, 3)), "input_shape": (8, 8, 3)}, "not with data="),
        ("verify", {"atol": True}, "atol=True: expected a finite number, 0 or more"),
        ("plot", {"path": 3}, "path=3: expected the path of a file"),
    ],
)
def test_what_is_said(
    calls: dict[str, Callable[..., Any]], call: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(FoldError) as refusal:
        calls[call](**options)
    assert message in str(refusal.value)


def test_paths_may_be_objects(tmp_path: Path) -> None:
    write_golden(small(), tmp_path / "x.npz", input_shape=(np.int64(5), 5, 3))
    assert check_golden(small(), str(tmp_path / "x.npz"), atol=1e9).equivalent
