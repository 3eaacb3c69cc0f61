"""Who is measured: Hearth, Infinity, plain sentence-transformers, the bare forward pass; all on the same weights."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from benchmarks.encoder_asks import Asks
from benchmarks.encoder_loads import Load
from benchmarks.figures import Outcome
from benchmarks.load import HOST
from benchmarks.peers.infinity import ENVIRONMENT, install_infinity
from benchmarks.prompts import Prompts
from benchmarks.servers import ROOT, RunningServer, ServerFailed, free_port, hearth, started
from server.loadgen.figures import Figures
from server.workers.channel import HEARTBEAT_INTERVAL_S

Entry = Mapping[str, object]
"""A model as it stands in models.yaml."""


@dataclass(frozen=True)
class Contender(ABC):
    """One server, started in one way."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def run(self, loads: Sequence[Load], seed: int) -> Iterator[tuple[Load, Outcome]]:
        """Start, run the loads one after the other, stop.

        Raises:
            ServerFailed: It does not start.
        """


class Server(Contender):
    @abstractmethod
    def start(self) -> AbstractContextManager[RunningServer]: ...

    def counts(self, _port: int) -> dict[str, int]:
        """What the server has computed so far; empty where it does not tell."""
        return {}

    def run(self, loads: Sequence[Load], seed: int) -> Iterator[tuple[Load, Outcome]]:
        with self.start() as server:
            before = self.counts(server.port)
            for load in loads:
                outcome = load.run(server.port, Prompts(seed))
                after = self.counts(server.port)
                figures = {**outcome.figures, **padding(before, after), "rss_mb": server.rss_bytes / 1e6}
                before = after
                yield load, replace(outcome, figures=figures, runtime={**server.runtime, **outcome.runtime})


def padding(before: Mapping[str, int], after: Mapping[str, int]) -> Figures:
    """Share of what was computed meanwhile that was padding."""
    done = {name: after[name] - before.get(name, 0) for name in after}
    if not done.get("num_tokens"):
        return {}
    num_padding = done["num_padding_tokens"]
    return {"padding_share": num_padding / (num_padding + done["num_tokens"]), "batches": float(done["num_batches"])}


@dataclass(frozen=True)
class Hearth(Server):
    """Hearth as it chooses to run.

    Attributes:
        entries: Its models; the first is the one that is looked at.
        label: What is different from its defaults.
    """

    entries: tuple[Entry, ...]
    label: str = ""

    @property
    def name(self) -> str:
        return f"hearth {self.label}".strip()

    def start(self) -> AbstractContextManager[RunningServer]:
        return hearth(*self.entries)

    def counts(self, port: int) -> dict[str, int]:
        time.sleep(HEARTBEAT_INTERVAL_S + 0.1)  # they are as of the last heartbeat
        model = httpx.get(f"http://{HOST}:{port}/v1/models/{self.entries[0]['id']}", timeout=30).json()
        counts: dict[str, int] = model["encoded"]
        return counts


@dataclass(frozen=True)
class Infinity(Server):
    """Infinity; it has no cache unless told to have one."""

    weights: Path
    model_id: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(["infinity_emb", *self.flags])

    def start(self) -> AbstractContextManager[RunningServer]:
        port = free_port()
        options = {
            "--model-id": self.weights,
            "--served-model-name": self.model_id,
            "--device": "cpu",
            "--url-prefix": "/v1",
            "--port": port,
            "--log-level": "warning",
        }
        words = [str(word) for option in options.items() for word in option]
        return started([str(install_infinity()), "v2", *words, *self.flags], port, environment=ENVIRONMENT)


@dataclass(frozen=True)
class Plain(Server):
    """`encode` or `predict` behind a route: `benchmarks/peers/plain_encode.py`."""

    weights: Path
    kind: str

    @property
    def name(self) -> str:
        return "sentence-transformers behind Starlette"

    def start(self) -> AbstractContextManager[RunningServer]:
        port = free_port()
        module = [sys.executable, "-m", "benchmarks.peers.plain_encode"]
        options = ["--kind", self.kind, "--weights", str(self.weights), "--port", str(port)]
        return started([*module, *options], port)


@dataclass(frozen=True)
class Bare(Contender):
    """No server: `benchmarks/encoder_bare.py` over the inputs of some requests; its figures are those of all loads.

    Attributes:
        asks, num_requests: What it computes, and how much of it.
    """

    entry: Entry
    asks: Asks
    num_requests: int

    @property
    def name(self) -> str:
        return "bare forward pass"

    def run(self, loads: Sequence[Load], seed: int) -> Iterator[tuple[Load, Outcome]]:
        asks = itertools.islice(self.asks(Prompts(seed)), self.num_requests)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.encoder_bare", "--model", json.dumps(self.entry)],
            input=json.dumps([ask.body for ask in asks]),
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            raise ServerFailed(f"the bare forward pass ended with {done.returncode}: {done.stderr[-1000:]}")
        answer = json.loads(done.stdout)
        for load in loads:
            yield load, Outcome(answer["figures"], runtime=answer["runtime"])
