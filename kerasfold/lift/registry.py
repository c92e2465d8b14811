"""Which rule lifts which layer or operation.

Rules are found by exact class: a subclass whose `call` differs is not its base class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras

from kerasfold.errors import FoldError
from kerasfold.lift.signal import Signal
from kerasfold.options import require_flags
from kerasfold.read.model import op_named

Rule = Callable[..., Signal | list[Signal]]
R = TypeVar("R", bound=Rule)

RULES: dict[Any, Rule] = {}


def lifts(*kinds: Any, override: bool = False) -> Callable[[R], R]:
    """Register the lift rule of layer classes or `keras.ops` functions.

    The rule is called as `rule(layer, x)`, `x` a `kerasfold.Signal` or, for layers that are
    called on a list, a list of them; it returns one, or a list of all outputs. See
    `help(kerasfold.lift)`.

    Args:
        *kinds: layer classes (matched exactly, never a subclass) or `keras.ops` functions.
        override: whether the rule may take the place of one of kerasfold's own.

    Raises:
        TypeError: a kind that is neither.
        FoldError: a kind that kerasfold has a rule for, or `override` neither True nor False.

    Example:
        >>> class Doubled(keras.layers.Layer):
        ...     def call(self, inputs):
        ...         return 2 * inputs
        >>> @kerasfold.lifts(Doubled)
        ... def doubled(layer, x):
        ...     return x.scale(2.0)
        >>> from kerasfold.testing import check_lift
        >>> check_lift(Doubled(), input_shape=(8, 8, 3))
    """
    require_flags(override=override)
    for kind in kinds:
        layer = isinstance(kind, type) and issubclass(kind, keras.Layer)
        known = op_named(getattr(kind, "__name__", ""))
        if not layer and (known is None or known is not kind):
            raise TypeError(
                f"lifts() takes layer classes or keras.ops functions. Received: {kind!r}"
            )

    def register(rule: R) -> R:
        for kind in kinds:
            before = RULES.get(kind)
            if before is not None and is_own(before) and not override:
                raise FoldError(
                    f"{kind.__name__} has a lift rule of kerasfold's own, '{before.__name__}': to "
                    f"take its place for every model, say lifts({kind.__name__}, override=True)"
                )
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


def unruled(kind: type) -> str:
    """Why a layer of a class that has no rule is kept."""
    base = next((base for base in kind.__mro__[1:] if base in RULES), None)
    if base is None:
        return f"{kind.__name__} is not linear, or kerasfold has no rule for it"
    return f"{kind.__name__} extends {base.__name__}, and kerasfold has no rule for what it does"


def is_own(rule: Rule) -> bool:
    """Whether a rule is one of kerasfold's own."""
    return rule.__module__.partition(".")[0] == __name__.partition(".")[0]
