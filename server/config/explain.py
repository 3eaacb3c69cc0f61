"""Turn pydantic's errors into sentences: the value, what is allowed, and the nearest known name.

What is allowed is read from the JSON Schema, so that every key of `schema.py` explains itself.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.config.document import Location

JsonSchema = dict[str, Any]


def explain(error: ValidationError, model: type[BaseModel]) -> dict[Location, str]:
    """Say for each place that is wrong in an input of `model` what is wrong there.

    Texts continue a sentence that begins with the key: `is 'chatt'; expected one of 'chat', ...`.
    """
    root = model.model_json_schema()
    texts: dict[Location, str] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # not too short: its items are wrong, and told of themselves
        location, text = _explain_one(details, root)
        texts.setdefault(location, text)  # one value that fits no branch of a union gives an error for each
    return texts


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name most like `name`, or nothing when none is alike."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def describe(schema: JsonSchema) -> str:
    """Say in words what a value of this JSON Schema is: `an integer from 0 to 65535`."""
    if "anyOf" in schema:
        return " or ".join(describe(branch) for branch in schema["anyOf"] if branch.get("type") != "null")
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    match schema.get("type"):
        case "integer":
            words = "an integer" + _range(schema)
        case "number":
            words = "a number" + _range(schema)
        case "boolean":
            words = "true or false"
        case "array":
            each = f", each {describe(schema['items'])}" if "$ref" not in schema["items"] else ""
            words = "a list" + (" that is not empty" if schema.get("minItems") else each)
        case "string":
            words = _describe_text(schema)
        case _:
            words = "a mapping" + (f" of {', '.join(schema['properties'])}" if "properties" in schema else "")
            each_value = schema.get("additionalProperties")
            words += f", each {describe(each_value)}" if isinstance(each_value, dict) else ""
    return words


def resolve(schema: JsonSchema, root: JsonSchema) -> JsonSchema:
    """Follow a reference, and see through `| None`."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    return resolve(branches[0], root) if len(branches) == 1 else schema


def _explain_one(details: ErrorDetails, root: JsonSchema) -> tuple[Location, str]:
    kind, value = details["type"], details["input"]
    if kind == "combination":
        return (*details["loc"], *details["ctx"]["location"]), f": {details['msg']}"
    if kind == "extra_forbidden":
        *above, name = details["loc"]
        known = _schema_at(tuple(above), root)[1]["properties"]
        text = f" is not a known key; expected one of {', '.join(known)}{nearest(str(name), known)}"
        return details["loc"], text
    location, schema = _schema_at(details["loc"], root)
    if kind == "missing":
        return location, f" is missing; expected {describe(schema)}"
    if kind == "value_error":
        return location, f" is {_show(value)}; {details['ctx']['error']}"
    hint = nearest(value, schema.get("enum", ())) if isinstance(value, str) else ""
    if schema.get("type") == "string" and isinstance(value, int | float):
        hint = "; put it in quotes"
    return location, f" is {_show(value)}; expected {describe(schema)}{hint}"


def _schema_at(location: Location, root: JsonSchema) -> tuple[Location, JsonSchema]:
    """Follow `location` as far as it names keys and items; pydantic adds the name of a union's branch after them."""
    schema = resolve(root, root)
    for depth, part in enumerate(location):
        if part in schema.get("properties", ()):
            schema = resolve(schema["properties"][part], root)
        elif isinstance(part, int) and "items" in schema:
            schema = resolve(schema["items"], root)
        elif isinstance(schema.get("additionalProperties"), dict):
            schema = resolve(schema["additionalProperties"], root)
        else:
            return location[:depth], schema
    return location, schema


def _range(schema: JsonSchema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if isinstance(high, float) else f" from {low} to {high}"
    bounds = {"exclusiveMinimum": "above", "minimum": "of at least", "exclusiveMaximum": "below", "maximum": "at most"}
    stated = [f"{word} {schema[key]:g}" for key, word in bounds.items() if key in schema]
    return " " + " and ".join(stated) if stated else ""


def _describe_text(schema: JsonSchema) -> str:
    if schema.get("format") == "path":
        return "a path"
    words = "text"
    if "pattern" in schema:
        words += f" that matches {schema['pattern']}"
    if "maxLength" in schema:
        words += f", at most {schema['maxLength']} characters"
    return words + (" that is not empty" if schema.get("minLength") else "")


def _show(value: object) -> str:
    """Write a value as people wrote it in YAML, cut to a line's length."""
    match value:
        case None:
            return "empty"
        case dict():
            return "a mapping"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case str():
            return repr(value if len(value) <= 80 else value[:77] + "...")
    return json.dumps(value, default=str)
