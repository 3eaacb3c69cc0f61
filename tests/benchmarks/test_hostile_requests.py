"""What the hostile benchmark sends, and what it makes of what it sees."""

from __future__ import annotations

import json

import pytest

from benchmarks.hostile import Findings, what_is_wrong
from benchmarks.hostile_requests import CHATS, MESSAGES, VALID, Hostile
from benchmarks.hostile_rows import ROWS, hostile_requests
from benchmarks.schemas import fault_of


def test_a_seed_gives_the_same_requests() -> None:
    assert list(hostile_requests(3, 60)) == list(hostile_requests(3, 60))
    assert list(hostile_requests(3, 60)) != list(hostile_requests(4, 60))


def test_every_kind_comes_early() -> None:
    rows = {request.row for request in hostile_requests(1, len(ROWS))}

    assert rows == {"A4", "A7", *(f"B{n}" for n in range(1, 14) if n != 12)}


def test_every_route_is_attacked() -> None:
    assert {request.path for request in hostile_requests(1, 300) if not request.is_raw} == set(VALID)


OPENAI = '{"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": null}}'
ANTHROPIC = (
    '{"type": "error", "error": {"type": "invalid_request_error", "message": "no", "details": {}}, "request_id": "r"}'
)


@pytest.mark.parametrize(("path", "right", "wrong"), [(CHATS, OPENAI, ANTHROPIC), (MESSAGES, ANTHROPIC, OPENAI)])
def test_an_error_has_the_shape_of_its_api(path: str, right: str, wrong: str) -> None:
    hostile = Hostile("B3", path, b"{")

    assert what_is_wrong(hostile, 400, right) == ""
    assert what_is_wrong(hostile, 400, wrong).startswith("its error has the fields")
    assert what_is_wrong(hostile, 500, right).startswith("status 500")


def test_what_must_be_served_is_json() -> None:
    for request in hostile_requests(1, 300):
        if request.statuses == (200,) and request.path == CHATS:
            assert json.loads(request.content)["messages"]


def test_growth_counts_from_the_end_of_the_warm_up() -> None:
    grown = [(at, 100.0 if at < 200 else 150.0 + at / 100) for at in range(0, 1001, 10)]

    findings = Findings(memory_mib={"server": grown}, num_done=1000)

    assert findings.growth_mib_per_100() == {"server": 1.0}


def good() -> Findings:
    return Findings(num_streams=2, health_s=[0.1], are_processes_unchanged=True, num_done=10)


def test_a_good_run_has_no_faults() -> None:
    assert good().faults() == []


def test_each_fault_is_told() -> None:
    bad = Findings(surprises=["a"], broken_streams=["b"], health_s=[2.0], num_done=10)
    bad.memory_mib["server"] = [(5, 1.0), (10, 100.0)]

    assert [fault.split()[0] for fault in bad.faults()] == ["1", "1", "no", "a", "/health", "server"]


def test_an_answer_that_breaks_its_schema_is_found_out() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}, "required": ["a"]}

    assert fault_of('{"a": "2026-11-22"}', schema) == ""
    assert "is not a 'date'" in fault_of('{"a": "tomorrow"}', schema)
    assert fault_of('{"a": ', schema)
