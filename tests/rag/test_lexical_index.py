from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import ObjectNotFound
from server.rag import lexical_index
from server.rag.lexical_index import query_words, search
from server.rag.rows import words

STORE = "vs_one"
STORE_ROW = 1


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE vector_stores (row_id INTEGER PRIMARY KEY, id TEXT)")
    connection.execute("INSERT INTO vector_stores VALUES (?, ?)", (STORE_ROW, STORE))
    words.create(connection, STORE_ROW)
    yield connection
    connection.close()


def put(db: sqlite3.Connection, *texts: str, headings: dict[int, str] | None = None) -> None:
    """Make these texts the store's chunks, with ids from 1."""
    words.clear(db, STORE_ROW)
    rows = ((number, text, (headings or {}).get(number, "")) for number, text in enumerate(texts, start=1))
    words.insert(db, STORE_ROW, rows)


def find(db: sqlite3.Connection, query: str, k: int = 10, *, allowed: list[int] | None = None) -> list[int]:
    ids, scores = search(db, STORE, query, k, allowed_ids=None if allowed is None else np.array(allowed, np.int64))
    assert len(ids) == len(scores) and np.all(scores[:-1] >= scores[1:])
    return ids.tolist()


def test_more_and_rarer_words_count_more(db: sqlite3.Connection) -> None:
    put(db, "red apple", "green apple", "green pear", "blue plum", "yellow plum", "white plum")

    assert find(db, "green apple") == [2, 1, 3]
    assert find(db, "white plum")[0] == 6


def test_words_are_found_in_other_forms(db: sqlite3.Connection) -> None:
    put(db, "The engines were running", "nothing", "Café")

    assert find(db, "ENGINE runs") == [1]
    assert find(db, "cafe") == find(db, "Cafe\u0301s") == [3]


def test_a_heading_counts_less_than_the_text(db: sqlite3.Connection) -> None:
    put(db, "other words here", "some valve here", headings={1: "valve"})

    assert find(db, "valve") == [2, 1]


def test_words_that_nobody_has_do_not_hide_the_others(db: sqlite3.Connection) -> None:
    put(db, "alpha", "beta")

    assert find(db, "alpha zzz qqq") == [1]
    assert find(db, "zzz") == find(db, "") == find(db, "?! - \0 ()") == []


def test_only_allowed_chunks_count(db: sqlite3.Connection) -> None:
    put(db, *["apple"] * 20)

    assert find(db, "apple", allowed=[3, 7, 99]) == [3, 7]
    assert find(db, "apple", 1, allowed=[3, 7]) == [3]
    assert find(db, "apple", allowed=[]) == []


def test_ties_are_in_the_order_of_ids(db: sqlite3.Connection) -> None:
    put(db, *["apple"] * 20)

    assert find(db, "apple", 5) == [1, 2, 3, 4, 5]


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical_index, "MAX_SCORED_ROWS", 5)


@pytest.mark.usefixtures("little_room")
def test_common_words_are_left_out_when_they_would_cost_too_much(db: sqlite3.Connection) -> None:
    put(db, "common rare", *["common"] * 18, "common odd")

    assert sorted(find(db, "common rare odd")) == [1, 20]


@pytest.mark.usefixtures("little_room")
def test_of_common_words_only_chunks_must_have_several(db: sqlite3.Connection) -> None:
    put(db, *["big"] * 10, *["small"] * 10, "big small")

    assert find(db, "big small") == [21]


@pytest.mark.usefixtures("little_room")
def test_common_words_that_do_not_meet_are_searched_for_alone(db: sqlite3.Connection) -> None:
    """The newest rows, twice as many as there is room for."""
    put(db, *["big"] * 30, *["small"] * 31)

    assert find(db, "big small", 50) == list(range(21, 31))


@pytest.mark.usefixtures("little_room")
def test_with_a_narrow_filter_common_words_are_searched_for(db: sqlite3.Connection) -> None:
    put(db, "common rare", *["common"] * 30)

    assert find(db, "common rare", allowed=[5]) == [5]


def test_a_wide_filter_is_kept_too(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical_index, "_MAX_LISTED_IDS", 3)
    put(db, *["apple"] * 20)

    assert find(db, "apple", allowed=list(range(2, 20, 2))) == list(range(2, 20, 2))
    assert find(db, "apple", 2, allowed=list(range(2, 20, 2))) == [2, 4]


def test_how_common_a_word_is_is_guessed_from_the_first_rows(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_index, "_MAX_COUNTED_ROWS", 10)
    monkeypatch.setattr(lexical_index, "MAX_SCORED_ROWS", 60)
    put(db, *["frequent", "frequent", "seldom", "odd"] * 25)

    assert {number % 4 for number in find(db, "frequent odd seldom", 100)} == {0, 3}


def test_an_unknown_store_is_not_found(db: sqlite3.Connection) -> None:
    with pytest.raises(ObjectNotFound):
        search(db, "vs_other", "apple", 3)


@pytest.mark.parametrize(
    "query",
    [
        'apple"', "apple AND", "NOT apple", "apple NEAR plum", "text: apple", "heading:apple", "-apple", "^apple",
        "apple*", "(apple", "{text} : apple", "apple + ", '"" apple', "apple\0plum", "apple'); DROP TABLE x; --",
        "rank:apple", "OR OR apple", "NEAR(apple, 2)", "a AND b OR apple",
    ],
)  # fmt: skip
def test_operators_of_fts5_are_words_like_others(db: sqlite3.Connection, query: str) -> None:
    put(db, "apple", "banana")

    assert find(db, query) == [1]


@given(query=st.text())
def test_no_query_is_an_error(db: sqlite3.Connection, query: str) -> None:
    find(db, query)


letters = st.characters(categories=["Lu", "Ll", "Lo", "Nd"], max_codepoint=0xFFFF)


@given(text=st.text(letters | st.sampled_from(" \n.,;:!?-_'\"()*^+/\\\u0301"), max_size=60))
def test_a_text_is_found_by_itself(db: sqlite3.Connection, text: str) -> None:
    put(db, text, "something else")

    found = find(db, text)

    assert 1 in found or not any(has_terms(db, word) for word in query_words(text))


def has_terms(db: sqlite3.Connection, word: str) -> bool:
    """Whether FTS5 knows the letters: it is behind Python's Unicode."""
    put(db, word)
    db.execute(f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.terms USING fts5vocab(main, {words.table(STORE_ROW)}, row)")
    return bool(db.execute("SELECT count(*) FROM temp.terms").fetchone()[0])


def test_a_long_query_is_cut(db: sqlite3.Connection) -> None:
    put(db, "apple")

    assert len(query_words(" ".join(map(str, range(10_000))))) == lexical_index.MAX_WORDS
    assert find(db, "apple " * 100_000) == [1]
