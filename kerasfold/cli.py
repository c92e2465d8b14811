"""The command line over `fold`, `explain` and `verify`, and a stopwatch for two stored models.

Files are loaded with Keras's safe mode on, and no code in them is ever run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

import keras
import numpy as np

from kerasfold.cost import OBJECTIVES, UNTIMED
from kerasfold.equivalence.models import verify
from kerasfold.errors import (
    EquivalenceError,
    FoldError,
    NonlinearLayerError,
    UnusableError,
    words_of,
)
from kerasfold.files import check_file, check_input, checked_output, load, read_data, save
from kerasfold.measure.runtimes import RUNTIMES, check_runtime, deploy, random_inputs
from kerasfold.measure.timing import SAMPLES_OF_95, paired_seconds, ratio
from kerasfold.pipeline import explain, fold
from kerasfold.plots.figure import FORMATS, require_matplotlib
from kerasfold.read.model import input_structure

HERE = "tensorflow"  # the runtime where none is named
MEASURED = "measured"  # an objective of fold alone: to measure is to build
BUDGET = 60.0  # seconds


DONE, DIFFERENT, UNUSABLE = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UnusableError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, without the name of the program; None for those of the process.

    Returns:
        The exit code. 0: done, or equivalent. 1: not equivalent, also a fold that its
        verification refused, or with --strict not linear. 2: unusable input or arguments,
        with one line on stderr.
    """
    path = list(sys.path)
    try:
        args = _parser().parse_args(argv)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        return args.run(args)
    except SystemExit as finished:  # --help and --version
        return int(finished.code or DONE)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNUSABLE
    except (EquivalenceError, NonlinearLayerError) as refusal:
        return _fail(str(refusal), DIFFERENT)
    except FoldError as problem:
        return _fail(str(problem), UNUSABLE)
    except OSError as problem:  # what is written to is full, or closed
        return _fail(words_of(problem), UNUSABLE)
    except Exception as bug:
        return _fail(
            f"unexpected {words_of(bug)}: a defect of kerasfold or of a layer in the model; call "
            "kerasfold from Python to see where",
            UNUSABLE,
        )
    finally:
        sys.path[:] = path


def _fail(message: str, code: int) -> int:
    print(f"kerasfold: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kerasfold",
        description="Fold everything linear in a Keras model, exactly.",
        epilog="exit codes: 0 done or equivalent; 1 not equivalent, or with --strict not linear; "
        "2 unusable input or arguments",
    )
    parser.add_argument("--version", action="version", version=f"kerasfold {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    fold = commands.add_parser("fold", help="write the folded model and print what was merged")
    fold.add_argument("input", metavar="IN", help="model to fold (.keras, .h5, .hdf5)")
    fold.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="where to write it (.keras, .h5, .hdf5)",
    )
    _add_objective(fold, tuple(OBJECTIVES))
    _add_runtime(fold, f"with --objective {MEASURED}: where to measure ({HERE})")
    fold.add_argument(
        "--budget",
        type=_seconds,
        metavar="SECONDS",
        help=f"with --objective {MEASURED}: how long to measure ({BUDGET:g})",
    )
    fold.add_argument("--strict", action="store_true", help="refuse a model that is not linear")
    fold.add_argument("--no-verify", action="store_true", help="write without comparing first")
    fold.set_defaults(run=_fold)

    explain = commands.add_parser("explain", help="print what fold would merge; build nothing")
    explain.add_argument("input", metavar="IN", help="model to read (.keras, .h5, .hdf5)")
    _add_objective(explain, UNTIMED)
    explain.add_argument(
        "--plot",
        metavar="FILE",
        help="draw what becomes of the graph, and the kernel of its widest linear part "
        f"({', '.join(FORMATS)}; with the extra 'plot')",
    )
    explain.set_defaults(run=_explain)

    verify = commands.add_parser("verify", help="compare two stored models")
    _add_pair(verify)
    verify.add_argument(
        "--data",
        metavar="X.npz",
        help="inputs in place of random ones: one array, or arrays named as the inputs",
    )
    verify.set_defaults(run=_verify)

    bench = commands.add_parser("bench", help="time two stored models, in turns")
    _add_pair(bench)
    _add_runtime(bench, f"where to run them ({HERE}; else Keras's own backend)")
    bench.add_argument(
        "--batch", type=_positive, default=1, metavar="N", help="inputs per call (1)"
    )
    bench.add_argument("--runs", type=_positive, default=30, metavar="N", help="timed pairs (30)")
    bench.set_defaults(run=_bench)

    for command in (fold, explain, verify, bench):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument(
            "--import",
            dest="modules",
            action="append",
            default=[],
            metavar="MODULE",
            help="module that defines layers of the model, or lift rules; may be repeated",
        )
    return parser


def _add_objective(command: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    command.add_argument(
        "--objective", choices=choices, default=choices[0], help=f"what to minimise ({choices[0]})"
    )


def _add_runtime(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--runtime", choices=tuple(RUNTIMES), help=what)


def _add_pair(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", metavar="A", help="the reference (.keras, .h5, .hdf5)")
    command.add_argument("b", metavar="B", help="the model to compare with it")


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up. Received: {text!r}")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0. Received: {text!r}")
    return number


def _version() -> str:
    try:
        return importlib.metadata.version("kerasfold")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _fold(args: argparse.Namespace) -> int:
    measured = _measured(args)
    check_input(args.input)
    target = checked_output(args.output)
    custom = _start(args.modules)
    model = load(args.input, custom)
    nonlinear: Literal["keep", "error"] = "error" if args.strict else "keep"
    folded: Any = fold(model, args.objective, nonlinear, not args.no_verify, **measured)
    save(folded, target, custom)
    _show(folded.fold_report, args.json)
    return DONE


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    """What `fold` is told where it measures."""
    if OBJECTIVES[args.objective].is_timed:
        return {
            "runtime": args.runtime or HERE,
            "budget": args.budget or BUDGET,
            "progress": sys.stderr.isatty(),
        }
    for option in ("runtime", "budget"):
        if getattr(args, option) is not None:
            raise UnusableError(
                f"argument --{option}: only with --objective {MEASURED} (see kerasfold fold --help)"
            )
    return {}


def _explain(args: argparse.Namespace) -> int:
    check_input(args.input)
    if args.plot is not None:
        checked_output(args.plot, FORMATS)
        require_matplotlib()
    custom = _start(args.modules)
    report = explain(load(args.input, custom), args.objective)
    if args.plot is not None:
        report.plot(args.plot)
    _show(report, args.json)
    return DONE


def _verify(args: argparse.Namespace) -> int:
    check_input(args.a)
    check_input(args.b)
    if args.data is not None:
        check_file(args.data, (".npz",))
    custom = _start(args.modules)
    a, b = load(args.a, custom), load(args.b, custom)
    report = verify(a, b, None if args.data is None else read_data(args.data, a))
    _show(report, args.json)
    return DONE if report.equivalent else DIFFERENT


def _bench(args: argparse.Namespace) -> int:
    check_input(args.a)
    check_input(args.b)
    custom = _start(args.modules)
    backend = keras.backend.backend()
    runtime = args.runtime or (HERE if backend == "tensorflow" else None)
    if runtime is not None:
        check_runtime(runtime)
    a, b = load(args.a, custom), load(args.b, custom)
    _refuse_other_inputs(args, a, b)
    seconds = paired_seconds([_run(model, runtime, args.batch) for model in (a, b)], args.runs)
    medians = np.median(seconds, axis=0).tolist()
    found = ratio(*seconds.T)
    if args.json:
        _print_json(
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
        _print(f"{name:<{width}}  {1e3 * median:10.3f} ms")
    spread = "95 % interval" if args.runs >= SAMPLES_OF_95 else "range"
    _print(
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


def _show(report: Any, as_json: bool) -> None:
    if as_json:
        _print_json(report.to_dict())
    else:
        _print(str(report))


def _print_json(value: Any) -> None:
    _print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with null for infinities and NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _start(modules: Sequence[str]) -> dict[str, type]:
    """Import the user's modules; their classes of layers, models and operations."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    custom: dict[str, type] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UnusableError(f"cannot import {name} ({words_of(error)})") from error
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__.split(".")[0] != "keras"
            if own and issubclass(value, keras.Operation):
                custom[value.__name__] = value
    return custom
