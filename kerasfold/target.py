"""Where a fold will run, as it is told: at what prices to plan, and how to time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kerasfold.choices import RuntimeName
from kerasfold.cost import OBJECTIVES, Prices, objective_of
from kerasfold.errors import FoldError
from kerasfold.measure.measured import Clock
from kerasfold.measure.runtimes import check_runtime
from kerasfold.options import require_alone
from kerasfold.rooflines import ROOFLINES

HERE = "tensorflow"  # the runtime where none is named
BUDGET = 60.0  # seconds, where none are


@dataclass(frozen=True, slots=True)
class Target:
    """Where to time and at what prices to plan, and until when."""

    runtime: str
    prices: Prices
    clock: Clock


def target_of(
    objective: str,
    runtime: RuntimeName | None,
    batch_size: int | None,
    budget: float | None,
) -> Target:
    """How to measure, if that is the objective. Raises `FoldError`."""
    timed = objective_of(objective).is_timed
    if timed:
        check_runtime(HERE if runtime is None else runtime)
    else:
        require_alone("for objective='measured'", budget=budget)
    prices = prices_of(objective, runtime, batch_size)
    seconds = BUDGET if budget is None else budget
    if isinstance(seconds, bool) or not (isinstance(seconds, (int, float)) and seconds >= 0):
        raise FoldError(f"budget={budget!r}: expected a number of seconds, 0 or more")
    return Target(runtime or HERE, prices, Clock(seconds))


def prices_of(objective: str, runtime: RuntimeName | None, batch_size: int | None) -> Prices:
    """What steps cost where the fold will run. Raises `FoldError`."""
    aim = objective_of(objective)
    if not aim.careful:
        told = " or ".join(repr(name) for name, each in OBJECTIVES.items() if each.careful)
        require_alone(f"for objective={told}", runtime=runtime, batch_size=batch_size)
    priced: str | None = HERE if aim.is_timed and runtime is None else runtime
    if aim.is_timed and priced not in ROOFLINES:
        priced = None  # a runtime of the user's, which has no roofline
    return Prices.of(priced, batch_size)


def refuse_other_batch(model: Any, batch_size: int | None) -> None:
    """Refuse a batch that inputs of a model do not take. Raises `FoldError`."""
    inputs = getattr(model, "inputs", None)  # none of a subclass that is no graph
    for spec in () if batch_size is None else inputs or ():
        if spec.shape[0] not in (None, batch_size):
            raise FoldError(
                f"batch_size={batch_size}: input '{spec.name}' of model '{model.name}' takes "
                f"{spec.shape[0]} at once"
            )
