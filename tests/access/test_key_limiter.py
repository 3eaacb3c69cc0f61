"""Limits of keys against a naive twin: whatever requests come, side by side, and however they end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.access import key_limiter
from server.access.day_quota import DAY_S, NOTHING, Amount
from server.access.key_account import Expected
from server.access.key_limiter import Claim, KeyLimiter, is_limited
from server.caller import Caller, KeyLimits
from server.errors import LimitExceeded, QuotaExceeded
from server.types import Usage

NOON = 20_000 * DAY_S + DAY_S // 2


def caller(key_id: str = "k", **limits: Any) -> Caller:
    return Caller(key_id=key_id, limits=KeyLimits(**limits))


@dataclass
class Bench:
    """A limiter on clocks that a test sets; a token costs a hundredth."""

    now: float = 0.0
    wall: float = NOON
    used: Amount = NOTHING
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = KeyLimiter(
            used_since=self._used_since,
            cost_of=lambda _model, usage: (usage.prompt_tokens + usage.completion_tokens) / 100,
            clock=lambda: self.now,
            wall_clock=lambda: self.wall,
        )

    async def _used_since(self, key_id: str, _since_s: int) -> Amount:
        self.asked.append(key_id)
        return self.used

    async def admit(self, who: Caller, num_prompt_tokens: int = 0, **expected: Any) -> Claim:
        claim = await self.limiter.admit(who)
        assert claim is not None
        try:
            claim.reserve(Expected(num_prompt_tokens=num_prompt_tokens, **expected))
        except LimitExceeded:
            claim.settle(NOTHING)
            raise
        return claim

    async def num_admitted(self, who: Caller, num_prompt_tokens: int = 0) -> int:
        """How many such requests are let in side by side, of 300."""
        claims = await asyncio.gather(*(self.admit(who, num_prompt_tokens) for _ in range(300)), return_exceptions=True)
        assert all(isinstance(claim, Claim | LimitExceeded) for claim in claims)
        return sum(isinstance(claim, Claim) for claim in claims)


def cost(num_tokens: int) -> Amount:
    return Amount(num_tokens, num_tokens / 100)


def test_a_weight_alone_is_no_limit() -> None:
    assert not is_limited(KeyLimits(weight=3.0))
    assert is_limited(KeyLimits(tokens_per_day=0))


@pytest.mark.parametrize("who", [Caller(), caller(), Caller(limits=KeyLimits(requests_per_minute=1))])
async def test_who_has_no_limits_or_no_key_has_no_account(who: Caller) -> None:
    bench = Bench()

    assert await bench.limiter.admit(who) is None
    assert bench.limiter.standings(who) == {}


async def test_requests_of_a_minute() -> None:
    bench, who = Bench(), caller(requests_per_minute=30)
    assert await bench.num_admitted(who) == 30

    with pytest.raises(LimitExceeded, match="may send 30 requests a minute, and has; try again in 2 s") as refused:
        await bench.admit(who)
    assert refused.value.retry_after_s == pytest.approx(2.0)

    bench.now += 10
    assert await bench.num_admitted(who) == 5


async def test_requests_at_a_time() -> None:
    bench, who = Bench(), caller(concurrent_requests=2)
    first, _ = await bench.admit(who), await bench.admit(who)
    with pytest.raises(LimitExceeded, match="runs 2 requests already"):
        await bench.admit(who)

    first.settle(NOTHING)

    await bench.admit(who)


async def test_tokens_of_a_minute_count_as_they_may_be_used_and_then_as_they_were() -> None:
    bench, who = Bench(), caller(tokens_per_minute=1000)
    claim = await bench.admit(who, 100, num_answers=1, max_answer_tokens=700)
    with pytest.raises(
        LimitExceeded, match="may use 1000 tokens a minute, and has 200 left; this request may take 300"
    ):
        await bench.admit(who, 300)

    claim.settle(cost(150))

    await bench.admit(who, 300)
    assert bench.limiter.standings(who)["tokens"].remaining == 550


async def test_a_request_for_more_than_a_minute_gives_waits_for_a_full_minute_and_is_paid_off() -> None:
    bench, who = Bench(), caller(tokens_per_minute=600)
    claim = await bench.admit(who, 10, num_answers=1, max_answer_tokens=8000)
    claim.settle(cost(1200))

    with pytest.raises(LimitExceeded) as refused:
        await bench.limiter.admit(who)

    assert refused.value.retry_after_s == pytest.approx(60.1)


async def test_a_refused_request_counts_for_nothing() -> None:
    bench, who = Bench(), caller(requests_per_minute=60, tokens_per_minute=100, tokens_per_day=1000)
    claim = await bench.admit(who, 50)
    for _ in range(10):
        with pytest.raises(LimitExceeded):
            await bench.admit(who, 60)

    claim.settle(NOTHING)

    assert {name: each.remaining for name, each in bench.limiter.standings(who).items()} == {
        "requests": 59,
        "tokens": 100,
    }


async def test_a_quota_of_the_day_goes_on_from_the_ledger() -> None:
    bench, who = Bench(used=cost(950)), caller(tokens_per_day=1000)
    claim = await bench.admit(who, 40)
    with pytest.raises(QuotaExceeded, match="990 of 1000 tokens, and this request may take 20"):
        await bench.admit(who, 20)
    claim.settle(cost(50))

    with pytest.raises(QuotaExceeded, match="1000 of 1000 tokens"):
        await bench.limiter.admit(who)
    assert bench.asked == ["k"]

    bench.wall, bench.used = NOON + DAY_S, NOTHING
    await bench.admit(who, 20)


async def test_a_quota_of_cost() -> None:
    bench, who = Bench(), caller(cost_per_day=10.0)

    assert await bench.num_admitted(who, 100) == 10
    with pytest.raises(QuotaExceeded, match=r"10\.0000 of 10 in cost"):
        await bench.admit(who, 1)


async def test_two_hundred_at_once_against_ten_left() -> None:
    bench, who = Bench(used=cost(90)), caller(tokens_per_day=100)

    assert await bench.num_admitted(who, 1) == 10


async def test_what_nobody_can_tell_was_all_that_was_reserved() -> None:
    bench, who = Bench(), caller(tokens_per_minute=1000, tokens_per_day=1000)
    claim = await bench.admit(who, 100, num_answers=2, max_answer_tokens=50)

    claim.settle(None)

    assert bench.limiter.standings(who)["tokens"].remaining == 800
    with pytest.raises(QuotaExceeded):
        await bench.admit(who, 801)


async def test_answers_without_a_bound_are_expected_to_be_as_long_as_usual() -> None:
    bench, who = Bench(), caller(tokens_per_minute=10_000)
    for _ in range(30):
        claim = await bench.admit(who, 0, num_answers=2)
        claim.settle(cost(40), num_answer_tokens=40)
        bench.now += 60

    await bench.admit(who, 0, num_answers=1)

    assert 9_975 <= bench.limiter.standings(who)["tokens"].remaining <= 9_985


async def test_other_limits_of_a_key_hold_at_once() -> None:
    bench = Bench()
    assert await bench.num_admitted(caller(requests_per_minute=10)) == 10

    assert await bench.num_admitted(caller(requests_per_minute=25)) == 15
    assert await bench.num_admitted(caller(requests_per_minute=5)) == 0
    assert await bench.num_admitted(caller(requests_per_minute=5, concurrent_requests=20)) == 0
    assert await bench.num_admitted(caller(concurrent_requests=30)) == 5


async def test_keys_do_not_share_limits() -> None:
    bench = Bench()
    await bench.num_admitted(caller("one", requests_per_minute=3))

    assert await bench.num_admitted(caller("other", requests_per_minute=3)) == 3


async def test_accounts_of_idle_keys_are_forgotten_those_of_others_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_limiter, "MAX_ACCOUNTS", 3)
    bench = Bench()
    busy = await bench.admit(caller("busy", concurrent_requests=1))
    await bench.num_admitted(caller("spent", requests_per_minute=2))

    for n in range(20):
        (await bench.admit(caller(f"idle {n}", concurrent_requests=1))).settle(NOTHING)

    assert len(bench.limiter._accounts) <= 4
    assert await bench.num_admitted(caller("busy", concurrent_requests=1)) == 0
    busy.settle(NOTHING)


@settings(max_examples=60)
@given(st.data())
async def test_side_by_side_they_never_exceed_a_quota_by_more_than_was_in_flight(data: st.DataObject) -> None:
    """Real use is at most what was reserved: then it is never exceeded at all."""
    bench, who, used = Bench(), caller(tokens_per_day=500), 0
    running: list[tuple[Claim, int]] = []
    for _ in range(data.draw(st.integers(1, 60))):
        if running and data.draw(st.booleans()):
            claim, reserved = running.pop(data.draw(st.integers(0, len(running) - 1)))
            really = data.draw(st.integers(0, reserved))
            claim.settle(cost(really))
            used += really
            continue
        wanted = data.draw(st.integers(1, 200))
        try:
            running.append((await bench.admit(who, wanted), wanted))
        except QuotaExceeded:
            assert used + sum(reserved for _, reserved in running) + wanted > 500
    for claim, reserved in running:
        claim.settle(cost(reserved))
        used += reserved

    assert used <= 500


class LimiterAgainstTwin(RuleBasedStateMachine):
    """One key with all kinds of limits; the twin keeps a list of everything that ever happened."""

    RPM, TPM, CONCURRENT, PER_DAY = 6, 300, 4, 2000

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.who = caller(
            requests_per_minute=self.RPM,
            tokens_per_minute=self.TPM,
            concurrent_requests=self.CONCURRENT,
            tokens_per_day=self.PER_DAY,
        )
        self.running: list[tuple[Claim, int]] = []
        self.requests: list[tuple[float, float]] = []  # (when, how many)
        self.tokens: list[tuple[float, float]] = []  # (when, how many), what was given back being negative
        self.used = 0

    def left(self, events: list[tuple[float, float]], per_minute: int) -> float:
        """What is left of a limit, by going through everything that was taken of it."""
        level, as_of = float(per_minute), 0.0
        for when, amount in events:
            level = min(per_minute, level + (when - as_of) * per_minute / 60)
            level, as_of = min(per_minute, level - amount), when
        return min(per_minute, level + (self.bench.now - as_of) * per_minute / 60)

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.bench.now += seconds

    @rule(wanted=st.integers(1, 400))
    def come(self, wanted: int) -> None:
        has_place = len(self.running) < self.CONCURRENT and self.left(self.requests, self.RPM) >= 1 - 1e-9
        has_tokens = self.left(self.tokens, self.TPM) >= min(wanted, self.TPM) - 1e-9
        reserved = sum(each for _, each in self.running)
        has_quota = self.used + reserved + wanted <= self.PER_DAY
        expected = has_place and has_tokens and has_quota
        try:
            claim = asyncio.run(self.bench.admit(self.who, wanted))
        except LimitExceeded:
            assert not expected
            return
        assert expected
        self.running.append((claim, wanted))
        self.requests.append((self.bench.now, 1))
        self.tokens.append((self.bench.now, min(wanted, self.TPM)))

    @precondition(lambda self: self.running)
    @rule(choice=st.integers(0, 99), share=st.sampled_from([0.0, 0.3, 1.0, 1.5]))
    def end(self, choice: int, share: float) -> None:
        claim, wanted = self.running.pop(choice % len(self.running))
        really = round(share * wanted)
        claim.settle(cost(really))
        self.tokens += [(self.bench.now, -min(wanted, self.TPM)), (self.bench.now, really)]
        self.used += really

    @invariant()
    def quota_is_exceeded_by_no_more_than_real_use_exceeds_what_was_expected(self) -> None:
        assert self.used <= self.PER_DAY + 0.5 * 400 * self.CONCURRENT

    def teardown(self) -> None:
        for claim, _ in self.running:
            claim.settle(NOTHING)
        account = self.bench.limiter._account(self.who)
        assert account is not None
        assert account.day.used.num_tokens == self.used
        assert account.day.reserved.num_tokens == 0
        assert account.day.reserved.cost == pytest.approx(0, abs=1e-9)


TestLimiterAgainstTwin = LimiterAgainstTwin.TestCase
TestLimiterAgainstTwin.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_usage_of_a_model_that_is_free() -> None:
    assert key_limiter.for_free("m", Usage(prompt_tokens=10**9)) == 0
