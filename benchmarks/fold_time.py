"""How long folding takes: against cloning, per layer of a chain, and per call of a graph.

    python benchmarks/fold_time.py --out fold_time.json
    python benchmarks/fold_time.py --quick

Three parts, each of which `--only` selects:

- `apps`: `fold(model, verify=False)` against `clone_model` and `set_weights`, for Keras's own
  applications. Paired runs in one process, who goes first alternates, medians of pair ratios.
- `chains`: seconds per layer of `fold(verify=False)` on chains that Keras built.
- `graphs`: seconds per call of the stages that read no weights, `lift` and `plan` (and `read`,
  where Keras can build the model), on graphs of up to 10,000 calls. Above 900 calls in a row
  Keras's own model building runs into Python's recursion limit, so there the `Graph` is made
  directly, from real layers.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kerasfold
from kerasfold.lift.regions import lift
from kerasfold.plan.choose import plan
from kerasfold.read.graph import Call, Graph, Tensor, read

APPS = (
    "MobileNet",
    "MobileNetV2",
    "Xception",
    "ResNet50",
    "InceptionV3",
    "EfficientNetB0",
    "DenseNet121",
)
SIZE = 16  # image side of chains and graphs, where no pixel matters
CHANNELS = 8


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call, with no garbage of others on its account."""
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall times of each step, run once untimed and then in turns, every other round backwards."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name in list(steps)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(seconds(steps[name]))
    return times


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every BatchNormalization random statistics."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def clone(model: keras.Model) -> keras.Model:
    """What Keras itself takes to make the same model again."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def measure_app(name: str, pairs: int) -> dict[str, Any]:
    """Seconds of fold and clone of one application, and their ratio."""
    model = randomise(getattr(keras.applications, name)(weights=None, classifier_activation=None))
    steps = {"fold": lambda: kerasfold.fold(model, verify=False), "clone": lambda: clone(model)}
    times = in_turns(steps, pairs)
    ratios = [f / c for f, c in zip(times["fold"], times["clone"], strict=True)]
    return {
        "app": name,
        "layers": len(model.layers),
        "params": model.count_params(),
        "fold_s": statistics.median(times["fold"]),
        "clone_s": statistics.median(times["clone"]),
        "ratio": statistics.median(ratios),
        "pairs": times,
    }


def keras_chain(kind: str, layers: int) -> keras.Model:
    """A chain of 1x1 convolutions and BatchNormalizations, with ReLUs or without."""
    x = y = keras.Input((SIZE, SIZE, CHANNELS))
    cycle = [
        lambda: keras.layers.Conv2D(CHANNELS, 1),
        keras.layers.BatchNormalization,
        keras.layers.ReLU,
    ]
    cycle = cycle[: 3 if kind == "relu" else 2]
    for i in range(layers):
        y = cycle[i % len(cycle)]()(y)
    return keras.Model(x, y)


def measure_chain(kind: str, layers: int, runs: int) -> dict[str, Any]:
    """Seconds of fold per layer of a chain, and of its stages."""
    model = randomise(keras_chain(kind, layers))
    if runs > 1:
        kerasfold.fold(model, verify=False)
    total = statistics.median(
        seconds(lambda: kerasfold.fold(model, verify=False)) for _ in range(runs)
    )
    copied = statistics.median(seconds(lambda: clone(model)) for _ in range(runs))
    stages = stage_seconds(read(model))
    return {
        "chain": kind,
        "layers": layers,
        "fold_s": total,
        "per_layer_ms": 1e3 * total / layers,
        "clone_s": copied,
        "read_s": seconds(lambda: read(model)),
        **stages,
    }


class GraphBuilder:
    """Writes a `Graph` call by call, from real layers, without Keras's own bookkeeping."""

    def __init__(self) -> None:
        self.shape = (None, SIZE, SIZE, CHANNELS)
        self.layer = keras.layers.InputLayer(batch_shape=self.shape)
        self.source = Tensor(0, self.shape, "float32")
        self.calls: list[Call] = []

    def call(self, kind: str, *inputs: Tensor) -> Tensor:
        """Append a call of a new layer."""
        output = Tensor(len(self.calls) + 1, self.shape, "float32")
        layer = self._layer(kind)
        argument = inputs[0] if len(inputs) == 1 else list(inputs)
        self.calls.append(
            Call(
                index=len(self.calls),
                operation=layer,
                name=f"{kind}_{len(self.calls)}",
                args=(argument,),
                kwargs={},
                outputs=(output,),
                training=None,
            )
        )
        return output

    def _layer(self, kind: str) -> keras.Layer:
        made: dict[str, Callable[[], keras.Layer]] = {
            "conv": lambda: keras.layers.Conv2D(CHANNELS, 1),
            "conv3": lambda: keras.layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False),
            "bn": keras.layers.BatchNormalization,
            "relu": keras.layers.ReLU,
            "add": keras.layers.Add,
        }
        layer = made[kind]()
        layer.build([self.shape] * 2 if kind == "add" else self.shape)
        return layer

    def graph(self, output: Tensor) -> Graph:
        """The graph that ends in a tensor."""
        return Graph(
            name="made",
            inputs=self.source,
            input_layers=(self.layer,),
            outputs=output,
            output_names=("out",),
            calls=tuple(self.calls),
            layout="channels_last",
        )


def made_graph(shape: str, calls: int) -> Graph:
    """A graph of about `calls` calls, of one of the shapes in `SHAPES`."""
    builder = GraphBuilder()
    x = builder.source
    while len(builder.calls) < calls:
        x = SHAPES[shape](builder, x)
    return builder.graph(x)


def _line(*kinds: str) -> Callable[[GraphBuilder, Tensor], Tensor]:
    def extend(builder: GraphBuilder, x: Tensor) -> Tensor:
        for kind in kinds:
            x = builder.call(kind, x)
        return x

    return extend


def _residual(*kinds: str, after: str | None) -> Callable[[GraphBuilder, Tensor], Tensor]:
    def extend(builder: GraphBuilder, x: Tensor) -> Tensor:
        y = _line(*kinds)(builder, x)
        y = builder.call("add", y, x)
        return y if after is None else builder.call(after, y)

    return extend


SHAPES: dict[str, Callable[[GraphBuilder, Tensor], Tensor]] = {
    "conv-bn-relu": _line("conv", "bn", "relu"),
    "3x3-bn-relu": _line("conv3", "bn", "relu"),
    "linear 1x1-bn": _line("conv", "bn"),
    "linear 3x3-bn": _line("conv3", "bn"),
    "residual + relu": _residual("conv3", "bn", "relu", "conv3", "bn", after="relu"),
    "linear residual": _residual("conv", "bn", after=None),
}


def stage_seconds(graph: Graph) -> dict[str, float]:
    """Processor seconds of lift and plan: one thread of Python, so others' load counts less."""
    start = time.process_time()
    regions = lift(graph)
    middle = time.process_time()
    plan(regions)
    return {"lift_s": middle - start, "plan_s": time.process_time() - middle}


def measure_graph(shape: str, calls: int) -> dict[str, Any]:
    """Seconds per call of lift and plan on one graph."""
    graph = made_graph(shape, calls)
    gc.collect()
    stages = stage_seconds(graph)
    each = {
        name.replace("_s", "_us_per_call"): 1e6 * t / len(graph.calls) for name, t in stages.items()
    }
    return {"graph": shape, "calls": len(graph.calls), **stages, **each}


def show(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of numbers as a table."""
    table = Table(title=title)
    columns = [key for key in rows[0] if key != "pairs"]
    for column in columns:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(
            *(f"{row[c]:.4g}" if isinstance(row[c], float) else f"{row[c]}" for c in columns)
        )
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: one app, small sizes")
    parser.add_argument("--only", choices=("apps", "chains", "graphs"), action="append")
    parser.add_argument("--apps", nargs="+", choices=APPS, default=None, metavar="APP")
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs per app (5)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="no graph that would take longer (20)"
    )
    parser.add_argument("--out", type=Path, default=Path("fold_time.json"))
    args = parser.parse_args(argv)
    parts = args.only or ("apps", "chains", "graphs")
    console = Console(width=150)
    result: dict[str, Any] = {
        "python": sys.version.split()[0],
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }

    if "apps" in parts:
        names = args.apps or (APPS[:1] if args.quick else APPS)
        rows = []
        for name in names:
            rows.append(measure_app(name, 1 if args.quick else args.pairs))
            keras.backend.clear_session()
            console.print({k: v for k, v in rows[-1].items() if k != "pairs"})
        result["apps"] = rows
        show(console, "fold(verify=False) against clone_model and set_weights", rows)
    if "chains" in parts:
        sizes = (20, 40) if args.quick else (100, 300, 900)
        rows = []
        for kind in ("relu", "linear"):
            for layers in sizes:
                rows.append(measure_chain(kind, layers, 1 if layers > 300 else 3))
                console.print(rows[-1])
        result["chains"] = rows
        show(console, "chains through Keras", rows)
    if "graphs" in parts:
        sizes = (50, 100) if args.quick else (1_000, 3_000, 10_000)
        rows = []
        for shape in SHAPES:
            for calls in sizes:
                if rows and rows[-1]["graph"] == shape:
                    expected = (rows[-1]["lift_s"] + rows[-1]["plan_s"]) * calls / rows[-1]["calls"]
                    if expected > args.seconds:
                        console.print(
                            f"{shape}: {calls} calls not tried, would take over {expected:.0f} s"
                        )
                        break
                rows.append(measure_graph(shape, calls))
                console.print(rows[-1])
        result["graphs"] = rows
        show(console, "lift and plan alone, no weights", rows)
    args.out.write_text(json.dumps(result, indent=1))
    console.print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
