from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.access import key_store
from server.access.key_ring import KeyRing
from server.access.policy import AccessPolicy, has_keys, is_loopback, policy_of
from server.config.server_section import ServerSettings
from server.errors import StorageError
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from tests.fakes.keys import key_named


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_what_only_this_machine_reaches_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "fe80::1", "hearth.example", "localhost.x"]
)
def test_whatever_else_may_be_reached_by_others(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("settings", "needs_keys", "checks_hosts"),
    [
        ({}, False, True),
        ({"host": "0.0.0.0"}, True, False),
        ({"host": "0.0.0.0", "allowed_hosts": ("hearth.example",)}, True, True),
        ({"host": "0.0.0.0", "allow_insecure": True}, False, True),
    ],
)
def test_what_the_configuration_makes_of_it(
    settings: dict[str, object], *, needs_keys: bool, checks_hosts: bool
) -> None:
    policy = policy_of(ServerSettings.model_validate(settings), KeyRing())

    assert (policy.needs_keys, policy.checks_hosts) == (needs_keys, checks_hosts)


@pytest.mark.parametrize(
    "name", ["localhost", "LocalHost", "app.localhost", "10.1.2.3", "::1", "Hearth.Example", "hearth.example."]
)
def test_a_host_is_known_by_an_address_or_by_its_name(name: str) -> None:
    assert AccessPolicy(allowed_hosts=frozenset({"hearth.example"})).knows_host(name)


@pytest.mark.parametrize(
    "name", ["", "evil.example", "hearth.example.evil", "x.hearth.example", "127.0.0.1.evil.example", "localhostx"]
)
def test_any_other_name_is_not(name: str) -> None:
    assert not AccessPolicy(allowed_hosts=frozenset({"hearth.example"})).knows_host(name)


def test_whether_there_are_keys_is_seen_before_the_server_opens_them(tmp_path: Path) -> None:
    path = tmp_path / "accounts.sqlite"
    before = has_keys(path)
    database = Database.open(path, ACCOUNT_MIGRATIONS)
    empty = has_keys(path)
    _, revoked = key_named("a", revoked_at=1)
    asyncio.run(database.write(lambda db: key_store.insert(db, revoked)))
    database.close()

    assert (before, empty, has_keys(path)) == (False, False, True)


def test_what_cannot_be_read_is_not_no_keys(tmp_path: Path) -> None:
    (tmp_path / "accounts.sqlite").write_bytes(b"not a database" * 100)

    with pytest.raises(StorageError, match="cannot be read"):
        has_keys(tmp_path / "accounts.sqlite")
