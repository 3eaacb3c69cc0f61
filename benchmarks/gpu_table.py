"""The table that `gpu.py` ends with: what is required, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.bars import Bar, judge
from benchmarks.gpu_chat import Scale
from benchmarks.model_shapes import SHAPES, bytes_per_token
from benchmarks.results import Section
from benchmarks.tables import markdown, significant, spread_cell, yes_no

NOT_MEASURED = "not measured"


def chat_bars(scale: Scale) -> list[Bar]:
    first, *others = (f"u{count}" for count in scale.clients)
    shared, widest = f"s{scale.num_slots}", others[-2:]
    return [
        Bar(load=first, figure="tokens_per_s", label="tok/s", least=0.97),
        *(
            Bar(load=name, figure="tokens_per_s", label="tok/s", least=1.2 if name in widest else None)
            for name in others
        ),
        Bar(load=shared, figure="requests_per_s", label="requests/s", least=4.0),
        Bar(load=shared, figure="ttft_p95_s", label="TTFT p95", most=0.25),
        Bar(load="u32", figure="gpu_idle_share", label="GPU idle", against=None, most=0.05),
    ]


ENCODER_BARS = (
    Bar(load="embed", figure="items_per_s", label="texts/s", against="script", least=2.0),
    Bar(load="embed", figure="items_per_s", label="texts/s", against="bare", least=0.8),
    Bar(load="rerank", figure="items_per_s", label="pairs/s", against="script", least=1.3),
)


def gpu_table(results: Section, scale: Scale) -> str:
    """All of it as text: the card's limits, then a row for each bar."""
    rows = [
        *(row for model in results.get("models", {}) for row in _chat_rows(model, results, chat_bars(scale))),
        *_rows("", results.get("encoders", {}), ENCODER_BARS),
    ]
    head = ("model", "load", "figure", "hearth", "the other", "who", "ratio", "required", "reached")
    return f"{_limits(results)}\n{markdown(head, rows)}"


def _chat_rows(model: str, results: Section, bars: Sequence[Bar]) -> Iterator[tuple[str, ...]]:
    loads = results["models"][model]["loads"]
    yield from _rows(model, loads, bars)
    share = bandwidth_share(model, results)
    shown = NOT_MEASURED if share is None else f"{100 * share:.0f} %"
    yield model, "1 client", "of the bandwidth limit", shown, "", "the card", "", "", ""


def bandwidth_share(model: str, results: Section) -> float | None:
    """How near decoding for one client comes to reading the weights at the card's copy rate; None without a card."""
    figures = results["models"][model]["loads"].get("u1", {}).get("servers", {}).get("hearth", {}).get("figures", {})
    limits = results.get("limits", {})
    if "stream_tokens_per_s" not in figures or limits.get("device", "cpu") == "cpu":
        return None
    needed = bytes_per_token(SHAPES[model], results["models"][model]["quantisation"])
    rate: float = figures["stream_tokens_per_s"]["median"] * needed / (limits["copy_gb_per_s"] * 1e9)
    return rate


def _rows(model: str, loads: Section, bars: Sequence[Bar]) -> Iterator[tuple[str, ...]]:
    for bar in bars:
        if bar.load not in loads:
            continue
        section, verdict = loads[bar.load], judge(bar, loads)
        other = bar.against or ""
        yield (
            model,
            section["title"],
            bar.label,
            spread_cell(loads, bar, "hearth"),
            spread_cell(loads, bar, other) if other else "",
            section["servers"].get(other, {}).get("name", "") if other else "",
            "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
            bar.required,
            yes_no(verdict.is_reached),
        )


def _limits(results: Section) -> str:
    limits = results.get("limits", {})
    named = {
        "copy_gb_per_s": "GB/s copied (read and written)",
        "upload_gb_per_s": "GB/s from pinned memory",
        "matmul_tflop_per_s": "TFLOP/s in products",
    }
    figures = [f"{significant(limits[name])} {unit}" for name, unit in named.items() if name in limits]
    return f"{limits.get('device', 'no card')}: {', '.join(figures) or NOT_MEASURED}\n"
