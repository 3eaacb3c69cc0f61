import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.errors import StorageError
from server.storage.data_lock import data_lock

HOLDER = """
import sys
from pathlib import Path
from server.storage.data_lock import data_lock
with data_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    with (
        data_lock(folder),
        pytest.raises(StorageError, match=f"in use by another server \\(process {os.getpid()}\\)"),
        data_lock(folder),
    ):
        pass


def test_the_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    with data_lock(tmp_path):
        pass
    with data_lock(tmp_path):
        pass


def test_a_killed_server_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=f"process {holder.pid}"), data_lock(tmp_path):
            pass

        holder.kill()
        holder.wait()

        with data_lock(tmp_path):
            pass


def test_a_full_disk_does_not_keep_a_server_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", refuse)

    with (
        data_lock(tmp_path),
        pytest.raises(StorageError, match="in use by another server \\(process unknown\\)"),
        data_lock(tmp_path),
    ):
        pass


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)

    with pytest.raises(StorageError, match="No locks available"), data_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"

    with pytest.raises(StorageError, match=f"data_dir {folder} cannot be written"), data_lock(folder):
        pass
