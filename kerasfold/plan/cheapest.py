"""The cheapest plan of a model as it is, or with calls that are moved or compute less."""

from __future__ import annotations

import functools
from collections.abc import Callable

from kerasfold.cost import Prices, objective_of
from kerasfold.lift.commuted import commuted
from kerasfold.lift.gains import carried
from kerasfold.lift.narrowed import narrowed
from kerasfold.lift.regions import Regions
from kerasfold.plan.choose import Plan, plan

STRIDED = 1.5  # pixels for each that is read: a stride leaves more, a border that is not read fewer

# What may be done to a model before it is planned; each is tried on the cheapest so far.
REWRITINGS: tuple[Callable[[Regions], Regions | None], ...] = (
    commuted,
    carried,
    functools.partial(narrowed, least=STRIDED),
    narrowed,
)


def cheapest(
    regions: Regions, objective: str, prices: Prices | None = None
) -> tuple[Regions, Plan]:
    """The model, rewritten where that is cheaper, and its plan.

    Args:
        regions: the lifted model.
        objective: as for `plan`.
        prices: as for `plan`.

    Raises:
        FoldError: as `plan`.
    """
    prices = prices or Prices()
    aim, best = objective_of(objective), (regions, plan(regions, objective, prices=prices))
    for rewrite in REWRITINGS:
        other = rewrite(best[0])
        if other is None:
            continue
        found, cost = plan(other, objective, prices=prices), best[1].cost
        careful = aim.careful and prices.slower(cost, found.cost)
        if aim.key(found.cost) < aim.key(cost) and not careful:
            best = other, found
    return best
