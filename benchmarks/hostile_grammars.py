"""Hostile requests for an answer that has a form: B10 and B11 of docs/security.md."""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.hostile_requests import CHATS, MESSAGES, RESPONSES, SERVED, Body, Hostile, Maker, altered

# ---- B10, B11: schemas and grammars


def _schema(schema: object) -> Body:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _bad_schema(chance: random.Random) -> Hostile:
    """What is no schema, or none that can be enforced, be it of a whole answer or of an argument."""
    number = chance.randrange(10**6)
    schemas: list[Body] = [
        *({"type": 123}, {"type": "strin"}, {"type": "string", "pattern": 5}, {"$ref": "#/nowhere"}, {"required": 5}),
        *({"$ref": "http://127.0.0.1:1/x.json"}, {"$ref": "file:///etc/passwd"}, {"minimum": "x"}, {"items": 5}),
        *({"type": "string", "pattern": "(?<=x)*"}, {"type": "string", "pattern": "("}, {"not": {}}),
        *({"type": "array", "uniqueItems": True}, {"type": "array", "prefixItems": 5}),
        *({"type": "string", "format": f"no-{number}"}, {"type": "object", "minProperties": 5 + number}),
    ]
    schema = chance.choice(schemas)
    form = {"type": "json_schema", "schema": schema}
    if chance.random() < 0.3:
        function = {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": schema}}}
        tools = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
        return altered("B10", CHATS, **tools)
    wanted: dict[str, Body] = {
        CHATS: _schema(schema),
        MESSAGES: {"output_config": {"format": form}},
        RESPONSES: {"text": {"format": {**form, "name": "x"}}},
    }
    path = chance.choice(list(wanted))
    return altered("B10", path, **wanted[path])


def _schema_of_nothing(chance: random.Random) -> Hostile:
    """What no value satisfies; as an optional argument it would be left out."""
    schemas: list[object] = [
        *({"$ref": "#"}, {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"enum": []}, [], 5, "x", False),
        {"type": "string", "minLength": 2, "maxLength": 1},
    ]
    return altered("B10", CHATS, **_schema(chance.choice(schemas)))


def _endless_text(chance: random.Random) -> Hostile:
    """It can be begun, and is always cut."""
    schema = {"type": "string", "minLength": 10**9 + chance.randrange(10**6)}
    return altered("B10", CHATS, (200, 400), **_schema(schema))


def _costly_grammar(chance: random.Random) -> Hostile:
    """What takes the compiler's time. 503: another one is still being compiled."""
    number = chance.randrange(10**6)
    costly: list[Callable[[], Body]] = [
        lambda: _schema({"enum": [f"value {n} {number}" for n in range(100_000)]}),
        lambda: _schema({"properties": {f"{n:x}": {} for n in range(12_000)}}),
        lambda: {"grammar": {"type": "gbnf", "definition": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000}},
        lambda: {"grammar": "start: " + "(" * 30_000 + f'"{number}"' + ")" * 30_000},
        lambda: {"grammar": "start: A\nA: " + " & ".join(f"/.*{n}{number}.*/" for n in range(300))},
        lambda: {"grammar": {"type": "regex", "definition": "(" * 5_000 + "a" + "){0,200}" * 5_000}},
    ]
    return altered("B11", CHATS, (400, 413, 503), **chance.choice(costly)())


def _bad_grammar(chance: random.Random) -> Hostile:
    grammars: list[object] = [
        *("start: start", "start: <|im_end|>", "start: A", "", "nonsense", "start: (", 'start: "a"\nstart: "b"', "%%%"),
        *(
            '%llguidance {"no_such_thing": 1}\nstart: A',
            "start: @content",
            'start: "a" {5,2}',
            "root ::= x",
        ),
        *({"type": "regex", "definition": "("}, {"type": "regex", "definition": "(?<=x)y"}, {"type": "peg"}, 5, []),
        *({"type": "regex", "definition": "a{2,1}"}, {"type": "lark", "definition": "x" * 100_000}, {"type": "gbnf"}),
    ]
    return altered("B11", CHATS, grammar=chance.choice(grammars))


def _fresh_grammar(chance: random.Random) -> Hostile:
    """Good ones, each another: what is kept of them must be bounded."""
    properties = {f"p{chance.randrange(10**9)}": {"type": "integer"} for _ in range(20)}
    return altered("B11", CHATS, SERVED, **_schema({"type": "object", "properties": properties}))


ROWS: dict[Maker, float] = {
    _bad_schema: 4,
    _schema_of_nothing: 1,
    _endless_text: 0.2,
    _costly_grammar: 0.3,
    _bad_grammar: 4,
    _fresh_grammar: 1,
}
"""Kinds of requests, and how often they come."""
