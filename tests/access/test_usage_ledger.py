"""Who used what is kept, each request once, whatever dies; and told in groups."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.access.request_meter import RequestMeter
from server.access.usage_journal import JournalFile
from server.access.usage_ledger import MAX_HELD, UsageLedger
from server.access.usage_rows import UsageGroup, UsageQuery
from server.caller import Caller
from server.config.schema import ModelConfig, Prices
from server.errors import StorageFull, StorageUnavailable
from server.types import ChatPrompt, Started
from tests.fakes.usage import NOON_MS, doomed_ledger, open_database, open_ledger, record, use

DAY_MS = 86_400_000
PRICED = ModelConfig(
    id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf", prices=Prices(input=2, output=8, cached=0.5)
)


async def told(ledger: UsageLedger, *group_by: Any, **more: Any) -> list[UsageGroup]:
    return await ledger.report(UsageQuery(group_by=group_by, **more))


async def tokens(ledger: UsageLedger, *group_by: Any, **more: Any) -> list[tuple[Any, ...]]:
    return [
        (*group.values.values(), group.num_requests, group.prompt_tokens, group.completion_tokens)
        for group in await told(ledger, *group_by, **more)
    ]


def running(ledger: UsageLedger, prompt_tokens: int = 7) -> RequestMeter:
    """A request whose prompt a model has just accepted."""
    meter = RequestMeter(
        "r9", "/v1/chat/completions", find_caller=lambda: Caller(tenant="ada"), on_progress=ledger.note
    )
    meter.note_started(meter.begin(PRICED, ChatPrompt(())), Started(prompt_tokens))
    return meter


async def test_a_request_is_told_of_as_soon_as_it_is_over(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(use("talker", 10, 5)))
        ledger.settle(record(use("talker", 20, 1)))

        assert await tokens(ledger, "model") == [("talker", 2, 30, 6)]


async def test_it_is_still_there_after_a_restart(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record())
    async with open_ledger(tmp_path) as ledger:
        assert await tokens(ledger) == [(1, 10, 5)]
    assert list((tmp_path / "usage").glob("*.jsonl")) == []


async def test_a_server_that_dies_loses_nothing_of_requests_that_were_over(tmp_path: Path) -> None:
    async with doomed_ledger(tmp_path) as ledger:
        ledger.settle(record())
    async with open_ledger(tmp_path) as ledger:
        assert await tokens(ledger, "status") == [("completed", 1, 10, 5)]


async def test_what_runs_when_the_server_dies_is_kept_as_far_as_it_was_known(tmp_path: Path) -> None:
    async with doomed_ledger(tmp_path) as ledger:
        meter = running(ledger, prompt_tokens=7)
        meter.calls[0].note_tokens(3, now=0)
        await ledger.fold()  # once a second: the journal's next file begins with what goes on
        ledger.settle(record())
    async with open_ledger(tmp_path) as ledger:
        assert await tokens(ledger, "status") == [("completed", 1, 10, 5), ("server_died", 1, 7, 3)]


async def test_a_file_that_is_folded_twice_counts_once(tmp_path: Path) -> None:
    """The server dies after the database has the records, and before their file is gone."""
    async with doomed_ledger(tmp_path) as ledger:
        ledger.settle(record())
        [file] = (tmp_path / "usage").glob("*.jsonl")
        shutil.copy(file, tmp_path / "copy")
        await ledger.fold()
    shutil.copy(tmp_path / "copy", file)

    async with open_ledger(tmp_path) as ledger:
        assert await tokens(ledger) == [(1, 10, 5)]


async def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    async with doomed_ledger(tmp_path) as ledger:
        ledger.settle(record())
        [file] = (tmp_path / "usage").glob("*.jsonl")
    file.write_bytes(file.read_bytes() + b'{"id":"use_x","at_ms":17')

    async with open_ledger(tmp_path) as ledger:
        assert await tokens(ledger) == [(1, 10, 5)]


async def test_a_request_that_asked_no_model_leaves_nothing(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(RequestMeter("r1", "/v1/models").record("completed"))

        assert await tokens(ledger) == [(0, 0, 0)]


async def test_a_full_disk_is_waited_for_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_ledger(tmp_path) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(JournalFile, "write", _raise_full)
            ledger.settle(record())

        assert await tokens(ledger) == [(1, 10, 5)]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The disk is nearly full: the database takes nothing more, and the journal goes on. Ends with `undo`."""
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(total=1 << 40, free=63 << 20))
        yield patch


def count_open(suffix: str) -> int:
    """Descriptors of this process to files of such names."""
    return sum(os.path.realpath(each).endswith(suffix) for each in Path("/proc/self/fd").iterdir())


async def test_a_database_that_refuses_for_long_costs_two_files_and_one_descriptor(
    tmp_path: Path, refusing: pytest.MonkeyPatch
) -> None:
    async with open_ledger(tmp_path) as ledger:
        for _ in range(20):
            ledger.settle(record())
            with pytest.raises(StorageFull):
                await ledger.fold()
        num_files = len(list((tmp_path / "usage").glob("*.jsonl")))
        num_open = count_open(".jsonl")
        refusing.undo()

        assert (num_files, num_open, ledger.num_lost) == (2, 1, 0)
        assert await tokens(ledger) == [(20, 200, 100)]


async def test_what_runs_is_kept_while_the_database_refuses(tmp_path: Path, refusing: pytest.MonkeyPatch) -> None:
    async with open_database(tmp_path) as database:
        ledger = UsageLedger(lambda: database, tmp_path / "usage")
        await ledger.fold()
        meter = running(ledger, prompt_tokens=7)
        for _ in range(3):
            meter.calls[0].note_tokens(1, now=0)
            with pytest.raises(StorageFull):
                await ledger.fold()
        await ledger.close()  # it dies
    refusing.undo()

    async with open_ledger(tmp_path) as ledger:
        assert await tokens(ledger, "status") == [("server_died", 1, 7, 3)]


async def test_what_was_turned_away_is_kept_only_if_it_cost_something(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(use("talker", 0, 0), status="overloaded"), is_refused=True)
        ledger.settle(record(use("embedder", 3, 0), use("talker", 0, 0), status="overloaded"), is_refused=True)
        ledger.settle(record(use("talker", 0, 0), status="client_gone"))

        assert await tokens(ledger, "status") == [("client_gone", 1, 0, 0), ("overloaded", 1, 3, 0)]


async def test_what_memory_does_not_hold_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("server.access.usage_ledger.MAX_HELD", 2)
    ledger = UsageLedger(_closed, tmp_path / "usage")

    for _ in range(5):
        ledger.settle(record())

    assert (ledger.num_lost, MAX_HELD) == (3, 10_000)


async def test_a_database_that_opens_late_gets_everything(tmp_path: Path) -> None:
    databases: list[Any] = []
    ledger = UsageLedger(lambda: databases[0] if databases else _closed(), tmp_path / "usage")
    async with ledger.opened(retention_days=1):
        ledger.settle(record(key_id="key_1", at_ms=_now_ms()))
        with pytest.raises(StorageUnavailable):
            await told(ledger)

        async with open_database(tmp_path) as database:
            databases.append(database)
            assert await tokens(ledger) == [(1, 10, 5)]
            assert ledger.used_today("key_1") == (15, 0.0)
            await ledger.fold()
            databases.clear()


async def test_a_journal_is_one_servers_alone(tmp_path: Path) -> None:
    """A second one would take what is being written for what was left behind."""
    async with open_ledger(tmp_path) as first, open_ledger(tmp_path) as second:
        first.settle(record())
        with pytest.raises(StorageUnavailable) as refusal:
            await told(second)

        assert str(tmp_path) not in refusal.value.message
        assert await tokens(first) == [(1, 10, 5)]


async def test_costs_are_reckoned_at_the_prices_of_then(tmp_path: Path) -> None:
    prices = {"input_price": 2.0, "output_price": 8.0, "cached_price": 0.5}
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(use(prompt=1_000_000, cached=400_000, completion=500_000, **prices)))
        ledger.settle(record(use(prompt=1_000_000, completion=0)))  # it was free by then

        [group] = await told(ledger)

    assert group.cost == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 8)


async def test_a_request_that_two_models_worked_for_counts_once_in_all(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(use("talker", 10, 5), use("embedder", 3, 0, kind="embedding")))

        assert await tokens(ledger, "model", "kind") == [
            ("embedder", "embedding", 1, 3, 0),
            ("talker", "chat", 1, 10, 5),
        ]
        assert await tokens(ledger) == [(1, 13, 5)]


async def test_reports_are_grouped_by_what_is_asked_for(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(tenant="ada", key_id="key_1", sender="eve"))
        ledger.settle(record(tenant="bob", at_ms=NOON_MS + DAY_MS, status="worker_crashed"))

        assert await tokens(ledger, "tenant", "key") == [("ada", "key_1", 1, 10, 5), ("bob", None, 1, 10, 5)]
        assert await tokens(ledger, "day") == [("2026-08-29", 1, 10, 5), ("2026-08-30", 1, 10, 5)]
        assert await tokens(ledger, "sender") == [(None, 1, 10, 5), ("eve", 1, 10, 5)]
        assert [group.num_failed for group in await told(ledger, "status")] == [0, 1]


async def test_reports_are_of_a_tenant_and_a_time(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        for hours in range(4):
            ledger.settle(record(at_ms=NOON_MS + hours * 3_600_000))
        ledger.settle(record(tenant="bob"))

        wanted = {"from_ms": NOON_MS + 3_600_000, "to_ms": NOON_MS + 3 * 3_600_000}
        assert await tokens(ledger, tenant="ada", **wanted) == [(2, 20, 10)]


async def test_what_a_key_used_today_is_known_at_once(tmp_path: Path) -> None:
    prices = {"input_price": 1_000_000.0}
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(use(prompt=10, completion=5, **prices), key_id="key_1"))
        ledger.settle(record(use(prompt=1, completion=1), key_id="key_2"))
        ledger.settle(record(key_id="key_1", at_ms=NOON_MS - DAY_MS))  # it came yesterday

        assert ledger.used_today("key_1") == (15, 10.0)
        assert ledger.used_today("key_3") == ledger.used_today(None) == (0, 0.0)


async def test_what_a_key_used_today_is_known_after_a_restart(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(key_id="key_1"))
    async with open_ledger(tmp_path) as ledger:
        ledger.settle(record(key_id="key_1"))

        assert ledger.used_today("key_1") == (30, 0.0)
    async with open_ledger(tmp_path, at=(NOON_MS + DAY_MS) / 1000) as ledger:
        assert ledger.used_today("key_1") == (0, 0.0)


async def test_a_clock_that_is_set_back_reopens_no_day(tmp_path: Path) -> None:
    now = [NOON_MS / 1000]
    async with open_database(tmp_path) as database:
        ledger = UsageLedger(lambda: database, tmp_path / "usage", clock=lambda: now[0])
        async with ledger.opened(retention_days=400):
            ledger.settle(record(key_id="key_1"))
            await ledger.fold()
            now[0] += DAY_MS / 1000
            ledger.settle(record(key_id="key_1", at_ms=NOON_MS + DAY_MS))
            tomorrow = ledger.used_today("key_1")

            now[0] -= DAY_MS / 1000
            with pytest.raises(StorageUnavailable):  # not told as nothing
                ledger.used_today("key_1")
            ledger.settle(record(key_id="key_1"))
            await ledger.fold()

            assert (tomorrow, ledger.used_today("key_1")) == ((15, 0.0), (30, 0.0))


async def test_old_usage_is_deleted(tmp_path: Path) -> None:
    async with open_ledger(tmp_path) as ledger:
        for days in (1, 29, 31, 300):
            ledger.settle(record(use("talker"), use("embedder"), at_ms=NOON_MS - days * DAY_MS))
        await ledger.fold()

        await ledger.expire(retention_days=30)

        assert await tokens(ledger, "model") == [("embedder", 2, 20, 10), ("talker", 2, 20, 10)]


async def test_without_a_data_directory_reports_are_refused() -> None:
    ledger = UsageLedger(_closed, None)
    ledger.settle(record())

    with pytest.raises(StorageUnavailable):
        await told(ledger)
    assert ledger.num_lost == 0


@settings(max_examples=20)
@given(steps=st.lists(st.sampled_from(["settle", "begin", "end", "fold", "die", "restart"]), max_size=30))
def test_whatever_happens_each_request_is_kept_once(steps: list[str]) -> None:
    """An oracle counts: what was settled, and what ran when the server died."""

    async def run(folder: Path) -> None:
        expected, live = 0, []  # tokens; meters
        steps_left = iter([*steps, "restart"])
        is_over = False
        while not is_over:
            async with doomed_ledger(folder) as ledger:
                live = []
                for step in steps_left:
                    match step:
                        case "settle":
                            ledger.settle(record(use(prompt=1, completion=0)))
                            expected += 1
                        case "begin":
                            live.append(running(ledger, prompt_tokens=1000))
                        case "end" if live:
                            ledger.settle(live.pop().record("completed"))
                            expected += 1000
                        case "fold":
                            await ledger.fold()
                        case "die":
                            break
                        case "restart":
                            await ledger.fold()
                            break
                else:
                    is_over = True
                expected += 1000 * len(live)
        async with open_ledger(folder) as ledger:
            assert sum(group.prompt_tokens for group in await told(ledger)) == expected

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def _raise_full(_file: JournalFile, _line: bytes) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def _closed() -> Any:
    raise StorageUnavailable("not open")


def _now_ms() -> int:
    return round(time.time() * 1000)
