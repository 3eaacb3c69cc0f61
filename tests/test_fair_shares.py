from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from server.fair_shares import FairShares

TENANTS = ("ada", "bob", "cyd")
tenants = st.sampled_from(TENANTS)


@given(
    st.lists(st.integers(1, 100), min_size=60, max_size=200),
    st.fixed_dictionaries({tenant: st.sampled_from([0.5, 1.0, 4.0]) for tenant in TENANTS}),
)
def test_tenants_that_always_want_more_get_what_their_weights_say(sizes: list[int], weights: dict[str, float]) -> None:
    """Nobody is ahead of anybody by more than one piece, whatever the pieces are."""
    shares, got = FairShares(), dict.fromkeys(TENANTS, 0.0)
    for tenant in TENANTS:
        shares.enter(tenant, weights[tenant])

    for size in sizes:
        tenant = min(TENANTS, key=shares.had)
        shares.charge(tenant, size)
        got[tenant] += size / weights[tenant]

    assert max(got.values()) - min(got.values()) <= 100 / min(weights.values())


def test_being_away_saves_nothing_up() -> None:
    shares = FairShares()
    shares.enter("ada", 1.0)
    shares.charge("ada", 1000)

    shares.enter("bob", 1.0)

    assert shares.had("bob") == shares.had("ada") == 1000


def test_leaving_for_a_moment_forgives_nothing() -> None:
    shares = FairShares()
    shares.enter("ada", 1.0)
    shares.enter("bob", 1.0)
    shares.charge("ada", 1000)
    shares.leave("ada")

    shares.enter("ada", 1.0)

    assert shares.had("ada") - shares.had("bob") == 1000


def test_when_all_have_left_nothing_is_owed() -> None:
    shares = FairShares()
    shares.enter("ada", 1.0)
    shares.charge("ada", 1000)
    shares.leave("ada")

    shares.enter("bob", 1.0)
    shares.enter("ada", 1.0)

    assert shares.had("ada") == shares.had("bob")


def test_a_tenant_is_here_until_its_last_thing_is_gone() -> None:
    shares = FairShares()
    for _ in range(2):
        shares.enter("ada", 1.0)
    shares.enter("bob", 3.0)
    shares.leave("ada")

    assert shares.is_contested
    assert (shares.total_weight, shares.weight("bob")) == (4.0, 3.0)

    shares.leave("ada")

    assert not shares.is_contested


@dataclass
class NaiveShares:
    """Forgets nothing before everybody is away, and looks at everything each time."""

    things: list[str] = field(default_factory=list)
    had: dict[str, float] = field(default_factory=dict)

    def enter(self, tenant: str) -> None:
        if tenant not in self.things:
            self.had[tenant] = max(self.had.get(tenant, 0.0), min((self.had[one] for one in self.things), default=0.0))
        self.things.append(tenant)

    def leave(self, tenant: str) -> None:
        self.things.remove(tenant)
        if not self.things:
            self.had.clear()


class SharesAgainstTwin(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shares, self.twin = FairShares(), NaiveShares()

    @rule(tenant=tenants)
    def enter(self, tenant: str) -> None:
        self.shares.enter(tenant, 2.0)
        self.twin.enter(tenant)
        self.compare()

    @precondition(lambda self: self.twin.things)
    @rule(choice=st.integers(0, 99), amount=st.integers(1, 50))
    def charge(self, choice: int, amount: int) -> None:
        tenant = self.twin.things[choice % len(self.twin.things)]
        self.shares.charge(tenant, amount)
        self.twin.had[tenant] += amount / 2
        self.compare()

    @precondition(lambda self: self.twin.things)
    @rule(choice=st.integers(0, 99))
    def leave(self, choice: int) -> None:
        tenant = self.twin.things[choice % len(self.twin.things)]
        self.shares.leave(tenant)
        self.twin.leave(tenant)
        self.compare()

    def compare(self) -> None:
        assert self.shares.is_contested == (len(set(self.twin.things)) > 1)
        for tenant in set(self.twin.things):
            assert self.shares.had(tenant) == self.twin.had[tenant]


TestSharesAgainstTwin = SharesAgainstTwin.TestCase
