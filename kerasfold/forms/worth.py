"""Whether a form is worth what it replaces: slower nowhere, and larger for a gain alone.

Rooflines err. So under an objective that is `careful`, a form must not take longer on any runtime
than the calls it stands for, and must not multiply their weights or multiplications for little.
Under others weights may be multiplied, but not without end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kerasfold.algebra.axis import Refused
from kerasfold.cost import Cost
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.sharing import shared_layers, sharing_key

GROWTH = 1.5  # times the weights or multiplications that a form may not have
GAIN = 1.3  # times the speed from which on it may have more
IMMENSE = 2**27  # weights of one form, 1 GiB in float64, that may not be many times what was
MANIFOLD = 4  # times as many, from which on they may not


def is_slower(known: Known, visited: Sequence[int], cost: Cost) -> bool:
    """Whether nodes are never computed at a cost, for being faster as they are somewhere."""
    return known.careful and bool(known.prices.slower(replaced(known, visited), cost))


def replaced(known: Known, visited: Sequence[int]) -> Cost:
    """What the calls that a form computes cost as they are.

    A call that others read too counts in part: as many of its readers as the form computes.
    """
    return known.once((replaced, *visited), lambda: Cost.sum(_shares(known, visited)))


def _shares(known: Known, visited: Sequence[int]) -> Iterator[Cost]:
    inside = Counter(o for i in visited for o in known.nodes[i].operands)
    for index in visited:
        if index in known.regions.lifted:
            share = inside[index] / known.readers[index] if index != visited[-1] else 1.0
            cost = known.once(("as it is", index), partial(_as_it_is, known, index))
            yield cost if share == 1 else cost.times(share)


def _as_it_is(known: Known, index: int) -> Cost:
    """What a call costs, with the weights that are none to Keras."""
    cost = Kept.of(known, index).cost
    return cost if cost.params else cost._replace(params=_constants(known, index))


def _constants(known: Known, index: int) -> int:
    """Weights of a call that are none to Keras, as what an operation was called with."""
    nodes = (known.nodes[i] for i in known.owner[index].added)
    return sum(n.geometry.params for n in nodes if n.geometry and n.multiplies)


def drawback(known: Known, form: AnyForm) -> str:
    """Why a form is not worth what it replaces, or ""."""
    if isinstance(form, Kept):
        return ""
    had = replaced(known, form.visited)
    if slower := known.prices.slower(had, form.cost):
        return f"merging it would be slower {slower}, as predicted"
    grown = growth(had, form.cost)
    return f"merging it would take {grown}" if grown and gain(had, form.cost) < GAIN else ""


def refuse_immense(known: Known, form: AnyForm) -> None:
    """Refuse weights that no machine has the memory for, of a net that it has.

    Raises:
        Refused: so many in place of few.
    """
    if form.cost.params <= IMMENSE:
        return
    had = replaced(known, form.visited).params
    if form.cost.params > MANIFOLD * had:
        raise Refused(
            f"{form.cost.params:,.0f} weights in place of {had:,.0f}, which does not pay for any "
            "objective"
        )


def gain(had: Cost, now: Cost) -> float:
    """How many times as fast, on the runtime that gains less."""
    ratios = (b / a if a else math.inf for b, a in had.beside(now) if a or b)
    return min(ratios, default=1.0)


def growth(had: Cost, now: Cost) -> str:
    """What a form has more of than what it replaces, in words; "" where that is little."""
    grown = [
        f"{after:,.0f} {what} in place of {before:,.0f}"
        for what, before, after in (
            ("weights", had.params, now.params),
            ("multiplications", had.macs, now.macs),
        )
        if after >= GROWTH * before > 0 or after > before == 0
    ]
    if not grown:
        return ""
    return f"{' and '.join(grown)}, for {gain(had, now):.2f} times the speed as predicted"


@dataclass(frozen=True, eq=False, slots=True)
class Unshared:
    """Calls of one layer, some of which no longer share its weights with the others.

    Attributes:
        calls: the nodes that they end in.
        forms: what computes them.
        growth: what these have more of than the calls that they stand for, or "".
        gain: see `gain`.
    """

    calls: frozenset[int]
    forms: Sequence[AnyForm]
    growth: str
    gain: float


def unshared(known: Known, forms: Iterable[AnyForm]) -> Iterator[Unshared]:
    """Of each layer that is called more than once, its calls, where not all are merged alike.

    Forms are priced as if they were, and shared their weights.
    """
    regions = known.regions
    using: dict[int, list[AnyForm]] = {}
    for form in forms:
        for layer in shared_layers(regions, form):
            using.setdefault(layer, []).append(form)
    for layer, own in using.items():
        keys = [layer if isinstance(f, Kept) else sharing_key(regions, f) for f in own]
        alike = Counter(keys)
        copies = [known.shared(f.visited) / alike[key] for f, key in zip(own, keys, strict=True)]
        if max(copies) <= 1:
            continue
        had, now = Cost(), Cost()
        for form, more in zip(own, copies, strict=True):
            had += replaced(known, form.visited)
            now += form.cost._replace(params=form.cost.params * more)
        owners = (known.owner[i] for form in own for i in form.visited)
        calls = frozenset(x.node for x in owners if id(x.call.operation) == layer)
        yield Unshared(calls, own, growth(had, now), gain(had, now))
