"""Which files of a folder are documents, and when they are read again."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from server.cli import folder as folder_module
from server.cli.folder import Folder


def test_documents_are_found_below_with_their_digests(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ü.md").write_bytes(b"hello")
    (tmp_path / "a.txt").write_bytes(b"")

    found = Folder(tmp_path).scan()

    assert list(found) == ["a.txt", "b/ü.md"]
    assert found["b/ü.md"].sha256 == hashlib.sha256(b"hello").hexdigest()
    assert found["b/ü.md"].num_bytes == 5


def test_hidden_files_links_and_what_is_no_text_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in (".git/config", ".hidden.txt", "photo.JPG", "font.woff2", "lib.so", "kept.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "kept.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")

    assert list(Folder(tmp_path).scan()) == ["kept.txt"]


def test_a_name_that_is_no_text_is_made_one(tmp_path: Path) -> None:
    source = os.fsencode(tmp_path) + b"/a\xff.txt"
    with open(source, "wb") as file:  # noqa: PTH123 (a path of bytes)
        file.write(b"x")

    [file] = Folder(tmp_path).scan().values()

    assert file.path == "a\N{REPLACEMENT CHARACTER}.txt"
    assert file.source.read_bytes() == b"x"


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = folder_module._read
    monkeypatch.setattr(folder_module, "_read", lambda path, relative: read.append(relative) or real(path, relative))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    folder = Folder(tmp_path)
    folder.scan()
    (tmp_path / "a.txt").write_text("longer than before")

    found = folder.scan()

    assert read == ["a.txt", "b.txt", "a.txt"]
    assert found["a.txt"].num_bytes == 18


def test_a_file_that_cannot_be_read_is_told_and_not_taken_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder_module, "_read", refuse)
    folder = Folder(tmp_path)

    assert folder.scan() == {}
    assert folder.unreadable == {"a.txt": "Permission denied"}


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int = errno.EACCES) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder:
            raise OSError(code, os.strerror(code), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_nothing_is_known_of_what_lies_below_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "open.txt").write_text("x")
    refuse_to_list(monkeypatch, tmp_path / "shut", code)
    folder = Folder(tmp_path)

    assert list(folder.scan()) == ["open.txt"]
    assert folder.unreadable == {"shut": os.strerror(code)}
    assert folder.is_unknown("shut/a.txt") and folder.is_unknown("shut/below/a.txt")
    assert not any(folder.is_unknown(path) for path in ("open.txt", "gone.txt", "shut.txt", "shutter/a.txt"))


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_nothing_is_known_when_the_root_cannot_be_read_or_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse_to_list(monkeypatch, tmp_path, code)
    folder = Folder(tmp_path)

    assert folder.scan() == {}
    assert folder.unreadable == {".": os.strerror(code)}
    assert folder.is_unknown("a.txt") and folder.is_unknown("b/a.txt")


def test_a_folder_that_goes_during_the_scan_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    refuse_to_list(monkeypatch, tmp_path / "gone", errno.ENOENT)
    folder = Folder(tmp_path)

    assert (folder.scan(), folder.unreadable) == ({}, {})
    assert not folder.is_unknown("gone/a.txt")


def test_a_file_that_can_be_listed_but_not_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be read, but not entered."""
    (tmp_path / "a.txt").write_text("x")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)
    folder = Folder(tmp_path)

    assert folder.scan() == {}
    assert folder.unreadable == {"a.txt": "Permission denied"}
