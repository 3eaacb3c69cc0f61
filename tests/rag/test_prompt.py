from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import ContextLengthExceeded
from server.rag.documents import Chunk, Parent, Span
from server.rag.prompt import (
    MAX_CHARS_PER_TOKEN,
    NO_SOURCE_ANSWER,
    RULES,
    CountTokens,
    Source,
    SourcePrompt,
    source_of,
    write_prompt,
)
from server.rag.search import Hit


def source(document_id: int, start: int, text: str, *, core: Span | None = None, heading: str = "") -> Source:
    return Source(
        document_id=document_id,
        file_id=f"file-{document_id}",
        filename=f"{document_id}.txt",
        span=Span(start, start + len(text), 7, heading),
        text=text,
        core=core,
    )


def num_words(text: str) -> int:
    return len(text.split())


async def count_words(texts: Sequence[str]) -> list[int]:
    return list(map(num_words, texts))


def write(*sources: Source, max_tokens: int = 10_000, count_tokens: CountTokens = count_words) -> SourcePrompt:
    return asyncio.run(write_prompt(sources, max_tokens=max_tokens, count_tokens=count_tokens))


def test_sources_are_numbered_in_an_order_of_their_own() -> None:
    """Not by rank: then the prompts of two questions with the same sources begin alike, and are computed once."""
    sources = [source(2, 0, "c"), source(1, 50, "b"), source(1, 0, "a"), source(3, 0, "d")]
    shuffled = random.Random(1).sample(sources, len(sources))

    prompt = write(*sources)

    assert [each.text for each in prompt.sources] == ["a", "b", "c", "d"]
    assert write(*shuffled) == prompt


def test_a_newer_source_leaves_the_beginning_as_it_was() -> None:
    old = [source(2, 0, "old"), source(1, 0, "older")]

    assert write(source(9, 0, "new"), *old).text.startswith(write(*old).text)


def test_a_source_tells_where_it_comes_from() -> None:
    assert write(source(1, 0, "text", heading="A > B")).text.endswith(
        '<source n="1" file="1.txt" page="7" section="A > B">\ntext\n</source>'
    )


def test_rules_come_first_and_count() -> None:
    prompt = write(source(1, 0, "text"))

    assert prompt.text.startswith(RULES)
    assert prompt.num_tokens == num_words(prompt.text)


def test_the_best_sources_are_chosen_within_the_budget() -> None:
    sources = [source(4 - rank, 0, "word " * 50) for rank in range(3)]

    prompt = write(*sources, max_tokens=num_words(RULES) + 125)

    assert list(prompt.sources) == [sources[1], sources[0]]
    assert prompt.dropped == (sources[2],)
    assert prompt.num_tokens <= num_words(RULES) + 125


def test_where_a_source_does_not_fit_its_core_is_shown() -> None:
    text = "before " * 50 + "found" + " after" * 50
    core = Span(100 + text.index("found"), 100 + text.index("found") + 5, 8, "B")

    prompt = write(source(1, 100, text, core=core), max_tokens=num_words(RULES) + 20)

    [shown] = prompt.sources
    assert (shown.text, shown.span) == ("found", core)


def test_what_two_sources_share_is_shown_once() -> None:
    text = "0123456789" * 3
    sources = [source(1, 0, text[:20]), source(1, 10, text[10:]), source(1, 5, text[5:15]), source(2, 5, "other")]

    prompt = write(*sources)

    assert [each.text for each in prompt.sources] == [text[:20], text[20:], "other"]
    assert [(each.span.start, each.span.end) for each in prompt.sources] == [(0, 20), (20, 30), (5, 10)]


def test_what_was_found_twice_in_a_stretch_takes_room_once() -> None:
    text = "one two three four"
    found = [source(1, 0, text, core=Span(0, 3)), source(1, 0, text, core=Span(4, 7))]

    prompt = write(*found, max_tokens=num_words(write(found[0]).text))

    assert (prompt.sources, prompt.dropped) == ((found[0],), ())


def test_a_hit_is_shown_with_its_parent() -> None:
    chunk = Chunk(
        id=1,
        document_id=5,
        file_id="file-5",
        filename="a.txt",
        ordinal=0,
        text="found",
        span=Span(10, 15),
        parent_id=2,
        num_tokens=1,
    )
    parent = Parent(id=2, document_id=5, text="before found after", span=Span(3, 21))
    hit = Hit(chunk=chunk, score=0.5, places={})

    alone, whole = source_of(hit), source_of(replace(hit, parent=parent))

    assert (alone.text, alone.only_core()) == ("found", alone)
    assert (whole.text, whole.only_core().text) == (parent.text, "found")


def test_tokens_across_borders_count() -> None:
    sources = [source(1, 0, "a"), source(2, 0, "b")]

    async def count(texts: Sequence[str]) -> list[int]:
        return [num_words(text) + 5 * text.count("</source>\n\n<source") for text in texts]

    alone = write(*sources, count_tokens=count)
    less = write(*sources, max_tokens=alone.num_tokens - 1, count_tokens=count)

    assert (less.sources, less.dropped) == ((sources[0],), (sources[1],))


def test_the_parts_are_counted_together_and_what_is_far_too_long_is_not() -> None:
    counted: list[Sequence[str]] = []

    async def count(texts: Sequence[str]) -> list[int]:
        counted.append(texts)
        return await count_words(texts)

    room = 2 * num_words(RULES)
    endless = source(1, 0, "x" * (MAX_CHARS_PER_TOKEN * room))
    prompt = write(endless, source(2, 0, "a"), source(3, 0, "b"), max_tokens=room, count_tokens=count)

    assert (len(prompt.sources), prompt.dropped) == (2, (endless,))
    assert [len(texts) for texts in counted] == [3, 1]


def test_without_sources_the_model_is_told_to_say_so() -> None:
    prompt = write()

    assert NO_SOURCE_ANSWER in prompt.text
    assert prompt.sources == ()


@pytest.mark.parametrize("sources", [[], [source(1, 0, "text")]])
def test_no_room_is_an_error_not_an_answer_without_sources(sources: list[Source]) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"10 tokens are left for sources, .* need at least \d+; shorten"):
        write(*sources, max_tokens=10)


HOSTILE = st.lists(
    st.sampled_from(
        [
            "</source>",
            "<source n=",
            '"9"',
            ">",
            "\n",
            " ",
            "< / SOURCE",
            "＜source",
            "<\u200bsource",
            '" n="1',
            "text",
            "<",
        ]
    )
    | st.text(max_size=5)
).map("".join)


@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=4))
def test_no_document_can_forge_a_quotation(documents: list[tuple[str, str, str]]) -> None:
    sources = [
        Source(document_id=number, file_id="f", filename=name, span=Span(0, len(text), None, heading), text=text)
        for number, (text, name, heading) in enumerate(documents)
        if text
    ]

    text = write(*sources).text.removeprefix(RULES) if sources else ""

    tags = re.findall(r"[<＜]\s*[\u200b]*\s*/?\s*source", text, re.IGNORECASE)
    assert tags == ["<source", "</source"] * len(sources)
    assert len(re.findall(r'^<source n="\d+"(?: \w+="[^"<\n]*")*>$', text, re.MULTILINE)) == len(sources)
