"""Operations that were given NumPy's whole numbers, as with Python's: no config holds others."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.read.model import is_layer, public_op

_OF_EVERY_OPERATION = frozenset(vars(keras.Operation(name="any")))


def plainly(operation: keras.Operation) -> keras.Operation:
    """An operation of Keras's that has a config and does the same; itself where there is none.

    Such as of a reshape to `(-1, np.prod(shape))`.
    """
    if is_layer(operation) or _has_config(operation) or public_op(type(operation)) is None:
        return operation
    parameters = inspect.signature(type(operation).__init__).parameters
    names = parameters.keys() - {"self", "name"}
    try:
        given = {name: _plain(getattr(operation, name)) for name in names}
        fresh = type(operation)(**given, name=operation.name)
        same = _has_config(fresh) and _settings(fresh) == _settings(operation)
        return fresh if same else operation
    except Exception:  # it keeps what it was given under another name, or takes no such numbers
        return operation


def _has_config(operation: keras.Operation) -> bool:
    try:
        operation.get_config()
    except NotImplementedError:
        return False
    return True


def _settings(operation: keras.Operation) -> dict[str, Any]:
    own = vars(operation).items()
    return {key: _plain(value) for key, value in own if key not in _OF_EVERY_OPERATION}


def _plain(value: Any) -> Any:
    """Whole numbers and flags of NumPy's as Python's; anything else as it is."""

    def plain(x: Any) -> Any:
        is_whole = isinstance(x, (np.generic, np.ndarray)) and x.dtype.kind in "iub"
        return x.tolist() if is_whole else x

    return tree.map_structure(plain, value)
