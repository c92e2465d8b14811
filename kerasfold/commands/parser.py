"""What each command takes, judged as far as that goes before Keras is loaded.

Nothing here imports what takes time: help, a version and a slip of the pen are answered at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import kerasfold
from kerasfold.choices import ObjectiveName, UntimedName
from kerasfold.commands.arguments import (
    HERE,
    MODEL,
    add_data,
    add_exact_numbers,
    add_keep_channels,
    add_loudness,
    add_modules,
    add_objective,
    add_pair,
    add_runtime,
    add_target,
    add_views,
    amount,
    check_given,
    check_views,
    positive,
    seconds,
)
from kerasfold.commands.output import junit_told
from kerasfold.errors import UnusableError
from kerasfold.paths import (
    DEPLOYED,
    HDF5,
    KERAS,
    NPZ,
    PICTURES,
    SAVED_MODEL,
    check_file,
    check_input,
    checked_output,
)
from kerasfold.reasons import BY_CODE

MEASURED = "measured"  # an objective of fold alone: to measure is to build
TIMES = ("latency", MEASURED)  # objectives that ask where the fold will run
BUDGET = 60.0  # seconds
TELLING = ("onnxruntime", "openvino")  # runtimes that say what each layer takes
SILENT = {"quiet": True, "verbose": False}  # of commands that answer at once
FILES = ("A", "B", "FILE", "IN", "OUT", "PATH")  # what arguments are called that name one
COMPLETED = {  # by files, as shtab says it for each shell
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "tcsh": "f",
    "fish": "(__fish_complete_path (commandline -ct))",
    "powershell": "_shtab_powershell_compgen_files",
}
SHELLS = tuple(COMPLETED)


class _Parser(argparse.ArgumentParser):
    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        if str(action.metavar).partition(".")[0] in FILES:
            action.complete = COMPLETED  # type: ignore[attr-defined]  # which shtab reads
        return action

    def error(self, message: str) -> NoReturn:
        raise UnusableError(f"{message} (see {self.prog} --help)")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a command, its name among them as `command`.

    Raises:
        SystemExit: help or the version were asked for, and printed.
        UnusableError: arguments, or files that they name, that nothing can be done with.
    """
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        args.own.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, args.own)}")
    args.judge(args)
    return args


def _meant(unknown: Sequence[str], command: argparse.ArgumentParser) -> str:
    """The options of a command that are like those it does not know."""
    options = re.findall(r"--[\w-]+", command.format_usage())
    names = [name.partition("=")[0] for name in unknown]
    like = [x for name in names for x in difflib.get_close_matches(name, options, 1)]
    return f": did you mean {' '.join(like)}?" if like else ""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    whole = _Parser(
        prog="kerasfold",
        description="Fold everything linear in a Keras model, exactly.",
        epilog="exit codes: 0 done or equivalent; 1 not equivalent, or with --strict not linear; "
        "2 unusable input or arguments; 3 inconclusive",
    )
    whole.add_argument("--version", action="version", version=f"kerasfold {kerasfold.__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for add in (_fold, _explain, _verify, _bench):
        command = add(commands)
        command.add_argument("--json", action="store_true", help="print JSON")
        add_modules(command)
        add_loudness(command)
    _completion(commands)

    for add in (_report, _why, _schema):
        add(commands)
    return whole


def _command(
    commands: Any, judge: Callable[[argparse.Namespace], None], name: str, **options: str
) -> argparse.ArgumentParser:
    """A command, described as its line of help says, and how its arguments are judged."""
    words = options["help"]
    said = f"{words[0].upper()}{words[1:]}."
    command: argparse.ArgumentParser = commands.add_parser(name, description=said, **options)
    command.set_defaults(judge=judge, own=command)
    return command


def _fold(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands, _judge_fold, "fold", help="write the folded model and print what was merged"
    )
    command.add_argument("input", metavar="IN", help=f"model to fold {MODEL}")
    command.add_argument(
        "-o", "--output", metavar="OUT", help=f"where to write it {MODEL}: IN-folded.keras"
    )
    command.add_argument("--force", action="store_true", help="let OUT be the file that is IN")
    add_objective(command, get_args(ObjectiveName))
    add_target(command)
    add_keep_channels(command)
    command.add_argument(
        "--budget",
        type=seconds,
        metavar="SECONDS",
        help=f"with --objective {MEASURED}: how long to measure ({BUDGET:g})",
    )
    command.add_argument("--strict", action="store_true", help="refuse a model that is not linear")
    command.add_argument("--no-verify", action="store_true", help="write without comparing first")
    add_data(command)
    add_exact_numbers(command)
    add_views(command)
    return command


def _judge_fold(args: argparse.Namespace) -> None:
    _judge_target(args)
    if args.budget is not None and args.objective != MEASURED:
        raise UnusableError(
            f"argument --budget: only with --objective {MEASURED} (see kerasfold fold --help)"
        )
    for option, value in (("data", args.data), ("input-shape", args.input_shape)):
        if args.no_verify and value is not None:
            raise UnusableError(
                f"argument --{option}: for comparing, which --no-verify skips "
                "(see kerasfold fold --help)"
            )
    check_given(args)
    check_views(args)
    check_input(args.input)
    if args.output is None:
        args.output = f"{Path(args.input).with_suffix('')}-folded{KERAS[0]}"
    args.target = checked_output(args.output)
    if args.target.exists() and os.path.samefile(args.input, args.target) and not args.force:
        raise UnusableError(f"{args.output} is the model to fold: --force writes over it")


def _judge_target(args: argparse.Namespace) -> None:
    """Refuse where the fold will run, if the objective does not ask."""
    for option, value in (("runtime", args.runtime), ("batch", args.batch_size)):
        if value is not None and args.objective not in TIMES:
            raise UnusableError(
                f"argument --{option}: only with --objective {' or '.join(TIMES)} "
                f"(see kerasfold {args.command} --help)"
            )


def _explain(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands, _judge_explain, "explain", help="print what fold would merge; build nothing"
    )
    command.add_argument("input", metavar="IN", help=f"model to read {MODEL}")
    add_objective(command, get_args(UntimedName), _untimed)
    add_target(command)
    add_exact_numbers(command)
    add_keep_channels(command)
    command.add_argument(
        "--plot",
        metavar="FILE",
        help="draw what becomes of the graph, and the kernel of its widest linear part "
        f"({', '.join(PICTURES)}; with the extra 'plot')",
    )
    add_views(command)
    return command


def _untimed(objective: str) -> str:
    """An objective, if it can be had without building anything."""
    if objective == MEASURED:
        raise argparse.ArgumentTypeError(
            f"{MEASURED!r} times models that it builds, and explain builds none: kerasfold fold IN "
            f"--objective {MEASURED} does, and prints what it tried"
        )
    return objective


def _judge_explain(args: argparse.Namespace) -> None:
    _judge_target(args)
    check_views(args)
    check_input(args.input)
    if args.plot is not None:
        checked_output(args.plot, PICTURES)


def _verify(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands,
        _judge_verify,
        "verify",
        help="compare two stored models, or one with what was deployed of it",
        epilog="exit codes: 0 equivalent; 1 different; 2 unusable input or arguments; "
        "3 inconclusive: nothing was shown, for the reason that is printed",
    )
    add_pair(command, "the same, or a .tflite, .onnx or OpenVINO .xml file, or a SavedModel")
    add_data(command)
    command.add_argument(
        "--atol", type=amount, metavar="X", help="error allowed, in place of measured bounds"
    )
    command.add_argument(
        "--rtol", type=amount, metavar="X", help="error allowed as a share of the value"
    )
    command.add_argument(
        "--loose-signature",
        action="store_true",
        help="names, dtypes, keys or a fixed batch that would break callers of A are no failure",
    )
    for option, metavar, what in (
        ("--junit", "FILE.xml", "write the report as JUnit XML"),
        ("--html", "FILE.html", "write the report as a page"),
        ("--dump", "X.npz", "write the inputs that show a difference, for --data"),
    ):
        command.add_argument(option, metavar=metavar, help=what)
    return command


def _judge_verify(args: argparse.Namespace) -> None:
    for name, extension in ((args.junit, ".xml"), (args.html, ".html"), (args.dump, *NPZ)):
        if name is not None:
            checked_output(name, (extension,))
    with junit_told(args):
        check_input(args.a)
        if not Path(args.b, SAVED_MODEL).exists():
            check_file(args.b, (*KERAS, *HDF5, *DEPLOYED))
        check_given(args)


def _bench(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands,
        _judge_bench,
        "bench",
        help="time two stored models, in turns",
        epilog="each deployment is one of A, one of B, and one of A again for the control, in a "
        "random order; the interval is over deployments, and wider where A against itself is not 1 "
        "or varies much",
    )
    add_pair(command, "the model to compare with it")
    add_runtime(command, f"where to run them ({HERE}; else Keras's own backend)")
    command.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="inputs per call (1)"
    )
    command.add_argument(
        "--deployments", type=positive, default=12, metavar="N", help="of each model (12)"
    )
    command.add_argument(
        "--runs", type=positive, default=9, metavar="N", help="timed pairs of each deployment (9)"
    )
    command.add_argument(
        "--warmup",
        type=positive,
        default=3,
        metavar="N",
        help="calls of each deployment before any is timed (3)",
    )
    command.add_argument(
        "--layers",
        action="store_true",
        help=f"what each layer takes, too, by the clock of {' or '.join(TELLING)}",
    )
    command.add_argument(
        "--threads", type=positive, metavar="N", help="of the runtime (as many as it likes)"
    )
    return command


def _judge_bench(args: argparse.Namespace) -> None:
    if args.layers and args.runtime not in TELLING:
        raise UnusableError(f"argument --layers: only with --runtime {' or '.join(TELLING)}")
    check_input(args.a)
    check_input(args.b)


def _completion(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands,
        lambda args: None,
        "completion",
        help="print a script that completes commands and options in a shell",
        epilog="for bash: kerasfold completion bash >> ~/.bash_completion (with the extra "
        "'completion')",
    )
    command.add_argument("shell", choices=SHELLS, help="the shell")
    command.set_defaults(**SILENT)
    return command


def _report(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands, _judge_report, "report", help="print the report that a folded model was kept with"
    )
    command.add_argument("input", metavar="FILE", help="what fold or kerasfold.save wrote (.keras)")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_views(command)
    add_loudness(command)
    return command


def _judge_report(args: argparse.Namespace) -> None:
    check_views(args)
    check_file(args.input, KERAS)


def _why(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands, _judge_why, "why", help="explain the reason that a code in a report stands for"
    )
    command.add_argument(
        "code", metavar="CODE", nargs="?", help="KF101, for one; else all are listed"
    )
    command.set_defaults(**SILENT)
    return command


def _judge_why(args: argparse.Namespace) -> None:
    if args.code is not None and args.code.upper() not in BY_CODE:
        raise UnusableError(
            f"{args.code} is no code of a report: `kerasfold why` lists those that there are"
        )


def _schema(commands: Any) -> argparse.ArgumentParser:
    command = _command(
        commands, lambda args: None, "schema", help="print the JSON Schema of a report's --json"
    )
    command.set_defaults(**SILENT)
    return command
