"""Disconnects: a thousand clients leave, each in the middle of something. Is all given back, and rightly billed?

    python -m benchmarks.disconnects                   # some ten minutes on two cores
    python -m benchmarks.disconnects --disconnects 70
    python -m benchmarks.disconnects --table           # what has been measured, into docs/performance.md

Starts `hearth serve` with the default models, which keep nothing of what they computed but in the KV cache. For each
phase of a request, clients come in groups, and all of a group leave at once, every other one with a reset. Then:

- from that moment until nothing runs, waits or holds cells of the KV cache (`/metrics`, which workers refresh every
  half second), less than two seconds may pass;
- in the end, requests that asked a model must have one record each, with as many tokens as their clients saw at least
  and none for what only waited; the others none; and `GET /v1/usage` must be the sum of the records;
- the server must have the same processes, no more open files and uploads on disk, and no more memory but for a little,
  than after a first round; and its log must have no error.

Writes benchmarks/results/disconnects.json, and ends with 1 if something that must hold did not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.disconnect_rig import PHASES, Phase, Site, open_site
from benchmarks.fault_rig import Row
from benchmarks.faults import table
from benchmarks.leaving_client import LeavingClient
from benchmarks.machine import spread
from benchmarks.results import DISCONNECTS, Section, environment, load_results
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models
from benchmarks.tables import PAGE, refill
from server.access.usage_record import CLIENT_GONE, COMPLETED
from server.storage.data_layout import DataLayout

NUMBER = "C6"
GROUP = 8
MOST_S = 2.0
MAX_GROWTH_MB = 32.0
MAX_WORKERS_GROWTH_MB = 64.0
"""Allocators keep some of what large requests took; of all workers together."""

FORGETFUL: dict[str, dict[str, int]] = {
    "chat": {"prefix_memory_mb": 0},
    "embedding": {"cache_mb": 0},
    "rerank": {"cache_mb": 0},
}
"""By kind of model: what is kept on purpose would hide what is lost."""


@dataclass(frozen=True)
class Gone:
    """One request whose client left."""

    request_id: str
    phase: Phase
    num_pieces: int


@dataclass(frozen=True)
class Billed:
    """What the ledger has of one request, all models together."""

    num_records: int
    status: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Holdings:
    """What the server's processes have."""

    pids: Mapping[str, int]
    num_fds: int
    num_uploads: int
    rss_mb: float
    workers_rss_mb: float


class DisconnectTest:
    """One server, the clients that have left it, and what its ledger says of them."""

    def __init__(self, folder: Path) -> None:
        self._config, self._log = folder / "models.yaml", folder / "log"
        self._layout = DataLayout(folder / "data")
        server = {
            "weights_dir": str(ROOT / "weights"),
            "data_dir": str(self._layout.folder),
            "tune": False,
            "limits": {"max_wait_s": 600},  # groups of long prompts shall wait, not be refused
        }
        settings = {"server": server, "models": [{**model, **FORGETFUL[model["kind"]]} for model in default_models()]}
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._gone: list[Gone] = []
        self._asked_models: set[str] = set()

    async def run(self, num_disconnects: int, *, num_before: int = GROUP) -> list[Row]:
        """A row for each phase, one for the ledger, one for what is left.

        Args:
            num_before: Of the first round, for each phase; they are billed as all others, and not timed.
        """
        with ServerProcess(self._config, self._log) as server:
            await asyncio.to_thread(server.wait_until_settled)
            async with open_site(server) as site:
                for phase in PHASES:
                    await self._leave(site, phase, num_before)
                before = self._holdings(server)
                share, more = divmod(num_disconnects, len(PHASES))
                rows = [await self._row_of(site, phase, share + (at < more)) for at, phase in enumerate(PHASES)]
                left = leaks(before, self._holdings(server), server.log_text())
                report = (await site.http.get("/v1/usage")).raise_for_status().json()["data"][0]
        return [*rows, billing(self._gone, self._asked_models, self._billed(), report, self._totals()), left]

    async def _row_of(self, site: Site, phase: Phase, num_disconnects: int) -> Row:
        row = Row(NUMBER, f"{num_disconnects} clients leave: {phase.name}")
        times = spread(await self._leave(site, phase, num_disconnects))
        row.figures |= {"freed s": float(str(times["median"])), "at the latest s": float(str(times["max"]))}
        row.require_within(row.figures["at the latest s"], MOST_S, "to free everything")
        print(f"{row.fault}: {row.figures}", *row.late, flush=True)
        return row

    async def _leave(self, site: Site, phase: Phase, num_disconnects: int) -> list[float]:
        """Seconds after which each group was forgotten."""
        times = []
        async with phase.around(site) as num_others:
            for size in groups_of(num_disconnects):
                names = (f"gone-{len(self._gone) + number}" for number in range(size))
                clients = [LeavingClient(site.server.url, name) for name in names]
                await phase.reach(site, clients)
                for number, client in enumerate(clients):
                    client.leave(abruptly=bool(number % 2))
                times.append(await site.freed_s(num_others=num_others))
                self._gone += [Gone(client.request_id, phase, client.num_pieces) for client in clients]
                self._asked_models |= await site.asked_models()
        await site.freed_s()
        return times

    def _holdings(self, server: ServerProcess) -> Holdings:
        own, workers = psutil.Process(server.process.pid), server.worker_pids()
        return Holdings(
            pids={"server": own.pid, **workers},
            num_fds=own.num_fds(),
            num_uploads=sum(1 for _ in self._layout.files.iterdir()),
            rss_mb=own.memory_info().rss / 1e6,
            workers_rss_mb=sum(psutil.Process(pid).memory_info().rss for pid in workers.values()) / 1e6,
        )

    def _billed(self) -> dict[str, Billed]:
        query = (
            "SELECT request_id, COUNT(DISTINCT request), MAX(status), SUM(prompt_tokens), SUM(completion_tokens) "
            "FROM usage GROUP BY request_id"
        )
        return {name: Billed(*found) for name, *found in self._read(query)}

    def _totals(self) -> dict[str, int]:
        [found] = self._read("SELECT COUNT(DISTINCT request), SUM(prompt_tokens), SUM(completion_tokens) FROM usage")
        return dict(zip(("num_requests", "prompt_tokens", "completion_tokens"), found, strict=True))

    def _read(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self._layout.accounts)) as db:
            return list(db.execute(query))


def groups_of(num_disconnects: int) -> Iterator[int]:
    for at in range(0, num_disconnects, GROUP):
        yield min(GROUP, num_disconnects - at)


def billing(
    gone: Sequence[Gone],
    asked_models: Collection[str],
    billed: Mapping[str, Billed],
    report: Section,
    totals: Mapping[str, int],
) -> Row:
    """Hold the ledger against what clients saw, and the report against the ledger."""
    row = Row(NUMBER, "what they used")
    wrong = Counter(f"{each.phase.name}: {what}" for each in gone for what in _wrong(each, asked_models, billed))
    for what, count in sorted(wrong.items()):
        row.broken.append(f"{count} x {what}")
    names = {each.request_id for each in gone}
    unknown = [name for name in billed if name.startswith("gone-") and name not in names]
    row.require(not unknown, f"records of requests that nobody sent: {unknown[:5]}")
    row.require(all(report[name] == total for name, total in totals.items()), f"/v1/usage says {report}, not {totals}")
    row.figures = {
        "records": len(billed),
        "tokens of answers": sum(each.completion_tokens for each in billed.values()),
        "pieces seen": sum(each.num_pieces for each in gone),
    }
    row.outcome = "one record for each request that asked a model, with what ran"
    return row


def _wrong(gone: Gone, asked_models: Collection[str], billed: Mapping[str, Billed]) -> Iterator[str]:
    phase, found = gone.phase, billed.get(gone.request_id)
    asked = gone.request_id in asked_models
    if phase.asks_model not in (None, asked):
        yield "asked a model" if asked else "asked no model"
    if found is None:
        if asked or gone.num_pieces:
            yield "no record"
        return
    if not asked:
        yield "a record, though no model was asked"
    if found.num_records != 1:
        yield f"{found.num_records} records"
    if found.status not in (CLIENT_GONE, COMPLETED):
        yield f"status {found.status}"
    if found.completion_tokens < max(phase.least, gone.num_pieces):
        yield "fewer tokens than came"
    if phase.most is not None and found.completion_tokens > phase.most:
        yield "more tokens than were made"
    if found.prompt_tokens and not phase.may_read:
        yield "a prompt that nobody has read"


def leaks(before: Holdings, after: Holdings, log: str) -> Row:
    """Compare what the server has with what it had."""
    row = Row(NUMBER, "what is left of them")
    errors = [line for line in log.splitlines() if json.loads(line).get("level") in ("error", "critical")]
    growth_mb, workers_growth_mb = after.rss_mb - before.rss_mb, after.workers_rss_mb - before.workers_rss_mb
    row.require(after.pids == before.pids, f"processes were {before.pids}, and are {after.pids}")
    row.require(after.num_fds <= before.num_fds, f"{before.num_fds} open files became {after.num_fds}")
    row.require(after.num_uploads <= before.num_uploads, f"{before.num_uploads} uploads became {after.num_uploads}")
    row.require(growth_mb <= MAX_GROWTH_MB, f"the server's memory grew by {growth_mb:.0f} MB")
    row.require(workers_growth_mb <= MAX_WORKERS_GROWTH_MB, f"the workers' memory grew by {workers_growth_mb:.0f} MB")
    row.require(not errors, f"{len(errors)} errors in the log, the first: {''.join(errors[:1])[:300]}")
    row.figures = {
        "server MB": round(growth_mb, 1),
        "workers MB": round(workers_growth_mb, 1),
        "open files": after.num_fds - before.num_fds,
        "uploads": after.num_uploads - before.num_uploads,
    }
    row.outcome = "the same processes; growth since the first round"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--table", action="store_true", help="write the table, measure nothing")
    parser.add_argument("--out", type=Path, default=DISCONNECTS)
    arguments = parser.parse_args()
    if not arguments.table:
        about = environment()
        with tempfile.TemporaryDirectory() as folder:
            rows = asyncio.run(DisconnectTest(Path(folder)).run(arguments.disconnects))
        section = {**about, "disconnects": arguments.disconnects, "rows": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(section, indent=1) + "\n", encoding="utf-8")
    results = load_results(arguments.out)
    print(table(results), f"written to {arguments.out}")
    if arguments.out == DISCONNECTS:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(refill(page, {"disconnects": lambda: table(results)}), encoding="utf-8")
    sys.exit(any(row["broken"] or row["late"] for row in results.get("rows", ())))


if __name__ == "__main__":
    main()
