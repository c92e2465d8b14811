"""What random inputs are drawn of, as arrays in a file, and what draws them alike anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasfold.equivalence.domain import Domain
from kerasfold.equivalence.probes import Recipe

LEVELS = 256  # of which each is one, the sum of some of which is a number that is drawn
SUMMED = 12  # of variance LEVELS**2 / 12 each


class Lasting:
    """Draws, as `Stream` says, the same wherever and whenever it does.

    NumPy promises that of the whole numbers of RandomState, and arithmetic is IEEE 754's.
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def normal(self, *, size: Any) -> np.ndarray:
        """Numbers that are nearly normal, 0 +- 1: multiples of 1 / 512, up to 6 from 0."""
        total = sum(self._state.randint(0, LEVELS, size, "int64") for _ in range(SUMMED))
        return np.asarray((total - SUMMED * (LEVELS - 1) / 2) / LEVELS)

    def permutation(self, x: Any, /) -> np.ndarray:
        """Some values, or those below a number, in another order."""
        values = np.arange(x) if np.ndim(x) == 0 else np.asarray(x)
        keys = self._state.randint(0, 2**62, len(values), "int64")
        return values[np.argsort(keys, kind="stable")]

    def choice(self, a: Any, size: Any, /) -> np.ndarray:
        """So many of some values."""
        return np.asarray(a)[self._state.randint(0, len(a), size, "int64")]


@dataclass(frozen=True, eq=False, slots=True)
class Written:
    """Recipes as they are written.

    Attributes:
        words: a record of each, all that is no array, for JSON.
        arrays: by recipe, input, kind and number.
    """

    words: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, np.ndarray]


def written(recipes: Sequence[Recipe]) -> Written:
    """Recipes, as words and arrays."""
    words = [
        {
            "inputs": [
                {
                    "shape": domain.shape,
                    "dtype": domain.dtype,
                    "usual": len(domain.usual),
                    "choices": len(domain.choices),
                }
                for domain in recipe.inputs
            ],
            "lengths": recipe.lengths,
            "kinds": recipe.kinds,
            "loud": recipe.loud,
            "blank": recipe.blank,
        }
        for recipe in recipes
    ]
    arrays = {
        f"{kind}.{i}.{j}.{k}": array
        for i, recipe in enumerate(recipes)
        for j, domain in enumerate(recipe.inputs)
        for kind, k, array in _arrays(domain)
    }
    return Written(words, arrays)


def restored(stored: Written) -> list[Recipe]:
    """Recipes that were written; raises what the lack of a word or an array raises."""
    return [
        Recipe(
            inputs=[
                Domain(
                    tuple(words["shape"]),
                    words["dtype"],
                    usual=_pairs(stored, "centre", "unit", f"{i}.{j}", words["usual"]),
                    choices=_pairs(stored, "places", "values", f"{i}.{j}", words["choices"]),
                    blank=stored.arrays[f"blank.{i}.{j}.0"],
                )
                for j, words in enumerate(recipe["inputs"])
            ],
            lengths=recipe["lengths"],
            kinds=[(scale, shift) for scale, shift in recipe["kinds"]],
            loud=recipe["loud"],
            blank=recipe["blank"],
        )
        for i, recipe in enumerate(stored.words)
    ]


def _arrays(domain: Domain) -> Iterator[tuple[str, int, np.ndarray]]:
    """The arrays of an input, each by its kind and its number."""
    for k, (centre, unit) in enumerate(domain.usual):
        yield from (("centre", k, _short(centre)), ("unit", k, _short(unit)))
    for k, (places, values) in enumerate(domain.choices):
        yield from (("places", k, places), ("values", k, values))
    yield "blank", 0, _short(domain.blank)


def _short(array: np.ndarray) -> np.ndarray:
    """An array, or the one number that all of it is."""
    return array[0] if array.size and np.all(array == array[0]) else array


def _pairs(
    stored: Written, first: str, second: str, of: str, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    names = ((f"{first}.{of}.{k}", f"{second}.{of}.{k}") for k in range(count))
    return [(stored.arrays[x], stored.arrays[y]) for x, y in names]


__all__ = ["Lasting", "Written", "restored", "written"]
