"""Chunks: windows of tokens, and structure. A token of these tests is a run of letters or digits, or one other sign."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rag.chunker import chunk
from server.rag.documents import Block, ChunkedDocument, ChunkingStrategy, ParsedDocument, Span

TOKEN = re.compile(r"[^\W_]+|[^\s\w]|_")


def tokens_of(text: str) -> npt.NDArray[np.int32]:
    return np.array([match.span() for match in TOKEN.finditer(text)], np.int32).reshape(-1, 2)


def num_tokens(text: str) -> int:
    return len(tokens_of(text))


def document_of(*blocks: tuple[str, str] | tuple[str, str, int]) -> ParsedDocument:
    """Blocks of a kind, a text and a page or, of a heading, a level; with an empty line between them."""
    text, placed = "", []
    for kind, content, *number in blocks:
        text += "\n\n" if text else ""
        place = {"level" if kind == "heading" else "page": each for each in number}
        placed.append(Block(kind, len(text), len(text) + len(content), **place))  # type: ignore[arg-type]
        text += content
    return ParsedDocument(text, tuple(placed), "text/plain")


def cut(document: ParsedDocument, strategy: ChunkingStrategy) -> ChunkedDocument:
    return chunk(document, strategy, tokens_of(document.text))


def texts(document: ParsedDocument, max_tokens: int, overlap_tokens: int = 0) -> list[str]:
    strategy = ChunkingStrategy(kind="structural", max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    return [document.text[each.span.start : each.span.end] for each in cut(document, strategy).chunks]


def words(number: int, word: str = "w") -> str:
    return " ".join(f"{word}{index}" for index in range(number))


# ---- OpenAI's strategies


def test_static_windows_repeat_as_many_tokens_as_asked() -> None:
    document = document_of(("paragraph", words(25)))

    chunked = cut(document, ChunkingStrategy(kind="static", max_tokens=10, overlap_tokens=4))

    starts = [document.text[each.span.start : each.span.end].split()[0] for each in chunked.chunks]
    assert starts == ["w0", "w6", "w12", "w18"]
    assert [each.num_tokens for each in chunked.chunks] == [10, 10, 10, 7]
    assert list(chunked.parents) == [each.span for each in chunked.chunks]


def test_auto_is_static_with_openais_sizes() -> None:
    document = document_of(("paragraph", words(2000)))
    static = ChunkingStrategy(kind="static", max_tokens=800, overlap_tokens=400)

    assert cut(document, ChunkingStrategy(kind="auto", max_tokens=20, overlap_tokens=0)) == cut(document, static)
    assert [each.num_tokens for each in cut(document, static).chunks] == [800, 800, 800, 800]


def test_half_a_character_is_never_cut_off() -> None:
    """A byte-level tokenizer makes several tokens of one character."""
    document = document_of(("paragraph", "abc€def"))
    tokens = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (3, 4), (3, 4), (4, 5), (5, 6), (6, 7)], np.int32)

    chunked = chunk(document, ChunkingStrategy(kind="static", max_tokens=4, overlap_tokens=0), tokens)

    assert [(each.span.start, each.span.end, each.num_tokens) for each in chunked.chunks] == [
        (0, 3, 3),
        (3, 5, 4),
        (5, 7, 2),
    ]


def test_a_word_that_the_tokenizer_takes_whole_is_cut_all_the_same() -> None:
    document = document_of(("paragraph", "x" * 1_000_000))
    tokens = np.array([(0, 1_000_000)], np.int32)

    for kind in ("static", "structural"):
        chunked = chunk(document, ChunkingStrategy(kind=kind, max_tokens=100, overlap_tokens=0), tokens)

        assert max(each.span.end - each.span.start for each in chunked.chunks) <= 6400


@pytest.mark.parametrize("kind", ["auto", "static", "structural"])
@pytest.mark.parametrize("text", ["", " \n\t "])
def test_no_text_gives_no_chunks(kind: str, text: str) -> None:
    assert cut(ParsedDocument(text, (), "text/plain"), ChunkingStrategy(kind=kind)) == ChunkedDocument((), ())  # type: ignore[arg-type]


# ---- structure


def test_a_section_of_fair_length_has_a_chunk_of_its_own() -> None:
    one, two = words(30, "a"), words(40, "b")
    document = document_of(("heading", "One", 1), ("paragraph", one), ("heading", "Two", 1), ("paragraph", two))

    assert texts(document, 100) == [f"One\n\n{one}", f"Two\n\n{two}"]


def test_short_sections_share_a_chunk() -> None:
    faq = [
        ("heading", f"Question {index}", 2) if part else ("paragraph", "Yes.") for index in range(3) for part in (1, 0)
    ]

    assert len(texts(document_of(*faq), 100)) == 1


def test_a_short_section_stays_apart_from_the_next_chapter() -> None:
    document = document_of(
        ("heading", "Chapter 1", 1),
        ("paragraph", words(60)),
        ("heading", "Last section", 2),
        ("paragraph", "Short."),
        ("heading", "Chapter 2", 1),
        ("paragraph", words(60)),
    )

    assert [text.splitlines()[0] for text in texts(document, 100)] == ["Chapter 1", "Last section", "Chapter 2"]


def test_a_short_section_stays_apart_from_one_that_would_be_torn() -> None:
    document = document_of(("paragraph", "Preface."), ("heading", "Long", 1), ("paragraph", words(300)))

    first, second, *_ = texts(document, 100)

    assert first == "Preface."
    assert second.startswith("Long\n\nw0")


def test_a_heading_keeps_to_what_stands_under_it() -> None:
    document = document_of(
        ("paragraph", words(90)), ("heading", "One", 1), ("heading", "Two", 2), ("paragraph", words(90, "x"))
    )

    assert [text.split()[0] for text in texts(document, 100)] == ["w0", "One"]


def test_paragraphs_are_kept_whole_where_they_fit() -> None:
    paragraphs = [words(40, name) for name in "abcd"]

    assert texts(document_of(*(("paragraph", each) for each in paragraphs)), 100) == [
        "\n\n".join(paragraphs[:2]),
        "\n\n".join(paragraphs[2:]),
    ]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    sentences = [f"{words(30, name)}." for name in "abcdefg"]

    assert texts(document_of(("paragraph", " ".join(sentences))), 100) == [
        " ".join(sentences[:3]),
        " ".join(sentences[3:6]),
        sentences[6],
    ]


def test_a_long_sentence_is_cut_between_words() -> None:
    text = words(250)
    tokens = np.array([(match.start(), match.end()) for match in re.finditer(r"w|\d+", text)], np.int32)

    chunked = chunk(
        ParsedDocument(text, (), "text/plain"),
        ChunkingStrategy(kind="structural", max_tokens=101, overlap_tokens=0),
        tokens,
    )

    parts = [text[each.span.start : each.span.end] for each in chunked.chunks]
    assert " ".join(parts) == text
    assert all(re.fullmatch(r"w\d+( w\d+)*", part) for part in parts)


@pytest.mark.parametrize("kind", ["table", "code"])
def test_a_table_or_code_is_kept_whole_where_it_fits(kind: str) -> None:
    rows = "\n".join(f"row {index}" for index in range(48))
    document = document_of(("heading", "Ports", 1), ("paragraph", words(10)), (kind, rows), ("paragraph", words(50)))

    for overlap_tokens in (0, 50):
        assert sum(rows in text for text in texts(document, 100, overlap_tokens)) == 1


def test_a_long_table_is_cut_between_rows() -> None:
    rows = [f"| port {index} | any host |" for index in range(100)]

    parts = texts(document_of(("table", "\n".join(rows))), 100)

    assert len(parts) > 1
    assert "\n".join(parts).split("\n") == rows


def test_long_code_is_cut_at_empty_lines_first() -> None:
    functions = [f"def f{index}():\n" + "\n".join(["    call()"] * 10) for index in range(6)]

    parts = texts(document_of(("code", "\n\n".join(functions))), 100)

    assert all(part.startswith("def f") for part in parts)


def test_overlap_is_of_whole_sentences() -> None:
    sentences = [f"{words(9, name)}." for name in "abcdefghijklm"]

    parts = texts(document_of(("paragraph", " ".join(sentences))), 50, 25)

    assert parts[0] == " ".join(sentences[:5])
    assert parts[1] == " ".join(sentences[3:8])


def test_nothing_above_a_heading_is_repeated_under_it() -> None:
    document = document_of(("paragraph", "A sentence. " * 20), ("heading", "Next", 1), ("paragraph", words(30)))

    assert texts(document, 100, 50)[-1].startswith("Next")


def test_chunks_know_their_page_and_the_headings_above() -> None:
    document = document_of(
        ("heading", "# Guide", 1),
        ("heading", "## Setup #", 2),
        ("paragraph", words(90), 3),
        ("paragraph", words(90, "x"), 4),
        ("heading", "Use\n===", 2),
        ("paragraph", words(90)),
    )

    spans = [
        each.span
        for each in cut(document, ChunkingStrategy(kind="structural", max_tokens=100, overlap_tokens=0)).chunks
    ]

    assert [(span.heading, span.page) for span in spans] == [
        ("Guide > Setup", None),
        ("Guide > Setup", 4),
        ("Guide > Use", 4),
    ]


@pytest.mark.parametrize("kind", ["static", "structural"])
def test_where_pages_begin_is_kept_whatever_the_chunks_are(kind: Literal["static", "structural"]) -> None:
    document = document_of(("paragraph", "a", 1), ("paragraph", "b", 1), ("paragraph", "c"), ("paragraph", "d", 4))

    chunked = cut(document, ChunkingStrategy(kind=kind, max_tokens=300, overlap_tokens=0))

    assert chunked.pages == ((0, 1), (document.text.index("d"), 4))


def test_marks_around_a_block_belong_to_it() -> None:
    """A parser of Markdown takes a heading without its marks."""
    text = f"Title\n=====\n\n{words(60)}\n\n## Next ##\n\n***\n\n{words(60)}"
    first, second = (match.start() for match in re.finditer("w0", text))
    blocks = (
        Block("heading", 0, 5, level=1),
        Block("paragraph", first, first + len(words(60))),
        Block("heading", text.index("Next"), text.index("Next") + 4, level=2),
        Block("paragraph", second, len(text)),
    )

    document = ParsedDocument(text, blocks, "text/markdown")

    assert [part.split()[:2] for part in texts(document, 100)] == [["Title", "====="], ["##", "Next"]]
    strategy = ChunkingStrategy(kind="structural", max_tokens=100, overlap_tokens=0)
    assert [each.span.heading for each in cut(document, strategy).chunks] == ["Title", "Title > Next"]


def test_words_between_blocks_are_a_paragraph() -> None:
    table = "\n".join(f"row {index}" for index in range(40))
    text = f"{table}\nNot in any block.\n\n{table}"
    blocks = (Block("table", 0, len(table)), Block("table", len(text) - len(table), len(text)))

    assert texts(ParsedDocument(text, blocks, "text/plain"), 90) == [f"{table}\nNot in any block.", table]


def test_parents_hold_several_chunks() -> None:
    document = document_of(*(("paragraph", words(90, name)) for name in "abcdef"))
    strategy = ChunkingStrategy(kind="structural", max_tokens=100, overlap_tokens=0, parent_tokens=300)

    chunked = cut(document, strategy)

    assert [each.parent for each in chunked.chunks] == [0, 0, 0, 1, 1, 1]
    assert len(chunked.parents) == 2


# ---- what holds for any text


@st.composite
def documents(draw: st.DrawFn) -> ParsedDocument:
    """Blocks of all kinds with anything between and in them, cut wherever."""
    parts = st.text(alphabet=st.sampled_from("ab .!?。\n-|#`") | st.characters(), max_size=30)
    text, blocks = "", []
    for _ in range(draw(st.integers(0, 8))):
        text += draw(parts) + "\n"
        content = draw(parts)
        kind = draw(st.sampled_from(["heading", "paragraph", "list", "table", "code"]))
        level = draw(st.integers(1, 6)) if kind == "heading" else 0
        page = draw(st.none() | st.integers(1, 9))
        blocks.append(Block(kind, len(text), len(text) + len(content), page, level))  # type: ignore[arg-type]
        text += content + "\n"
    return ParsedDocument(text + draw(parts), tuple(blocks), "text/plain")


@st.composite
def strategies(draw: st.DrawFn) -> ChunkingStrategy:
    max_tokens = draw(st.integers(1, 40))
    return ChunkingStrategy(
        kind=draw(st.sampled_from(["static", "structural"])),
        max_tokens=max_tokens,
        overlap_tokens=draw(st.integers(0, max_tokens // 2)),
        parent_tokens=draw(st.just(0) | st.integers(max_tokens, 3 * max_tokens)),
    )


def offsets(span: Span) -> set[int]:
    return set(range(span.start, span.end))


@given(documents(), strategies())
def test_chunks_hold_everything_but_space_in_order(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    chunked = cut(document, strategy)

    spans = [each.span for each in chunked.chunks]
    inside = set[int]().union(*map(offsets, spans))
    assert all(char.isspace() for offset, char in enumerate(document.text) if offset not in inside)
    assert all(one.start <= other.start and one.end < other.end for one, other in pairwise(spans))
    assert cut(document, strategy) == chunked


@given(documents(), strategies())
def test_sizes_are_kept(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    chunked = cut(document, strategy)

    spans = [each.span for each in chunked.chunks]
    for each in chunked.chunks:
        text = document.text[each.span.start : each.span.end]
        assert text == text.strip() != ""
        assert max(1, num_tokens(text)) <= each.num_tokens <= strategy.max_tokens
    for one, other in pairwise(spans):
        assert num_tokens(document.text[other.start : one.end]) <= strategy.overlap_tokens


@given(documents(), strategies())
def test_parents_hold_their_chunks(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    chunked = cut(document, strategy)

    used = [each.parent for each in chunked.chunks]
    assert used == sorted(used)
    assert set(used) == set(range(len(chunked.parents)))
    for each in chunked.chunks:
        parent = chunked.parents[each.parent]
        assert parent.start <= each.span.start and each.span.end <= parent.end
    for parent in chunked.parents:
        most = max(strategy.max_tokens, strategy.parent_tokens)
        assert num_tokens(document.text[parent.start : parent.end]) <= most


@given(documents(), st.integers(1, 40), st.booleans())
def test_what_should_stay_whole_does(document: ParsedDocument, max_tokens: int, overlaps: bool) -> None:
    strategy = ChunkingStrategy(
        kind="structural", max_tokens=max_tokens, overlap_tokens=max_tokens // 2 if overlaps else 0
    )

    spans = [offsets(each.span) for each in cut(document, strategy).chunks]

    for block in document.blocks:
        text = document.text[block.start : block.end]
        if block.kind in ("table", "code") and text.strip() and num_tokens(text) <= max_tokens:
            start = block.start + len(text) - len(text.lstrip())
            assert any(set(range(start, start + len(text.strip()))) <= span for span in spans)


@pytest.mark.parametrize(
    "line",
    ["A sentence of words. And another one! ", "x" * 50, "# a\n", "\n \n", "word ", "| a | b |\n", ". ", "`"],
)
def test_time_grows_with_the_text_only(line: str) -> None:
    """Hostile or not: ten times the text takes ten times as long, not a hundred times."""
    size = 400_000
    text = (line * (size // len(line) + 1))[:size]
    blocks = tuple(
        Block("heading" if line == "# a\n" else "table", start, start + 4, level=1) for start in range(0, size, 40)
    )
    tokens = np.stack([np.arange(0, size, 4), np.arange(4, size + 4, 4)], axis=1).astype(np.int32)
    strategy = ChunkingStrategy(kind="structural", max_tokens=100, overlap_tokens=50, parent_tokens=400)

    started_at = time.process_time()
    for some in ((), blocks):
        chunk(ParsedDocument(text, some, "text/plain"), strategy, tokens)

    assert time.process_time() - started_at < 10  # it is about one; quadratic time would be minutes


# ---- tables


def columns_of(*blocks: tuple[str, str], kind: Literal["static", "structural"] = "structural") -> list[str]:
    """What goes before each chunk of a document that is cut into very small ones."""
    strategy = ChunkingStrategy(kind=kind, max_tokens=12, overlap_tokens=0)
    return [each.columns for each in cut(document_of(*blocks), strategy).chunks]


def table(head: str, num_rows: int = 4) -> str:
    return "\n".join([head, *(f"tea {row} | {row}.50" for row in range(num_rows))])


@pytest.mark.parametrize("kind", ["static", "structural"])
def test_chunks_that_begin_inside_a_table_know_its_columns(kind: Literal["static", "structural"]) -> None:
    first, *others = columns_of(("table", table("Drink | Price")), kind=kind)

    assert first == ""
    assert others
    assert set(others) == {"Drink | Price"}


def test_what_is_no_table_has_no_columns() -> None:
    assert set(columns_of(("paragraph", table("Drink | Price")), ("code", table("a | b")))) == {""}


def test_what_follows_a_table_has_no_columns() -> None:
    *_, last = columns_of(("table", table("Drink | Price")), ("paragraph", words(12)))

    assert last == ""


@pytest.mark.parametrize(
    ("head", "columns"),
    [
        ("| Drink | Price |\n|:---|---:|", "| Drink | Price |"),
        ("| 1 | 2 |\n|---|---|", "| 1 | 2 |"),
        ("Country | 2023 | 2024", "Country | 2023 | 2024"),
        ("mate | 4.20", ""),
        ("mate | 2024-05-01", ""),
        ("mate | 15%", ""),
        ("Name " * 100 + "| Price", ("Name " * 100)[:300].rstrip()),
    ],
)
def test_the_first_row_names_the_columns_unless_figures_are_in_it(head: str, columns: str) -> None:
    assert columns_of(("table", table(head, 8)))[-1] == columns
