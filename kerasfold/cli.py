"""The command line over `fold`, `explain` and `verify`, and a stopwatch for two stored models.

Files are loaded with Keras's safe mode on, and no code in them is ever run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import logging
import math
import os
import re
import stat
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import keras
import numpy as np

from kerasfold.cost import OBJECTIVES, UNTIMED
from kerasfold.errors import EquivalenceError, FoldError, NonlinearLayerError, words_of
from kerasfold.pipeline import explain, fold
from kerasfold.read.model import input_structure
from kerasfold.runtimes import RUNTIMES, check_runtime, deploy, random_inputs
from kerasfold.timing import SAMPLES_OF_95, paired_seconds, ratio
from kerasfold.verify import verify

HERE = "tensorflow"  # the runtime where none is named
MEASURED = "measured"  # an objective of fold alone: to measure is to build
BUDGET = 60.0  # seconds
KERAS, HDF5 = (".keras",), (".h5", ".hdf5")

DONE, DIFFERENT, UNUSABLE = 0, 1, 2


class _Unusable(Exception):
    """Arguments or files that nothing can be done with: exit code 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unusable(f"{message} (see {self.prog} --help)")


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
    except (_Unusable, FoldError) as problem:
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
    _check_input(args.input)
    target = _checked_output(args.output)
    custom = _start(args.modules)
    model = _load(args.input, custom)
    nonlinear: Literal["keep", "error"] = "error" if args.strict else "keep"
    folded: Any = fold(model, args.objective, nonlinear, not args.no_verify, **measured)
    _save(folded, target, custom)
    _show(folded.fold_report, args.json)
    return DONE


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    """What `fold` is told where it measures."""
    if args.objective == MEASURED:
        return {
            "runtime": args.runtime or HERE,
            "budget": args.budget or BUDGET,
            "progress": sys.stderr.isatty(),
        }
    for option in ("runtime", "budget"):
        if getattr(args, option) is not None:
            raise _Unusable(
                f"argument --{option}: only with --objective {MEASURED} (see kerasfold fold --help)"
            )
    return {}


def _explain(args: argparse.Namespace) -> int:
    _check_input(args.input)
    custom = _start(args.modules)
    _show(explain(_load(args.input, custom), args.objective), args.json)
    return DONE


def _verify(args: argparse.Namespace) -> int:
    _check_input(args.a)
    _check_input(args.b)
    if args.data is not None:
        _check_file(args.data, (".npz",))
    custom = _start(args.modules)
    a, b = _load(args.a, custom), _load(args.b, custom)
    report = verify(a, b, None if args.data is None else _data(args.data, a))
    _show(report, args.json)
    return DONE if report.equivalent else DIFFERENT


def _bench(args: argparse.Namespace) -> int:
    _check_input(args.a)
    _check_input(args.b)
    custom = _start(args.modules)
    backend = keras.backend.backend()
    runtime = args.runtime or (HERE if backend == "tensorflow" else None)
    if runtime is not None:
        check_runtime(runtime)
    a, b = _load(args.a, custom), _load(args.b, custom)
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
            raise _Unusable(
                f"{name} holds a {type(model).__name__} without symbolic inputs: bench takes "
                "functional and Sequential models"
            )
        specs.append(keras.tree.flatten(input_structure(model)))
    for what, of in (("shapes", lambda x: tuple(x.shape[1:])), ("dtypes", lambda x: x.dtype)):
        theirs = [[of(x) for x in inputs] for inputs in specs]
        if theirs[0] != theirs[1]:
            raise _Unusable(
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


def _check_input(name: str) -> None:
    _check_file(name, KERAS + HDF5)


def _check_file(name: str, extensions: Sequence[str]) -> None:
    path = Path(name)
    if path.is_dir():
        raise _Unusable(f"{name} is a directory, not a file")
    if not path.exists():
        raise _Unusable(f"{name} does not exist")
    _check_extension(name, extensions)
    if not path.stat().st_size:
        raise _Unusable(f"{name} is empty")


def _check_extension(name: str, extensions: Sequence[str]) -> None:
    if not name.endswith(tuple(extensions)):
        raise _Unusable(f"{name} has an unknown extension: expected {' or '.join(extensions)}")


def _checked_output(name: str) -> Path:
    """Where the output goes, links followed."""
    path = Path(name).resolve()
    if path.is_dir():
        raise _Unusable(f"output {name} is a directory, not a file")
    _check_extension(name, KERAS + HDF5)
    if not path.parent.is_dir():
        raise _Unusable(f"output folder {path.parent} does not exist")
    return path


def _start(modules: Sequence[str]) -> dict[str, type]:
    """Import the user's modules; their classes of layers, models and operations."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    custom: dict[str, type] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise _Unusable(f"cannot import {name} ({words_of(error)})") from error
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__.split(".")[0] != "keras"
            if own and issubclass(value, keras.Operation):
                custom[value.__name__] = value
    return custom


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Silence what Keras advises on how to write models and which format to save them in."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _load(name: str, custom: dict[str, type]) -> keras.Model:
    """Load a model; nothing in its file is run."""
    _refuse_code(name, _config(name))
    try:
        with _no_advice():
            model = keras.saving.load_model(
                name, custom_objects=custom, compile=False, safe_mode=True
            )
    except Exception as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown is not None:
            raise _Unusable(
                f"{name} uses '{unknown[1]}', which Keras does not know: pass --import MODULE, the "
                "module that defines it"
            ) from error
        raise _Unusable(f"{name} cannot be loaded ({words_of(error)})") from error
    if not isinstance(model, keras.Model):
        raise _Unusable(f"{name} holds a {type(model).__name__}, not a model")
    return model


# What Keras says of a class or function it does not know: .keras files, HDF5 files, names.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown \w+:|"
    r"Could not interpret \w+(?: function)? identifier:) '?([^'\s.]+)"
)


def _config(name: str) -> Any:
    """The configuration in a model file, as plain values."""
    try:
        text = _archived_config(name) if name.endswith(KERAS) else _hdf5_config(name)
        return json.loads(text)
    except OSError as error:
        raise _Unusable(f"{name} cannot be read ({words_of(error)})") from error
    except (ValueError, RecursionError) as error:
        raise _Unusable(f"{name} is damaged: its configuration is not JSON") from error


def _archived_config(name: str) -> bytes:
    if not zipfile.is_zipfile(name):
        raise _Unusable(f"{name} is damaged, or not a .keras file: it is no zip archive")
    try:
        with zipfile.ZipFile(name) as archive:
            return archive.read("config.json")
    except KeyError as error:
        raise _Unusable(f"{name} is no Keras model: the archive has no config.json") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _Unusable(f"{name} is damaged ({words_of(error)})") from error


def _hdf5_config(name: str) -> str | bytes:
    h5py: Any = importlib.import_module("h5py")
    if not h5py.is_hdf5(name):
        raise _Unusable(f"{name} is damaged, or not an HDF5 file")
    with h5py.File(name, "r") as file:
        config = file.attrs.get("model_config")
    if not isinstance(config, (str, bytes)):
        raise _Unusable(
            f"{name} holds no model, only weights or other data: save the whole model with "
            "model.save()"
        )
    return config


def _refuse_code(name: str, config: Any) -> None:
    """Refuse a configuration that holds Python code or leads to a program on disk."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        if not isinstance(value, dict):
            continue
        stack.extend(value.values())
        kind, inner = value.get("class_name"), value.get("config")
        of_layer = inner.get("name") if isinstance(inner, dict) else None
        code = (
            kind == "Lambda" and isinstance(inner, dict) and isinstance(inner.get("function"), list)
        )
        if kind in ("__lambda__", "TFSMLayer") or code:
            what = f"layer '{of_layer}'" if of_layer else "a Lambda layer"
            raise _Unusable(
                f"{name} holds code in {what}, which is not run: build the model without it, from "
                "layers or from functions registered with Keras"
            )


def _data(name: str, model: keras.Model) -> Any:
    """Arrays of an .npz file, in the structure that the model takes."""
    try:
        with np.load(name, allow_pickle=False) as file:
            arrays = dict(file) if hasattr(file, "files") else {}
    except Exception as error:
        raise _Unusable(f"{name} cannot be read as an .npz file ({words_of(error)})") from error
    specs = keras.tree.flatten(input_structure(model))
    names = [spec.name for spec in specs]
    if len(arrays) == len(specs) == 1:
        arrays = dict(zip(names, arrays.values(), strict=True))
    if sorted(arrays) != sorted(names):
        raise _Unusable(
            f"{name} holds arrays {sorted(arrays)}: expected one for each input, {sorted(names)}"
        )
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise _Unusable(f"{name} needs the same number of samples in each array, at least one")
    for spec in specs:
        array = arrays[spec.name]
        if array.dtype.kind not in "fiub" or not _fits(array.shape, spec.shape):
            raise _Unusable(
                f"{name}: input '{spec.name}' takes {spec.dtype} of shape {tuple(spec.shape)}. "
                f"Received: {array.dtype} of shape {array.shape}"
            )
    return keras.tree.pack_sequence_as(input_structure(model), [arrays[key] for key in names])


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(
        n is None or n == m for m, n in zip(shape[1:], wanted[1:], strict=True)
    )


def _save(model: keras.Model, target: Path, custom: dict[str, type]) -> None:
    """Write a model next to its target, read it back, then put it in place at once."""
    try:
        with tempfile.TemporaryDirectory(prefix=".kerasfold-", dir=target.parent) as folder:
            written = Path(folder, target.name)
            with _no_advice():
                model.save(written)
            _check_written(model, written, custom)
            if target.exists():
                written.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(written, target)
    except _Unusable:
        raise
    except Exception as error:
        raise _Unusable(f"cannot write {target} ({words_of(error)})") from error


def _check_written(model: keras.Model, written: Path, custom: dict[str, type]) -> None:
    """Refuse a file that gives another model: HDF5 files cannot hold the calls of `keras.ops`."""
    try:
        with _no_advice():
            stored = keras.saving.load_model(written, custom_objects=custom, compile=False)
    except Exception as error:
        raise _Unusable(
            f"the folded model cannot be stored as {written.suffix} ({words_of(error)})"
            + ("" if written.suffix in KERAS else ": write a .keras file instead")
        ) from error
    pairs = zip(model.get_weights(), stored.get_weights(), strict=True)
    if not all(np.array_equal(x, y) for x, y in pairs):
        raise ValueError("the stored weights are not those of the folded model")
