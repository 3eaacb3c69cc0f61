from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rag import postings
from server.rag.postings import Postings, join_postings, postings_of, query_terms, read_postings, term_key
from server.rag.rows import words
from server.rag.rows.words import WordRow

texts = st.lists(st.sampled_from(["bak", "dok", "fuk", "gik"]), max_size=5).map(" ".join)
rows = st.dictionaries(st.integers(1, 50), st.tuples(texts, texts), max_size=8)


def read(found: Postings) -> dict[tuple[int, int], int]:
    """Counts by term and chunk id."""
    assert len(found.positions) == len(found.counts) == found.sizes.sum() and np.all(found.sizes > 0)
    return {
        (term, int(found.ids[position])): int(count)
        for term in found.terms.tolist()
        for position, count in zip(found.positions[found.span(term)], found.counts[found.span(term)], strict=True)
    }


def naive(chunks: dict[int, tuple[str, str]]) -> dict[tuple[int, int], int]:
    counts: Counter[tuple[int, int]] = Counter()
    for chunk_id, (text, heading) in chunks.items():
        counts.update((term_key(word), chunk_id) for word in f"{text} {heading}".split())
    return dict(counts)


def listed(chunks: dict[int, tuple[str, str]]) -> list[WordRow]:
    return [(chunk_id, *chunk) for chunk_id, chunk in chunks.items()]


@given(chunks=rows)
def test_postings_are_the_words_of_the_chunks(chunks: dict[int, tuple[str, str]]) -> None:
    found = postings_of(listed(chunks))

    assert read(found) == naive(chunks)
    assert found.ids.tolist() == sorted(chunks)
    for chunk_id, length in zip(found.ids.tolist(), found.lengths.tolist(), strict=True):
        text, heading = chunks[chunk_id]
        assert length == len(text.split()) + len(heading.split())


@given(chunks=rows, data=st.data())
def test_joined_postings_are_those_of_all_that_is_alive(
    chunks: dict[int, tuple[str, str]], data: st.DataObject
) -> None:
    owners = {chunk_id: data.draw(st.integers(0, 2)) for chunk_id in chunks}
    dead = set(data.draw(st.lists(st.sampled_from(sorted(chunks)))) if chunks else [])
    parts = []
    for owner in range(3):
        part = postings_of(listed({each: chunks[each] for each in chunks if owners[each] == owner}))
        alive = np.array([each not in dead for each in part.ids.tolist()], np.bool_)
        parts.append(part if alive.all() else part.only(alive))

    joined = join_postings(parts)

    assert read(joined) == naive({each: chunk for each, chunk in chunks.items() if each not in dead})
    assert joined.ids.tolist() == sorted(chunks.keys() - dead)
    assert len(set(joined.terms.tolist())) == len(joined.terms)


def test_a_store_is_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = {number: (f"bak dok{number} fuk", "gik") for number in range(1, 40)}
    with closing(sqlite3.connect(":memory:")) as db:
        words.create(db, 3)
        words.insert(db, 3, listed(chunks))
        monkeypatch.setattr(postings, "_CHARS_PER_BATCH", 20)

        found = read_postings(db, 3, np.arange(1, 40))

    assert read(found) == naive(chunks)


def test_ids_may_be_far_apart() -> None:
    chunks = {1: ("bak", ""), 10**12: ("bak dok", "")}

    assert read(postings_of(listed(chunks))) == naive(chunks)


def test_counts_have_an_upper_bound() -> None:
    found = postings_of([(1, "bak " * 1000, "")])

    assert found.counts.tolist() == [255]
    assert found.lengths.tolist() == [1000]


def test_a_term_that_nobody_has_has_no_chunks() -> None:
    found = postings_of([(1, "bak", "")])

    assert found.span(term_key("dok")) == slice(0, 0)
    assert found.span(0) == found.span(2**64 - 1) == slice(0, 0)


def test_queries_are_taken_apart_as_chunks_are() -> None:
    assert query_terms("Running runs, the CAFÉ!") == {term_key("run"): 2, term_key("the"): 1, term_key("cafe"): 1}
    assert query_terms("") == query_terms("...") == {}
