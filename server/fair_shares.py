"""What each of several tenants has had of something that they compete for, so that who has had least comes next.

Fair queueing by virtual time: what a tenant gets is charged by its weight, and whoever comes, or comes back, begins
where those who are here stand. So being away saves nothing up, and a tenant that wants less than its share never waits
for one that wants more. Knows no queue, no model and no clock.
"""

from __future__ import annotations


class FairShares:
    """Virtual times of the tenants that are here, and of those who left with more than their share.

    A tenant is here from its first `enter` until as many `leave`. Memory is bounded by the tenants that are here and
    those that left since everybody last was away.
    """

    def __init__(self) -> None:
        self._had: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._num_things: dict[str, int] = {}

    @property
    def is_contested(self) -> bool:
        """Whether more than one tenant is here."""
        return len(self._num_things) > 1

    @property
    def total_weight(self) -> float:
        """Of the tenants that are here."""
        return sum(self._weights[tenant] for tenant in self._num_things)

    def weight(self, tenant: str) -> float:
        """Of a tenant that is here."""
        return self._weights[tenant]

    def had(self, tenant: str) -> float:
        """What a tenant has had, by its weight, or where it would begin. Only differences mean something."""
        if tenant in self._num_things:
            return self._had[tenant]
        return max(self._had.get(tenant, 0.0), self._least_had)

    def enter(self, tenant: str, weight: float) -> None:
        """One more thing of a tenant is here; its weight is as of the last one that came."""
        if tenant not in self._num_things:
            self._had[tenant] = self.had(tenant)
            self._num_things[tenant] = 0
        self._num_things[tenant] += 1
        self._weights[tenant] = weight

    def charge(self, tenant: str, amount: float) -> None:
        """A tenant that is here has got something."""
        self._had[tenant] += amount / self._weights[tenant]

    def leave(self, tenant: str) -> None:
        """One thing of a tenant is gone; after the last one only what it has had too much of is remembered."""
        self._num_things[tenant] -= 1
        if self._num_things[tenant]:
            return
        del self._num_things[tenant], self._weights[tenant]
        least = self._least_had if self._num_things else float("inf")  # with everybody away, nobody had too much
        self._had = {name: had for name, had in self._had.items() if name in self._num_things or had > least}

    @property
    def _least_had(self) -> float:
        return min((self._had[tenant] for tenant in self._num_things), default=0.0)
