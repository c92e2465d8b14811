"""Fresh copies of layers and operations."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import keras

from kerasfold.backend import by_default, unfilled
from kerasfold.errors import UnsupportedModelError, words_of
from kerasfold.quiet import unsaid
from kerasfold.read.calling import called
from kerasfold.read.model import is_layer, is_of_keras, sublayers, variables_of
from kerasfold.read.states import copy_state, started
from kerasfold.read.told import said_by

T = TypeVar("T")
_Make: TypeAlias = Callable[[keras.Operation, str, "str | None"], keras.Operation]


class NeverRan(UnsupportedModelError):
    """A layer that has none of its weights before it runs, and never ran."""


class _Shares(UnsupportedModelError):
    """A layer whose copy holds what is the original's."""


def _at_dtype(config: Any, dtype: str | None) -> Any:
    """A layer config with every floating dtype in it replaced by `dtype`, unless that is None."""
    if dtype is None:
        return config
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" and _is_float_policy(value) else _at_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_at_dtype(value, dtype) for value in config)
    return config


def _is_float_policy(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("config", {}).get("name", "")
    return isinstance(value, str) and "float" in value


def copy_operation(operation: keras.Operation, name: str, dtype: str | None) -> keras.Operation:
    """A fresh, unbuilt copy of a layer or operation, under another name.

    Args:
        operation: the original; it is not touched.
        name: name of the copy.
        dtype: dtype policy of the copy, or None for the original's.

    Raises:
        UnsupportedModelError: the config does not rebuild the layer.
    """
    return _first(operation, dtype, lambda make: make(operation, name, dtype))


def called_copy(
    operation: keras.Operation,
    name: str,
    dtype: str | None,
    args: Any,
    kwargs: Any,
    settings: Mapping[str, Any] = MappingProxyType({}),
    gives: keras.KerasTensor | None = None,
) -> tuple[keras.Operation, Any]:
    """A copy of a layer or operation that has been called, with the state of its original.

    Args:
        operation: the original; it is not touched.
        name: name of the copy.
        dtype: dtype policy of the copy, or None for the original's.
        args: what it is called on.
        kwargs: the same.
        settings: attributes that it has otherwise than its original.
        gives: what the original gives where it is called so, if that is one tensor and known: a
            copy with the same settings is not traced to find out.

    Returns:
        The copy, and what it gives.

    Raises:
        UnsupportedModelError: the config does not rebuild the layer, or what it rebuilds does not
            run, or has other weights.
    """

    def made(make: _Make) -> tuple[keras.Operation, Any]:
        fresh = make(operation, name, dtype)
        for attribute, value in settings.items():
            setattr(fresh, attribute, value)
        with (
            started(operation, fresh) as starts,
            _giving(operation, fresh, gives),
            unfilled(),
            unsaid(),  # the original gave its own warnings
        ):
            result = called(fresh, *args, **kwargs)
            if not (is_of_keras(operation) or _is_built(operation)):
                _refuse_one_that_never_ran(operation, make(operation, name, dtype), args, kwargs)
            if not _is_built(fresh):
                _build_alike(operation, fresh)
            _refuse_shared(operation, fresh)  # with what it made when it was called
        # Others than Keras's own may do more to their weights than to build them.
        asked = {n for n, start in starts.items() if start.was_asked and is_of_keras(fresh)}
        copy_state(operation, fresh, {id(getattr(fresh, name)) for name in asked})
        return fresh, result

    return _first(operation, dtype, made)


def _is_built(operation: keras.Operation) -> bool:
    """Whether what a layer holds is there, down to the innermost."""
    return not is_layer(operation) or all(layer.built for layer in sublayers(operation))


def _build_alike(source: keras.Layer, target: keras.Layer) -> None:
    """Build what a copy holds where that is built in its original, as when it first runs alone."""
    tried: set[int] = set()
    while True:  # to build one may make others
        pairs = zip(sublayers(source), sublayers(target), strict=False)
        waiting = ((x, y) for x, y in pairs if x.built and not y.built and id(y) not in tried)
        pair = next(waiting, None)
        if pair is None:
            return
        old, new = pair
        tried.add(id(new))
        config = old.get_build_config()
        if config is not None and type(old) is type(new):
            with contextlib.suppress(Exception):  # it has too few weights then, which is said
                new.build_from_config(config)


def _refuse_one_that_never_ran(
    source: keras.Layer, spare: keras.Operation, args: Any, kwargs: Any
) -> None:
    """Refuse a layer that will have more weights once it has run.

    Args:
        source: a layer that holds what is not built.
        spare: a copy that nobody uses, to see what it makes when it runs on zeros.
        args: what it is called on, with symbolic tensors.
        kwargs: the same.

    Raises:
        NeverRan: such a layer.
    """

    def zeros(x: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            return x
        return keras.ops.zeros([1 if n is None else n for n in x.shape], x.dtype)

    with contextlib.suppress(Exception):
        args, kwargs = keras.tree.map_structure(zeros, (args, kwargs))
        spare(*args, **kwargs)
    if len(spare.weights) > len(source.weights):
        raise NeverRan(
            f"layer '{source.name}' of class {type(source).__name__} has {len(source.weights)} "
            f"weights, and {len(spare.weights)} once it has run: call the model on inputs once, "
            "and load or train its weights, before it is folded"
        )


@contextlib.contextmanager
def _giving(
    source: keras.Operation, target: keras.Operation, given: keras.KerasTensor | None
) -> Iterator[None]:
    """Let a copy say what its original gives, if that is known, where it is like its original.

    Args:
        source: the original.
        target: its copy, to be built and called meanwhile.
        given: what the original gives where it is called so.
    """

    def told(*args: Any, **kwargs: Any) -> Any:
        alike = is_of_keras(target) or said_by(source) == said_by(target)
        return given if alike else type(target).compute_output_spec(target, *args, **kwargs)

    if given is None or not is_layer(target):
        yield
        return
    vars(target)["compute_output_spec"] = told
    try:
        yield
    finally:
        del vars(target)["compute_output_spec"]


def _first(operation: keras.Operation, dtype: str | None, use: Callable[[_Make], T]) -> T:
    """What `use` gives of the first way to make a copy that serves.

    Args:
        operation: the original.
        dtype: dtype policy of the copy, or None for the original's.
        use: makes a copy and what else there is to make, in the way it is given.
    """
    with _as_held(operation, dtype):
        try:
            with unsaid():  # the original gave its own warnings
                return use(_of_config)
        except (NeverRan, _Shares):  # no other way mends it
            raise
        except Exception as error:
            failure = error
        for way in (_of_config_and_functions, _of_arguments):
            try:
                return use(way)
            except Exception:
                pass  # the config is what its author promised, so its failure is told
    kind = type(operation).__name__
    if not is_layer(operation):
        raise UnsupportedModelError(
            f"the operation '{operation.name}' ({kind}) cannot be written into another model "
            f"({words_of(failure)}): put it into a layer"
        ) from failure
    raise UnsupportedModelError(
        f"layer '{operation.name}' of class {kind} cannot be rebuilt from its config "
        f"({words_of(failure)}){_missing(operation)}: give it a get_config() that returns every "
        "argument of its __init__"
    ) from failure


@contextlib.contextmanager
def _as_held(operation: keras.Operation, dtype: str | None) -> Iterator[None]:
    """Meanwhile layers that are told no dtype have that of those that the original holds.

    No config says theirs: they had what was the default when it was made.
    """
    names = [dtype]
    if dtype is None and is_layer(operation) and not is_of_keras(operation):
        policies = [layer.dtype_policy for layer in sublayers(operation) if layer is not operation]
        names = [p.name for p in policies if type(p) is keras.DTypePolicy]
    ((most, _),) = Counter(names).most_common(1) or [(None, 0)]
    with contextlib.nullcontext() if most is None else by_default(most):
        yield


def _of_config(
    operation: keras.Operation,
    name: str,
    dtype: str | None,
    functions: Mapping[str, Any] = MappingProxyType({}),
) -> keras.Operation:
    """From its config; with functions in place of what that says of them, which may be nothing."""
    if type(operation) is keras.layers.Lambda:
        fresh: Any = keras.layers.Lambda(
            operation.function,
            operation._output_shape,
            operation.mask,
            operation.arguments,
            dtype=dtype or operation.dtype_policy,
            trainable=operation.trainable,
        )
    else:
        if is_of_keras(operation):
            functions = _functions(operation)
        config = _at_dtype({**operation.get_config(), **functions}, dtype)
        if "name" in config:
            config = {**config, "name": name}
        if dtype is None and is_layer(operation) and is_of_keras(operation):
            config = _with_policy(config, operation)
        fresh = type(operation).from_config(config)
        _refuse_shared(operation, fresh)
    fresh.name = name
    return fresh


def _with_policy(config: dict[str, Any], layer: keras.Layer) -> dict[str, Any]:
    """A layer's config with its dtype policy, if that is what is written there: at no parsing.

    A class without a `get_config` of its own, as ELU, has for its config what it was made with,
    which must be plain values then.
    """
    policy, written = layer.dtype_policy, config.get("dtype")
    same = isinstance(written, dict) and written.get("config") == {"name": policy.name}
    says_own = type(layer).get_config is not keras.Layer.get_config
    if not (same and says_own and type(policy) is keras.DTypePolicy):
        return config
    return {**config, "dtype": policy}


def _refuse_shared(source: keras.Operation, target: keras.Operation) -> None:
    """Refuse a copy that holds a layer or a variable of its original: to train one changes both.

    Raises:
        _Shares: such a copy.
    """
    if not is_layer(source) or is_of_keras(source):
        return
    own, copied = ({id(x): x for x in (*sublayers(y), *variables_of(y))} for y in (source, target))
    shared = [x for key, x in own.items() if key in copied]
    if not shared:
        return
    what = f"{'layer' if is_layer(shared[0]) else 'weight'} '{shared[0].name}'"
    raise _Shares(
        f"layer '{source.name}' of class {type(source).__name__} cannot be copied: what is made of "
        f"its config holds the very {what} that it holds, by which to train one changes the other: "
        "let get_config() give keras.saving.serialize_keras_object(layer), which from_config() "
        "gives to keras.saving.deserialize_keras_object(), and no weight at all"
    )


def _functions(operation: keras.Operation) -> dict[str, Any]:
    """The activations of a layer that are functions: no config holds a lambda."""
    names = [name for name in ("activation", "recurrent_activation") if hasattr(operation, name)]
    values = {name: getattr(operation, name) for name in names}
    return {name: value for name, value in values.items() if inspect.isfunction(value)}


def _of_config_and_functions(
    operation: keras.Operation, name: str, dtype: str | None
) -> keras.Operation:
    """From its config, but for the activations in it: that of a layer of others need not be one."""
    config = operation.get_config()
    functions = {key: value for key, value in _functions(operation).items() if key in config}
    if not functions:
        raise LookupError("no function in its config")
    return _of_config(operation, name, dtype, functions)


def _of_arguments(operation: keras.Operation, name: str, dtype: str | None) -> keras.Operation:
    """From what the constructor was called with, which Keras keeps where it is plain values."""
    if getattr(operation, "_auto_config", None) is None:
        raise LookupError("not all of its arguments are plain values")
    fresh = type(operation)(**_at_dtype(operation._auto_config.config, dtype))
    fresh.name = name
    return fresh


def _missing(operation: keras.Operation) -> str:
    """Which arguments of the constructor a config lacks, in words."""
    try:
        config = operation.get_config()
    except Exception:  # which the failure is about
        return ""
    needed = [
        name
        for name, parameter in inspect.signature(type(operation).__init__).parameters.items()
        if name != "self"
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in config
    ]
    return f", which lacks {', '.join(map(repr, needed))}" if needed else ""
