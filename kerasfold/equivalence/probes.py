"""Random inputs to compare models on.

Of several sizes where they are free, of several scales, of all that reads them tells apart (every
row of a table), alone and in batches.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.domain import Domain, Kind, Stream, domains
from kerasfold.equivalence.ranges import asked, asked_unread, of_both, tells_values
from kerasfold.equivalence.room import require_room
from kerasfold.equivalence.sizes import Shape, free_sizes
from kerasfold.errors import FoldError
from kerasfold.read.graph import Graph, read
from kerasfold.read.model import input_structure, operations, sublayers
from kerasfold.read.weights import count_params

PROBES = (3, 16)  # samples of one size, at least and at most
PROBED = 200_000  # numbers in all of them, between the two
BLANK = 2  # samples of zeros, one of them in part; of inputs of more than WORDS numbers one
FURTHER = 2  # samples of every further size
BATCH = 2**19  # numbers in a batch of several, unless two samples have more
WORDS = 2**13  # the same of samples that there are many of, to read every row of a table
WORK = 2**33  # multiplications, about, that all rows of a table are worth
COMBINED = 2**28  # the same of their combinations, of which some alone may reach a unit

# Scale and shift of what is usually 0 +- 1, sample by sample; and of what is loud.
KINDS: tuple[Kind, ...] = ((1, 0), (5, 0), (1, 2), (0.25, -1))
USUAL: tuple[Kind, ...] = ((1, 0),)
# Half of them no louder than leaves some sigmoids of what they become apart.
LOUD: tuple[Kind, ...] = ((2.0**12, 0), (2.0**8, 0))
LOUDLY = 2**13  # numbers in a batch of several loud samples


@dataclass(frozen=True, eq=False, slots=True)
class Probes:
    """Random inputs, as batches that fit a model.

    Attributes:
        usual: about as large as the model asks for; the first is one sample, if it may be.
        loud: so large that activations reach whatever ends them far from 0, as relu6 is ended.
            What is small is lost beside them, and half precision overflows: they are to be judged
            apart, in float64. None of a model that computes with nothing but rows of tables.
        blank: of each usual batch, how many of its last samples are zeros, or are in part, as black
            images and what is padded are. A model may give NaN there.
    """

    usual: list[Any]
    loud: list[Any]
    blank: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[Any]:
        """The usual ones."""
        return iter(self.usual)


@dataclass(frozen=True, eq=False, slots=True)
class Recipe:
    """What samples of one size are drawn of.

    Attributes:
        inputs: in flat order.
        lengths: of the batches.
        kinds: of each sample.
        loud: whether they are loud.
        blank: how many of the last are blank.
    """

    inputs: list[Domain]
    lengths: list[int]
    kinds: list[Kind]
    loud: bool = False
    blank: int = 0


def probes(
    model: keras.Model,
    input_shape: Any = None,
    kinds: Sequence[Kind] = KINDS,
    other: keras.Model | None = None,
) -> Probes:
    """Random inputs.

    Where sizes are free the usual ones are of several that the model takes, by its layers' own
    account, with at least two samples of each.

    Args:
        model: the model.
        input_shape: of one input without the batch, to draw them of; a structure of shapes as the
            model takes its inputs; or None.
        kinds: scales and shifts of the usual ones, sample by sample, again and again.
        other: a model that it is compared with, which may stride and ask for values otherwise.

    Raises:
        FoldError: a shape that does not fit, a model that takes none, or too little memory.
    """
    drawn = recipes(model, input_shape, kinds, other)
    return draw(drawn, input_structure(model), np.random.default_rng(0))


def recipes(
    model: keras.Model,
    input_shape: Any = None,
    kinds: Sequence[Kind] = KINDS,
    other: keras.Model | None = None,
) -> list[Recipe]:
    """What such inputs are drawn of, and raises: see `probes`."""
    read = [(x, _read(x)) for x in (model, other) if x is not None]
    sizes = free_sizes(*read) if input_shape is None else [_shapes(model, input_shape)]
    specs = tree.flatten(input_structure(model))
    tensors = tree.flatten([operation.output for operation in operations(model)])
    largest = max((math.prod(n or 1 for n in x.shape[1:]) for x in tensors), default=0)
    for shapes in sizes:
        require_room(model.name, shapes, PROBES[0], largest)
    repeated = itertools.cycle(kinds)
    found: list[Recipe] = []
    for shapes in sizes:
        asks = [asked_unread(x, shapes) if g is None else asked(g, shapes) for x, g in read]
        inputs = domains(specs, shapes, of_both(*asks))
        lengths = _lengths(model, inputs, len(sizes), not found)
        blank = min(BLANK if _numbers(inputs) <= WORDS else 1, lengths[-1])
        blank *= not found and any(x.scales for x in inputs)
        if not _fixed(model):
            lengths[-1] += blank
        chosen = list(itertools.islice(repeated, sum(lengths)))
        found.append(Recipe(inputs, lengths, chosen, blank=blank))
        if not any(each.loud for each in found) and any(x.scales for x in inputs):
            lengths = _batches(model, min(max(LOUDLY // _numbers(inputs), 1), PROBES[1]))
            louds = list(itertools.islice(itertools.cycle(LOUD), sum(lengths)))
            found.append(Recipe(inputs, lengths, louds, loud=True))
    return found


def draw(drawn: Iterable[Recipe], structure: Any, rng: Stream) -> Probes:
    """The inputs of some recipes, in this order, in the structure of a model's inputs."""
    usual: list[Any] = []
    loud: list[Any] = []
    blank: list[int] = []
    for each in drawn:
        rows = _combined(each.inputs, len(each.kinds), rng)
        pairs = zip(each.inputs, rows, strict=True)
        arrays = [x.draw(each.kinds, rng, read, each.blank, each.loud) for x, read in pairs]
        ends = itertools.accumulate(each.lengths)
        batches = loud if each.loud else usual
        batches += [
            tree.pack_sequence_as(structure, [x[end - n : end] for x in arrays])
            for n, end in zip(each.lengths, ends, strict=True)
        ]
        blank += [] if each.loud else [*(len(each.lengths) - 1) * [0], each.blank]
    return Probes(usual, loud, blank)


def _read(model: keras.Model) -> Graph | None:
    """The calls of a model; None of one that is no graph of layers."""
    try:
        return read(model, tells_values)
    except FoldError:
        return None


def _computing(model: keras.Model) -> int:
    """How many weights a number is computed with, about: all but those of tables."""
    tables = (x for x in sublayers(model) if isinstance(x, keras.layers.Embedding))
    return max(model.count_params() - sum(map(count_params, tables)), 1)


def _lengths(model: keras.Model, inputs: Sequence[Domain], sizes: int, first: bool) -> list[int]:
    """How many samples each batch of one size has.

    Args:
        model: the model.
        inputs: what they are drawn from.
        sizes: how many there are.
        first: whether this is the one with most samples.
    """
    numbers = _numbers(inputs)
    fewest, most = PROBES
    usual = fewest if sizes > 1 else min(max(PROBED // numbers, fewest), most)
    work = numbers * _computing(model)
    rows = min(PROBED // numbers, WORK // work, max(x.samples for x in inputs))
    ways = _combinations(inputs)
    combined = min(ways if ways <= WORDS else WORDS // numbers, COMBINED // work)
    samples = max(usual, rows, combined) if first else FURTHER
    if not first or _fixed(model):
        return _batches(model, samples)
    several = max(WORDS // numbers, min(BATCH // numbers, most - 1), 2)
    rest = samples - 1
    return [1, *(min(several, rest - done) for done in range(0, rest, several))]


def _numbers(inputs: Sequence[Domain]) -> int:
    """How many numbers one sample has."""
    return max(sum(math.prod(x.shape) for x in inputs), 1)


def _fixed(model: keras.Model) -> int:
    """The size that every batch has, or 0."""
    return max(spec.shape[0] or 0 for spec in tree.flatten(input_structure(model)))


def _batches(model: keras.Model, samples: int) -> list[int]:
    """The lengths of as few batches as have so many samples, or more where their size is fixed."""
    size = _fixed(model) or samples
    return [size] * -(-samples // size)


def _combinations(inputs: Sequence[Domain]) -> int:
    """In how many ways rows can be looked up for one sample; 0 where none is."""
    ranges = [n for x in inputs for n in x.ranges]
    return math.prod(ranges) if ranges else 0


def _combined(inputs: Sequence[Domain], samples: int, rng: Stream) -> Sequence[np.ndarray | None]:
    """The rows that each input looks up: every combination, where there are samples enough."""
    count = _combinations(inputs)
    if not 0 < count <= samples:
        return [None] * len(inputs)
    order = np.resize(rng.permutation(count), samples)
    ranges = np.array([n for x in inputs for n in x.ranges])
    rows, many = np.zeros((samples, len(ranges)), int), np.flatnonzero(ranges > 1)
    if many.size:  # of a table of one row, that
        rows[:, many] = np.stack(np.unravel_index(order, ranges[many]), axis=-1)
    return np.split(rows, np.cumsum([len(x.ranges) for x in inputs])[:-1], axis=-1)


def _shapes(model: keras.Model, given: Any) -> list[Shape]:
    """The user's shapes, one for each input. Raises `FoldError`."""
    structure = input_structure(model)
    specs = tree.flatten(structure)
    try:
        numbers = [operator.index(n) for n in tree.flatten(given)]
    except TypeError:
        numbers = []
    ranks = [len(spec.shape) - 1 for spec in specs]
    starts = itertools.accumulate(ranks, initial=0)
    shapes = [tuple(numbers[i : i + rank]) for i, rank in zip(starts, ranks, strict=False)]
    fits = len(numbers) == sum(ranks) and all(
        m > 0 and n in (None, m)
        for spec, shape in zip(specs, shapes, strict=True)
        for n, m in zip(spec.shape[1:], shape, strict=True)
    )
    if not fits:
        wanted = {spec.name: tuple(spec.shape[1:]) for spec in specs}
        raise FoldError(
            f"input_shape={given!r} does not fit the inputs of '{model.name}', which are, without "
            f"the batch: {wanted}"
        )
    return shapes
