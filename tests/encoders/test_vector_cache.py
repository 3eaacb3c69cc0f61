import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.encoders.encoder import Rows
from server.encoders.vector_cache import BYTES_PER_ENTRY, VectorCache

ROOM_FOR_TWO = 2 * (BYTES_PER_ENTRY + 4 * 8)


def row(number: int) -> Rows:
    return np.full(8, number, dtype=np.float32)


def key(number: int) -> bytes:
    return bytes([number])


def test_the_least_recently_used_row_goes_first() -> None:
    cache = VectorCache(ROOM_FOR_TWO)
    cache.put(key(1), row(1))
    cache.put(key(2), row(2))

    cache.get(key(1))
    cache.put(key(3), row(3))

    assert [cache.get(key(number)) is not None for number in (1, 2, 3)] == [True, False, True]


def test_a_cache_without_room_holds_nothing() -> None:
    cache = VectorCache(0)

    cache.put(key(1), row(1))

    assert cache.get(key(1)) is None


def test_a_kept_row_does_not_change_with_its_batch() -> None:
    cache = VectorCache(ROOM_FOR_TWO)
    batch = np.zeros((2, 8), dtype=np.float32)

    cache.put(key(1), batch[0])
    batch[:] = 7

    kept = cache.get(key(1))
    assert kept is not None and kept.base is None
    np.testing.assert_array_equal(kept, row(0))


def test_scores_are_rows_too() -> None:
    cache = VectorCache(1000)

    cache.put(key(1), np.array([2.5], dtype=np.float32)[0])

    assert cache.get(key(1)) == np.float32(2.5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5))))
def test_it_behaves_like_a_list_of_the_two_last_used(steps: list[tuple[bool, int]]) -> None:
    cache, twin = VectorCache(ROOM_FOR_TWO), list[int]()
    for is_put, number in steps:
        if is_put:
            cache.put(key(number), row(number))
        found = cache.get(key(number))

        assert (found is not None) == (is_put or number in twin)
        if found is not None:
            np.testing.assert_array_equal(found, row(number))
            twin = [*(each for each in twin if each != number), number][-2:]
        assert len(cache) == len(twin)
