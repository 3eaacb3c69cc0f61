"""A small run of benchmarks/disconnects.py: the default models, and clients that leave wherever a request can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.disconnect_rig import PHASES
from benchmarks.disconnects import DisconnectTest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("live_config")]  # for the weights


async def test_whoever_leaves_leaves_nothing_behind_and_pays_for_what_ran(tmp_path: Path) -> None:
    rows = await DisconnectTest(tmp_path).run(3 * len(PHASES), num_before=2)

    assert len(rows) == len(PHASES) + 2
    assert [broken for row in rows for broken in row.broken] == []
