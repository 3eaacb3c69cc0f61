"""`hearth plan`: what the models of models.yaml need of memory, and what of that fits."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.app import memory_estimator
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, cache_dir, load_or_exit
from server.models.cache_folder import footprint_folder
from server.models.footprints import Footprints
from server.models.machine_memory import read_machine_memory
from server.models.memory_needs import MemoryNeeds
from server.models.memory_plan import gib
from server.models.weights import WeightsStore
from server.services.memory_report import MemoryReport, PlannedModel, report_memory
from server.services.residency import automatic_budget


def plan(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what each model needs of memory, and whether it fits. Needs no server; one that runs holds what it holds."""
    settings = load_or_exit(config, require_files=False).config
    weights = WeightsStore(settings.server.weights_dir, cache_dir())
    estimate = partial(memory_estimator(settings.server), asks_llama_cpp=True)
    needs = MemoryNeeds(weights, Footprints(footprint_folder()), estimate)
    configured = settings.server.memory_budget_mb
    budget_bytes = automatic_budget(read_machine_memory()) if configured is None else configured << 20
    report = report_memory(settings, needs, budget_bytes=budget_bytes)
    if as_json:
        typer.echo(json.dumps(_to_json(report), indent=2))
    else:
        _print(report, origin="available" if configured is None else "server.memory_budget_mb")
    raise typer.Exit(ExitCode.DONE if all(model.fits for model in report.models) else ExitCode.FAILED)


def _to_json(report: MemoryReport) -> dict[str, Any]:
    return {"budget_bytes": report.budget_bytes, "models": [_model_json(model) for model in report.models]}


def _model_json(model: PlannedModel) -> dict[str, Any]:
    estimate, measured = model.need.estimate, model.need.measured
    return {
        "id": model.config.id,
        "lazy": model.config.lazy,
        "pinned": model.config.pinned,
        "weights_bytes": estimate.weights if estimate else None,
        "kv_bytes": estimate.kv if estimate else None,
        "compute_bytes": estimate.compute if estimate else None,
        "vram_bytes": estimate.vram if estimate else None,
        "measured_bytes": measured.memory_bytes if measured else None,
        "last_load_s": measured.load_s if measured else None,
        "planned_bytes": model.need.memory.ram,
        "fits": model.fits,
        "evicts": list(model.evicts),
        "verdict": model.verdict,
    }


def _print(report: MemoryReport, *, origin: str) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("MODEL", overflow="fold")
    table.add_column("LOADS")
    for title in ("WEIGHTS", "KV", "COMPUTE", "MEASURED"):
        table.add_column(title, justify="right")
    table.add_column("VERDICT", overflow="fold")
    for model in report.models:
        estimate, measured = model.need.estimate, model.need.measured
        parts = [gib(each) for each in (estimate.weights, estimate.kv, estimate.compute)] if estimate else ["?"] * 3
        loads = "lazily" if model.config.lazy else "at start"
        color = "default" if model.fits else "red"
        table.add_row(
            model.config.id,
            f"{loads}, pinned" if model.config.pinned else loads,
            *parts,
            gib(measured.memory_bytes) if measured else "",
            f"[{color}]{escape(model.verdict)}[/{color}]",
        )
    console = Console(highlight=False)
    console.print(table)
    together = sum(model.need.memory.ram for model in report.models)
    console.print(f"\nall together {gib(together)}; budget {gib(report.budget_bytes)} ({origin})")
