"""Names of files, judged before anything is loaded: this module imports nothing that takes time."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from kerasfold.errors import UnusableError

KERAS, HDF5 = (".keras",), (".h5", ".hdf5")
DEPLOYED = (".tflite", ".onnx", ".xml")  # files of other runtimes
SAVED_MODEL = "saved_model.pb"  # in the folder of one
NPY, NPZ = (".npy",), (".npz",)
PICTURES = (".png", ".svg")


def check_input(name: str) -> None:
    """Refuse what is no model file. Raises `UnusableError`."""
    check_file(name, KERAS + HDF5)


def check_file(name: str, extensions: Sequence[str]) -> None:
    """Refuse what is no file with content and one of some extensions. Raises `UnusableError`."""
    found = _found(name)
    if found is None:
        raise UnusableError(f"{name} does not exist")
    _check_kind(name, found)
    _check_extension(name, extensions)
    if not found.st_size:
        raise UnusableError(f"{name} is empty")


def _found(name: str) -> os.stat_result | None:
    """What is said of a file, links followed; None if there is none. Raises `UnusableError`."""
    try:
        return os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # links in a circle, names too long, with a null byte
        reason = getattr(error, "strerror", None) or error
        raise UnusableError(f"{name!r} cannot be a file: {reason}") from error


def _check_kind(name: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise UnusableError(f"{name} is a directory, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise UnusableError(f"{name} is a pipe, a socket or a device, not a file")


def _check_extension(name: str, extensions: Sequence[str]) -> None:
    if not name.endswith(tuple(extensions)):
        raise UnusableError(f"{name} has an unknown extension: expected {' or '.join(extensions)}")


def checked_output(name: str, extensions: Sequence[str] = KERAS + HDF5) -> Path:
    """Where the output goes, links followed. Raises `UnusableError`."""
    found = _found(name)
    if found is not None:
        _check_kind(f"output {name}", found)
    _check_extension(name, extensions)
    path = Path(os.path.realpath(name))
    if not path.parent.is_dir():
        raise UnusableError(f"output folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UnusableError(f"output folder {path.parent} cannot be written to")
    return path


def check_data(name: str, labels: str | None) -> None:
    """Refuse what is no data, before anything is loaded. Raises `UnusableError`."""
    if not Path(name).is_dir():
        check_file(name, NPY + NPZ)
    if labels is not None and not name.endswith(NPZ):
        raise UnusableError(
            f"argument --labels: names an array of an .npz file, and {name} is none (of a folder "
            "of images, its folders are the labels)"
        )
