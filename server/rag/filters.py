"""OpenAI's attribute filters: JSON from a client, checked into a tree, then a condition for SQLite.

    {"type": "and", "filters": [{"type": "eq", "key": "lang", "value": "de"}, {"type": "gte", "key": "year", ...}]}

What a document says nothing about, or says in another type, is different: it satisfies `ne` and `nin` and nothing
else. Numbers compare as numbers, texts by code points; true is not 1. Nothing of a client's becomes part of the SQL.
"""

from __future__ import annotations

import json
import reprlib
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from server.errors import InvalidRequest

MAX_DEPTH = 8
MAX_CONDITIONS = 100
MAX_VALUES = 1000
"""Of all lists of values of a filter together."""
MAX_KEY_CHARS = 64
MAX_TEXT_CHARS = 512

Value = str | float | bool
ComparisonType = Literal["eq", "ne", "gt", "gte", "lt", "lte"]
MembershipType = Literal["in", "nin"]
CompoundType = Literal["and", "or"]

_ORDERS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_IS_NUMBER = "attribute.type IN ('integer', 'real')"
_NUMBER = "json_extract(?, '$')"  # read by the same code as the attribute: equal numbers are equal, however it rounds


@dataclass(frozen=True)
class Comparison:
    type: ComparisonType
    key: str
    value: Value


@dataclass(frozen=True)
class Membership:
    type: MembershipType
    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Compound:
    """At least one filter."""

    type: CompoundType
    filters: tuple[Filter, ...]


Filter = Comparison | Membership | Compound


@dataclass(frozen=True)
class Condition:
    """An SQL expression over the table `documents`, true or false, never null; and the values of its `?`."""

    sql: str
    parameters: tuple[str | int, ...]


def parse_filter(value: object, *, param: str = "filters") -> Filter:
    """Check a decoded JSON value.

    Raises:
        InvalidRequest: It is no filter, or too large a one; `param` and the message name the place.
    """
    return _Reader().read(value, param, depth=1)


def condition(wanted: Filter) -> Condition:
    """Say in SQL which documents satisfy a filter."""
    if isinstance(wanted, Compound):
        parts = [condition(each) for each in wanted.filters]
        joint = f" {wanted.type.upper()} "
        return Condition(
            f"({joint.join(part.sql for part in parts)})",
            tuple(parameter for part in parts for parameter in part.parameters),
        )
    if isinstance(wanted, Membership):
        return _attribute(wanted.key, _one_of(wanted.values), is_negated=wanted.type == "nin")
    if wanted.type in {"eq", "ne"}:
        return _attribute(wanted.key, _one_of([wanted.value]), is_negated=wanted.type == "ne")
    return _attribute(wanted.key, _ordered(_ORDERS[wanted.type], wanted.value))


def allowed_chunks(db: sqlite3.Connection, store_id: str, wanted: Filter) -> npt.NDArray[np.int64]:
    """Return the ids of a store's chunks whose documents satisfy a filter, for `VectorIndex.search`."""
    where = condition(wanted)
    query = (  # CROSS JOIN: documents first, so that each is tested once
        "SELECT chunks.id FROM vector_stores JOIN documents ON documents.store_row = vector_stores.row_id "  # noqa: S608
        f"CROSS JOIN chunks ON chunks.document_id = documents.id WHERE vector_stores.id = ? AND {where.sql}"
    )
    rows = db.execute(query, (store_id, *where.parameters)).fetchall()
    return np.fromiter((chunk_id for (chunk_id,) in rows), np.int64, len(rows))


# ---- reading


class _Reader:
    """Reads one filter, counting what it holds."""

    def __init__(self) -> None:
        self._num_conditions = 0
        self._num_values = 0

    def read(self, value: object, place: str, *, depth: int) -> Filter:
        if not isinstance(value, dict):
            raise _wrong(place, "expected an object with a type", value)
        kind = value.get("type")
        if kind in get_args(CompoundType):
            return Compound(cast(CompoundType, kind), self._filters(_fields(value, place, "filters"), place, depth))
        if kind in get_args(MembershipType):
            key, values = _fields(value, place, "key", "value")
            return Membership(cast(MembershipType, kind), _key(key, place), self._values(values, f"{place}.value"))
        if kind in get_args(ComparisonType):
            self._count(place)
            key, single = _fields(value, place, "key", "value")
            return _comparison(cast(ComparisonType, kind), _key(key, place), _value(single, f"{place}.value"), place)
        known = [name for types in (ComparisonType, MembershipType, CompoundType) for name in get_args(types)]
        raise _wrong(f"{place}.type", f"expected one of {', '.join(known)}", kind)

    def _filters(self, fields: list[object], place: str, depth: int) -> tuple[Filter, ...]:
        [filters] = fields
        if not isinstance(filters, list) or not filters:
            raise _wrong(f"{place}.filters", "expected a list of filters that is not empty", filters)
        if depth == MAX_DEPTH:
            raise InvalidRequest(f"{place}: filters are nested more than {MAX_DEPTH} deep", param=place)
        return tuple(
            self.read(each, f"{place}.filters[{position}]", depth=depth + 1) for position, each in enumerate(filters)
        )

    def _values(self, values: object, place: str) -> tuple[Value, ...]:
        if not isinstance(values, list):
            raise _wrong(place, "expected a list of values", values)
        self._count(place)
        self._num_values += len(values)
        if self._num_values > MAX_VALUES:
            raise InvalidRequest(f"{place}: more than {MAX_VALUES} values in the lists of the filter", param=place)
        return tuple(_value(each, f"{place}[{position}]") for position, each in enumerate(values))

    def _count(self, place: str) -> None:
        self._num_conditions += 1
        if self._num_conditions > MAX_CONDITIONS:
            raise InvalidRequest(f"{place}: more than {MAX_CONDITIONS} conditions in the filter", param=place)


def _fields(value: dict[object, object], place: str, *names: str) -> list[object]:
    if unknown := sorted(str(name) for name in value.keys() - {"type", *names}):
        raise InvalidRequest(f"{place}: unknown field {unknown[0]!r}; expected {', '.join(names)}", param=place)
    if missing := [name for name in names if name not in value]:
        raise InvalidRequest(f"{place}: {missing[0]} is missing", param=place)
    return [value[name] for name in names]


def _key(value: object, place: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KEY_CHARS:
        raise _wrong(f"{place}.key", f"expected a text of 1 to {MAX_KEY_CHARS} characters", value)
    return _clean(value, f"{place}.key")


def _value(value: object, place: str) -> Value:
    if isinstance(value, str) and len(value) <= MAX_TEXT_CHARS:
        return _clean(value, place)
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= sys.float_info.max):
        return value
    raise _wrong(place, f"expected a text of up to {MAX_TEXT_CHARS} characters, a number, true or false", value)


def _clean(text: str, place: str) -> str:
    """Refuse what is no text: half a character, which SQLite cannot take."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(f"{place}: it holds half of a surrogate pair", param=place) from exc
    return text


def _comparison(kind: ComparisonType, key: str, value: Value, place: str) -> Comparison:
    if isinstance(value, bool) and kind not in {"eq", "ne"}:
        raise _wrong(f"{place}.value", f"true and false have no order; expected a number or a text for {kind}", value)
    return Comparison(kind, key, value)


def _wrong(place: str, expected: str, value: object) -> InvalidRequest:
    return InvalidRequest(f"{place}: {expected}; got {reprlib.repr(value)}", param=place)


# ---- SQL


def _attribute(key: str, test: Condition, *, is_negated: bool = False) -> Condition:
    """Whether the attribute `key` is there and passes a test. `json_each` reads any key, however it is written."""
    found = "SELECT 1 FROM json_each(documents.attributes) AS attribute WHERE attribute.key = ?"
    sql = f"{'NOT ' if is_negated else ''}EXISTS ({found} AND ({test.sql}))"
    return Condition(sql, (key, *test.parameters))


def _one_of(values: Sequence[Value]) -> Condition:
    """Whether the attribute is one of some values, of which there may be none."""
    truths = ["true" if value else "false" for value in values if isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    numbers = [json.dumps(value) for value in values if not isinstance(value, str | bool)]
    sql = (
        f"attribute.type IN ({_marks('?', truths)})"
        f" OR attribute.type = 'text' AND attribute.atom IN ({_marks('?', texts)})"
        f" OR {_IS_NUMBER} AND attribute.atom IN ({_marks(_NUMBER, numbers)})"
    )
    return Condition(sql, (*truths, *texts, *numbers))


def _ordered(operator: str, value: Value) -> Condition:
    if isinstance(value, str):
        return Condition(f"attribute.type = 'text' AND attribute.atom {operator} ?", (value,))
    return Condition(f"{_IS_NUMBER} AND attribute.atom {operator} {_NUMBER}", (json.dumps(value),))


def _marks(mark: str, values: Sequence[object]) -> str:
    return ", ".join([mark] * len(values))
