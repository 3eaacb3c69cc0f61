"""Running contenders against a load: once, or in turn so often, with what failed kept beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.chat_contenders import Contender
from benchmarks.chat_loads import Load, NotTakingPart
from benchmarks.figures import Outcome, summarise
from benchmarks.prompts import Prompts
from benchmarks.results import Section
from server.loadgen.figures import Figures
from server.loadgen.prompts import new_seed

SHOWN = ("completion_rate", "ttft_p95_s", "gap_max_s")


def measure(load: Load, contenders: Mapping[str, Contender], repetitions: int) -> dict[str, Section]:
    """Run all in turn, in an order that rotates; the prompts of a repetition are the same for all.

    Returns:
        By role: name, figures with their spread, errors, why it does not take part, and what it said of itself.
    """
    seed = new_seed()
    records = {role: Record() for role in contenders}
    for repetition in range(repetitions):
        roles = list(contenders)
        start = repetition % len(roles)
        for role in roles[start:] + roles[:start]:
            if not records[role].rejected:
                records[role].run(contenders[role], load, seed + repetition, load.num_requests)
    return {role: {"name": contenders[role].name, **record.summary()} for role, record in records.items()}


@dataclass
class Record:
    """What one contender's runs gave, or why it does not take part."""

    outcomes: list[Outcome] = field(default_factory=list)
    rejected: str = ""

    def run(self, contender: Contender, load: Load, seed: int, num_requests: int) -> None:
        try:
            outcome = contender.measure(load, Prompts(seed), num_requests)
        except NotTakingPart as exc:
            self.rejected = str(exc)
            line = f"does not take part: {self.rejected}"
        else:
            self.outcomes.append(outcome)
            line = one_line(outcome.figures, load.figure)
        print(f"{load.name:<4} {contender.name:<50} {line}", flush=True)

    def summary(self) -> Section:
        return {**summarise(self.outcomes), "rejected": self.rejected}


def one_line(figures: Figures, main: str) -> str:
    shown = dict.fromkeys((main, *SHOWN))
    return "  ".join(f"{name} {figures[name]:.4g}" for name in shown if name in figures)
