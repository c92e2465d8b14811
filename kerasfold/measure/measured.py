"""The "measured" objective: plans timed on a runtime, for what no model of it knows.

Each component of the affine part is planned by itself: a few ways to compute it, the original
among them, are built as models of their own, brought to the runtime and timed in turns. A way
that does part of the work of another, and nothing else, is better without a clock. Components
of equal geometry are timed once per process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kerasfold.compose import Compose, OutOfRange
from kerasfold.cost import OBJECTIVES, Prices
from kerasfold.emit import emit
from kerasfold.errors import FoldError
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.measure.parts import part, readers_of
from kerasfold.measure.runtimes import WRONG, check_runtime, deploy, difference, random_inputs
from kerasfold.measure.timing import paired_seconds, ratio
from kerasfold.plan.choose import Plan, assembled
from kerasfold.plan.methods import auto
from kerasfold.plan.search import Search, total
from kerasfold.stages import at

Way = dict[int, AnyForm]  # forms of one component

EVERY = 512  # ways of a component up to which all of them are looked at
TIMED = 24  # ways of a component that are timed, those of least modelled cost
HOPELESS = 10.0  # modelled cost, in that of the best way, from which on none is timed
ROUNDS = 5  # of all ways that are timed
FINALISTS = 4  # ways that are timed again
FINAL_ROUNDS = 21
CLOSE = 1.15  # time, in that of the fastest, up to which a way is timed again


@dataclass(frozen=True, slots=True)
class Choice:
    """What timing found.

    Attributes:
        position: of the way chosen.
        whole: whether all ways were there to choose from: time for them was left, and their
            weights had a dtype.
    """

    position: int
    whole: bool


_CACHE: dict[Any, Choice] = {}  # by runtime and geometry


@dataclass(slots=True)
class Clock:
    """A time budget.

    Attributes:
        seconds: of the whole.
        start: when it began: now.
    """

    seconds: float
    start: float = field(default_factory=lambda: time.perf_counter())

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.start + self.seconds - time.perf_counter()


def measured_plan(
    regions: Regions,
    compose: Compose,
    runtime: str,
    clock: Clock,
    progress: bool = False,
    pinned: Collection[int] = (),
    prices: Prices | None = None,
) -> Plan:
    """Choose the tensors to materialise by timing.

    Args:
        regions: the lifted model.
        compose: gives the weights of a form, as for `emit`.
        runtime: a key of `kerasfold.measure.runtimes.RUNTIMES`.
        clock: no further component is timed once its time is over; what is left is planned for
            'latency', siblings apart and each component by itself, but for what was timed
            before, if it had any time.
            Components are timed in the order of their modelled cost.
        progress: whether to draw a progress bar on stderr.
        pinned: nodes that must be materialised.
        prices: of steps there, by which ways are found, at the batch that they are timed at.

    Raises:
        FoldError: a runtime that is unknown, lacks a package, or refuses the model.
    """
    check_runtime(runtime)
    search = Search(regions, OBJECTIVES["measured"], frozenset(pinned), prices)
    components = sorted(
        regions.components(), key=lambda c: -total(search.original(c).values()).total_seconds
    )
    readers, batch = readers_of(regions.graph), search.known.prices.batch
    chosen: dict[int, Way] = {}
    for done, component in enumerate(_with_bar(components, runtime, progress)):
        at(f"measuring on {runtime}", done, len(components), "parts")
        ways = candidates(search, component) if clock.left > 0 or _CACHE else []
        chosen[component[0].index] = ways[0] if len(ways) == 1 else auto(search, component)
        if len(ways) > 1:
            own = part(regions, component, readers)
            key = (
                runtime,
                batch,
                _signature(own, component, search.pinned),
                _told(component, ways),
            )
            known = _CACHE.get(key)
            if (known is None or not known.whole) and clock.left > 0:
                known = _CACHE[key] = _fastest(own, ways, compose, runtime, clock, batch)
            if known is not None:
                chosen[component[0].index] = ways[known.position]
    return assembled(search, lambda component: chosen[component[0].index])


def candidates(search: Search, component: Sequence[Node]) -> list[Way]:
    """Ways to compute a component that may be the fastest; the cheapest as modelled first.

    The original is among them, unless another does part of its work and nothing else.
    """
    original = search.original(component)
    ways = [auto(search, component), original]
    few = 2 ** len(search.optional(component)) <= EVERY
    every = list(search.every(component, EVERY + 1)) if few else []
    if few and len(every) <= EVERY:
        ways += every
    else:
        others = [name for name, aim in OBJECTIVES.items() if aim.key is not search.key]
        ways += [_under(search, component, objective) for objective in others]
    ways.sort(key=lambda way: search.total(way))
    numbers: dict[Any, int] = {}
    works = [_work(search.regions, way, numbers) for way in ways]
    kept: list[int] = []
    for i, work in enumerate(works):
        if not any(works[j] <= work for j in kept):
            kept = [j for j in kept if not work <= works[j]] + [i]
    best = search.total(ways[0])[0]
    likely = [i for i in kept if search.total(ways[i])[0] <= HOPELESS * best][:TIMED]
    own = _work(search.regions, original, numbers)
    likely += [i for i in kept if works[i] == own and i not in likely]
    return [ways[i] for i in likely]


def _under(search: Search, component: Sequence[Node], objective: str) -> Way:
    """The way that another objective chooses."""
    other = Search(search.regions, OBJECTIVES[objective], search.pinned, search.known.prices)
    other.known = search.known
    return auto(other, component)


def _work(regions: Regions, way: Way, numbers: dict[Hashable, int]) -> Counter[int]:
    """What a way computes, each item by number."""
    work: Counter[Hashable] = Counter()
    for form in way.values():
        work += form.work(regions.program.nodes)
    return Counter({numbers.setdefault(k, len(numbers)): n for k, n in work.items()})


def _signature(regions: Regions, component: Sequence[Node], pinned: Collection[int]) -> Any:
    """Equal for components, each with its `part`, that are timed alike."""
    places: dict[int, int] = {}
    rows: list[Any] = [regions.graph.layout]
    rows += [type(c.operation) for c in regions.graph.calls if c.index in regions.barriers]
    for node in component:
        reads = tuple(places.setdefault(o, len(places)) for o in node.operands)
        owner = regions.owner[node.index]
        layer = owner.call.operation
        rows.append(
            (
                *(node.op, node.geometry, node.sizes, node.channels, node.factors, reads),
                *(node.work, node.mean),
                tuple(regions.roots[o].dtype for o in node.operands if o in regions.roots),
                *(type(layer), owner.node == node.index, node.index in regions.sinks),
                node.index in pinned,
                getattr(layer, "compute_dtype", ""),
                getattr(owner.activation, "__name__", type(owner.activation)),
            )
        )
        places.setdefault(node.index, len(places))
    return tuple(rows)


def _told(component: Sequence[Node], ways: Sequence[Way]) -> Hashable:
    """What ways there are to choose from: forms may depend on weights, and not on sizes alone."""
    places = {node.index: place for place, node in enumerate(component)}
    return tuple(
        tuple((type(f), places[f.node], tuple(places[i] for i in f.visited)) for f in way.values())
        for way in ways
    )


def _fastest(
    own: Regions, ways: Sequence[Way], compose: Compose, runtime: str, clock: Clock, batch: int
) -> Choice:
    """The fastest way; the original, where it is as fast as any."""
    original = next(
        (p for p, way in enumerate(ways) if all(isinstance(f, Kept) for f in way.values())), None
    )
    runs: dict[int, Callable[[], Any]] = {}
    whole = True
    refusal: FoldError | OutOfRange | None = None
    inputs: list[np.ndarray] | None = None
    expected: list[np.ndarray] | None = None
    # The original first: what there is time for is held against it.
    for tried, position in enumerate(sorted(range(len(ways)), key=lambda p: p != original)):
        if tried > 1 and clock.left < 0:
            whole = False
            break
        try:
            model = emit(own, ways[position], compose).model
            inputs = random_inputs(model, batch) if inputs is None else inputs
            run = deploy(model, runtime, inputs)
        except (FoldError, OutOfRange) as error:
            whole = whole and not isinstance(error, OutOfRange)
            refusal = error
            continue
        if expected is None:
            expected = _expected(model, runtime, inputs)
        if difference(expected, run()) <= WRONG:  # a runtime may have defects
            runs[position] = run
        else:
            whole = False  # that may be these weights
    if not runs:
        if isinstance(refusal, OutOfRange):
            raise refusal
        # A part at these sizes is no verdict on the model: that is given on the whole of it.
        return Choice(original or 0, whole=False)
    positions = list(runs)
    if len(positions) > FINALISTS:
        left = max(clock.left, 0.0)
        seconds = np.median(paired_seconds(list(runs.values()), ROUNDS, left), axis=0)
        near = [i for i in np.argsort(seconds) if seconds[i] <= CLOSE * seconds.min()]
        positions = [positions[i] for i in near[:FINALISTS]]
    if original in runs and original not in positions:
        positions.append(original)
    if len(positions) == 1:
        return Choice(positions[0], whole)
    times = paired_seconds([runs[p] for p in positions], FINAL_ROUNDS, max(clock.left, 0.0))
    whole = whole and len(times) == FINAL_ROUNDS
    best = int(np.argmin(np.median(times, axis=0)))
    if original in positions:
        against = times[:, positions.index(original)]
        if positions[best] != original and ratio(against, times[:, best]).low <= 1:
            return Choice(original, whole)
    return Choice(positions[best], whole)


def _expected(model: keras.Model, runtime: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What a model computes: where TensorFlow cannot say, as it does for some, on the runtime."""
    try:
        return deploy(model, "tensorflow", inputs)()
    except FoldError:
        return deploy(model, runtime, inputs)()


@dataclass(frozen=True, slots=True)
class Whole:
    """A model and what it was folded to, each as a whole, on a runtime.

    Attributes:
        is_better: whether the fold is right there, and surely no slower.
        seconds: that each takes, the original first; NaN where it was not timed.
    """

    is_better: bool
    seconds: tuple[float, float] = (np.nan, np.nan)


def timed_whole(
    folded: keras.Model,
    model: keras.Model,
    runtime: str,
    seconds: float = np.inf,
    batch: int = 1,
) -> Whole:
    """How long a folded model takes on a runtime, and its original, on so many images at once.

    It is no better where the runtime refuses it, or computes it, and not the original, wrongly.
    After so many seconds no further round of timing begins.
    """
    inputs = random_inputs(model, batch)
    runs = [deploy(model, runtime, inputs)]
    try:
        runs.append(deploy(folded, runtime, inputs))
    except FoldError:
        return Whole(is_better=False)
    outputs = [run() for run in runs]
    if not difference(*outputs) <= WRONG:
        expected = _expected(model, runtime, inputs)
        own, its = (difference(expected, y) <= WRONG for y in outputs)
        if own and not its:
            return Whole(is_better=False)
    times = paired_seconds(runs, FINAL_ROUNDS, seconds)
    before, after = np.median(times, axis=0).tolist()
    return Whole(ratio(times[:, 0], times[:, 1]).high >= 1, (before, after))


def _with_bar(components: Sequence[Any], runtime: str, progress: bool) -> Iterator[Any]:
    if not progress:
        return iter(components)
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(components, f"measuring on {runtime}", console=console, transient=True))
