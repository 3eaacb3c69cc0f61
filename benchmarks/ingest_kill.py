"""`kill -9` of the whole server at random moments of ingestion: is everything there that it has acknowledged?

    python -m benchmarks.ingest_kill              # 200 rounds, an hour on two cores

Each round starts `hearth serve` on the same data directory, checks what the rounds before have left, lets four clients
upload, add, delete and add again, and kills the server with all its children at a random moment; every fifth time
while it still starts. Then it is dead, and the files are checked without it. What counts:

- lost: documents that were reported as `completed`, not deleted, and are not found by word or by vector;
- returned: documents whose deletion was acknowledged, and which are there again;
- wrong: hits whose text is not what stands at that place of the file they name;
- stuck: documents that do not end as `completed` within a minute;
- orphans: whatever `hearth doctor --check-index` finds in the files of the dead server, and uploads without a record.

Writes benchmarks/results/ingest_kill.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.bars import held_to
from benchmarks.ingest_traffic import Ledger, Traffic
from benchmarks.machine import spread
from benchmarks.results import INGEST_KILL, Section, environment, save_section
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT
from server.rag.index_check import check_index
from server.storage.data_layout import DataLayout

LONGEST_LIFE_S = 2.0
"""Of a server, from when the first file of the round is on its way into the store, or is in it."""

EARLY_EVERY = 5
LONGEST_START_S = 2.0
"""Every so many rounds the server is killed before it serves, within this time."""

SETTLE_S = 60.0
SAMPLE = 20
"""Documents of earlier rounds that are searched for in a round; all are in the last one."""


@dataclass
class Findings:
    """Sums over all rounds; times are by round."""

    lost: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    num_searches: int = 0

    @property
    def problems(self) -> dict[str, list[str]]:
        return {name: getattr(self, name) for name in ("lost", "returned", "wrong", "stuck", "orphans")}


class KillTest:
    """A data directory that outlives its servers."""

    def __init__(self, folder: Path, model: dict[str, Any], *, weights_dir: Path, seed: int) -> None:
        """Use `model`, an entry of models.yaml, for embedding."""
        self._config = folder / "models.yaml"
        self._log = folder / "log"
        self._layout = DataLayout(folder / "data")
        settings = {"port": 0, "data_dir": str(self._layout.folder), "weights_dir": str(weights_dir), "tune": False}
        self._config.write_text(yaml.safe_dump({"server": settings, "models": [model]}), encoding="utf-8")
        self._random = random.Random(seed)
        self._store_id = ""
        self.ledger = Ledger()
        self.findings = Findings()

    def run(self, rounds: int) -> None:
        """Kill so many servers, then look at everything once more with one that may live."""
        with self._server() as server:
            server.wait_until_settled()
            self._store_id = httpx.post(f"{server.url}/v1/vector_stores", json={"name": "k"}).json()["id"]
        for number in range(1, rounds + 1):
            self._live_and_die(is_early=number % EARLY_EVERY == 0)
            self._check_files()
            print(f"round {number}: {len(self.ledger.owed)} documents owed, {_told(self.findings)}", flush=True)
        with self._server() as server:
            asyncio.run(self._check(server.url, sample=None))
        self._check_files()

    def _server(self) -> ServerProcess:
        return ServerProcess(self._config, self._log, own_session=True)

    def _live_and_die(self, *, is_early: bool) -> None:
        with self._server() as server:
            if is_early:
                time.sleep(self._random.uniform(0, LONGEST_START_S))
            else:
                asyncio.run(self._check(server.url, sample=SAMPLE))
                asyncio.run(self._disturb(server))
            kill_tree(server.process)

    async def _disturb(self, server: ServerProcess) -> None:
        """Traffic, in the middle of which the server dies."""

        traffic = Traffic(self._store_id, self.ledger, self._random)

        async def die() -> None:
            begin = self._random.choice([traffic.begun, traffic.flowing])
            await asyncio.wait_for(begin.wait(), SETTLE_S)
            await asyncio.sleep(self._random.uniform(0, LONGEST_LIFE_S))
            kill_tree(server.process)

        await traffic.run(server.url, die())

    async def _check(self, url: str, *, sample: int | None) -> None:
        """Ask a living server for what the ledger says."""
        started_at = time.monotonic()
        async with httpx.AsyncClient(base_url=url, timeout=SETTLE_S) as http:
            check = Check(http, self._store_id, self.ledger, self.findings)
            await check.settle()
            self.findings.recovery_s.append(time.monotonic() - started_at)
            await check.check_lists()
            owed = sorted(self.ledger.owed)
            chosen = owed if sample is None else self._random.sample(owed, min(sample, len(owed)))
            for file_id in chosen:
                await check.check_search(file_id)
            check.check_uploads(await check.file_ids(), self._layout.files)

    def _check_files(self) -> None:
        """What lies in the data directory, without a server."""
        report = check_index(self._layout.folder)
        self.findings.orphans += report.problems


class Check:
    """The questions to a living server. What it must be rid of and what may be: see `Ledger`."""

    def __init__(self, http: httpx.AsyncClient, store_id: str, ledger: Ledger, findings: Findings) -> None:
        self._http = http
        self._path = f"/v1/vector_stores/{store_id}"
        self._ledger = ledger
        self._findings = findings

    async def settle(self) -> None:
        """Wait until nothing is in progress."""
        deadline = time.monotonic() + SETTLE_S
        while left := await self._documents(filter="in_progress"):
            if time.monotonic() > deadline:
                self._findings.stuck += sorted(left)
                return
            await asyncio.sleep(0.05)

    async def check_lists(self) -> None:
        documents, files = await self._documents(), await self.file_ids()
        completed = {file_id for file_id, document in documents.items() if document["status"] == "completed"}
        self._findings.stuck += sorted(documents.keys() - completed)
        ledger = self._ledger
        self._findings.lost += sorted(ledger.owed - completed)
        self._findings.lost += sorted(ledger.attached - ledger.leaving - documents.keys())
        self._findings.lost += sorted(ledger.uploaded - ledger.leaving - files)
        self._findings.returned += sorted(ledger.deleted & (documents.keys() | files))

    async def check_search(self, file_id: str) -> None:
        """Find a document by its own word, then by the vector of the chunk that has it."""
        by_word = await self._search(self._ledger.documents[file_id].marker, embedding_weight=0, text_weight=1)
        if not by_word or by_word[0]["file_id"] != file_id:
            self._findings.lost.append(file_id)
            return
        text = by_word[0]["content"][0]["text"]
        by_vector = await self._search(text, embedding_weight=1, text_weight=0)
        if not by_vector or by_vector[0]["file_id"] != file_id:
            self._findings.lost.append(file_id)

    def check_uploads(self, file_ids: set[str], folder: Path) -> None:
        """Nothing is being uploaded now, so each file on the disk has its record, and the other way round."""
        on_disk = {path.name for path in folder.iterdir()}
        self._findings.orphans += sorted(on_disk ^ file_ids)

    async def file_ids(self) -> set[str]:
        return {file["id"] for file in await self._list("/v1/files", limit=10_000)}

    async def _documents(self, **query: str) -> dict[str, dict[str, Any]]:
        return {each["id"]: each for each in await self._list(f"{self._path}/files", limit=100, **query)}

    async def _list(self, path: str, **query: str | int) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        has_more = True
        while has_more:
            after = {"after": items[-1]["id"]} if items else {}
            page = (await self._http.get(path, params={**query, **after, "order": "asc"})).raise_for_status().json()
            items += page["data"]
            has_more = page["has_more"]
        return items

    async def _search(self, query: str, **weights: float) -> list[dict[str, Any]]:
        """The hits, each of which must quote its file."""
        ranking = {"ranker": "none", "hybrid_search": weights}
        body = {"query": query, "max_num_results": 5, "ranking_options": ranking}
        answer = (await self._http.post(f"{self._path}/search", json=body)).raise_for_status().json()
        self._findings.num_searches += 1
        hits: list[dict[str, Any]] = answer["data"]
        for hit in hits:
            document = self._ledger.documents.get(hit["file_id"])
            # Of an upload whose answer was lost, the ledger has no id.
            if document is not None and document.text[hit["x"]["start"] : hit["x"]["end"]] != hit["content"][0]["text"]:
                self._findings.wrong.append(hit["file_id"])
        return hits


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL to a process and all that it has started, the parent first; returns when all are gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=10)


def _told(findings: Findings) -> str:
    return ", ".join(f"{len(found)} {name}" for name, found in findings.problems.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--models", type=Path, default=ROOT / "models.yaml", help="its first embedding model is used")
    parser.add_argument("--out", type=Path, default=INGEST_KILL)
    arguments = parser.parse_args()
    about = environment()
    models = yaml.safe_load(arguments.models.read_text(encoding="utf-8"))["models"]
    model = next(model for model in models if model["kind"] == "embedding")
    with tempfile.TemporaryDirectory() as folder:
        test = KillTest(Path(folder), model, weights_dir=ROOT / "weights", seed=arguments.seed)
        test.run(arguments.rounds)
    section = {
        "environment": about,
        "embedding_model": model["id"],
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        **section_of(test.ledger, test.findings),
    }
    save_section(section, "ingest_kill", path=arguments.out)
    print(f"written to {arguments.out}")
    if any(test.findings.problems.values()):
        raise SystemExit(1)


def section_of(ledger: Ledger, findings: Findings) -> Section:
    return {
        "acknowledged": {
            "uploads": len(ledger.uploaded),
            "completed": len(ledger.completed),
            "deleted": len(ledger.deleted),
        },
        "searches": findings.num_searches,
        "problems": findings.problems,
        "recovery_s": spread(findings.recovery_s),
        "bars": {name: held_to(len(found), most=0) for name, found in findings.problems.items()},
    }


if __name__ == "__main__":
    main()
