"""Who is let in at all, by where the server listens: on loopback anybody on this machine, else those with keys."""

from __future__ import annotations

import ipaddress
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from server.access.key_ring import KeyRing
from server.config.server_section import ServerSettings
from server.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """What the server's door goes by.

    Attributes:
        needs_keys: Nobody is let in without one, not even while there are none.
        checks_hosts: Requests for a host that is not known are refused. Pages of other sites can give a name of theirs
            this server's address (DNS rebinding), so that browsers take it for their own; to an address they cannot.
        allowed_hosts: Names that are known besides `localhost`; lower case.
        allowed_origins: Of pages that browsers may let ask this server; exact.
    """

    ring: KeyRing = field(default_factory=KeyRing.of)
    needs_keys: bool = False
    checks_hosts: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()

    def knows_host(self, name: str) -> bool:
        """Whether the server goes by this name, or it is no name but an address."""
        name = name.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost") or name in self.allowed_hosts or _is_address(name)


def policy_of(settings: ServerSettings, ring: KeyRing) -> AccessPolicy:
    """What the configuration makes of it.

    Behind keys, a host that is not known does no harm: a foreign page has no key. So a public server that has them
    goes by whatever name it is called, unless it is told its names.
    """
    is_public = not is_loopback(settings.host)
    return AccessPolicy(
        ring=ring,
        needs_keys=is_public and not settings.allow_insecure,
        checks_hosts=not is_public or settings.allow_insecure or bool(settings.allowed_hosts),
        allowed_hosts=frozenset(name.lower() for name in settings.allowed_hosts),
        allowed_origins=frozenset(settings.allowed_origins),
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to it. Of names only `localhost` is known to be so."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_keys(accounts: Path) -> bool:
    """Look into the database of keys, before a server has opened it, whether a key was ever made. Blocks.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        if not accounts.exists():
            return False
        with closing(sqlite3.connect(f"{accounts.absolute().as_uri()}?mode=ro", uri=True)) as db:
            [(has_table,)] = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'keys'")
            return bool(has_table) and db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None
    except (OSError, sqlite3.Error) as exc:
        raise StorageError(f"{accounts} cannot be read: {exc}; restore a backup, or move it away") from exc


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
