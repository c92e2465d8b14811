"""Folding while a model is trained."""

from __future__ import annotations

import contextlib
import inspect
import os
import string
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

import keras

from kerasfold.choices import ObjectiveName
from kerasfold.errors import FoldError
from kerasfold.files import save
from kerasfold.options import path_of, require_choice, require_flags
from kerasfold.paths import HDF5, KERAS, checked_output
from kerasfold.pipeline import explain, fold
from kerasfold.read.model import sublayers
from kerasfold.reports.views import FoldReport

_OBJECTIVES = tuple(
    name for kind in get_args(ObjectiveName) for name in (get_args(kind) or (kind,))
)
_COUNTS = ("epoch", "batch")


class FoldCheckpoint(keras.callbacks.ModelCheckpoint):
    """Writes the folded model as training goes on, as ModelCheckpoint writes the model.

    Each is folded, compared with the model as it is at that moment, written whole or not at all,
    and read back. The model that is trained is left alone, its optimizer too: to go on training
    after an interruption, use `keras.callbacks.ModelCheckpoint` beside this.

        model.fit(
            images,
            labels,
            validation_split=0.2,
            epochs=2,
            callbacks=[FoldCheckpoint("best-{epoch}.keras", "val_accuracy", save_best_only=True)],
        )

    Args:
        filepath: of the folded model, `.keras` or `.h5`, in which `{epoch:02d}`, `{val_loss:.2f}`
            and the like are filled in.
        monitor: what `save_best_only` goes by.
        mode: 'min', 'max' or 'auto'.
        save_best_only: whether to write only what is better than all that was written before.
        save_freq: 'epoch', or a number of batches.
        initial_value_threshold: what the first has to be better than.
        verbose: 1 to be told of each.
        objective: what `kerasfold.fold` minimises.
        on_error: 'warn' goes on training where a model cannot be folded or written, with a
            UserWarning that says why; 'raise' ends it. Either way the file of before stays.
        **options: of `kerasfold.fold`, such as `data=` or `input_shape=`.

    Attributes:
        fold_report: of what was written last, or None.

    Raises:
        UnsupportedModelError: before the first step, a model that cannot be folded at all.
        FoldError: an unknown `on_error` or objective, or a path that cannot be filled in; with
            'raise', whatever `kerasfold.fold` raises.

    Example:
        >>> kerasfold.callbacks.FoldCheckpoint("best.keras", save_best_only=True).monitor
        'val_loss'
    """

    fold_report: FoldReport | None = None

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        *,
        mode: Literal["auto", "min", "max"] = "auto",
        save_best_only: bool = False,
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
        verbose: int = 0,
        objective: ObjectiveName = "latency",
        on_error: Literal["warn", "raise"] = "warn",
        **options: Any,
    ) -> None:
        path = path_of("filepath", filepath)
        if not path.endswith(KERAS + HDF5):
            ends = " or ".join(KERAS + HDF5)
            raise FoldError(f"filepath={path!r}: expected one that ends in {ends}")
        _require_format(path)
        require_choice("objective", objective, _OBJECTIVES)
        require_choice("mode", mode, ("auto", "min", "max"))
        require_choice("on_error", on_error, ("warn", "raise"))
        require_flags(save_best_only=save_best_only)
        super().__init__(
            path,
            monitor,
            verbose,
            save_best_only,
            mode=mode,
            save_freq=save_freq,
            initial_value_threshold=initial_value_threshold,
        )
        self.options = {"objective": objective, **options}
        inspect.signature(fold).bind(None, **self.options)  # a TypeError now, not in an hour
        self.on_error = on_error

    def set_model(self, model: keras.Model) -> None:
        """Take the model that will be trained."""
        super().set_model(_Folding(model, self._write))

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse a model that cannot be folded before time is spent on it."""
        explain(self.model.trained)
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write, where `save_freq` counts batches."""
        with self._errors_told(logs):
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write, where `save_freq` is 'epoch'."""
        with self._errors_told(logs):
            super().on_epoch_end(epoch, logs)

    def _write(self, trained: keras.Model, filepath: str) -> None:
        target = checked_output(filepath)
        folded: Any = fold(trained, **self.options)
        save(folded, target, {type(layer).__name__: type(layer) for layer in sublayers(folded)})
        self.fold_report = folded.fold_report

    @contextlib.contextmanager
    def _errors_told(self, logs: Any) -> Iterator[None]:
        best = self.best  # type: ignore[has-type]
        try:
            with _filled_in(str(self.filepath), logs or {}):
                yield
        except FoldError as error:
            self.best = best  # of what was written
            if self.on_error == "raise":
                raise
            warnings.warn(f"FoldCheckpoint wrote nothing: {error}", stacklevel=3)


def _require_format(path: str) -> None:
    """Refuse a path that cannot be filled in, whatever is logged. Raises `FoldError`."""
    fields = string.Formatter()
    try:
        for _, name, form, conversion in fields.parse(path):
            if name is None:
                continue
            if not name or name.isdecimal() or set(name) & set(".["):  # no name of what is logged
                raise ValueError(f"expected names of what is logged in braces, not {name!r}")
            value = 1 if name in _COUNTS else 1.0
            format(fields.convert_field(value, conversion), form or "")
    except ValueError as error:
        raise FoldError(f"filepath={path!r} cannot be filled in: {error}") from None


@contextlib.contextmanager
def _filled_in(path: str, logs: Mapping[str, Any]) -> Iterator[None]:
    """Say what is logged where a path asks for something else. Raises `FoldError`."""
    try:
        yield
    except KeyError as error:
        if "callback filepath" not in str(error):
            raise
        known = ", ".join([*_COUNTS, *logs])
        raise FoldError(f"filepath={path!r} cannot be filled in: what is logged: {known}") from None


class _Folding:
    """A model, which is folded where it would be saved."""

    def __init__(self, trained: keras.Model, write: Callable[[keras.Model, str], None]) -> None:
        self.trained, self._write = trained, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trained, name)

    def save(self, filepath: str, overwrite: bool = True) -> None:
        """Fold it and write that."""
        self._write(self.trained, filepath)


__all__ = ["FoldCheckpoint"]
