from __future__ import annotations

import hashlib

from server.access.api_key import digest_of, hint_of, new_key
from tests.fakes.keys import key_named


def test_keys_are_different_and_nobody_guesses_one() -> None:
    keys = {new_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(key.startswith("hk-") and len(key) - len("hk-") >= 43 for key in keys)  # 256 bits at 6 a character


def test_of_a_key_only_its_digest_and_a_hint_are_kept() -> None:
    key = new_key()

    assert digest_of(key) == hashlib.sha256(key.encode()).digest()
    assert key.startswith(hint_of(key)) and len(hint_of(key)) == 7


def test_a_key_ends_when_it_expires_or_is_revoked() -> None:
    _, endless = key_named("endless")
    _, expiring = key_named("expiring", expires_at=100)
    _, revoked = key_named("revoked", expires_at=100, revoked_at=50)

    assert endless.state(1e12) == "active"
    assert (expiring.state(99), expiring.state(100)) == ("active", "expired")
    assert (revoked.state(99), revoked.state(200)) == ("revoked", "revoked")


def test_a_caller_is_what_the_key_says() -> None:
    _, key = key_named("a", tenant="bakery", scopes=frozenset({"rag"}), models=frozenset({"talker"}))

    caller = key.caller

    assert (caller.tenant, caller.key_id) == ("bakery", "key_a")
    assert (caller.scopes, caller.models) == (frozenset({"rag"}), frozenset({"talker"}))
