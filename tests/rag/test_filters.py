from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.rag.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    Comparison,
    Compound,
    Filter,
    Membership,
    allowed_chunks,
    condition,
    parse_filter,
)

Attributes = dict[str, str | float | bool]

# Few, so that they often meet; what JSON, SQL and SQLite's paths take for syntax is among them. U+0000 is not: SQLite
# reads JSON texts only up to it.
KEYS = ["lang", "year", 'a"b', "a.b", "$", "", "é", "\\", "'", "x[0]", "*", "%"]
TEXTS = ["", "de", "DE", "é", "e\u0301", "1", "true", "null", "' OR 1=1 --", '"', "\\", "\n", "😀", "\uffff", "a" * 512]
NUMBERS = [0, -0.0, 1, 1.0, 2024, 0.1, 0.30000000000000004, -1.5, 1e300, 2**53, 2**53 + 1, 2**63, 10**25, 5e-324]

values = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
)
attributes = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
keys = st.sampled_from([key for key in KEYS if key])
ordered_values = values.filter(lambda value: not isinstance(value, bool))
leaves = st.one_of(
    st.builds(
        lambda kind, key, value: {"type": kind, "key": key, "value": value}, st.sampled_from(["eq", "ne"]), keys, values
    ),
    st.builds(
        lambda kind, key, value: {"type": kind, "key": key, "value": value},
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        keys,
        ordered_values,
    ),
    st.builds(
        lambda kind, key, value: {"type": kind, "key": key, "value": value},
        st.sampled_from(["in", "nin"]),
        keys,
        st.lists(values, max_size=4),
    ),
)
filters = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda kind, parts: {"type": kind, "filters": parts},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


def is_satisfied(wanted: Filter, found: Attributes) -> bool:
    """What a filter means."""
    match wanted:
        case Compound("and", parts):
            return all(is_satisfied(part, found) for part in parts)
        case Compound("or", parts):
            return any(is_satisfied(part, found) for part in parts)
        case Membership(kind, key, values):
            is_in = key in found and any(are_equal(found[key], value) for value in values)
            return is_in == (kind == "in")
        case Comparison("eq", key, value):
            return key in found and are_equal(found[key], value)
        case Comparison("ne", key, value):
            return not (key in found and are_equal(found[key], value))
        case Comparison(kind, key, value):
            if key not in found or kind_of(found[key]) != kind_of(value):
                return False
            one, other = comparable(found[key]), comparable(value)
            return {"gt": one > other, "gte": one >= other, "lt": one < other, "lte": one <= other}[kind]
    raise AssertionError


def kind_of(value: object) -> str:
    return "text" if isinstance(value, str) else "truth" if isinstance(value, bool) else "number"


def comparable(value: str | float) -> str | float:
    """Integers beyond 64 bits are floats to SQLite."""
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def are_equal(one: str | float, other: str | float) -> bool:
    return kind_of(one) == kind_of(other) and comparable(one) == comparable(other)


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE vector_stores (row_id INTEGER PRIMARY KEY, id TEXT)")
    connection.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, store_row INTEGER, attributes TEXT)")
    connection.execute("CREATE TABLE chunks (id INTEGER PRIMARY KEY, document_id INTEGER)")
    connection.execute("INSERT INTO vector_stores VALUES (1, 'vs_one'), (2, 'vs_two')")
    yield connection
    connection.close()


def select(db: sqlite3.Connection, documents: list[Attributes], wanted: Filter) -> list[bool]:
    db.execute("DELETE FROM documents")
    db.executemany("INSERT INTO documents VALUES (?, 1, ?)", enumerate(json.dumps(each) for each in documents))
    where = condition(wanted)
    return [bool(found) for (found,) in db.execute(f"SELECT {where.sql} FROM documents ORDER BY id", where.parameters)]


@given(documents=st.lists(attributes, max_size=6), value=filters)
def test_sqlite_selects_what_a_filter_means(db: sqlite3.Connection, documents: list[Attributes], value: object) -> None:
    wanted = parse_filter(value)

    assert select(db, documents, wanted) == [is_satisfied(wanted, each) for each in documents]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"type": "eq", "key": "year", "value": 2024}, ["both", "float"]),
        ({"type": "ne", "key": "year", "value": 2024}, ["text", "true", "other", "none"]),
        ({"type": "in", "key": "year", "value": [2024, "2024"]}, ["both", "float", "text"]),
        ({"type": "in", "key": "year", "value": []}, []),
        ({"type": "nin", "key": "year", "value": [2024, True]}, ["text", "other", "none"]),
        ({"type": "gt", "key": "year", "value": 0}, ["both", "float"]),
        ({"type": "gt", "key": "year", "value": "1"}, ["text"]),
        ({"type": "lte", "key": "year", "value": -1}, ["other"]),
        ({"type": "eq", "key": "lang", "value": "de"}, ["both"]),
        ({"type": "eq", "key": "name", "value": "none"}, ["none"]),
    ],
)
def test_missing_keys_and_other_types_are_different(db: sqlite3.Connection, value: object, expected: list[str]) -> None:
    documents: list[Attributes] = [
        {"name": "both", "year": 2024, "lang": "de"},
        {"name": "float", "year": 2024.0, "lang": "DE"},
        {"name": "text", "year": "2024"},
        {"name": "true", "year": True},
        {"name": "other", "year": -1},
        {"name": "none"},
    ]

    found = select(db, documents, parse_filter(value))

    assert [each["name"] for each, is_found in zip(documents, found, strict=True) if is_found] == expected


def test_chunks_are_allowed_by_their_document_and_in_their_store(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM documents")
    db.execute("DELETE FROM chunks")
    rows = [(1, 1, '{"n": 1}'), (2, 1, '{"n": 2}'), (3, 2, '{"n": 1}')]
    db.executemany("INSERT INTO documents VALUES (?, ?, ?)", rows)
    db.executemany("INSERT INTO chunks VALUES (?, ?)", [(10, 1), (11, 1), (20, 2), (30, 3)])
    one = parse_filter({"type": "eq", "key": "n", "value": 1})

    assert sorted(allowed_chunks(db, "vs_one", one)) == [10, 11]
    assert allowed_chunks(db, "vs_two", one).tolist() == [30]
    assert allowed_chunks(db, "vs_three", one).tolist() == []


@pytest.mark.parametrize(
    "text",
    [
        "') OR 1=1 --",
        "'; DROP TABLE documents; --",
        '"',
        "?",
        "?1",
        ":a",
        "@a",
        "$a",
        "%s",
        "{0}",
        "\\",
        "/*",
        "a') --",
    ],
)
def test_nothing_of_a_client_is_read_as_sql(db: sqlite3.Connection, text: str) -> None:
    filters: list[Filter] = [Comparison("eq", text, text), Membership("in", text, (text,)), Comparison("gt", text, "")]

    for wanted in filters:
        assert select(db, [{"a": 1}, {text: text}], wanted) == [False, True]
        assert text in condition(wanted).parameters
        assert text == "?" or text not in condition(wanted).sql


def test_the_largest_filters_work(db: sqlite3.Connection) -> None:
    value: object = {"type": "nin", "key": "n", "value": [*range(MAX_VALUES)]}
    for _ in range(MAX_DEPTH - 2):
        value = {"type": "and", "filters": [value]}
    others = [{"type": "ne", "key": "n", "value": number} for number in range(MAX_CONDITIONS - 1)]

    found = select(db, [{"n": 5}, {"n": -1}], parse_filter({"type": "and", "filters": [value, *others]}))

    assert found == [False, True]


def nested(depth: int) -> object:
    value: object = {"type": "eq", "key": "n", "value": 1}
    for _ in range(depth):
        value = {"type": "or", "filters": [value]}
    return value


EQ = {"type": "eq", "key": "n", "value": 1}


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        (None, "filters", "expected an object with a type; got None"),
        ([EQ], "filters", "expected an object"),
        ({}, "filters.type", "expected one of eq, ne, gt, gte, lt, lte, in, nin, and, or; got None"),
        ({"type": "like"}, "filters.type", "got 'like'"),
        ({"type": ["eq"]}, "filters.type", "got ['eq']"),
        ({"type": "eq", "key": "n"}, "filters", "value is missing"),
        ({"type": "eq", "value": 1}, "filters", "key is missing"),
        ({**EQ, "op": 1}, "filters", "unknown field 'op'"),
        ({**EQ, "key": ""}, "filters.key", "1 to 64 characters"),
        ({**EQ, "key": "k" * 65}, "filters.key", "1 to 64 characters"),
        ({**EQ, "key": 1}, "filters.key", "1 to 64 characters"),
        ({**EQ, "key": "\ud800"}, "filters.key", "surrogate"),
        ({**EQ, "value": "\udfff"}, "filters.value", "surrogate"),
        ({**EQ, "value": None}, "filters.value", "got None"),
        ({**EQ, "value": [1]}, "filters.value", "got [1]"),
        ({**EQ, "value": {"$ne": 1}}, "filters.value", "expected a text"),
        ({**EQ, "value": "x" * 513}, "filters.value", "512 characters"),
        ({**EQ, "value": float("nan")}, "filters.value", "got nan"),
        ({**EQ, "value": float("inf")}, "filters.value", "got inf"),
        ({**EQ, "type": "gt", "value": True}, "filters.value", "no order"),
        ({**EQ, "type": "in"}, "filters.value", "expected a list of values"),
        ({**EQ, "type": "in", "value": [1, None]}, "filters.value[1]", "got None"),
        ({**EQ, "type": "in", "value": [0] * (MAX_VALUES + 1)}, "filters.value", f"more than {MAX_VALUES} values"),
        ({"type": "and", "filters": []}, "filters.filters", "not empty"),
        ({"type": "and", "filters": EQ}, "filters.filters", "not empty"),
        ({"type": "and", "filters": [EQ, {"type": "or", "filters": [1]}]}, "filters.filters[1].filters[0]", "got 1"),
        ({"type": "and", "filters": [EQ] * (MAX_CONDITIONS + 1)}, f"filters.filters[{MAX_CONDITIONS}]", "conditions"),
        (nested(MAX_DEPTH), "filters" + ".filters[0]" * (MAX_DEPTH - 1), "deep"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(value: object, place: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(value)

    assert caught.value.param == place
    assert caught.value.message.startswith(place) and message in caught.value.message


def test_a_filter_as_deep_as_is_allowed_is_read() -> None:
    parse_filter(nested(MAX_DEPTH - 1))


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["type", "key", "value", "filters"]) | st.text(), x),
    )
)
def test_any_json_is_a_filter_or_an_invalid_request(value: object) -> None:
    try:
        parse_filter(value)
    except InvalidRequest as exc:
        assert exc.param
