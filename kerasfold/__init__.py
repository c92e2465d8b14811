"""Fold everything linear in a Keras model: the cheapest model that computes exactly the same.

`import kerasfold` gives every `keras.Model` a `.fold()` method.
"""

from __future__ import annotations

from kerasfold import stopping

if stopping.is_command_line():  # and may be stopped while what follows is imported
    stopping.end_in_one_line()

import importlib
from typing import TYPE_CHECKING, Any

from kerasfold import startup

if TYPE_CHECKING:
    from kerasfold import callbacks as callbacks
    from kerasfold.algebra.axis import Refused
    from kerasfold.equivalence.models import assert_equivalent, verify
    from kerasfold.equivalence.report import EquivalenceReport
    from kerasfold.errors import (
        EquivalenceError,
        FoldError,
        NonlinearLayerError,
        RuntimeUnavailableError,
        UnsupportedModelError,
    )
    from kerasfold.inverse.deconvolve import Deconvolution, deconvolve
    from kerasfold.inverse.into import Factors, factor, factors_into
    from kerasfold.keeping import report_of, save
    from kerasfold.lift.activations import obeys
    from kerasfold.lift.rules import lifts
    from kerasfold.lift.signal import Signal, weighted_sum
    from kerasfold.lift.stacked import concatenate
    from kerasfold.pipeline import explain, fold, require_linear
    from kerasfold.reports.views import FoldReport

__version__ = "0.1.0"

__all__ = [
    "Deconvolution",
    "EquivalenceError",
    "EquivalenceReport",
    "Factors",
    "FoldError",
    "FoldReport",
    "NonlinearLayerError",
    "Refused",
    "RuntimeUnavailableError",
    "Signal",
    "UnsupportedModelError",
    "assert_equivalent",
    "concatenate",
    "deconvolve",
    "explain",
    "factor",
    "factors_into",
    "fold",
    "lifts",
    "obeys",
    "report_of",
    "require_linear",
    "save",
    "verify",
    "weighted_sum",
]

_NAMES = {  # in the modules that have them
    "algebra.axis": ("Refused",),
    "equivalence.models": ("assert_equivalent", "verify"),
    "equivalence.report": ("EquivalenceReport",),
    "errors": (
        "EquivalenceError",
        "FoldError",
        "NonlinearLayerError",
        "RuntimeUnavailableError",
        "UnsupportedModelError",
    ),
    "inverse.deconvolve": ("Deconvolution", "deconvolve"),
    "inverse.into": ("Factors", "factor", "factors_into"),
    "keeping": ("report_of", "save"),
    "lift.activations": ("obeys",),
    "lift.rules": ("lifts",),
    "lift.signal": ("Signal", "weighted_sum"),
    "lift.stacked": ("concatenate",),
    "pipeline": ("explain", "fold", "require_linear"),
    "reports.views": ("FoldReport",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def _loaded(name: str) -> Any:
    """What is public under a name: its module is imported when it is first asked for."""
    if name == "callbacks":
        return importlib.import_module("kerasfold.callbacks")
    if name not in _HOMES:
        raise AttributeError(f"module 'kerasfold' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"kerasfold.{_HOMES[name]}"), name)
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # to whom any name would then be one
    __getattr__ = _loaded


def _attach_fold() -> None:
    """Give every `keras.Model` a `fold` method, which is loaded when it is first called.

    Nothing else of kerasfold is imported, whose modules may be in the middle of importing Keras.
    """
    keras = importlib.import_module("keras")
    importlib.import_module("kerasfold.read.part")  # for the files that hold one
    keras.Model.fold = lambda model, *args, **options: _loaded("fold")(model, *args, **options)


if startup.loads_late():
    startup.once_imported("keras", _attach_fold)
else:
    for _name in __all__:
        _loaded(_name)
