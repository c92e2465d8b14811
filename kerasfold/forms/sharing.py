"""Which forms are the same layers over again, as those of a layer that is called twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from kerasfold.forms.form import AnyForm
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.read.weights import count_params


def shared_layers(regions: Regions, form: AnyForm) -> set[int]:
    """Ids of the layers with weights that a form computes calls of, where there are others."""
    owners = (regions.owner[i].call.operation for i in form.visited)
    return {id(o) for o in owners if regions.uses[id(o)] > 1 and count_params(o)}


def sharing_key(regions: Regions, form: AnyForm) -> Hashable:
    """Equal for forms that are the same layers over again, so that they may share weights.

    They do where those are emitted alike, with equal weights: the sizes of images may differ.
    """
    owners = [regions.owner[i].call.operation for i in form.visited]
    weighty = {id(o) for o in owners if count_params(o)}
    if not weighty or min(regions.uses[o] for o in weighty) == 1:
        return object()
    place = {node: i for i, node in enumerate(form.visited)}
    roots: dict[int, int] = {}
    steps = []
    for index, owner in zip(form.visited, owners, strict=True):
        node, lifted = regions.program.nodes[index], regions.owner[index]
        reads = tuple(
            ("inside", place[o]) if o in place else ("root", roots.setdefault(o, len(roots)))
            for o in node.operands
        )
        what = id(owner) if id(owner) in weighty else _content(node)
        steps.append((what, index - lifted.start, repr(lifted.call.constants), reads))
    activation = id(regions.owner[form.node].activation)
    return tuple(steps), form.name, activation


def _content(node: Node) -> Any:
    """What a node without Keras weights computes."""
    if node.load is None:
        return node.op, node.factors
    operator = node.load()
    return node.geometry, operator.kernel.tobytes(), operator.bias.tobytes()
