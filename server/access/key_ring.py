"""All keys, in memory: who a key belongs to is told without the disk, as soon with a locked database as without."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable

from server.access.api_key import ApiKey, digest_of
from server.caller import Caller
from server.errors import StorageError, StorageUnavailable


class KeyRing:
    """Until the keys are read, and where they cannot be, nobody is let in: a lost database is not "no keys".

    Clients cannot make it grow: it holds the keys that operators have made, and knows nothing of wrong ones.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self._clock = clock
        self._by_digest: dict[bytes, tuple[ApiKey, Caller]] = {}
        self._has_keys = False
        self._reason: StorageError | None = StorageUnavailable("keys are not read yet; try again in a moment")

    @classmethod
    def of(cls, *keys: ApiKey, clock: Callable[[], float] = time.time) -> KeyRing:
        """A ring of these keys; of none: anybody is let in."""
        ring = cls(clock=clock)
        ring.replace(keys)
        return ring

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Take over all keys there have ever been. Those that are no more count, too: see `has_keys`."""
        found = list(keys)
        self._by_digest = {key.digest: (key, key.caller) for key in found if key.revoked_at is None}
        self._has_keys = bool(found)
        self._reason = None

    def shut(self, reason: StorageError) -> None:
        """Let nobody in, as nobody knows who may. `reason` is for clients."""
        self._by_digest, self._reason = {}, reason

    @property
    def is_read(self) -> bool:
        return self._reason is None

    @property
    def has_keys(self) -> bool:
        """Whether a key was ever made. The last one to be revoked, or to expire, does not open the door.

        Raises:
            StorageError: Nobody knows.
        """
        if self._reason is not None:
            raise self._reason
        return self._has_keys

    def find(self, key: str) -> Caller | None:
        """Tell who has this key; None: nobody, not yet or not any more.

        How long that takes tells nothing of how much of a wrong key is right: what is looked up is its digest.
        """
        digest = digest_of(key)
        found, caller = self._by_digest.get(digest, (None, None))
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        return caller if found.state(self._clock()) == "active" else None
