"""Chat: Hearth against llama-server on the same llama.cpp, in one run, alternating, on the machine at hand.

    python -m benchmarks.chat                     # everything: about 20 minutes on two cores
    python -m benchmarks.chat --loads a b --repetitions 1 --no-tuning

Loads: (a) unique prompts at 1, 4, 16 and 64 clients; (b) a shared 600-word prefix with 32-word questions, 16 clients;
(c) a 6,000-token prompt that arrives while 8 streams run; (d) more text than the KV cache holds, 16 clients;
(e) answers that quote their context, 1 client. Writes benchmarks/results/chat.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.load import Answer, Body, closed_loop, stream_chat
from benchmarks.machine import describe_machine, describe_versions, now, spread
from benchmarks.peers.llama_server import build_llama_server
from benchmarks.prompts import Prompts
from benchmarks.servers import HOST, ROOT, RunningServer, hearth, llama_server
from server.bindings.build_info import load_build_info

MODEL_ID = "smollm2-135m-instruct"
WEIGHTS = ROOT / "weights" / MODEL_ID / "SmolLM2-135M-Instruct.Q4_1.gguf"
THREADS = 2
SAMPLING: Body = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "ignore_eos": True}

PEER_FLAGS = [
    [*kvu, "-fa", fa, "-np", slots]
    for kvu in (["--kv-unified"], ["--no-kv-unified"])
    for fa in ("on", "off")
    for slots in ("4", "16")
]


@dataclass(frozen=True)
class Load:
    """One kind of traffic.

    Attributes:
        num_cells: KV cells that each server gets.
        run: Sends the traffic to a server; gets prompts that nobody has seen before.
    """

    name: str
    num_cells: int
    run: Callable[[RunningServer, Prompts], dict[str, float]]


def unique_prompts(server: RunningServer, prompts: Prompts, *, num_clients: int) -> dict[str, float]:
    num_requests = {1: 4, 4: 12, 16: 32, 64: 96}[num_clients]
    bodies = [chat_body(prompts.words(90), max_tokens=64) for _ in range(num_requests)]
    return run_closed(server, bodies, num_clients=num_clients)


def shared_prefix(server: RunningServer, prompts: Prompts) -> dict[str, float]:
    prefix = prompts.words(600)
    bodies = [chat_body(f"{prefix}\n\n{prompts.words(32)}?", max_tokens=32) for _ in range(48)]
    return run_closed(server, bodies, num_clients=16)


def overfull_cache(server: RunningServer, prompts: Prompts) -> dict[str, float]:
    bodies = [chat_body(prompts.words(250), max_tokens=200) for _ in range(32)]
    return run_closed(server, bodies, num_clients=16)


def quoting_answers(server: RunningServer, prompts: Prompts) -> dict[str, float]:
    """A small model repeats itself at temperature 0, much as an answer repeats its sources."""
    bodies = [
        chat_body(f"Repeat this text word by word:\n\n{prompts.words(60)}", max_tokens=128) | {"temperature": 0}
        for _ in range(4)
    ]
    return run_closed(server, bodies, num_clients=1)


def long_prompt_among_streams(server: RunningServer, prompts: Prompts) -> dict[str, float]:
    async def run() -> dict[str, float]:
        ask = partial(stream_chat, HOST, server.port)
        streams = [asyncio.create_task(ask(chat_body(prompts.words(40), max_tokens=400))) for _ in range(8)]
        await asyncio.sleep(4.0)
        long = await ask(chat_body(prompts.words(4700), max_tokens=8))
        answers = await asyncio.gather(*streams)
        during = [
            gap
            for answer in answers
            for end, gap in zip(answer.chunk_s[1:], answer.gaps_s, strict=True)
            if long.sent_s <= end <= long.done_s + 1
        ]
        failed = [answer.error for answer in (*answers, long) if answer.error]
        if failed:
            return {"completion_rate": 1 - len(failed) / 9}
        return {
            "worst_gap_s": max(during),
            "long_ttft_s": long.ttft_s,
            "long_prompt_tokens": long.num_prompt_tokens,
            "completion_rate": 1.0,
        }

    return asyncio.run(run())


LOADS = [
    *(Load(f"a{n}", 32768, partial(unique_prompts, num_clients=n)) for n in (1, 4, 16, 64)),
    Load("b", 32768, shared_prefix),
    Load("c", 131072, long_prompt_among_streams),
    Load("d", 4096, overfull_cache),
    Load("e", 32768, quoting_answers),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", nargs="*", default=["a", "b", "c", "d", "e"], help="names or their first letters")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--no-tuning", action="store_true", help="one plausible set of llama-server flags only")
    parser.add_argument("--only-hearth", action="store_true")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="model settings for Hearth, e.g. kv=unified"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "chat.json")
    arguments = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in arguments.set)
    results = []
    for load in LOADS:
        if any(load.name == wanted or load.name[0] == wanted for wanted in arguments.loads):
            contenders = [] if arguments.only_hearth else peers(load, arguments.no_tuning)
            results.append(measure(load, contenders, arguments.repetitions, settings))
            print_result(results[-1])
    report = {
        "date": now(),
        "machine": describe_machine(),
        "versions": {**describe_versions(), "compiler": load_build_info().compiler_version},
        "model": WEIGHTS.name,
        "threads": THREADS,
        "repetitions": arguments.repetitions,
        "loads": results,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {arguments.out}")


def measure(
    load: Load, contenders: Sequence[Sequence[str]], repetitions: int, settings: dict[str, str]
) -> dict[str, object]:
    """Run Hearth and each contender alternately; the prompts of a repetition are the same for all."""
    seed = time.time_ns() % 2**32
    runs: dict[str, list[dict[str, float]]] = {}
    for repetition in range(repetitions):
        for start in (
            partial(start_hearth, load, settings),
            *(partial(start_peer, load, flags) for flags in contenders),
        ):
            with start() as server:
                run_closed(server, [chat_body("Say hello.", max_tokens=8)] * 2, num_clients=2)  # warm up
                figures = load.run(server, Prompts(seed + repetition))
                figures["rss_mb"] = server.rss_bytes / 1e6
            runs.setdefault(server.name, []).append(figures)
    return {"load": load.name, "servers": {name: summarise(figures) for name, figures in runs.items()}}


def start_hearth(load: Load, settings: dict[str, str]) -> contextlib.AbstractContextManager[RunningServer]:
    model: dict[str, object] = {
        "id": MODEL_ID,
        "kind": "chat",
        "backend": "llama_cpp",
        "source": f"file:{WEIGHTS}",
        "context": min(8192, load.num_cells // (64 if load.name == "a64" else 16))
        if load.name != "d"
        else load.num_cells,
        "kv_cells": load.num_cells,
        "max_sequences": 64 if load.name == "a64" else 16,
        "threads": THREADS,
        **settings,
    }
    return hearth(model, name=" ".join(["hearth", *(f"{key}={value}" for key, value in settings.items())]))


def start_peer(load: Load, flags: Sequence[str]) -> contextlib.AbstractContextManager[RunningServer]:
    return llama_server(build_llama_server(), WEIGHTS, ["-c", str(load.num_cells), *flags], threads=THREADS)


def peers(load: Load, is_quick: bool) -> list[list[str]]:
    if is_quick:
        return [["--no-kv-unified", "-fa", "off", "-np", "16"]]
    return [[], *PEER_FLAGS]


def chat_body(text: str, *, max_tokens: int) -> Body:
    return {"model": MODEL_ID, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **SAMPLING}


def run_closed(server: RunningServer, bodies: Sequence[Body], *, num_clients: int) -> dict[str, float]:
    started = time.perf_counter()
    answers = asyncio.run(closed_loop(partial(stream_chat, HOST, server.port), bodies, num_clients=num_clients))
    return figures_of(answers, time.perf_counter() - started)


def figures_of(answers: Sequence[Answer], wall_s: float) -> dict[str, float]:
    good = [answer for answer in answers if not answer.error]
    figures = {"completion_rate": len(good) / len(answers)}
    if good:
        ttfts = sorted(answer.ttft_s for answer in good)
        gaps = sorted(gap for answer in good for gap in answer.gaps_s)
        figures |= {
            "tokens_per_s": sum(answer.num_tokens for answer in good) / wall_s,
            "requests_per_s": len(good) / wall_s,
            "ttft_p50_s": percentile(ttfts, 50),
            "ttft_p95_s": percentile(ttfts, 95),
            "gap_p50_s": percentile(gaps, 50),
            "gap_p99_s": percentile(gaps, 99),
            "gap_max_s": gaps[-1],
        }
    return figures


def percentile(ordered: Sequence[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def summarise(runs: Sequence[dict[str, float]]) -> dict[str, dict[str, object]]:
    """Each figure over the repetitions."""
    names = sorted({name for run in runs for name in run})
    return {name: spread([run[name] for run in runs if name in run], digits=4) for name in names}


def print_result(result: dict[str, object]) -> None:
    servers = result["servers"]
    assert isinstance(servers, dict)
    for name, figures in servers.items():
        cells = "  ".join(f"{key} {value['median']:.3g}" for key, value in figures.items())
        print(f"{result['load']:<4} {name:<60} {cells}", flush=True)


if __name__ == "__main__":
    main()
