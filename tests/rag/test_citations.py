from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.rag.citations import Citation, CitationFilter


def send(*parts: str, num_sources: int = 3) -> tuple[str, CitationFilter]:
    citations = CitationFilter(num_sources)
    return "".join([*map(citations.feed, parts), citations.finish()]), citations


def sent(text: str) -> str:
    return send(text)[0]


@pytest.mark.parametrize(
    ("text", "expected", "num_removed"),
    [
        ("Paris [1] is big [2, 3].", "Paris [1] is big [2, 3].", 0),
        ("Paris [9] is big [4].", "Paris is big.", 2),
        ("Paris[9] is big.[0]", "Paris is big.", 2),
        ("So it is [2, 9].", "So it is [2].", 1),
        ("So it is [9, 3; 1].", "So it is [3, 1].", 1),
        ("So it is [1-3].", "So it is [1-3].", 0),
        ("So it is [2–7].", "So it is [2, 3].", 1),
        ("So it is [4-7].", "So it is.", 1),
        ("So it is [1][9][2].", "So it is [1][2].", 1),
        ("So it is [ 1 ] and 【2】 and 【8】.", "So it is [ 1 ] and 【2】 and.", 1),
        ("By the end [9]", "By the end", 1),
        ("`a`[9]`b`", "`a`…`b`", 1),
        ("Nested [[9]8] [[7]]", "Nested […8] […]", 2),
    ],
)
def test_numbers_that_name_no_source_are_removed_and_counted(text: str, expected: str, num_removed: int) -> None:
    answer, citations = send(text)

    assert (answer, citations.num_removed) == (expected, num_removed)


@pytest.mark.parametrize(
    "text",
    [
        "- [x] done, [ ] open, [^9] and [9a] and [a9] and [] and [-1, 1] and [1.5]",
        "x in [0, 9] and [0-9]",
        "[9](https://example.org) and ![9](image.png)",
        r"\[9] and \[ 9 \]",
        "`a[9]` and ``b` [9]``",
        "```python\na[9]\n```\n",
        "1. So:\n   ````\n```\na[9]\n   ````\n",
        "> ```\n> a[9]\n> ```\n",
        "```\nnever closed [9]\n\n[9]",
        "an open bracket [",
        "an open one [9",
        "a space at the end ",
    ],
)
def test_other_brackets_are_left_alone(text: str) -> None:
    answer, citations = send(text)

    assert answer == text
    assert (citations.citations, citations.num_removed) == ([], 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5` wide [9] and so on\n", "5` wide and so on\n"),
        ("`a` [9] `b`", "`a` `b`"),
        ("```not a fence``` [9]", "```not a fence```"),
        ("text ```python\n[9]", "text ```python\n"),
        ("```\ncode\n```\ntext [9]", "```\ncode\n```\ntext"),
        ("`" + "x" * 300 + "[9]`", "`" + "x" * 300 + "`"),
    ],
)
def test_what_only_looks_like_code_is_text(text: str, expected: str) -> None:
    assert sent(text) == expected


def test_citations_tell_where_they_stand_in_what_was_sent() -> None:
    answer, citations = send("Ä [7] b [1], [3, 9] `[1]` [1-2]")

    assert answer == "Ä b [1], [3] `[1]` [1-2]"
    assert citations.citations == [Citation(4, 7, (1,)), Citation(9, 12, (3,)), Citation(19, 24, (1, 2))]
    assert [answer[each.start : each.end] for each in citations.citations] == ["[1]", "[3]", "[1-2]"]


def test_plain_text_is_not_held_back() -> None:
    citations = CitationFilter(3)

    assert [citations.feed(part) for part in ("Paris", " is", " big", " [1", "]", ".", " ")] == [
        "Paris",
        " is",
        " big",
        "",
        "",
        " [1].",
        "",
    ]


ANSWERS = st.lists(
    st.sampled_from(
        ["[", "]", "【", "】", "1", "2", "9", "0", ", ", "-", "`", "```", "\n", "\\", "(", " ", "[1]", "[9]", "x"]
    )
    | st.text(max_size=3)
).map("".join)


@given(ANSWERS, st.data())
@example("[[9]8]", None)
@example("[8 [9]]", None)
def test_any_cut_of_the_stream_gives_the_same(text: str, data: st.DataObject | None) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text))))) if data else range(len(text))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    whole, cut = send(text), send(*parts)

    assert cut[0] == whole[0]
    assert (cut[1].citations, cut[1].num_removed) == (whole[1].citations, whole[1].num_removed)


@given(ANSWERS)
def test_no_wrong_number_gets_through(text: str) -> None:
    answer, citations = send(text)

    cited = {each.start for each in citations.citations}
    outside = re.sub(r".*`.*|\\.", lambda match: "x" * len(match[0]), answer.split("```")[0])
    for mark in re.finditer(r"[\[【] *(\d+) *[\]】](?!\()", outside):
        assert mark.start() in cited
    for each in citations.citations:
        assert set(each.numbers) <= {1, 2, 3}
        assert answer[each.start] in "[【" and answer[each.end - 1] in "]】"


@given(ANSWERS)
def test_what_was_filtered_stays_as_it_is(text: str) -> None:
    answer, _ = send(text)
    again, citations = send(answer)

    assert (again, citations.num_removed) == (answer, 0)


@pytest.mark.parametrize("text", ["[1, ", "[", "`", "` ``", "[9]", " ", "``` [9", "\\", "word ", "\n", "[[9]"])
def test_a_hostile_stream_takes_linear_time(text: str) -> None:
    started_at = time.process_time()
    send(*(text * (60_000 // len(text))))

    assert time.process_time() - started_at < 20  # it is a few; quadratic time would be minutes
