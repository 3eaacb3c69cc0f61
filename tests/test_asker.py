from __future__ import annotations

import asyncio
import math
import time

import pytest

from server.asker import NOBODY_IN_PARTICULAR, Asker, asking, current_asker, on_behalf
from server.types import NO_HURRY, Urgency

ADA = Asker(tenant="ada", weight=2.0)


def test_what_nobody_asked_for_is_nobodys() -> None:
    assert current_asker() == NOBODY_IN_PARTICULAR


def test_whoever_asks_is_known_inside_and_no_longer() -> None:
    with asking(ADA):
        assert current_asker() == ADA

    assert current_asker() == NOBODY_IN_PARTICULAR


async def test_tasks_work_for_whoever_started_them() -> None:
    async def look() -> Asker:
        await asyncio.sleep(0)
        return current_asker()

    with asking(ADA):
        hers = asyncio.create_task(look())
    nobodys = asyncio.create_task(look())

    assert [await hers, await nobodys] == [ADA, NOBODY_IN_PARTICULAR]


def test_a_generation_has_the_weight_of_whoever_asks() -> None:
    with asking(ADA):
        assert on_behalf(Urgency(priority=3, timeout_s=5.0)) == Urgency(priority=3, timeout_s=5.0, weight=2.0)
        assert on_behalf(NO_HURRY).timeout_s is None


@pytest.mark.parametrize(("own_s", "allowed_s", "expected_s"), [(None, 9.0, 9.0), (3.0, 9.0, 3.0), (30.0, 9.0, 9.0)])
def test_the_shorter_of_two_deadlines_counts(own_s: float | None, allowed_s: float, expected_s: float) -> None:
    with asking(Asker(deadline_at=time.monotonic() + allowed_s)):
        timeout_s = on_behalf(Urgency(timeout_s=own_s)).timeout_s

    assert timeout_s is not None and math.isclose(timeout_s, expected_s, abs_tol=0.5)


def test_time_that_is_over_is_none_left() -> None:
    with asking(Asker(deadline_at=time.monotonic() - 5)):
        assert on_behalf(NO_HURRY).timeout_s == 0
