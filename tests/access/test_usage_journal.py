from __future__ import annotations

from pathlib import Path

import pytest

from server.access.usage_journal import JournalFile


def test_a_file_that_takes_nothing_stays_empty() -> None:
    """So that a full disk gets no new file each second."""
    file = JournalFile(Path("/dev/full"))

    with pytest.raises(OSError, match="No space left"):
        file.write(b"{}\n")

    assert file.is_empty
    file.close()
