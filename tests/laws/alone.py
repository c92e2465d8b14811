"""The affine operators by themselves: proof that they need NumPy and nothing else.

Whatever here speaks of `conv` means the package that is loaded below.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any


def _load_algebra() -> Any:
    """`kerasfold/algebra` by itself: the package around it imports Keras, which no law needs."""
    package = Path(__file__).resolve().parents[2] / "kerasfold" / "algebra"
    spec = importlib.util.spec_from_file_location("algebra_alone", package / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


conv = _load_algebra()
Axis, Geometry, Operator, Refused = conv.Axis, conv.Geometry, conv.Operator, conv.Refused
