"""Names that no layer of an emitted model has yet."""

from __future__ import annotations

from collections.abc import Collection

import keras

from kerasfold.read.model import made_by


class Names:
    """The names given out so far."""

    def __init__(self, taken: Collection[str], outer: Collection[str]) -> None:
        """Begin with those of a model's inputs.

        Args:
            taken: names in use.
            outer: names of the original's layers at the top, and of its outputs, which keep them;
                layers lifted out of nested models give way.
        """
        self.taken = set(taken)
        self.outer = outer

    def reserve(self, wanted: str, own: bool = False) -> str:
        """A legal name that nothing else has; its `own` name for a layer at the top."""
        name, count = wanted, 0
        while name in self.taken or (name in self.outer and not (own and name == wanted)):
            count += 1
            name = f"{wanted}_{count}"
        self.taken.add(name)
        return name

    def release(self, name: str) -> None:
        """Take back a name that is reserved and not needed."""
        self.taken.remove(name)

    def give(self, value: keras.KerasTensor, wanted: str) -> keras.KerasTensor:
        """The output of a `keras.ops` call, under a name that no layer of the model has."""
        return self.give_exactly(value, self.reserve(wanted))

    def give_exactly(self, value: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """The output of a `keras.ops` call, under a name that is reserved already."""
        made_by(value).name = name
        return value
