"""Ingestion beside the embedding model's bulk rate, and searches meanwhile, over HTTP on one server.

    python -m benchmarks.ingestion            # some five minutes on two cores

The documents are real ones (python_docs.py), uploaded beforehand; the model's vector cache is off. In each repetition,
in an order that alternates:

- ingestion: all documents go into a new store, from the request until the batch is completed: parsed, cut, embedded,
  committed and searchable;
- bulk: the texts of the very same chunks go to /v1/embeddings, in lists of 64 side by side with `priority: bulk`.

Then one client searches, without rerank: first with nothing else to do, then while another ingestion runs.
Writes benchmarks/results/ingestion.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.bars import held_to
from benchmarks.embeddings import COLD
from benchmarks.encoder_asks import BULK_LIST, embed_ask
from benchmarks.encoder_traffic import closed_loop
from benchmarks.machine import spread
from benchmarks.python_docs import passages, python_documents
from benchmarks.results import INGESTION, Section, environment, save_section
from benchmarks.served_store import search_body
from benchmarks.servers import hearth
from server.cli.ingest import CHUNKING
from server.loadgen.exchange import Ask
from server.loadgen.figures import Figures, distinct_errors, percentiles
from server.loadgen.prompts import new_seed
from server.rag.rows import chunks, stores
from server.storage.data_layout import DataLayout

POLL_S = 0.02
TIMEOUT_S = 600.0
IDLE_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, default=INGESTION)
    arguments = parser.parse_args()
    about = environment()
    documents = python_documents()
    with (
        tempfile.TemporaryDirectory() as folder,
        hearth(COLD, data_dir=Path(folder)) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=TIMEOUT_S) as http,
    ):
        library = Library(http, upload(http, documents))
        store_id = library.ingest()  # warms up
        texts = chunk_texts(Path(folder), store_id)
        records = [
            measure(library, texts, passages(documents, seed=new_seed()), store_id, bulk_first=number % 2 == 1)
            for number in range(arguments.repetitions)
        ]
    figures = {name: spread([record[name] for record in records]) for name in records[0]}
    section = {
        "environment": about,
        "repetitions": arguments.repetitions,
        "size": {"documents": len(documents), "chunks": len(texts), "characters": sum(map(len, texts))},
        "runtime": dict(server.runtime),
        "figures": figures,
        "bars": bars(figures),
    }
    save_section(section, "ingestion", path=arguments.out)
    print(json.dumps(section["bars"], indent=1))


@dataclass(frozen=True)
class Library:
    """Uploaded files, to be put into stores."""

    http: httpx.Client
    file_ids: Sequence[str]

    @property
    def port(self) -> int:
        assert self.http.base_url.port
        return self.http.base_url.port

    def begin(self) -> tuple[str, Callable[[], bool]]:
        """Begin to put all files into a new store; return its id, and what tells whether they are all searchable."""
        store_id = self._post("/v1/vector_stores", {"chunking_strategy": CHUNKING})["id"]
        path = f"/v1/vector_stores/{store_id}/file_batches"
        batch_id = self._post(path, {"file_ids": list(self.file_ids)})["id"]

        def is_done() -> bool:
            batch = self.http.get(f"{path}/{batch_id}").raise_for_status().json()
            assert not batch["file_counts"]["failed"], batch
            return bool(batch["status"] == "completed")

        return store_id, is_done

    def ingest(self) -> str:
        """Put all files into a new store, and wait until they are searchable; return its id."""
        store_id, is_done = self.begin()
        while not is_done():
            time.sleep(POLL_S)
        return store_id

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.post(path, json=body).raise_for_status().json()
        return answer


def upload(http: httpx.Client, documents: Mapping[str, str]) -> list[str]:
    answers = [
        http.post("/v1/files", files={"file": (name, text.encode())}, data={"purpose": "assistants"})
        for name, text in documents.items()
    ]
    return [answer.raise_for_status().json()["id"] for answer in answers]


def chunk_texts(data_dir: Path, store_id: str) -> list[str]:
    """What was embedded of a store's documents; what they repeat, once."""
    with closing(sqlite3.connect(f"file:{DataLayout(data_dir).database}?mode=ro", uri=True)) as db:
        found = chunks.select(db, chunks.ids_of(db, stores.row_of_any(db, store_id)))
    return list(dict.fromkeys(chunk.text for chunk in found))


# ---- one repetition


def measure(
    library: Library, texts: Sequence[str], questions: Iterator[str], store_id: str, *, bulk_first: bool
) -> Figures:
    """Measure both rates, then searches in a store that is complete."""
    rates = {
        "ingestion_chunks_per_s": lambda: len(texts) / timed(library.ingest),
        "bulk_chunks_per_s": lambda: len(texts) / timed(lambda: embed_all(library.port, texts)),
    }
    order = reversed(rates) if bulk_first else iter(rates)
    figures: Figures = {name: rates[name]() for name in order}
    figures["ingestion_share"] = figures["ingestion_chunks_per_s"] / figures["bulk_chunks_per_s"]
    end_s = time.perf_counter() + IDLE_S
    figures |= search(library.port, store_id, questions, "idle_search", lambda: time.perf_counter() > end_s)
    _, is_done = library.begin()
    figures |= search(library.port, store_id, questions, "busy_search", is_done)
    print({name: round(figure, 3) for name, figure in figures.items()}, flush=True)
    return figures


def timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def embed_all(port: int, texts: Sequence[str]) -> None:
    lists = [texts[start : start + BULK_LIST] for start in range(0, len(texts), BULK_LIST)]
    asks = (embed_ask(each, priority="bulk", truncate="mean", input_type="document") for each in lists)
    send(port, asks, len(lists), lambda: False)


def search(port: int, store_id: str, questions: Iterator[str], name: str, is_over: Callable[[], bool]) -> Figures:
    asks = (Ask(f"/v1/vector_stores/{store_id}/search", search_body(question), 1) for question in questions)
    return percentiles(name, send(port, asks, 1, is_over), 50, 95)


def send(port: int, asks: Iterator[Ask], num_clients: int, is_over: Callable[[], bool]) -> list[float]:
    """Latencies in seconds. None may fail."""
    replies = asyncio.run(closed_loop(port, asks, num_clients=num_clients, is_over=is_over))
    errors = distinct_errors(reply.error for reply in replies)
    assert not errors, errors
    return [reply.latency_s for reply in replies]


def bars(figures: Section) -> Section:
    """What issue 5 requires, by the medians."""
    median = {name: float(each["median"]) for name, each in figures.items()}
    return {
        "ingestion_share": held_to(median["ingestion_chunks_per_s"] / median["bulk_chunks_per_s"], least=0.8),
        "served_ingestion_p95_ratio": held_to(median["busy_search_p95_s"] / median["idle_search_p95_s"], most=2),
    }


if __name__ == "__main__":
    main()
