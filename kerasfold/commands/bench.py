"""`kerasfold bench`: a stopwatch for two stored models."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasfold.commands.arguments import HERE
from kerasfold.commands.modules import imported
from kerasfold.commands.output import DONE, say, say_json
from kerasfold.errors import UnusableError
from kerasfold.files import load
from kerasfold.measure.runtimes import check_runtime, deploy, random_inputs
from kerasfold.measure.timing import SAMPLES_OF_95, paired_seconds, ratio
from kerasfold.read.model import input_structure
from kerasfold.stages import at


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    custom = imported(args.modules)
    backend = keras.backend.backend()
    runtime = args.runtime or (HERE if backend == "tensorflow" else None)
    if runtime is not None:
        check_runtime(runtime)
    at("loading the models")
    a, b = load(args.a, custom), load(args.b, custom)
    _refuse_other_inputs(args, a, b)
    at("timing in turns")
    seconds = paired_seconds([_run(model, runtime, args.batch) for model in (a, b)], args.runs)
    medians = np.median(seconds, axis=0).tolist()
    found = ratio(*seconds.T)
    if args.json:
        say_json(
            {
                "a": args.a,
                "b": args.b,
                "runtime": runtime or backend,
                "batch": args.batch,
                "runs": args.runs,
                "a_seconds": medians[0],
                "b_seconds": medians[1],
                "ratio": found.median,
                "ratio_low": found.low,
                "ratio_high": found.high,
            }
        )
        return DONE
    width = max(len(args.a), len(args.b))
    for name, median in zip((args.a, args.b), medians, strict=True):
        say(f"{name:<{width}}  {1e3 * median:10.3f} ms")
    spread = "95 % interval" if args.runs >= SAMPLES_OF_95 else "range"
    say(
        f"A takes {found.median:.2f} times as long as B on {runtime or backend} "
        f"({spread} {found.low:.2f} to {found.high:.2f}; median of {args.runs} pairs, "
        f"batch {args.batch})"
    )
    return DONE


def _refuse_other_inputs(args: argparse.Namespace, a: keras.Model, b: keras.Model) -> None:
    """Refuse models that one input cannot feed both of."""
    specs = []
    for name, model in ((args.a, a), (args.b, b)):
        if not getattr(model, "inputs", None):
            raise UnusableError(
                f"{name} holds a {type(model).__name__} without symbolic inputs: bench takes "
                "functional and Sequential models"
            )
        specs.append(keras.tree.flatten(input_structure(model)))
    for what, of in (("shapes", lambda x: tuple(x.shape[1:])), ("dtypes", lambda x: x.dtype)):
        theirs = [[of(x) for x in inputs] for inputs in specs]
        if theirs[0] != theirs[1]:
            raise UnusableError(
                f"{args.a} and {args.b} take inputs of different {what}: {theirs[0]} and "
                f"{theirs[1]}"
            )


def _run(model: keras.Model, runtime: str | None, batch: int) -> Callable[[], Any]:
    """A call of a model on random inputs: on a runtime, or as Keras's own backend runs it."""
    inputs = random_inputs(model, batch)
    if runtime is not None:
        return deploy(model, runtime, inputs)
    packed = keras.tree.pack_sequence_as(input_structure(model), inputs)
    return lambda: model.predict_on_batch(packed)  # arrays: waited for
