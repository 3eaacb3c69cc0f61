from pathlib import Path
from types import SimpleNamespace

import pytest

from server.errors import StorageError, StorageFull
from server.storage.disk_room import check_room

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("total", "free", "num_bytes", "fits"),
    [
        (GIB * 100, 64 * MIB, 0, True),
        (GIB * 100, 64 * MIB, 1, False),
        (GIB * 100, 80 * MIB, 16 * MIB, True),
        (40 * MIB, 2 * MIB, 0, True),  # a small disk would be all reserve
        (40 * MIB, 2 * MIB, 1, False),
    ],
)
def test_the_reserve_stays_free(
    monkeypatch: pytest.MonkeyPatch, total: int, free: int, num_bytes: int, fits: bool
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(total=total, free=free))

    if fits:
        check_room(Path(), num_bytes)
    else:
        with pytest.raises(StorageFull, match=f"only {free // MIB} MiB are left"):
            check_room(Path(), num_bytes)


def test_room_that_is_needed_again_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(total=100 * GIB, free=60 * MIB))

    check_room(Path(), reusable_bytes=4 * MIB)


def test_a_folder_that_is_gone_is_an_error_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        check_room(tmp_path / "gone")
