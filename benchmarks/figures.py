"""What a run of a load gives, and what runs of it give together. Knows no load and no server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.machine import spread
from benchmarks.results import Section

Figures = dict[str, float]
"""Figure by name; times in seconds. One that could not be taken, because nothing was answered, is not there."""

MAX_ERRORS = 3
"""Distinct error texts that are kept of a run: hundreds of requests tend to fail for one reason."""


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


def percentiles(name: str, values: Iterable[float], *percents: int) -> Figures:
    """`{name}_p50_s` and so on, by nearest rank; 100 is `{name}_max_s`. Empty when there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        f"{name}_{'max' if percent == 100 else f'p{percent}'}_s": ordered[
            max(0, math.ceil(len(ordered) * percent / 100) - 1)
        ]
        for percent in percents
    }


def distinct_errors(errors: Iterable[str]) -> tuple[str, ...]:
    """The first few; empty texts are no errors."""
    return tuple(dict.fromkeys(error[:500] for error in errors if error))[:MAX_ERRORS]
