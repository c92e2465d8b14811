"""The cheapest plan of a model as it is, or with calls that are moved or compute less."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

from kerasfold.cost import Cost, Prices, objective_of, pixels
from kerasfold.lift.abreast import abreast
from kerasfold.lift.absorbed import absorbed
from kerasfold.lift.activations import acts_on_samples
from kerasfold.lift.commuted import commuted
from kerasfold.lift.distributed import distributed
from kerasfold.lift.gains import carried
from kerasfold.lift.narrowed import narrowed
from kerasfold.lift.pointwise import works_in_place
from kerasfold.lift.pruned import pruned
from kerasfold.lift.regions import Lifted, Regions, Rewritings
from kerasfold.lift.sunk import sunk
from kerasfold.plan.alike import Planned
from kerasfold.plan.choose import Plan, joined_nodes, plan, stacked_nodes
from kerasfold.read.graph import Call
from kerasfold.read.weights import count_params

STRIDED = 1.5  # pixels for each that is read: a stride leaves more, a border that is not read fewer
SQUEEZED = 1 / 8  # of the channels of a pixel made of many: fewer are not worth a call, in seconds

# What may be done to a model before it is planned; each is tried on the cheapest so far, and told
# whether what it gave last is that now.
# `pruned` comes before these: they find fewer channels then.
REWRITINGS: tuple[Callable[[Regions], Rewritings], ...] = (
    sunk,
    distributed,
    commuted,
    carried,
    absorbed,
    functools.partial(narrowed, least=STRIDED),
)


def cheapest(
    regions: Regions,
    objective: str,
    prices: Prices | None = None,
    keep_channels: bool = False,
) -> tuple[Regions, Plan]:
    """The model, rewritten where that is cheaper, and its plan.

    Args:
        regions: the lifted model.
        objective: as for `plan`.
        prices: as for `plan`.
        keep_channels: whether all channels are to be computed, read or not.

    Raises:
        FoldError: as `plan`.
    """
    prices = prices or Prices()
    aim, planned = objective_of(objective), Planned()

    def planning(regions: Regions) -> Plan:
        return plan(regions, objective, prices=prices, planned=planned)

    best = _Way(regions, prices, planning)

    def activated_as_one(regions: Regions) -> Rewritings:
        return abreast(regions, joined_nodes(best.plan), stacked_nodes(best.plan))

    least = SQUEEZED if aim.careful else 0.0
    fewer = functools.partial(pruned, multiple=prices.channels, least=least)
    first = () if keep_channels else (fewer,)
    for rewrite in (*first, *REWRITINGS, activated_as_one):
        tried, is_taken = rewrite(best.regions), None
        with contextlib.suppress(StopIteration):
            while True:
                other = _Way(tried.send(is_taken), prices, planning)
                is_less = rewrite is fewer and _makes_no_other(other.regions, best.regions)
                is_taken = is_less or aim.prefers(other.cost, best.cost, prices)
                best = other if is_taken else best
    return best.regions, best.plan


def of_fewer_channels(regions: Regions, prices: Prices) -> Regions:
    """The model without channels that are not to be computed, where no call is added for that."""
    for other in pruned(regions, multiple=prices.channels, least=SQUEEZED):
        if _makes_no_other(other, regions):
            return other
    return regions


class _Way:
    """One way to write a model, and its plan, which is made when somebody asks."""

    def __init__(
        self, regions: Regions, prices: Prices, planning: Callable[[Regions], Plan]
    ) -> None:
        self.regions, self.prices, self.planning = regions, prices, planning

    @functools.cached_property
    def plan(self) -> Plan:
        return self.planning(self.regions)

    @functools.cached_property
    def cost(self) -> Cost:
        return self.plan.cost + acting_cost(self.regions, self.prices)


def _makes_no_other(fewer: Regions, than: Regions) -> bool:
    """Whether all tensors are those of another way, and maybe have less channels each.

    No call is added then, and any plan of the other way is one of this, and no dearer.
    """
    had, made = ({x.index for c in r.graph.calls for x in c.outputs} for r in (than, fewer))
    return made <= had


def acting_cost(regions: Regions, prices: Prices) -> Cost:
    """What the calls cost that are not lifted and work in place, the activations, and all weights.

    They are in no plan; but rewritten, they may work on more samples or on fewer, or have others.
    """

    def of(call: Call) -> Cost:
        samples = sum(pixels(x.shape[1:]) for x in (*call.inputs, *call.outputs))
        return prices.step("elementwise", 4 * samples, behind=regions.is_weighed(call.inputs[0]))

    def within(record: Lifted) -> Cost:
        samples = 2 * pixels(record.tensor.shape[1:])
        return prices.step("elementwise", 4 * samples, behind=True)

    barriers = [call for call in regions.graph.calls if call.index in regions.barriers]
    weights = sum(map(count_params, {id(x.operation): x.operation for x in barriers}.values()))
    activated = (x for x in regions.lifted.values() if x.activation is not None)
    return Cost.sum(
        (
            Cost(params=weights),
            *(of(call) for call in barriers if works_in_place(call)),
            *(within(x) for x in activated if acts_on_samples(x.activation)),
        )
    )
