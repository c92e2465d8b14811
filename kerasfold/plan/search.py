"""What a set of materialised nodes costs: each as the cheapest of its forms."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from kerasfold.algebra.axis import Refused
from kerasfold.cost import Cost, Objective, Prices
from kerasfold.errors import FoldError
from kerasfold.forms.form import AnyForm, Form
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.ways import ways
from kerasfold.forms.worth import drawback
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions

Forms: TypeAlias = dict[int, AnyForm]  # by node


class Search:
    """One run of the planner: the program, the objective, and what is already known."""

    def __init__(
        self,
        regions: Regions,
        aim: Objective,
        pinned: frozenset[int],
        prices: Prices | None = None,
    ) -> None:
        self.regions = regions
        self.nodes = regions.program.nodes
        self.known = Known(regions, pinned, prices, aim.careful and not aim.is_timed)
        self.aim = aim
        self.key = aim.key
        self.pinned = pinned
        self.fixed = regions.sinks | pinned
        self._found: dict[tuple[int, ...], AnyForm | Refused] = {}

    def candidates(self, component: Sequence[Node]) -> frozenset[int]:
        """Nodes that may be materialised: what calls return."""
        return frozenset(n.index for n in component if n.index in self.regions.lifted)

    def required(self, component: Sequence[Node]) -> frozenset[int]:
        """Nodes that must be materialised."""
        return frozenset(n.index for n in component if n.index in self.fixed)

    def optional(self, component: Sequence[Node]) -> frozenset[int]:
        """Nodes that may be materialised or not."""
        return self.candidates(component) - self.required(component)

    def total(self, forms: Mapping[int, AnyForm]) -> tuple[float, ...]:
        """The objective of a set of forms."""
        return self.key(total(forms.values()))

    def forms(self, cut: Collection[int]) -> Forms | None:
        """A form for each node of `cut`, or None where one has no exact form."""
        result = {}
        for index in sorted(cut):
            form = self.form(index, cut)
            if isinstance(form, Refused):
                return None
            result[index] = form
        return result

    def visit(self, target: int, cut: Container[int], through: int | None = None) -> list[int]:
        """Nodes to compose for `target`, in order: those between it and `cut` or the roots.

        Also `through` one that must be materialised.
        """
        seen, stack = {target}, [target]
        while stack:
            for operand in self.nodes[stack.pop()].operands:
                if operand in seen or operand in cut:
                    continue
                if operand in self.fixed and operand != through:
                    continue
                if self.nodes[operand].op != "root":
                    seen.add(operand)
                    stack.append(operand)
        return sorted(seen)

    def form(self, index: int, cut: Container[int]) -> AnyForm | Refused:
        """The cheapest form of one node, given what is materialised before it."""
        return self.cheapest_form(index, self.visit(index, cut))

    def cheapest_form(self, index: int, visited: Sequence[int]) -> AnyForm | Refused:
        """The cheapest way to compute `visited`, of which `index` is the last."""
        visited = tuple(visited)
        if visited not in self._found:
            self._found[visited] = self._cheapest_form(index, visited)
        return self._found[visited]

    def _cheapest_form(self, index: int, visited: tuple[int, ...]) -> AnyForm | Refused:
        best, refusal, why = None, Refused(""), ""
        for form in ways(self.known, index, visited):
            if isinstance(form, Refused):
                refusal = form
            elif best is None or self.key(form.cost) < self.key(best.cost):
                why = drawback(self.known, form) if self.aim.careful else ""
                best = best if why else form  # the first, where equal
        if best is None:
            return refusal if refusal.reason else Refused(why)
        return replace(best, refusal=refusal.reason) if refusal.reason else best

    def original(self, component: Sequence[Node]) -> Forms:
        """Every call of a component as it is."""
        return {index: Kept.of(self.known, index) for index in sorted(self.candidates(component))}

    def materialised(self, component: Sequence[Node]) -> Forms:
        """Every call's output materialised: where a search starts."""
        start = self.forms(self.candidates(component))
        assert start is not None, "every call may be kept"
        return start

    def forced(self, component: Sequence[Node], materialise: frozenset[int]) -> Forms:
        """Forms that materialise, besides the sinks, only given nodes. Raises `FoldError`."""
        wanted = self.required(component) | self.candidates(component) & materialise
        forms = self.forms(wanted)
        if forms is None:
            raise FoldError(f"no exact plan materialises only nodes {sorted(wanted)}")
        return forms

    def every(self, component: Sequence[Node], most: int) -> Iterator[Forms]:
        """Every way to compute a component: each set to materialise, in each of its forms.

        Args:
            component: nodes of the program.
            most: sets, and ways, that are looked at.
        """
        required, optional = self.required(component), sorted(self.optional(component))
        subsets = itertools.islice(
            itertools.chain.from_iterable(
                itertools.combinations(optional, count) for count in range(len(optional) + 1)
            ),
            most,
        )
        every = (
            dict(zip(sorted(cut), forms, strict=True))
            for cut in (required.union(subset) for subset in subsets)
            for forms in itertools.product(
                *(
                    [f for f in ways(self.known, i, self.visit(i, cut)) if isinstance(f, Form)]
                    for i in sorted(cut)
                )
            )
        )
        return itertools.islice(every, most)


class Without:
    """Membership in a large set less a few, at no copy."""

    def __init__(self, members: Collection[int], dropped: Collection[int]) -> None:
        self.members, self.dropped = members, dropped

    def __contains__(self, index: object) -> bool:
        return index in self.members and index not in self.dropped


class With:
    """Membership in a large set and a few more, at no copy."""

    def __init__(self, members: Collection[int], more: Collection[int]) -> None:
        self.members, self.more = members, more

    def __contains__(self, index: object) -> bool:
        return index in self.members or index in self.more


def total(forms: Iterable[AnyForm]) -> Cost:
    """What forms cost together."""
    return Cost.sum(form.cost for form in forms)
