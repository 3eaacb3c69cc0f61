"""`hearth tune`: measure what runs a model fastest on this machine, and remember it for its next load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from server.app import spec_factory
from server.cli.settings import ConfigOption, cache_dir, choose_models, fail, load_or_exit
from server.config.schema import ModelConfig
from server.encoders.kernel_choice import KernelFinding, KernelTrial
from server.errors import HearthError
from server.models.cache_folder import tuning_folder
from server.models.weights import WeightsStore
from server.workers.messages import LOAD_FAILED_EXIT_CODE, WorkerSpec
from server.workers.process import child_environment, last_words
from server.workers.tuning import RuntimeSettings, Trial, Tuning

_TIMEOUT_S = 600.0
"""Far more than a search takes after the model is loaded."""


def tune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id or alias of a model.")],
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure what runs a model fastest on this machine, for a minute at most, and remember it.

    Keys that models.yaml sets stay as they are. Other programs that use the machine, such as a server, disturb.
    """
    settings = load_or_exit(config, require_files=False).config
    [chosen] = choose_models(settings, [model])
    if reason := _why_not(chosen):
        fail(f"model {chosen.id!r} is of backend {chosen.backend!r} and kind {chosen.kind!r}; {reason}")
    store = WeightsStore(settings.server.weights_dir, cache_dir())
    try:
        spec = spec_factory(chosen, settings, store)("")
    except HearthError as exc:
        fail(exc.message)
    spec = msgspec.structs.replace(spec, tuning_dir=str(tuning_folder()))
    found = _measure(chosen, spec)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    elif isinstance(found, Tuning):
        _print_tuning(chosen, found)
    else:
        _print_kernels(chosen, found)
    if not settings.server.tune:
        typer.echo("server.tune is false: the server takes no notice of it", err=True)
    elif chosen.kernel != "auto":
        typer.echo(f"kernel is {chosen.kernel!r} in models.yaml: the server takes no notice of it", err=True)


def _why_not(model: ModelConfig) -> str:
    """Why there is nothing to choose; empty if there is."""
    if model.backend == "script":
        return "it computes nothing"
    if model.backend == "llama_cpp" and model.kind != "chat":
        return "llama.cpp has one way to run it"
    return ""


def _measure(model: ModelConfig, spec: WorkerSpec) -> Tuning | KernelFinding:
    """Measure in a process of its own: llama.cpp ends the one that it runs in when it meets what it cannot do."""
    with Console(stderr=True).status(f"measuring {model.id}"):
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "server.workers.tune_child"],
                input=msgspec.json.encode(spec) + b"\n",
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                env=child_environment(os.environ, num_threads=spec.num_threads, device=model.device),
            )
        except subprocess.TimeoutExpired:
            fail(f"measuring has not come to an end in {_TIMEOUT_S:g} s")
    if done.returncode != 0:
        fail(f"measuring failed: {_explain_exit(done.returncode, done.stderr.decode('utf-8', 'replace').splitlines())}")
    if model.kind == "chat":
        return msgspec.json.decode(done.stdout, type=Tuning)
    return msgspec.json.decode(done.stdout, type=KernelFinding)


def _explain_exit(code: int, stderr: list[str]) -> str:
    """Say why the process has no answer; a negative code is the signal that ended it."""
    if code == LOAD_FAILED_EXIT_CODE:
        return stderr[-1]
    ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{ending}: {last_words(stderr)}"


# ---- chat models


def _print_tuning(model: ModelConfig, tuning: Tuning) -> None:
    if not tuning.trials:
        fail(f"{model.id} is too slow here: not even one trial came to its end in {tuning.took_s:g} s")
    settings, figures = ("KV", "FLASH", "TYPE", "THREADS", "UBATCH"), ("PREFILL", "STEP", "SHARED", "SCORE")
    table = Table(*settings, *(Column(title, justify="right") for title in figures), "", box=None, pad_edge=False)
    for trial in tuning.trials:
        mark = "best" if trial.settings == tuning.best else "failed" if trial.failure else ""
        table.add_row(*trial.settings.describe().values(), *_figures(trial), mark)
    Console(highlight=False).print(table)
    for trial in tuning.trials:
        if trial.failure:
            typer.echo(f"failed: {_in_words(trial.settings)}: {trial.failure}")
    typer.echo(f"\n{_legend(tuning.trials[0])}")
    typer.echo(f"{model.id}: {_in_words(tuning.best)}; measured in {tuning.took_s:g} s, remembered for the next load")
    if not tuning.is_complete:
        typer.echo("not everything was tried: it would have taken too long")


def _legend(trial: Trial) -> str:
    return (
        f"PREFILL: tokens/s of a prompt of {trial.num_prompt_tokens} tokens\n"
        f"STEP: ms to give {trial.num_sequences} unrelated chats of that length a token each; SHARED: those with one"
        " prefix\n"
        "SCORE: answer tokens/s under the reference load made of the three"
    )


def _figures(trial: Trial) -> tuple[str, ...]:
    if trial.failure:
        return ("",) * 4
    return (
        f"{trial.prefill_tokens_per_s:.0f}",
        f"{trial.unrelated_step_ms:.1f}",
        f"{trial.shared_step_ms:.1f}",
        f"{trial.tokens_per_s:.0f}",
    )


def _in_words(settings: RuntimeSettings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.describe().items())


# ---- embedding and rerank models


def _print_kernels(model: ModelConfig, found: KernelFinding) -> None:
    right = (Column(title, justify="right") for title in ("INPUTS/S", "BATCH", "DIFFERENCE"))
    table = Table("KERNEL", *right, "FROM", "", box=None, pad_edge=False)
    for trial in found.trials:
        mark = "best" if trial.name == found.best else "failed" if trial.failure else ""
        table.add_row(trial.name, *_kernel_figures(trial), trial.against, mark)
    Console(highlight=False).print(table)
    for trial in found.trials:
        if trial.failure:
            typer.echo(f"failed: {trial.name}: {trial.failure}")
    typer.echo(
        "\nINPUTS/S: texts of 8 to 200 words, or pairs with them; BATCH: tokens computed at a time, where sizes were"
        f"\ncompared; DIFFERENCE, at worst: {'1 - cosine' if model.kind == 'embedding' else 'of scores from 0 to 1'}"
    )
    typer.echo(f"{model.id}: {found.best}; measured in {found.took_s:g} s, remembered for the next load")


def _kernel_figures(trial: KernelTrial) -> tuple[str, ...]:
    speed = f"{trial.inputs_per_s:.0f}" if trial.inputs_per_s else ""
    return speed, str(trial.batch_tokens or ""), f"{trial.difference:.1g}" if trial.against and speed else ""
