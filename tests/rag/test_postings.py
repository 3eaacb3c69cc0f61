from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.rag.postings import Postings, join_postings
from server.rag.terms import term_key
from tests.fakes.indexed_words import postings_of

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


def listed(chunks: dict[int, tuple[str, str]]) -> list[tuple[int, str, str]]:
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


@given(chunks=rows, data=st.data())
def test_the_chunks_of_a_term_are_in_order_whatever_was_joined(
    chunks: dict[int, tuple[str, str]], data: st.DataObject
) -> None:
    parts: list[dict[int, tuple[str, str]]] = [{}, {}, {}]
    for chunk_id, chunk in chunks.items():
        parts[data.draw(st.integers(0, 2))][chunk_id] = chunk

    joined = join_postings([postings_of(listed(part)) for part in parts])

    for one, other in zip(joined.arrays(), postings_of(listed(chunks)).arrays(), strict=True):
        assert one.dtype == other.dtype and one.tolist() == other.tolist()


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
