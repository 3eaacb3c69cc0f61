"""A process that stores documents is killed at random moments: what it acknowledged is there, and all fits together.

Run as a script this file is that process.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import ObjectNotFound
from server.rag.document_store import DocumentStore
from server.rag.documents import ChunkingStrategy, DocumentRecord, Span
from server.rag.paging import Page
from server.storage.data_lock import data_lock
from server.storage.database import Database
from server.storage.file_store import FileStore
from tests.fakes.document_check import findings
from tests.fakes.documents import a_file, a_store, cut

ROOT = Path(__file__).parents[2]
NUM_ROUNDS = 8
MAX_BYTES = 1 << 20


def text_of(file_id: str) -> str:
    return f"{file_id} has text of its own. " * (50 + int(file_id.removeprefix("file-")) % 200)


def spans_of(text: str) -> list[Span]:
    return [Span(start, min(start + 300, len(text))) for start in range(0, len(text), 200)]


async def stream(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


# ---- the process that is killed


async def store_for_ever(folder: Path, first: int) -> None:
    documents = DocumentStore(Database.open(folder / "hearth.db"))
    files = FileStore(folder / "files", MAX_BYTES)
    await files.sweep(await documents.file_ids())
    stores, _ = await documents.stores("default")
    store = stores[0] if stores else await a_store(documents)
    for number in range(first, first + 10**6):
        file_id = f"file-{number}"
        await files.write(file_id, stream(text_of(file_id).encode()))
        await documents.add_file("default", a_file(file_id))
        say("added", file_id)
        [document] = await documents.add_documents("default", store.id, [(file_id, {}, ChunkingStrategy())])
        text = text_of(file_id)
        parsed, chunked, vectors, hashes = cut(text, spans_of(text))
        halves = {hash_: vector.astype("<f2").tobytes() for hash_, vector in zip(hashes, vectors, strict=True)}
        await documents.keep_pending(document.id, halves)
        await documents.complete(document.id, parsed, chunked, vectors, hashes)
        say("completed", file_id)
        if number % 3 == 0:
            old = f"file-{number - 2}"
            say("removing", old)
            try:
                await documents.delete_file("default", old)
                await files.delete(old)
            except ObjectNotFound:
                pass  # never came to be: killed before
            say("removed", old)


def say(what: str, file_id: str) -> None:
    print(what, file_id, flush=True)


# ---- the one that kills


@dataclass
class Heard:
    added: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    removing: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)


def run_and_kill(folder: Path, first: int, heard: Heard, dice: random.Random) -> None:
    command = [sys.executable, __file__, str(folder), str(first)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(dice.randint(1, 12))]
            time.sleep(dice.uniform(0, 0.02))  # no event: the point is that nobody knows what is going on
        finally:
            child.kill()
        lines += child.stdout.readlines()
    assert all(lines), "it ended by itself"
    for line in lines:
        what, file_id = line.split()
        getattr(heard, what).add(file_id)


async def check(folder: Path, heard: Heard) -> None:
    database = Database.open(folder / "hearth.db")
    try:
        documents = DocumentStore(database)
        files = FileStore(folder / "files", MAX_BYTES)
        await files.sweep(await documents.file_ids())
        known = await documents.file_ids()
        assert heard.added - heard.removing <= known
        assert not heard.removed & known
        assert {path.name for path in (folder / "files").iterdir()} == known
        assert all(files.path(file_id).read_text() == text_of(file_id) for file_id in known)

        [store], _ = await documents.stores("default")
        completed = [each for each in await all_documents(documents, store.id) if each.status == "completed"]
        assert heard.completed - heard.removing <= {each.file_id for each in completed}
        _, ids, _ = await documents.vectors(store.id)
        assert len(ids) == sum(len(spans_of(text_of(each.file_id))) for each in completed)
        for each in completed[-5:]:
            assert await documents.document_text("default", store.id, each.file_id) == text_of(each.file_id)
        assert await database.write(findings) == {}
    finally:
        database.close()


async def all_documents(documents: DocumentStore, store_id: str) -> list[DocumentRecord]:
    found, has_more = await documents.documents("default", store_id, page=Page(limit=100))
    while has_more:
        more, has_more = await documents.documents("default", store_id, page=Page(limit=100, after=found[-1].file_id))
        found += more
    return found


def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    dice, heard = random.Random(seed), Heard()

    for number in range(NUM_ROUNDS):
        run_and_kill(tmp_path, 1000 * number, heard, dice)
        with data_lock(tmp_path):
            asyncio.run(check(tmp_path, heard))

    assert heard.completed


if __name__ == "__main__":
    with data_lock(Path(sys.argv[1])):
        asyncio.run(store_for_ever(Path(sys.argv[1]), int(sys.argv[2])))
