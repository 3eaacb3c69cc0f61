"""Who is measured: Hearth, llama-server with some flags, the bare limit; each run afresh, on the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from benchmarks.chat_loads import MODEL_ID, ClosedLoop, Load, NotTakingPart
from benchmarks.figures import Outcome
from benchmarks.load import closed_loop, run_traffic
from benchmarks.peers.llama_server import build_llama_server
from benchmarks.prompts import Prompts
from benchmarks.servers import ROOT, RunningServer, ServerFailed, hearth, llama_server

WEIGHTS = ROOT / "weights" / MODEL_ID / "SmolLM2-135M-Instruct.Q4_1.gguf"
THREADS = 2


@dataclass(frozen=True)
class Contender(ABC):
    """One server, started in one way."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def measure(self, load: Load, prompts: Prompts, num_requests: int) -> Outcome:
        """Run a load once, from start to stop.

        Raises:
            NotTakingPart: It cannot carry the load.
        """


class Server(Contender):
    @abstractmethod
    def start(self, load: Load) -> AbstractContextManager[RunningServer]: ...

    def measure(self, load: Load, prompts: Prompts, num_requests: int) -> Outcome:
        try:
            with self.start(load) as server:
                warm_up = load.warm_up()
                run_traffic(closed_loop(server.port, warm_up, num_clients=len(warm_up)))
                rss_before_mb = server.rss_bytes / 1e6
                outcome = load.run(server.port, prompts, num_requests)
                rss = {"rss_before_mb": rss_before_mb, "rss_after_mb": server.rss_bytes / 1e6}
                return replace(outcome, figures={**outcome.figures, **rss}, runtime=dict(server.runtime))
        except ServerFailed as exc:
            raise NotTakingPart(str(exc)) from exc


@dataclass(frozen=True)
class Hearth(Server):
    """Hearth as it chooses to run; `settings` are further keys of its entry in models.yaml."""

    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join(["hearth", *(f"{key}={value}" for key, value in self.settings.items())])

    def start(self, load: Load) -> AbstractContextManager[RunningServer]:
        return hearth({**chat_entry(load), **self.settings})


def chat_entry(load: Load) -> dict[str, object]:
    """The chat model as it stands in models.yaml for a load."""
    return {
        "id": MODEL_ID,
        "kind": "chat",
        "backend": "llama_cpp",
        "source": f"file:{WEIGHTS}",
        "context": load.context,
        "kv_cells": load.num_cells,
        "max_sequences": load.num_slots,
        "threads": THREADS,
    }


@dataclass(frozen=True)
class LlamaServer(Server):
    """llama.cpp's own server. It gets the cells that Hearth gets."""

    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(["llama-server", *self.flags])

    def start(self, load: Load) -> AbstractContextManager[RunningServer]:
        return llama_server(build_llama_server(), WEIGHTS, ["-c", str(load.num_cells), *self.flags], threads=THREADS)


@dataclass(frozen=True)
class Bare(Contender):
    """No server at all: `benchmarks/bare_limit.py` with these arguments. Closed loops only."""

    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(["llama_decode", *self.arguments])

    def measure(self, load: Load, prompts: Prompts, num_requests: int) -> Outcome:
        assert isinstance(load, ClosedLoop)
        sizes = {"--threads": THREADS, "--cells": load.num_cells, "--width": load.num_clients}
        options = [word for name, value in sizes.items() for word in (name, str(value))]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.bare_limit", "--weights", WEIGHTS, *options, *self.arguments],
            input=json.dumps(load.bodies(prompts, num_requests)),
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            raise NotTakingPart(done.stderr[-1000:])
        return Outcome({"completion_rate": 1.0, **json.loads(done.stdout)})


def llama_server_candidates(load: Load) -> list[LlamaServer]:
    """The flags that llama-server might be best with."""
    slots = {4, 16, load.num_slots}
    return [
        LlamaServer((layout, "-fa", flash, "-np", str(num_slots)))
        for layout in ("--kv-unified", "--no-kv-unified")
        for flash in ("on", "off")
        for num_slots in sorted(slots)
    ]


def bare_candidates() -> list[Bare]:
    return [Bare((*layout, *flash)) for layout in ((), ("--streams",)) for flash in ((), ("--flash-attention",))]
