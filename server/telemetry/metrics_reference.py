"""The table of metrics in docs/observability.md, made from the metrics themselves.

`python -m server.telemetry.metrics_reference` rewrites it; a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric

from server.telemetry.metrics import GpuReading, Metrics, ModelReading, ServerReading

_TABLE = re.compile(r"<!-- metrics -->\n.*?<!-- end -->", re.DOTALL)


def full_metrics() -> Metrics:
    """Those of a server that has something to say of everything."""
    metrics = Metrics()
    counted = metrics.of_model("m")
    counted.count_prompt(2, 1)
    counted.generation_tokens.inc()
    counted.finished("stop").inc()
    for histogram in (counted.ttft, counted.itl, counted.queue, counted.e2e, metrics.loop_lag):
        histogram.observe(0.01)
    metrics.requests.labels("m", "completed").inc()
    metrics.http_responses.labels("200").inc()
    metrics.rejections.labels("overloaded").inc()
    numbers = {name: 1 for name in ModelReading.__dataclass_fields__ if name not in ("model_id", "kind", "state")}
    model = ModelReading(model_id="m", kind="chat", state="ready", **numbers)
    gpu = GpuReading(index=0, name="GPU", used_bytes=1, total_bytes=1, busy_share=1.0, power_watts=1.0)
    metrics.read = lambda: ServerReading(models=(model,), gpus=(gpu,))
    return metrics


def fill_table(page: str) -> str:
    """Return docs/observability.md with what stands between its marks made anew."""
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows())
    return _TABLE.sub(f"<!-- metrics -->\n{rows}<!-- end -->", page)


def _rows() -> Iterator[tuple[str, ...]]:
    yield "Metric", "Type", "Labels", ""
    yield "---", "---", "---", "---"
    for family in sorted(full_metrics().registry.collect(), key=lambda each: each.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in _labels(family))
        yield f"`{name}`", family.type, labels, family.documentation


def _labels(family: Metric) -> list[str]:
    return [label for label in family.samples[0].labels if label != "le"] if family.samples else []


if __name__ == "__main__":
    docs = Path(__file__).parents[2] / "docs" / "observability.md"
    docs.write_text(fill_table(docs.read_text(encoding="utf-8")), encoding="utf-8")
