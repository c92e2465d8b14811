"""What Keras makes of numbers that nobody told a dtype, while float64 is computed as such.

It makes float64 float32 on all backends but TensorFlow's, in BatchNormalization and every mean;
and of a constant that a layer writes as a number, what its default says, which does not mix with
float64. Keras's own settings of that are of the whole process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

WIDE: ContextVar[bool] = ContextVar("WIDE", default=False)


class _Widest(dict[str, str]):
    """What Keras makes of the dtypes of 64 bits that a result would have."""

    def get(self, dtype: str, default: Any = None) -> Any:
        return dtype if dtype == "float64" and WIDE.get() else super().get(dtype, default)


_CONFIG, _CORE = keras.src.backend.config, keras.src.backend.core
_DTYPES = keras.src.backend.common.dtypes
_DTYPES.BIT64_TO_BIT32_DTYPE = _Widest(_DTYPES.BIT64_TO_BIT32_DTYPE)


def _floatx_here(usual: Callable[[], str]) -> Callable[[], str]:
    """Keras's own dtype of floats, but where float64 is computed."""
    return functools.wraps(usual)(lambda: "float64" if WIDE.get() else usual())


def _converting_here(usual: Callable[..., Any]) -> Callable[..., Any]:
    """What makes tensors, the same; of what is a tensor, or told its dtype, what it did."""

    @functools.wraps(usual)
    def convert(x: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        is_wide = dtype is None and WIDE.get() and _is_written(x)
        return usual(x, "float64" if is_wide else dtype, *args, **kwargs)

    return convert


def _is_written(value: Any) -> bool:
    """Whether a value is floats of Python's or NumPy's, and no tensor: what a call states."""
    if isinstance(value, (list, tuple)):
        numbers = keras.tree.flatten(value)
        plain = all(isinstance(x, (int, float, np.number)) for x in numbers)
        return plain and any(map(_is_written, numbers))
    is_array = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f"
    return isinstance(value, float) or (is_array and not _CORE.is_tensor(value))


_CONFIG.floatx = _floatx_here(_CONFIG.floatx)
_CORE.convert_to_tensor = _converting_here(_CORE.convert_to_tensor)
