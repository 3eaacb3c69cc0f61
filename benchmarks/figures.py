"""What a run of a load gives, and what runs of it give together. Knows no load and no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.machine import spread
from benchmarks.results import Section
from server.loadgen.figures import Figures, distinct_errors


@dataclass(frozen=True)
class Outcome:
    """What one run of a load gave.

    Attributes:
        errors: The first few distinct reasons of requests that failed.
        runtime: What the server said of its own choices.
    """

    figures: Figures
    errors: tuple[str, ...] = ()
    runtime: dict[str, object] = field(default_factory=dict)


def summarise(outcomes: Sequence[Outcome]) -> Section:
    """Each figure with its spread over the runs, the distinct errors, and what the server said of itself last."""
    names = sorted({name for outcome in outcomes for name in outcome.figures})
    return {
        "figures": {
            name: spread([each.figures[name] for each in outcomes if name in each.figures], digits=4) for name in names
        },
        "errors": list(distinct_errors(error for outcome in outcomes for error in outcome.errors)),
        "runtime": outcomes[-1].runtime if outcomes else {},
    }
