"""Room on the disk that is kept for what makes room: on a disk that is full to the last byte not even deleting works,
because it is written down first.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from server.errors import StorageFull
from server.storage.disk_errors import disk_errors

RESERVE_BYTES = 64 << 20
_SHARE = 20  # of a small disk, a twentieth


def check_room(folder: Path, num_bytes: int = 0, *, reusable_bytes: int = 0) -> None:
    """Refuse to add something to the disk of `folder` if that would touch the reserve.

    Args:
        num_bytes: How much is added, where that is known.
        reusable_bytes: How much of it needs no new room.

    Raises:
        StorageFull: It would.
    """
    with disk_errors():
        disk = shutil.disk_usage(folder)
    if disk.free + reusable_bytes - num_bytes < min(RESERVE_BYTES, disk.total // _SHARE):
        raise StorageFull(
            f"only {disk.free >> 20} MiB are left on the disk of the data directory; delete files, or make room, "
            "and try again"
        )
