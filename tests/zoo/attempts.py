"""What measuring may have tried, as values."""

from __future__ import annotations

from kerasfold.measure.timing import Ratio
from kerasfold.measure.tried import Attempt, Tried

GAIN = Ratio(1.3, 1.2, 1.4)
BEFORE = Attempt("Conv2D + BatchNormalization", is_original=True, milliseconds=1.3)
MERGED = Attempt("Conv2D 3x3", taken=True, milliseconds=1.0, gain=GAIN)
OTHER = Attempt("Conv2D 5x5", milliseconds=0.9, gain=Ratio(1.4, 0.0, float("inf")))
REFUSED = Attempt("Conv2D 7x7", note="litert computes it wrongly")

TRIED = (
    Tried("litert", ("conv0", "bn0"), (REFUSED, BEFORE, OTHER, MERGED)),
    Tried("litert", ("conv1", "bn1"), (REFUSED, BEFORE, OTHER, MERGED)),
    Tried("litert", ("conv2", "bn2"), ()),
    Tried("litert", (), (BEFORE, MERGED)),
)
