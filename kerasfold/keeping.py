"""The report of a fold, kept in the file of the folded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from kerasfold.errors import FoldError
from kerasfold.files import save as save_model
from kerasfold.files import training_state
from kerasfold.options import path_of
from kerasfold.paths import KERAS, check_file, checked_output
from kerasfold.read.model import sublayers
from kerasfold.read.weights import digest
from kerasfold.reports.archive import put, report_in, sized
from kerasfold.reports.views import FoldReport


def save(model: keras.Model, path: str | Path) -> None:
    """Save a folded model with its report, whole or not at all.

    The file is an ordinary `.keras` file: Keras, with or without kerasfold, loads it as any other.
    The report stands in its metadata, and `report_of` gives it back.

    Args:
        model: what `fold` returned.
        path: where to, ending in `.keras`.

    Of a fold that was trained since, the report says that it is not verified.

    Raises:
        FoldError: a model without a report, or a path that cannot be written to.

    Example:
        >>> folded = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).fold()
        >>> kerasfold.save(folded, folder / "folded.keras")
        >>> keras.saving.load_model(folder / "folded.keras").count_params()
        10
    """
    report = _own(model)
    custom = {type(layer).__name__: type(layer) for layer in sublayers(model)}
    own = {name: kind for name, kind in custom.items() if kind.__module__.split(".")[0] != "keras"}
    target = checked_output(path_of("path", path), KERAS)
    save_model(model, target, own, lambda written: put(report, written))


def keep(
    model: keras.Model, target: Path, custom: Mapping[str, type], read: str, written: str
) -> FoldReport:
    """Save a fold, and in a `.keras` file its report, which says where it was read from.

    Args:
        model: what `fold` returned.
        target: where to save it.
        custom: classes that it is made of, by name.
        read: the file of the original.
        written: what the file of the fold is called.

    Returns:
        The report.
    """
    reports: list[FoldReport] = []

    def finish(path: Path) -> None:
        report = _own(model).stored(read, path, training_state(read))
        assert report.files is not None
        reports.append(replace(report, files=replace(report.files, written=written)))
        if target.suffix in KERAS:
            put(reports[-1], path)

    save_model(model, target, custom, finish)
    (report,) = reports
    return sized(report, target)


def report_of(model: keras.Model | str | Path) -> FoldReport:
    """The report of a fold, of the model itself or of a file that it was saved in.

    Args:
        model: what `fold` returned; or the path of a `.keras` file that `save`, or the command
            line, wrote.

    Raises:
        FoldError: there is none.

    Example:
        >>> folded = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).fold()
        >>> kerasfold.save(folded, folder / "folded.keras")
        >>> kerasfold.report_of(folder / "folded.keras") == kerasfold.report_of(folded)
        True
    """
    if isinstance(model, keras.Model):
        return _own(model)
    path = path_of("model", model)
    check_file(path, KERAS)
    return report_in(path)


def _own(model: Any) -> FoldReport:
    report = getattr(model, "fold_report", None)
    if not isinstance(report, FoldReport):
        raise FoldError(
            f"'{getattr(model, 'name', model)}' has no report of a fold: it is what fold() "
            "returned that has one, or a .keras file that kerasfold.save() wrote"
        )
    if not report.folded or digest(model) == report.folded:
        return report
    trained = (
        "its weights are others now than those that were verified: kerasfold.verify() compares it "
        "anew"
    )
    note = f"{report.note}; {trained}" if report.note else trained
    return replace(report, equivalence=None, original="", folded="", note=note)
