from __future__ import annotations

from pathlib import Path

import pytest

from server.rag import upload_check
from server.rag.upload_check import check_uploads
from tests.fakes.library import TENANT, open_rig


async def test_uploads_that_are_there_are_no_problem(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.add_file("apples")

        assert check_uploads(tmp_path) == []


async def test_bytes_that_are_missing_or_cut_are_found(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        missing, cut, whole = [await rig.add_file("apples") for _ in range(3)]
        rig.library.files.path(missing).unlink()
        rig.library.files.path(cut).write_bytes(b"app")

        problems = check_uploads(tmp_path)

    assert problems == [f"file {missing}: its bytes are missing", f"file {cut}: it has 3 bytes, expected 6"]
    assert whole not in str(problems)


async def test_a_file_that_is_deleted_meanwhile_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_rig(tmp_path) as rig:
        file_id = await rig.add_file("apples")
        sizes = iter([{file_id: 6}, {}])  # what the database says first, and then
        monkeypatch.setattr(upload_check, "_sizes", lambda _layout: next(sizes))
        await rig.documents.delete_file(TENANT, file_id)
        await rig.library.files.delete(file_id)

        assert check_uploads(tmp_path) == []
