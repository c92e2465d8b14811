"""SavedModels: only those are loaded whose graph computes, and does nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasfold.errors import FoldError
from kerasfold.paths import SAVED_MODEL

# Operations with an effect or a state of their own that a model needs, and that reach nothing
# outside of it: variables, tables, random numbers, control flow, recurrence on a GPU.
_KNOWN = re.compile(
    r"(?:VarHandle|DestroyResource|(?:Assign(?:Add|Sub)?|Read)Variable|VarIsInitialized)Op|"
    r"VariableShape|DisableCopyOnRead|Resource(?:Gather|Scatter)\w*|"
    r"(?:Anonymous)?(?:Mutable)?(?:Dense)?HashTable(?:OfTensors)?(?:V2)?|"
    r"LookupTable(?:Find|Import|Insert|Remove|Size|Export)V2|InitializeTableV2|"
    r"TensorArray\w*|Stack(?:Push|Pop|Close)?V2|Empty|DeepCopy|"
    r"Random\w+|Stateful(?:Uniform|StandardNormal|TruncatedNormal|RandomBinomial)\w*|"
    r"StatelessRandomGetAlg|RngReadAndSkip|TruncatedNormal|ParameterizedTruncatedNormal|"
    r"Multinomial|SampleDistortedBoundingBox(?:V2)?|"
    r"StatefulPartitionedCall|If|While|Case|Assert|CheckNumerics(?:V2)?|CudnnRNNV?\d?|"
    r"XlaCallModule"
)
_NOT_KNOWN = re.compile(r"RandomDataset\w*")
# Those without that still run code, or read or write files.
_OUTSIDE = re.compile(
    r"PyFuncStateless|ReadFile|MatchingFiles|ImmutableConst|InitializeTableFromTextFile|"
    r"GenerateVocabRemapping|"
    r"Debug\w+|\w*Dataset\w*|\w*Summary\w*|TPU\w+"
)
# What the functions that save and restore a model are made of, which nothing here calls.
_CHECKPOINT = {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}


def served(path: str) -> tuple[Any, Any]:
    """The function that a SavedModel serves.

    Its graph is searched first, for operations that run code (`PyFunc`), read or write files, or
    that TensorFlow does not know: loading a SavedModel runs parts of it.

    Returns:
        The concrete function of its signature 'serving_default', or of the only one; and what
        must live as long as that does.

    Raises:
        FoldError: there is such an operation, or no such signature.
        Exception: it cannot be read.
    """
    import tensorflow as tf

    _refuse_effects(_graph(Path(path)))
    loaded = tf.saved_model.load(path)
    functions = dict(loaded.signatures)
    function = functions.get("serving_default")
    if function is None and len(functions) == 1:
        (function,) = functions.values()
    if function is None:
        raise FoldError(f"its signatures are {sorted(functions)}, none of them 'serving_default'")
    return function, loaded


def _graph(path: Path) -> Any:
    """The only graph in a SavedModel, as the loader of TensorFlow 2 takes it."""
    from tensorflow.core.protobuf import saved_model_pb2

    if path.joinpath("saved_model.cpb").exists():
        raise FoldError("it is split into several files, which are not searched for code")
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.joinpath(SAVED_MODEL).read_bytes())
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        raise FoldError("it is none that TensorFlow 2 wrote: export the model again")
    return saved.meta_graphs[0]


def _refuse_effects(graph: Any) -> None:
    """Refuse a graph that does more than compute. Raises `FoldError`."""
    from tensorflow.python.framework import op_def_registry

    functions = {f.signature.name: f.node_def for f in graph.graph_def.library.function}
    called = _called(functions, set(graph.object_graph_def.concrete_functions))
    for name, nodes in (("", graph.graph_def.node), *functions.items()):
        for node in nodes:
            kind = op_def_registry.get(node.op)
            if kind is None and node.op not in functions:
                raise FoldError(f"it has the operation {node.op}, which TensorFlow does not know")
            if node.op in _CHECKPOINT and name and name not in called:
                continue
            if reaches_outside(node.op, kind is not None and kind.is_stateful):
                raise FoldError(
                    f"it has the operation {node.op} ('{node.name}'), which may run code or reach "
                    "files: nothing of it is loaded"
                )


def reaches_outside(operation: str, stateful: bool) -> bool:
    """Whether an operation, which TensorFlow calls stateful or not, may do more than compute."""
    known = _KNOWN.fullmatch(operation) and not _NOT_KNOWN.fullmatch(operation)
    return bool((stateful and not known) or _OUTSIDE.fullmatch(operation))


def _called(functions: dict[str, Any], roots: set[str]) -> set[str]:
    """Functions that may run: those of the model's objects, and all that these call."""
    found, new = set(roots), set(roots)
    while new:
        nodes = [node for name in new for node in functions.get(name, ())]
        new = {name for node in nodes for name in (node.op, *_handed(node.attr))} - found
        found |= new
    return found


def _handed(attributes: Any) -> Iterator[str]:
    """Names of functions among attributes, to any depth."""
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            yield function.name
            yield from _handed(function.attr)
