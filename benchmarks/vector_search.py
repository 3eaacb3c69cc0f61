"""Search in a vector store of 100,000 chunks x 384: the store by itself, then behind a server.

    python -m benchmarks.vector_search            # some six minutes on two cores

By itself, queries get a vector at once; everything else is what the server does: both arms, fusion, chunks read from
SQLite.

- Latency of one client: of ordinary questions; of questions of common words only; with a filter that keeps 1 %; and
  while documents are committed as fast as a processor with AMX would embed their chunks. Kinds take turns.
- Whether both arms find with the filter exactly what looking at every chunk finds.
- Insert cost: from the commit of a document of 20 chunks until searches see it, in a store of 10,000 and of 100,000.
- Restart: from the start of a process until it has answered its first search, with an index file and without one (as
  after a `kill -9`), and what memory that process has then.

Behind a server (served_store.py): restart until the first answer over HTTP, which has to wait for the embedding model;
latency with the query's embedding and HTTP; what the API process has in memory, beyond one with an empty store.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks import served_store
from benchmarks.bars import held_to
from benchmarks.results import VECTOR_SEARCH, Section, environment, save_section
from benchmarks.store_rig import StoreRig, insert, open_rig, timed_ms
from benchmarks.vector_corpus import CHUNKS_PER_DOCUMENT, DIMENSIONS, Corpus, CorpusDocument
from server.rag.filters import allowed_chunks, parse_filter
from server.rag.retriever import DEFAULT_OPTIONS, NUM_CANDIDATES
from server.rag.search import SearchOptions
from server.storage.data_layout import DataLayout
from server.types import DEFAULT_TENANT

NUM_ROUNDS = 4
NUM_SEARCHES = 100
"""Of each kind in a round."""
NUM_CHECKS = 50
NUM_INSERTS = 100
CHUNKS_PER_S = 300
"""What all-MiniLM-L6-v2 embeds on two cores with AMX: committed at that pace, whatever embeds slower here."""

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

ONE_PERCENT = parse_filter({"type": "eq", "key": "percent", "value": 7})
FILTERED = SearchOptions(filter=ONE_PERCENT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=VECTOR_SEARCH)
    parser.add_argument("--restart", nargs=2, metavar=("FOLDER", "STORE"), help=argparse.SUPPRESS)  # the child
    arguments = parser.parse_args()
    if arguments.restart:
        folder, store_id = arguments.restart
        print(json.dumps(asyncio.run(first_search(Path(folder), store_id))))
        return
    about = {"environment": environment(), "num_chunks": arguments.chunks, "dimensions": DIMENSIONS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store_id, empty_rss_mb = served_store.make_store(folder)
        section = {**about, **asyncio.run(measure(folder, store_id, arguments.chunks))}
        section["restart"] = {
            "with_index_file": restart(folder, store_id),
            "without_index_file": restart(folder, store_id, lose_files=True),
        }
        served = served_store.search_store(folder, store_id, questions())
        section["served"] = {**served, "empty_store_rss_mb": round(empty_rss_mb, 1)}
    section["bars"] = bars(section)
    save_section(section, "vector_search", path=arguments.out)
    print(json.dumps({name: section[name] for name in ("served", "bars")}, indent=1))


def questions() -> Iterator[str]:
    """Without end; others than those that the store is searched for by itself."""
    corpus = Corpus(seed=1)
    while True:
        yield corpus.question()


# ---- a store that grows, and is searched


async def measure(folder: Path, store_id: str, num_chunks: int) -> Section:
    async with open_rig(folder) as rig:
        source = rig.corpus.documents()
        await rig.shelf.index(store_id)  # from now on it follows
        inserts_ms, num_documents = {}, 0
        for size in (num_chunks // 10, num_chunks):
            num_untimed = max(0, size // CHUNKS_PER_DOCUMENT - NUM_INSERTS - num_documents)
            for document in islice(source, num_untimed):
                await insert(rig, store_id, document)
            times_ms = [await insert(rig, store_id, document) for document in islice(source, NUM_INSERTS)]
            num_documents += num_untimed + NUM_INSERTS
            inserts_ms[str(size)] = summary(times_ms)
            print(f"insert into {size}: {inserts_ms[str(size)]}", flush=True)
        return {
            "insert_ms": inserts_ms,
            "insert_ratio": ratio_of([each["mean"] for each in inserts_ms.values()]),
            "filter_exact_share": await filter_exactness(rig, store_id),
            "search_ms": await search_all(rig, store_id, source),
            "index_bytes": rig.shelf.num_bytes,
        }


async def filter_exactness(rig: StoreRig, store_id: str) -> Section:
    """By arm, the share of filtered searches that find what looking at every allowed chunk finds, by their scores."""
    index = await rig.shelf.index(store_id)
    _, ids, vectors = await rig.documents.vectors(store_id)
    allowed = await rig.documents.read(lambda db: allowed_chunks(db, store_id, ONE_PERCENT))
    rows = vectors[np.isin(ids, allowed)].astype(np.float32)
    num_exact = {"dense": 0, "lexical": 0}
    for _ in range(NUM_CHECKS):
        query, words = rig.corpus.vectors(1), rig.corpus.question()
        found_ids, scores = index.vectors.search(query, NUM_CANDIDATES, allowed_ids=allowed)
        best = np.sort(rows @ query[0])[::-1][:NUM_CANDIDATES]
        is_there = found_ids[0] >= 0  # of a small store fewer chunks are allowed than asked for
        num_exact["dense"] += agree(found_ids[0][is_there], scores[0][is_there], allowed, best)
        all_ids, all_scores = index.words.search(words, len(ids))
        best = all_scores[np.isin(all_ids, allowed)][:NUM_CANDIDATES]
        num_exact["lexical"] += agree(*index.words.search(words, NUM_CANDIDATES, allowed_ids=allowed), allowed, best)
    return {arm: number / NUM_CHECKS for arm, number in num_exact.items()}


def agree(ids: Ids, scores: Scores, allowed: Ids, best: Scores) -> bool:
    """Whether what was found is allowed, and has the best scores. Which of two equal ones was found may differ."""
    is_allowed = bool(np.isin(ids, allowed).all())
    return is_allowed and len(scores) == len(best) and np.allclose(scores, best, rtol=1e-4, atol=1e-5)


async def search_all(rig: StoreRig, store_id: str, source: Iterator[CorpusDocument]) -> Section:
    """Latency of each kind of search, one kind after the other, again and again."""
    question, common = rig.corpus.question, rig.corpus.common_question
    kinds: dict[str, tuple[Callable[[], str], SearchOptions]] = {
        "idle": (question, DEFAULT_OPTIONS),
        "filter_1_percent": (question, FILTERED),
        "common_words": (common, DEFAULT_OPTIONS),
        "common_words_filter_1_percent": (common, FILTERED),
    }
    found = {name: Searches() for name in (*kinds, "during_ingestion")}
    await search_many(rig, store_id, question, DEFAULT_OPTIONS, Searches())  # warm
    for _ in range(NUM_ROUNDS):
        for name, (make_query, options) in kinds.items():
            await search_many(rig, store_id, make_query, options, found[name])
        is_over = asyncio.Event()
        ingestion = asyncio.create_task(ingest(rig, store_id, source, is_over))
        await search_many(rig, store_id, question, DEFAULT_OPTIONS, found["during_ingestion"])
        is_over.set()
        await ingestion
    figures = {name: searches.summary() for name, searches in found.items()}
    for name, each in figures.items():
        print(f"search, {name}: {each}", flush=True)
    return figures


@dataclass
class Searches:
    """What some searches took, and what their stages took."""

    times_ms: list[float] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)

    def summary(self) -> Section:
        names = self.stages_ms[0]
        medians = {name: round(statistics.median(each[name] for each in self.stages_ms), 2) for name in names}
        return {**summary(self.times_ms), "stage_medians": medians}


async def search_many(
    rig: StoreRig, store_id: str, make_query: Callable[[], str], options: SearchOptions, searches: Searches
) -> None:
    async def search() -> None:
        outcome = await rig.retriever.search(DEFAULT_TENANT, [store_id], [make_query()], options)
        searches.stages_ms.append(outcome.timings_ms)

    searches.times_ms += [await timed_ms(search) for _ in range(NUM_SEARCHES)]


async def ingest(rig: StoreRig, store_id: str, source: Iterator[CorpusDocument], is_over: asyncio.Event) -> None:
    """Commit documents at an even pace, until it is over. Not cancelled: an index misses changes that nobody tells."""
    due = time.perf_counter()
    while not is_over.is_set():
        due += CHUNKS_PER_DOCUMENT / CHUNKS_PER_S
        await asyncio.sleep(max(0, due - time.perf_counter()))
        await insert(rig, store_id, next(source))


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
        await rig.retriever.search(DEFAULT_TENANT, [store_id], [rig.corpus.question()])
        first_search_s = time.time() - process.create_time()
        rss["first_search_rss_mb"] = process.memory_info().rss / 1e6
        await search_many(rig, store_id, rig.corpus.question, DEFAULT_OPTIONS, Searches())
        rss["later_rss_mb"] = process.memory_info().rss / 1e6
        rss["peak_rss_mb"] = peak_rss_bytes() / 1e6
    return {"first_search_s": round(first_search_s, 2), **{name: round(size, 1) for name, size in rss.items()}}


def peak_rss_bytes() -> int:
    """Of this process; what `getrusage` says may be its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# ---- figures


def summary(times_ms: Sequence[float]) -> Section:
    percentiles = {f"p{percent}": float(np.percentile(times_ms, percent)) for percent in (50, 95, 99)}
    values = {"mean": statistics.fmean(times_ms), **percentiles, "max": max(times_ms)}
    return {name: round(value, 2) for name, value in values.items()}


def ratio_of(values: Sequence[float]) -> float:
    return round(values[-1] / values[0], 3)


def bars(section: Section) -> Section:
    """What issue 5 requires of a store of 100,000 chunks, with what was measured; of the served one as well."""
    search, served, restarts = section["search_ms"], section["served"], section["restart"].values()
    idle, filtered, busy = (search[name] for name in ("idle", "filter_1_percent", "during_ingestion"))
    grown_mb = max(each["later_rss_mb"] - each["imported_rss_mb"] for each in restarts)
    served_mb = served["rss_mb"] - served["empty_store_rss_mb"]
    return {
        "search_p50_ms": held_to(idle["p50"], most=15),
        "search_p95_ms": held_to(idle["p95"], most=40),
        "served_search_p50_ms": held_to(served["search_ms"]["p50"], most=15),
        "served_search_p95_ms": held_to(served["search_ms"]["p95"], most=40),
        "filter_exact_share": held_to(min(section["filter_exact_share"].values()), least=1),
        "filter_p50_ratio": held_to(filtered["p50"] / idle["p50"], most=1),
        "ingestion_p95_ratio": held_to(busy["p95"] / idle["p95"], most=2),
        "insert_ratio": held_to(section["insert_ratio"], most=1.3),
        "memory_mb": held_to(grown_mb, most=400),
        "served_memory_mb": held_to(served_mb, most=400),
        "first_search_s": held_to(max(each["first_search_s"] for each in restarts), most=5),
        "served_first_search_s": held_to(served["first_search_s"], most=5),
    }


if __name__ == "__main__":
    main()
