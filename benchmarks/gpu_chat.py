"""Chat on a GPU: Hearth and llama-server on files of random weights, each started once and sent all loads in turn."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.chat_loads import MODEL_ID, ClosedLoop, chat_body
from benchmarks.figures import Outcome, summarise
from benchmarks.gpu_limits import IdleSampler
from benchmarks.load import closed_loop, run_traffic
from benchmarks.model_shapes import ModelShape, Quantisation
from benchmarks.peers.llama_server import build_llama_server
from benchmarks.prompts import Prompts
from benchmarks.results import Section
from benchmarks.servers import RunningServer, ServerFailed, hearth, llama_server
from server.loadgen.answer import Body
from server.loadgen.prompts import new_seed

IDLE_LOAD = "u32"
"""Under which it is looked at how long the GPU waits between steps."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the loads are.

    Attributes:
        requests: Of a load, for each of its clients.
    """

    clients: tuple[int, ...] = (1, 8, 32, 64)
    prompt_words: int = 120
    prefix_words: int = 2000
    answer_tokens: int = 64
    requests: int = 2
    context: int = 2560

    @property
    def num_slots(self) -> int:
        return max(self.clients)

    @property
    def num_cells(self) -> int:
        return self.num_slots * self.context


REHEARSAL = Scale(clients=(1, 4), prompt_words=20, prefix_words=200, answer_tokens=8, context=512)


def gpu_loads(scale: Scale) -> list[ClosedLoop]:
    """Unique prompts of several numbers of clients, then a prefix that the most of them share."""

    def unique(prompts: Prompts, count: int) -> list[Body]:
        return [chat_body(prompts.words(scale.prompt_words), max_tokens=scale.answer_tokens) for _ in range(count)]

    def shared(prompts: Prompts, count: int) -> list[Body]:
        prefix = prompts.words(scale.prefix_words)
        texts = [f"{prefix} {prompts.words(32)}" for _ in range(count)]
        return [chat_body(text, max_tokens=scale.answer_tokens // 2) for text in texts]

    sizes: dict[str, Any] = {"num_slots": scale.num_slots, "context": scale.context, "num_cells": scale.num_cells}
    loads = [
        ClosedLoop(
            name=f"u{count}", title=f"unique prompts, {count} client{'s' * (count > 1)}", figure="tokens_per_s",
            num_clients=count, bodies=unique, num_requests=scale.requests * count, **sizes,
        )
        for count in scale.clients
    ]  # fmt: skip
    most = scale.num_slots
    title = f"a shared prefix of {scale.prefix_words} words, {most} clients"
    return [
        *loads,
        ClosedLoop(
            name=f"s{most}", title=title, figure="requests_per_s",
            num_clients=most, bodies=shared, num_requests=scale.requests * most, **sizes,
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class GpuModel:
    """A file of random weights."""

    shape: ModelShape
    quantisation: Quantisation
    path: Path


@dataclass(frozen=True)
class Contender(ABC):
    """A server, started in one way."""

    model: GpuModel
    scale: Scale

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def start(self) -> AbstractContextManager[RunningServer]: ...

    def run(self, loads: Sequence[ClosedLoop], seed: int, repetitions: int) -> Iterator[tuple[str, Outcome]]:
        """Start, run all loads so often, stop.

        Raises:
            ServerFailed: It does not start.
        """
        with self.start() as server:
            warm_up = [chat_body(f"hello {number}", max_tokens=4) for number in range(self.scale.num_slots)]
            run_traffic(closed_loop(server.port, warm_up, num_clients=len(warm_up)))
            for repetition in range(repetitions):
                for load in loads:
                    with IdleSampler() as sampler:
                        outcome = load.run(server.port, Prompts(seed + repetition), load.num_requests)
                    figures = dict(outcome.figures)
                    if load.name == IDLE_LOAD and sampler.idle_share is not None:
                        figures["gpu_idle_share"] = sampler.idle_share
                    yield load.name, replace(outcome, figures=figures, runtime=dict(server.runtime))


@dataclass(frozen=True)
class Hearth(Contender):
    @property
    def name(self) -> str:
        return "hearth"

    def start(self) -> AbstractContextManager[RunningServer]:
        return hearth(
            {
                "id": MODEL_ID,
                "kind": "chat",
                "backend": "llama_cpp",
                "source": f"file:{self.model.path}",
                "context": self.scale.context,
                "kv_cells": self.scale.num_cells,
                "max_sequences": self.scale.num_slots,
            }
        )


@dataclass(frozen=True)
class LlamaServer(Contender):
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(["llama-server", *self.flags])

    def start(self) -> AbstractContextManager[RunningServer]:
        sizes = ["-c", str(self.scale.num_cells), "-np", str(self.scale.num_slots), "-ngl", "all"]
        return llama_server(
            build_llama_server(), self.model.path, [*sizes, *self.flags], threads=len(os.sched_getaffinity(0))
        )


def llama_server_candidates(model: GpuModel, scale: Scale) -> list[LlamaServer]:
    """The flags that it might be best with on a GPU; flash attention is on there by itself."""
    return [
        LlamaServer(model, scale, (layout, *sampling))
        for layout in ("--kv-unified", "--no-kv-unified")
        for sampling in ((), ("--backend-sampling",))
    ]


def measure_model(model: GpuModel, scale: Scale, *, repetitions: int, ends_at: float) -> Section:
    """Run all contenders; llama-server is, in each load, whichever of its flags did best there.

    Args:
        ends_at: On the monotonic clock: flags that are not begun by then are left out, and said to be.

    Returns:
        By load, in the form that `bars.judge` reads.
    """
    loads, seed = gpu_loads(scale), new_seed()
    ours = _outcomes(Hearth(model, scale), loads, seed, repetitions)
    theirs: dict[str, dict[str, list[Outcome]]] = {}
    left_out = []
    for candidate in llama_server_candidates(model, scale):
        if time.monotonic() > ends_at:
            left_out.append(candidate.name)
        else:
            theirs[candidate.name] = _outcomes(candidate, loads, seed, repetitions)
    return {
        load.name: {
            "title": load.title,
            "servers": {
                "hearth": {"name": "hearth", **summarise(ours.get(load.name, []))},
                "best": _best(load, {name: runs.get(load.name, []) for name, runs in theirs.items()}),
            },
            "left_out": left_out,
        }
        for load in loads
    }


def _outcomes(
    contender: Contender, loads: Sequence[ClosedLoop], seed: int, repetitions: int
) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    try:
        for name, outcome in contender.run(loads, seed, repetitions):
            found.setdefault(name, []).append(outcome)
            shown = ("tokens_per_s", "requests_per_s", "ttft_p95_s", "completion_rate")
            figures = "  ".join(f"{each} {outcome.figures[each]:.4g}" for each in shown if each in outcome.figures)
            print(f"{contender.model.shape.name:<14} {name:<5} {contender.name:<48} {figures}", flush=True)
    except ServerFailed as exc:
        print(f"{contender.model.shape.name:<14} {contender.name:<54} does not take part: {exc}", flush=True)
    return found


def _best(load: ClosedLoop, by_name: dict[str, list[Outcome]]) -> Section:
    """Whoever answers all comes first, then whoever has the best median."""
    summaries = {name: summarise(outcomes) for name, outcomes in by_name.items() if outcomes}

    def rank(name: str) -> tuple[float, float]:
        figures = summaries[name]["figures"]
        return figures["completion_rate"]["median"], figures.get(load.figure, {"median": 0.0})["median"]

    if not summaries:
        return {"name": "llama-server", "figures": {}, "errors": [], "runtime": {}}
    name = max(summaries, key=rank)
    return {"name": name, **summaries[name]}
