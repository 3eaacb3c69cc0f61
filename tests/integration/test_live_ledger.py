"""A small run of benchmarks/ledger.py: real servers, killed in between; the scripted model alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ledger import LedgerTest, compare

pytestmark = pytest.mark.integration


async def test_the_ledger_is_what_clients_were_told_whatever_dies(tmp_path: Path) -> None:
    test = LedgerTest(tmp_path, [], num_requests=400, seed=7, model_kill_s=2)

    rows, report = await test.run(num_kills=2)

    asked = test.traffic.asked
    assert len(asked) == 400 and test.num_server_kills == 2
    assert not any(compare(asked, rows).problems.values())
    assert sum(each.ending == "told" for each in asked) > 200
    assert {row.status for row in rows} >= {"completed"}
    assert report["num_requests"] >= len(rows)
