"""Data that is spread over the devices of a strategy, or over workers, gives the verdict on all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasfold
from kerasfold.equivalence.tally import Tally

ROOT = Path(__file__).parents[2]

START = """
import json, os, sys
import tensorflow as tf

folder = sys.argv[1]
if len(sys.argv) > 2:
    index, workers = int(sys.argv[2]), sys.argv[3:]
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
else:
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

import keras
import numpy as np
import kerasfold
from keras import layers

ran = set()

@keras.saving.register_keras_serializable()
class Device(layers.Layer):
    def call(self, x):
        if tf.executing_eagerly():
            ran.add((x.device[-5:], len(x)))
        return x

def net(ceiling=None):
    keras.utils.set_random_seed(0)
    image = keras.Input((24, 24, 2), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(Device()(image)))
    x = layers.Flatten()(layers.ReLU(ceiling, name="relu")(x))
    return keras.Model(image, layers.Dense(3, "softmax", name="scores")(x), name="net")

images = np.random.default_rng(0).normal(size=(100, 24, 24, 2)).astype("float32")
"""

DEVICES = """
from kerasfold.callbacks import FoldCheckpoint

model, folded = net(), net().fold()
ran.clear()
report = kerasfold.verify(model, folded, images, strategy=strategy)
ran_on = sorted(ran)
with strategy.scope():
    mirrored = net()
    mirrored.compile("adam", "sparse_categorical_crossentropy")
file = f"{folder}/folded.keras"
kept = keras.callbacks.ModelCheckpoint(f"{folder}/whole.keras")
labels = np.arange(100) % 3
mirrored.fit(images, labels, verbose=0, callbacks=[FoldCheckpoint(file, on_error="raise"), kept])
whole, written = (keras.saving.load_model(f"{folder}/{x}.keras") for x in ("whole", "folded"))
print(json.dumps({
    "alone": kerasfold.verify(model, folded, images).to_dict(),
    "spread": report.to_dict(),
    "ran": ran_on,
    "mirrored": type(mirrored.layers[-1].kernel.value).__name__,
    "layers": [len(whole.layers), len(written.layers)],
    "apart": float(np.abs(whole.predict(images) - written.predict(images)).max()),
}))
"""

WORKERS = """
share = slice(60) if index == 0 else slice(60, 100)
mine, labels = images[share], (np.arange(100) % 3)[share]
equal = kerasfold.verify(net(), net().fold(), mine, labels=labels, strategy=strategy)
large = 100 * mine if index else 0.01 * mine  # only worker 1 sees what relu and relu6 differ by
other = kerasfold.verify(net(), net(6.0), large, strategy=strategy)
try:
    kerasfold.verify(net(), net(), mine[..., :1] if index else mine, strategy=strategy)
except kerasfold.FoldError as error:
    said = str(error)
print(json.dumps({"equal": equal.to_dict(), "other": other.to_dict(), "said": said}))
"""


def started(program: str, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", START + program, *args],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a process with two devices found, and two that are workers."""
    folder, workers = str(tmp_path_factory.mktemp("replicas")), free_ports(2)
    processes = [started(DEVICES, folder)]
    processes += [started(WORKERS, folder, str(i), *workers) for i in range(2)]
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, err[-3000:]
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return found


def test_two_devices_take_their_shares_and_find_what_one_finds(found: list) -> None:
    alone, spread = dict(found[0]["alone"]), dict(found[0]["spread"])
    assert alone.pop("device") == "tensorflow on cpu:0"
    assert spread.pop("device") == "tensorflow on cpu:0, cpu:1, 2 replicas"
    (one,), (several,) = alone.pop("outputs"), spread.pop("outputs")
    assert spread == alone
    for name in ("agreement", "max_abs_error", "scale", "original_error", "folded_error"):
        assert several[name] == one[name], name
    assert several["spread"] == pytest.approx(one["spread"])  # a sum in another order
    assert alone["equivalent"]
    assert [device for device, rows in found[0]["ran"] if rows == 32] == ["CPU:0", "CPU:1"]


def test_a_model_trained_on_two_devices_is_folded_as_it_is_saved(found: list) -> None:
    assert found[0]["mirrored"] == "MirroredVariable"
    whole, folded = found[0]["layers"]
    assert folded < whole
    assert found[0]["apart"] < 1e-5


def test_two_workers_come_to_one_verdict_on_all_of_the_data(found: list) -> None:
    for worker in found[1:]:
        assert worker["equal"]["verdict"] == "equivalent"
        assert worker["equal"]["inputs"] == 100
        agreement = worker["equal"]["outputs"][0]["agreement"]
        assert (agreement["inputs"], agreement["top1"]) == (100, 1.0)
        assert [each["inputs"] for each in agreement["per_class"]] == [34, 33, 33]
        assert worker["equal"]["device"].endswith("2 replicas in 2 workers")
        assert worker["other"]["verdict"] == "different"
        assert worker["other"]["where"]["layer"] == "relu"
    assert found[1]["equal"]["outputs"] == found[2]["equal"]["outputs"]
    assert found[1]["equal"]["outputs"][0]["spread"] == pytest.approx(
        found[0]["alone"]["outputs"][0]["spread"]
    )


def test_a_worker_that_fails_ends_all_of_them(found: list) -> None:
    assert found[2]["said"].startswith("data: input 'image' takes float32 of shape")
    assert found[1]["said"] == f"worker 1 of 2 failed (FoldError: {found[2]['said']})"


def test_tallies_merge_to_the_tally_of_all() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal([0, 5, 0], [1, 2, 1e-3], size=(3, 40, 3))
    other, noisy = (truth + scale * rng.normal(size=truth.shape) for scale in (1e-6, 1e-7))
    other[2, 7, 1] = truth[0, 3, 2] = np.inf

    def tally(*parts: int) -> Tally:
        made = Tally(name="y", shape=(None, 3), pixels=())
        for i in parts:
            made.saw_copies(truth[i], other[i])
            made.saw_own(truth[i], truth[i].astype("float16"), other[i], 0.1)
            made.saw_noise(truth[i], noisy[i])
        return made

    merged, whole, empty = tally(2), tally(0, 1, 2), tally()
    for part in (tally(0), tally(), tally(1)):
        merged.merge(part)
    empty.merge(tally(0, 1, 2))
    for one in (merged, empty):
        for name in (*Tally.__dataclass_fields__, "spread", "whole_spread"):
            if name != "moments":
                got, want = getattr(one, name), getattr(whole, name)
                assert got == pytest.approx(want) if isinstance(want, np.ndarray) else got == want
    finite = np.where(np.isfinite(truth), truth, 0.0).reshape(-1, 3)
    assert merged.spread == pytest.approx(finite.std(axis=0))


def small() -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3)(layers.Dense(5)(x)))


def test_one_device_is_a_strategy_too() -> None:
    model = small()
    report = kerasfold.verify(
        model, model.fold(), np.ones((3, 4)), strategy=tf.distribute.OneDeviceStrategy("CPU:0")
    )
    assert report.device.endswith("1 replicas")
    assert report.inputs == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "mirrored", "data": np.ones((3, 4))}, "strategy of class str: models are"),
        ({"strategy": tf.distribute.get_strategy(), "data": np.ones((3, 4))}, "under OneDevice"),
        ({"strategy": tf.distribute.get_strategy()}, "pass inputs as data="),
    ],
)
def test_what_cannot_be_spread_is_refused(settings: dict[str, Any], message: str) -> None:
    model = small()
    with pytest.raises(kerasfold.FoldError, match=message):
        kerasfold.verify(model, model, **settings)
