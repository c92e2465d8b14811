"""What each step of a deployed model takes, by the clock of the runtimes that have one."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasfold.measure.runtimes import (
    RUNTIMES,
    Arrays,
    check_runtime,
    onnx_session,
    openvino_request,
    told_if_refused,
)


def layerwise(
    make: Callable[[], keras.Model], runtime: str, inputs: Arrays, runs: int
) -> dict[str, float]:
    """The seconds of each step of a model on a runtime, in the order in which they run.

    Steps are what the runtime made of the layers, under its names for them; its clock slows them a
    little.

    Args:
        make: gives the model.
        runtime: a key of `STEPS`.
        inputs: as for `deploy`.
        runs: whose median it is, of a step that is too short for some of them over the others.

    Raises:
        FoldError: the runtime refuses the model, or lacks a package.
    """
    check_runtime(runtime)
    model, convert = make(), RUNTIMES[runtime].convert
    found: dict[str, list[float]] = defaultdict(list)
    with told_if_refused(runtime, model.name):
        assert convert is not None
        for name, seconds in STEPS[runtime](convert(model, inputs), inputs, runs):
            found[name].append(seconds)
    return {name: float(np.median(times)) for name, times in found.items()}


def _onnxruntime(content: bytes, inputs: Arrays, runs: int) -> Iterator[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        session, feed = onnx_session(
            content, inputs, enable_profiling=True, profile_file_prefix=str(Path(folder, "steps"))
        )
        for _ in range(runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            yield f"{name} ({event['args']['op_name']})", 1e-6 * event["dur"]


def _openvino(converted: Any, inputs: Arrays, runs: int) -> Iterator[tuple[str, float]]:
    request, feed = openvino_request(converted, inputs, PERF_COUNT=True)
    for _ in range(runs):
        request.infer(feed, share_inputs=True)
        for step in request.profiling_info:
            if step.status == step.Status.EXECUTED:
                yield f"{step.node_name} ({step.node_type})", step.real_time.total_seconds()


STEPS: dict[str, Callable[[Any, Arrays, int], Iterator[tuple[str, float]]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
