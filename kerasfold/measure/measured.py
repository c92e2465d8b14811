"""The "measured" objective: plans timed on a runtime, for what no model of it knows.

Each component of the affine part is planned by itself: a few ways to compute it, the original
among them, are built as models of their own, brought to the runtime and timed in turns, those
that may be the fastest over several deployments. A way that does part of the work of another, and
nothing else, is better without a clock. Components of equal geometry are timed once per process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasfold.compose import Compose, Once, OutOfRange
from kerasfold.cost import OBJECTIVES, Prices
from kerasfold.emit import emit
from kerasfold.errors import FoldError
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.measure.parts import part, readers_of
from kerasfold.measure.runtimes import (
    WRONG,
    Deploy,
    Run,
    check_runtime,
    deploy,
    deployer,
    difference,
    random_inputs,
)
from kerasfold.measure.stopwatch import timed
from kerasfold.measure.timing import Ratio, paired_seconds
from kerasfold.measure.tried import Attempt, Tried
from kerasfold.plan.choose import Plan, assembled
from kerasfold.plan.methods import auto
from kerasfold.plan.search import Search, total
from kerasfold.stages import at

Way = dict[int, AnyForm]  # forms of one component
Make = Callable[[], keras.Model]

EVERY = 512  # ways of a component up to which all of them are looked at
TIMED = 24  # ways of a component that are timed, those of least modelled cost
HOPELESS = 10.0  # modelled cost, in that of the best way, from which on none is timed
ROUNDS = 5  # of all ways that are timed
FINALISTS = 4  # ways that are timed again
DEPLOYMENTS = 8  # of each of those
FINAL_ROUNDS = 7  # of each deployment
WHOLE, FOLDED = "the model", "its fold"
CLOSE = 1.15  # time, in that of the fastest, up to which a way is timed again


@dataclass(frozen=True, slots=True)
class Choice:
    """What timing found.

    Attributes:
        position: of the way chosen.
        whole: whether all ways were there to choose from: time for them was left, and their
            weights had a dtype.
        attempts: what came of each way.
    """

    position: int
    whole: bool
    attempts: tuple[Attempt, ...]


class Measured(NamedTuple):
    """What measuring gives.

    Attributes:
        plan: the tensors to materialise.
        tried: of each part that there was a choice for, what was tried.
    """

    plan: Plan
    tried: tuple[Tried, ...]


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
    pinned: Collection[int] = (),
    prices: Prices | None = None,
) -> Measured:
    """Choose the tensors to materialise by timing.

    Args:
        regions: the lifted model.
        compose: gives the weights of a form, as for `emit`.
        runtime: a key of `kerasfold.measure.runtimes.RUNTIMES`.
        clock: no further component is timed once its time is over; what is left is planned for
            'latency', siblings apart and each component by itself, but for what was timed
            before, if it had any time.
            Components are timed in the order of their modelled cost.
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
    tried: list[Tried] = []
    for done, component in enumerate(components):
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
            attempts = () if known is None else known.attempts
            tried.append(Tried(runtime, _names(regions, component), attempts))
    plan = assembled(search, lambda component: chosen[component[0].index])
    return Measured(plan, tuple(tried))


def _names(regions: Regions, component: Sequence[Node]) -> tuple[str, ...]:
    """The calls of a component, in order."""
    calls = (regions.owner[node.index].call for node in component if node.index in regions.owner)
    return tuple(dict.fromkeys(call.name for call in calls))


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
    found = _deployed(own, ways, original, compose, runtime, clock, batch)
    positions = list(found.runs)
    seconds: dict[int, float] = {}
    gains: dict[int, Ratio] = {}

    def choice(position: int, whole: bool) -> Choice:
        attempts = tuple(
            Attempt(
                " + ".join(form.words(own) for form in way.values()),
                p == original,
                p == position,
                1e3 * seconds[p] if p in seconds else None,
                gains.get(p),
                found.notes.get(p, ""),
            )
            for p, way in enumerate(ways)
        )
        return Choice(position, whole, attempts)

    if not positions:
        # A part at these sizes is no verdict on the model: that is given on the whole of it.
        return choice(original or 0, whole=False)
    if len(positions) > FINALISTS:
        left = max(clock.left, 0.0)
        medians = np.median(paired_seconds(list(found.runs.values()), ROUNDS, left), axis=0)
        seconds = dict(zip(positions, medians.tolist(), strict=True))
        near = [i for i in np.argsort(medians) if medians[i] <= CLOSE * medians.min()]
        positions = [positions[i] for i in near[:FINALISTS]]
    if original in found.runs:  # the first: the others are held against it
        positions = [original, *(p for p in positions if p != original)]
    found.runs.clear()
    if len(positions) == 1:
        return choice(positions[0], found.whole)
    deploys = [found.deploys[p] for p in positions]
    times = timed(deploys, DEPLOYMENTS, FINAL_ROUNDS, seconds=max(clock.left, 0.0))
    ratios = {p: times.ratio(place) for place, p in enumerate(positions) if place}
    seconds |= {p: float(np.median(times.calls(place))) for place, p in enumerate(positions)}
    whole = found.whole and len(times.trials) == DEPLOYMENTS
    if positions[0] == original:
        gains |= ratios
        better = [p for p, found in ratios.items() if found.low > 1]
    else:
        better = [p for p, found in ratios.items() if found.median > 1]
    return choice(max(better, key=lambda p: ratios[p].median, default=positions[0]), whole)


@dataclass(slots=True)
class _Deployed:
    """Ways of a component on a runtime, by position.

    Attributes:
        deploys: deploy each once more.
        runs: a deployment of each.
        notes: why others are not there.
        whole: see `Choice`.
    """

    deploys: dict[int, Deploy] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    whole: bool = True


def _deployed(
    own: Regions,
    ways: Sequence[Way],
    original: int | None,
    compose: Compose,
    runtime: str,
    clock: Clock,
    batch: int,
) -> _Deployed:
    """The ways that a runtime takes, and computes rightly.

    Raises:
        OutOfRange: no way is there, the last one because of its weights.
    """
    found = _Deployed()
    held = Once(compose)
    refusal: FoldError | OutOfRange | None = None
    inputs: list[np.ndarray] | None = None
    expected: list[np.ndarray] | None = None
    # The original first: what there is time for is held against it.
    for tried, position in enumerate(sorted(range(len(ways)), key=lambda p: p != original)):
        if tried > 1 and clock.left < 0:
            found.whole = False
            found.notes[position] = "no time was left"
            continue

        def make(way: Way = ways[position]) -> keras.Model:
            return emit(own, way, held).model

        try:
            if inputs is None:
                inputs = random_inputs(make(), batch)
            deploy_again = deployer(make, runtime, inputs)
            run = deploy_again()
        except OutOfRange as error:
            found.whole = False
            refusal, found.notes[position] = error, "its weights would not fit their dtype"
            continue
        except FoldError as error:
            refusal, found.notes[position] = error, str(error)
            continue
        if expected is None:
            expected = _expected(make(), runtime, inputs)
        if difference(expected, run()) <= WRONG:  # a runtime may have defects
            found.deploys[position], found.runs[position] = deploy_again, run
        else:
            found.whole = False  # that may be these weights
            found.notes[position] = f"{runtime} computes it wrongly"
    if not found.runs and isinstance(refusal, OutOfRange):
        raise refusal
    return found


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
        is_better: whether the fold is right there, and not surely slower.
        tried: what came of both.
        milliseconds: that each takes, the original first; NaN where it was not timed.
    """

    is_better: bool
    tried: Tried
    milliseconds: tuple[float, float] = (np.nan, np.nan)


def timed_whole(
    folded: Make, original: Make, inputs: list[np.ndarray], runtime: str, seconds: float = np.inf
) -> Whole:
    """How long a folded model takes on a runtime, and its original, on so many images at once.

    It is no better where the runtime refuses it, or computes it, and not the original, wrongly, or
    where all of the interval is below 1.

    Args:
        folded: makes the one, for each deployment anew.
        original: makes the other.
        inputs: to run them on.
        runtime: where.
        seconds: by when to end, but for one deployment of each.
    """
    deploys = [deployer(make, runtime, inputs) for make in (original, folded)]
    runs = [deploys[0]()]
    try:
        runs.append(deploys[1]())
    except FoldError as error:
        return _no_better(runtime, str(error))
    outputs = [run() for run in runs]
    if not difference(*outputs) <= WRONG:
        expected = _expected(original(), runtime, inputs)
        own, its = (difference(expected, y) <= WRONG for y in outputs)
        if own and not its:
            return _no_better(runtime, f"{runtime} computes it wrongly")
    runs.clear()
    times = timed(deploys, DEPLOYMENTS, FINAL_ROUNDS, seconds=seconds)
    before, after = (1e3 * float(np.median(times.calls(subject))) for subject in (0, 1))
    gain = times.ratio(1)
    is_better = gain.high >= 1
    attempts = (
        Attempt(WHOLE, True, not is_better, before),
        Attempt(FOLDED, False, is_better, after, gain),
    )
    return Whole(is_better, Tried(runtime, (), attempts), (before, after))


def _no_better(runtime: str, why: str) -> Whole:
    """A fold that was not timed."""
    attempts = Attempt(WHOLE, is_original=True, taken=True), Attempt(FOLDED, note=why)
    return Whole(False, Tried(runtime, (), attempts))
