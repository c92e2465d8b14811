"""Memory that a comparison needs at least, and whether there is as much."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

from kerasfold.errors import FoldError

NUMBER = 8  # bytes of one in float64
HELD = 2  # of all samples and of the largest tensor, at the least: what is made, and of what
_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")  # of a container that has a limit of its own


def require_room(name: str, shapes: Sequence[tuple[int, ...]], samples: int, largest: int) -> None:
    """Refuse a comparison that would fill the memory, before it does.

    Args:
        name: of the model.
        shapes: of its inputs, without the batch.
        samples: how many are drawn of them at a time, at least.
        largest: numbers in the model's largest tensor, of one sample.

    Raises:
        FoldError: naming the inputs, what they need and what is free.
    """
    inputs = sum(map(math.prod, shapes))
    needed = NUMBER * HELD * (samples * inputs + max(largest, inputs))
    free = free_bytes()
    if needed > free:
        sizes = ", ".join(map(str, shapes))
        raise FoldError(
            f"to compare '{name}' in float64 on {samples} inputs of shape {sizes}, with tensors of "
            f"up to {largest:,} numbers, takes {needed / 2**30:,.0f} GiB of memory at least, and "
            f"{free / 2**30:,.1f} GiB are free: give one or two inputs as data=, or smaller ones "
            "as input_shape= where sizes are free; a fold can go without (verify=False)"
        )


def free_bytes() -> float:
    """Memory that this process may still take; infinite where the system does not say."""
    free = math.inf
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
        free = 1024.0 * int(lines["MemAvailable"].split()[0])
    with contextlib.suppress(OSError, ValueError, KeyError):  # 'max' is no limit
        most, now = (int(_GROUP.joinpath(f"memory.{x}").read_text()) for x in ("max", "current"))
        used = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        cached = sum(int(used[f"{kind}_file"]) for kind in ("active", "inactive"))
        free = min(free, most - now + cached)  # files that were read make way
    return free
