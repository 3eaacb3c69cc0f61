"""A process that reindexes a store, and fills it, is killed at random moments: every chunk has a vector of the store's
own model, and what was acknowledged is there.

Run as a script this file is that process.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from server.models.registry import ModelEntry
from server.rag.documents import StoreRecord
from server.rag.rows.editions import NewModel
from server.storage.data_lock import data_lock
from tests.fakes.library import EMBEDDING, FACTS, SMALL_CHUNKS, TENANT, Rig, jobs_done, open_rig
from tests.fakes.wide_embedder import WIDE, WIDE_FACTS, WideEmbedder, wide_vector

ROOT = Path(__file__).parents[2]
NUM_ROUNDS = 6
MODELS = [
    NewModel(embedding_model=model.id, fingerprint=facts.fingerprint, dimensions=facts.dimensions)
    for model, facts in ((EMBEDDING, FACTS), (WIDE, WIDE_FACTS))
]


# ---- the process that is killed


async def reindex_for_ever(folder: Path) -> None:
    async with open_rig(folder, others=[ModelEntry(WIDE, WideEmbedder())]) as rig:
        library = rig.library
        await library.sweeper.recover()
        sweeping = asyncio.create_task(library.sweeper.sweep_for_ever())
        await library.ingestion.start()
        await library.reindexing.start()
        stores, _ = await library.documents.stores(TENANT)
        store = stores[0] if stores else await rig.add_store()
        while not sweeping.done():
            await fill(rig, store)
            now = await library.documents.store(TENANT, store.id)
            other = next(model for model in MODELS if model.fingerprint != now.fingerprint)
            library.reindexing.submit(await library.reindexes.begin(TENANT, store.id, other))
            await fill(rig, store)
            await jobs_done()
            library.sweeper.wake()
            say("reindexed", other.embedding_model)


async def fill(rig: Rig, store: StoreRecord) -> None:
    """Add three documents, and wait for two of them."""
    file_ids = [await rig.add_file(f"text {number} of {random.random()} and so on" * 3) for number in range(3)]
    new = [(file_id, {}, SMALL_CHUNKS) for file_id in file_ids]
    rig.library.ingestion.submit(TENANT, await rig.documents.add_documents(TENANT, store.id, new))
    say("added", *file_ids)


def say(*words: str) -> None:
    print(*words, flush=True)


# ---- the one that kills


def run_and_kill(folder: Path, dice: random.Random) -> list[str]:
    command = [sys.executable, __file__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(dice.randint(1, 12))]
            time.sleep(dice.uniform(0, 0.05))  # no event: the point is that nobody knows what is going on
        finally:
            child.kill()
        lines += child.stdout.readlines()
    assert all(lines), "it ended by itself"
    return lines


async def check(folder: Path, added: set[str], *, to_the_end: bool) -> int:
    """See that everything fits together, in the end with all work done; return how often the store was reindexed."""
    async with open_rig(folder, others=[ModelEntry(WIDE, WideEmbedder())]) as rig:
        library = rig.library
        [store], _ = await library.documents.stores(TENANT)
        if to_the_end:
            await library.ingestion.start()
            await library.reindexing.start()
            await jobs_done()
            await library.sweeper.recover()
            await library.sweeper.sweep()
            assert await library.reindexes.unfinished() == []
        store = await library.documents.store(TENANT, store.id)
        _, ids, vectors = await library.documents.vectors(store.id)
        chunks = await library.documents.chunks(ids)
        expected = [vector_of(store, chunk.text) for chunk in chunks]
        np.testing.assert_array_equal(vectors, np.array(expected).reshape(vectors.shape).astype(np.float16))
        if to_the_end:
            assert added <= {chunk.file_id for chunk in chunks}
            assert await library.documents.read(lambda db: db.execute("SELECT * FROM edition_vectors").fetchall()) == []
        return store.edition


def vector_of(store: StoreRecord, text: str) -> np.ndarray:
    if store.fingerprint == WIDE_FACTS.fingerprint:
        return wide_vector(text)
    angle = np.float32(len(text))
    return np.array([np.cos(angle), np.sin(angle)])


def test_kills_lose_no_vector_and_mix_none(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    dice, added = random.Random(seed), set[str]()

    for _ in range(NUM_ROUNDS):
        for line in run_and_kill(tmp_path, dice):
            what, *names = line.split()
            added.update(names if what == "added" else ())
        with data_lock(tmp_path):
            asyncio.run(check(tmp_path, added, to_the_end=False))
    edition = asyncio.run(check(tmp_path, added, to_the_end=True))

    assert edition > 0


if __name__ == "__main__":
    with data_lock(Path(sys.argv[1])):
        asyncio.run(reindex_for_ever(Path(sys.argv[1])))
