"""Digits that merging would lose, and that the calls as they are keep.

Of numbers near a large one, such as years, subtracting that leaves all digits. Merged with what is
behind it, products of both are rounded before they are subtracted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from kerasfold.forms.known import Known
from kerasfold.lift.scales import loses_digits


def cancels(known: Known, visited: Sequence[int]) -> bool:
    """Whether merging nodes loses digits that the calls do not.

    What is left of a subtraction is taken for numbers about as large as 1, behind the last gain of
    channels that is merged.
    """
    inside, last = set(visited), known.owner[visited[-1]]
    return not inside <= set(last.added) and any(
        _shifts_exactly(known, i)
        and _is_as_read(known, known.nodes[i].operands[0], inside)
        and loses_digits(_subtracted(known, i, inside), last.tensor.dtype)
        for i in visited
    )


def _shifts_exactly(known: Known, index: int) -> bool:
    """Whether a node shifts what it reads, or powers of two times that: nothing is rounded."""
    node = known.nodes[index]
    if node.work not in ("shift", "scale"):
        return False
    biased = node.geometry is not None and node.geometry.biased
    return biased and (node.work == "shift" or _is_binary(known, index))


def _is_binary(known: Known, index: int) -> bool:
    """Whether a scale multiplies by powers of two alone, or by their negatives."""

    def told() -> bool:
        return bool(np.all(np.abs(np.frexp(known.nodes[index].looked_at())[0]) == 0.5))

    return known.once((_is_binary, index), told)


def _is_as_read(known: Known, index: int, inside: Collection[int]) -> bool:
    """Whether some of a node is what is read, put elsewhere, or powers of two times that."""
    node = known.nodes[index]
    moves = node.work == "copy" or node.op in ("rearrange", "concatenate")
    return index not in inside or (
        (moves or (node.work == "scale" and _is_binary(known, index)))
        and any(_is_as_read(known, operand, inside) for operand in node.operands)
    )


def _subtracted(known: Known, index: int, inside: Collection[int]) -> np.ndarray:
    """The numbers that a shift adds, in the unit of what is left."""
    node = known.nodes[index]
    size = np.abs(node.offset())
    while (readers := known.reading[node.index]) and len(readers) == 1:
        node = known.nodes[readers[0]]
        if node.index not in inside or node.work != "scale" or node.load is None:
            break
        gain = np.abs(node.load().kernel).ravel()
        size = size * gain if gain.size == size.size else size * gain.max()
    return size
