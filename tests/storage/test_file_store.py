import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from server.errors import ObjectNotFound, RequestTooLarge, StorageError, StorageFull
from server.storage.file_store import FileStore

MIB = 1 << 20


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def broken_stream() -> AsyncIterator[bytes]:
    yield b"x" * MIB
    raise ConnectionError("client went away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(root: Path) -> FileStore:
    return FileStore(root, max_bytes=4 * MIB)


@pytest.mark.parametrize("sizes", [[], [0], [3], [MIB], [700_000] * 5, [1] * 1000, [4 * MIB]])
async def test_what_was_sent_is_there(files: FileStore, sizes: list[int]) -> None:
    chunks = [os.urandom(size) for size in sizes]
    content = b"".join(chunks)

    written = await files.write("file-1", stream(chunks))

    assert written == (len(content), hashlib.sha256(content).hexdigest())
    assert files.path("file-1").read_bytes() == content


async def test_too_much_is_refused_before_the_rest_is_read(files: FileStore, root: Path) -> None:
    num_read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            yield b"x" * MIB

    with pytest.raises(RequestTooLarge, match="4194304 bytes"):
        await files.write("file-1", endless())

    assert num_read == 5
    assert names(root) == []


async def test_an_upload_that_breaks_off_leaves_nothing(files: FileStore, root: Path) -> None:
    with pytest.raises(ConnectionError):
        await files.write("file-1", broken_stream())

    assert names(root) == []


async def test_a_cancelled_upload_leaves_nothing(files: FileStore, root: Path) -> None:
    is_waiting = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"x" * 2 * MIB
        is_waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(files.write("file-1", stalling()))
    await is_waiting.wait()
    assert names(root) == ["file-1.part"]

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert names(root) == []


async def test_an_upload_cancelled_while_the_disk_works_leaves_nothing(
    files: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be stopped: its file must not be closed under it."""
    is_syncing, may_go_on = threading.Event(), threading.Event()

    def slow_sync(_descriptor: int) -> None:
        is_syncing.set()
        assert may_go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow_sync)
    task = asyncio.create_task(files.write("file-1", stream([b"abc"])))
    await asyncio.to_thread(is_syncing.wait, 10)

    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert names(root) == []


@pytest.mark.parametrize(("failing", "num_calls"), [("fsync", 1), ("fsync", 2), ("open", 1)])
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageError)])
async def test_a_disk_that_fails_leaves_nothing_and_recovers(
    files: FileStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    num_calls: int,
    code: int,
    error: type[StorageError],
) -> None:
    """`num_calls` tells the file's bytes from the folder's entry, each of which must reach the disk."""
    real, calls = getattr(os, failing), 0

    def fail(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == num_calls:
            raise OSError(code, os.strerror(code), "/secret/place")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(error) as caught:
            await files.write("file-1", stream([b"abc"]))

    assert type(caught.value) is error and "secret" not in caught.value.message
    assert names(root) == []
    assert (await files.write("file-1", stream([b"abc"])))[0] == 3


async def test_an_upload_is_acknowledged_in_the_order_that_a_power_cut_cannot_break(
    files: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, name, folder: else a name without bytes, or a file without a name, could be all that is left."""
    steps: list[object] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(fd: int) -> None:
        steps.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    def note_replace(path: Path, target: Path) -> Path:
        steps.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    await files.write("file-1", stream([b"abc"]))

    assert steps == [root / "file-1.part", "name", root]


async def test_uploads_do_not_disturb_each_other(files: FileStore) -> None:
    contents = {f"file-{number}": os.urandom(100_000) for number in range(8)}

    await asyncio.gather(*(files.write(file_id, stream([content] * 3)) for file_id, content in contents.items()))

    assert all(files.path(file_id).read_bytes() == content * 3 for file_id, content in contents.items())


async def test_deleting_is_idempotent(files: FileStore) -> None:
    await files.write("file-1", stream([b"abc"]))

    await files.delete("file-1")
    await files.delete("file-1")

    assert not files.path("file-1").exists()


async def test_a_sweep_leaves_what_is_known(files: FileStore, root: Path) -> None:
    await files.write("file-1", stream([b"abc"]))
    await files.write("file-2", stream([b"abc"]))
    (root / "file-3.part").touch()

    assert await files.sweep({"file-1", "file-9"}) == 2

    assert names(root) == ["file-1"]


@pytest.mark.parametrize("file_id", ["../x", "/etc/passwd", "", "a/b", "a\x00b", ".", "..", "x" * 200, "é", "a\n"])
def test_no_id_leads_out_of_the_folder(files: FileStore, file_id: str) -> None:
    with pytest.raises(ObjectNotFound):
        files.path(file_id)
