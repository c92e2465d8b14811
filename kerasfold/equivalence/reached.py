"""Whole numbers that reach a table through others: clipped, divided, hashed, or as nobody knows.

So do floats of which nothing else is made.

Candidates are sent along, from an input to the tables, through calls that work number by number.
Those are drawn that read some row; where it is not known what becomes of them, the rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from keras import layers, ops, tree

from kerasfold.algebra.axis import Refused
from kerasfold.equivalence.tables import COUNTED, rows_of
from kerasfold.read.graph import Call, Graph, Tensor

MANY = 2**18  # candidates, unless a table has more rows
BESIDE = 4  # candidates on either side of the numbers of the rows that are tried too


@dataclass(frozen=True, eq=False, slots=True)
class Sent:
    """A tensor that is made of whole numbers of the inputs.

    Attributes:
        places: (n,) of those, as places among all the numbers of the inputs; ascending.
        values: (candidates,) what each candidate becomes; itself where that is not known.
    """

    places: np.ndarray
    values: np.ndarray


class Source(Protocol):
    """A tensor of numbers of the inputs, as they are or scaled and shifted."""

    @property
    def places(self) -> np.ndarray:
        """Of each number, as places among all the numbers of the inputs."""
        ...

    def sent(self, whole: np.ndarray, tried: np.ndarray) -> Sent:
        """What candidates become, for those of its places that are some of `whole`."""
        ...


def reached(
    graph: Graph, held: Mapping[int, Source], moves: Callable[[Call], bool]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What tables ask for that whole numbers of the inputs reach otherwise than as they are.

    Args:
        graph: of a model.
        held: the tensors that hold numbers of the inputs as they are, or scaled and shifted.
        moves: whether a call moves numbers about, and does nothing else.

    Returns:
        places among all the numbers of the inputs, and values that those are to be given.
    """
    tables = [x for call in graph.calls for x in rows_of(call) if x[0].index not in held]
    others = _computed_with(graph, held)
    inputs = [x for x in tree.flatten(graph.inputs) if "int" in x.dtype or x.index not in others]
    if not tables or not inputs:
        return []
    whole = np.concatenate([held[x.index].places.ravel() for x in inputs])
    tried = _candidates(max(rows for _, rows in tables))
    sent: dict[int, Sent] = {}
    reads: list[tuple[Sent, int]] = []
    for call in graph.calls:
        read = [x for x in rows_of(call) if x[0].index in sent and x[0].index not in held]
        reads += [(sent[x.index], rows) for x, rows in read]
        sent |= {
            x.index: held[x.index].sent(whole, tried)
            for x in call.inputs
            if x.index in held and np.isin(held[x.index].places, whole).any()
        }
        if getattr(call.operation, "variables", ()):
            continue  # what is computed with weights is no row's number any more
        if any(x.index in sent for x in call.inputs):
            made = _sent_on(call, sent, tried, moves(call))
            sent |= {x.index: made for x in call.outputs if x.index not in held}
    return _chosen(reads, tried)


def _computed_with(graph: Graph, held: Container[int]) -> set[int]:
    """The tensors of which more than numbers of rows is made; others are whole, if not by dtype."""
    found = {x.index for x in tree.flatten(graph.outputs)}
    for call in reversed(graph.calls):
        looks_up = call.kind in COUNTED
        passes = _is_pointwise(call) or all(x.index in held for x in call.outputs)
        numbers = {x.index for x, _ in rows_of(call)} if looks_up else set()
        if looks_up or not passes or not found.isdisjoint(x.index for x in call.outputs):
            found |= {x.index for x in call.inputs} - numbers
    return found


def _candidates(rows: int) -> np.ndarray:
    """What an input may be for a table of so many rows to be read, the likeliest first."""
    most = min(64 * rows, max(2 * rows, MANY), 8 * MANY)
    return np.concatenate([np.arange(most), np.arange(-min(rows, MANY), 0)])


def _sent_on(call: Call, sent: Mapping[int, Sent], tried: np.ndarray, moves: bool) -> Sent:
    """What a call makes of candidates.

    Args:
        call: that reads some of them.
        sent: what it reads of them.
        tried: the candidates.
        moves: whether it moves numbers about, and does nothing else.
    """
    read = [sent[x.index] for x in dict.fromkeys(call.inputs) if x.index in sent]
    places = np.unique(np.concatenate([x.places for x in read]))
    if moves and len(read) == 1:
        return Sent(places, read[0].values)
    try:
        return Sent(places, _pointwise(call, sent))
    except Refused:
        return Sent(places, tried)


def _pointwise(call: Call, sent: Mapping[int, Sent]) -> np.ndarray:
    """What a call makes of numbers one by one; refused of one that does otherwise."""
    ranks = {len(x.shape) for x in call.inputs}
    alone = len(ranks) == 1 and all(np.size(x) == 1 for x in call.constants)
    known = all(x.index in sent for x in call.inputs)
    if not (alone and known and _is_pointwise(call)):
        raise Refused("does not work number by number")
    column = (-1, *(1,) * (ranks.pop() - 1))

    def given(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        values = in_dtype(sent[x.index].values, x.dtype).reshape(column)
        return ops.convert_to_tensor(values, x.dtype)

    args, kwargs = tree.map_structure(given, (call.args, call.kwargs))
    try:
        made = call.operation(*args, **kwargs)
    except Exception:
        raise Refused("does not run on candidates") from None
    return np.asarray(ops.convert_to_numpy(made)).ravel()


def in_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as a dtype has them: of words, their digits."""
    return values.astype("int64").astype(str) if dtype == "string" else values.astype(dtype)


def _is_pointwise(call: Call) -> bool:
    operation: Any = call.operation
    return call.kind in _POINTWISE or (
        call.kind is layers.Hashing and operation.output_mode == "int"
    )


_POINTWISE = {
    *(ops.abs, ops.absolute, ops.add, ops.cast, ops.ceil, ops.clip, ops.divide, ops.equal),
    *(ops.floor, ops.floor_divide, ops.greater, ops.greater_equal, ops.less, ops.less_equal),
    *(ops.logical_and, ops.logical_not, ops.logical_or, ops.maximum, ops.minimum, ops.mod),
    *(ops.multiply, ops.negative, ops.not_equal, ops.relu, ops.round, ops.sign, ops.square),
    *(ops.subtract, ops.true_divide, ops.where, layers.ReLU),
}


def _chosen(
    reads: Sequence[tuple[Sent, int]], tried: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places of the inputs, and candidates for them that read each row that can be read.

    Every table that one input reaches has a row for each of these.

    Args:
        reads: what tables look up, and how many rows they have.
        tried: the candidates.
    """
    groups: dict[bytes, list[tuple[np.ndarray, int]]] = {}
    places = {x.places.tobytes(): x.places for x, _ in reads}
    for x, rows in reads:
        groups.setdefault(x.places.tobytes(), []).append((np.trunc(x.values), rows))
    return [(places[key], _values(group, tried)) for key, group in groups.items()]


def _values(reads: Sequence[tuple[np.ndarray, int]], tried: np.ndarray) -> np.ndarray:
    """Those of some candidates that read each row once, and all that are numbers of rows."""
    fits = np.logical_and.reduce([(x >= 0) & (x < rows) for x, rows in reads])
    if not fits.any():
        return np.arange(min(rows for _, rows in reads))
    most = max(rows for _, rows in reads)
    taken = (tried >= -BESIDE) & (tried < most + BESIDE) & fits
    at = np.flatnonzero(fits)
    for x, _ in reads:
        taken[at[np.unique(x[at], return_index=True)[1]]] = True
    return np.sort(tried[taken])
