"""Is what was used what is told? Mixed requests, with workers and servers that are killed in between.

    python -m benchmarks.ledger                   # 5,000 requests and 5 kills of the server, some minutes on two cores

Clients ask a scripted model and the models of models.yaml, each request under an id of its own, and write down what
they are told. Meanwhile workers are killed one after the other, and now and then the whole server with all its children
(SIGKILL), which is then started again on the same data directory. In the end the ledger is compared with what the
clients have written down, request by request:

- told: whoever got an answer to its end finds it in the ledger, with the very tokens that it was told;
- failed: whoever got an error finds no fewer tokens than pieces that came;
- cut: of what the killed servers had begun, the ledger has no more than a second less than the client saw;
- nothing is in it twice, and nothing that nobody has sent.

Then `GET /v1/usage` is compared with the sum of the rows. Writes benchmarks/results/ledger.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.bars import held_to
from benchmarks.ingest_kill import kill_tree
from benchmarks.ledger_traffic import SCRIPT, SCRIPTED_MODEL, Asked, Traffic
from benchmarks.results import LEDGER, Section, environment, save_section
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models
from server.storage.data_layout import DataLayout

NUM_CLIENTS = 16
MODEL_KILL_S = 60.0
"""Between two kills of one model's worker: a model takes seconds to load, for which its clients wait."""

SLACK_PIECES = 30
"""Pieces of a stream that a killed server may have sent since it wrote its journal: a second of the slow script."""


@dataclass(frozen=True)
class Row:
    """What the ledger has of one request, all models together."""

    id: str
    request_id: str
    status: str
    prompt_tokens: int
    completion_tokens: int


@dataclass
class Findings:
    """Ids of requests with which something is wrong."""

    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    too_little: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def problems(self) -> dict[str, list[str]]:
        return dict(vars(self))


class LedgerTest:
    """A data directory that outlives its servers, and the clients."""

    def __init__(
        self,
        folder: Path,
        models: Sequence[dict[str, Any]],
        *,
        num_requests: int,
        seed: int,
        model_kill_s: float = MODEL_KILL_S,
    ) -> None:
        self._config, self._log = folder / "models.yaml", folder / "log"
        self._layout = DataLayout(folder / "data")
        settings = {
            "port": 0,
            "data_dir": str(self._layout.folder),
            "weights_dir": str(ROOT / "weights"),
            "tune": False,
        }
        configured = [SCRIPTED_MODEL, *models]
        self._config.write_text(yaml.safe_dump({"server": settings, "models": configured}), encoding="utf-8")
        self._worker_kill_s = model_kill_s / len(configured)
        self._num_requests = num_requests
        self.num_worker_kills = 0
        self.num_server_kills = 0
        self.traffic = Traffic({each["kind"]: each["id"] for each in models}, num_requests=num_requests, seed=seed)

    async def run(self, *, num_kills: int) -> tuple[list[Row], Section]:
        """Return the rows of the ledger, and the report of a server that lives."""
        asking = asyncio.create_task(self.traffic.run(num_clients=NUM_CLIENTS))
        while not asking.done():
            with await self._start() as server:
                killing = asyncio.create_task(self._kill_workers(server))
                due = (self.num_server_kills + 1) * self._num_requests // (num_kills + 1)
                reaching = asyncio.create_task(self.traffic.reach(due))
                await asyncio.wait((asking, reaching), return_when=asyncio.FIRST_COMPLETED)
                reaching.cancel()
                if due == self._num_requests:
                    await asyncio.wait((asking,))
                killing.cancel()
                await asyncio.wait((killing,))
                if not asking.done():
                    self.traffic.is_up.clear()
                    kill_tree(server.process)
                    self.num_server_kills += 1
        await asking
        with await self._start() as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
                report: Section = (await http.get("/v1/usage")).raise_for_status().json()["data"][0]
        return self._rows(), report

    def totals(self) -> Section:
        """What all rows of the ledger add up to, in the words of the report."""
        names = ("num_requests", "prompt_tokens", "completion_tokens")
        with contextlib.closing(sqlite3.connect(self._layout.accounts)) as db:
            found = db.execute(
                "SELECT COUNT(DISTINCT request), SUM(prompt_tokens), SUM(completion_tokens) FROM usage"
            ).fetchone()
        return dict(zip(names, found, strict=True))

    async def _start(self) -> ServerProcess:
        server = await asyncio.to_thread(ServerProcess, self._config, self._log, own_session=True)
        await asyncio.to_thread(server.wait_until_settled)
        self.traffic.url = server.url
        self.traffic.is_up.set()
        return server

    async def _kill_workers(self, server: ServerProcess) -> None:
        """One worker after the other; that of the script by its own hand, in the middle of an answer."""
        path, body = self.traffic.crash_script()
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            while True:
                await asyncio.sleep(self._worker_kill_s)
                if not (pids := await asyncio.to_thread(server.worker_pids)):
                    continue
                model = sorted(pids)[self.num_worker_kills % len(pids)]
                self.num_worker_kills += 1
                if model == SCRIPT:
                    headers = {"x-request-id": f"killer-{self.num_worker_kills}"}
                    with contextlib.suppress(httpx.HTTPError):
                        await http.post(path, json=body, headers=headers)
                else:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pids[model], signal.SIGKILL)

    def _rows(self) -> list[Row]:
        with contextlib.closing(sqlite3.connect(self._layout.accounts)) as db:
            found = db.execute(
                "SELECT request, request_id, status, SUM(prompt_tokens), SUM(completion_tokens) FROM usage "
                "WHERE request_id LIKE 'bench-%' GROUP BY request"
            )
            return [Row(*each) for each in found]


def compare(asked: Sequence[Asked], rows: Sequence[Row]) -> Findings:
    """Hold the ledger against what clients were told."""
    findings = Findings()
    by_id = {row.request_id: row for row in rows}
    counts = Counter(row.request_id for row in rows)
    findings.twice = [request_id for request_id, count in counts.items() if count > 1]
    findings.unknown = sorted(counts.keys() - {each.id for each in asked})
    for each in asked:
        row = by_id.get(each.id)
        seen = SLACK_PIECES if each.ending == "cut" else 0
        if row is None:
            if each.ending == "told" or each.num_pieces:
                findings.missing.append(each.id)
        elif each.ending == "told":
            if (row.prompt_tokens, row.completion_tokens) != (each.prompt_tokens, each.completion_tokens):
                findings.wrong.append(each.id)
        elif each.ending == "refused":
            findings.wrong.append(each.id)
        elif row.completion_tokens < each.num_pieces - seen:
            findings.too_little.append(each.id)
    return findings


def section_of(asked: Sequence[Asked], rows: Sequence[Row], report: Section, totals: Section) -> Section:
    findings = compare(asked, rows)
    told = [each for each in asked if each.ending == "told"]
    rows_told = {row.request_id: row for row in rows}
    return {
        "requests": len(asked),
        "endings": dict(Counter(each.ending for each in asked)),
        "statuses": dict(Counter(row.status for row in rows)),
        "tokens_told": _tokens(told),
        "tokens_in_ledger_of_these": sum(
            row.prompt_tokens + row.completion_tokens for each in told if (row := rows_told.get(each.id)) is not None
        ),
        "report": {name: report[name] for name in ("num_requests", "prompt_tokens", "completion_tokens", "cost")},
        "problems": findings.problems,
        "bars": {
            **{name: held_to(len(found), most=0) for name, found in findings.problems.items()},
            "report_differs": held_to(sum(report[name] != total for name, total in totals.items()), most=0),
        },
    }


def _tokens(asked: Sequence[Asked]) -> int:
    return sum((each.prompt_tokens or 0) + each.completion_tokens for each in asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=5, help="of the whole server")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, default=LEDGER)
    arguments = parser.parse_args()
    about, begun_at = environment(), time.monotonic()
    models = default_models()
    with tempfile.TemporaryDirectory() as folder:
        test = LedgerTest(Path(folder), models, num_requests=arguments.requests, seed=arguments.seed)
        rows, report = asyncio.run(test.run(num_kills=arguments.kills))
    section = {
        "environment": about,
        "seed": arguments.seed,
        "duration_s": round(time.monotonic() - begun_at, 1),
        "worker_kills": test.num_worker_kills,
        "server_kills": test.num_server_kills,
        **section_of(test.traffic.asked, rows, report, test.totals()),
    }
    save_section(section, "ledger", path=arguments.out)
    print(
        f"{section['endings']}, problems {section['problems']}, report {section['report']}; written to {arguments.out}"
    )
    sys.exit(not all(bar["is_reached"] for bar in section["bars"].values()))


if __name__ == "__main__":
    main()
