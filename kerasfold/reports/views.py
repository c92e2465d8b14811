"""The report of a fold: its record, and all that it is shown as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasfold.errors import FoldError
from kerasfold.options import path_of
from kerasfold.reports import dot as graphviz
from kerasfold.reports import notebook, page, stored, svg
from kerasfold.reports import text as words
from kerasfold.reports.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 110  # columns of a report


@dataclass(frozen=True, slots=True)
class FoldReport(Record):
    """What a fold did.

    Attributes:
        model: name of the model.
        objective: what was minimised.
        merged: calls that became one, several per record.
        removed: calls that do nothing at inference, or all of whose channels are gone.
        random: those of the merged and the removed that train, and may be random, where the
            original is called without `training=False`, as in `model(x)`.
        kept: calls that stay, each with its reason.
        apart: results of a merge that are not merged into what reads them, and why.
        macs_before: multiply-accumulates of the linear calls, per image (64 samples are
            assumed along an axis of unknown size).
        macs_after: the same after the fold.
        params_before: weights of the model.
        params_after: weights of the folded model.
        layers_before: calls that compute, `keras.ops` included; inputs, padding, cropping,
            concatenation, reshaping and activations count 0.
        layers_after: the same after the fold.
        equivalence: what verification found, or None where it was not asked for.
        opened: names of layers made of others, for which the layers inside them stand now.
        repeated: calls that compute what one before them does, which is computed once now.
        narrowed: calls that compute only those pixels now that are read of them, or hardly others.
        channels: of calls, how many channels are not computed any more: nobody reads them, or they
            are constant; and how many of that kind still are, and why.
        note: what else is to be known, or "".
        flows: the graph before and after, for `plot`; of a model of which only parts were folded,
            one for each.
        models: whose linear parts `plot` can draw: what was folded, as it is now. Not stored.
        keras_layers_before: what `len(model.layers)` counts, inputs and activations among them.
        keras_layers_after: the same of the folded model; None where none was built.
        predicted: what the linear calls take, by the roofline of each runtime.
        measured: what the whole model took, where it was timed.
        tried: where parts were timed, what ways there were to compute each, and what each took.
        is_linear: whether all of the model is, so that what is predicted is predicted of it all.
        uncounted: names of kept calls that multiply by weights and whose multiply-accumulates are
            not counted, neither before nor after.
        files: where it was read from and written to, if it was.
        original: SHA-256 of the weights of the original that was verified against, with their
            paths, shapes and dtypes; "" where nothing was verified.
        version: of kerasfold.
        batch_size: images at once, of whatever is predicted or measured.
        constants: numbers that the folded model holds besides its weights: images that are added to
            what it computes, such as what channels were that are gone.
        folded: SHA-256 of the weights of the folded model that was verified; "" where none was.

    Example:
        >>> layers = [keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> report = model.fold().fold_report
        >>> sorted(row.layer for row in report.kept)
        ['a', 'b']
        >>> report.params_before, report.params_after
        (15, 15)
    """

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON: see `kerasfold schema`."""
        return stored.plain(self)

    @property
    def headline(self) -> str:
        """What is asked first, on one line."""
        return words.headline(self)

    def text(self, width: int | None = WIDTH, verbose: bool = False) -> str:
        """The report in words.

        Args:
            width: columns that a line may have; None for any number.
            verbose: whether every call has a line of its own; else those alike share one.
        """
        return words.text(self, verbose, width)

    def html(self) -> str:
        """The report as one page, with nothing loaded from elsewhere."""
        return page.page(self)

    def dot(self) -> str:
        """The graphs before and after, in Graphviz's language."""
        return graphviz.dot(self)

    def svg(self) -> str:
        """The graphs before and after, side by side, as a picture."""
        return svg.document(self)

    def plot(self, path: str | Path | None = None, layer: str | None = None) -> Figure:
        """Draw the fold, and a linear part of the model as the one kernel that it is.

        Which calls became which step; above, of one linear part, the kernel, the receptive field
        and the frequency response, away from the border where it pads between its layers.

        Args:
            path: where to write the picture, as .png or .svg; None for nowhere.
            layer: name of the layer that the part ends in; None for the part with the widest
                window.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            FoldError: matplotlib is not installed, another extension, or no such part.
        """
        from kerasfold.lift.regions import lifted
        from kerasfold.plots.effective import Effective, effective
        from kerasfold.plots.figure import figure_of, require_matplotlib, write

        require_matplotlib()
        target = None if path is None else Path(path_of("path", path))
        part: Effective | str
        try:
            part = effective(map(lifted, self.models), layer)
        except FoldError as problem:
            if layer is not None:
                raise
            part = str(problem)
        title = f"{self.model}, objective {self.aim}"
        figure = figure_of(title, self.flows, part)
        if target is not None:
            write(figure, target)
        return figure

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """In notebooks."""
        return notebook.notebook(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """In IPython, where there is text alone."""
        printer.text(str(self))
