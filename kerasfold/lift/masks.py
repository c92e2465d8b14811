"""Masks: which of them arrive where they change a result.

Keras hands masks along beside the tensors, and writes the mask that a layer's `call` asks for into
the graph, as an argument. What no argument says matters where a layer may look for it inside, and
to the caller of the model: a layer in the place of several may hand on no mask where they did.
"""

from __future__ import annotations

from keras import tree

from kerasfold.algebra.axis import Refused
from kerasfold.read.graph import Call, Graph, Tensor
from kerasfold.read.model import is_mask_name, keeps_masks, passes_masks, reads_masks


def readers(graph: Graph) -> dict[int, str]:
    """What reads the mask of a tensor, were there one, in words; by index of the tensor."""
    found = {
        x.index: "whoever calls the model"
        for x in tree.flatten(graph.outputs)
        if isinstance(x, Tensor)
    }
    for call in reversed(graph.calls):
        if _masks_given(call) and not keeps_masks(call.operation, same_shape=False):
            continue
        reader: str | None = None
        if reads_masks(call.operation):
            reader = f"'{call.name}'"
        elif passes_masks(call.operation) or keeps_masks(call.operation, same_shape=True):
            reader = next((found[y.index] for y in call.outputs if y.index in found), None)
        if reader is not None:
            for x in call.inputs:
                found.setdefault(x.index, reader)
    return found


def check_masks(call: Call, output: Tensor, reader: str | None, is_identity: bool) -> None:
    """Refuse a call that other layers cannot stand in for, because of a mask.

    Args:
        call: a call that a rule lifts.
        output: one of its outputs.
        reader: what reads the mask of that, were there one.
        is_identity: whether it is the input.
    """
    masked = any(x.masked for x in call.inputs)
    if (masked or _masks_given(call)) and reads_masks(call.operation):
        raise Refused("it reads a mask")
    if reader is None or (is_identity and masked == output.masked and len(call.inputs) == 1):
        return
    if output.masked:
        raise Refused(f"the mask that it hands on is read by {reader}")
    if masked and is_identity:
        raise Refused(f"the mask that it drops would be read by {reader}")


def _masks_given(call: Call) -> bool:
    given = [value for name, value in call.kwargs.items() if is_mask_name(name)]
    # Attention has a switch of that name too.
    return any(x is not None and not isinstance(x, bool) for x in tree.flatten(given))
