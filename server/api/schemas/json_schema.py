"""JSON Schemas from clients: whether they are schemas at all. Whether one can be enforced, the worker finds out.

Bodies are no deeper than 100 levels, so the recursion here ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.api.schemas.wire import invalid

_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def check_schema(value: Any) -> Any:
    """Refuse what is no JSON Schema, naming the keyword that is wrong, and references that lead elsewhere."""
    _check(value, "")
    return value


def _check(schema: Any, path: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _wrong(path, "a JSON schema, which is an object")
    for keyword, value in schema.items():
        if check := _KEYWORDS.get(keyword):
            check(value, f"{path}.{keyword}")


def _check_list(value: Any, path: str) -> None:
    if not isinstance(value, list) or not value:
        raise _wrong(path, "a list of JSON schemas")
    for index, schema in enumerate(value):
        _check(schema, f"{path}[{index}]")


def _check_map(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(path, "an object of JSON schemas")
    for name, schema in value.items():
        _check(schema, f"{path}.{name}")


def _check_items(value: Any, path: str) -> None:
    (_check_list if isinstance(value, list) else _check)(value, path)


def _check_type(value: Any, path: str) -> None:
    names = value if isinstance(value, list) and value else [value]
    if not all(isinstance(name, str) and name in _TYPES for name in names):
        raise _wrong(path, f"one of {', '.join(_TYPES)}, or a list of them")


def _check_reference(value: Any, path: str) -> None:
    if not isinstance(value, str) or not value.startswith("#"):
        raise _wrong(path, "a reference inside the schema, beginning with #; nothing is fetched")


def _is(kind: type | tuple[type, ...], expected: str) -> Callable[[Any, str], None]:
    def check(value: Any, path: str) -> None:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _wrong(path, expected)

    return check


def _is_count(value: Any, path: str) -> None:
    if type(value) is not int or value < 0:
        raise _wrong(path, "an integer, 0 or more")


def _are_names(value: Any, path: str) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(path, "a list of strings")


def _wrong(path: str, expected: str) -> Exception:
    return invalid(f"{path.removeprefix('.')[:200] or 'it'} should be {expected}")


_is_text = _is(str, "a string")
_is_number = _is((int, float), "a number")

_KEYWORDS: dict[str, Callable[[Any, str], None]] = {
    "type": _check_type,
    "$ref": _check_reference,
    "enum": _is(list, "a list"),
    "required": _are_names,
    "items": _check_items,
    **dict.fromkeys(("additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"), _check),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _check_list),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"), _check_map),
    **dict.fromkeys(("title", "description", "pattern", "format", "$id", "$schema", "$anchor"), _is_text),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _is_number),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains"), _is_count
    ),
}
