"""What callers of a model rely on beside its function: names, keys, structure, dtypes, batch."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.errors import FoldError, UnsupportedModelError
from kerasfold.read.model import input_structure, made_by, output_names, output_structure


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the signatures of two models differ.

    Attributes:
        words: what differs, and what it is in either.
        breaks: whether callers of the first model may not be able to call the second.
    """

    words: str
    breaks: bool

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class Place:
    """An input or output of a model.

    Attributes:
        name: its key in a dict, or the name of its layer.
        counted: whether Keras made up that name.
        dtype: of the tensor.
        shape: with the batch; None where it is free.
    """

    name: str
    counted: bool
    dtype: str
    shape: tuple[int | None, ...]


def differences(a: keras.Model, b: keras.Model) -> list[Difference]:
    """How the signatures of two models differ that may be compared: see `refuse_other_shapes`.

    Names that Keras counted itself, such as `dense_3` or `input_layer_2`, never matter. What
    breaks callers: another dtype of an input or output, other keys of a dict, another structure
    (that of a single input apart, of which Keras takes any), a batch that is fixed where it was
    free, and an input, or one of several outputs, without the name that a person gave it.

    Args:
        a: the model that callers know.
        b: the model that is to take its place.
    """
    inputs, outputs = input_structure(a), output_structure(a)
    return [
        *_of_structure("inputs", inputs, input_structure(b), len(tree.flatten(inputs)) > 1),
        *_of_structure("outputs", outputs, output_structure(b), True),
        *_of_places("input", inputs_of(a), inputs_of(b), True),
        *_of_places("output", outputs_of(a), outputs_of(b), len(tree.flatten(outputs)) > 1),
    ]


def with_signature(
    report: EquivalenceReport, found: Sequence[Difference], strict: bool = True
) -> EquivalenceReport:
    """The report on two models whose signatures differ: what breaks callers is a failure.

    Args:
        report: on their functions.
        found: in what they differ.
        strict: whether that is a failure, and not only a note.
    """
    failures = [str(x) for x in found if x.breaks and strict]
    notes = [str(x) for x in found if not (x.breaks and strict)]
    if failures:
        before = [report.reason] if report.verdict == "different" else []
        reason = "; ".join([*before, *failures])
        report = replace(report, verdict="different", reason=reason, signature=tuple(failures))
    return report.noted(*notes)


def require_inputs(model: keras.Model) -> None:
    """Refuse a model whose inputs are not known. Raises `UnsupportedModelError`."""
    if not getattr(model, "inputs", None):
        raise UnsupportedModelError(
            f"model '{model.name}' of class {type(model).__name__} has no symbolic inputs: "
            "verify() compares functional and Sequential models"
        )


def refuse_other_shapes(a: keras.Model, b: keras.Model) -> None:
    """Refuse models that cannot be compared.

    Raises:
        UnsupportedModelError: a model that is subclassed, or not built.
        FoldError: inputs or outputs of other number or shape, batch apart; of an output, a size
            that one model does not know is that of the other, until both have run.
    """
    for model in (a, b):
        require_inputs(model)
    for what in ("inputs", "outputs"):
        shapes = [[tuple(x.shape[1:]) for x in getattr(model, what)] for model in (a, b)]
        if len(shapes[0]) != len(shapes[1]) or not all(map(_FITS[what], *shapes)):
            raise FoldError(
                f"models '{a.name}' and '{b.name}' have {what} of different shapes: "
                f"{shapes[0]} and {shapes[1]}"
            )


def _may_be_one(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two shapes differ at most in what is known of them."""
    return len(a) == len(b) and all(m == n or None in (m, n) for m, n in zip(a, b, strict=True))


_FITS = {"inputs": operator.eq, "outputs": _may_be_one}


def _of_structure(what: str, a: Any, b: Any, matters: bool) -> Iterator[Difference]:
    if _outline(a) == _outline(b):
        return
    breaks = matters and _outline(tree.lists_to_tuples(a)) != _outline(tree.lists_to_tuples(b))
    first, second = (repr(_outline(x)).replace("'*'", "*") for x in (a, b))
    yield Difference(f"the {what} are {first} in the first and {second} in the second", breaks)


def _outline(structure: Any) -> Any:
    return tree.map_structure(lambda _: "*", structure)


def _of_places(
    what: str, a: list[Place], b: list[Place], names_matter: bool
) -> Iterator[Difference]:
    def differ(trait: str, first: Any, second: Any, breaks: bool) -> Difference:
        return Difference(
            f"{what} '{x.name}' {trait} {first} in the first and {second} in the second", breaks
        )

    for x, y in zip(a, b, strict=True):
        if x.dtype != y.dtype:
            yield differ("is", x.dtype, y.dtype, True)
        if x.shape[:1] != y.shape[:1]:
            first, second = (n or "free" for n in (x.shape[0], y.shape[0]))
            yield differ("has a batch that is", first, second, y.shape[0] is not None)
        if x.shape[1:] != y.shape[1:]:
            yield differ("has the shape", x.shape[1:], y.shape[1:], False)
        if not _alike(x, y):
            yield differ("is named", f"'{x.name}'", f"'{y.name}'", names_matter)


def _alike(a: Place, b: Place) -> bool:
    """Whether the second has the name of the first, if a person gave that."""
    same = a.name == b.name or (b.counted and _stem(a.name) == _stem(b.name))
    return a.counted or same


def inputs_of(model: keras.Model) -> list[Place]:
    """The inputs of a model, in flat order."""
    structure = input_structure(model)
    return _places(structure, [x.name for x in tree.flatten(structure)])


def outputs_of(model: keras.Model) -> list[Place]:
    """The outputs of a model, in flat order."""
    return _places(output_structure(model), output_names(model))


def _places(structure: Any, names: list[str]) -> list[Place]:
    found = []
    for (path, x), name in zip(tree.flatten_with_path(structure), names, strict=True):
        key = path[-1] if path and isinstance(path[-1], str) else None
        counted = key is None and _is_counted(name, made_by(x))
        found.append(Place(key or name, counted, x.dtype, tuple(x.shape)))
    return found


_NUMBER = re.compile(r"(_\d+)?(CLONE)*$")  # what Keras puts behind names that it makes up
_KINDS = {name.lower() for name in dir(keras.layers)} | {"input", "kerastensor", "inputlayer"}


def _stem(name: str) -> str:
    return _NUMBER.sub("", name, count=1).replace("_", "").lower()


def _is_counted(name: str, operation: keras.Operation) -> bool:
    """Whether a name is the class of its layer, or of any with a number, in Keras's spelling.

    A fold has outputs by their names in the original, whatever layer makes them.
    """
    own = _stem(name) == type(operation).__name__.lower()
    return own or (_stem(name) in _KINDS and not re.fullmatch("[a-z]+", name))
