"""The state that recurrent layers are compared in, whatever batches they have seen."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import keras
import numpy as np

from kerasfold.backend import held
from kerasfold.read.model import recurrent_states

STEPS = 128  # of a drawn number, either side of 0


def restarted(models: Iterable[keras.Model], drawn: bool) -> AbstractContextManager[None]:
    """A scope in which stateful recurrent layers go on from the same state in all models.

    No model file holds it. From zeros, a recurrent kernel shows in a batch of several steps alone:
    hence values between -1 and 1, which depend on nothing but their place in a layer and their
    shape, so that it needs no telling which layer stands for which.

    Args:
        models: their states are left as they are.
        drawn: whether to start from such values; else from zeros, as after `reset_state()`.
    """
    starts = [
        (state, _start(index, tuple(state.shape)) * drawn)
        for model in models
        for states in recurrent_states(model)
        for index, state in enumerate(states)
    ]
    return held(
        (state for state, _ in starts),
        (keras.ops.convert_to_tensor(start, dtype=state.dtype) for state, start in starts),
    )


def _start(index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which NumPy promises that they are drawn again as they are."""
    stream = np.random.RandomState([index, *shape])
    return stream.randint(-STEPS, STEPS + 1, shape) / STEPS
