"""How often an address may be wrong about its key. Bounded memory, however many addresses there are."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

NUM_TRIES = 20
"""Wrong keys of one address in a row that are answered as such."""

SECONDS_PER_TRY = 3.0
"""After so long without one, another one is."""

MAX_ADDRESSES = 10_000
"""Those that were wrong longest ago are forgotten first: they have paid off the most."""

_NETWORK_BITS = 64  # of IPv6, which anybody has at least a network of


class FailedTries:
    """Counts wrong keys. Right ones are let in all the same: behind one address may be many, one of them misled."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_off_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paid_off_at)

    def note(self, address: str) -> float:
        """Count one; tell in how many seconds another would count again, 0 while there are tries left."""
        origin = _origin_of(address)
        now = self._clock()
        paid_off_at = max(now, self._paid_off_at.get(origin, now))
        wait_s = paid_off_at + SECONDS_PER_TRY - now - NUM_TRIES * SECONDS_PER_TRY
        if wait_s > 0:
            return wait_s
        self._paid_off_at[origin] = paid_off_at + SECONDS_PER_TRY
        self._paid_off_at.move_to_end(origin)
        if len(self._paid_off_at) > MAX_ADDRESSES:
            self._paid_off_at.popitem(last=False)
        return 0.0


def _origin_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
