"""What two models are compared on, as a command is told."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import keras

from kerasfold.equivalence.stored import Stored, read_data
from kerasfold.stages import at


def given(args: argparse.Namespace, model: keras.Model, stage: str) -> dict[str, Any]:
    """The inputs, or their sizes, as `kerasfold.verify` takes them.

    Args:
        args: of a command that `add_data` was given.
        model: the reference.
        stage: what goes on while the inputs are read, in words.
    """
    if args.data is not None:
        return {"data": _counted(read_data(args.data, model, args.labels, args.input_shape), stage)}
    return {} if args.input_shape is None else {"input_shape": args.input_shape}


def _counted(data: Stored, stage: str) -> Iterator[Any]:
    """Batches of data, each of whose inputs is counted when the next is asked for."""
    done = 0
    for batch in data:
        yield batch
        done += len(batch[0][0])
        at(stage, done, data.inputs, "inputs")
