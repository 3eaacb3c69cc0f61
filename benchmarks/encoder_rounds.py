"""Running contenders in turn: each starts once a repetition and runs all its loads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.bars import Role
from benchmarks.encoder_contenders import Contender
from benchmarks.encoder_loads import Load
from benchmarks.figures import Outcome, summarise
from benchmarks.results import Section
from benchmarks.servers import ServerFailed
from server.loadgen.figures import Figures
from server.loadgen.prompts import new_seed

SHOWN = ("completion_rate", "items_per_s", "latency_p95_s", "latency_p99_s", "chat_share", "computed_items")


@dataclass(frozen=True)
class Entrant:
    """A contender with what it stands for; several may have one role, in different loads.

    Attributes:
        loads: Names of those that it runs.
    """

    role: Role
    contender: Contender
    loads: frozenset[str]


def measure(
    entrants: Sequence[Entrant],
    loads: Sequence[Load],
    repetitions: int,
    *,
    save: Callable[[dict[str, Section]], None],
) -> None:
    """Run all in turn, in an order that rotates; the texts of a repetition are the same for all.

    Args:
        save: Called after each repetition with what is known by then, by load and by role.
    """
    seed = new_seed()
    records: dict[tuple[str, Role], Record] = {}
    for repetition in range(repetitions):
        start = repetition % len(entrants)
        for entrant in (*entrants[start:], *entrants[:start]):
            run(entrant, [load for load in loads if load.name in entrant.loads], seed + repetition, records)
        save(by_load(records))


@dataclass
class Record:
    """What one entrant's runs of one load gave, or why it does not take part."""

    name: str
    outcomes: list[Outcome]
    rejected: str = ""


def run(entrant: Entrant, loads: Sequence[Load], seed: int, records: dict[tuple[str, Role], Record]) -> None:
    """Run all loads of an entrant once, and add to the records."""
    name = entrant.contender.name
    mine = [records.setdefault((load.name, entrant.role), Record(name, [])) for load in loads]
    if not loads or any(record.rejected for record in mine):
        return
    try:
        for load, outcome in entrant.contender.run(loads, seed):
            records[load.name, entrant.role].outcomes.append(outcome)
            print(f"{load.name:<7} {name:<42} {one_line(outcome)}", flush=True)
    except ServerFailed as exc:
        for record in mine:
            record.rejected = str(exc)
        print(f"{'':<7} {name:<42} does not take part: {exc}", flush=True)


def by_load(records: dict[tuple[str, Role], Record]) -> dict[str, Section]:
    servers: defaultdict[str, Section] = defaultdict(dict)
    for (load, role), record in records.items():
        servers[load][role] = {"name": record.name, **summarise(record.outcomes), "rejected": record.rejected}
    return dict(servers)


def one_line(outcome: Outcome) -> str:
    figures: Figures = outcome.figures
    shown = [f"{name} {figures[name]:.4g}" for name in SHOWN if name in figures]
    return "  ".join([*shown, *outcome.errors])
