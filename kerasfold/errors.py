"""What kerasfold raises: each a `FoldError`, which is a `ValueError`.

But for `Refused`, which lift rules and the algebra raise, and which becomes a reason in the report.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator


class FoldError(ValueError):
    """Something kerasfold was asked to do cannot be done; the message says what to do.

    Example:
        >>> try:
        ...     kerasfold.fold("model.keras")
        ... except kerasfold.FoldError as error:
        ...     print(error)
        kerasfold folds a keras.Model. Received: builtins.str: keras.saving.load_model() reads files
    """


class UnsupportedModelError(FoldError):
    """The model is not one that can be read as a graph of layers and rebuilt.

    Example:
        >>> try:
        ...     kerasfold.fold(keras.Sequential([keras.layers.Dense(3)]))  # of what inputs?
        ... except kerasfold.UnsupportedModelError as error:
        ...     print("refused")
        refused
    """


class NonlinearLayerError(FoldError):
    """A layer is not linear where a linear model was required.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(name="bend")])
        >>> try:
        ...     kerasfold.require_linear(model)
        ... except kerasfold.NonlinearLayerError as error:
        ...     print("'bend'" in str(error))
        True
    """


class EquivalenceError(FoldError):
    """A folded model does not compute what its original computes; it is not handed out.

    Example:
        >>> issubclass(kerasfold.EquivalenceError, kerasfold.FoldError)
        True
    """


class RuntimeUnavailableError(FoldError):
    """A runtime to measure on lacks a package; the message names the extra that brings it.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> try:
        ...     folded = model.fold(objective="measured", runtime="litert", budget=0)
        ... except kerasfold.RuntimeUnavailableError as error:
        ...     print(error)  # pip install "kerasfold[litert]"
    """


class UnusableError(FoldError):
    """A file, or an argument of the command line, that nothing can be done with."""


@contextlib.contextmanager
def only_fold_errors(what: str) -> Iterator[None]:
    """Make a `FoldError` of whatever else is raised meanwhile.

    Args:
        what: is going on, for the message.
    """
    try:
        yield
    except (FoldError, MemoryError):
        raise
    except Exception as error:
        raise FoldError(
            f"{what} failed ({words_of(error)}), which kerasfold did not foresee: please report it "
            "with its traceback"
        ) from error


_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
# With which Keras begins what a layer raises, and OpenVINO what anything raises.
_WRAPPERS = ("Exception encountered when calling", "Exception from src/", "Check '")
_FOLLOWED = "Error encountered:"  # with which Keras ends what a layer raises before it says that
_CAUSE = "Exception encountered: "  # and with which it begins why a config rebuilds no layer


def words_of(error: BaseException) -> str:
    """The class of an exception and the first line of its message that says something."""
    lines = _TERMINAL.sub("", str(error)).splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.startswith(_WRAPPERS)]
    causes = [line.removeprefix(_CAUSE) for line in said if line.startswith(_CAUSE)]
    telling = causes[-1:] or [line for line in said if not line.endswith(_FOLLOWED)] or said
    return f"{type(error).__name__}: {telling[0][:300]}" if telling else type(error).__name__
