"""JSON and JSON lines, made readable: a record is a block, a member a line, `name: value`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from server.rag.documents import ParsedDocument
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile
from server.rag.parsing import ParseFailed

_MAX_INDENT = 10
"""Deeper members are not moved further to the right: their text would be mostly blanks."""


def load_json(source: SourceFile) -> ParsedDocument:
    builder = DocumentBuilder(source.limits)
    _add(builder, _values(source.text))
    return builder.build("application/json")


def _values(text: str) -> Any:
    """The value that the text is, or the list of those on its lines. Numbers stay as they are written.

    Raises:
        ParseFailed: It is neither.
    """
    try:
        return _value(text)
    except json.JSONDecodeError as exc:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if exc.msg != "Extra data" or len(lines) < 2:
            raise ParseFailed("invalid_file", f"the file is not JSON: line {exc.lineno}: {exc.msg}") from exc
    return [_line(number, line) for number, line in lines]


def _line(number: int, text: str) -> Any:
    try:
        return _value(text)
    except json.JSONDecodeError as exc:
        raise ParseFailed("invalid_file", f"line {number} is not JSON: {exc.msg}") from exc


def _value(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


def _add(builder: DocumentBuilder, value: Any) -> None:
    """Lists of records have a block for each, under the name of the list; everything else is one."""
    if isinstance(value, dict):
        records = {name: inner for name, inner in value.items() if _is_list_of_records(inner)}
        builder.add("paragraph", _readable({name: inner for name, inner in value.items() if name not in records}))
        for name, inner in records.items():
            builder.add_heading(name, 1)
            _add(builder, inner)
    elif isinstance(value, list):
        for inner in value if _is_list_of_records(value) else [value]:
            builder.add("paragraph", _readable(inner))
    else:
        builder.add("paragraph", _readable(value))


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value)


def _readable(value: Any) -> str:
    return "\n".join(_lines(value, 0))


def _lines(value: Any, depth: int) -> Iterator[str]:
    indent = "  " * min(depth, _MAX_INDENT)
    if isinstance(value, dict):
        members = ((f"{indent}{name}:", inner) for name, inner in value.items())
    elif isinstance(value, list):
        members = ((f"{indent}-", inner) for inner in value)
    else:
        yield indent + _scalar(value)
        return
    for label, inner in members:
        if isinstance(inner, dict | list) and inner:
            yield label
            yield from _lines(inner, depth + 1)
        else:
            yield f"{label} {_scalar(inner)}".rstrip()


def _scalar(value: Any) -> str:
    """Empty for what is empty."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else ""
