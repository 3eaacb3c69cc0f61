"""What becomes of a grammar: a mask, or a refusal that says why. Hostile ones cost neither time nor lives."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from server.engine import grammar_compiler
from server.engine.grammar_compiler import GrammarCompiler
from server.engine.grammar_text import MAX_BYTES
from server.engine.token_mask import TokenMask
from server.errors import InvalidRequest, Overloaded
from server.types import Grammar, GrammarKind
from tests.fakes.vocabulary import CONTROL, END, IS_END, PIECES, text_of, tokenize


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value), "response_format")


def accepts(mask: TokenMask, text: str) -> bool:
    """Whether the text may be written, token by token, and be all."""
    for token_id in tokenize(text):
        if mask.offsets[token_id] != 0:
            return False
        mask.accept(token_id)
        mask.advance()
    return bool(mask.offsets[END] == 0)


def refusal(grammars: GrammarCompiler, kind: GrammarKind, text: str) -> str:
    with pytest.raises(InvalidRequest) as refused:
        grammars.mask(Grammar(kind, text, "grammar"))
    assert refused.value.param == "grammar"
    assert "<backtrace>" not in refused.value.message
    return refused.value.message


@pytest.mark.parametrize(
    ("kind", "text", "good", "bad"),
    [
        ("json_object", "", '{"a": [1, null]}', "[1]"),
        ("json_schema", '{"type": "array", "maxItems": 2, "items": {"type": "boolean"}}', "[true,false]", "[1]"),
        ("json_schema", '{"const": "é日本"}', '"é日本"', '"e"'),
        ("regex", "[a-c]{2}/(x|y)", "ab/x", "ab/z"),
        ("lark", 'start: "a" rest\nrest: /[0-9]+/  // digits', "a10", "ab"),
        ("lark", 'start: "<" /[<>]/  # not a token', "<>", "ab"),
        ("lark", 'start: "%json " /[a-z]/  # %json is none here', "%json a", "a"),
        ("gbnf", 'root ::= "a" rest\nrest ::= [0-9]+ | "-" rest', "a--7", "a-"),
    ],
)
def test_a_text_is_what_its_grammar_says(
    grammars: GrammarCompiler, kind: GrammarKind, text: str, good: str, bad: str
) -> None:
    grammar = Grammar(kind, text, "grammar")

    assert accepts(grammars.mask(grammar), good)
    assert not accepts(grammars.mask(grammar), bad)


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        ({}, "[1]", "x"),
        ({"type": ["null", "boolean"]}, "null", "1"),
        ({"enum": [1, "a"]}, '"a"', '"b"'),
        ({"properties": {"b": {"const": 1}, "a": {}}, "required": ["a"]}, '{"b":1,"a":2}', '{"a":2,"b":1}'),
        ({"type": "object", "additionalProperties": False}, "{}", '{"a":1}'),
        ({"patternProperties": {"^a": {"type": "null"}, "^b": {}}, "type": "object"}, '{"ab":null}', '{"ab":1}'),
        ({"type": "object", "maxProperties": 1}, '{"a":1}', '{"a":1,"b":2}'),
        ({"type": "object", "minProperties": 2, "required": ["a"]}, '{"a":1,"b":2}', '{"a":1}'),
        ({"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2}, "[null]", "[]"),
        ({"type": "array", "prefixItems": [{"type": "null"}, {}], "items": False}, "[null,1]", "[1]"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, '"abc"', '"abca"'),
        ({"type": "string", "pattern": "^a+$"}, '"aa"', '"ab"'),
        ({"type": "string", "format": "date"}, '"2024-02-29"', '"2024-13-01"'),
        ({"type": "string", "format": "time"}, '"10:00:00Z"', '"10"'),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T10:00:00Z"', '"2024-02-29"'),
        ({"type": "string", "format": "duration"}, '"P1D"', '"1D"'),
        ({"type": "string", "format": "email"}, '"a@b.co"', '"a"'),
        ({"type": "string", "format": "hostname"}, '"a.b"', '"a b"'),
        ({"type": "string", "format": "ipv4"}, '"1.2.3.4"', '"1.2.3.400"'),
        ({"type": "string", "format": "ipv6"}, '"::1"', '"1.2"'),
        ({"type": "string", "format": "uuid"}, '"01234567-89ab-cdef-0123-456789abcdef"', '"0"'),
        ({"type": "string", "format": "uri"}, '"http://a"', '"a b"'),
        ({"type": "number", "exclusiveMinimum": 1, "maximum": 2}, "1.5", "1"),
        ({"type": "integer", "multipleOf": 7}, "14", "15"),
        ({"anyOf": [{"type": "null"}, {"const": 1}]}, "1", "2"),
        ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 4}]}, "3", "5"),
        ({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, "true", "1"),
        ({"$defs": {"a": {"type": "null"}}, "items": {"$ref": "#/$defs/a"}, "type": "array"}, "[null]", "[1]"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_a_schema_says_is_enforced(grammars: GrammarCompiler, wanted: object, good: str, bad: str) -> None:
    """Keyword by keyword, as docs/api.md has them."""
    assert accepts(grammars.mask(schema(wanted)), good)
    assert not accepts(grammars.mask(schema(wanted)), bad)


def test_blanks_between_json_tokens_come_to_an_end(grammars: GrammarCompiler) -> None:
    mask = grammars.mask(Grammar("json_object", "", "response_format"))

    assert accepts(mask, '{\n\n                    "a": 1}')
    assert not accepts(grammars.mask(Grammar("json_object", "", "response_format")), "{\n" + " " * 21 + "}")


def test_options_of_the_compiler_are_not_the_clients(grammars: GrammarCompiler) -> None:
    mask = grammars.mask(schema({"type": "object", "x-guidance": {"whitespace_pattern": "[a-z]+"}}))

    assert not accepts(mask, "{abc}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"not": {"type": "string"}},
        {"if": {"type": "string"}, "then": {"minLength": 3}},
        {"type": "array", "uniqueItems": True},
        {"type": "array", "contains": {}},
        {"type": "object", "propertyNames": {"pattern": "^a"}},
        {"type": "object", "dependentRequired": {"a": ["b"]}},
        {"type": "object", "unevaluatedProperties": False},
        {"type": "object", "patternProperties": {"^a": {}, "b$": {}}},
        {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
        {"properties": {"default": {"type": "object", "minProperties": 3, "required": ["a"]}}},
        {"oneOf": [{"type": "number"}, {"type": "integer"}]},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nobody"},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"$schema": "https://example.com/mine"},
        {"type": 123},
        {"type": "text"},
        {"type": "string", "pattern": 5},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "pattern": r"(a)\1"},
        {"type": "string", "format": "secret"},
        {"type": "string", "enum": [1, 2]},
        {"enum": []},
        False,
    ],
    ids=lambda wrong: json.dumps(wrong)[:60],
)
def test_a_schema_that_cannot_be_honoured_is_refused(grammars: GrammarCompiler, wrong: object) -> None:
    assert "the JSON schema cannot be honoured: " in refusal(grammars, "json_schema", json.dumps(wrong))


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("regex", "(", "unclosed group"),
        ("lark", "nonsense", "cannot be honoured"),
        ("lark", 'a: "b"', "no start rule"),
        ("lark", 'start: "a" <[1]>', "names a token"),
        ("lark", 'start: "a" <|im_end|>', "names a token"),
        ("lark", 'start: a "b"\na[stop=""]: /x*/', "option 'stop'"),
        ("lark", "start[max_tokens=2]: /x+y/", "option 'max_tokens'"),
        ("lark", 'start: %json {"items": {"minProperties": 2}}', "minProperties 2"),
        ("answer", 'start: "a" %json {"minProperties": 2}', "minProperties 2"),
        ("lark", "start: start", "no text"),
        ("lark", "%import .etc.passwd (INT)\nstart: INT", "Unknown"),
        ("gbnf", "root = x", "no GBNF"),
        ("gbnf", 'root ::= "\\', "no GBNF"),
        ("gbnf", "root ::= nobody", "no GBNF"),
    ],
)
def test_what_is_no_grammar_is_refused(grammars: GrammarCompiler, kind: GrammarKind, text: str, why: str) -> None:
    assert why in refusal(grammars, kind, text)


def nested_refs(count: int) -> str:
    defs: dict[str, object] = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(count)}
    return json.dumps({"$defs": {**defs, f"d{count}": {}}, "$ref": "#/$defs/d0"})


HOSTILE: list[tuple[GrammarKind, str]] = [
    ("json_schema", json.dumps({"enum": [f"value {n}" for n in range(100_000)]})),
    ("json_schema", json.dumps({"properties": {f"p{n}": {} for n in range(5_000)}})),
    ("json_schema", json.dumps({"properties": {f"{n:x}": {} for n in range(12_000)}})),
    ("json_schema", json.dumps({"patternProperties": {f"^{n:x}-": {} for n in range(5_000)}})),
    ("json_schema", nested_refs(3_000)),
    ("json_schema", json.dumps({"type": "string", "minLength": 10**9})),
    ("json_schema", json.dumps({"pattern": "^((((a{0,2000}){0,2000}){0,2000}){0,2000})$"})),
    ("json_schema", json.dumps({"pattern": "(a+)+$"})),
    ("json_schema", json.dumps({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False})),
    (
        "json_schema",
        json.dumps({"anyOf": [{"properties": {f"{n:x}": {}}, "required": [f"{n:x}"]} for n in range(2000)]}),
    ),
    ("regex", "(" * 15_000 + "a" + ")" * 15_000),
    ("regex", "(a{1000}){1000}" * 2_000),
    ("lark", "start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    ("lark", "start: T0\n" + "\n".join(f"T{n}:T{n + 1}" for n in range(5_000)) + '\nT5000: "a"'),
    ("lark", "start: A\nA: " + " & ".join(f"/.*{n}.*/" for n in range(300))),
    ("lark", "start: start start | " + " | ".join(["start start"] * 3_000) + ' | "a"'),
    ("gbnf", "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
    ("gbnf", "\n".join(f"r{n} ::= r{n + 1}" for n in range(3_000)) + '\nr3000 ::= "a"\nroot ::= r0'),
]


@pytest.fixture(scope="module")
def attacked() -> Iterator[GrammarCompiler]:
    """One of its own: it may still be busy when a test has ended."""
    compiler = GrammarCompiler(PIECES, IS_END, tokenize)
    yield compiler
    compiler.close()


@pytest.mark.parametrize(("kind", "text"), HOSTILE, ids=lambda value: str(value)[:40])
def test_a_hostile_grammar_is_over_soon(attacked: GrammarCompiler, kind: GrammarKind, text: str) -> None:
    """Whether it is refused or not. Twice what it may take, and a bit for a busy machine."""
    good = Grammar("regex", "[ab]{2}", "grammar")
    attacked.mask(good)

    before_s = time.monotonic()
    try:
        attacked.mask(Grammar(kind, text, "grammar"))
    except (InvalidRequest, Overloaded) as exc:
        assert "<backtrace>" not in exc.message
    assert time.monotonic() - before_s < 2 * grammar_compiler.MAX_COMPILE_S + 4

    assert accepts(attacked.mask(good), "ab")


@pytest.mark.parametrize("kind", MAX_BYTES)
def test_long_grammars_are_refused_unread(grammars: GrammarCompiler, kind: GrammarKind) -> None:
    assert "bytes" in refusal(grammars, kind, "é" * (MAX_BYTES[kind] // 2 + 1))


@pytest.mark.parametrize(("limit", "most"), [("MAX_KEPT", 2), ("MAX_KEPT_BYTES", 5)])
def test_a_compiled_grammar_is_kept_until_others_need_the_room(
    grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(grammar_compiler, limit, most)
    first = grammars.mask(Grammar("regex", "1+", "grammar"))
    second = grammars.mask(Grammar("regex", "2+", "grammar"))

    assert grammars.mask(Grammar("regex", "1+", "grammar"))._compiled is first._compiled
    grammars.mask(Grammar("regex", "3+", "grammar"))
    assert grammars.mask(Grammar("regex", "1+", "grammar"))._compiled is first._compiled
    assert grammars.mask(Grammar("regex", "2+", "grammar"))._compiled is not second._compiled


def test_a_compilation_that_is_given_up_keeps_others_out_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads cannot be killed: the tokeniser holds this one up."""
    gate = threading.Event()
    gate.set()

    def tokenize_when_open(text: str) -> list[int]:
        assert gate.wait(60)
        return tokenize(text)

    compiler = GrammarCompiler(PIECES, IS_END, tokenize_when_open)
    good = Grammar("regex", "[ab]c", "grammar")
    compiler.mask(good)
    monkeypatch.setattr(grammar_compiler, "MAX_COMPILE_S", 0.1)
    gate.clear()

    assert "longer than 0.1 s" in refusal(compiler, "regex", "name")
    with pytest.raises(Overloaded):
        compiler.mask(Grammar("regex", "true", "grammar"))
    kept = compiler.mask(good)

    gate.set()
    assert accepts(kept, "ac")
    compiler.close()


def test_a_grammar_that_failed_is_compiled_again(grammars: GrammarCompiler) -> None:
    """What it learned, and others share, may be what made it fail."""
    grammar = Grammar("regex", "[ab]+c", "grammar")
    failed = grammars.mask(grammar)
    failed.accept(tokenize("z")[0])
    failed.advance()
    assert failed.failure

    assert accepts(grammars.mask(grammar), "abac")


def test_texts_without_choice_are_written_as_the_model_would(grammars: GrammarCompiler) -> None:
    mask = grammars.mask(Grammar("regex", 'x\\{"name": ', "grammar"))
    mask.accept(tokenize("x")[0])
    mask.advance()

    assert np.flatnonzero(mask.offsets == 0).tolist() == tokenize('{"name": ')[:1]


@pytest.fixture
def spacious() -> Iterator[GrammarCompiler]:
    """A tokeniser that begins every text with a space, as many do."""
    compiler = GrammarCompiler(PIECES, IS_END, lambda text: tokenize(" " + text))
    yield compiler
    compiler.close()


def test_a_tokeniser_that_adds_a_space_does_not_change_the_text(spacious: GrammarCompiler) -> None:
    assert accepts(spacious.mask(Grammar("regex", "name", "grammar")), "name")


def test_a_vocabulary_without_an_end_takes_no_grammars() -> None:
    endless = GrammarCompiler(PIECES, np.zeros_like(IS_END), tokenize)

    assert "no token to end" in refusal(endless, "regex", "a")


def test_an_answer_may_have_control_tokens_around_what_the_client_wants(grammars: GrammarCompiler) -> None:
    answer = Grammar("answer", f'start: <[{CONTROL}]> "a" @content', "tools")
    mask = grammars.mask(answer, content=Grammar("json_schema", '{"type": "boolean"}', "response_format"))
    written = []
    for token_id in [CONTROL, *tokenize("atrue")]:
        assert mask.offsets[token_id] == 0
        mask.accept(token_id)
        mask.advance()
        written.append(token_id)

    assert text_of(written) == "atrue"
    assert mask.offsets[END] == 0
