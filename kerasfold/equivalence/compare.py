"""Two models, run on one batch after another, and what is kept of it.

There are two questions, because float32 noise and a wrong fold must not be confusable:

1. *Same function?* Both models in float64, on random inputs. A fold still holds its
   unrounded weights, so both sides agree to 1e-10 of the output's spread or the fold is wrong.
   Two stored models have been rounded; there the bound is a small multiple of the change
   that rounding noise of half a unit in the last place makes, measured on those models.
2. *As accurate?* Both models as they are, each against the float64 truth.

Noise is measured on those batches alone whose differences are more than float64's arithmetic.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.backend import device, devices, on
from kerasfold.equivalence.bounds import (
    DOUBLE,
    SINGLE,
    accuracy_bound,
    beyond_bound,
    coarsest_dtype,
    computed_eps,
    difference_bound,
    eps_of,
    interpolation_unit,
    noise_bound,
    rebuilt_bound,
    stored_eps,
)
from kerasfold.equivalence.noise import Noise, moves_in_steps
from kerasfold.equivalence.outgrown import DOUBLES, in_range, without_outgrown
from kerasfold.equivalence.probes import probes
from kerasfold.equivalence.runs import (
    Arrays,
    AsIs,
    Ran,
    Runner,
    Truth,
    Walk,
    as_is,
    excused,
    real,
)
from kerasfold.equivalence.seen import Seen, Shown, Within, larger
from kerasfold.equivalence.steps import paired
from kerasfold.equivalence.tally import LARGEST, Lines, Tally, distances, fewer_finite
from kerasfold.equivalence.tolerance import Errors, Tolerance
from kerasfold.errors import FoldError, words_of
from kerasfold.read.model import layout_of, operations, output_labels, sublayers

Copy: TypeAlias = Walk | AsIs

# Of noise, where it leaves a difference: an output that hangs on one unit moves with its error, of
# which one draw may be next to nothing.
DRAWS = 4
FAR = 1e3  # times its bound, that a difference is whatever else were drawn
FEW = 1e-3  # of its scale, that the spread of an output may be as long as one input is known


@dataclass(kw_only=True)
class Comparison:
    """A reference and another model, in float64 and as they are.

    Attributes:
        a: the reference.
        b: the other.
        a64: the reference in float64, whose outputs are the truth; or what was kept of them.
        b64: the other in float64; None where it has no such copy, or where it is held against a
            tolerance alone.
        rounded: whether weights of `b64` may be roundings of what comes of those of `a64`.
        tolerance: what a user allows, in place of what is measured.
        drawn: whether inputs are drawn: a size that the reference does not take is passed over.
        kinds: of samples that come in turn: see `Tally`.
        tallies: what is kept, by output.
        within: by step that both copies have, what is kept of what goes into it.
        shows: by output, the batch that shows a difference in float64 best.
        shows_own: the same of either's error in its own dtype.
        other_shape: which output has another shape, or at what size there is none, or "".
        shapes: of the inputs, without the batch, that both ran on.
        places: the devices that both are compared on, as they are; first the usual one.
    """

    a: keras.Model
    b: Runner
    a64: Truth
    b64: Copy | None
    rounded: bool
    tolerance: Tolerance | None = None
    drawn: bool = False
    kinds: int = 1
    tallies: list[Tally] = field(default_factory=list)
    within: list[Within] = field(default_factory=list)
    shows: list[Shown] = field(default_factory=list)
    shows_own: list[Shown] = field(default_factory=list)
    other_shape: str = ""
    shapes: dict[tuple[tuple[int, ...], ...], None] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = tallies_of(self.a, self.b64 is None, self.kinds)
        steps, theirs = self.a64.steps, [] if self.b64 is None else self.b64.steps
        self.within = [
            Within(
                *(steps[i], i, j, Tally(name=steps[i].words, shape=steps[i].shape, pixels=())),
                other="" if theirs[j].words == steps[i].words else theirs[j].words,
            )
            for i, j in paired(steps, theirs)
        ]
        self.shows = [Shown() for _ in self.tallies]
        self.shows_own = [Shown() for _ in self.tallies]
        self.places = devices() if isinstance(self.b, (AsIs, Walk)) else devices()[:1]

    @cached_property
    def dtype(self) -> str:
        """The coarsest float dtype that the copies compute in."""
        return coarsest_dtype([copy.model for copy in self._copies])

    @property
    def dtype_unit(self) -> float:
        """The unit of rounding of that dtype."""
        return eps_of(self.dtype)

    @cached_property
    def unit(self) -> float:
        """The unit of rounding of the copies; interpolation may round to float32 all the same."""
        return max(self.dtype_unit, *(interpolation_unit(x.operations) for x in self._copies))

    @property
    def own_unit(self) -> float:
        """The same, of the models as they are, or of their truth."""
        models = [self.a, self.b.model] if isinstance(self.b, Copy) else [self.a]
        return max(self.unit, *(interpolation_unit(operations(x)) for x in models))

    @cached_property
    def noise(self) -> Noise:
        """That of the first question."""
        stored = [self.a, self.b.model] if isinstance(self.b, Copy) else [self.a]
        weights = max(map(stored_eps, stored)) if self.rounded else self.unit
        return Noise(max(weights, self.unit), self.unit)

    @cached_property
    def own_eps(self) -> float:
        """Unit of rounding of what the reference computes in."""
        return computed_eps(self.a)

    @cached_property
    def endings(self) -> list[str]:
        """The softmax or sigmoid that each output ends in alike in both copies, or ""."""
        theirs = [""] * len(self.tallies) if self.b64 is None else self.b64.ends
        return [x if x == y else "" for x, y in zip(self.a64.ends, theirs, strict=True)]

    @property
    def described(self) -> list[keras.Model]:
        """The models whose copies are made of what they say; that of a fold is made with it."""
        found = [self.a] if isinstance(self.a64, Walk) else []
        if self.rounded and isinstance(self.b64, Walk) and isinstance(self.b, Copy):
            found.append(self.b.model)
        return found

    @property
    def _copies(self) -> list[Copy]:
        return [copy for copy in (self.a64, self.b64) if isinstance(copy, Copy)]

    @property
    def reference(self) -> Runner:
        """What runs the reference as it is."""
        return as_is(self.a)

    def run(
        self,
        batches: Iterable[Any],
        saw: Callable[[Arrays, Arrays], None] | None = None,
        blank: Iterable[int] = (),
    ) -> None:
        """Run everything on some batches, and take in what it gives.

        Args:
            batches: as the reference takes them.
            saw: told what both models give, as they are, on each batch.
            blank: of how many of the last samples of each the reference may make NaN, of which
                nothing is asked then.

        Raises:
            FoldError: a model that does not run here.
        """
        own = self.reference
        for batch, last in zip(batches, itertools.chain(blank, itertools.repeat(0)), strict=False):
            others = self.drawn and self.tallies[0].number > 0  # sizes at which both did run
            try:
                mine = outputs(own, batch)
            except FoldError:
                if others:
                    continue
                raise
            exact = ran(self.a64, batch)
            try:
                theirs = outputs(self.b, batch)
                other = None if self.b64 is None else ran(self.b64, batch)
            except FoldError as error:
                if not others and not self._takes_its_own():
                    raise
                shapes = [x.shape for x in tree.flatten(batch)]
                self.other_shape = f"the first model takes inputs of shape {shapes}, but {error}"
                return
            self.other_shape = self._other_shape(exact.outputs, theirs)
            if self.other_shape:
                return
            mine, theirs = (excused(each, exact.outputs, last) for each in (mine, theirs))
            self.shapes[tuple(np.shape(x)[1:] for x in tree.flatten(batch))] = None
            self._take_finite(batch, exact, other and other.excused(exact, last))
            self._take_own(batch, exact, mine, theirs)
            if saw is not None:
                saw(mine, theirs)
            self._take_elsewhere(own, batch, exact)

    def _takes_its_own(self) -> bool:
        """Whether the other runs here at all: then it refuses what it is asked alone."""
        if not self.drawn or not isinstance(self.b, Copy):
            return False
        try:
            outputs(self.b, next(iter(probes(self.b.model))))
        except FoldError:
            return False
        return True

    def _take_elsewhere(self, own: Runner, batch: Any, exact: Ran) -> None:
        """The second question again, on every other device that the reference runs on."""
        for place in self.places[1:]:
            with on(place):
                try:
                    mine = outputs(own, batch)
                except FoldError:
                    self.places.remove(place)
                    continue
                self._take_own(batch, exact, mine, outputs(self.b, batch))

    @property
    def seen(self) -> Seen:
        """What the verdict needs."""
        reached = self.a64.units if isinstance(self.a64, Walk) else None
        shows = self.shows, self.shows_own
        return Seen(self.tallies, self.within, *shows, reached, self.unit, self.other_shape)

    def take(self, seen: Seen) -> None:
        """Go by what was seen elsewhere too."""
        self.tallies, self.within = seen.tallies, seen.within
        self.shows, self.shows_own = seen.shows, seen.shows_own
        self.unit, self.other_shape = seen.unit, seen.other_shape
        if isinstance(self.a64, Walk) and seen.reached is not None:
            self.a64.units = seen.reached

    def run_copies(self, batches: Iterable[Any]) -> None:
        """Ask the first question alone, on batches so large that a step within may overflow.

        What does not stay finite on the way says nothing there: a softmax that is written out
        takes exponentials of what Keras's own first makes small.

        Raises:
            FoldError: a copy that does not run here.
        """
        for batch in batches:
            exact = ran(self.a64, batch)
            plain = other = None if self.b64 is None else ran(self.b64, batch)
            if other is not None:
                for tally, x, y in zip(self.tallies, exact.outputs, other.outputs, strict=True):
                    tally.saw_overflow(x, y)
                other = other.where_finite(exact).where_told(exact, self.a64.ends)
            self._take_copies(batch, exact, other, plain)

    def shown_own(self, tally: Tally) -> Any:
        """The batch that shows best that an output is computed wrongly in its own dtype."""
        return self.shows_own[self.tallies.index(tally)].batch

    def _take_finite(self, batch: Any, exact: Ran, other: Ran | None) -> None:
        """Take in what the copies gave, but what an overflow on the way has made of it."""
        told = exact
        if other is not None:
            told, other = in_range(self.a64, batch, exact, other)
        for tally, x, y in zip(self.tallies, exact.outputs, told.outputs, strict=True):
            tally.overflowed += 0 if x is y else fewer_finite(x, y)
        self._take_copies(batch, told, other)

    def _take_copies(
        self, batch: Any, exact: Ran, other: Ran | None, plain: Ran | None = None
    ) -> None:
        """Take in what the copies gave; `plain` of the other, where that is left out of it."""
        truths = exact.judged_where(self.endings)
        values = [None] * len(truths) if other is None else other.judged_where(self.endings)
        doubt = False
        for i, (tally, x, y) in enumerate(zip(self.tallies, truths, values, strict=True)):
            error = tally.saw_copies(x, y)
            worst = np.max(np.atleast_2d(error), axis=0)  # of all kinds
            self.shows[i] = larger(self.shows[i], worst, tally.line_scale, batch)
            doubt = doubt or self._is_doubtful(tally, error)
        if other is not None and other.stepped:
            for each in self.within:
                error = each.saw(exact, other)
                doubt = doubt or self._is_doubtful(each.tally, error)
        if self.b64 is None or other is None or not doubt:
            return
        if not self.rounded and self.unit <= DOUBLE and self._rounds_to_single(batch, exact):
            self.unit = SINGLE
            vars(self).pop("noise", None)  # of the unit before, if it was asked for
        for draw in range(DRAWS):
            for copy, gave in ((self.a64, exact), (self.b64, plain or other)):
                self.take_noise(copy, batch, gave, draw)
                tallies = (*self.tallies, *(each.tally for each in self.within))
                beyond = max(beyond_bound(t, self.unit) for t in tallies)
                if beyond <= 1:
                    return  # as a rule, noise moves both alike
            if beyond > FAR:
                return

    def _is_doubtful(self, tally: Tally, error: Lines) -> bool:
        """Whether a difference is more than is explained before noise is measured on its batch."""
        sure = difference_bound(tally, self.unit)
        if not tally.varies:  # what noise does is known of one input, too
            sure = np.maximum(FEW * sure, noise_bound(tally))
        return bool(np.any(error > sure))

    def _take_own(self, batch: Any, exact: Ran, mine: Arrays, theirs: Arrays) -> None:
        share = 0.0 if self.tolerance is None else self.tolerance.rtol
        most = LARGEST.get(coarsest_dtype([self.a]), DOUBLES)
        told, theirs = without_outgrown(self.a64, batch, most, mine, theirs)
        for tally, x, y in zip(self.tallies, mine, told, strict=True):
            tally.astray += 0 if x is y else fewer_finite(x, y)
        columns = zip(self.tallies, exact.outputs, told, theirs, strict=True)
        doubt = False
        for i, (tally, truth, x, y) in enumerate(columns):
            error = tally.saw_own(truth, x, y, share)
            self.shows_own[i] = larger(self.shows_own[i], error, tally.output_scale, batch)
            late = tally.other_error > accuracy_bound(tally, self.own_unit)
            off = tally.own_error > rebuilt_bound(tally, self.own_eps)
            doubt = doubt or bool(np.any(off if self.tolerance is not None else late | off))
        if doubt:
            self.take_own_noise(batch, exact)

    def take_noise(self, copy: Truth, batch: Any, plain: Ran, draw: int = 0) -> None:
        """What noise makes of what a copy gave; of several, which."""
        noisy = copy.ran(batch, replace(self.noise, draw=draw))
        pair = (each.judged_where(self.endings) for each in (plain, noisy))
        for tally, x, y in zip(self.tallies, *pair, strict=True):
            tally.saw_noise(x, y)
        is_first = copy is self.a64
        for each in [x for x in self.within if is_first or x.fits] if plain.stepped else ():
            number = each.mine if is_first else each.theirs
            each.tally.saw_noise(plain.stepped[number][0], noisy.stepped[number][0])

    def take_own_noise(self, batch: Any, exact: Ran) -> None:
        """What that of the reference's own dtype makes of the truth."""
        noisy = self.a64.ran(batch, Noise(self.own_eps, self.own_eps))
        for tally, x, y in zip(self.tallies, exact.outputs, noisy.outputs, strict=True):
            tally.saw_own_noise(x, y)

    def _rounds_to_single(self, batch: Any, exact: Ran) -> bool:
        """Whether some operation rounds to float32 whatever it is given, as interpolation does."""

        def moved(eps: float, draw: int) -> list[float]:
            noisy = self.a64.ran(batch, Noise(eps, 0.0, draw))
            pairs = zip(exact.judged, noisy.judged, strict=True)
            return [
                float(np.max(distances(y, x), initial=0.0, where=np.isfinite(x))) for x, y in pairs
            ]

        sizes = [float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x))) for x in exact.judged]
        draws = (functools.partial(moved, draw=draw) for draw in range(DRAWS))
        return any(moves_in_steps(draw, sizes) for draw in draws)

    def _other_shape(self, exact: Arrays, theirs: Arrays) -> str:
        for tally, x, y in zip(self.tallies, exact, theirs, strict=True):
            if x.shape != y.shape:
                return (
                    f"output '{tally.name}' has shape {x.shape[1:]} in one, {y.shape[1:]} in the "
                    "other"
                )
        return ""


def tallies_of(model: keras.Model, alone: bool = False, kinds: int = 1) -> list[Tally]:
    """Of each output of a model, before anything was run.

    Args:
        model: the reference.
        alone: whether the other model has no float64 copy, and its own errors are all there is.
        kinds: of samples: see `Tally`.
    """
    first = 2 if layout_of(sublayers(model)) == "channels_first" else 1
    return [
        Tally(
            name=name,
            shape=tuple(y.shape),
            pixels=tuple(range(first, first + len(y.shape) - 2)),
            kinds=kinds,
            errors=Errors() if alone else None,
        )
        for name, y in zip(output_labels(model), tree.flatten(model.outputs), strict=True)
    ]


def ran(copy: Truth, batch: Any) -> Ran:
    """Run a copy that may not run here. Raises `FoldError`."""
    try:
        return copy.ran(batch)
    except Exception as error:
        raise _does_not_run(copy.name, error) from error


def outputs(model: Runner, batch: Any) -> Arrays:
    """Run a model that may not run here; outputs are at least vectors. Raises `FoldError`."""
    try:
        return [real(y) for y in model(batch)]
    except FoldError:
        raise
    except Exception as error:
        raise _does_not_run(model.name, error) from error


def _does_not_run(name: str, error: Exception) -> FoldError:
    return FoldError(
        f"model '{name}' does not run on {device()}, where it was to be compared "
        f"({words_of(error)}): give the size of one it runs on as input_shape=, or inputs as "
        "data=, or compare where it does run (a fold that is made with verify=False)"
    )
