"""What Prometheus reads: valid, described, and never more of it than there are models."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.metrics import CONTENT_TYPE, GpuReading, Metrics, ModelReading, ServerReading
from server.telemetry.metrics_reference import fill_table
from tests.fakes.metric_pages import full_page, names_on

DOCS = Path(__file__).parents[2] / "docs/observability.md"


def test_the_page_can_be_read_and_has_no_name_twice() -> None:
    families = list(text_string_to_metric_families(full_page()))

    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(name.startswith("hearth_") for name in names)
    assert all(family.documentation for family in families)


def test_counters_end_as_counters_do() -> None:
    for family in text_string_to_metric_families(full_page()):
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name


def test_units_are_base_units() -> None:
    """Seconds, bytes and ratios: what dashboards can format."""
    assert not [name for name in names_on(full_page()) if re.search(r"_(ms|mb|percent|perc)(_|$)", name)]


def test_a_model_that_says_nothing_has_no_figures_but_its_state() -> None:
    metrics = Metrics()
    metrics.read = lambda: ServerReading(models=(ModelReading(model_id="m", kind="chat", state="failed"),))

    page = metrics.page().decode()

    assert 'hearth_model_state{model="m",state="failed"} 1.0' in page
    assert 'hearth_model_state{model="m",state="ready"} 0.0' in page
    assert not re.findall(r"^hearth_(?:num_requests|kv_cache|batch)\w*\{", page, re.MULTILINE)


def test_a_gpu_that_does_not_know_leaves_that_out() -> None:
    metrics = Metrics()
    gpu = GpuReading(index=0, name="GPU", used_bytes=1, total_bytes=2)
    metrics.read = lambda: ServerReading(gpus=(gpu,))

    page = metrics.page().decode()

    assert 'hearth_gpu_memory_total_bytes{gpu="0",name="GPU"} 2.0' in page
    assert "hearth_gpu_power_watts{" not in page


def test_the_cells_that_are_used_are_a_ratio() -> None:
    metrics = Metrics()
    reading = ModelReading(model_id="m", kind="chat", state="ready", used_cells=1, num_cells=4)
    metrics.read = lambda: ServerReading(models=(reading,))

    assert 'hearth_kv_cache_usage_ratio{model="m"} 0.25' in metrics.page().decode()


def test_the_type_is_prometheus_text() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_the_table_of_metrics_is_made_from_them() -> None:
    page = DOCS.read_text(encoding="utf-8")

    assert fill_table(page) == page, "run `python -m server.telemetry.metrics_reference`"
