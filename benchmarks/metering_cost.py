"""What measuring a request costs the event loop, in microseconds: meter, journal, metrics, register.

    python -m benchmarks.metering_cost            # a few seconds

No models and no HTTP: what `MeteredModel`, the ledger and the register do for one answer of so many deltas, on
a real data directory. Prints the median of repetitions, and writes it to benchmarks/results/ledger.json.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from benchmarks.machine import spread
from benchmarks.results import LEDGER, environment, save_section
from server.access.metered_model import MeteredModel
from server.access.request_meter import set_current_meter
from server.access.request_register import RequestRegister
from server.access.usage_journal import JournalFile
from server.access.usage_ledger import UsageLedger
from server.config.schema import ModelConfig
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from server.telemetry.metrics import Metrics
from server.types import ChatPrompt, Delta, Finished, GenerateRequest, SamplingParams, Started, Usage

MODEL = ModelConfig(id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf")
DELTAS = (1, 100)


class Talker:
    """Says so many deltas without any work."""

    def __init__(self, num_deltas: int) -> None:
        usage = Usage(prompt_tokens=30, completion_tokens=num_deltas)
        deltas = (Delta("word ") for _ in range(num_deltas))
        self._events: list[Started | Delta | Finished] = [Started(30), *deltas, Finished("stop", usage)]

    async def generate(self, _request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        for event in self._events:
            yield event


async def measure(folder: Path, *, num_deltas: int, num_requests: int, repetitions: int) -> dict[str, object]:
    """Return what an answer costs measured and not measured, and the difference."""
    database = await asyncio.to_thread(Database.open, folder / "accounts.sqlite", ACCOUNT_MIGRATIONS)
    ledger, metrics = UsageLedger(lambda: database, folder / "usage"), Metrics()
    register, talker = RequestRegister(ledger, metrics), Talker(num_deltas)
    model: Any = talker
    metered = MeteredModel(model, MODEL, metrics.of_model(MODEL.id))
    await ledger.fold()
    bare, measured = [], []
    for _ in range(repetitions):
        bare.append(await _time(talker, None, num_requests))
        measured.append(await _time(metered, register, num_requests))
        await ledger.fold()
    await ledger.close()
    await asyncio.to_thread(database.close)
    extra = [with_ - without for with_, without in zip(measured, bare, strict=True)]
    return {"deltas": num_deltas, "bare_us": spread(bare, digits=1), "measuring_us": spread(extra, digits=1)}


async def _time(model: Talker | MeteredModel, register: RequestRegister | None, num_requests: int) -> float:
    """Microseconds for one answer."""
    begun_at = time.perf_counter()
    for _ in range(num_requests):
        meter = None
        if register is not None:
            meter = register.open("r1", "/v1/chat/completions")
            set_current_meter(meter)
        asked = GenerateRequest(request_id="g", prompt=ChatPrompt(()), sampling=SamplingParams())
        async with aclosing(model.generate(asked)) as events:
            async for _event in events:
                pass
        if register is not None and meter is not None:
            register.close(meter, http_status=200, error=None, is_complete=True)
    return (time.perf_counter() - begun_at) / num_requests * 1e6


def measure_writes(folder: Path, *, beside_syncs: bool, num_lines: int = 5000) -> dict[str, object]:
    """Return what appending a line takes, in microseconds; alone, or while another thread writes and syncs."""
    journal, line, took_us = JournalFile(folder / "journal.jsonl"), b"x" * 380 + b"\n", []
    is_over = threading.Event()
    syncing = threading.Thread(target=_sync_for_ever, args=(folder / "other", is_over))
    if beside_syncs:
        syncing.start()
    for _ in range(num_lines):
        begun_at = time.perf_counter()
        journal.write(line)
        took_us.append((time.perf_counter() - begun_at) * 1e6)
        if beside_syncs:
            time.sleep(0.0005)
    is_over.set()
    if beside_syncs:
        syncing.join()
    journal.close()
    took_us.sort()
    places = {"median": 0.5, "p99": 0.99, "p999": 0.999}
    named = {f"{name}_us": round(took_us[int(place * num_lines)], 1) for name, place in places.items()}
    return {"beside_syncs": beside_syncs, **named, "max_us": round(took_us[-1], 1)}


def _sync_for_ever(path: Path, is_over: threading.Event) -> None:
    block = bytes(8 << 20)
    while not is_over.is_set():
        with path.open("wb") as file:
            file.write(block)
            os.fsync(file.fileno())


async def run(num_requests: int, repetitions: int) -> list[dict[str, object]]:
    rows = []
    for num_deltas in DELTAS:
        with tempfile.TemporaryDirectory() as folder:
            row = await measure(Path(folder), num_deltas=num_deltas, num_requests=num_requests, repetitions=repetitions)
        print(row)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=LEDGER)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments.requests, arguments.repetitions))
    writes = []
    for beside_syncs in (False, True):
        with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
            writes.append(measure_writes(Path(folder), beside_syncs=beside_syncs))
            print(writes[-1])
    section = {"environment": environment(), "answers": rows, "journal_writes": writes}
    save_section(section, "metering_cost", path=arguments.out)


if __name__ == "__main__":
    main()
