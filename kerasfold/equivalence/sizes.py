"""Sizes to compare models at, where those of their inputs are free.

Two nets may agree at an odd size and differ at an even one: PyTorch pads both sides alike whatever
the size, Keras pads 'same' so that the last window fits. So there is an even size, an odd one, a
small one and one with sides of their own, of different remainders by what the net strides in all.
Which sizes a model takes is its layers' own account. Layers that are not Keras's own may miss that
a table of theirs is short: with such, the model is run.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.runs import AsIs
from kerasfold.errors import FoldError, words_of
from kerasfold.read.graph import Graph, Tensor
from kerasfold.read.model import input_structure, is_of_keras, sublayers
from kerasfold.read.nodes import symbolic

Shape: TypeAlias = tuple[int, ...]
Sides: TypeAlias = tuple[int, ...]  # along the free axes of each input, in order
Fill: TypeAlias = Literal["zeros", "ones", "normal"]
Read: TypeAlias = tuple[keras.Model, Graph | None]  # a model, and its calls if it can be read

FREE_SIZES = (33, 64, 97, 128, 224, 299)  # tried along free axes where smaller ones do not fit
MOST = 2**25  # numbers in one input that is looked for beyond them
LEAST = {1: 16, 2: 16, 3: 8}  # what sides are multiples of, at least, by the number of free axes
SMALL = (16, 8, 4)  # tried where none of a model's tables has as many rows as it takes positions
ROWS = 1024  # of a table that may be one of positions, at most
FILLS: tuple[Fill, ...] = ("zeros", "ones", "normal")  # of inputs that a model may run on
SAID = 12  # sizes that a refusal lists
LOOKS = (576, 1152)  # two sizes that show how far a net strides


def free_sizes(model: Read, *others: Read) -> list[list[Shape]]:
    """Shapes of the inputs, without the batch: of up to four sizes that the model takes.

    Args:
        model: the model.
        others: that are compared with it, whose strides count too.

    Returns:
        For each size the shape of each input, in flat order; of one size where none is free.

    Raises:
        FoldError: a model that takes none of them.
    """
    name, account = model[0].name, _Account(*model)
    if not account.axes:
        return [account.shapes(())]
    unit = _unit(account.axes, [x.stride() for x in (account, *(_Account(*y) for y in others))])
    first, takes = next(filter(account.takes, _squares(account, unit)), None), account.takes
    if first is not None and not account.runs(first):
        takes = account.runs
        first = next(filter(takes, ((n,) * account.axes for n in _rows(model[0], first[0]))), None)
    if first is None:
        raise FoldError(
            f"model '{name}' takes inputs of no size that was tried, of {account.words} "
            f"({account.error}): give the size of one it runs on as input_shape=, or inputs as "
            "data=, or pass verify=False"
        )
    sizes = [first]
    for tried in _others(unit, first[0]):
        sides = (tuple(itertools.islice(itertools.cycle(s), account.axes)) for s in tried)
        sizes += itertools.islice((s for s in sides if s not in sizes and takes(s)), 1)
    return [account.shapes(sides) for sides in sizes]


def _squares(account: _Account, unit: int) -> Iterator[Sides]:
    """Equal sides to try: twice the unit, usual ones, then larger where those give empty images."""
    larger = (round(FREE_SIZES[-1] * 1.5**n) for n in itertools.count(1))
    for size in itertools.chain((2 * unit, *FREE_SIZES), larger):
        sides = (size,) * account.axes
        if size > FREE_SIZES[-1] and account.numbers(sides) > MOST:
            return
        yield sides


def _rows(model: keras.Model, tried: int) -> Iterable[int]:
    """Sides to try where a table may be too short, or as long as an input must be.

    Args:
        model: the model.
        tried: a side on which it does not run.
    """
    tables = {v.shape[-2] for v in model.weights if math.prod(v.shape[:-2]) == 1 < len(v.shape)}
    rows = sorted(n for n in tables if 1 < n <= ROWS and n != tried)
    shorter, longer = ([n for n in rows if (n > tried) == is_longer] for is_longer in (False, True))
    return dict.fromkeys((*reversed(shorter), *SMALL, *longer))


def _others(unit: int, first: int) -> Iterator[list[Sides]]:
    """Of each other kind the sides to try, the best first; they repeat where axes are more.

    Args:
        unit: what the net strides in all, some times over; even.
        first: the size that it is compared at anyway.
    """
    yield [(unit + 1,), (2 * unit + 1,), (first + 1,)]
    yield [(unit // 4 + 1,), (unit // 2 + 1,), (unit,)]
    yield [(unit + unit // 2, 2 * unit - 1), (2 * unit, unit), (first, first + unit)]


def _unit(axes: int, strides: Sequence[int]) -> int:
    """An even multiple of what nets stride in all, as large as a small image of so many axes."""
    stride = math.lcm(2, *strides)
    least = LEAST.get(axes, min(LEAST.values()))
    return stride * math.ceil(least / stride)


# Layers whose own account misses what they refuse when they run.
_STRICTER: dict[Any, Callable[[Any], Callable[..., Any]]] = {
    keras.layers.Concatenate: lambda layer: lambda xs: keras.ops.concatenate(xs, axis=layer.axis),
}


class _Account:
    """The layers' own account of sizes."""

    def __init__(self, model: keras.Model, graph: Graph | None) -> None:
        self.model, self.graph = model, graph
        self.structure = input_structure(model)
        self.specs = tree.flatten(self.structure)
        self.axes = max(sum(n is None for n in spec.shape[1:]) for spec in self.specs)
        self.error = ""
        self.tried: dict[Sides, None] = {}

    @property
    def words(self) -> str:
        """The sizes that were tried."""
        *sizes, last = (str(sides[0]) for sides in self.tried)
        if len(sizes) > SAID:
            sizes[SAID:] = ["..."]
        return f"{', '.join(sizes)} and {last}" if sizes else last

    def shapes(self, sides: Sides) -> list[Shape]:
        """Shapes of the inputs, without the batch."""

        def shape(spec: Any) -> Shape:
            free = iter(sides)
            return tuple(next(free) if n is None else n for n in spec.shape[1:])

        return list(map(shape, self.specs))

    def numbers(self, sides: Sides) -> int:
        """How many numbers one sample has."""
        return sum(map(math.prod, self.shapes(sides)))

    def takes(self, sides: Sides) -> bool:
        """Whether every tensor has a size, and none is empty; if not, `error` says why."""
        self.tried[sides] = None
        try:
            tensors = self.tensors(sides)
        except Exception as error:
            self.error = words_of(error)
            return False
        if all(n is None or n > 0 for x in tensors for n in x.shape[1:]):
            return True
        self.error = f"an input of shape {self.shapes(sides)[0]} leaves an empty tensor"
        return False

    @functools.cached_property
    def may_miss_one(self) -> bool:
        """Whether layers may refuse what they take by their own account, and may be run."""
        inner = [x for x in sublayers(self.model) if not isinstance(x, keras.Model)]
        return all(x.built for x in inner) and not all(map(is_of_keras, inner))

    def runs(self, sides: Sides) -> bool:
        """Whether the model runs there, if it may not, on some inputs; if not, `error` says why.

        What its layers hold stays as it is.
        """
        if not self.takes(sides):
            return False
        return not self.may_miss_one or any(self._runs(sides, fill) for fill in FILLS)

    def _runs(self, sides: Sides, fill: Fill) -> bool:
        pairs = zip(self.specs, self.shapes(sides), strict=True)
        batch = [_filled((spec.shape[0] or 1, *shape), spec.dtype, fill) for spec, shape in pairs]
        try:
            AsIs(self.model)(tree.pack_sequence_as(self.structure, batch))
        except Exception as error:
            self.error = words_of(error)
            return False
        return True

    def tensors(self, sides: Sides) -> list[Any]:
        """Symbolic tensors at these sides: of all calls, or of the outputs alone.

        Sizes that a layer gives beside them are none: they are tensors where they are free alone.
        Raises what the layers raise.
        """
        inputs = [
            keras.KerasTensor((spec.shape[0], *shape), spec.dtype)
            for spec, shape in zip(self.specs, self.shapes(sides), strict=True)
        ]
        if self.graph is None:
            given = tree.pack_sequence_as(self.structure, inputs)
            return symbolic(self.model.compute_output_spec(given))
        known = {x.index: y for x, y in zip(tree.flatten(self.graph.inputs), inputs, strict=True)}
        for call in self.graph.calls:
            args, kwargs = tree.map_structure(
                lambda x: known[x.index] if isinstance(x, Tensor) else x, (call.args, call.kwargs)
            )
            account = _STRICTER.get(call.kind, lambda x: x.compute_output_spec)(call.operation)
            # What is made of sizes alone is no tensor either, once they are known.
            run = account if symbolic((args, kwargs)) else call.operation
            with keras.StatelessScope():
                outputs = run(*args, **kwargs)
            for x, y in zip(call.outputs, tree.flatten(outputs), strict=True):
                known[x.index] = y
        return symbolic(list(known.values()))

    def stride(self) -> int:
        """How far the net strides in all: what the smallest image shrinks by as inputs do."""
        try:
            few, many = (self.tensors((size,) * self.axes) for size in LOOKS)
        except Exception:
            return 1
        grown = [
            (m - n)
            for x, y in zip(few, many, strict=True)
            for n, m in zip(x.shape[1:], y.shape[1:], strict=True)
            if n is not None and m is not None and m > n
        ]
        return round((LOOKS[1] - LOOKS[0]) / min(grown, default=LOOKS[1] - LOOKS[0])) or 1


def _filled(shape: Shape, dtype: str, fill: Fill) -> np.ndarray:
    """One kind of input."""
    if dtype == "string":
        return np.full(shape, "a")
    if fill == "normal" and keras.backend.is_float_dtype(dtype):
        return np.random.default_rng(0).normal(size=shape)
    return np.full(shape, fill == "ones", "int32")
