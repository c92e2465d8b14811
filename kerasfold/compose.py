"""The weights of forms: exact, or about to be rounded to a dtype that must hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from kerasfold.algebra.operator import Operator
from kerasfold.forms.form import AnyForm, Composed
from kerasfold.lift.regions import Regions
from kerasfold.read.weights import largest, smallest

Compose: TypeAlias = Callable[[AnyForm], Composed]  # what the form's own `compose` gives


class OutOfRange(Exception):
    """Composed weights that the dtype they will be stored or used in cannot hold."""

    def __init__(self, nodes: set[int]) -> None:
        self.nodes = nodes


def exact(regions: Regions) -> Compose:
    """Composes forms, in float64."""
    return lambda form: form.compose(regions.program.nodes)


def fitting(regions: Regions) -> Compose:
    """Composes forms whose weights are about to be rounded to what their layers store.

    It raises `OutOfRange` where that dtype does not hold them: where they overflow, or all
    numbers of a kernel are too small to keep their digits.
    """

    def compose(form: AnyForm) -> Composed:
        with np.errstate(over="ignore", invalid="ignore"):
            composed = form.compose(regions.program.nodes)
        dtype = regions.lifted[form.node].tensor.dtype
        if not all(_fits(operator, dtype) for operator in composed.operators):
            merged = {i for i in form.visited if i in regions.lifted and i != form.node}
            raise OutOfRange(merged or {form.node})
        return composed

    return compose


def _fits(operator: Operator, dtype: str) -> bool:
    arrays = [operator.kernel, operator.bias, operator.ones]
    tops = [
        0.0 if a is None else float(max(np.max(a, initial=0.0), -np.min(a, initial=0.0)))
        for a in arrays
    ]
    return all(top <= largest(dtype) for top in tops) and not 0.0 < tops[0] < smallest(dtype)


class Once:
    """Composes each form once, and holds its weights until they are handed over."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.known: dict[AnyForm, Composed] = {}

    def __call__(self, form: AnyForm) -> Composed:
        """The weights of a form, held for whoever asks next."""
        if form not in self.known:
            self.known[form] = self.compose(form)
        return self.known[form]

    def handed_over(self, form: AnyForm) -> Composed:
        """The same, held no longer."""
        composed = self(form)
        del self.known[form]
        return composed
