"""Reports as JSON, and back: one walk over the types of their fields, and a schema made by it."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.errors import FoldError
from kerasfold.reports.record import Record

R = TypeVar("R", bound=Record)

VERSION = 1  # of the schema: one more where a field goes, or means something else
_LEFT_OUT = ("models", "shown")  # what holds models, or arrays
# What is said beside the fields, of those that have it.
_COMPUTED: dict[type, dict[str, type]] = {EquivalenceReport: {"equivalent": bool}}
_KINDS: dict[Any, Any] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: ["number", "null"],  # null where it is not finite
}


def plain(report: Record) -> dict[str, Any]:
    """A report as values that JSON has, with the version of the schema that they follow."""
    return {"schema": VERSION, **_plain(report)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = [*_COMPUTED.get(type(value), ()), *_fields(type(value))]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fields(kind: Any) -> dict[str, Any]:
    """The types of the fields that are stored, by name."""
    hints = typing.get_type_hints(kind)
    names = (f.name for f in dataclasses.fields(kind) if f.name not in _LEFT_OUT)
    return {name: hints[name] for name in names}


def restored(kind: type[R], values: Any) -> R:
    """A report of a kind, of what `plain` gave.

    Raises:
        FoldError: it is none, or of another schema.
    """
    found = values.get("schema") if isinstance(values, Mapping) else None
    if found != VERSION:
        raise FoldError(
            f"a report of schema {found!r}, and this kerasfold reads {VERSION}: install the "
            "version of kerasfold that wrote it"
        )
    try:
        report: R = _restored(kind, values)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise FoldError(f"no report that follows schema {VERSION} ({error!r})") from error
    return report


def _restored(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        known = _fields(kind).items()
        return kind(**{name: _restored(t, value[name]) for name, t in known if name in value})
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (kind,) = (option for option in options if option is not type(None))
        return None if value is None else _restored(kind, value)
    if typing.get_origin(kind) is tuple:
        of = options[:1] * len(value) if options[1:] == (...,) else options
        return tuple(_restored(t, item) for t, item in zip(of, value, strict=True))
    if kind is float:
        return math.inf if value is None else float(value)
    if kind in _KINDS and type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def schema(kind: type[Record]) -> dict[str, Any]:
    """The JSON Schema of what `plain` gives of reports of a kind (draft 2020-12)."""
    defined: dict[str, Any] = {}
    whole = _schema_of(kind, defined)
    body = defined.pop(whole["$ref"].rpartition("/")[2])
    body["properties"] = {"schema": {"const": VERSION}, **body["properties"]}
    body["required"] = ["schema", *body["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"kerasfold report, version {VERSION}",
        **body,
        "$defs": defined,
    }


def _schema_of(kind: Any, defined: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        if kind.__name__ not in defined:
            defined[kind.__name__] = {}
            defined[kind.__name__] = _object(kind, defined)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    options = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema_of(option, defined) for option in options]}
    if origin is Literal:
        return {"enum": list(options)}
    if origin is tuple and options[1:] == (...,):
        return {"type": "array", "items": _schema_of(options[0], defined)}
    if origin is tuple:
        items = [_schema_of(option, defined) for option in options]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    return {"type": "null" if kind is type(None) else _KINDS[kind]}


def _object(kind: type, defined: dict[str, Any]) -> dict[str, Any]:
    fields = {**_COMPUTED.get(kind, {}), **_fields(kind)}
    said = _attributes(kind)
    properties = {name: _schema_of(hint, defined) for name, hint in fields.items()}
    for name in said.keys() & properties.keys():
        properties[name]["description"] = said[name]
    about = (inspect.getdoc(kind) or "").partition("\n")[0]
    return {
        "description": about,
        "type": "object",
        "properties": properties,
        "required": list(fields),
        "additionalProperties": False,
    }


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each attribute."""
    _, _, said = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", said, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
