from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.rag.index_snapshot import SnapshotRefused, checksum_of, read_snapshot, write_snapshot
from server.rag.vector_index import FaissIndex, vector_arrays

DIMENSIONS = 8
NO_IDS = np.empty(0, np.int64)
NO_VECTORS = np.empty((0, DIMENSIONS), np.float32)


def make_vectors(num_rows: int, *, seed: int = 0, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Rows of norm 1, some of them the same."""
    random = np.random.default_rng(seed)
    rows = random.choice(random.normal(size=(max(1, num_rows * 2), dimensions)), num_rows)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def index_of(vectors: np.ndarray, *, max_scanned_rows: int = 200_000) -> FaissIndex:
    ids = np.arange(len(vectors), dtype=np.int64)
    index = FaissIndex(1, [vector_arrays(ids, vectors)], max_scanned_rows=max_scanned_rows)
    while index.merge():
        pass
    return index


class NaiveIndex:
    """What the index promises, the slow way."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}

    def ids(self) -> np.ndarray:
        return np.array(sorted(self.rows), np.int64)

    def search(self, query: np.ndarray, k: int, allowed: set[int]) -> list[float]:
        return sorted((float(self.rows[each] @ query) for each in allowed & self.rows.keys()), reverse=True)[:k]

    def check(self, query: np.ndarray, allowed: set[int], ids: np.ndarray, scores: np.ndarray) -> None:
        """Whatever was found has its own score, once, best first."""
        found = [each for each in ids.tolist() if each != -1]
        assert len(set(found)) == len(found) and set(found) <= allowed & self.rows.keys()
        assert len(found) == min(len(ids), len(allowed & self.rows.keys()))
        assert np.allclose(scores[: len(found)], [self.rows[each] @ query for each in found], atol=1e-4)
        assert np.all(scores[:-1] >= scores[1:])
        assert np.all(np.isneginf(scores[len(found) :]))


class IndexMachine(RuleBasedStateMachine):
    """Any sequence of changes, merges and restarts; after each, searches find what a naive one does."""

    max_scanned_rows = 10**6

    def __init__(self) -> None:
        super().__init__()
        self.index = FaissIndex(0, max_scanned_rows=self.max_scanned_rows)
        self.naive = NaiveIndex()
        self.next_id = 1

    @rule(num_added=st.integers(0, 40), seed=st.integers(0, 99), num_removed=st.integers(0, 30), reuse=st.booleans())
    def apply(self, num_added: int, seed: int, num_removed: int, reuse: bool) -> None:
        random = np.random.default_rng(seed)
        present = self.naive.ids()
        removed = random.choice(present, min(num_removed, len(present)), replace=False) if len(present) else NO_IDS
        added = self.next_id + random.permutation(num_added).astype(np.int64)
        if reuse:  # of an id that is removed by the same change, or is not removed at all
            added[: len(present)] = random.permutation(present)[:num_added]
        self.next_id += num_added
        vectors = make_vectors(num_added, seed=seed)

        self.index.apply(self.index.generation + 1, added, vectors, np.append(removed, 10**9))

        for each in removed.tolist():
            del self.naive.rows[each]
        self.naive.rows.update(zip(added.tolist(), vectors, strict=True))

    @rule()
    def merge(self) -> None:
        self.index.merge()

    @rule()
    def restart(self) -> None:
        path = Path(self.folder) / "one.index"
        stamp = self.index.save(path)
        assert stamp.checksum == checksum_of(self.naive.ids())
        loaded = FaissIndex.load(path, stamp, max_scanned_rows=self.max_scanned_rows)
        assert loaded.generation == self.index.generation
        self.index = loaded

    @invariant()
    def finds_what_a_naive_search_finds(self) -> None:
        random = np.random.default_rng(self.next_id)
        query = make_vectors(1, seed=self.next_id)
        present = self.naive.ids()
        assert self.index.num_chunks == len(present)
        for num_allowed in (None, len(present) // 3, 3):
            allowed = None if num_allowed is None else random.permutation(np.append(present, 10**8))[:num_allowed]
            allowed_set = set(present.tolist() if allowed is None else allowed.tolist())
            for k in (1, 7, 200):
                ids, scores = self.index.search(query, k, allowed_ids=allowed)
                assert ids.shape == scores.shape == (1, k)
                self.naive.check(query[0], allowed_set, ids[0], scores[0])
                if self.is_exact(k, allowed_set):
                    wanted = self.naive.search(query[0], k, allowed_set)
                    assert np.allclose(scores[0, : len(wanted)], wanted, atol=1e-4)

    def is_exact(self, k: int, allowed: set[int]) -> bool:
        return True

    folder = ""


class ListedIndexMachine(IndexMachine):
    """With lists from 30 rows on, of which a search looks at 10 rows, or twice as many as are wanted."""

    max_scanned_rows = 30

    def is_exact(self, k: int, allowed: set[int]) -> bool:
        return len(allowed & self.naive.rows.keys()) <= max(10, 2 * k)


@pytest.mark.parametrize("machine", [IndexMachine, ListedIndexMachine])
def test_any_sequence_of_changes_is_searched_like_a_naive_index(machine: type[IndexMachine], tmp_path: Path) -> None:
    machine.folder = str(tmp_path)
    case = machine.TestCase()
    case.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
    case.runTest()


def test_several_queries_are_answered_in_their_order() -> None:
    vectors = make_vectors(50, seed=5)

    ids, scores = index_of(vectors).search(vectors[[3, 1]], 1)

    assert [vectors[found] @ vectors[asked] for found, asked in zip(ids[:, 0], (3, 1), strict=True)] == pytest.approx(
        scores[:, 0]
    )
    assert scores[:, 0] == pytest.approx([1, 1], abs=2e-3)


def test_an_empty_index_finds_nothing() -> None:
    ids, scores = FaissIndex(0).search(make_vectors(2), 3)

    assert ids.tolist() == [[-1] * 3] * 2
    assert np.all(np.isneginf(scores))


def test_nothing_is_found_when_nothing_is_allowed() -> None:
    ids, _ = index_of(make_vectors(20)).search(make_vectors(1), 3, allowed_ids=NO_IDS)

    assert ids.tolist() == [[-1] * 3]


def test_changes_come_in_order() -> None:
    index = FaissIndex(4)

    with pytest.raises(AssertionError, match="in order"):
        index.apply(4, NO_IDS, NO_VECTORS, NO_IDS)


def test_many_small_changes_become_few_segments() -> None:
    index = FaissIndex(0)
    for generation in range(1, 200):
        index.apply(generation, np.array([generation]), make_vectors(1, seed=generation), NO_IDS)
        while index.merge():
            pass

    assert len(index._segments.contents.segments) <= 8  # log2(199) + 1
    assert index.num_chunks == 199


def test_memory_of_what_was_removed_comes_back() -> None:
    index = index_of(make_vectors(1000))
    before = index.num_bytes

    index.apply(2, NO_IDS, NO_VECTORS, np.arange(500))
    while index.merge():
        pass

    assert index.num_bytes == before / 2


def test_lists_find_most_of_what_a_full_scan_finds() -> None:
    random = np.random.default_rng(1)
    centres = random.normal(size=(60, 32))
    rows = centres[random.integers(60, size=6000)] + 0.35 * random.normal(size=(6000, 32))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[:100]
    whole = index_of(vectors)
    listed = index_of(vectors, max_scanned_rows=3000)  # 1000 are looked at

    wanted, _ = whole.search(queries, 10)
    found, _ = listed.search(queries, 10)

    hits = [len(set(a) & set(b)) for a, b in zip(wanted.tolist(), found.tolist(), strict=True)]
    assert np.mean(hits) > 9


def test_a_filter_is_exact_with_lists_too() -> None:
    vectors = make_vectors(5000, seed=3)
    allowed = np.random.default_rng(3).choice(5000, 50, replace=False)
    query = make_vectors(1, seed=9)

    ids, _ = index_of(vectors, max_scanned_rows=1000).search(query, 50, allowed_ids=allowed)

    assert sorted(ids[0].tolist()) == sorted(allowed.tolist())


def test_what_is_allowed_is_found_however_far_from_the_query_it_lies() -> None:
    """A wide filter: only some lists are looked at, and none of these has any of it."""
    random = np.random.default_rng(7)
    rows = 0.1 * random.normal(size=(3000, DIMENSIONS)) + np.repeat([[1.0], [-1.0]], 1500, axis=0)
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    allowed = np.arange(1500, 3000)

    ids, scores = index_of(vectors, max_scanned_rows=900).search(vectors[[0, 2000]], 20, allowed_ids=allowed)

    assert np.all(ids >= 1500)
    assert np.allclose(scores[0], np.sort(vectors[1500:] @ vectors[0])[::-1][:20], atol=1e-4)


def test_searches_beside_changes_and_merges_see_whole_generations() -> None:
    """Each change replaces all chunks; a search that sees two generations at once would mix their ids."""
    size, num_generations = 64, 300
    index = FaissIndex(0)
    query = make_vectors(1)
    is_over = threading.Event()
    seen: list[set[int]] = []

    def search() -> None:
        while not is_over.is_set():
            before = index.generation
            ids, _ = index.search(query, 2 * size)
            found = ids[ids >= 0]
            seen.append(set((found // size).tolist()))
            assert len(found) in {0, size} and (not len(found) or found[0] // size >= before)

    def merge() -> None:
        while not is_over.is_set():
            index.merge()

    threads = [threading.Thread(target=work) for work in (search, search, merge)]
    for thread in threads:
        thread.start()
    for generation in range(1, num_generations):
        added = np.arange(size) + generation * size
        index.apply(generation, added, make_vectors(size, seed=generation), added - size)
    is_over.set()
    for thread in threads:
        thread.join()

    assert seen and all(len(generations) <= 1 for generations in seen)


def test_what_is_removed_during_a_merge_stays_removed() -> None:
    index, naive = FaissIndex(0, max_scanned_rows=400), NaiveIndex()
    is_over = threading.Event()

    def merge() -> None:
        while not is_over.is_set():
            index.merge()

    thread = threading.Thread(target=merge)
    thread.start()
    random = np.random.default_rng(0)
    for generation in range(1, 300):
        present = naive.ids()
        removed = random.choice(present, min(8, len(present)), replace=False) if generation % 3 else NO_IDS
        added = np.append(np.arange(10) + 10 * generation, removed[:2]).astype(np.int64)  # two come back at once
        vectors = make_vectors(len(added), seed=generation)
        index.apply(generation, added, vectors, removed)
        for each in removed.tolist():
            del naive.rows[each]
        naive.rows.update(zip(added.tolist(), vectors, strict=True))
    is_over.set()
    thread.join()

    query = make_vectors(1)
    ids, scores = index.search(query, len(naive.rows))
    assert sorted(ids[0].tolist()) == naive.ids().tolist()
    naive.check(query[0], set(naive.rows), ids[0], scores[0])


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("odd", [np.zeros(3, np.int64), np.zeros((7, 9), np.float16), np.full(200, 99, np.int32)])
def test_arrays_that_are_not_those_of_an_index_are_refused(tmp_path: Path, position: int, odd: np.ndarray) -> None:
    """Whatever they are: the digest says only that they are as they were written."""
    path = tmp_path / "one.vectors"
    stamp = index_of(make_vectors(200), max_scanned_rows=100).save(path)
    [arrays] = read_snapshot(path, stamp)
    write_snapshot(path, stamp, [[*arrays[:position], odd, *arrays[position + 1 :]]])

    with pytest.raises(SnapshotRefused):
        FaissIndex.load(path, stamp)


def test_an_index_that_was_read_back_gives_the_very_scores(tmp_path: Path) -> None:
    index = index_of(make_vectors(500, seed=4))
    stamp = index.save(tmp_path / "one.index")
    loaded = FaissIndex.load(tmp_path / "one.index", stamp)

    query = make_vectors(3, seed=8)

    assert all(np.array_equal(a, b) for a, b in zip(index.search(query, 9), loaded.search(query, 9), strict=True))
