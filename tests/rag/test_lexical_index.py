from __future__ import annotations

import math
import sqlite3
import tempfile
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.rag import lexical_index
from server.rag.index_snapshot import SnapshotRefused, read_snapshot, write_snapshot
from server.rag.lexical_index import MAX_QUERY_TERMS, LexicalIndex
from tests.fakes.indexed_words import postings_of

NO_IDS = np.empty(0, np.int64)
VOCABULARY = ["bak", "dok", "fuk", "gik", "kak", "lok", "muk"]  # that no stemmer changes
Chunk = tuple[str, str]
"""Text and heading."""


def index_of(*texts: str, headings: dict[int, str] | None = None) -> LexicalIndex:
    """With ids from 1."""
    rows = [(number, text, (headings or {}).get(number, "")) for number, text in enumerate(texts, start=1)]
    return LexicalIndex(1, [postings_of(rows)])


def find(index: LexicalIndex, query: str, k: int = 10, *, allowed: list[int] | None = None) -> list[int]:
    ids, scores = index.search(query, k, allowed_ids=None if allowed is None else np.array(allowed, np.int64))
    assert len(ids) == len(scores) <= k and np.all(scores[:-1] >= scores[1:]) and np.all(scores > 0)
    return ids.tolist()


def naive_scores(chunks: dict[int, Chunk], query: str) -> dict[int, float]:
    """BM25 as in the books, where headings are part of the text."""

    def occurrences(chunk: Chunk, word: str) -> float:
        return chunk[0].split().count(word) + chunk[1].split().count(word)

    lengths = {each: sum(occurrences(chunk, word) for word in VOCABULARY) for each, chunk in chunks.items()}
    mean = sum(lengths.values()) / max(1, len(chunks))
    scores = dict.fromkeys(chunks, 0.0)
    for word in query.split():
        num_with = sum(occurrences(chunk, word) > 0 for chunk in chunks.values())
        rareness = math.log(1 + (len(chunks) - num_with + 0.5) / (num_with + 0.5))
        for each, chunk in chunks.items():
            found = occurrences(chunk, word)
            if found:
                scores[each] += rareness * found * 2.5 / (found + 1.5 * (0.25 + 0.75 * lengths[each] / mean))
    return {each: score for each, score in scores.items() if score > 0}


words = st.lists(st.sampled_from(VOCABULARY), max_size=6).map(" ".join)


class LexicalMachine(RuleBasedStateMachine):
    """Any sequence of changes, merges and restarts; after each, searches find what the books say."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.index = LexicalIndex(0)
        self.chunks: dict[int, Chunk] = {}
        self.next_id = 1

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(added=st.lists(st.tuples(words, words), max_size=8), seed=st.integers(0, 99), num_removed=st.integers(0, 6))
    def apply(self, added: list[Chunk], seed: int, num_removed: int) -> None:
        random = np.random.default_rng(seed)
        removed = [each for each in self.chunks if random.random() < num_removed / max(1, len(self.chunks))]
        new = {self.next_id + number: chunk for number, chunk in enumerate(added)}
        self.next_id += len(added)

        postings = postings_of((each, *chunk) for each, chunk in new.items())
        self.index.apply(self.index.generation + 1, postings, np.array([*removed, 10**9], np.int64))

        self.chunks = {each: chunk for each, chunk in self.chunks.items() if each not in removed} | new

    @rule()
    def merge(self) -> None:
        self.index.merge()

    @rule()
    def restart(self) -> None:
        path = Path(self.folder.name) / "one.words"
        self.index = LexicalIndex.load(path, self.index.save(path))

    @invariant()
    def finds_what_the_books_say(self) -> None:
        random = np.random.default_rng(self.next_id)
        query = " ".join(random.choice(VOCABULARY, 3))  # some twice
        wanted = naive_scores(self.chunks, query)
        for allowed in (None, [each for each in self.chunks if random.random() < 0.5] + [10**8]):
            is_wanted = {each for each in wanted if allowed is None or each in allowed}
            for k in (2, 1000):
                ids, scores = self.index.search(query, k, allowed_ids=None if allowed is None else np.array(allowed))
                assert set(ids.tolist()) <= is_wanted and len(set(ids.tolist())) == min(k, len(is_wanted))
                assert np.allclose(scores, [wanted[each] for each in ids.tolist()], rtol=1e-4)
                assert np.allclose(scores, sorted((wanted[each] for each in is_wanted), reverse=True)[:k], rtol=1e-4)


TestAnySequenceIsSearchedAsTheBooksSay = LexicalMachine.TestCase
TestAnySequenceIsSearchedAsTheBooksSay.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def fts5_scores(chunks: list[Chunk], query: str) -> dict[int, float]:
    """FTS5's own BM25, term by term, with our rareness in place of its own: it has almost none for common terms."""
    scores: Counter[int] = Counter()
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE t USING fts5 (a, b, tokenize = 'porter unicode61 remove_diacritics 2')")
        db.executemany("INSERT INTO t (rowid, a, b) VALUES (?, ?, ?)", ((i, *each) for i, each in enumerate(chunks, 1)))
        for word in query.split():
            found = db.execute("SELECT rowid, -bm25(t) FROM t WHERE t MATCH ?", (f'"{word}"',)).fetchall()
            odds = (len(chunks) - len(found) + 0.5) / (len(found) + 0.5)
            theirs = max(1e-6, math.log(odds))
            for chunk_id, score in found:
                scores[chunk_id] += score / theirs * math.log(1 + odds)
    return dict(scores)


natural = st.lists(
    st.sampled_from(["running", "Runs", "run", "Café", "CAFE\u0301", "naïve", "日本", "x2", "don't", "the", "ponies!"]),
    max_size=9,
).map(" ".join)


@given(
    chunks=st.lists(st.tuples(natural, natural), min_size=1, max_size=12),
    query=st.lists(st.sampled_from(["runner", "ran", "runs", "cafe", "naive", "日本", "X2", "the", "pony"])).map(
        " ".join
    ),
)
def test_scores_are_those_of_an_fts5_table_of_the_same_chunks(chunks: list[Chunk], query: str) -> None:
    index = LexicalIndex(1, [postings_of((number, *chunk) for number, chunk in enumerate(chunks, 1))])
    wanted = fts5_scores(chunks, query)

    with mock.patch.object(lexical_index, "_K1", 1.2):  # FTS5's
        ids, scores = index.search(query, 100)

    assert dict(zip(ids.tolist(), scores.tolist(), strict=True)) == pytest.approx(wanted, rel=1e-4)


@given(chunks=st.lists(st.tuples(words, words), min_size=40, max_size=60), query=words, data=st.data())
def test_of_few_allowed_chunks_the_scores_are_the_same_to_the_bit(
    chunks: list[Chunk], query: str, data: st.DataObject
) -> None:
    index = LexicalIndex(1, [postings_of((number, *chunk) for number, chunk in enumerate(chunks, 1))])
    allowed = data.draw(st.lists(st.integers(1, len(chunks) + 3), max_size=2))

    ids, scores = index.search(query, 100)
    few_ids, few_scores = index.search(query, 100, allowed_ids=np.array(allowed, np.int64))

    is_allowed = np.isin(ids, allowed)
    assert (few_ids.tolist(), few_scores.tolist()) == (ids[is_allowed].tolist(), scores[is_allowed].tolist())


def test_more_and_rarer_words_count_more() -> None:
    index = index_of("red apple", "green apple", "green pear", "blue plum", "yellow plum", "white plum")

    assert find(index, "green apple") == [2, 1, 3]
    assert find(index, "white plum")[0] == 6


def test_words_are_found_in_other_forms() -> None:
    index = index_of("The engines were running", "nothing", "Café")

    assert find(index, "ENGINE runs") == [1]
    assert find(index, "cafe") == find(index, "Cafe\u0301s") == [3]


def test_a_heading_counts_like_text() -> None:
    index = index_of("other words here", "some valve here", "valve", headings={1: "valve", 3: "valve"})

    assert find(index, "valve") == [3, 2, 1]


def test_words_that_nobody_has_do_not_hide_the_others() -> None:
    index = index_of("alpha", "beta")

    assert find(index, "alpha zzz qqq") == [1]
    assert find(index, "zzz") == find(index, "") == find(index, "?! - \0 ()") == []


def test_only_allowed_chunks_count() -> None:
    index = index_of(*["apple"] * 20)

    assert find(index, "apple", allowed=[3, 7, 99]) == [3, 7]
    assert find(index, "apple", 1, allowed=[3, 7]) == [3]
    assert find(index, "apple", allowed=[]) == []


def test_ties_are_in_the_order_of_ids() -> None:
    assert find(index_of(*["apple"] * 20), "apple", 5) == [1, 2, 3, 4, 5]


def test_an_empty_index_finds_nothing() -> None:
    index = LexicalIndex(0)
    index.apply(1, postings_of([]), NO_IDS)

    assert find(index, "apple") == []
    assert index.generation == 1


def test_chunks_without_words_are_there_and_not_found() -> None:
    index = index_of("", "...", "apple")

    assert find(index, "apple") == [3]


@pytest.mark.parametrize(
    "query",
    [
        'apple"', "apple AND", "NOT apple", "apple NEAR plum", "text: apple", "heading:apple", "-apple", "^apple",
        "apple*", "(apple", "{text} : apple", "apple + ", '"" apple', "apple\0plum", "apple'); DROP TABLE x; --",
        "rank:apple", "OR OR apple", "NEAR(apple, 2)", "a AND b OR apple",
    ],
)  # fmt: skip
def test_operators_of_fts5_are_words_like_others(query: str) -> None:
    assert find(index_of("apple", "banana"), query) == [1]


@given(query=st.text(st.characters()))
def test_no_query_is_an_error(query: str) -> None:
    assert find(index_of("apple"), f"apple {query}") == [1]


@given(text=st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd", "P", "Z"]), max_size=60))
def test_a_text_is_found_by_itself(text: str) -> None:
    postings = postings_of([(1, text, "")])

    assert find(LexicalIndex(1, [postings]), text) == ([1] if len(postings.terms) else [])


def test_of_a_long_query_the_rarest_words_count() -> None:
    common = [f"common{number}k" for number in range(MAX_QUERY_TERMS + 10)]
    index = index_of(" ".join(common), " ".join(common), "rare")

    assert 3 in find(index, " ".join([*common, "rare"]))
    assert find(index, "apple " * 100_000) == []


def test_searches_beside_changes_and_merges_see_whole_generations() -> None:
    """Each change replaces all chunks; a search that sees two generations at once would mix their ids."""
    size, num_generations = 16, 150
    index = LexicalIndex(0)
    is_over = threading.Event()
    seen: list[set[int]] = []

    def search() -> None:
        while not is_over.is_set():
            ids, _ = index.search("apple", 2 * size)
            seen.append(set((ids // size).tolist()))
            assert len(ids) in {0, size}

    def merge() -> None:
        while not is_over.is_set():
            index.merge()

    threads = [threading.Thread(target=work) for work in (search, merge)]
    for thread in threads:
        thread.start()
    for generation in range(1, num_generations):
        ids = np.arange(size) + generation * size
        index.apply(generation, postings_of((int(each), f"apple {each}", "") for each in ids), ids - size)
    is_over.set()
    for thread in threads:
        thread.join()

    assert seen and all(len(generations) <= 1 for generations in seen)


@pytest.mark.parametrize("position", range(1, 6))
@pytest.mark.parametrize(
    "odd",
    [
        np.zeros(1, np.float32),
        np.array([7, 3], np.uint64),
        np.array([0, 2, 9], np.int64),
        np.array([-1, 1, 3], np.int64),
        np.array([0, 2**63 - 1, 3], np.int64),
        np.array([0, 0, 3], np.int64),
        np.array([0, 1, 1], np.uint32),
        np.full(3, 5, np.uint32),
        np.zeros(9, np.uint8),
    ],
)
def test_arrays_that_are_not_those_of_an_index_are_refused(tmp_path: Path, position: int, odd: np.ndarray) -> None:
    """Whatever they are: the digest says only that they are as they were written."""
    path = tmp_path / "one.words"
    stamp = index_of("apple plum", "plum").save(path)
    [arrays] = read_snapshot(path, stamp)
    write_snapshot(path, stamp, [[*arrays[:position], odd, *arrays[position + 1 :]]])

    with pytest.raises(SnapshotRefused):
        LexicalIndex.load(path, stamp)
