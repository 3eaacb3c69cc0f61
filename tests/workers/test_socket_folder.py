from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.workers.socket_folder import SocketFolder

LONG_AGO = (0, 0)


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def living() -> Iterator[SocketFolder]:
    folder = SocketFolder()
    yield folder
    folder.remove()


@pytest.fixture
def abandoned(parent: Path) -> Path:
    """As a server leaves it that was killed."""
    folder = parent / "hearth-ipc-dead"
    folder.mkdir()
    (folder / "socket").touch()
    os.utime(folder, LONG_AGO)
    return folder


def test_only_the_owner_may_look_into_it(living: SocketFolder) -> None:
    assert living.path.stat().st_mode & 0o777 == 0o700


def test_a_folder_left_by_a_killed_server_is_removed(abandoned: Path, living: SocketFolder) -> None:
    assert not abandoned.exists()
    assert living.path.exists()


def test_the_folder_of_a_living_server_stays(living: SocketFolder) -> None:
    os.utime(living.path, LONG_AGO)

    SocketFolder().remove()

    assert living.path.exists()


def test_the_folder_of_a_server_that_is_just_starting_stays(parent: Path) -> None:
    unlocked = parent / "hearth-ipc-new"
    unlocked.mkdir()

    SocketFolder().remove()

    assert unlocked.exists()


def test_what_a_link_points_to_stays(parent: Path, abandoned: Path) -> None:
    """Everybody may write to /tmp."""
    precious = parent / "precious"
    abandoned.rename(precious)
    (parent / "hearth-ipc-link").symlink_to(precious)

    SocketFolder().remove()

    assert (precious / "socket").exists()
