"""Stores that are exported and imported, over real data directories with fake models."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from server.errors import Conflict, InvalidRequest, ObjectNotFound, RequestTooLarge, StorageFull
from server.rag.documents import Attributes, ChunkingStrategy, StatusCounts, StoreRecord
from server.rag.index_check import check_index
from server.rag.search import SearchOptions
from server.rag.transfer_store import TransferStore
from server.services.library import LibraryDoor
from server.services.transfers import TransferService
from server.services.vector_stores import VectorStoreService
from tests.fakes.library import EMBEDDING, SMALL_CHUNKS, TENANT, Rig, jobs_done, open_rig
from tests.rag.test_store_file import frames, joined

PARENTS = ChunkingStrategy(kind="structural", max_tokens=32, overlap_tokens=8, parent_tokens=64)


class Transfers:
    """Services over one rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        door = LibraryDoor()
        door.open(rig.library)
        self.stores = VectorStoreService(door, rig.models)
        self.transfers = TransferService(door, rig.models)

    async def filled(
        self, *texts: str, chunking: ChunkingStrategy = SMALL_CHUNKS, attributes: Attributes | None = None
    ) -> StoreRecord:
        store = await self.stores.create(TENANT, name="notes", metadata={"k": "v"}, chunking=chunking)
        for text in texts:
            await self.stores.add_file(TENANT, store.id, await self.rig.add_file(text), attributes=attributes)
        await jobs_done()
        return store

    async def exported(self, store: StoreRecord) -> bytes:
        _, parts = await self.transfers.export_store(TENANT, store.id)
        return b"".join([part async for part in parts])

    async def imported(self, content: bytes, *, tenant: str = TENANT, name: str | None = None) -> StoreRecord:
        return await self.transfers.import_store(tenant, pieces(content), lambda: name)

    async def contents(self, store: StoreRecord, tenant: str = TENANT) -> list[object]:
        """All that can be seen of a store's documents, but for ids and times."""
        documents, _ = await self.stores.documents(tenant, store.id)
        return sorted(
            [
                (
                    document.filename,
                    repr(document.attributes),
                    document.status,
                    document.usage_bytes,
                    document.num_chunks,
                    repr(document.chunking),
                    await self.stores.document_text(tenant, store.id, document.file_id),
                )
                for document in documents
            ]
        )

    async def found(self, store: StoreRecord, query: str, tenant: str = TENANT) -> list[object]:
        """Hits without ids: text, place, score, ranks."""
        outcome = await self.stores.search(tenant, store.id, [query], SearchOptions(parent_tokens=500))
        return [
            (hit.chunk.text, hit.chunk.span, round(hit.score, 6), hit.places, hit.parent and hit.parent.text)
            for hit in outcome.hits
        ]

    async def nothing_is_left(self, tmp_path: Path, *, num_stores: int = 0, num_files: int = 0) -> None:
        await self.rig.library.sweeper.sweep()
        counts = {}
        for table in ("vector_stores", "files", "documents", "chunks", "texts", "sweeps"):
            rows = await self.rig.documents.read(
                lambda db, table=table: db.execute(f"SELECT count(*) FROM {table}").fetchall()
            )
            counts[table] = rows[0][0]
        assert (counts["vector_stores"], counts["files"], counts["sweeps"]) == (num_stores, num_files, 0)
        if not num_stores:
            assert set(counts.values()) == {0}
        assert len(list((tmp_path / "files").iterdir())) == num_files
        assert list((tmp_path / "imports").iterdir()) == []


async def pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Transfers]:
    async with open_rig(tmp_path / "source") as rig:
        yield Transfers(rig)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Transfers]:
    async with open_rig(tmp_path / "target") as rig:
        yield Transfers(rig)


async def test_a_store_arrives_with_all_that_it_holds(source: Transfers, target: Transfers) -> None:
    store = await source.filled("apples and pears", "some plums", attributes={"year": 1999, "lang": "en"})

    arrived = await target.imported(await source.exported(store))

    assert (arrived.name, arrived.metadata, arrived.chunking) == ("notes", {"k": "v"}, SMALL_CHUNKS)
    assert (arrived.fingerprint, arrived.dimensions, arrived.counts) == ("f1", 2, StatusCounts(completed=2))
    assert arrived.id != store.id
    assert await target.contents(arrived) == await source.contents(store)
    assert await target.found(arrived, "apples") == await source.found(store, "apples") != []
    assert target.rig.embedder.embedded == ["apples"], "the query; nothing is embedded again"


async def test_chunks_keep_the_columns_of_their_table(source: Transfers, target: Transfers) -> None:
    """Or what is searched there would be less, and adding the file again would embed it again."""
    source.rig.parser.kind = target.rig.parser.kind = "table"
    store = await source.filled("Tea | Cost\nmate | low")

    arrived = await target.imported(await source.exported(store))
    assert await target.found(arrived, "cost") == await source.found(store, "cost")
    [[document], _] = await target.stores.documents(TENANT, arrived.id)
    await target.stores.add_file(TENANT, arrived.id, document.file_id)
    await jobs_done()

    assert target.rig.embedder.embedded == ["cost"], "the query"
    assert len(await target.found(arrived, "cost")) == 3


async def test_the_files_arrive_too(source: Transfers, target: Transfers) -> None:
    store = await source.filled("apples and pears")

    arrived = await target.imported(await source.exported(store))

    [[document], _] = await target.stores.documents(TENANT, arrived.id)
    file = await target.rig.documents.file(TENANT, document.file_id)
    content = target.rig.library.files.path(file.id).read_bytes()
    assert (content, file.filename, file.purpose) == (b"apples and pears", "a.txt", "assistants")
    assert file.sha256 == hashlib.sha256(content).hexdigest()


WORDS = st.sampled_from(["apple", "pear", "plum", "naïve", "日本", "😀", ".", "\n\n", "# Head\n"])


@given(st.lists(st.lists(WORDS, min_size=1, max_size=60).map(" ".join), min_size=1, max_size=4), st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_store_is_searched_as_before(
    source: Transfers, target: Transfers, texts: Sequence[str], has_parents: bool
) -> None:
    store = await source.filled(*texts, chunking=PARENTS if has_parents else SMALL_CHUNKS)
    done = (await source.stores.get(TENANT, store.id)).counts.completed

    arrived = await target.imported(await source.exported(store))

    assert arrived.counts == StatusCounts(completed=done)
    for query in ("apple", "pear plum", "日本"):
        assert await target.found(arrived, query) == await source.found(store, query)
    if done == len(texts):
        assert await target.contents(arrived) == await source.contents(store)


async def test_what_is_not_searched_stays_behind(source: Transfers, target: Transfers) -> None:
    store = await source.filled("apples", "  ")
    source.rig.parser.gate = asyncio.Event()
    await source.stores.add_file(TENANT, store.id, await source.rig.add_file("pears"))

    arrived = await target.imported(await source.exported(store))

    assert [text for *_, text in await target.contents(arrived)] == ["apples"]  # type: ignore[misc]  # tuples


async def test_a_document_that_is_read_again_is_exported_as_it_is_searched(
    source: Transfers, target: Transfers
) -> None:
    store = await source.filled("apples")
    [[document], _] = await source.stores.documents(TENANT, store.id)
    source.rig.parser.gate = asyncio.Event()
    await source.stores.add_file(TENANT, store.id, document.file_id)

    arrived = await target.imported(await source.exported(store))

    assert arrived.counts == StatusCounts(completed=1)


async def test_an_imported_store_belongs_to_who_imports_it(source: Transfers) -> None:
    store = await source.filled("apples")

    arrived = await source.imported(await source.exported(store), tenant="eve", name="mine")

    assert arrived.name == "mine"
    assert await source.contents(arrived, tenant="eve") == await source.contents(store)
    with pytest.raises(ObjectNotFound):
        await source.stores.get(TENANT, arrived.id)
    [[document], _] = await source.stores.documents("eve", arrived.id)
    with pytest.raises(ObjectNotFound):
        await source.rig.documents.file(TENANT, document.file_id)


async def test_a_store_goes_on_as_any_other(source: Transfers, target: Transfers) -> None:
    arrived = await target.imported(await source.exported(await source.filled("apples", "pears")))
    [[document, _], _] = await target.stores.documents(TENANT, arrived.id)

    await target.stores.remove_document(TENANT, arrived.id, document.file_id)
    again = await target.stores.add_file(TENANT, arrived.id, await target.rig.add_file("apples"))
    await jobs_done()

    assert (await target.stores.document(TENANT, arrived.id, again.file_id)).status == "completed"
    assert target.rig.embedder.embedded == [], "it knows the hash of what has come"
    assert await target.rig.documents.read(lambda db: db.execute("SELECT count(*) FROM chunks").fetchall()) == [(2,)]


async def test_a_store_of_an_unknown_model_is_imported_and_says_what_to_do(
    source: Transfers, target: Transfers
) -> None:
    content = await source.exported(await source.filled("apples"))
    messages = frames(content)
    messages[0]["fingerprint"] = messages[0]["embedding_model"] = "other"

    arrived = await target.imported(joined(messages))

    with pytest.raises(Conflict, match=f"model 'other'.*`hearth reindex {arrived.id}`"):
        await target.found(arrived, "apples")


async def test_a_model_is_known_by_its_fingerprint_whatever_it_is_called_there(
    source: Transfers, target: Transfers
) -> None:
    messages = frames(await source.exported(await source.filled("apples")))
    messages[0]["embedding_model"] = "what they call it"

    arrived = await target.imported(joined(messages))

    assert arrived.embedding_model == EMBEDDING.id
    assert await target.found(arrived, "apples") != []


async def test_vectors_that_only_claim_to_be_a_models_are_never_searched(source: Transfers, target: Transfers) -> None:
    messages = frames(await source.exported(await source.filled("apples")))
    messages[0]["dimensions"] = 1
    next(each for each in messages if each["type"] == "chunks")["vectors"] = b"\x00\x3c"

    arrived = await target.imported(joined(messages))

    with pytest.raises(Conflict):
        await target.found(arrived, "apples")


# ---- all or nothing


async def test_a_file_that_is_broken_leaves_nothing(source: Transfers, target: Transfers, tmp_path: Path) -> None:
    content = await source.exported(await source.filled("apples", "pears"))

    for broken in (content[:-1], content[: len(content) // 2], content[:-2] + b"xx", b"something else"):
        with pytest.raises(InvalidRequest):
            await target.imported(broken)

    await target.nothing_is_left(tmp_path / "target")


@pytest.mark.parametrize("changes", [{"num_bytes": 7}, {"sha256": "0" * 64}], ids=["length", "digest"])
async def test_a_file_that_is_not_what_it_says_leaves_nothing(
    source: Transfers, target: Transfers, tmp_path: Path, changes: dict[str, object]
) -> None:
    messages = frames(await source.exported(await source.filled("apples")))
    next(each for each in messages if each["type"] == "document").update(changes)

    with pytest.raises(InvalidRequest, match="is not as long as it should be, or has other content"):
        await target.imported(joined(messages))

    await target.nothing_is_left(tmp_path / "target")


async def test_a_file_that_this_server_would_not_take_leaves_nothing(
    source: Transfers, target: Transfers, tmp_path: Path
) -> None:
    messages = frames(await source.exported(await source.filled("apples")))
    place = next(index for index, each in enumerate(messages) if each["type"] == "content")
    messages[place : place + 1] = [{"type": "content", "content": bytes(1 << 20)}] * 2

    with pytest.raises(RequestTooLarge):
        await target.imported(joined(messages))

    await target.nothing_is_left(tmp_path / "target")


async def test_an_upload_that_is_too_large_or_breaks_off_leaves_nothing(target: Transfers, tmp_path: Path) -> None:
    async def break_off() -> AsyncIterator[bytes]:
        yield b"HEARTHVS"
        raise ConnectionError

    with pytest.raises(RequestTooLarge):
        await target.imported(bytes((1 << 22) + 1))
    with pytest.raises(ConnectionError):
        await target.transfers.import_store(TENANT, break_off(), lambda: None)

    await target.nothing_is_left(tmp_path / "target")


@pytest.mark.parametrize("method", ["add", "finish_import"])
async def test_a_disk_that_gets_full_on_the_way_leaves_nothing(
    source: Transfers, target: Transfers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def refuse(*_: object) -> None:
        raise StorageFull("full")

    content = await source.exported(await source.filled("apples"))
    monkeypatch.setattr(TransferStore, method, refuse)

    with pytest.raises(StorageFull):
        await target.imported(content)

    await target.nothing_is_left(tmp_path / "target")


async def test_nobody_sees_a_store_before_it_is_whole(
    source: Transfers, target: Transfers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await source.exported(await source.filled("apples", "pears"))
    seen: list[object] = []
    add = TransferStore.add

    async def look(transfers: TransferStore, *arguments: object) -> None:
        await add(transfers, *arguments)  # type: ignore[arg-type]  # as it was called
        seen.append((await target.stores.list(TENANT), await target.rig.documents.files(TENANT)))
        await target.rig.documents.expire(1)

    monkeypatch.setattr(TransferStore, "add", look)

    await target.imported(content)

    assert seen == [(([], False), ([], False))] * 2
    assert len((await target.rig.documents.files(TENANT))[0]) == 2


async def test_an_import_that_is_cancelled_leaves_nothing(
    source: Transfers, target: Transfers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await source.exported(await source.filled("apples", "pears"))
    has_begun = asyncio.Event()

    async def hang(*_: object) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(TransferStore, "add", hang)
    importing = asyncio.create_task(target.imported(content))
    await has_begun.wait()
    importing.cancel()
    await asyncio.wait((importing,))

    await target.nothing_is_left(tmp_path / "target")


async def test_an_import_that_is_killed_leaves_nothing(
    source: Transfers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await source.exported(await source.filled("apples", "pears"))

    async def die(*_: object) -> None:
        raise KeyError("as if it were killed")

    async with open_rig(tmp_path / "target") as rig:
        await Transfers(rig).filled("plums")
        with monkeypatch.context() as patches:
            patches.setattr(TransferStore, "finish_import", die)
            patches.setattr("server.rag.store_import.StoreImport._abandon", lambda *_: asyncio.sleep(0))
            with pytest.raises(KeyError):
                await Transfers(rig).imported(content)

    async with open_rig(tmp_path / "target") as rig:
        await rig.library.sweeper.recover()
        await rig.library.files.sweep(await rig.documents.file_ids())
        await Transfers(rig).nothing_is_left(tmp_path / "target", num_stores=1, num_files=1)


# ---- what is refused


async def test_anothers_store_and_an_expired_one_are_not_exported(source: Transfers) -> None:
    store = await source.filled("apples")
    with pytest.raises(ObjectNotFound):
        await source.transfers.export_store("eve", store.id)

    expiring = await source.stores.create(TENANT, expires_after_days=1)
    await source.rig.documents.expire(expiring.last_active_at + 2 * 86_400)
    with pytest.raises(Conflict, match="has expired"):
        await source.transfers.export_store(TENANT, expiring.id)


async def test_an_export_breaks_off_when_its_store_goes(source: Transfers) -> None:
    store = await source.filled("apples", "pears")
    _, parts = await source.transfers.export_store(TENANT, store.id)
    await anext(parts)

    await source.stores.delete(TENANT, store.id)

    with pytest.raises(ObjectNotFound):
        async for _ in parts:
            pass


async def test_a_document_that_goes_during_the_export_is_left_out(source: Transfers, target: Transfers) -> None:
    store = await source.filled("apples", "pears")
    [[_, document], _] = await source.stores.documents(TENANT, store.id)
    _, parts = await source.transfers.export_store(TENANT, store.id)
    content = await anext(parts)

    await source.stores.remove_document(TENANT, store.id, document.file_id)
    content += b"".join([part async for part in parts])

    assert (await target.imported(content)).counts == StatusCounts(completed=1)


async def test_everything_fits_together_afterwards(source: Transfers, tmp_path: Path) -> None:
    store = await source.filled("apples and pears", "plums", chunking=PARENTS)
    async with open_rig(tmp_path / "other") as rig:
        await Transfers(rig).imported(await source.exported(store))

    report = await asyncio.to_thread(check_index, tmp_path / "other")
    assert (report.problems, [store.num_chunks for store in report.stores]) == ((), [2])
