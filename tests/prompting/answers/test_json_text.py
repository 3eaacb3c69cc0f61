"""JSON as it comes: what is accepted parses, what parses is accepted, and the cuts change nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.prompting.answers.json_text import MAX_DEPTH, copy_json, read_string
from server.prompting.answers.text_source import TextSource
from tests.prompting.answers.test_text_source import drain

GEMMA_QUOTE = '<|"|>'


def copy(pieces: Sequence[str], quote: str | None = None) -> tuple[bool, str, str]:
    """Whether it is JSON, what was copied of it, and what was left."""
    source, copied = TextSource(), list[str]()
    reading = copy_json(source, copied.append, quote=quote)
    result: bool | None = None
    for piece in [*pieces, None]:
        if piece is None:
            source.close()
        else:
            source.feed(piece)
        if result is None:
            try:
                next(reading)
            except StopIteration as done:
                result = done.value
    assert result is not None
    return result, "".join(copied), drain(source)


@pytest.mark.parametrize("text", ['{"a": [1, -2.5e+3, true, null, "\\u00e9\\n"], "b": {}}', "[]", '"x"', "0", "[[{}]]"])
def test_json_is_copied_as_it_stands(text: str) -> None:
    assert copy(list(text + " rest")) == (True, text, " rest")


BROKEN = """
{ {"a" {"a": {"a":1 [1, [1,] {"a":1,} {,} {a:1} {'a':1} "a "\\x" "\\u12" tru nul - 01 1. .5 1e NaN Infinity +1 {"a"1} ]
"""


@pytest.mark.parametrize("text", ["", "[1 2]", "1" * 1001, *BROKEN.split()])
def test_what_is_broken_or_unfinished_is_no_json(text: str) -> None:
    assert copy(list(text))[0] is False


def test_raw_line_breaks_in_strings_are_escaped() -> None:
    assert copy(['{"code": "a\n\tb\x01"}'])[1] == '{"code": "a\\n\\tb\\u0001"}'


def test_reading_stops_at_the_character_that_cannot_be() -> None:
    assert copy(['{"a": <tool_call>'])[2] == "<tool_call>"


def test_only_so_deep_as_requests_may_be() -> None:
    assert copy(["[" * MAX_DEPTH + "]" * MAX_DEPTH])[0]
    assert not copy(["[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)])[0]


def test_other_quotes_and_bare_keys_become_json() -> None:
    text = f'{{city:{GEMMA_QUOTE}"Oslo"\n{GEMMA_QUOTE},n:[1,{{x:true}}],{GEMMA_QUOTE}k{GEMMA_QUOTE}:"y"}}'

    is_json, copied, _ = copy(list(text), GEMMA_QUOTE)

    assert is_json
    assert json.loads(copied) == {"city": '"Oslo"\n', "n": [1, {"x": True}], "k": "y"}


def test_strings_are_read() -> None:
    source = TextSource()
    source.feed('"a\\u00e9\\"b" rest')
    reading = read_string(source)
    with pytest.raises(StopIteration) as done:
        next(reading)

    assert done.value.value == 'aé"b'


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES, st.booleans(), st.sampled_from([None, 2]), st.lists(st.integers(1, 7), max_size=60))
def test_all_json_is_copied_however_it_is_cut(
    value: Any, ascii_only: bool, indent: int | None, sizes: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    is_json, copied, rest = copy(cut(text, sizes))

    assert (is_json, copied, rest) == (True, text, "")


SCRAPS = st.lists(
    st.sampled_from([*'{}[]",: \n\\', '"a"', "1", "-", "e5", "true", "nul", "\\u00", '"b": ']), max_size=25
)


@settings(deadline=None)
@given(SCRAPS)
def test_what_is_accepted_parses(scraps: list[str]) -> None:
    is_json, copied, rest = copy(scraps)
    whole = copy(["".join(scraps)])

    assert whole == (is_json, copied, rest)
    if is_json:
        json.loads(copied)


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    """The text in pieces of these sizes, and then the rest."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]
