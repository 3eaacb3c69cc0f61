from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.rag import terms
from server.rag.terms import TERM, ChunkTerms, chunk_terms, query_terms, searched_text, term_key

texts = st.lists(st.sampled_from(["bak", "dok", "fuk", "gik"]), max_size=6).map(" ".join)


def unpacked(found: ChunkTerms) -> dict[int, int]:
    records = np.frombuffer(found.packed, TERM)
    assert np.all(records["key"][1:] > records["key"][:-1])
    return dict(zip(records["key"].tolist(), records["count"].tolist(), strict=True))


@given(listed=st.lists(texts, max_size=12))
def test_terms_are_the_words_of_each_text(listed: list[str]) -> None:
    found = chunk_terms(listed)

    assert [each.num_words for each in found] == [len(text.split()) for text in listed]
    assert [unpacked(each) for each in found] == [Counter(term_key(word) for word in text.split()) for text in listed]


def test_many_texts_are_taken_apart_in_parts() -> None:
    listed = [f"bak dok{number}" for number in range(2 * terms._TEXTS_PER_TABLE + 1)]

    assert chunk_terms(listed) == [chunk_terms([text])[0] for text in listed]


def test_counts_have_an_upper_bound() -> None:
    [found] = chunk_terms(["bak " * 1000])

    assert (found.num_words, unpacked(found)) == (1000, {term_key("bak"): 255})


def test_headings_and_contexts_are_searched_and_do_not_run_into_the_text() -> None:
    [found] = chunk_terms([searched_text("bak", heading="dok", columns="", context="fuk")])

    assert unpacked(found) == {term_key(word): 1 for word in ("bak", "dok", "fuk")}


def test_queries_are_taken_apart_as_chunks_are() -> None:
    assert query_terms("Running runs, the CAFÉ!") == {term_key("run"): 2, term_key("the"): 1, term_key("cafe"): 1}
    assert query_terms("") == query_terms("...") == {}


@given(text=st.text())
def test_any_text_has_the_terms_of_the_same_query(text: str) -> None:
    [found] = chunk_terms([text])

    assert unpacked(found) == {key: min(count, 255) for key, count in query_terms(text).items()}
