"""A lifted model -> its graph before and after a fold: which calls became which step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from keras import tree

from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.lift.regions import Lifted, Regions
from kerasfold.plots.steps import Flow, Step
from kerasfold.read.graph import Call, Graph, Tensor


def flow_of(regions: Regions, forms: Mapping[int, AnyForm]) -> Flow:
    """The graph of a lifted model before and after a fold.

    Args:
        regions: the lifted model.
        forms: of each node that is materialised, how.
    """
    return Flow(_before(_original(regions.graph)), _After(regions).steps_of(forms))


def _original(graph: Graph) -> Graph:
    """With the calls that are equal to others, of which nothing is left."""
    return graph.original or graph


def _inputs(graph: Graph) -> list[Step]:
    return [Step(layer.name, type(layer).__name__) for layer in graph.input_layers]


def _first(graph: Graph) -> dict[int, int]:
    """The position of each input, by tensor."""
    return {x.index: place for place, x in enumerate(tree.flatten(graph.inputs))}


def _unique(places: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(places))


def _before(graph: Graph) -> tuple[Step, ...]:
    steps, made = _inputs(graph), _first(graph)
    for call in graph.calls:
        reads = _unique(made[x.index] for x in call.inputs)
        made |= dict.fromkeys([x.index for x in call.outputs], len(steps))
        steps.append(Step(call.name, type(call.operation).__name__, reads))
    return tuple(steps)


class _After:
    """Walks a plan as it is emitted, and notes which step makes what."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.steps = [
            replace(step, calls=(place,)) for place, step in enumerate(_inputs(regions.graph))
        ]
        self.places = {  # of the calls
            call.outputs[0].index: place
            for place, call in enumerate(_original(regions.graph).calls, len(self.steps))
        }
        self.tensors = _first(regions.graph)
        self.nodes: dict[int, int] = {}

    def steps_of(self, forms: Mapping[int, AnyForm]) -> tuple[Step, ...]:
        lifted: dict[int, list[Lifted]] = defaultdict(list)
        for node in forms:
            lifted[self.regions.lifted[node].call.index].append(self.regions.lifted[node])
        for call in self.regions.graph.calls:
            if call.index in self.regions.barriers:
                self._keep(call, type(call.operation).__name__)
            for x in lifted[call.index]:
                form = forms[x.node]
                if isinstance(form, Kept):
                    self._keep(call, form.words(self.regions))
                else:
                    self._merge(x, form)
                self.nodes[x.node] = self.tensors[x.tensor.index]
        return tuple(self.steps)

    def _keep(self, call: Call, kind: str) -> None:
        """A call as it is, one step for all of its outputs."""
        if call.outputs[0].index in self.tensors:
            return
        reads = _unique(map(self._tensor, call.inputs))
        self.tensors |= dict.fromkeys([x.index for x in call.outputs], len(self.steps))
        self.steps.append(Step(call.name, kind, reads, self._calls([call])))

    def _merge(self, lifted: Lifted, form: AnyForm) -> None:
        owner = self.regions.owner
        calls = self._calls(owner[i].call for i in form.visited)
        self.tensors[lifted.tensor.index] = len(self.steps)
        reads = _unique(map(self._node, form.reads))
        self.steps.append(Step(lifted.call.name, form.words(self.regions), reads, calls))

    def _calls(self, calls: Iterable[Call]) -> tuple[int, ...]:
        """The positions of calls, of those that the original has."""
        made = (part.outputs[0].index for call in calls for part in call.parts)
        return _unique(self.places[index] for index in made if index in self.places)

    def _tensor(self, tensor: Tensor) -> int:
        if tensor.index in self.tensors:
            return self.tensors[tensor.index]
        return self._node(self.regions.tensors[tensor.index])

    def _node(self, node: int) -> int:
        return self.nodes[node] if node in self.nodes else self._tensor(self.regions.roots[node])
