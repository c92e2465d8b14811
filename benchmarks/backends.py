"""Folding and verifying on one of Keras's backends: a core set of models, and planted faults.

    KERAS_BACKEND=jax python benchmarks/backends.py --out jax.json
    KERAS_BACKEND=torch python benchmarks/backends.py --out torch.json
    KERAS_BACKEND=numpy python benchmarks/backends.py --out numpy.json

It needs NumPy, SciPy, rich, Keras and the backend; no TensorFlow. Each model is folded for latency
and as far as it goes, the stored fold is verified, and so is one with a kernel that is wrong by
1e-4. It fails unless all folds are proved in float64, no true one is refused and every fault is
seen, and unless all switches of the backend are found as they were.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import kerasfold
from kerasfold import backend
from kerasfold.__main__ import main as command

WRONG = 1e-4  # of a kernel
PROVED = 1e-10  # of the spread, that a fold may differ by in float64


def convolutional() -> keras.Model:
    """Convolutions, BatchNormalizations, a pool and a softmax."""
    x = image = keras.Input((16, 16, 3))
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 1)(layers.AveragePooling2D(2)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5, activation="softmax")(x))


def branched() -> keras.Model:
    """Branches that become one convolution, with all borders."""
    x = image = keras.Input((12, 12, 4))
    branches = [
        layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)),
        layers.BatchNormalization()(layers.Conv2D(4, 1)(x)),
        layers.BatchNormalization()(x),
    ]
    return keras.Model(image, layers.ReLU()(layers.Add()(branches)))


def separable() -> keras.Model:
    """Depthwise, pointwise and strided steps."""
    x = image = keras.Input((17, 17, 4))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2D(8, 1)(layers.LeakyReLU()(x))
    x = layers.SeparableConv2D(6, 3, strides=2)(x)
    return keras.Model(image, layers.BatchNormalization()(x))


def upsampling() -> keras.Model:
    """Upsampling and a transposed convolution."""
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(layers.UpSampling2D(2)(x))
    x = layers.BatchNormalization()(layers.Conv2DTranspose(3, 4, strides=2, padding="same")(x))
    return keras.Model(image, x)


def sequences() -> keras.Model:
    """Convolutions of sequences, then a recurrent layer."""
    x = steps = keras.Input((12, 3))
    x = layers.BatchNormalization()(layers.Conv1D(4, 3, padding="causal")(x))
    return keras.Model(steps, layers.LSTM(3)(layers.Dense(4)(x)))


def streams() -> keras.Model:
    """A recurrent layer that goes on from batch to batch, and has run."""
    x = step = keras.Input((1, 3), batch_size=2)
    x = layers.LSTM(4, stateful=True)(layers.Dense(4)(layers.Dense(6)(x)))
    model = keras.Model(step, layers.BatchNormalization()(x))
    model(np.ones((2, 1, 3), "float32"))
    return model


def volumes() -> keras.Model:
    """Convolutions of volumes."""
    x = volume = keras.Input((6, 6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv3D(3, 3)(x))
    return keras.Model(volume, layers.AveragePooling3D(2)(x))


def half(policy: str) -> Callable[[], keras.Model]:
    """The first model, computed in less than float32."""

    def build() -> keras.Model:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return convolutional()
        finally:
            keras.config.set_dtype_policy(before)

    return build


MODELS: dict[str, Callable[[], keras.Model]] = {
    "convolutional": convolutional,
    "branched": branched,
    "separable": separable,
    "upsampling": upsampling,
    "sequences": sequences,
    "streams": streams,
    "volumes": volumes,
    "mixed_bfloat16": half("mixed_bfloat16"),
    "mixed_float16": half("mixed_float16"),
}


def trained(model: keras.Model) -> keras.Model:
    """Biases and statistics off zero, as training leaves them."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1 and "float" in weight.dtype:
            low = 0.4 if "variance" in weight.path else -0.5
            weight.assign(rng.uniform(low, 1.5, weight.shape))
    return model


def planted(folded: keras.Model) -> keras.Model:
    """A copy with its last kernel wrong by a ten-thousandth."""
    with backend.own_seeds():
        wrong = keras.models.clone_model(folded)
    wrong.set_weights(folded.get_weights())
    kernel = [w for w in wrong.weights if len(w.shape) > 1][-1]
    kernel.assign(keras.ops.multiply(kernel.value, 1 + WRONG))
    return wrong


def settings() -> dict[str, Any]:
    """What a comparison must leave as it is."""
    found: dict[str, Any] = {
        "random": hash(random.getstate()),
        "promoted": keras.backend.result_type("float64", "float32"),
    }
    if backend.name() == "jax":
        import jax

        found |= {
            "x64": jax.config.jax_enable_x64,
            "matmul": jax.config.jax_default_matmul_precision,
        }
    if backend.name() == "torch":
        import torch

        cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
        found |= {
            "cuda": (cuda.matmul.allow_tf32, cuda.matmul.fp32_precision),
            "cudnn": (cudnn.allow_tf32, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision),
            "mkldnn": (mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision),
        }
    return found


def row(name: str) -> dict[str, Any]:
    """What becomes of one model. A failure is under the key `wrong`."""
    model, before = trained(MODELS[name]()), settings()
    begun = time.perf_counter()
    found: dict[str, Any] = {"model": name, "wrong": []}
    try:
        for objective in ("latency", "layers"):
            folded = kerasfold.fold(model, objective)
            report = folded.fold_report.equivalence
            found |= {f"{objective}_error": report.max_rel_error, "device": report.device}
            out = report.outputs[0]
            found["own"] = f"{out.original_error:.1e} -> {out.folded_error:.1e}"
            if report.dtype != "float64" or not report.max_rel_error <= PROVED:
                found["wrong"].append(f"{objective}: {report}")
        true = kerasfold.verify(model, folded)
        found |= {"stored_error": true.max_rel_error, "dtype": true.dtype}
        if not true.equivalent:
            found["wrong"].append(f"refused: {true}")
        fault = kerasfold.verify(model, planted(folded))
        found |= {"fault": fault.verdict, "fault_error": fault.max_rel_error}
        if fault.verdict != "different":
            found["wrong"].append(f"a fault is not seen: {fault}")
    except kerasfold.FoldError as error:
        found["wrong"].append(f"{type(error).__name__}: {error}")
    after = settings()
    if after != before:
        found["wrong"].append(f"left changed: {before} {after}")
    found["seconds"] = time.perf_counter() - begun
    print(json.dumps(found), flush=True)
    return found


def commands() -> list[str]:
    """What the command line does wrong with a stored model."""
    with tempfile.TemporaryDirectory() as folder:
        stored, folded = (str(Path(folder) / f"{name}.keras") for name in ("model", "folded"))
        trained(convolutional()).save(stored)
        codes = [command(["fold", stored, "-o", folded]), command(["verify", stored, folded])]
    return [] if codes == [0, 0] else [f"exit codes {codes} of fold and verify"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args(argv)
    result = {
        "python": sys.version.split()[0],
        "keras": keras.__version__,
        "backend": backend.name(),
        "devices": backend.devices(),
        "settings": settings(),
        "rows": [row(name) for name in args.only],
        "commands": commands(),
    }
    columns = ("model", "latency_error", "layers_error", "stored_error", "fault_error", "fault")
    table = Table(*columns, "own error", "seconds", title=f"{backend.name()} {backend.devices()}")
    for one in result["rows"]:
        cells = [one.get(c, "") for c in columns]
        shown = [f"{c:.1e}" if isinstance(c, float) else c for c in cells]
        table.add_row(*shown, one.get("own", ""), f"{one['seconds']:.1f}")
    console = Console(width=130)
    console.print(table)
    wrong = [f"{r['model']}: {w}" for r in result["rows"] for w in r["wrong"]] + result["commands"]
    for line in wrong:
        console.print(line, markup=False)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
