"""What the chat benchmark has to show: which figures are compared, with whom, and the ratio to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Section

Role = Literal["hearth", "best", "defaults", "bare"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One figure of one load, of Hearth against somebody.

    Attributes:
        figure: As in `chat_figures`.
        label: What the figure is, for people.
        least, most: What the ratio has to be; both None where the figure is only reported.
    """

    load: str
    figure: str
    label: str
    against: Role = "best"
    least: float | None = None
    most: float | None = None

    @property
    def is_rate(self) -> bool:
        """Whether more is better; times are the others."""
        return not self.figure.endswith("_s") or self.figure.endswith("_per_s")

    @property
    def required(self) -> str:
        if self.least is not None:
            return f">= {self.least:g}"
        return "" if self.most is None else f"<= {self.most:g}"


@dataclass(frozen=True)
class Verdict:
    """A bar with what was measured.

    Attributes:
        ratio: Hearth's median by the other's; None where either has none.
        worst, best: The ratios of the extremes that are worst and best for Hearth.
        is_reached: None where nothing is required, or nothing was measured.
    """

    bar: Bar
    ratio: float | None = None
    worst: float | None = None
    best: float | None = None
    is_reached: bool | None = None


BARS = (
    Bar(load="a1", figure="tokens_per_s", label="tok/s", least=1.0),
    Bar(load="a4", figure="tokens_per_s", label="tok/s"),
    Bar(load="a16", figure="tokens_per_s", label="tok/s", least=1.05),
    Bar(load="a16", figure="tokens_per_s", label="tok/s", against="bare", least=0.9),
    Bar(load="a64", figure="tokens_per_s", label="tok/s", least=1.2),
    Bar(load="b", figure="requests_per_s", label="requests/s", least=2.5),
    Bar(load="b", figure="requests_per_s", label="requests/s", against="defaults", least=4.0),
    Bar(load="b", figure="ttft_p95_s", label="TTFT p95", most=0.25),
    Bar(load="c", figure="gap_max_s", label="worst gap of a stream", most=0.25),
    Bar(load="c", figure="long_ttft_s", label="TTFT of the long prompt", most=1.3),
    Bar(load="d", figure="completion_rate", label="requests completed", least=1.0),
    Bar(load="d", figure="tokens_per_s", label="tok/s"),
    Bar(load="e", figure="tokens_per_s", label="tok/s", least=1.3),
    Bar(load="o", figure="ttft_p95_s", label="TTFT p95"),
    Bar(load="o", figure="latency_p95_s", label="time to the end, p95"),
)
"""NOTE: (d) asks for every request of Hearth's to complete: `judge` takes its own rate, whatever the other's is."""


def judge(bar: Bar, loads: Section) -> Verdict:
    """Compare what was measured with what is required."""
    hearth, other = spread_of(loads, bar, "hearth"), spread_of(loads, bar, bar.against)
    if bar.figure == "completion_rate":
        reached = None if hearth is None else hearth["min"] >= 1.0
        return Verdict(bar, is_reached=reached)
    if hearth is None or other is None or not other["median"]:
        return Verdict(bar)
    ratio = hearth["median"] / other["median"]
    low, high = hearth["min"] / other["max"], hearth["max"] / other["min"]
    worst, best = (low, high) if bar.is_rate else (high, low)
    return Verdict(bar, ratio, worst, best, _is_reached(bar, ratio))


def spread_of(loads: Section, bar: Bar, role: Role) -> Section | None:
    """Median, min and max of the bar's figure; None where it was not measured."""
    figures: Section = loads.get(bar.load, {}).get("servers", {}).get(role, {}).get("figures", {})
    return figures.get(bar.figure)


def _is_reached(bar: Bar, ratio: float) -> bool | None:
    if bar.least is not None:
        return ratio >= bar.least
    return None if bar.most is None else ratio <= bar.most
