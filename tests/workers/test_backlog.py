from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.asker import NOBODY_IN_PARTICULAR, Asker
from server.config.server_section import Limits
from server.errors import Overloaded
from server.workers.backlog import Backlog, Held

ADA, BOB, HEAVY = Asker(tenant="ada"), Asker(tenant="bob"), Asker(tenant="heavy", weight=3.0)


def chat(*, places: int = 2, pace: tuple[float, float] = (0.01, 1.0), **limits: Any) -> Backlog:
    """A backlog at so many seconds per prompt token, and per answer of ten tokens."""
    backlog = Backlog("m", Limits(**limits), num_places=places)
    backlog.set_pace(s_per_token=pace[0], s_per_answer_token=pace[1] / 10)
    return backlog


def fill(backlog: Backlog, asker: Asker, *, num_tokens: int = 0) -> int:
    """Send generations until one is refused; return how many were not."""
    for number in range(1000):
        try:
            backlog.enter(asker, num_tokens, max_answer_tokens=10)
        except Overloaded:
            return number
    raise AssertionError("nothing was refused")


def test_requests_are_bounded() -> None:
    backlog = chat(max_queued_requests=3, pace=(0, 0))

    assert fill(backlog, ADA) == 3


def test_tokens_that_wait_are_bounded_and_those_that_are_answered_do_not_count() -> None:
    backlog = chat(max_queued_tokens=1000, pace=(0, 0))
    held = [backlog.enter(ADA, 400) for _ in range(2)]
    with pytest.raises(Overloaded, match="800 tokens waiting, and this request has about 400"):
        backlog.enter(ADA, 400)

    backlog.resize(held[0], 0)

    backlog.enter(ADA, 400)


def test_a_request_that_finds_nothing_waiting_is_let_in_whatever_its_size() -> None:
    chat(max_queued_tokens=1000).enter(ADA, 5000)


def test_the_wait_is_that_for_prompts_and_for_answers_that_have_to_end_first() -> None:
    backlog = chat(places=2)
    assert backlog.wait_s(ADA) == 0

    backlog.enter(ADA, 100, max_answer_tokens=10)
    assert backlog.wait_s(ADA) == pytest.approx(1.0)  # its prompt

    backlog.enter(ADA, 100, max_answer_tokens=10)
    assert backlog.wait_s(ADA) == pytest.approx(3.0)  # both prompts, and one answer

    backlog.enter(ADA, 100, max_answer_tokens=10)
    assert backlog.wait_s(ADA) == pytest.approx(5.0)


def test_answers_are_expected_to_be_as_long_as_lately_and_as_they_may_be() -> None:
    backlog = chat(places=1, pace=(0.0, 1.0))
    for _ in range(100):
        backlog.learn_answer(40)
    backlog.enter(ADA, 0, max_answer_tokens=10)
    assert backlog.wait_s(ADA) == pytest.approx(1.0)

    backlog.enter(ADA, 0, max_answer_tokens=float("inf"))

    assert backlog.wait_s(ADA) == pytest.approx(5.0, rel=0.01)


def test_who_would_wait_for_too_long_hears_at_once_when_to_come_back() -> None:
    backlog = chat(max_wait_s=10.0)
    for _ in range(2):
        backlog.enter(ADA, 600)

    with pytest.raises(Overloaded, match=r"busy for longer than max_wait_s = 10; a request would wait about 12 s") as e:
        backlog.enter(ADA, 1)

    assert e.value.retry_after_s == 12


@pytest.mark.parametrize(("num_tokens", "retry_after_s"), [(20, 1), (10_000, 100), (100_000, 120)])
def test_clients_are_never_told_to_come_back_later_than_they_would(num_tokens: int, retry_after_s: int) -> None:
    backlog = chat(max_queued_requests=1)
    backlog.enter(ADA, num_tokens)

    with pytest.raises(Overloaded) as refused:
        backlog.enter(ADA, 1)

    assert refused.value.retry_after_s == retry_after_s


def test_prompts_that_are_mostly_cached_make_nobody_wait() -> None:
    backlog = chat(max_wait_s=10.0)
    for _ in range(100):
        backlog.learn(1000, num_cached=990)

    backlog.enter(ADA, 5000)

    assert backlog.wait_s(ADA) == pytest.approx(0.5, rel=0.05)


def test_before_the_pace_is_known_nobody_is_refused_for_the_wait() -> None:
    backlog = chat(pace=(0, 0), max_wait_s=0.1)
    for _ in range(50):
        backlog.enter(ADA, 1000, max_answer_tokens=10)


def test_bulk_work_may_wait_and_nobody_waits_for_it() -> None:
    backlog = chat(max_wait_s=10.0)
    for _ in range(5):
        backlog.enter(ADA, 1000, lane="bulk")
    assert backlog.wait_s(ADA) == 0

    backlog.enter(ADA, 1500)

    with pytest.raises(Overloaded):
        backlog.enter(ADA, 1)
    backlog.enter(ADA, 1000, lane="bulk")


@pytest.mark.parametrize(
    "limits",
    [{"max_queued_requests": 60}, {"max_wait_s": 30.0}, {"max_queued_tokens": 6000}],
    ids=lambda each: next(iter(each)),
)
def test_a_flood_shuts_out_nobody_else(limits: dict[str, Any]) -> None:
    backlog = chat(places=16, pace=(0.001, 1.0), **limits)
    fill(backlog, ADA, num_tokens=100)

    backlog.enter(BOB, 100, max_answer_tokens=10)

    assert backlog.wait_s(BOB) < 3


def test_tenants_fill_a_bound_by_their_weights_and_memory_stays_bounded() -> None:
    backlog = chat(max_queued_requests=60, pace=(0, 0))

    assert [fill(backlog, ADA), fill(backlog, BOB), fill(backlog, HEAVY)] == [60, 30, 36]


def test_waits_of_tenants_go_by_their_shares() -> None:
    """One that has as much in hand as another, and three times its weight, waits for two thirds of all of it."""
    backlog = chat(places=1, pace=(0.0, 1.0))
    for asker in (ADA, HEAVY):
        for _ in range(10):
            backlog.enter(asker, 0, max_answer_tokens=10)

    assert backlog.wait_s(HEAVY) < backlog.wait_s(ADA) <= 20


@given(st.integers(0, 2**32), st.integers(1, 80))
def test_when_all_have_left_nothing_is_left(seed: int, num_events: int) -> None:
    chance, backlog, held = random.Random(seed), chat(), []
    for _ in range(num_events):
        what = chance.random()
        if held and what < 0.4:
            backlog.leave(held.pop(chance.randrange(len(held))))
        elif held and what < 0.6:
            backlog.resize(chance.choice(held), chance.randrange(500))
        else:
            held.append(enter_some(backlog, chance))
        assert backlog.num_requests == len(held)
        assert backlog.wait_s(NOBODY_IN_PARTICULAR) >= 0

    for each in held:
        backlog.leave(each)

    assert (backlog.num_requests, backlog.wait_s(ADA)) == (0, 0)
    assert not backlog._loads


def enter_some(backlog: Backlog, chance: random.Random) -> Held:
    asker = chance.choice([ADA, BOB, HEAVY])
    return backlog.enter(asker, chance.randrange(50), max_answer_tokens=chance.choice([None, 10, 20]))
