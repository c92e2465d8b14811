"""Fold everything linear in a Keras model: the cheapest model that computes exactly the same.

`import kerasfold` gives every `keras.Model` a `.fold()` method.
"""

from kerasfold import startup

with startup.for_this_process():
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
    from kerasfold.lift.rules import lifts
    from kerasfold.lift.signal import Signal, concatenate, weighted_sum
    from kerasfold.pipeline import explain, fold, require_linear
    from kerasfold.report import FoldReport

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
    "require_linear",
    "verify",
    "weighted_sum",
]
