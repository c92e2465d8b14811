"""`kerasfold bench`: a stopwatch for two stored models."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasfold.commands.arguments import HERE
from kerasfold.commands.modules import imported
from kerasfold.commands.output import DONE, say, say_json
from kerasfold.errors import UnusableError
from kerasfold.files import load
from kerasfold.legible import legible
from kerasfold.measure.layerwise import layerwise
from kerasfold.measure.runtimes import check_runtime, deployer, on_threads, random_inputs
from kerasfold.measure.stopwatch import Deploy, Times, timed
from kerasfold.measure.timing import Ratio
from kerasfold.read.model import input_structure
from kerasfold.stages import at

PERCENTILES = (50, 90, 99)
SHOWN = 10  # layers, the slowest, that are listed


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    custom = imported(args.modules)
    backend = keras.backend.backend()
    runtime = args.runtime or (HERE if backend == "tensorflow" else None)
    if runtime is not None:
        check_runtime(runtime)
    elif args.threads is not None:
        raise UnusableError(f"argument --threads: {backend} takes no number of threads from here")
    with contextlib.nullcontext() if runtime is None else on_threads(runtime, args.threads):
        at("loading the models")
        a, b = load(args.a, custom), load(args.b, custom)
        _refuse_other_inputs(args, a, b)
        inputs = random_inputs(a, args.batch)
        deploys = [_deployer(name, custom, runtime, inputs) for name in (args.a, args.b)]
        del a, b
        times = timed(
            deploys,
            args.deployments,
            args.runs,
            args.warmup,
            told=lambda done: at("timing in turns", done, args.deployments, "deployments"),
        )
        layers: dict[str, dict[str, float]] = {}
        for side in "ab" if args.layers else "":
            at("timing layers")
            make = functools.partial(load, getattr(args, side), custom)
            layers[side] = layerwise(make, args.runtime, inputs, args.runs)
    show = _show_json if args.json else _show
    show(args, runtime or backend, times, layers)
    return DONE


@dataclass(frozen=True, slots=True)
class _Pace:
    """What one model took.

    Attributes:
        percentiles: seconds of a call that as many of a hundred do not take longer than.
        per_second: inputs, one call after another.
    """

    percentiles: dict[int, float]
    per_second: float


def _pace(times: Times, subject: int, batch: int) -> _Pace:
    calls = times.calls(subject)
    found = np.percentile(calls, PERCENTILES).tolist()
    return _Pace(dict(zip(PERCENTILES, found, strict=True)), batch / float(calls.mean()))


def _show_json(
    args: argparse.Namespace, where: str, times: Times, layers: dict[str, dict[str, float]]
) -> None:
    paces = {name: _pace(times, subject, args.batch) for subject, name in enumerate("ab")}
    settings = ("batch", "threads", "warmup", "deployments", "runs")
    say_json(
        {
            "a": args.a,
            "b": args.b,
            "runtime": where,
            **{name: getattr(args, name) for name in settings},
            **{f"{name}_seconds": pace.percentiles[50] for name, pace in paces.items()},
            **{f"{name}_percentiles": pace.percentiles for name, pace in paces.items()},
            **{f"{name}_per_second": pace.per_second for name, pace in paces.items()},
            **_plain("ratio", times.ratio(1)),
            **_plain("control", times.control),
            "steady": times.is_steady,
            **{f"{side}_layers": own for side, own in layers.items()},
        }
    )


def _plain(name: str, found: Ratio) -> dict[str, float]:
    return {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}


def _show(
    args: argparse.Namespace, where: str, times: Times, layers: dict[str, dict[str, float]]
) -> None:
    width = max(len(args.a), len(args.b))
    for subject, name in enumerate((args.a, args.b)):
        pace = _pace(times, subject, args.batch)
        middle, *others = (f"{1e3 * seconds:.3f}" for seconds in pace.percentiles.values())
        tails = "  ".join(f"p{p} {ms}" for p, ms in zip(PERCENTILES[1:], others, strict=True))
        say(
            f"{'AB'[subject]}  {name:<{width}}  {middle:>10} ms  {tails}  "
            f"{pace.per_second:,.0f} inputs a second"
        )
    found, control = times.ratio(1), times.control
    threads = "" if args.threads is None else f", {_counted(args.threads, 'thread')}"
    say(
        f"A takes {found.median:.2f} times as long as B on {where} ({_interval(found, args)}; "
        f"{_counted(args.deployments, 'deployment')} of each, {_counted(args.runs, 'pair')} in "
        f"each, batch {args.batch}{threads})"
    )
    itself = f"A takes {control.median:.2f} times as long as itself ({_interval(control, args)})"
    if times.is_steady:
        say(f"control: {itself}")
    elif control.holds(1.0):
        say(f"warning: {itself}: that tells little, more --deployments or a quiet machine more")
    else:
        say(
            f"warning: {itself}: something beside the models makes a difference here; the interval "
            "above is wider by that"
        )
    for side, own in layers.items():
        slowest = sorted(own, key=lambda name: -own[name])[: None if args.verbose else SHOWN]
        say(f"layers of {side.upper()} on {where}, {len(slowest)} of {len(own)}:")
        for name in slowest:
            say(f"  {1e3 * own[name]:8.3f} ms  {legible(name)}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _interval(found: Ratio, args: argparse.Namespace) -> str:
    if args.deployments == 1:
        return "one deployment has no interval"
    return f"95 % interval {found.low:.2f} to {found.high:.2f}"


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


def _deployer(
    name: str, custom: dict[str, type], runtime: str | None, inputs: list[np.ndarray]
) -> Deploy:
    """Deployments of a stored model: on a runtime, or as Keras's own backend runs it."""
    if runtime is not None:
        return deployer(lambda: load(name, custom), runtime, inputs)

    def deploy() -> Callable[[], Any]:
        model = load(name, custom)
        packed = keras.tree.pack_sequence_as(input_structure(model), inputs)
        return lambda: model.predict_on_batch(packed)  # arrays: waited for

    return deploy
