"""What kerasfold raises. All of it is a `FoldError`, which is a `ValueError`."""


class FoldError(ValueError):
    """Something kerasfold was asked to do cannot be done; the message says what to do."""


class UnsupportedModelError(FoldError):
    """The model is not one that can be read as a graph of layers and rebuilt."""


class NonlinearLayerError(FoldError):
    """A layer is not linear where a linear model was required."""


class EquivalenceError(FoldError):
    """A folded model does not compute what its original computes; it is not handed out."""


class RuntimeUnavailableError(FoldError):
    """A runtime to measure on lacks a package; the message names the extra that brings it."""
