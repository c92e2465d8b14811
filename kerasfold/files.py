"""Model files: loaded with safe mode on, nothing in them is run; written whole or not at all."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasfold.backend import own_seeds
from kerasfold.errors import UnusableError, words_of
from kerasfold.paths import KERAS
from kerasfold.quiet import unsaid
from kerasfold.replacing import replacing
from kerasfold.unpacking import check_archive, check_hdf5


@contextlib.contextmanager
def _on_its_own() -> Iterator[None]:
    """Read or write a model without advice from Keras on how to, and no random number drawn."""
    thread, logger = threading.get_ident(), logging.getLogger("absl")

    def by_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(by_others)
    try:
        with unsaid(), own_seeds():
            yield
    finally:
        logger.removeFilter(by_others)


def load(name: str, custom: dict[str, type], known_by: str = "pass --import") -> keras.Model:
    """Load a model; nothing in its file is run.

    Args:
        name: of the file.
        custom: classes that it may be made of.
        known_by: how a module is named to whoever asked, so that its classes are known.
    """
    config = _config(name)
    _refuse_code(name, config)
    try:
        with _on_its_own():
            model = keras.saving.load_model(
                name, custom_objects=custom, compile=False, safe_mode=True
            )
    except Exception as error:
        version = _keras_of(name) or _keras_by(config)
        if version.startswith("2"):
            problem = re.split(r" using config=|[.] ", words_of(error))[0]
            raise UnusableError(
                f"{name} was written by Keras {version}, and holds what Keras {keras.__version__} "
                f"cannot read ({problem}): with that Keras (as tf-keras, or with "
                "TF_USE_LEGACY_KERAS=1) save its weights alone, "
                "model.save_weights('weights.h5'); build the model anew of Keras 3 layers, with "
                "keras.ops for TensorFlow functions; load the weights into it, and save that"
            ) from error
        unknown = _UNKNOWN.search(str(error))
        if unknown is not None:
            raise UnusableError(
                f"{name} uses '{unknown[1]}', which Keras does not know: {known_by} "
                f"{_home_of(unknown[1].split('>')[-1], config)}"
            ) from error
        raise UnusableError(f"{name} cannot be loaded ({words_of(error)})") from error
    if not isinstance(model, keras.Model):
        raise UnusableError(f"{name} holds a {type(model).__name__}, not a model")
    return model


# What Keras says of a class or function it does not know: .keras files, HDF5 files, names.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown \w+:|"
    r"Could not interpret \w+(?: function)? identifier:) '?([^'\s.]+)"
)


def _home_of(name: str, config: Any) -> str:
    """Where a class or function is to be had: as imported, else as a configuration says."""
    had = [getattr(module, name, None) for module in list(sys.modules.values())]
    modules = sorted({x.__module__ for x in had if _is_for_models(x)})
    if modules:
        return f"{modules[0]} as well: it is there"
    told = [part.get("module") for part in _parts(config) if part.get("class_name") == name]
    module = next((module for module in told if isinstance(module, str)), "MODULE")
    return f"{module}, the module that defines it"


_FOR_MODELS = (keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer)


def _is_for_models(value: Any) -> bool:
    """Whether a value is a class that models are made of: others may have the name of one."""
    return isinstance(value, type) and issubclass(value, _FOR_MODELS)


# Layers that Keras 2 made of calls of TensorFlow.
_OF_KERAS_2 = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")


def _keras_by(config: Any) -> str:
    """The version of Keras that only can have written a configuration, or ""."""
    return "2" if any(part.get("class_name") in _OF_KERAS_2 for part in _parts(config)) else ""


def _keras_of(name: str) -> str:
    """The version of Keras that wrote a file, or ""."""
    with contextlib.suppress(Exception):  # the file was not read, whatever is wrong with it
        if name.endswith(KERAS):
            with zipfile.ZipFile(name) as archive:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
        h5py: Any = importlib.import_module("h5py")
        with h5py.File(name, "r") as file:
            version = file.attrs["keras_version"]
            return version.decode() if isinstance(version, bytes) else str(version)
    return ""


def training_state(name: str) -> int:
    """Bytes of a model file that are the state of an optimizer."""
    h5py: Any = importlib.import_module("h5py")
    with contextlib.ExitStack() as opened:
        source: Any = name
        if name.endswith(KERAS):
            archive = opened.enter_context(zipfile.ZipFile(name))
            if "model.weights.h5" not in archive.namelist():
                return 0
            source = opened.enter_context(archive.open("model.weights.h5"))
        file = opened.enter_context(h5py.File(source, "r"))
        sizes: list[int] = []

        def weigh(_: str, item: Any) -> None:
            sizes.append(item.nbytes if isinstance(item, h5py.Dataset) else 0)

        for group in ("optimizer", "optimizer_weights"):
            if group in file:
                file[group].visititems(weigh)
        return sum(sizes)


def _config(name: str) -> Any:
    """The configuration in a model file, as plain values."""
    try:
        with open(name, "rb"):  # zipfile and h5py take what may not be read for no such file
            pass
        text = _archived_config(name) if name.endswith(KERAS) else _hdf5_config(name)
    except OSError as error:
        raise UnusableError(f"{name} cannot be read ({words_of(error)})") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{name} is damaged: its configuration is not JSON") from error


def _archived_config(name: str) -> bytes:
    if not zipfile.is_zipfile(name):
        raise UnusableError(f"{name} is damaged, or not a .keras file: it is no zip archive")
    try:
        check_archive(name)
        with zipfile.ZipFile(name) as archive:
            return archive.read("config.json")
    except KeyError as error:
        raise UnusableError(f"{name} is no Keras model: the archive has no config.json") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UnusableError(f"{name} is damaged ({words_of(error)})") from error


def _hdf5_config(name: str) -> str | bytes:
    h5py: Any = importlib.import_module("h5py")
    if not h5py.is_hdf5(name):
        raise UnusableError(f"{name} is damaged, or not an HDF5 file")
    check_hdf5(name)
    with h5py.File(name, "r") as file:
        config = file.attrs.get("model_config")
    if not isinstance(config, (str, bytes)):
        raise UnusableError(
            f"{name} holds no model, only weights or other data: save the whole model with "
            "model.save()"
        )
    return config


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """The dicts that a configuration is made of, those within others too."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        if isinstance(value, dict):
            stack.extend(value.values())
            yield value


def _refuse_code(name: str, config: Any) -> None:
    """Refuse a configuration that holds Python code or leads to a program on disk."""
    for part in _parts(config):
        kind, inner = part.get("class_name"), part.get("config")
        of_layer = inner.get("name") if isinstance(inner, dict) else None
        code = (
            kind == "Lambda" and isinstance(inner, dict) and isinstance(inner.get("function"), list)
        )
        if kind in ("__lambda__", "TFSMLayer") or code:
            what = f"layer '{of_layer}'" if of_layer else "a Lambda layer"
            raise UnusableError(
                f"{name} holds code in {what}, which is not run: build the model without it, from "
                "layers or from functions registered with Keras"
            )


def save(
    model: keras.Model,
    target: Path,
    custom: Mapping[str, type],
    finish: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a model next to its target, read it back, then put it in place at once.

    Args:
        model: the model.
        target: where it is to be.
        custom: classes that it is made of, by name.
        finish: what is done with the file before that.
    """
    with replacing(target) as written:
        with _on_its_own():
            _write(model, written)
        finish(written)
        _check_written(model, written, custom)


def _write(model: keras.Model, path: Path) -> None:
    """Write a model by way of memory: HDF5 crashes the process where a disk is full."""
    if path.suffix in KERAS:
        with _Archive(io.FileIO(path, "w")) as archive:
            archive.path = path
            model.save(archive)
        return
    h5py: Any = importlib.import_module("h5py")

    class InMemory(h5py.File):
        """An HDF5 file that Keras takes for its path."""

        def __str__(self) -> str:
            return str(path)

    with InMemory(path, "w", driver="core", backing_store=False) as file:
        model.save(file)
        file.flush()
        path.write_bytes(file.id.get_file_image())


class _Archive(io.BufferedWriter):
    """An open file that Keras takes for its path, and beside which it writes no HDF5 file."""

    path: Path
    name = None

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)


def _check_written(model: keras.Model, written: Path, custom: Mapping[str, type]) -> None:
    """Refuse a file that gives another model: HDF5 files cannot hold the calls of `keras.ops`."""
    try:
        with _on_its_own():
            stored = keras.saving.load_model(written, custom_objects=custom, compile=False)
    except Exception as error:
        called = [x.name for x in model.operations if not isinstance(x, keras.Layer)]
        layers_alone = written.suffix not in KERAS and called
        why = f"it calls keras.ops, as '{called[0]}'" if layers_alone else words_of(error)
        raise UnusableError(
            f"the folded model cannot be stored as {written.suffix} ({why})"
            + ("" if written.suffix in KERAS else ": write a .keras file instead")
        ) from error
    pairs = zip(model.get_weights(), stored.get_weights(), strict=True)
    if not all(np.array_equal(x, y) for x, y in pairs):
        raise ValueError("the stored weights are not those of the folded model")
