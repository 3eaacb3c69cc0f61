"""The benchmark of disconnects notices what it looks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.disconnect_rig import PHASES
from benchmarks.disconnects import GROUP, Billed, Gone, Holdings, billing, groups_of, leaks
from benchmarks.leaving_client import PIECE

BY_NAME = {phase.name: phase for phase in PHASES}
CUT = Billed(1, "client_gone", 5, 3)
HELD = Holdings({"server": 1}, num_fds=9, num_uploads=1, rss_mb=100.0, workers_rss_mb=500.0)
TOTALS = {"num_requests": 1, "prompt_tokens": 5, "completion_tokens": 3}


def found(phase: str, billed: Billed | None, *, num_pieces: int = 0, asked: bool = True, **report: Any) -> list[str]:
    gone = Gone("gone-1", BY_NAME[phase], num_pieces)
    records = {} if billed is None else {"gone-1": billed}
    return billing([gone], {"gone-1"} if asked else set(), records, {**TOTALS, **report}, TOTALS).broken


@pytest.mark.parametrize(
    ("phase", "billed", "asked"),
    [
        ("queued", replace(CUT, prompt_tokens=0, completion_tokens=0), True),
        ("decode", CUT, True),
        ("after the last token", Billed(1, "completed", 5, 8), True),
        ("mid-upload", None, False),
        ("mid-RAG", None, False),
        ("mid-RAG", CUT, True),
    ],
)
def test_a_ledger_that_agrees_holds(phase: str, billed: Billed | None, *, asked: bool) -> None:
    assert found(phase, billed, asked=asked) == []


@pytest.mark.parametrize(
    ("phase", "billed", "asked", "what"),
    [
        ("queued", replace(CUT, completion_tokens=0), True, "a prompt that nobody has read"),
        ("prefill", CUT, True, "more tokens than were made"),
        ("decode", replace(CUT, completion_tokens=1), True, "fewer tokens than came"),
        ("decode", replace(CUT, num_records=2), True, "2 records"),
        ("decode", replace(CUT, status="internal_error"), True, "status internal_error"),
        ("decode", None, True, "no record"),
        ("mid-upload", None, True, "asked a model"),
        ("mid-RAG", CUT, False, "a record, though no model was asked"),
    ],
)
def test_what_is_wrongly_billed_is_found(phase: str, billed: Billed | None, what: str, *, asked: bool) -> None:
    num_pieces = 2 if phase == "decode" else 0

    assert f"1 x {phase}: {what}" in found(phase, billed, num_pieces=num_pieces, asked=asked)


def test_a_report_that_is_not_the_sum_of_the_records_is_found() -> None:
    assert "/v1/usage says" in found("decode", CUT, completion_tokens=4)[0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, None),
        ({"rss_mb": 120.0, "num_fds": 7}, None),
        ({"pids": {"server": 2}}, "processes were"),
        ({"num_fds": 10}, "9 open files became 10"),
        ({"num_uploads": 2}, "1 uploads became 2"),
        ({"rss_mb": 140.0}, "server's memory grew by 40 MB"),
        ({"workers_rss_mb": 600.0}, "workers' memory grew by 100 MB"),
    ],
)
def test_what_is_left_behind_is_found(change: dict[str, Any], what: str | None) -> None:
    broken = leaks(HELD, replace(HELD, **change), log=json.dumps({"level": "info"})).broken

    assert broken == [] if what is None else what in broken[0]


def test_an_error_in_the_log_is_found() -> None:
    assert leaks(HELD, HELD, log=json.dumps({"level": "error", "event": "a bug"})).broken


def test_groups_are_as_many_as_asked_for() -> None:
    assert list(groups_of(2 * GROUP + 3)) == [GROUP, GROUP, 3]
    assert list(groups_of(0)) == []


def test_only_what_is_said_counts_as_a_piece() -> None:
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
    said = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'
    ended = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}'

    assert len(PIECE.findall(role + said + said + ended)) == 2
