"""From the samples and times of a soak to its minutes, its summary, and what is required of it. Pure functions.

    |  warm-up, a sixth  |  first third of what counts  |  second  |  last third  |

Medians of the last third are held against those of the first: what comes and goes does not count, what stays does.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bars import held_to
from benchmarks.results import Section
from benchmarks.soak_traffic import Seen
from benchmarks.soak_watch import Held, Sample
from server.loadgen.figures import percentiles

WARM_UP = 1 / 6
"""Share of the time that does not count, five minutes of thirty: caches fill, and pools get their threads."""

MAX_GROWTH_MB = 100.0
MAX_MORE_FDS = 5
MAX_LATENCY_RATIO = 1.2

HOPES = {"latency_ratio"}
"""Bars that the noise of a machine may miss; the others must hold."""


@dataclass(frozen=True)
class Span:
    """From `begin_s` to just before `end_s`, on the clock of the samples."""

    begin_s: float
    end_s: float

    def has(self, at_s: float) -> bool:
        return self.begin_s <= at_s < self.end_s

    def parts(self, length_s: float) -> list[Span]:
        """Its whole minutes, or whatever the length is; a span shorter than that is one part."""
        count = max(1, int((self.end_s - self.begin_s) / length_s + 1e-6))
        return [Span(self.begin_s + i * length_s, self.begin_s + (i + 1) * length_s) for i in range(count)]

    def counted(self) -> Span:
        return Span(self.begin_s + WARM_UP * (self.end_s - self.begin_s), self.end_s)

    def thirds(self) -> tuple[Span, Span]:
        """The first and the last of what counts."""
        counted = self.counted()
        third_s = (counted.end_s - counted.begin_s) / 3
        return Span(counted.begin_s, counted.begin_s + third_s), Span(counted.end_s - third_s, counted.end_s)


def minute_rows(span: Span, samples: Sequence[Sample], seen: Seen) -> list[Section]:
    """For each minute medians of what was held, and latencies of each kind of request."""
    rows = []
    for number, minute in enumerate(span.parts(60.0)):
        inside = [sample for sample in samples if minute.has(sample.at_s)]
        rows.append(
            {
                "minute": number + 1,
                "roles": {role: _held(inside, role) for role in roles_of(inside)},
                "sockets": max((sample.num_sockets for sample in inside), default=0),
                "cpu_share": round(statistics.fmean(sample.cpu_share for sample in inside), 3) if inside else None,
                "requests": {kind: _latencies(times, minute) for kind, times in sorted(seen.times.items())},
            }
        )
    return rows


def summarise(span: Span, samples: Sequence[Sample], seen: Seen, *, are_processes_unchanged: bool) -> Section:
    """First third against last, and the bars."""
    first, last = span.thirds()
    processes = {role: _compared(role, samples, span) for role in roles_of(samples)}
    requests = {kind: _compared_times(times, first, last) for kind, times in sorted(seen.times.items())}
    total = _change(samples, first, last, _total_mb)
    more_fds = max(abs(each["fds"][1] - each["fds"][0]) for each in processes.values())
    ratios = [each["ratio"] for each in requests.values() if each["ratio"] is not None]
    return {
        "memory_mb": total,
        "slope_mb_per_hour": slope_per_hour(_series(samples, span.counted(), _total_mb)),
        "cpu_share": round(statistics.fmean(sample.cpu_share for sample in samples), 3),
        "sockets": max(sample.num_sockets for sample in samples),
        "processes": processes,
        "requests": requests,
        "num_answered": sum(map(len, seen.times.values())),
        "failures": dict(seen.failures),
        "bars": {
            "growth_mb": held_to(total[1] - total[0], most=MAX_GROWTH_MB),
            "fds": held_to(more_fds, most=MAX_MORE_FDS),
            "failures": held_to(seen.failures.total(), most=0),
            "zombies": held_to(len(lasting_zombies(samples)), most=0),
            "processes_replaced": held_to(not are_processes_unchanged, most=0),
            "latency_ratio": held_to(max(ratios, default=0.0), most=MAX_LATENCY_RATIO),
        },
    }


def missed(summary: Section) -> list[str]:
    """What must hold and does not."""
    bars = summary["bars"].items()
    return [f"{name} is {bar['measured']:g}" for name, bar in bars if not bar["is_reached"] and name not in HOPES]


def roles_of(samples: Sequence[Sample]) -> list[str]:
    return sorted({role for sample in samples for role in sample.roles})


def slope_per_hour(series: Sequence[tuple[float, float]]) -> float | None:
    """Least squares over (seconds, value); None where there is no time between them."""
    if len({at_s for at_s, _ in series}) < 2:
        return None
    return round(3600 * statistics.linear_regression(*zip(*series, strict=True)).slope, 2)


def lasting_zombies(samples: Sequence[Sample]) -> set[int]:
    """Found in two samples, one after the other."""
    return {pid for before, after in itertools.pairwise(samples) for pid in before.zombies & after.zombies}


def _compared(role: str, samples: Sequence[Sample], span: Span) -> Section:
    first, last = span.thirds()

    def of(name: str) -> Callable[[Sample], float]:
        return lambda sample: getattr(sample.roles.get(role, Held()), name)

    return {
        "memory_mb": _change(samples, first, last, of("memory_mb")),
        "slope_mb_per_hour": slope_per_hour(_series(samples, span.counted(), of("memory_mb"))),
        "fds": _change(samples, first, last, of("num_fds")),
        "threads": _change(samples, first, last, of("num_threads")),
    }


def _change(samples: Sequence[Sample], first: Span, last: Span, value: Callable[[Sample], float]) -> list[float]:
    """The medians of the two.

    Raises:
        ValueError: There is no sample in one of them.
    """
    found = [[value(sample) for sample in samples if third.has(sample.at_s)] for third in (first, last)]
    if not all(found):
        raise ValueError("no sample in a third of the soak; allow more --minutes")
    return [round(statistics.median(values), 1) for values in found]


def _series(samples: Sequence[Sample], span: Span, value: Callable[[Sample], float]) -> list[tuple[float, float]]:
    return [(sample.at_s, value(sample)) for sample in samples if span.has(sample.at_s)]


def _total_mb(sample: Sample) -> float:
    return sum(held.memory_mb for held in sample.roles.values())


def _compared_times(times: Sequence[tuple[float, float]], first: Span, last: Span) -> Section:
    thirds = [_latencies(times, third) for third in (first, last)]
    medians = [third.get("p50_s") for third in thirds]
    ratio = medians[1] / medians[0] if medians[0] and medians[1] else None
    return {"count": len(times), "thirds": thirds, "ratio": None if ratio is None else round(ratio, 3)}


def _latencies(times: Sequence[tuple[float, float]], span: Span) -> dict[str, float]:
    inside = [seconds for at_s, seconds in times if span.has(at_s)]
    found: Mapping[str, float] = percentiles("latency", inside, 50, 95)
    return {"count": len(inside), **{name.removeprefix("latency_"): round(each, 4) for name, each in found.items()}}


def _held(samples: Sequence[Sample], role: str) -> Section:
    held = [sample.roles.get(role, Held()) for sample in samples]
    return {
        "memory_mb": round(statistics.median(each.memory_mb for each in held), 1),
        "fds": statistics.median(each.num_fds for each in held),
        "threads": statistics.median(each.num_threads for each in held),
    }
