"""`hearth doctor`: print what services/diagnosis.py finds, and a remedy for everything that is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from server.app import spec_factory
from server.bindings.build_info import load_build_info
from server.bindings.cpu import read_cpu
from server.bindings.gpu import read_gpus
from server.bindings.self_test import SelfTest, run_self_test
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, cache_dir, load_or_exit
from server.config.schema import HearthConfig, ModelConfig
from server.encoders.kernel_choice import KernelFinding
from server.models.weights import WeightsStore
from server.services.diagnosis import Finding, Machine, diagnose
from server.workers.tuning import Tuning
from server.workers.tuning_cache import open_cache, open_kernel_cache


def doctor(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    check_index: Annotated[
        bool, typer.Option("--check-index", help="Only prove that what vector stores hold fits together.")
    ] = False,
) -> None:
    """Say how this installation was built, what the machine has, and what is wrong."""
    loaded = load_or_exit(config, require_files=False)
    findings = _check_data(loaded.config) if check_index else _look_around(loaded.config)
    if as_json:
        typer.echo(json.dumps(_to_json(findings), indent=2))
    else:
        _print(findings)
    raise typer.Exit(ExitCode.DONE if all(finding.is_ok for finding in findings) else ExitCode.FAILED)


def _check_data(settings: HearthConfig) -> list[Finding]:
    from server.services.data_check import check_data

    with Console(stderr=True).status("reading the data directory"):
        return list(check_data(settings.server.data_dir))


def _look_around(settings: HearthConfig) -> list[Finding]:
    store = WeightsStore(settings.server.weights_dir, cache_dir())
    with Console(stderr=True).status("looking around, testing llama.cpp, hashing model files"):
        return list(diagnose(settings, store, _this_machine(settings, store)))


def _this_machine(settings: HearthConfig, store: WeightsStore) -> Machine:
    build = load_build_info()

    def test(model: Path | None) -> SelfTest:
        return run_self_test(model, use_extra_bufts=build.use_extra_bufts)

    def tuning(model: ModelConfig) -> Tuning | None:
        cache = open_cache(model, spec_factory(model, settings, store)(""))
        return cache.load() if cache else None

    def kernel(model: ModelConfig) -> KernelFinding | None:
        cache = open_kernel_cache(model, spec_factory(model, settings, store)(""))
        return cache.load() if cache else None

    return Machine(
        build=build,
        cpu=read_cpu(),
        gpus=read_gpus(),
        tuning=tuning,
        kernel=kernel,
        test=test,
        is_hearth=is_hearth,
    )


def is_hearth(address: str) -> bool:
    """Whether a Hearth answers at `host:port`."""
    try:
        return "version" in httpx.get(f"http://{address}/version", timeout=2, trust_env=False).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError):
        return False


def _to_json(findings: list[Finding]) -> dict[str, object]:
    lines = [{**dataclasses.asdict(finding), "ok": finding.is_ok} for finding in findings]
    return {"ok": all(finding.is_ok for finding in findings), "findings": lines}


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    table = Table(Column(), Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/]" if finding.is_ok else "[red]wrong[/]"
        table.add_row(mark, escape(finding.name), escape(finding.value))
    console.print(table)
    wrong = [finding for finding in findings if not finding.is_ok]
    console.print("\nnothing is wrong" if not wrong else "")
    for finding in wrong:
        console.print(f"{finding.name}: {finding.value} — {finding.remedy}", markup=False, soft_wrap=True)
