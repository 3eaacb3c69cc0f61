from __future__ import annotations

import numpy as np

from server.rag.allowed_chunks import AllowedCache, AllowedChunks


def allowed(count: int) -> AllowedChunks:
    return AllowedChunks(1, np.arange(count))


def test_what_was_read_is_remembered_until_something_is_written() -> None:
    cache, found = AllowedCache(), allowed(3)

    cache.put("vs_a", "lang = de", 4, found)

    assert cache.get("vs_a", "lang = de", 4) is found
    assert cache.get("vs_a", "lang = de", 5) is None
    assert cache.get("vs_b", "lang = de", 4) is None


def test_what_was_read_again_takes_the_place_of_what_was_known() -> None:
    cache, newer = AllowedCache(), allowed(2)
    cache.put("vs_a", "lang = de", 4, allowed(3))

    cache.put("vs_a", "lang = de", 6, newer)

    assert cache.get("vs_a", "lang = de", 4) is None
    assert cache.get("vs_a", "lang = de", 6) is newer


def test_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    cache = AllowedCache(max_bytes=3 * (8 * 1000 + 1024))
    for name in ("a", "b", "c"):
        cache.put("vs", name, 4, allowed(1000))
    cache.get("vs", "a", 4)

    cache.put("vs", "d", 4, allowed(1000))

    assert [name for name in "abcd" if cache.get("vs", name, 4)] == ["a", "c", "d"]


def test_what_is_larger_than_all_is_not_remembered() -> None:
    cache = AllowedCache(max_bytes=100)

    cache.put("vs", "a", 4, allowed(1000))

    assert cache.get("vs", "a", 4) is None
