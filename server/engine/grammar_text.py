"""What llguidance is given of a grammar, what it may spend on it, and what its errors say to a client.

Knows no vocabulary: the child that tries grammars out first shares it with the worker that then uses them.
"""

from __future__ import annotations

import contextlib
import json
import re

import msgspec
from llguidance import LLMatcher, LLParserLimits
from llguidance.gbnf_to_lark import gbnf_to_lark

from server.types import Grammar, GrammarKind

MAX_BYTES: dict[GrammarKind, int] = {
    "json_object": 0,
    "json_schema": 128 * 1024,
    "regex": 32 * 1024,
    "lark": 64 * 1024,
    "gbnf": 64 * 1024,
    "answer": 256 * 1024,
}
"""Of a grammar's text. The compiler recurses: by it and by `deep_thread.STACK_BYTES` no text is too deep."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_items_in_row=1_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
"""At most half of what llguidance allows by itself for one mask, as others wait for it, and less of what takes memory:
a state of the lexer has 1 to 2 KiB. As much fuel for what is done once."""

MAX_REASON = 300
"""Characters of the compiler's own words that an error repeats."""

JSON_OPTIONS = {"whitespace_pattern": r"\x20|\n{1,2}[\x20\t]{0,20}"}
"""Between the tokens of JSON: as much as anybody writes, and too little for a weak model to go on with for ever."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_VALUES = ("const", "default", "enum", "examples")
"""Keywords of JSON schemas that hold schemas by names of the client's, and that hold none."""

_LARK_NOISE = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|#[^\n]*|/(?:[^/\\\n]|\\.)+/')
"""Texts, comments and regular expressions inside Lark."""

_NOT_ENFORCED = re.compile(r"\b(stop|max_tokens|temperature)\s*=")
"""Options of Lark rules: `stop` hides text that is sent, `max_tokens` cuts, `temperature` is the request's."""

_EMBEDDED = re.compile(r"%json\s*")
"""What JSON schemas inside Lark stand behind."""


class NoGrammar(Exception):
    """The text is not what its kind says, or too much of it; the message says why."""


class Trial(msgspec.Struct, frozen=True):
    """What the child is to try out: a grammar, and one that it may name `@content`."""

    grammar: Grammar
    content: Grammar | None = None

    @property
    def grammars(self) -> tuple[Grammar, ...]:
        return (self.grammar, self.content) if self.content else (self.grammar,)

    @property
    def size_bytes(self) -> int:
        return sum(grammar.size_bytes for grammar in self.grammars)


class Outcome(msgspec.Struct, frozen=True):
    """What the child says of it.

    Attributes:
        source: What llguidance is to be given; empty if it refused that.
        reason: Why it did, for people.
    """

    source: str = ""
    reason: str = ""


READY = Outcome()
"""What the child says first, before any grammar has come."""


def to_llguidance(grammar: Grammar, content: Grammar | None) -> str:
    """The compiler's own form, in which a text is nothing but what its kind says.

    Args:
        content: What `@content` stands for, in a grammar of kind `answer`.

    Raises:
        NoGrammar: It cannot be put like that.
    """
    grammars = [_own_form(grammar)]
    if content:
        grammars.append({**_own_form(content), "name": "content"})
    return json.dumps({"grammars": grammars})


def check_size(trial: Trial) -> None:
    """Refuse what is too long with NoGrammar."""
    for grammar in trial.grammars:
        size, most = grammar.size_bytes, MAX_BYTES[grammar.kind]
        if size > most:
            raise NoGrammar(f"it has {size} bytes, and may have {most}")


def reason_of(matcher: LLMatcher) -> str:
    """Why the grammar of a matcher that has failed cannot be used, for people."""
    error = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())
    if error.startswith("panic"):  # with a backtrace
        return "it is too complex"
    if error.startswith("NoExtensionBias"):
        return "no text can be what it wants"
    return error if len(error) <= MAX_REASON else error[:MAX_REASON] + "..."


def _own_form(grammar: Grammar) -> dict[str, object]:
    match grammar.kind:
        case "json_object":
            return _of_schema({"type": "object"})
        case "json_schema":
            return _of_schema(json.loads(grammar.text))
        case "regex":
            (quoted,) = json.loads(LLMatcher.grammar_from_regex(grammar.text))["grammars"]
            return {"lark_grammar": quoted["lark_grammar"]}
        case "lark":
            return _of_lark(grammar.text)
        case "gbnf":
            return _of_lark(_convert(grammar.text))
        case "answer":
            _check_embedded(grammar.text)
            return {"lark_grammar": grammar.text}


def _of_schema(schema: object) -> dict[str, object]:
    if schema is True:
        schema = {}
    _check_counts(schema)
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": JSON_OPTIONS}  # in place of a client's: its options could make other texts
    return {"json_schema": schema}


def _check_counts(schema: object) -> None:
    """The compiler counts properties, but lets the free ones among them have one name twice."""
    if isinstance(schema, list):
        for each in schema:
            _check_counts(each)
    elif isinstance(schema, dict):
        least, required = schema.get("minProperties"), schema.get("required")
        num_required = len(required) if isinstance(required, list) else 0
        if isinstance(least, int) and least > num_required + 1:
            raise NoGrammar(f"it has minProperties {least}, of which at most one more than `required` can be enforced")
        for keyword, value in schema.items():
            if keyword in _MAPS and isinstance(value, dict):
                _check_counts(list(value.values()))
            elif keyword not in _VALUES:
                _check_counts(value)


def _of_lark(lark: str) -> dict[str, object]:
    bones = _LARK_NOISE.sub("", lark)
    if "<" in bones:
        raise NoGrammar("it names a token with <...>; write the text that it stands for")
    if found := _NOT_ENFORCED.search(bones):
        raise NoGrammar(f"its option {found[1]!r} would let other texts pass; leave it out, or use 'suffix' or 'lazy'")
    _check_embedded(lark)
    return {"lark_grammar": lark}


def _check_embedded(lark: str) -> None:
    """Check the counts of JSON schemas inside Lark; what is none, or too deep, the compiler refuses itself."""
    for found in _EMBEDDED.finditer(lark):
        with contextlib.suppress(ValueError, RecursionError):
            _check_counts(json.JSONDecoder().raw_decode(lark, found.end())[0])


def _convert(gbnf: str) -> str:
    try:
        return gbnf_to_lark(gbnf)
    except Exception as exc:  # the converter raises all sorts, IndexError and RecursionError among them
        raise NoGrammar(f"it is no GBNF: {exc}"[:MAX_REASON]) from exc
