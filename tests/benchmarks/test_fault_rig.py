from __future__ import annotations

import json
from dataclasses import asdict

import httpx
import pytest

from benchmarks.fault_rig import Answer, Row
from benchmarks.faults import table
from benchmarks.results import DISCONNECTS, FAULTS, SLOW_SOCKETS, load_results
from benchmarks.slow_sockets import MAX_IDLE_KB, MAX_RATIO, broken
from benchmarks.slow_sockets import table as socket_table
from benchmarks.tables import PAGE, refill

ERROR = {"message": "m", "type": "server_error", "param": None, "code": "worker_crashed"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (json.dumps({"error": ERROR}), ERROR),
        (f'data: {{"choices": []}}\n\ndata: {json.dumps({"error": ERROR})}\n\n', ERROR),
        ('data: {"choices": []}\n\ndata: [DONE]\n\n', {}),
        ('{"choices": []}', {}),
        ("\n(the connection broke)", {}),
    ],
)
def test_the_error_of_an_answer_is_found(text: str, error: object) -> None:
    assert Answer(200, text, httpx.Headers(), 0.1).error == error


def test_what_did_not_hold_stands_in_the_table() -> None:
    good, bad = Row("1", "a"), Row("2", "b", figures={"s": 1.5})
    good.require(True, "never said")
    bad.require(False, "it took 1.5 s")

    lines = table({"rows": [asdict(good), asdict(bad)]}).splitlines()

    assert lines[2] == "| 1 | a |  |  | yes |"
    assert lines[3] == "| 2 | b |  | s 1.5 | **no**: it took 1.5 s |"


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.faults --table`, the same of `disconnects`, or measure slow sockets."""
    page = PAGE.read_text(encoding="utf-8")
    makers = {
        "faults": lambda: table(load_results(FAULTS)),
        "disconnects": lambda: table(load_results(DISCONNECTS)),
        "slow-sockets": lambda: socket_table(load_results(SLOW_SOCKETS)),
    }

    assert all(page.count(f"<!-- {name} -->") == 1 for name in makers)
    assert refill(page, makers) == page


def measured(ratio: float, memory_kb: float) -> dict[str, object]:
    def values(value: float) -> dict[str, float]:
        return {"median": value, "min": value, "max": value}

    figures = {"ratio": values(ratio), "alone_ms": values(1.0), "beside_ms": values(ratio)}
    return {"requests": {"chat": figures}, "memory_kb_per_connection": values(memory_kb)}


def test_slow_sockets_that_somebody_notices_are_a_fault() -> None:
    kinds = {"idle": measured(1.0, MAX_IDLE_KB), "slow head": measured(MAX_RATIO, 500), "slow body": measured(1.19, 0)}

    assert broken({"kinds": kinds}) == ["idle: 30.0 KB for each connection", "slow head: chat takes 1.2 x as long"]
    assert "| slow body | chat | 1 (1 to 1) | 1.19 (1.19 to 1.19) |" in socket_table({"kinds": kinds})
