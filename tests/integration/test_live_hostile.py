"""A small part of `benchmarks/hostile.py`, on a server of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hostile import attack, write_config
from benchmarks.server_process import ServerProcess

pytestmark = pytest.mark.integration


@pytest.mark.usefixtures("live_config")  # for the weights
async def test_nobody_notices_three_hundred_hostile_requests(tmp_path: Path) -> None:
    with ServerProcess(write_config(tmp_path), tmp_path / "log") as server:
        server.wait_until_settled()
        findings = await attack(server, seed=1, count=300)

    assert findings.surprises == []
    assert findings.broken_streams == []
    assert findings.num_streams > 0
    assert findings.are_processes_unchanged
    assert max(findings.health_s) < 1
