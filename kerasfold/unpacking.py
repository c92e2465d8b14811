"""Files that unpack to far more than they take on disk are refused before they do.

Keras stores what it saves as it is; DEFLATE can make a thousand times as much of a file, and twice
in one file: an archive of compressed datasets.
"""

from __future__ import annotations

import importlib
import io
import math
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

from kerasfold.errors import UnusableError

MB = 1 << 20
ANYWAY = 64 * MB  # that any file may unpack to
EXPANSION = 20  # times its size on disk that it may unpack to besides
CONFIG = 16 * MB  # that a configuration may unpack to anyway: as Python values it is 20 times that
STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others, Python unpacks more than declared


def check_archive(name: str) -> None:
    """Refuse a zip archive, of a model or of arrays, that unpacks to too much, or elsewhere.

    Raises:
        UnusableError: naming what it would unpack to.
        zipfile.BadZipFile: it is damaged.
    """
    size = Path(name).stat().st_size
    with zipfile.ZipFile(name) as archive:
        _check_members(name, archive, size)
        for member in archive.infolist():
            if member.filename == "config.json" and member.file_size > max(CONFIG, size):
                raise UnusableError(_too_much(name, member.file_size, size))
            if member.filename == "model.weights.h5":
                _check_datasets(name, io.BytesIO(archive.read(member)), size)
            if member.filename == "model.weights.npz":
                with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
                    _check_members(name, inner, size)


def check_hdf5(name: str) -> None:
    """Refuse an HDF5 file whose datasets unpack to too much. Raises `UnusableError`, `OSError`."""
    _check_datasets(name, name, Path(name).stat().st_size)


def _check_members(name: str, archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    if any(member.compress_type not in STORED for member in members):
        raise UnusableError(f"{name} is compressed in a way that Keras and NumPy do not: {_ANEW}")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise UnusableError(f"{name} would unpack outside its folder: {member.filename!r}")
    _check_size(name, sum(member.file_size for member in members), size)


def _check_datasets(name: str, source: str | IO[bytes], size: int) -> None:
    h5py: Any = importlib.import_module("h5py")
    declared = 0

    def add(_: str, item: Any) -> None:
        nonlocal declared
        if isinstance(item, h5py.Dataset):
            declared += math.prod(item.shape or ()) * item.dtype.itemsize

    with h5py.File(source, "r") as file:
        file.visititems(add)
    _check_size(name, declared, size)


def _check_size(name: str, unpacked: int, size: int) -> None:
    if unpacked > ANYWAY + EXPANSION * size:
        raise UnusableError(_too_much(name, unpacked, size))


_ANEW = "save it as it is, with model.save() or numpy.savez()"


def _too_much(name: str, unpacked: int, size: int) -> str:
    return (
        f"{name}, {size / MB:.3g} MB, would unpack to {unpacked / MB:,.0f} MB, which is not tried: "
        f"{_ANEW}"
    )
