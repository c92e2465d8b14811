"""One record per call: merged into what, or kept and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from rich.console import Console
from rich.table import Table

from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.errors import FoldError
from kerasfold.forms.kept import Kept as Original
from kerasfold.layers.limits import is_free
from kerasfold.lift.regions import Lifted, Regions, as_read, lifted
from kerasfold.options import path_of
from kerasfold.plan.choose import Plan, original_plan
from kerasfold.plots.effective import Effective, effective
from kerasfold.plots.figure import figure_of, require_matplotlib, write
from kerasfold.plots.flow import Flow, flow_of
from kerasfold.read.graph import Call
from kerasfold.read.model import is_random_unasked, own_predictions
from kerasfold.read.weights import count_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 110  # columns of a report


@dataclass(frozen=True, slots=True)
class Merged:
    """Calls that became one step.

    Attributes:
        into: name of the emitted layer.
        kind: what it is: the operator's kernel, stride and so on, in words.
        layers: names of the calls merged into it.
    """

    into: str
    kind: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A call that stays as it is, and why."""

    layer: str
    reason: str


# What reports of parts are joined by.
_LISTS = (
    *("merged", "removed", "kept", "apart", "random", "opened", "repeated"),
    *("flows", "models"),
)


@dataclass(frozen=True, slots=True)
class FoldReport:
    """What a fold did.

    Attributes:
        model: name of the model.
        objective: what was minimised.
        merged: calls that became one, several per record.
        removed: calls that do nothing at inference.
        random: those of the merged and the removed that train, and may be random, where the
            original is called without `training=False`, as in `model(x)`.
        kept: calls that stay, each with its reason.
        apart: results of a merge that are not merged into what reads them, and why.
        macs_before: multiply-accumulates of the affine calls, per image (64 samples are
            assumed along an axis of unknown size).
        macs_after: the same after the fold.
        params_before: weights of the model.
        params_after: weights of the folded model.
        layers_before: calls, `keras.ops` included; inputs, padding, cropping,
            concatenation, reshaping and activations count 0.
        layers_after: the same after the fold.
        equivalence: what verification found, or None where it was not asked for.
        opened: names of layers made of others, for which the layers inside them stand now.
        repeated: calls that compute what one before them does, which is computed once now.
        note: what else is to be known, or "".
        flows: the graph before and after, for `plot`; of a model of which only parts were folded,
            one for each.
        models: whose linear parts `plot` can draw: what was folded, as it is now.

    Example:
        >>> layers = [keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> report = model.fold().fold_report
        >>> sorted(row.layer for row in report.kept)
        ['a', 'b']
        >>> report.params_before, report.params_after
        (15, 15)
    """

    model: str
    objective: str
    merged: tuple[Merged, ...]
    removed: tuple[str, ...]
    random: tuple[str, ...]
    kept: tuple[Kept, ...]
    apart: tuple[Kept, ...]
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    layers_before: int
    layers_after: int
    equivalence: EquivalenceReport | None = None
    opened: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    note: str = ""
    flows: tuple[Flow, ...] = field(default=(), repr=False, compare=False)
    models: tuple[keras.Model, ...] = field(default=(), repr=False, compare=False)

    def verified(self, equivalence: EquivalenceReport) -> FoldReport:
        """The same report with the result of verification."""
        return replace(self, equivalence=equivalence)

    def with_parts(self, kind: str, parts: Mapping[str, FoldReport]) -> FoldReport:
        """The report of a model of which only some parts were folded.

        Args:
            kind: the model's class.
            parts: the reports of those, by the argument of the model's class that each is.
        """
        reports = parts.values()
        changed: dict[str, Any] = {
            name: tuple(itertools.chain.from_iterable(getattr(r, name) for r in reports))
            for name in _LISTS
        }
        for name in ("macs", "params", "layers"):
            saved = (getattr(r, f"{name}_before") - getattr(r, f"{name}_after") for r in reports)
            changed[f"{name}_after"] = getattr(self, f"{name}_before") - sum(saved)
        note = (
            f"it is still a {kind}, of which only {' and '.join(map(repr, parts))} is folded: "
            "keras.Model(model.inputs, model.outputs) can be folded whole"
        )
        return replace(self, **changed, note=note)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        values = asdict(replace(self, flows=(), models=(), equivalence=None))
        if self.equivalence is not None:
            values["equivalence"] = self.equivalence.to_dict()
        return {name: value for name, value in values.items() if name not in ("flows", "models")}

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
        require_matplotlib()
        target = None if path is None else Path(path_of("path", path))
        part: Effective | str
        try:
            part = effective(map(lifted, self.models), layer)
        except FoldError as problem:
            if layer is not None:
                raise
            part = str(problem)
        title = f"{self.model}, objective {self.objective}"
        figure = figure_of(title, self.flows, part)
        if target is not None:
            write(figure, target)
        return figure

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int = WIDTH) -> str:
        """The report in words, in lines of so many columns at most."""
        counts = Table(title=f"{self.model}, objective {self.objective}")
        counts.add_column("")
        for side in ("before", "after"):
            counts.add_column(side, justify="right")
        for name in ("macs", "params", "layers"):
            before, after = getattr(self, f"{name}_before"), getattr(self, f"{name}_after")
            counts.add_row(name, f"{before:,}", f"{after:,}")
        merged = Table(title="merged")
        for column in ("into", "as", "from"):
            merged.add_column(column, overflow="fold")
        for m in self.merged:
            merged.add_row(m.into, m.kind, " + ".join(m.layers))
        kept, apart = Table(title="kept"), Table(title="not merged further")
        for table, rows in ((kept, self.kept), (apart, self.apart)):
            for column in ("layer", "because"):
                table.add_column(column, overflow="fold")
            for row in rows:
                table.add_row(row.layer, row.reason)
        out = StringIO()
        console = Console(file=out, width=width, color_system=None, markup=False, highlight=False)
        console.print(counts)
        for table in (merged, kept, apart):
            if table.row_count:
                console.print(table)
        if self.removed:
            console.print(f"removed (identities at inference): {', '.join(self.removed)}")
        if self.repeated:
            console.print(f"computed once with what they equal: {', '.join(self.repeated)}")
        if self.random:
            console.print(
                "random in the original where it is called without training=False, as in model(x), "
                f"and not in the folded model: {', '.join(self.random)}"
            )
        if self.opened:
            console.print(f"opened (the layers inside them are listed): {', '.join(self.opened)}")
        if self.note:
            console.print(self.note)
        if self.equivalence is not None:
            console.print(str(self.equivalence), soft_wrap=True)
        return out.getvalue().rstrip()


def plain_model(model: keras.Model, reason: str) -> str:
    """What is to be known where a class with predictions of its own did not come back.

    Args:
        model: the original.
        reason: why not.
    """
    methods = ", ".join(f"{name}()" for name in own_predictions(model))
    return (
        f"'{model.name}' is a {type(model).__name__}, with its own {methods}; the folded model is "
        "a plain one, whose predictions are of what the layers take, without preprocessing or the "
        f"like: {reason}"
    )


def report(
    model: keras.Model,
    regions: Regions,
    plan: Plan,
    objective: str,
    folded: keras.Model | None,
    pinned: Mapping[int, str],
) -> FoldReport:
    """The report of a plan.

    Args:
        model: the original.
        regions: what was lifted of it.
        plan: the plan.
        objective: what it was made for.
        folded: the model that it became, for its true parameter count; None if it is not built.
        pinned: nodes that the plan had to materialise, and why.
    """
    owner = regions.owner
    given = as_read(regions)
    read = {tensor.index for call in given.graph.calls for tensor in call.outputs}
    barriers = [c for c in regions.graph.calls if c.index in regions.barriers]
    merged: list[Merged] = []
    apart: list[Kept] = []
    kept = [Kept(call.name, regions.barriers[call.index]) for call in barriers]
    for node, form in plan.forms.items():
        lifted = owner[node]
        why = plan.apart.get(node)
        if isinstance(form, Original):
            reason = pinned.get(node) or why or _why(lifted)
            kept.append(Kept(lifted.call.name, reason + _rewritten(lifted, form.words(owner))))
            continue
        if why is not None:
            apart.append(Kept(lifted.call.name, why))
        names = dict.fromkeys(
            owner[i].call.name for i in form.visited if owner[i].call.outputs[0].index in read
        )
        grown = f"; {plan.grown[node]}" if node in plan.grown else ""
        merged.append(Merged(lifted.call.name, form.words(owner) + grown, tuple(names)))
    identities = [lifted.call for lifted in regions.identities]
    composed = [form for form in plan.forms.values() if not isinstance(form, Original)]
    calls = [*identities, *(owner[i].call for form in composed for i in form.visited)]
    gone = sorted(dict.fromkeys(calls), key=lambda call: call.index)
    made = {call.outputs[0].index for call in regions.graph.calls}
    lost = [call for call in given.graph.calls if call.outputs[0].index not in made]
    merged += [Merged(*one) for one in regions.graph.together]
    done = {name for one in regions.graph.together for name in one.names}
    repeated = [call for call in lost if call.name not in done]
    original = plan.original if given is regions else original_plan(given).cost
    removed = _counted(x.call for x in given.identities)
    barred = _counted(call for call in given.graph.calls if call.index in given.barriers)
    before = model.count_params()
    after = before + round(plan.cost.params - plan.original.params) - _only_of(repeated, regions)
    return FoldReport(
        model.name,
        objective,
        tuple(merged),
        tuple(call.name for call in identities),
        tuple(c.name for c in gone if c.training is None and is_random_unasked(c.operation)),
        tuple(dict.fromkeys(kept)),
        tuple(apart),
        round(original.macs),
        round(plan.cost.macs),
        before,
        after if folded is None else folded.count_params(),
        original.layers + barred + removed,
        plan.cost.layers + _counted(barriers),
        opened=regions.graph.opened,
        repeated=tuple(call.name for call in repeated),
        flows=(flow_of(regions, plan.forms),),
        models=(model if folded is None else folded,),
    )


def _counted(calls: Iterable[Call]) -> int:
    """Of calls, those that count under "layers"."""
    return sum(0 if is_free(call.operation) else 1 for call in calls)


def _only_of(calls: Iterable[Call], regions: Regions) -> int:
    """Weights of the layers of calls that none of those that are left is of."""
    gone = {id(c.operation): c.operation for c in calls if id(c.operation) not in regions.uses}
    return sum(map(count_params, gone.values()))


def _why(lifted: Lifted) -> str:
    if lifted.activation is not None:
        return "its activation is not linear, and nothing before it merges into it"
    return "nothing before it merges into it"


def _rewritten(lifted: Lifted, kind: str) -> str:
    """What a reason ends in where a kept call becomes a layer of another class."""
    same = kind == type(lifted.call.operation).__name__
    return "" if same else f"; it is written as the {kind} layer that it equals"
