"""The user's own inputs: batches that fit the model, read one by one, with labels where given."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.agreement import class_indices
from kerasfold.equivalence.runs import Arrays
from kerasfold.errors import FoldError, words_of
from kerasfold.read.model import input_structure, output_names, output_structure
from kerasfold.read.weights import as_dtype

ROWS = 32  # inputs in a batch, at most, where they are no small ones
SMALL = 2**14  # numbers that inputs hold together which are small: as many as that are one batch
MOST_ROWS = 2**12
NUMBERS = 2**22  # in a batch of more than one input, at most


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Some inputs.

    Attributes:
        where: in the user's data, for messages.
        x: an array for each input of the model, in flat order.
        y: an array of labels for each output of the model, or for the only one; else empty.
        is_labelled: whether something was given for that.
    """

    where: str
    x: list[Any]
    y: list[Any]
    is_labelled: bool = False

    def __len__(self) -> int:
        return len(self.x[0])

    def __getitem__(self, index: Any) -> Rows:
        return replace(self, x=[x[index] for x in self.x], y=[y[index] for y in self.y])


class Given(Iterable[Any]):
    """The user's data as batches that fit a model, one at a time; nothing keeps them.

    Iterating yields them structured as the model takes its inputs, in its dtypes. It reads the data
    from the start; of an iterator, what is left of it.
    """

    def __init__(self, model: keras.Model, data: Any, labels: Any = None) -> None:
        """Nothing is read yet.

        Args:
            model: the model.
            data: an array (n, ...), a structure of arrays as the model takes it or by the names of
                its inputs, or batches of them (`tf.data.Dataset`, `keras.utils.PyDataset`, an
                iterator). Of pairs `(x, y)`, arrays or batches, `y` are labels.
            labels: for each input of `data`, in order: an array (n, ...), or a structure of
                them, one for each output or by the names of outputs.
        """
        self._model, self._data, self._labels = model, data, labels
        self.is_labelled = False
        self._unread: deque[Arrays] = deque()
        self._left_out: Counter[str] = Counter()
        self._read = self._lacking = self.inputs = 0

    def __iter__(self) -> Iterator[Any]:
        """The batches.

        Raises:
            FoldError: no data, or data or labels of another structure, shape, dtype or length,
                at the batch that shows it.
        """
        self._unread.clear()
        self._left_out.clear()
        self._read = self._lacking = self.inputs = 0
        structure = input_structure(self._model)
        specs = tree.flatten(structure)
        rows = self._comparable(_converted(_labelled(self._model, self._data, self._labels), specs))
        fixed = next((spec.shape[0] for spec in specs if spec.shape[0] is not None), None)
        for batch in rows if fixed is None else self._regrouped(rows, fixed):
            self.inputs += len(batch)
            self.is_labelled = self.is_labelled or batch.is_labelled
            self._unread.append(batch.y)
            yield tree.pack_sequence_as(structure, batch.x)
        if not self.inputs:
            why = f" ({self.note})" if self.note else ""
            raise FoldError(f"data holds no input that can be compared{why}")

    def labels(self) -> Arrays:
        """Those of the first batch that was yielded and whose labels were not asked for yet."""
        return self._unread.popleft()

    @property
    def note(self) -> str:
        """What was left out, and why; or ""."""
        left = [
            f"{count} of {self._read} inputs, with NaN or infinity in '{name}'"
            for name, count in self._left_out.items()
        ]
        if self._lacking:
            left.append(f"the last {self._lacking}, which are fewer than the model takes at a time")
        return f"left out of data: {', and '.join(left)}" if left else ""

    def _comparable(self, batches: Iterator[Rows]) -> Iterator[Rows]:
        """Without inputs that hold NaN or infinity: a right fold spreads these otherwise."""
        names = [spec.name for spec in tree.flatten(input_structure(self._model))]
        for batch in batches:
            self._read += len(batch)
            finite = [_finite(x) for x in batch.x]
            self._left_out.update(
                {n: int(np.sum(~f)) for n, f in zip(names, finite, strict=True) if not f.all()}
            )
            kept = np.logical_and.reduce(finite)
            if kept.any():
                yield batch if kept.all() else batch[kept]

    def _regrouped(self, batches: Iterator[Rows], size: int) -> Iterator[Rows]:
        """In batches of one size."""
        rest: list[Rows] = []
        for batch in batches:
            rest.append(batch)
            while sum(map(len, rest)) >= size:
                joined = _joined(rest)
                yield joined[:size]
                rest = [joined[size:]] if len(joined) > size else []
        self._lacking = sum(map(len, rest))


def rows_at_once(shapes: Iterable[Sequence[int]]) -> int:
    """How many rows of arrays (n, ...) make one batch."""
    numbers = max(1, sum(math.prod(shape[1:]) for shape in shapes))
    few = min(ROWS, NUMBERS // numbers)
    return max(1, few, min(MOST_ROWS, SMALL // numbers))


def require_fit(where: str, array: Any, spec: Any) -> None:
    """Refuse an array of another shape or kind than an input takes. Raises `FoldError`."""
    shape, dtype = tuple(array.shape), getattr(array.dtype, "name", str(array.dtype))
    fits = len(shape) == len(spec.shape) and all(
        n is None or n == m for n, m in zip(spec.shape[1:], shape[1:], strict=True)
    )
    kinds = _TEXT if spec.dtype == "string" else _NUMBERS
    if not fits or not dtype.removeprefix("torch.").startswith(kinds):
        advice = ": batch it" if shape == tuple(spec.shape[1:]) else ""
        raise FoldError(
            f"{where}: input '{spec.name}' takes {spec.dtype} of shape {tuple(spec.shape)}. "
            f"Received: {dtype} of shape {shape}{advice}"
        )


_NUMBERS = ("float", "bfloat", "int", "uint", "bool")
_TEXT = ("string", "str", "bytes", "object")


def _labelled(model: keras.Model, data: Any, labels: Any) -> Iterator[Rows]:
    """What is read, with the labels beside it, in pieces that make one batch."""
    structure = input_structure(model)
    specs = tree.flatten(structure)
    given = None if labels is None else _given_labels(model, labels)
    count, unlabelled = 0, False
    for where, x, y in _read(len(specs), data):
        if count and unlabelled != (y is None):
            raise FoldError(f"{where} has {'no ' if y is None else ''}labels, unlike those before")
        unlabelled = y is None
        arrays = _arrays(where, structure, x)
        for array, spec in zip(arrays, specs, strict=True):
            require_fit(where, array, spec)
        lengths = {spec.name: len(array) for spec, array in zip(specs, arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise FoldError(f"{where} holds arrays of different lengths: {lengths}")
        here = slice(count, count := count + len(arrays[0]))
        if given is None:
            beside = _labels(model, y, len(arrays[0]), where)
        else:
            beside = [v[here] for v in given]
        if any(len(v) != len(arrays[0]) for v in beside):
            raise FoldError(f"labels= is of length {len(beside[0])}, and data holds more inputs")
        whole = Rows(where, arrays, beside, y is not None or given is not None)
        step = rows_at_once(array.shape for array in arrays)
        for start in range(0, len(whole), step):
            yield whole[start : start + step]
    if given is not None and any(len(v) != count for v in given):
        raise FoldError(f"labels= is of length {len(given[0])}, and data holds {count} inputs")


def _read(inputs: int, data: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where, inputs and labels or None, as the user has them: all at once, or batch by batch."""
    if isinstance(data, (str, bytes)):
        raise _no_data(data)
    if keras.ops.is_tensor(data) or hasattr(data, "dtype"):
        yield "data", data, None
        return
    flat = tree.flatten(data) if isinstance(data, (Mapping, list, tuple)) else []
    if flat and all(hasattr(x, "shape") for x in flat):
        is_pair = isinstance(data, tuple) and len(data) == 2 and len(flat) != inputs
        yield ("data", *data) if is_pair else ("data", data, None)
        return
    if int(getattr(data, "cardinality", int)()) == -1:  # as tf.data says it
        raise FoldError("data repeats without end: pass data.take(n)")
    for where, item in _items(data):
        x, y = (*item, None)[:2] if isinstance(item, tuple) else (item, None)
        yield where, x, y


def _items(data: Any) -> Iterator[tuple[str, Any]]:
    """Batches, and where they are."""
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    try:
        items = (data[i] for i in range(len(data))) if indexed else iter(data)
    except TypeError as error:
        raise _no_data(data) from error
    for number in itertools.count(1):
        where = f"batch {number} of data"
        try:
            item = next(items)
        except StopIteration:
            return
        except FoldError:
            raise
        except Exception as error:
            raise FoldError(f"{where} cannot be read ({words_of(error)})") from error
        yield where, item


def _no_data(data: Any) -> FoldError:
    return FoldError(f"data of type {type(data).__name__}: pass arrays, or batches of them")


def _arrays(where: str, structure: Any, data: Any) -> list[Any]:
    """One array for each input, in the model's order. Raises `FoldError`."""
    names = [spec.name for spec in tree.flatten(structure)]
    arrays = in_order(structure, names, data)
    if arrays is None:
        keys = list(structure) if isinstance(structure, Mapping) else names
        missing = [key for key in keys if key not in data]
        raise FoldError(
            f"{where} has no array for input(s) {missing}. Received: {sorted(map(str, data))}"
        )
    if any(np.isscalar(x) for x in arrays):
        raise FoldError(
            f"{where} holds numbers or text in no array: lists are read as batches, or as one "
            "array for each input; pass np.asarray of what is one array"
        )
    if len(arrays) != len(names):
        raise FoldError(f"{where} holds {len(arrays)} array(s), the model takes {len(names)}")
    sliced = ("shape", "__len__")  # variables have no length
    return [x if all(hasattr(x, name) for name in sliced) else np.asarray(x) for x in arrays]


def _labels(model: keras.Model, y: Any, count: int, where: str = "") -> Arrays:
    """An array for each output, as Keras pairs them with inputs; none of what is no class label.

    Raises:
        FoldError: another number of them than there are inputs, where that is told.
    """
    found = None if y is None else in_order(output_structure(model), output_names(model), y)
    try:
        arrays = [keras.ops.convert_to_numpy(v) for v in found or ()]
    except (TypeError, ValueError):  # strings, ragged boxes
        return []
    lengths = [len(v) for v in arrays if v.ndim]
    if where and any(n != count for n in lengths):
        raise FoldError(f"{where} holds {count} inputs, and labels of length {max(lengths)}")
    if len(arrays) == 1:
        arrays *= len(model.outputs)
    fits = all(v.ndim in (1, 2) and len(v) == count for v in arrays)
    return arrays if fits and len(arrays) == len(model.outputs) else []


def _given_labels(model: keras.Model, labels: Any) -> Arrays:
    """The same of labels that were asked for. Raises `FoldError`."""
    if isinstance(labels, list) and all(map(np.isscalar, labels)):
        labels = np.asarray(labels)
    first = tree.flatten(labels)[:1]
    arrays = _labels(model, labels, len(first[0])) if first and np.ndim(first[0]) else []
    shapes = [tuple(y.shape) for y in model.outputs]
    if not any(
        len(shape) == 2 and class_indices(array, shape[1]) is not None
        for array, shape in zip(arrays, shapes, strict=False)
    ):
        raise FoldError(
            "labels= must be classes (n,), whole numbers from 0, or one-hot rows (n, classes), for "
            f"the output of '{model.name}', or for each by name: "
            f"{dict(zip(output_names(model), shapes, strict=True))}. Received: "
            f"{[_said(v) for v in tree.flatten(labels)]}"
        )
    return arrays


def _said(value: Any) -> str:
    """An array's shape and range, or what else it is."""
    if (
        not hasattr(value, "shape")
        or not np.size(value)
        or np.asarray(value).dtype.kind not in "fiub"
    ):
        return type(value).__name__
    return f"{tuple(value.shape)} from {np.min(value)} to {np.max(value)}"


def in_order(structure: Any, names: Sequence[str], value: Any) -> list[Any] | None:
    """Leaves as a structure has them; of a mapping by its keys or by name, if all are there."""
    if isinstance(value, Mapping):
        if isinstance(structure, Mapping) and all(key in value for key in structure):
            value = {key: value[key] for key in structure}
        elif all(name in value for name in names):
            value = [value[name] for name in names]
        else:
            return None
    return tree.flatten(value)


def _converted(batches: Iterator[Rows], specs: Sequence[Any]) -> Iterator[Rows]:
    """NumPy arrays, rounded as the inputs round them."""
    for rows in batches:
        x = [_rounded(rows.where, v, spec) for v, spec in zip(rows.x, specs, strict=True)]
        yield replace(rows, x=x)


def _rounded(where: str, value: Any, spec: Any) -> np.ndarray:
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value))
        with np.errstate(over="ignore"):
            rounded = as_dtype(array, spec.dtype)
    except (TypeError, ValueError) as error:
        raise FoldError(
            f"{where} does not fit input '{spec.name}' of {spec.dtype} ({words_of(error)})"
        ) from error
    is_exact = "float" in spec.dtype or spec.dtype == "string" or np.array_equal(rounded, array)
    if not is_exact:
        raise FoldError(
            f"{where}: input '{spec.name}' takes {spec.dtype}, which does not hold all of the "
            f"values. Received: {array.dtype} from {array.min()} to {array.max()}"
        )
    return rounded


def _finite(x: np.ndarray) -> np.ndarray:
    """Which rows hold neither NaN nor infinity."""
    if "float" not in x.dtype.name:
        return np.ones(len(x), bool)
    return np.asarray(np.isfinite(x).all(axis=tuple(range(1, x.ndim))))


def _joined(batches: Sequence[Rows]) -> Rows:
    """One after another; without labels where some have none."""
    x, y = zip(*(b.x for b in batches), strict=True), zip(*(b.y for b in batches), strict=False)
    labelled = any(b.is_labelled for b in batches)
    return Rows(
        batches[0].where, list(map(np.concatenate, x)), list(map(np.concatenate, y)), labelled
    )
