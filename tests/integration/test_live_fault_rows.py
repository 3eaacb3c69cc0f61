"""The faults of docs/behaviour.md, each injected into a server of its own; `benchmarks/faults.py` measures the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import fault_models, fault_server, fault_workers
from benchmarks.fault_rig import Row

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("live_config")]  # for the weights


Report = Callable[[Row], list[str]]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Takes the figures of a row down, and returns what did not hold."""

    def broken(row: Row) -> list[str]:
        for name, value in row.figures.items():
            record_property(name, value)
        print(row.outcome, row.figures)
        return row.broken

    return broken


async def test_row_1_requests_that_only_waited_are_served_by_the_next_worker(tmp_path: Path, report: Report) -> None:
    assert report(await fault_workers.queued_requests_wait(tmp_path)) == []


async def test_row_2_a_model_that_aborts_again_and_again_is_given_up(tmp_path: Path, report: Report) -> None:
    assert report(await fault_workers.abort_in_a_loop(tmp_path)) == []


async def test_row_3_a_model_file_that_is_truncated_under_way_hurts_its_model_alone(
    tmp_path: Path, report: Report
) -> None:
    assert report(await fault_models.truncated_while_mapped(tmp_path)) == []


async def test_row_4_a_worker_without_memory_fails_its_model_alone(tmp_path: Path, report: Report) -> None:
    assert report(await fault_models.no_memory_to_load(tmp_path)) == []


async def test_row_5_when_memory_runs_out_the_kernel_takes_a_worker(tmp_path: Path, report: Report) -> None:
    assert report(await fault_workers.victim_of_the_oom_killer(tmp_path)) == []


async def test_row_6_broken_weights_keep_nobody_from_starting(tmp_path: Path, report: Report) -> None:
    assert report(await fault_models.broken_weights_at_start(tmp_path)) == []


async def test_row_7_a_worker_that_stands_still_is_replaced(tmp_path: Path, report: Report) -> None:
    assert report(await fault_workers.stopped_worker(tmp_path)) == []


async def test_row_7_a_long_prompt_is_no_standstill(tmp_path: Path, report: Report) -> None:
    assert report(await fault_workers.long_prefill(tmp_path, num_prompts=2, num_sentences=400)) == []


async def test_row_8_while_a_model_loads_the_server_is_healthy_and_not_ready(tmp_path: Path, report: Report) -> None:
    assert report(await fault_models.slow_load(tmp_path)) == []


async def test_row_9_a_killed_server_leaves_nobody_behind(tmp_path: Path, report: Report) -> None:
    assert report(await fault_server.killed_server(tmp_path)) == []


async def test_row_16_streams_end_before_the_server_does(tmp_path: Path, report: Report) -> None:
    assert report(await fault_server.terminated_with_streams(tmp_path, words=80)) == []


@pytest.mark.parametrize(("drain_s", "signals"), [(3.0, 1), (30.0, 2)], ids=["drain is over", "second signal"])
async def test_row_16_streams_that_are_not_waited_for_end_with_an_error(
    tmp_path: Path, report: Report, drain_s: float, signals: int
) -> None:
    assert report(await fault_server.terminated_for_good(tmp_path, drain_s=drain_s, signals=signals)) == []


async def test_row_28_a_start_that_cannot_be_is_one_line(tmp_path: Path, report: Report) -> None:
    for row in await fault_server.refused_starts(tmp_path):
        assert report(row) == []
