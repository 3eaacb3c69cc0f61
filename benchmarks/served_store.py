"""A vector store behind a real `hearth serve`, with the model that its queries need: what clients have of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from benchmarks.embeddings import CACHED as EMBEDDER
from benchmarks.encoder_traffic import closed_loop
from benchmarks.results import Section
from benchmarks.server_process import ServerProcess
from benchmarks.servers import hearth, write_config
from server.loadgen.exchange import Ask
from server.loadgen.figures import distinct_errors, percentiles

START_S = 60.0
NUM_WARM_UP = 20
NUM_SEARCHES = 200


def make_store(data_dir: Path) -> tuple[str, float]:
    """Let a server make an empty store.

    Returns:
        Its id, and the resident megabytes of the API process once it has searched the store.
    """
    with hearth(EMBEDDER, data_dir=data_dir) as server:
        url = f"http://127.0.0.1:{server.port}"
        store_id: str = httpx.post(f"{url}/v1/vector_stores", json={}).raise_for_status().json()["id"]
        for _ in range(NUM_WARM_UP):
            httpx.post(f"{url}{_path(store_id)}", json=search_body("anything")).raise_for_status()
        return store_id, rss_mb(server.pid)


def search_store(data_dir: Path, store_id: str, questions: Iterator[str]) -> Section:
    """Start a server on the directory, and search the store from the very beginning.

    Args:
        questions: As many as are asked for, none twice: the model remembers what it has embedded.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "models.yaml"
        write_config(config, [EMBEDDER], data_dir=data_dir)
        started_s = time.perf_counter()
        with ServerProcess(config, Path(folder) / "log") as server:
            port = int(server.url.rpartition(":")[2])
            _wait_for_answer(server.url + _path(store_id), search_body(next(questions)))
            first_search_s = time.perf_counter() - started_s
            search_many(port, store_id, questions, NUM_WARM_UP)
            times = search_many(port, store_id, questions, NUM_SEARCHES)
            return {
                "first_search_s": round(first_search_s, 2),
                "search_ms": times,
                "rss_mb": round(rss_mb(server.process.pid), 1),
            }


def search_many(port: int, store_id: str, questions: Iterator[str], count: int) -> Section:
    """One client's searches, one after the other, without rerank: p50 and p95 in milliseconds.

    Raises:
        AssertionError: One of them failed.
    """
    asks = (Ask(_path(store_id), search_body(next(questions)), 1) for _ in range(count))
    replies = asyncio.run(closed_loop(port, asks, num_clients=1, is_over=lambda: False))
    errors = distinct_errors(reply.error for reply in replies)
    assert not errors, errors
    times = percentiles("search", [reply.latency_s for reply in replies], 50, 95)
    return {name: round(1000 * times[f"search_{name}_s"], 2) for name in ("p50", "p95")}


def search_body(question: str) -> dict[str, object]:
    return {"query": question, "ranking_options": {"ranker": "none"}}


def rss_mb(pid: int) -> float:
    """Of one process, without its children."""
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def _path(store_id: str) -> str:
    return f"/v1/vector_stores/{store_id}/search"


def _wait_for_answer(url: str, body: dict[str, object]) -> None:
    """Ask until the data directory is open; what the server holds until the model is loaded counts as well."""
    deadline = time.monotonic() + START_S
    while (response := httpx.post(url, json=body, timeout=START_S)).status_code != 200:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.02)
