"""Whether calls that compute no more than what is read of them make a cheaper plan."""

from __future__ import annotations

from kerasfold.cost import objective_of, slower_on
from kerasfold.lift.narrowed import narrowed
from kerasfold.lift.regions import Regions
from kerasfold.plan.choose import Plan, plan

STRIDED = 1.5  # pixels for each that is read: a stride leaves more, a border that is not read fewer


def cheapest(regions: Regions, objective: str) -> tuple[Regions, Plan]:
    """The model as it is, or with calls that compute less where that is cheaper, and its plan.

    Args:
        regions: the lifted model.
        objective: as for `plan`.

    Raises:
        FoldError: as `plan`.
    """
    aim, best, made = objective_of(objective), (regions, plan(regions, objective)), 0
    for least in (STRIDED, 1.0):
        less = narrowed(regions, least)
        if less is None or len(less.graph.calls) == made:  # the same calls as before
            continue
        made = len(less.graph.calls)
        found, cost = plan(less, objective), best[1].cost
        careful = aim.careful and slower_on(cost, found.cost)
        if aim.key(found.cost) < aim.key(cost) and not careful:
            best = less, found
    return best
