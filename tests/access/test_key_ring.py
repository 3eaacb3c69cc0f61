from __future__ import annotations

import pytest

from server.access.key_ring import KeyRing
from server.errors import StorageUnavailable
from tests.fakes.keys import key_named

TEXT, KEY = key_named("a", tenant="bakery")


def test_a_key_tells_who_has_it() -> None:
    caller = KeyRing.of(KEY).find(TEXT)

    assert caller is not None
    assert (caller.tenant, caller.key_id) == ("bakery", "key_a")


@pytest.mark.parametrize(
    "wrong", ["", "hk-", TEXT[:-1], TEXT + "x", TEXT.upper(), f" {TEXT}", KEY.digest.hex(), KEY.id]
)
def test_anything_else_is_nobodys(wrong: str) -> None:
    assert KeyRing.of(KEY).find(wrong) is None


def test_a_key_expires_by_the_clock() -> None:
    now = 99.0
    text, key = key_named("short", expires_at=100)
    ring = KeyRing.of(key, clock=lambda: now)

    before = ring.find(text)
    now = 100.0

    assert before is not None
    assert ring.find(text) is None


def test_the_last_key_that_ends_does_not_open_the_door() -> None:
    text, key = key_named("old", revoked_at=1)

    ring = KeyRing.of(key)

    assert ring.has_keys
    assert ring.find(text) is None


def test_without_keys_there_are_none() -> None:
    assert not KeyRing.of().has_keys


def test_keys_that_are_not_read_are_not_none() -> None:
    with pytest.raises(StorageUnavailable):
        _ = KeyRing().has_keys


def test_a_ring_that_is_shut_knows_nobody() -> None:
    ring = KeyRing.of(KEY)

    ring.shut(StorageUnavailable("broken"))

    assert ring.find(TEXT) is None
    with pytest.raises(StorageUnavailable, match="broken"):
        _ = ring.has_keys
