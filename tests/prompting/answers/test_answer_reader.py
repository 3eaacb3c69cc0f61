"""What holds for the answers of every family, whatever a model writes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parsers import ANSWER_FLOODS, SIZE
from server.prompting.answers.deepseek import DEEPSEEK
from server.prompting.answers.harmony import HARMONY
from server.prompting.answers.known_formats import TOOL_FORMATS
from server.prompting.answers.thoughts import GEMMA, MISTRAL, THINK, ThoughtTags
from server.prompting.answers.tool_format import ToolFormat
from tests.fakes.spoken import Spoken, hear, read, reader_of

FORMATS = list(TOOL_FORMATS.items())
THOUGHTS = st.sampled_from([None, THINK, MISTRAL, GEMMA])

ARGUMENTS = ['{"city": "Oslo"}', '{"a": {"b": [1, "x\\n"]}}', "{}", '{"city": "Os', '{"a": 1,}', "[1]", "1"]
CALLS = [(name, arguments) for name in ("get_weather", "get_time", "sing") for arguments in ARGUMENTS]
SCRAPS = [
    *("<tool_call>", "</tool_call>", "<function=get_time>", "<parameter=a>", "</parameter>", "</function>"),
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|tool_call>call:", "<tool_call|>", '<|"|>'),
    *(
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
    ),
    *("<|channel|>", "analysis", "final", "<|message|>", "<|end|>", "<|start|>", " to=functions.get_time", "<|call|>"),
    *("<think>", "</think>", "[THINK]", "[/THINK]", "<|channel>thought\n", "<channel|>"),
    *('{"name": "', '", "arguments": ', "get_time", "{", "}", '"', "[", ",", ";", " ", "\n", "<", "<|", "\\", "é"),
]
TEXTS = st.sampled_from(FORMATS).flatmap(
    lambda named: st.lists(
        st.lists(st.sampled_from(CALLS), min_size=1, max_size=2).map(named[1].frame.write)
        | st.sampled_from(SCRAPS)
        | st.text(max_size=3),
        max_size=8,
    )
)


@settings(deadline=None)
@given(
    st.sampled_from(FORMATS), THOUGHTS, TEXTS, st.lists(st.integers(1, 9), max_size=80), st.booleans(), st.booleans()
)
def test_how_a_text_is_cut_changes_nothing(
    named: tuple[str, ToolFormat],
    thoughts: ThoughtTags | None,
    scraps: list[str],
    sizes: list[int],
    is_thinking: bool,
    trusts_calls: bool,
) -> None:
    text = "".join(scraps)
    how = {"thoughts": thoughts, "is_thinking": is_thinking, "trusts_calls": trusts_calls}

    whole = read(text, named[1], **how)

    assert hear(reader_of(named[1], **how), _cut(text, sizes)) == whole


@settings(deadline=None)
@given(st.sampled_from(FORMATS), THOUGHTS, TEXTS)
def test_arguments_are_objects_of_known_functions(
    named: tuple[str, ToolFormat], thoughts: ThoughtTags | None, scraps: list[str]
) -> None:
    spoken = read("".join(scraps), named[1], thoughts=thoughts)

    for name, arguments in spoken.calls:
        assert name in ("get_weather", "get_time")
        assert isinstance(json.loads(arguments), dict)


@settings(deadline=None)
@given(st.sampled_from([named for named in FORMATS if named[1] is not HARMONY]), TEXTS)
def test_without_a_call_nothing_is_lost(named: tuple[str, ToolFormat], scraps: list[str]) -> None:
    text = "".join(scraps)

    spoken = read(text, named[1], schemas={})

    assert spoken == Spoken(text)


@pytest.mark.parametrize("named", FORMATS, ids=list(TOOL_FORMATS))
@pytest.mark.parametrize("trusts_calls", [False, True])
def test_what_a_frame_writes_is_read_back(named: tuple[str, ToolFormat], *, trusts_calls: bool) -> None:
    calls = [("get_weather", '{"city": "Os}lo\\n"}'), ("get_time", "{}")]
    calls = calls[:1] if named[1].is_single else calls

    spoken = read(named[1].frame.write(calls), named[1], trusts_calls=trusts_calls)

    assert spoken == Spoken("", "", calls)


@pytest.mark.parametrize("named", FORMATS, ids=list(TOOL_FORMATS))
@pytest.mark.parametrize("num_chars", [64, SIZE], ids=["in pieces", "whole"])
def test_half_a_megabyte_of_anything_is_read_in_linear_time(named: tuple[str, ToolFormat], num_chars: int) -> None:
    """A second is what a slow machine might take for the worst; anything quadratic takes minutes."""
    for flood in ANSWER_FLOODS:
        assert _seconds(named[1], (flood * SIZE)[:SIZE], num_chars) < 5, flood


@pytest.mark.parametrize("named", FORMATS, ids=list(TOOL_FORMATS))
@pytest.mark.parametrize("num_chars", [4, SIZE], ids=["by token", "whole"])
def test_twice_the_text_takes_twice_the_steps(named: tuple[str, ToolFormat], num_chars: int) -> None:
    """Steps are calls of functions, Python's own included: counted, they do not depend on the machine."""
    for flood in ANSWER_FLOODS:
        few, many = (_num_steps(named[1], (flood * size)[:size], num_chars) for size in (2_000, 4_000))
        assert many <= 2.1 * few + 200, flood


def test_long_arguments_cost_no_more_in_pieces_of_a_token() -> None:
    text = f'<tool_call>{{"name": "get_time", "arguments": {{"a": "{"x" * SIZE}"}}}}</tool_call>'

    spoken = hear(reader_of(TOOL_FORMATS["hermes"]), [text[at : at + 4] for at in range(0, len(text), 4)])

    assert len(spoken.calls[0][1]) == SIZE + 9


def test_deepseeks_empty_list_of_calls_is_content() -> None:
    assert read("<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>", DEEPSEEK).calls == []


def _seconds(tools: ToolFormat, text: str, num_chars: int) -> float:
    reader = reader_of(tools, thoughts=THINK)
    started = time.perf_counter()
    for at in range(0, len(text), num_chars):
        reader.push(text[at : at + num_chars])
    reader.finish()
    return time.perf_counter() - started


def _num_steps(tools: ToolFormat, text: str, num_chars: int) -> int:
    reader = reader_of(tools, thoughts=THINK)
    num_steps = 0

    def count(*_event: object) -> None:
        nonlocal num_steps
        num_steps += 1

    sys.setprofile(count)
    try:
        for at in range(0, len(text), num_chars):
            reader.push(text[at : at + num_chars])
        reader.finish()
    finally:
        sys.setprofile(None)
    return num_steps


def _cut(text: str, sizes: Sequence[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]
