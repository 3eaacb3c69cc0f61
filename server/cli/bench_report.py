"""What `hearth bench` has measured: as a table for people, and whole, with settings and versions, for programs."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

import server
from server.bindings.cpu import read_cpu
from server.bindings.gpu import find_gpus
from server.cli.bench_asked import AskedServer
from server.cli.printable import printable
from server.loadgen.preparation import Plan
from server.loadgen.sweep import Level
from server.loadgen.target import Target
from server.types import ModelKind

Report = dict[str, Any]

_BUSY_CLIENT = 0.8
"""Share of a core from which on the client may have been what took so long."""

_CHAT_COLUMNS = {
    "TOK/S": ("tokens_per_s", 1),
    "REQ/S": ("requests_per_s", 1),
    "TTFT P50": ("ttft_p50_s", 1000),
    "P95": ("ttft_p95_s", 1000),
    "GAP P50": ("gap_p50_s", 1000),
    "P99": ("gap_p99_s", 1000),
    "EACH": ("stream_tokens_per_s", 1),
    "TOTAL P50": ("latency_p50_s", 1000),
}
_REPLY_COLUMNS = {
    "ITEMS/S": ("items_per_s", 1),
    "TOK/S": ("input_tokens_per_s", 1),
    "REQ/S": ("requests_per_s", 1),
    "TOTAL P50": ("latency_p50_s", 1000),
    "P95": ("latency_p95_s", 1000),
    "P99": ("latency_p99_s", 1000),
}
"""Titles, the figures below them, and what those are multiplied with: times are shown in ms."""

HEADLINES: dict[ModelKind, tuple[str, str]] = {
    "chat": ("tokens_per_s", "tokens/s"),
    "embedding": ("items_per_s", "texts/s"),
    "rerank": ("items_per_s", "documents/s"),
}
"""The figure that counts, and its unit."""


def make_report(
    target: Target,
    asked: AskedServer,
    plan: Plan,
    settings: Mapping[str, object],
    levels: Sequence[Level],
    notes: Sequence[str],
    *,
    is_complete: bool,
) -> Report:
    """All that somebody needs to know who compares it with another day's. Keys are in none of it."""
    return {
        "made_by": f"hearth {server.__version__}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "url": target.url,
        "model": asked.model,
        "kind": asked.kind,
        "settings": {
            **settings,
            "input_tokens": plan.input_tokens,
            "answer_tokens": plan.answer_tokens,
            "batch": plan.batch,
        },
        "server": {"version": dict(asked.version), "model": dict(asked.entry)},
        "client": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
            "cpu": read_cpu().model,
            "threads": os.cpu_count(),
            "gpus": list(find_gpus()),
        },
        "is_complete": is_complete,
        "notes": [*notes, *_busy(levels)],
        "levels": [_as_json(level) for level in levels],
    }


def print_report(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(printable(f"{report['kind']} model {report['model']} at {report['url']}"))
    if report["levels"]:
        console.print(_table(report))
        console.print(_legend(report))
    for level in report["levels"]:
        for error in level["errors"]:
            console.print(printable(f"{clients_in_words(level['num_clients'])}: {error}"), style="red")
    for note in report["notes"]:
        console.print(f"note: {note}")
    if not report["is_complete"]:
        console.print("interrupted: * marks a level that was not measured to its end")
    if best := _best(report):
        console.print(best)


def _as_json(level: Level) -> dict[str, Any]:
    figures = {name: round(value, 6) for name, value in level.figures.items()}
    return {**dataclasses.asdict(level), "figures": figures}


def clients_in_words(num_clients: int) -> str:
    return f"{num_clients} client{'s' * (num_clients > 1)}"


def _table(report: Report) -> Table:
    columns = _CHAT_COLUMNS if report["kind"] == "chat" else _REPLY_COLUMNS
    titles = ("CLIENTS", "DONE", "FAILED", *columns)
    table = Table(*(Column(title, justify="right") for title in titles), box=None, pad_edge=False)
    for level in report["levels"]:
        figures = (_cell(level["figures"].get(name), factor) for name, factor in columns.values())
        mark = "" if level["is_complete"] else "*"
        num_good = level["num_answers"] - level["num_errors"]
        table.add_row(f"{level['num_clients']}{mark}", str(num_good), str(level["num_errors"] or ""), *figures)
    return table


def _cell(value: float | None, factor: float) -> str:
    if value is None:
        return ""
    shown = value * factor
    return f"{shown:.0f}" if shown >= 100 else f"{shown:.3g}"


def _legend(report: Report) -> str:
    settings = report["settings"]
    if settings["prompts"] != "random":
        sizes = f"prompts of {settings['prompts']}"
    else:
        means = [level["figures"] for level in report["levels"] if level["figures"]]
        seen = next((each.get("mean_prompt_tokens") or each.get("mean_item_tokens") for each in means), None)
        sizes = f"inputs of {seen or settings['input_tokens']:.0f} tokens"
    if report["kind"] == "chat":
        answers = max((level["figures"].get("mean_answer_tokens", 0) for level in report["levels"]), default=0)
        return (
            f"times in ms; {sizes}, answers of {answers:.0f}; TTFT: until the first word; GAP: between two chunks;"
            " EACH: tokens/s of one stream"
        )
    return f"times in ms; {sizes}, {settings['batch']} to a request"


def _best(report: Report) -> str:
    name, unit = HEADLINES[report["kind"]]
    measured = [level for level in report["levels"] if level["is_complete"] and name in level["figures"]]
    if len(measured) < 2:
        return ""
    best = max(measured, key=lambda level: float(level["figures"][name]))
    return f"most {unit}: {_cell(best['figures'][name], 1)}, at {clients_in_words(best['num_clients'])}"


def _busy(levels: Sequence[Level]) -> list[str]:
    busy = [str(level.num_clients) for level in levels if level.client_cpu_share >= _BUSY_CLIENT]
    if not busy:
        return []
    return [f"this client was busy itself at {', '.join(busy)} clients: the server may carry more than it shows"]
