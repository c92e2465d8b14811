"""The table of forms, in the order in which they are tried."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TypeVar

from kerasfold.algebra.axis import Refused
from kerasfold.forms.averaged import AveragedBlock, AveragedTerms
from kerasfold.forms.concatenated import Concatenated
from kerasfold.forms.convolved import Convolved
from kerasfold.forms.digits import cancels
from kerasfold.forms.factored import Factored
from kerasfold.forms.flattened import Flattened
from kerasfold.forms.form import AnyForm
from kerasfold.forms.framed import Framed
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.normalised import Normalised
from kerasfold.forms.pooled import PoolFirst, PoolLast, PoolThenNormalised, PoolThenScale
from kerasfold.forms.rearranged import Reordered
from kerasfold.forms.reduced import Reduced
from kerasfold.forms.rewritten import Rewritten, Thinned
from kerasfold.forms.scaled import Scaled
from kerasfold.forms.separable import Separable
from kerasfold.forms.sliced import Sliced
from kerasfold.forms.stacked import Stacked
from kerasfold.forms.tiled import Tiled
from kerasfold.forms.weightless import Weightless
from kerasfold.forms.worth import refuse_immense
from kerasfold.lift.program import Trait
from kerasfold.lift.scales import CANCELS

F = TypeVar("F", bound=AnyForm)

FORMS: tuple[type[AnyForm], ...] = (
    Scaled,
    Normalised,
    Sliced,
    Weightless,
    Reduced,
    Convolved,
    Reordered,
    Framed,
    Tiled,
    Separable,
    PoolLast,
    PoolFirst,
    PoolThenScale,
    PoolThenNormalised,
    AveragedTerms,
    AveragedBlock,
    Stacked,
    Concatenated,
    Flattened,
    Factored,
)

BETTER: tuple[type[Rewritten], ...] = (Rewritten, Thinned)


def ways(known: Known, index: int, visited: Sequence[int]) -> Iterator[AnyForm | Refused]:
    """Every form of a node; among them why the whole of it is not one operator, if so.

    The call itself comes first, where nothing else is to be composed: of forms that cost the
    same, a plan takes the first.

    Args:
        known: the program, and what is known of it so far.
        index: the node.
        visited: the nodes to compose for it, in order, itself the last.
    """
    visited, traits = tuple(visited), known.traits(visited)
    kept = Kept.propose(known, index, visited)
    if kept is not None:
        yield as_it_is(known, kept)
        if index in known.pinned or (len(visited) == 1 and not known.is_pool(index)):
            return  # no form but itself
    if known.misplaces_bias(visited):
        yield Refused(
            "a bias on images as wide as they have channels, channels first, which Keras adds "
            "along the width on TensorFlow"
        )
        return
    if "scales" in traits and cancels(known, visited):
        yield Refused(CANCELS)
        return
    is_refused = False
    for form in _possible(traits, FORMS):
        if form.is_last_resort and not is_refused:
            continue
        try:
            proposed = form.propose(known, index, visited)
            if proposed is not None:
                refuse_immense(known, proposed)
        except Refused as refusal:
            if form.is_whole:
                is_refused = True
                yield refusal.anew()
            continue
        if proposed is not None:
            yield proposed


@functools.lru_cache
def _possible(traits: frozenset[Trait], forms: tuple[type[F], ...]) -> tuple[type[F], ...]:
    """The forms that steps of such traits may have."""
    return tuple(form for form in forms if form.may_be_of(traits))


def as_it_is(known: Known, kept: Kept) -> Kept:
    """A call that is kept; in a better layer where there is one, unless it must be as it is."""
    if kept.node in known.pinned:
        return kept
    return known.once((as_it_is, kept.node), lambda: _better(known, kept) or kept)


def _better(known: Known, kept: Kept) -> Kept | None:
    """The first better layer that is no slower, or None."""
    for form in _possible(known.traits(kept.visited), BETTER):
        better = form.propose(known, kept.node, kept.visited)
        if better is not None and not known.prices.slower(kept.cost, better.cost):
            return better
    return None
