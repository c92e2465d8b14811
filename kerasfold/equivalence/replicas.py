"""A comparison spread over the devices of a `tf.distribute` strategy, and over its workers.

Each device runs whole batches in turn, on float64 copies of its own; each worker process has its
own share of the data. What is kept of outputs merges, so that all workers come to one verdict, on
all of the data. Keras 3 trains under no strategy of several workers, but nothing is trained here:
models are run, and what was seen is gathered, which works under MultiWorkerMirroredStrategy too.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from kerasfold.backend import name
from kerasfold.equivalence.compare import Comparison
from kerasfold.equivalence.runs import Arrays
from kerasfold.equivalence.seen import Seen
from kerasfold.errors import FoldError, words_of

KNOWN = ("OneDeviceStrategy", "MirroredStrategy", "MultiWorkerMirroredStrategy")
WORD = 8  # bytes of the numbers that TensorFlow gathers


class Counts(Protocol):
    """What is counted of two models' outputs."""

    def merge(self, other: Self) -> None:
        """Take in what another counted."""


C = TypeVar("C", bound=Counts)


class Replicas:
    """The devices of a strategy in this process, and its other workers.

    Attributes:
        devices: of this process.
        workers: how many processes there are.
    """

    def __init__(self, strategy: Any) -> None:
        """Take a strategy as it is; its scope need not be entered.

        Raises:
            FoldError: what is no such strategy, or another backend than TensorFlow's.
        """
        if name() != "tensorflow":
            raise FoldError(
                f"strategy= takes a tf.distribute strategy, which Keras's backend '{name()}' has "
                "not: verify parts of the data, or use the tensorflow backend"
            )
        import tensorflow as tf

        kinds: Any = tuple(getattr(tf.distribute, known) for known in KNOWN)
        if not isinstance(strategy, kinds):
            raise FoldError(
                f"strategy of class {type(strategy).__name__}: models are compared under "
                f"{', '.join(KNOWN[:-1])} and {KNOWN[-1]}"
            )
        self.strategy: Any = strategy
        self.devices = tuple(self.strategy.extended.worker_devices)
        self.workers = self.strategy.num_replicas_in_sync // len(self.devices)

    def __str__(self) -> str:
        replicas = f"{len(self.devices) * self.workers} replicas"
        return replicas if self.workers == 1 else f"{replicas} in {self.workers} workers"

    def compared(
        self,
        build: Callable[[Any], Comparison],
        batches: Iterable[Any],
        saw: Callable[[Arrays, Arrays], None],
        counts: C,
    ) -> tuple[Comparison, C]:
        """Compare on all batches, those of the other workers too.

        Args:
            build: makes a comparison that has not run, given the first batch.
            batches: of this worker.
            saw: told what both models give on each batch, in their order.
            counts: what it counts.

        Returns:
            A comparison that has seen all of it, and the counts of all of it.

        Raises:
            FoldError: also where another worker failed.
        """
        try:
            found = self._here(build, iter(batches), saw)
        except Exception as error:
            if self.workers > 1:  # which wait for this one
                self._exchanged(words_of(error))
            raise
        if self.workers == 1:
            return found, counts
        said = self._exchanged((found.seen, counts))
        for index, each in enumerate(said):
            if isinstance(each, str):
                raise FoldError(f"worker {index} of {self.workers} failed ({each})")
        first, *others = (counted for _, counted in said)
        for counted in others:
            first.merge(counted)
        found.take(_merged(seen for seen, _ in said))
        return found, first

    def _here(
        self,
        build: Callable[[Any], Comparison],
        batches: Iterator[Any],
        saw: Callable[[Arrays, Arrays], None],
    ) -> Comparison:
        """Compare on the batches of this worker, as many at a time as it has devices."""
        import tensorflow as tf

        first = next(batches)
        comparisons = []
        for device in self.devices:
            with tf.device(device):
                comparison = build(first)
            comparison.places = [device.rpartition("device:")[2].lower()]
            comparisons.append(comparison)

        def run(device: str, comparison: Comparison, batch: Any) -> list[tuple[Arrays, Arrays]]:
            gave: list[tuple[Arrays, Arrays]] = []
            with tf.device(device):
                comparison.run([batch], lambda a, b: gave.append((a, b)))
            return gave

        # What weights are held at goes along into their threads.
        contexts = [copy_context() for _ in self.devices]
        batches = itertools.chain([first], batches)
        with ThreadPoolExecutor(len(self.devices)) as threads:
            while share := list(itertools.islice(batches, len(self.devices))):
                turns = contexts, self.devices, comparisons, share
                for gave in threads.map(lambda context, *turn: context.run(run, *turn), *turns):
                    for a, b in gave:  # in the order of the data
                        saw(a, b)
        found = comparisons[0]
        found.places = [place for each in comparisons for place in each.places]
        found.take(_merged(each.seen for each in comparisons))
        return found

    def _exchanged(self, mine: Any) -> list[Any]:
        """What every worker has to say, in their order.

        Pickled: the workers of a cluster of TensorFlow's run whatever they are sent in any case.
        """
        import tensorflow as tf

        message = pickle.dumps(mine)
        padded = message + bytes(-len(message) % WORD)
        rest = self._gathered(np.concatenate([[len(message)], np.frombuffer(padded, "int64")]))
        with contextlib.suppress(tf.errors.OpError):  # none leaves before all have heard
            self._gathered(np.zeros(1, "int64"))
        said = []
        while len(rest):
            length, rest = int(rest[0]), rest[1:]
            end = -(-length // WORD)
            said.append(pickle.loads(rest[:end].tobytes()[:length]))
            rest = rest[end:]
        return said

    def _gathered(self, words: np.ndarray) -> np.ndarray:
        """The numbers of all workers, in their order; of each, one replica has them."""
        import tensorflow as tf

        def of_replica(context: Any) -> Any:
            speaks = context.replica_id_in_sync_group % len(self.devices) == 0
            return tf.constant(words if speaks else words[:0], "int64")

        values = self.strategy.experimental_distribute_values_from_function(of_replica)
        return self.strategy.gather(values, axis=0).numpy()


def _merged(several: Iterable[Seen]) -> Seen:
    """What all have seen; the first takes it in."""
    first, *others = several
    for each in others:
        first.merge(each)
    return first
