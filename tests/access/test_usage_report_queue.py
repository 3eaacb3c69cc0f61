"""Reports are made one after the other, and none takes for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.access import usage_report_queue, usage_rows
from server.access.usage_ledger import UsageLedger
from server.access.usage_report_queue import MAX_OF_TENANT, ReportQueue
from server.access.usage_rows import UsageQuery
from server.errors import InvalidRequest, LimitExceeded
from tests.fakes.usage import open_database, record


async def take_turn(queue: ReportQueue, tenant: str, log: list[str], may_end: asyncio.Event) -> None:
    async with queue.turn(tenant):
        log.append(f"{tenant} begins")
        await may_end.wait()
        log.append(f"{tenant} ends")


async def test_one_is_made_at_a_time() -> None:
    queue, log, may_end = ReportQueue(), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(take_turn(queue, tenant, log, may_end)) for tenant in ("ada", "bob")]
    await asyncio.sleep(0)

    may_end.set()
    await asyncio.gather(*tasks)

    assert log == ["ada begins", "ada ends", "bob begins", "bob ends"]


async def test_a_tenant_that_asks_for_many_is_refused_and_others_are_not() -> None:
    queue, may_end = ReportQueue(), asyncio.Event()
    tasks = [asyncio.create_task(take_turn(queue, "ada", [], may_end)) for _ in range(MAX_OF_TENANT)]
    tasks.append(asyncio.create_task(take_turn(queue, "bob", [], may_end)))
    await asyncio.sleep(0)

    with pytest.raises(LimitExceeded, match="wait for one to end"):
        await take_turn(queue, "ada", [], may_end)

    may_end.set()
    await asyncio.gather(*tasks)
    await take_turn(queue, "ada", [], may_end)


async def test_whoever_leaves_the_queue_leaves_nothing_behind() -> None:
    queue, may_end = ReportQueue(), asyncio.Event()
    tasks = [asyncio.create_task(take_turn(queue, "ada", [], may_end)) for _ in range(MAX_OF_TENANT)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    may_end.set()
    log: list[str] = []

    await take_turn(queue, "ada", log, may_end)

    assert log == ["ada begins", "ada ends"]


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.access.usage_rows._STEPS_PER_LOOK", 1)


@pytest.mark.usefixtures("looks_often")
async def test_a_report_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_database(tmp_path) as database:
        ledger = UsageLedger(lambda: database, tmp_path / "usage")
        ledger.settle(record())
        with monkeypatch.context() as patch:
            patch.setattr(usage_report_queue, "REPORT_S", 0.0)
            with pytest.raises(InvalidRequest, match="ask for less time"):
                await ledger.report(UsageQuery())

        [group] = await ledger.report(UsageQuery())  # the connection is as good as before
        assert group.num_requests == 1
        await ledger.close()


@pytest.mark.usefixtures("looks_often")
async def test_a_report_that_nobody_waits_for_is_stopped(tmp_path: Path) -> None:
    async with ReportQueue().turn("ada") as patience:
        pass

    async with open_database(tmp_path) as database:
        with pytest.raises(InvalidRequest):
            await database.read(lambda db: usage_rows.report(db, UsageQuery(), patience))
