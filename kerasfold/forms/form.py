"""What every way to compute a node has in common.

A form is added in a file of its own, and as a row of `kerasfold.forms.ways.FORMS`. It says when
it applies and what it costs (`propose`), composes its weights, makes its layers out of what
`kerasfold.layers.build.Builder` offers, and has the words that a report needs and the work that
'measured' compares by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost
from kerasfold.layers.spelling import written
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from typing import Self

    from kerasfold.forms.known import Known
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


class Composed(ABC):
    """The weights of a form, composed in float64."""

    @property
    @abstractmethod
    def operators(self) -> Iterable[Operator]:
        """All of them: none may overflow what it is stored in."""

    def of(self, read: int) -> Operator:
        """The convolution of one node that is read, of those that have a role."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Nothing(Composed):
    """No weights."""

    operators: tuple[()] = ()


C = TypeVar("C", bound=Composed)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Form(ABC, Generic[C]):
    """A way to compute one materialised node from those it reads.

    Attributes:
        name: of the way, one word.
        node: the node.
        reads: the nodes or roots that are read. With each goes the geometry of what is applied
            to it, for the report: of a form that has a border, that of the interior. None is
            the identity.
        visited: nodes composed into it, `node` the last.
        cost: its cost.
        refusal: why the whole of it is not one operator, or "".
        constants: numbers that it holds and that are no weights to Keras.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Trait]] = frozenset()  # of steps: one of these, if any are here
    bars: ClassVar[frozenset[Trait]] = frozenset()  # of steps: none of these
    is_whole: ClassVar[bool] = False  # one operator: why there is none is the planner's answer
    is_last_resort: ClassVar[bool] = False  # tried only where a row before it said so

    node: int
    reads: Mapping[int, Geometry | None]
    visited: tuple[int, ...]
    cost: Cost
    refusal: str = ""
    constants: int = 0

    @classmethod
    def may_be_of(cls, traits: frozenset[Trait]) -> bool:
        """Whether steps of such traits may be computed so.

        If not, `propose` gives nothing, and is not asked, as it is of thousands of sets of steps.
        """
        return not cls.bars & traits and (not cls.needs or bool(cls.needs & traits))

    @classmethod
    @abstractmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Self | None:
        """This form of a node, or None where it does not apply.

        Args:
            known: the program, and what is known of it so far.
            index: the node.
            visited: the nodes to compose for it, in order, itself the last.

        Raises:
            Refused: it would not be exact.
        """

    @abstractmethod
    def compose(self, nodes: Sequence[Node]) -> C:
        """The weights, read and composed now.

        Args:
            nodes: the program's.

        Raises:
            Refused: the composition of the sizes was accepted, and that of the weights is not.
        """

    @abstractmethod
    def emit(self, build: Builder, composed: C, xs: Mapping[int, Value]) -> Value:
        """The node as a Keras tensor, made of fresh layers.

        Args:
            build: makes the layers. What they are named after, and the activation to apply, its
                `result` gives; it is asked once, before any other name is reserved.
            composed: the weights.
            xs: the tensors that are read, by node.
        """

    def complete(self) -> AnyForm:
        """The form with all that its weights, as stored, leave out: what is to be exact."""
        return self

    @abstractmethod
    def words(self, regions: Regions) -> str:
        """The layers that the node became, for the report."""

    @property
    def aside(self) -> str:
        """What else the report is to say, or ""."""
        return ""

    def work(self, nodes: Sequence[Node]) -> Counter[Hashable]:
        """What it computes: one item for each operator, sum or copy with its sizes.

        A form whose work is part of another's is the faster one without a clock. What is said
        here by default is comparable with nothing but itself.
        """
        return Counter({(type(self).__name__, self.node, self.visited): 1})

    @property
    def roles(self) -> Mapping[int, Hashable]:
        """What `emit` calls the convolutions that it makes of what is read, by node that is."""
        return {}

    @property
    def source(self) -> int:
        """The one node or root that is read."""
        (read,) = self.reads
        return read


def activated(build: Builder, linear: Callable[[str], Value]) -> Value:
    """What `linear` makes under a name, and behind it the activation of the result, if any."""
    name, activation = build.result()
    if activation is None:
        return linear(name)
    return build.activated(linear(build.names.reserve(f"{name}_linear")), activation, name)


def work_of(node: Node) -> Hashable:
    """What one node computes, with its sizes."""
    if node.geometry is not None:
        return work_of_operator(node.geometry), node.weightless
    return (node.op, node.sizes, node.channels, len(node.operands)), node.weightless


def work_of_operator(geometry: Geometry) -> Geometry:
    """An operator as a layer computes it; its bias is free."""
    return replace(written(geometry), biased=False, steady=True)


AnyForm: TypeAlias = Form[Any]
