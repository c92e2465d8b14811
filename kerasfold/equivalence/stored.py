"""The user's data in files, read in pieces: arrays, or a folder of images. Nothing in it is run."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.data import in_order, require_fit, rows_at_once
from kerasfold.equivalence.signature import require_inputs
from kerasfold.errors import FoldError, UnusableError, words_of
from kerasfold.paths import NPY, check_data
from kerasfold.read.model import input_structure, layout_of, sublayers
from kerasfold.replacing import replacing

LABELS = ("y", "labels")  # arrays that are labels where no name is told
WHOLE = 2**28  # bytes of an array that is read at once, at most
COLOURS = {1: "grayscale", 3: "rgb", 4: "rgba"}  # by channels


@dataclass(frozen=True, eq=False, slots=True)
class Stored(Iterable[Any]):
    """Batches of the user's data in files, read anew each time they are iterated.

    Attributes:
        name: of the file or folder.
        inputs: how many there are.
        read: gives them: pairs of arrays, one for each input of the model in flat order, and labels
            or None.
    """

    name: str
    inputs: int
    read: Callable[[], Iterator[tuple[list[Any], np.ndarray | None]]]

    def __iter__(self) -> Iterator[Any]:
        """The batches. Raises `UnusableError` where the data is damaged."""
        with _readable(self.name):
            yield from self.read()


def read_data(
    name: str, model: keras.Model, labels: str | None = None, input_shape: Any = None
) -> Stored:
    """Data for a model, of which nothing but its sizes is read yet.

    Args:
        name: of an .npy file, which holds one input; of an .npz file, which holds one array for
            each input, named by the model's keys or inputs (of a single input, by any name); or of
            a folder of images, whose folders are its classes, in the order of their names.
        model: the model.
        labels: the name of the array of an .npz file that holds the labels; else 'y' or 'labels'
            where there is one.
        input_shape: for images, where the model's sizes are free.

    Raises:
        FoldError: data that cannot be read or does not fit.
    """
    check_data(name, labels)
    require_inputs(model)
    if Path(name).is_dir():
        return _images(name, model, input_shape)
    with _readable(name):
        return _mapped(name, model) if name.endswith(NPY) else _archived(name, model, labels)


def dump(arrays: Mapping[str, Any], target: Path) -> None:
    """Write arrays to an .npz file that `read_data` reads. Raises `UnusableError`."""
    with replacing(target) as written, zipfile.ZipFile(written, "w") as archive:
        for name, array in arrays.items():
            with archive.open(name + NPY[0], "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, _plain(np.asarray(array)), allow_pickle=False)


def _plain(array: np.ndarray) -> np.ndarray:
    """As NumPy has it: text as bytes, and what others add to it, such as bfloat16, as float32."""
    return array.astype({"O": "S", "V": "float32"}.get(array.dtype.kind, array.dtype))


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except FoldError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UnusableError(f"{name} cannot be read ({words_of(error)})") from error


def _mapped(name: str, model: keras.Model) -> Stored:
    """An .npy file, mapped to memory."""
    array = np.lib.format.open_memmap(name, mode="r")
    specs = tree.flatten(input_structure(model))
    if len(specs) > 1:
        names = [spec.name for spec in specs]
        raise UnusableError(
            f"{name} holds one array: pass an .npz file with one for each of {names}"
        )
    require_fit(name, array, specs[0])

    step = rows_at_once([array.shape])

    def read() -> Iterator[tuple[list[Any], None]]:
        for start in range(0, len(array), step):
            yield [array[start : start + step]], None

    return Stored(name, len(array), read)


@dataclass(frozen=True, slots=True)
class _Header:
    """What an array of an archive says of itself."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]


def _archived(name: str, model: keras.Model, labels: str | None) -> Stored:
    """An .npz file, whose arrays are unpacked as they are read."""
    with zipfile.ZipFile(name) as archive:
        members = [member for member in archive.namelist() if member.endswith(NPY)]
        headers = {}
        for member in members:
            with archive.open(member) as stream:
                headers[member.removesuffix(*NPY)] = _header(stream)
    structure = input_structure(model)
    specs = tree.flatten(structure)
    names = [spec.name for spec in specs]
    keys = {*names, *(structure if isinstance(structure, Mapping) else ())}
    if labels is not None and labels not in headers:
        raise UnusableError(f"{name} holds no array '{labels}', but {sorted(headers)}")
    usual = LABELS if labels is None and len(headers) > len(specs) else ()
    beside = next((key for key in usual if key in headers and key not in keys), labels)
    arrays = {key: header for key, header in headers.items() if key != beside}
    by_name = in_order(structure, names, {key: key for key in arrays})
    found = list(arrays) if len(arrays) == len(specs) == 1 else by_name
    if found is None or len(arrays) != len(specs):
        raise UnusableError(
            f"{name} holds arrays {sorted(arrays)}: expected one for each input, {sorted(names)}"
        )
    chosen = [*found, *([beside] if beside else [])]
    counts = {headers[key].shape[:1] for key in chosen}
    if len(counts) != 1 or counts & {(), (0,)}:
        raise UnusableError(f"{name} needs the same number of samples in each array, at least one")
    for key, spec in zip(found, specs, strict=True):
        require_fit(name, headers[key], spec)
    ((count,),) = counts
    step = rows_at_once(headers[key].shape for key in found)

    def read() -> Iterator[tuple[list[Any], np.ndarray | None]]:
        with contextlib.ExitStack() as opened:
            archive = opened.enter_context(zipfile.ZipFile(name))
            streams = [opened.enter_context(archive.open(key + NPY[0])) for key in chosen]
            for pieces in zip(*(_rows(stream, step) for stream in streams), strict=True):
                x = list(pieces[: len(found)])
                yield x, pieces[-1] if beside else None

    return Stored(name, count, read)


def _header(stream: Any) -> _Header:
    """Of an array in the .npy format, which is left at its first number. Raises `ValueError`."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # others are for what numbers do not need, and their headers are endless
        raise ValueError(f"an array is of version {version} of the .npy format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("an array holds Python objects, which are not unpickled")
    return _Header(shape, is_fortran, dtype)


def _rows(stream: Any, step: int) -> Iterator[np.ndarray]:
    """Pieces of an array in the .npy format; one in Fortran's order is read whole, if small."""
    header = _header(stream)
    size = math.prod(header.shape) * header.dtype.itemsize
    if header.is_fortran and size > WHOLE:
        raise ValueError(
            f"an array of {size:,} bytes is stored column by column, and cannot be read in pieces: "
            "store np.ascontiguousarray of it"
        )
    count, *sizes = header.shape
    order: Literal["C", "F"] = "F" if header.is_fortran else "C"
    read = count if header.is_fortran else step
    for start in range(0, count, read):
        shape = (min(read, count - start), *sizes)
        data = _exactly(stream, math.prod(shape) * header.dtype.itemsize)
        piece = np.frombuffer(data, header.dtype).reshape(shape, order=order)
        yield from (piece[i : i + step] for i in range(0, len(piece), step))


def _exactly(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) != size:
        raise EOFError("an array ends before all of its numbers are there")
    return data


def _images(name: str, model: keras.Model, input_shape: Any) -> Stored:
    """A folder of images, decoded and resized as Keras does it; values from 0 to 255."""
    first = layout_of(sublayers(model)) == "channels_first"
    specs = tree.flatten(input_structure(model))
    shape = tuple(specs[0].shape[1:])
    if input_shape is not None:
        shape = tuple(tree.flatten(input_shape))
    *size, channels = (*shape[1:], shape[0]) if first else shape
    if len(specs) > 1 or len(size) != 2 or None in size or channels not in COLOURS:
        wanted = {spec.name: tuple(spec.shape[1:]) for spec in specs}
        raise UnusableError(
            f"{name} is a folder of images, for a model of one input of known size and 1, 3 or 4 "
            f"channels (--input-shape tells a size that is free). Its inputs are: {wanted}"
        )
    step = rows_at_once([(0, *shape)])
    has_classes = any(entry.is_dir() for entry in Path(name).iterdir())
    try:
        batches = keras.utils.image_dataset_from_directory(
            name,
            labels="inferred" if has_classes else None,
            label_mode="int" if has_classes else None,
            color_mode=COLOURS[channels],
            batch_size=step,
            image_size=tuple(size),
            shuffle=False,
            data_format="channels_first" if first else "channels_last",
            verbose=False,
        )
    except (OSError, ValueError) as error:
        raise UnusableError(f"{name} is no folder of images ({words_of(error)})") from error
    files = list(batches.file_paths)
    whole = "float" not in specs[0].dtype

    def read() -> Iterator[tuple[list[Any], np.ndarray | None]]:
        done = 0
        items = iter(batches)
        while done < len(files):
            try:
                item = next(items)
            except Exception as error:
                culprit = next(filter(_is_damaged, files[done : done + step]), name)
                raise UnusableError(f"{culprit} cannot be decoded as an image") from error
            x, y = item if has_classes else (item, None)
            images = keras.ops.convert_to_numpy(x)
            done += len(images)
            yield [np.rint(images) if whole else images], None if y is None else np.asarray(y)

    return Stored(name, len(files), read)


def _is_damaged(file: str) -> bool:
    import tensorflow as tf

    try:
        tf.io.decode_image(tf.io.read_file(file))
    except tf.errors.OpError:
        return True
    return False
