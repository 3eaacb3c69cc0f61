"""What a benchmark has to show: figures of Hearth compared with somebody's, and the ratio to reach."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Section

Role = str
"""Who was measured, e.g. "hearth" or "best"; the roles are the benchmark's."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One figure of one load, of Hearth against somebody or for itself.

    Attributes:
        figure: Of Hearth.
        label: What the figure is, for people.
        against: Whom the figure is compared with; None: it is judged by itself, and in every repetition.
        other_figure: What it is compared with, where that is not the other's same figure.
        least, most: What the ratio (or the figure itself) has to be; both None where it is only reported.
    """

    load: str
    figure: str
    label: str
    against: Role | None = "best"
    other_figure: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def is_rate(self) -> bool:
        """Whether more is better; times are the others."""
        return not self.figure.endswith("_s") or self.figure.endswith("_per_s")

    @property
    def scale(self) -> tuple[float, str]:
        """What people want the figure multiplied with, and its unit."""
        if self.figure.endswith(("_rate", "_share")):
            return 100, " %"
        return 1, "" if self.is_rate else " s"

    @property
    def bound(self) -> float | None:
        return self.most if self.least is None else self.least

    @property
    def required(self) -> str:
        """Of the ratio, or of the figure itself, for people; empty where nothing is."""
        if self.bound is None:
            return ""
        factor, unit = (1.0, "") if self.against else self.scale
        return f"{'<=' if self.least is None else '>='} {factor * self.bound:g}{unit}"


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


def judge(bar: Bar, loads: Section) -> Verdict:
    """Compare what was measured with what is required."""
    hearth = spread_of(loads, bar, "hearth")
    if bar.against is None:
        is_reached = None if hearth is None else _is_reached(bar, hearth["max" if bar.least is None else "min"])
        return Verdict(bar, is_reached=is_reached)
    other = spread_of(loads, bar, bar.against)
    if hearth is None or other is None or not other["median"]:
        return Verdict(bar)
    ratio = hearth["median"] / other["median"]
    low, high = hearth["min"] / other["max"], hearth["max"] / other["min"]
    worst, best = (low, high) if bar.is_rate else (high, low)
    return Verdict(bar, ratio, worst, best, _is_reached(bar, ratio))


def spread_of(loads: Section, bar: Bar, role: Role) -> Section | None:
    """Median, min and max of the bar's figure; None where it was not measured."""
    figures: Section = loads.get(bar.load, {}).get("servers", {}).get(role, {}).get("figures", {})
    return figures.get((role == bar.against and bar.other_figure) or bar.figure)


def held_to(measured: float, *, least: float | None = None, most: float | None = None) -> Section:
    """One figure of a section with what is required of it, where nobody else is measured beside Hearth."""
    bounds = {name: round(bound, 4) for name, bound in (("at_least", least), ("at_most", most)) if bound is not None}
    is_reached = (least is None or measured >= least) and (most is None or measured <= most)
    return {"measured": round(measured, 4), **bounds, "is_reached": bool(is_reached)}


def _is_reached(bar: Bar, value: float) -> bool | None:
    if bar.least is not None:
        return value >= bar.least
    return None if bar.most is None else value <= bar.most
