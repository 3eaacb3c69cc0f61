"""`hearth bench`: how much an OpenAI-compatible server carries, by asking it as more and more clients would."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from server.cli.bench_asked import look_at
from server.cli.bench_chart import NoChart, draw_chart
from server.cli.bench_prompts import read_prompts
from server.cli.bench_report import clients_in_words, make_report, print_report
from server.cli.client import ApiKeyOption, key_or_exit, server_url
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, fail, print_error
from server.errors import ConfigError
from server.loadgen.preparation import Plan, ServerRefuses, prepare
from server.loadgen.prompts import new_seed
from server.loadgen.sweep import Level, Progress, sweep
from server.loadgen.target import Target, parse_target
from server.types import ModelKind

_BATCHES: dict[ModelKind, int] = {"chat": 1, "embedding": 8, "rerank": 32}
_INPUT_TOKENS: dict[ModelKind, int] = {"chat": 256, "embedding": 128, "rerank": 128}
"""Random text has some tokens more or less than it was asked to have: encoders that read 256 must not refuse it."""

_MOST_CLIENTS = 4096


def bench(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="Base URL, as SDKs take it: http://HOST:PORT/v1 [default: host and port of models.yaml]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to ask [default: the first that the server lists]")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="chat, embedding or rerank [default: what the server says, or chat]")
    ] = None,
    clients: Annotated[
        str, typer.Option("--clients", help="Clients at a time, one level after the other.")
    ] = "1,2,4,8,16",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=3600, help="How long each level sends at least.")
    ] = 15,
    input_tokens: Annotated[
        int | None,
        typer.Option(
            "--input-tokens",
            min=1,
            help="Of each prompt [default: 256], text, or query with one document [default: 128]",
        ),
    ] = None,
    answer_tokens: Annotated[int, typer.Option("--answer-tokens", min=1, help="Of each answer of a chat.")] = 128,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Texts or documents per request [default: 8 texts, 32 documents]"),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Send these in turn instead of random text: a line each, or JSONL.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds after which a request has failed.")
    ] = 300,
    api_key: ApiKeyOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the figures to FILE.json, and a picture to FILE.png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Measure what a server carries: more and more clients, each with its next request when its last is answered.

    Works with any server that speaks OpenAI's API. Ctrl-C ends it, and prints what there is.
    """
    levels = _parse_clients(clients)
    target = _target(url if url is not None else server_url(config), key_or_exit(api_key) or "")
    server = look_at(target, model=model, kind=_parse_kind(kind))
    plan = Plan(
        kind=server.kind,
        model=server.model,
        input_tokens=input_tokens or _INPUT_TOKENS[server.kind],
        answer_tokens=answer_tokens,
        batch=batch or _BATCHES[server.kind],
        prompts=read_prompts(prompts, server.kind) if prompts else (),
        seed=new_seed(),
    )
    settings = {"clients": levels, "seconds": seconds, "timeout_s": timeout_s, "prompts": str(prompts or "random")}
    measured, notes, is_complete = _measure(target, plan, levels, seconds=seconds, timeout_s=timeout_s)
    report = make_report(target, server, plan, settings, measured, notes, is_complete=is_complete)
    if out:
        _write(report, out)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        print_report(report)
    raise typer.Exit(_exit_code(measured, is_complete=is_complete))


def _measure(
    target: Target, plan: Plan, clients: list[int], *, seconds: float, timeout_s: float
) -> tuple[list[Level], list[str], bool]:
    """What was measured until the end or Ctrl-C, what is to be said of it, and whether it is all."""
    levels: list[Level] = []
    notes: list[str] = []
    with Console(stderr=True).status("asking") as status:

        def report(progress: Progress) -> None:
            failed = f", {progress.num_errors} failed" if progress.num_errors else ""
            status.update(f"{clients_in_words(progress.num_clients)}: {progress.num_answers} answers{failed}")

        async def run() -> None:
            workload, found = await prepare(target, plan, timeout_s=timeout_s)
            notes.extend(found)
            await sweep(
                target,
                workload,
                clients=clients,
                seconds=seconds,
                timeout_s=timeout_s,
                record=levels.append,
                report=report,
            )

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except ServerRefuses as exc:
            fail(f"{plan.model!r} at {target.url} does not answer: {exc}")
        except KeyboardInterrupt:
            return levels, notes, False
    return levels, notes, True


def _exit_code(levels: list[Level], *, is_complete: bool) -> ExitCode:
    if not is_complete:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if any(level.num_errors == level.num_answers for level in levels) else ExitCode.DONE


def _write(report: dict[str, Any], path: Path) -> None:
    """Write what was measured; a picture that cannot be made, or a disk that is full, must not cost the table."""
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draw_chart(report, path.with_suffix(".png"))
    except NoChart as exc:
        print_error(str(exc))
    except OSError as exc:
        print_error(f"{exc.filename or path} cannot be written: {exc.strerror}")


# ---- what was typed


def _target(url: str, api_key: str) -> Target:
    try:
        return parse_target(url, api_key=api_key)
    except ConfigError as exc:
        fail(exc.message, code=ExitCode.WRONG_INPUT)


def _parse_clients(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= _MOST_CLIENTS for part in parts):
        message = f"--clients is {text!r}; expected numbers from 1 to {_MOST_CLIENTS} with commas, e.g. 1,2,4,8"
        fail(message, code=ExitCode.WRONG_INPUT)
    return [int(part) for part in parts]


def _parse_kind(text: str | None) -> ModelKind | None:
    for kind in _BATCHES:
        if text == kind:
            return kind
    if text is not None:
        fail(f"--kind is {text!r}; expected {', '.join(_BATCHES)}", code=ExitCode.WRONG_INPUT)
    return None
