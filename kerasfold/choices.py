"""What is chosen by name, as types, so that a type checker sees a slip of the pen."""

from __future__ import annotations

from typing import Literal, TypeAlias

UntimedName: TypeAlias = Literal["latency", "macs", "params", "layers"]
"""Objectives that look at sizes alone."""

ObjectiveName: TypeAlias = Literal[UntimedName, "measured"]
"""What to minimise: a row each of `kerasfold.cost.OBJECTIVES`, the default first."""

RuntimeName: TypeAlias = Literal["tensorflow", "xla", "litert", "onnxruntime", "openvino"]
"""Where models are timed: a row each of `kerasfold.measure.runtimes.RUNTIMES`, default first."""

NonlinearName: TypeAlias = Literal["keep", "error"]
"""What becomes of layers that are not linear."""
