"""Draws a fold, and a linear part of a model, with matplotlib: the optional extra 'plot'."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kerasfold.algebra.axis import Axis
from kerasfold.errors import FoldError
from kerasfold.paths import PICTURES, checked_output
from kerasfold.plots.effective import Effective
from kerasfold.plots.steps import Flow, Step
from kerasfold.replacing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

TILES = 4  # channels read, and written, whose kernels are drawn
LINE = 4  # pixels of the height of a kernel of one axis
FREQUENCIES = (1, 256, 128, 32)  # along each axis, by the number of axes
FLOOR = -60.0  # decibels below the largest gain that are told apart
WIDTH, PANEL, ROW = 13.0, 4.5, 0.3  # inches: of the figure, of the panels above, of a call
MARGIN, TOP = 0.35, 0.55
DPI, MOST_PIXELS = 150.0, 30_000  # pixels per inch, and of the height of a picture
BOX, GAP = 4.3, 2.4  # inches: width of a box, and between the two columns
HALF = 0.36  # rows: half the height of a box
INK, PALE, EMPTY = "#333333", "#bbbbbb", "#e4e4e4"
BLUE, ORANGE, GREEN = "#4c72b0", "#dd8452", "#55a868"
MERGED = ("#8dd3c7", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#fccde5", "#ffd92f")


def require_matplotlib() -> None:
    """Raise `FoldError` where matplotlib is not installed; the message names the extra."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise FoldError(
            "pictures are drawn with matplotlib, which is not installed: "
            "pip install 'kerasfold[plot]'"
        ) from error


def figure_of(title: str, flows: Sequence[Flow], part: Effective | str) -> Figure:
    """The picture of a fold.

    Args:
        title: of the whole.
        flows: the graphs before and after, one below the other.
        part: a linear part to draw above them, or why there is none.
    """
    require_matplotlib()
    heights = [ROW * (_depth(flow) + 2) for flow in flows]
    above = PANEL if isinstance(part, Effective) else 0.0
    height = TOP + above + sum(heights) + MARGIN
    figure = _shown_in_notebooks()((WIDTH, height))
    figure.suptitle(title, x=MARGIN / WIDTH, y=1 - 0.15 / height, ha="left", va="top", color=INK)
    top = height - TOP
    if isinstance(part, Effective):
        _draw_part(figure, part, top)
    else:
        figure.text(MARGIN / WIDTH, (top + 0.1) / height, part, size=8, color=INK, wrap=True)
    top -= above
    for flow, room in zip(flows, heights, strict=True):
        axes = figure.add_axes((0, (top - room) / height, 1, room / height))
        axes.set(xlim=(0, WIDTH), ylim=(room / ROW - 1.5, -1.5))
        axes.axis("off")
        _draw_flow(axes, flow)
        top -= room
    return figure


@functools.cache
def _shown_in_notebooks() -> type[Figure]:
    """The class of figures, which notebooks show once pyplot has told them how, shown by itself."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    return Picture


def write(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all. Raises `FoldError`, if not in one of `PICTURES`."""
    from matplotlib import rc_context

    target = checked_output(str(path), PICTURES)
    _, height = figure.get_size_inches()
    with replacing(target) as written, rc_context({"svg.hashsalt": "kerasfold"}):  # alike each time
        metadata = {"Date": None} if target.suffix == ".svg" else {}
        figure.savefig(written, dpi=min(DPI, MOST_PIXELS / height), metadata=metadata)


# A linear part: its kernel, its receptive field and its frequency response.


def mosaic(window: np.ndarray, most: int = TILES) -> np.ndarray:
    """The kernels of the first channels as one image, NaN between them.

    Args:
        window: (*window, inputs, outputs), of any number of axes: of three the middle plane of
            the first is taken; of one, `LINE` equal rows; of none, the matrix itself, outputs down.
        most: inputs, side by side, and outputs, one below the other, that are shown.
    """
    rank = window.ndim - 2
    if rank == 0:
        return window.T
    if rank == 3:
        window = window[len(window) // 2]
    if rank == 1:
        window = np.repeat(window[None], LINE, axis=0)
    height, width, inputs, outputs = window.shape
    columns, rows = min(inputs, most), min(outputs, most)
    gap = max(1, max(height, width) // 16)
    image = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for o, i in itertools.product(range(rows), range(columns)):
        y, x = o * (height + gap), i * (width + gap)
        image[y : y + height, x : x + width] = window[:, :, i, o]
    return image


def _draw_part(figure: Figure, part: Effective, top: float) -> None:
    geometry = part.operator.geometry
    names = part.layers if len(part.layers) < 9 else (*part.layers[:4], "…", *part.layers[-4:])
    width, height = figure.get_size_inches()
    figure.text(
        MARGIN / width,
        top / height,
        _shortened(f"{part.reads}  →  {' + '.join(names)}", 170),
        size=9,
        color=INK,
    )
    drawn = [_draw_kernel, _draw_field, _draw_gain] if geometry.axes else [_draw_kernel]
    each = (width - 2 * MARGIN) / 3
    for place, draw in enumerate(drawn):
        left, bottom, side = MARGIN + place * each + 0.4, top - PANEL + 0.95, PANEL - 1.5
        box = (left / width, bottom / height, (each - 0.9) / width, side / height)
        draw(figure.add_axes(box, facecolor=EMPTY), part)


def _titled(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, size=9, color=INK, loc="left")
    axes.annotate(
        note, (0, 0), (0, -20), "axes fraction", "offset points", size=7, color=INK, va="top"
    )
    axes.tick_params(labelsize=6, color=PALE, labelcolor=INK)
    axes.spines[:].set_color(PALE)


def _scale(axes: Axes, image: AxesImage) -> None:
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)))
    bar.ax.tick_params(labelsize=6)
    bar.outline.set_visible(False)


def _times(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def _first_of(count: int) -> str:
    return f"{min(count, TILES)} of {count}" if count > TILES else str(count)


def _draw_kernel(axes: Axes, part: Effective) -> None:
    window = part.window
    image = mosaic(window)
    reach = np.nanmax(np.abs(image), initial=0.0) or 1.0
    shown = axes.imshow(image, "RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    _scale(axes, shown)
    axes.set(xticks=[], yticks=[])
    inputs, outputs = window.shape[-2:]
    if window.ndim == 2:
        _titled(axes, f"matrix {inputs} → {outputs}", "inputs across, outputs down")
        return
    if image.shape[0] < image.shape[1] / 8:
        axes.set_aspect("auto")
    plane = ", the middle plane" if window.ndim == 5 else ""
    tiles = f"{_first_of(inputs)} across, outputs: {_first_of(outputs)} down{plane}"
    note = f"inputs: {tiles}" if (inputs, outputs) != (1, 1) else f"one channel{plane}"
    _titled(axes, f"kernel {_times(window.shape[:-2])}", note)


def _draw_field(axes: Axes, part: Effective) -> None:
    """Where the window of an output in the middle lies, and those of its neighbours."""
    from matplotlib.patches import Rectangle

    weight, sides = part.weight, part.operator.geometry.axes
    if weight.ndim == 3:
        weight, sides = np.sqrt(np.square(weight).sum(axis=0)), sides[1:]
    # Of a line, the one row of an image.
    weight, sides = np.atleast_2d(weight), (*(Axis(1),) * (2 - len(sides)), *sides)
    starts = [axis.stride * ((axis.out or 1) // 2) - axis.pad[0] for axis in sides]
    (y, x), (height, width) = starts, weight.shape
    box = (x - 0.5, x + width - 0.5, y + height - 0.5, y - 0.5)
    axes.imshow(weight, "Blues", vmin=0, extent=box, interpolation="nearest")
    down, across = (axis.stride for axis in sides)
    moves = [(0, across, ORANGE), (down, 0, GREEN), (0, 0, INK)]
    for dy, dx, color in moves if len(part.strides) > 1 else moves[::2]:
        corner = (x + dx - 0.5, y + dy - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, color=color, lw=1.0))
    ends = [
        (min(0, start), max(axis.extent or 0, start + axis.span + axis.stride))
        for start, axis in zip(starts, sides, strict=True)
    ]
    axes.set(xlim=(ends[1][0] - 1, ends[1][1]), ylim=(ends[0][1], ends[0][0] - 1))
    extents = [axis.extent for axis in sides]
    if None not in extents:
        image = Rectangle((-0.5, -0.5), extents[1] or 0, extents[0] or 0, color="white", zorder=-1)
        axes.add_patch(image)
    if len(part.strides) == 1:
        axes.set_aspect("auto")
        axes.set_yticks([])
    seen = part.window.shape[:-2]
    whole = [n for axis in part.operator.geometry.axes if (n := axis.extent) is not None]
    of = f" of {_times(whole)}" if len(whole) == len(seen) else ""
    spread = max(axis.upsampling for axis in sides)
    upsampled = f" (an image spread by {spread})" if spread > 1 else ""
    _titled(
        axes,
        f"receptive field {_times(seen)}{of}, stride {_times(part.strides)}",
        f"how much each pixel weighs in one output{upsampled};\n"
        "outlined: its window, and those of the next outputs",
    )


def _draw_gain(axes: Axes, part: Effective) -> None:
    """The gain in decibels below its largest; what an output's stride cannot tell is outside."""
    from matplotlib.patches import Rectangle

    gain = part.gain(FREQUENCIES[len(part.strides)])
    peak = gain.max()
    with np.errstate(divide="ignore"):
        decibels = np.maximum(20 * np.log10(gain / (peak or 1.0)), FLOOR)
    if gain.ndim == 3:
        decibels = decibels[len(decibels) // 2]
    limits = [np.pi / stride for stride in part.strides[-decibels.ndim :]]
    if gain.ndim == 1:
        axes.plot(np.linspace(-np.pi, np.pi, len(gain), endpoint=False), decibels, color=BLUE)
        axes.set(xlim=(-np.pi, np.pi), facecolor="white")
        for edge in (-limits[0], limits[0]):
            axes.axvline(edge, color=ORANGE, ls="--", lw=1)
    else:
        shown = axes.imshow(
            decibels, "magma", vmin=FLOOR, vmax=0, extent=(-np.pi, np.pi, np.pi, -np.pi)
        )
        _scale(axes, shown)
        down, across = limits
        axes.add_patch(
            Rectangle((-across, -down), 2 * across, 2 * down, fill=False, color="w", ls="--", lw=1)
        )
    ticks, labels = [-np.pi, 0, np.pi], ["-π", "0", "π"]
    axes.set_xticks(ticks, labels)
    if gain.ndim > 1:
        axes.set_yticks(ticks, labels)
    plane = "; at 0 along the first axis" if gain.ndim == 3 else ""
    aliased = ";\ndashed: what the stride does not alias" if max(part.strides) > 1 else ""
    _titled(
        axes,
        f"frequency response, largest gain {peak:.3g}",
        f"decibels below that, over radians per pixel{plane}{aliased}",
    )


# A fold: a column of boxes before, one after, and which became which.


class _Place(NamedTuple):
    """Where a box is: its row, and its left end."""

    row: float
    left: float


def _rows(flow: Flow) -> list[float]:
    """A row for each step after the fold: beside its calls, and below the step before it."""
    rows: list[float] = []
    for step in flow.after:
        beside = float(np.mean(step.calls))
        rows.append(max(beside, rows[-1] + 1) if rows else beside)
    return rows


def _depth(flow: Flow) -> float:
    """Rows that a flow takes."""
    return max(len(flow.before), max(_rows(flow), default=0.0) + 1)


def _draw_flow(axes: Axes, flow: Flow) -> None:
    left = (WIDTH - 2 * BOX - GAP) / 2
    right = left + BOX + GAP
    before = [_Place(row, left) for row in range(len(flow.before))]
    after = [_Place(row, right) for row in _rows(flow)]
    merged = [i for i, step in enumerate(flow.after) if len(step.calls) > 1]
    colors = dict(zip(merged, itertools.cycle(MERGED)))
    became = {call: colors[i] for i in merged for call in flow.after[i].calls}
    for at, what in ((left, "before"), (right, "after")):
        axes.text(at, -0.75, what, size=9, color=INK, va="bottom")
    for i, step in enumerate(flow.after):
        for slot, call in enumerate(step.calls):
            share = (slot / len(step.calls), (slot + 1) / len(step.calls))
            _ribbon(axes, before[call], after[i], share, colors.get(i, PALE))
    for places, steps, side in ((before, flow.before, -1), (after, flow.after, 1)):
        for i, step in enumerate(steps):
            for read in step.reads:
                _edge(axes, places[read], places[i], side, is_next=i == read + 1)
    for i, step in enumerate(flow.before):
        _box(axes, before[i], step, became.get(i, "white"), i in flow.removed)
    for i, step in enumerate(flow.after):
        _box(axes, after[i], step, colors.get(i, "white"), False)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[len(text) - half :]}"


def _box(axes: Axes, place: _Place, step: Step, color: str, removed: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (place.left, place.row - HALF),
            BOX,
            2 * HALF,
            boxstyle="round,pad=0,rounding_size=0.08",
            mutation_aspect=1 / ROW,
            facecolor=color,
            edgecolor=PALE if removed else INK,
            linestyle="--" if removed else "-",
            linewidth=0.6,
        )
    )
    ink = PALE if removed else INK
    kind = f"{step.kind}, removed" if removed else step.kind
    name = _shortened(step.name, 34)
    axes.text(place.left + 0.08, place.row, name, size=7, color=ink, va="center")
    axes.text(
        place.left + BOX - 0.08,
        place.row,
        _shortened(kind, 60 - len(name)),
        size=6.5,
        color=ink,
        va="center",
        ha="right",
        style="italic",
    )


def _ribbon(axes: Axes, start: _Place, end: _Place, share: tuple[float, float], color: str) -> None:
    """A band from the right of one box to a share of the left of another."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    x0, x1 = start.left + BOX, end.left
    middle = (x0 + x1) / 2
    top, bottom = (end.row - HALF + 2 * HALF * part for part in share)
    points = [
        *((x0, start.row - HALF), (middle, start.row - HALF), (middle, top), (x1, top)),
        *((x1, bottom), (middle, bottom), (middle, start.row + HALF), (x0, start.row + HALF)),
    ]
    codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3]
    axes.add_patch(PathPatch(Curve(points, codes), facecolor=color, alpha=0.5, linewidth=0))


def _edge(axes: Axes, start: _Place, end: _Place, side: int, is_next: bool) -> None:
    """What a step reads: straight down to the next box, around the boxes to a later one."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    if is_next:
        x = start.left + BOX / 2
        points = [(x, start.row + HALF), (x, end.row - HALF)]
        codes = [Curve.MOVETO, Curve.LINETO]
    else:
        x = start.left if side < 0 else start.left + BOX
        out = x + side * min(0.9, 0.15 + 0.05 * (end.row - start.row))
        points = [
            *((x, start.row + 0.1), (out, start.row + 0.3)),
            *((out, end.row - 0.3), (x, end.row - 0.1)),
        ]
        codes = [Curve.MOVETO, *[Curve.CURVE4] * 3]
    axes.add_patch(PathPatch(Curve(points, codes), fill=False, edgecolor=INK, linewidth=0.6))
