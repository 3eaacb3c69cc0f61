"""Search in a vector store of 100,000 chunks x 384, with real storage and without models.

    python -m benchmarks.vector_search            # some five minutes on two cores

Queries get a vector at once; everything else is what the server does: both arms, fusion, chunks read from SQLite.

- Latency of one client: of ordinary questions; of questions of common words only; with a filter that keeps 1 %; and
  while documents are committed as fast as the default embedding model would have their chunks.
- Insert cost: from the commit of a document of 20 chunks until searches see it, in a store of 10,000 and of 100,000.
- Restart: from the start of a process until it has answered its first search, with an index file and without one (as
  after a `kill -9`), and what memory that process has then.

Writes benchmarks/results/vector_search.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil

from benchmarks.results import Section, environment, save_section
from benchmarks.vector_corpus import CHUNKS_PER_DOCUMENT, DIMENSIONS, Corpus, CorpusDocument
from server.protocols import EmbeddingModel, EmbeddingResult
from server.rag.document_store import DocumentStore
from server.rag.documents import (
    Attributes,
    ChunkDraft,
    ChunkedDocument,
    ChunkingStrategy,
    FileRecord,
    ParsedDocument,
    Span,
)
from server.rag.filters import parse_filter
from server.rag.index_shelf import IndexShelf
from server.rag.retriever import DEFAULT_OPTIONS, Retriever
from server.rag.search import SearchOptions
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.types import ModelFacts

OUT = Path(__file__).parent / "results" / "vector_search.json"
TENANT = "bench"
NUM_SEARCHES = 400
NUM_INSERTS = 100
CHUNKS_PER_S = 300
"""What all-MiniLM-L6-v2 embeds on two cores with AMX."""

ONE_PERCENT = parse_filter({"type": "eq", "key": "percent", "value": 7})
FILTERED = SearchOptions(filter=ONE_PERCENT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--restart", nargs=2, metavar=("FOLDER", "STORE"), help=argparse.SUPPRESS)  # the child
    arguments = parser.parse_args()
    if arguments.restart:
        folder, store_id = arguments.restart
        print(json.dumps(asyncio.run(first_search(Path(folder), store_id))))
        return
    about = {"environment": environment(), "num_chunks": arguments.chunks, "dimensions": DIMENSIONS}
    with tempfile.TemporaryDirectory() as folder:
        section = {**about, **asyncio.run(measure(Path(folder), arguments.chunks))}
        section["restart"] = {
            "with_index_file": restart(Path(folder), section["store_id"]),
            "without_index_file": restart(Path(folder), section["store_id"], lose_files=True),
        }
    save_section(section, "vector_search", path=arguments.out)


# ---- a store that grows, and is searched


@dataclass(frozen=True)
class Rig:
    """A data directory and what searches it."""

    documents: DocumentStore
    shelf: IndexShelf
    retriever: Retriever
    corpus: Corpus


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    layout, corpus = DataLayout(folder), Corpus()
    database = await asyncio.to_thread(Database.open, layout.database)
    documents = DocumentStore(database)
    shelf = IndexShelf(documents, layout.indexes)
    embedding = cast(EmbeddingModel, StubEmbedding(corpus))  # the state of a served model is not asked for
    yield Rig(documents, shelf, Retriever(documents, shelf, embedding, None), corpus)
    await shelf.save_all()
    await asyncio.to_thread(database.close)


class StubEmbedding:
    """Has a vector for everything, at once."""

    facts: ModelFacts | None = None

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    async def embed(self, inputs: Sequence[str], **_options: object) -> EmbeddingResult:
        return EmbeddingResult(self._corpus.vectors(len(inputs)), num_prompt_tokens=0)


async def measure(folder: Path, num_chunks: int) -> Section:
    async with open_rig(folder) as rig:
        store = await rig.documents.create_store(
            TENANT, embedding_model="m", fingerprint="f", dimensions=DIMENSIONS, chunking=ChunkingStrategy()
        )
        source = rig.corpus.documents()
        await rig.shelf.index(store.id)  # from now on it follows
        inserts_ms = {}
        for size in (num_chunks // 10, num_chunks):
            while (number := next(source)).number * CHUNKS_PER_DOCUMENT < size - NUM_INSERTS * CHUNKS_PER_DOCUMENT:
                await insert(rig, store.id, number)
            inserts_ms[str(size)] = summary([await insert(rig, store.id, next(source)) for _ in range(NUM_INSERTS)])
            print(f"insert into {size}: {inserts_ms[str(size)]}", flush=True)
        return {
            "store_id": store.id,
            "insert_ms": inserts_ms,
            "insert_ratio": ratio_of([each["mean"] for each in inserts_ms.values()]),
            "search_ms": await search_all(rig, store.id, source),
            "index_bytes": rig.shelf.num_bytes,
        }


async def search_all(rig: Rig, store_id: str, source: Iterator[CorpusDocument]) -> Section:
    """Latency of each kind of search. Idle and busy come last, side by side."""
    question, common = rig.corpus.question, rig.corpus.common_question
    await search_many(rig, store_id, question, DEFAULT_OPTIONS)  # warm
    found = {
        "common_words": await search_many(rig, store_id, common, DEFAULT_OPTIONS),
        "filter_1_percent": await search_many(rig, store_id, question, FILTERED),
        "common_words_filter_1_percent": await search_many(rig, store_id, common, FILTERED),
        "idle": await search_many(rig, store_id, question, DEFAULT_OPTIONS),
    }
    ingestion = asyncio.create_task(ingest(rig, store_id, source))
    found["during_ingestion"] = await search_many(rig, store_id, question, DEFAULT_OPTIONS)
    ingestion.cancel()
    await asyncio.wait((ingestion,))
    for name, figures in found.items():
        print(f"search, {name}: {figures}", flush=True)
    return found


async def search_many(rig: Rig, store_id: str, make_query: Callable[[], str], options: SearchOptions) -> Section:
    stages: list[dict[str, float]] = []

    async def search() -> None:
        outcome = await rig.retriever.search(TENANT, [store_id], [make_query()], options)
        stages.append(outcome.timings_ms)

    times_ms = [await timed_ms(search) for _ in range(NUM_SEARCHES)]
    medians = {name: round(statistics.median(each[name] for each in stages), 2) for name in stages[0]}
    return {**summary(times_ms), "stage_medians": medians}


async def ingest(rig: Rig, store_id: str, source: Iterator[CorpusDocument]) -> None:
    """Commit documents at an even pace, until cancelled."""
    due = time.perf_counter()
    for document in source:
        due += CHUNKS_PER_DOCUMENT / CHUNKS_PER_S
        await asyncio.sleep(max(0, due - time.perf_counter()))
        await insert(rig, store_id, document)


async def insert(rig: Rig, store_id: str, document: CorpusDocument) -> float:
    """Put a document into the store; return the milliseconds from its commit's begin until searches see it."""
    file_id = f"file-{document.number}"
    file = FileRecord(id=file_id, filename="a.txt", purpose="assistants", num_bytes=1, sha256="", created_at=0)
    await rig.documents.add_file(TENANT, file)
    attributes: Attributes = {"percent": document.number % 100, "lang": "en", "draft": False}
    [record] = await rig.documents.add_documents(TENANT, store_id, [(file_id, attributes, ChunkingStrategy())])
    text, spans = "", []
    for chunk in document.texts:
        spans.append(Span(len(text), len(text) + len(chunk)))
        text += f"{chunk}\n"
    drafts = tuple(ChunkDraft(span, position, len(document.texts)) for position, span in enumerate(spans))
    hashes = [b"%d %d" % (document.number, position) for position in range(len(spans))]

    async def commit() -> None:
        change = await rig.documents.complete(
            record.id,
            ParsedDocument(text, (), "text/plain"),
            ChunkedDocument(tuple(spans), drafts),
            document.vectors,
            hashes,
        )
        assert change is not None
        rig.shelf.apply(change)
        await rig.shelf.at_least(store_id, change.generation)

    return await timed_ms(commit)


# ---- restart


def restart(folder: Path, store_id: str, *, lose_files: bool = False) -> Section:
    """Figures of a process of its own, which finds the files in the memory of the system."""
    if lose_files:
        shutil.rmtree(DataLayout(folder).indexes)
    command = [sys.executable, "-m", "benchmarks.vector_search", "--restart", str(folder), store_id]
    section: Section = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"restart, {'without' if lose_files else 'with'} file: {section}", flush=True)
    return section


async def first_search(folder: Path, store_id: str) -> Section:
    process = psutil.Process()
    rss = {"imported_rss_mb": process.memory_info().rss / 1e6}
    async with open_rig(folder) as rig:
        await rig.retriever.search(TENANT, [store_id], [rig.corpus.question()])
        first_search_s = time.time() - process.create_time()
        rss["first_search_rss_mb"] = process.memory_info().rss / 1e6
        await search_many(rig, store_id, rig.corpus.question, DEFAULT_OPTIONS)
        rss["later_rss_mb"] = process.memory_info().rss / 1e6
        rss["peak_rss_mb"] = peak_rss_bytes() / 1e6
    return {"first_search_s": round(first_search_s, 2), **{name: round(size, 1) for name, size in rss.items()}}


def peak_rss_bytes() -> int:
    """Of this process; what `getrusage` says may be its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# ---- figures


async def timed_ms(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - started)


def summary(times_ms: Sequence[float]) -> Section:
    percentiles = {f"p{percent}": float(np.percentile(times_ms, percent)) for percent in (50, 95, 99)}
    values = {"mean": statistics.fmean(times_ms), **percentiles, "max": max(times_ms)}
    return {name: round(value, 2) for name, value in values.items()}


def ratio_of(values: Sequence[float]) -> float:
    return round(values[-1] / values[0], 3)


if __name__ == "__main__":
    main()
