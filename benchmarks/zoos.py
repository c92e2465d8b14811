"""Other people's models: what folds of them, how long that takes, and how accurate it is.

    python benchmarks/zoos.py --out zoos.json
    python benchmarks/zoos.py --only keras_hub kimm:Rep --left

The zoos that are installed are run, and none is required: Keras's own applications, keras-hub,
kimm, keras-cv, kecam, kyolo, medicai, keras-unet-collection and segmentation-models-3D. Models
are built small, with random weights, biases and statistics. A row of the table is a model:

- the BatchNormalizations in it, to any depth, and those that its fold has left;
- its layers, and those of its fold;
- seconds of `clone_model`, which makes the layers anew and copies no weight, and those of
  `fold(verify=False)` as a multiple of them: medians of paired runs, who goes first alternates;
- seconds of verification;
- the largest error of the fold against the same model built in float64, relative to the largest
  output, and that of the original.

A fold that fails says why. What is no `FoldError` is a bug.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from fold_time import in_turns, seconds
from rich.console import Console
from rich.table import Table
from zoo_models import ZOOS, Build

import kerasfold
from kerasfold.errors import FoldError

SIZE = 64  # image side, where a model leaves it open
WEIGHTS = {  # by the end of their names; what training leaves as it began would fold too well
    "gamma": (0.5, 1.5),
    "moving_variance": (0.5, 1.5),
    "beta": (-0.2, 0.2),
    "bias": (-0.2, 0.2),
    "moving_mean": (-0.2, 0.2),
}


def filled(build: Build) -> keras.Model:
    """A model with no scale of one, and no bias or statistics of zero; the same each time."""
    keras.utils.set_random_seed(0)
    model = build()
    rng = np.random.default_rng(0)
    for variable in model.variables:
        bounds = WEIGHTS.get(variable.name)
        if bounds is not None:
            variable.assign(rng.uniform(*bounds, variable.shape))
    return model


def in_float64(build: Build, model: keras.Model) -> keras.Model:
    """What a model approximates: built by its zoo in float64, with the same weights."""
    usual = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        exact = build()
    finally:
        keras.config.set_floatx(usual[0])
        keras.config.set_dtype_policy(usual[1])
    for variable, given in zip(exact.variables, model.variables, strict=True):
        if variable.shape != given.shape:
            raise ValueError(f"in float64 '{variable.path}' is another variable")
        variable.assign(np.asarray(given, dtype="float64"))
    return exact


def outputs(model: keras.Model, dtype: str) -> list[np.ndarray]:
    """What a model makes of two random images."""
    rng = np.random.default_rng(0)
    given = keras.tree.map_structure(
        lambda x: rng.uniform(-1, 1, (2, *(SIZE if n is None else n for n in x.shape[1:]))).astype(
            dtype
        ),
        model.input,
    )
    made = keras.tree.flatten(model(given, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(y), dtype="float64") for y in made]


def largest_error(truth: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Relative to the largest value of each output."""
    return max(
        float(np.abs(a - b).max() / (np.abs(a).max() or 1.0))
        for a, b in zip(truth, found, strict=True)
    )


def layers_in(model: keras.Model) -> int:
    """Layers to any depth, but for models, which compute nothing themselves, and inputs."""
    idle = (keras.Model, keras.layers.InputLayer)
    return sum(not isinstance(layer, idle) for layer in model._flatten_layers())


def norms_in(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The BatchNormalizations of a model, to any depth."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def paired(model: keras.Model, pairs: int) -> tuple[float, float]:
    """Seconds of `clone_model`, and those of an unverified fold as a multiple of them."""
    steps = {
        "fold": lambda: kerasfold.fold(model, verify=False),
        "clone": lambda: keras.models.clone_model(model),
    }
    times = in_turns(steps, pairs)
    ratios = [f / c for f, c in zip(times["fold"], times["clone"], strict=True)]
    return statistics.median(times["clone"]), statistics.median(ratios)


def neighbours(model: keras.Model, norm: keras.layers.Layer) -> str:
    """What stands before and after a layer that was left."""
    graph = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    nodes = [node for node in graph if node.operation is norm]
    if not nodes:
        return f"{norm.name}, inside another layer"
    before = {type(x._keras_history.operation).__name__ for n in nodes for x in n.input_tensors}
    after = {
        type(node.operation).__name__
        for node in graph
        if any(x._keras_history.operation is norm for x in node.input_tensors)
    }
    return f"{'+'.join(sorted(before))} > {norm.name} > {'+'.join(sorted(after)) or 'output'}"


def measure(build: Build, pairs: int) -> dict[str, Any]:
    """One row: what `__doc__` says, as far as it goes."""
    row: dict[str, Any] = {}
    try:
        model = filled(build)
    except Exception as error:  # the zoo's own: it may be made for another Keras
        return {"failure": f"not built: {type(error).__name__}: {error}"}
    row |= {"layers": layers_in(model), "norms": len(norms_in(model))}
    try:
        row["verified_s"] = seconds(lambda: row.update(folded=kerasfold.fold(model)))
    except FoldError as refusal:
        return row | {"failure": f"refused: {type(refusal).__name__}: {refusal}"}
    except Exception as error:
        return row | {"failure": f"BUG: {type(error).__name__}: {error}"}
    folded = row.pop("folded")
    left = norms_in(folded)
    row |= {"layers_left": layers_in(folded), "norms_left": len(left)}
    row["left"] = [neighbours(folded, norm) for norm in left]
    try:
        row["clone_s"], row["ratio"] = paired(model, pairs)
        row["verify_s"] = row["verified_s"] - row["ratio"] * row["clone_s"]
    except Exception as error:  # Keras may not clone what it built
        row["note"] = f"not cloned: {type(error).__name__}: {error}"
    try:
        truth = outputs(in_float64(build, model), "float64")
        row["error"] = largest_error(truth, outputs(folded, "float32"))
        row["own_error"] = largest_error(truth, outputs(model, "float32"))
    except Exception as error:  # not every zoo has a float64
        row["note"] = f"no float64: {type(error).__name__}: {error}"
    return row


COLUMNS = {
    "norms": "BN",
    "norms_left": "left",
    "layers": "layers",
    "layers_left": "left",
    "clone_s": "clone s",
    "ratio": "fold / clone",
    "verify_s": "verify s",
    "error": "error",
    "own_error": "original's",
}


def show(console: Console, zoo: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of a zoo as a table, and what failed under it."""
    table = Table(title=zoo)
    table.add_column("model")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    for row in rows:
        cells = (row.get(key, "") for key in COLUMNS)
        table.add_row(
            row["model"], *(f"{x:.2g}" if isinstance(x, float) else f"{x}" for x in cells)
        )
    console.print(table)
    for row in rows:
        for key in ("failure", "note"):
            if key in row:
                console.print(f"{row['model']}: {row[key][:400]}", markup=False)


def chosen(zoo: str, only: Sequence[str]) -> Iterator[tuple[str, Build]]:
    """The models of a zoo that `--only` names: ZOO, or ZOO:PART of a model's name."""
    wanted = [part for name, _, part in (o.partition(":") for o in only) if name == zoo]
    if only and not wanted:
        return
    module = importlib.import_module(ZOOS[zoo].module)
    for name, build in ZOOS[zoo].models(module):
        if not only or any(part in name for part in wanted):
            yield name, build


def main(argv: Sequence[str] | None = None) -> int:
    """Run the zoos that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=(), metavar="ZOO[:PART]")
    parser.add_argument("--pairs", type=int, default=3, help="timed pairs per model (3)")
    parser.add_argument("--left", action="store_true", help="list every BatchNormalization left")
    parser.add_argument("--out", type=Path, default=Path("zoos.json"))
    args = parser.parse_args(argv)
    console = Console(width=130)
    result: dict[str, Any] = {"keras": keras.__version__, "backend": keras.backend.backend()}
    for zoo in ZOOS:
        rows = []
        try:
            for name, build in chosen(zoo, args.only):
                rows.append({"model": name, **measure(build, args.pairs)})
                console.print({k: v for k, v in rows[-1].items() if k != "left"})
                keras.backend.clear_session()
                gc.collect()
        except ImportError as missing:
            console.print(f"{zoo}: not run ({missing})", markup=False)
        if rows:
            show(console, zoo, rows)
            result[zoo] = rows
        if args.left:
            for row in rows:
                for line in row.get("left", ()):
                    console.print(f"{row['model']}: {line}", markup=False)
        args.out.write_text(json.dumps(result, indent=1))
    console.print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
