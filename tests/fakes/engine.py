"""An engine on the fake backend, with its text side; and what it should say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from server.engine.detokenizer import Detokenizer
from server.engine.engine import Engine, TokenOutput
from server.engine.kv_cache import KVCache
from server.engine.output_processor import Output, OutputProcessor
from server.engine.parked_prefixes import ParkedPrefixes
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.types import Delta, Failed, Finished, SamplingParams
from tests.fakes.backend import FakeBackend, generate_alone

GREEDY = SamplingParams(temperature=0)
NO_END = SamplingParams(temperature=0, ignore_eos=True)
PIECES = [f"<{token_id}>".encode() for token_id in range(50)]


class EngineUnderTest:
    """An engine with its text side, on a clock that strikes once a step."""

    def __init__(
        self,
        backend: FakeBackend,
        *,
        is_text_late: bool = False,
        parked: ParkedPrefixes | None = None,
        **options: float,
    ) -> None:
        is_end = np.zeros(backend.vocab_size, np.bool_)
        is_end[0] = True
        defaults = {
            "max_step_tokens": backend.max_batch_tokens,
            "max_step_s": 1e9,
            "max_running": min(backend.max_sequences, backend.max_batch_tokens),
            "min_tokens_to_wait_for": 3,
        }
        cost = StepCost()
        ticks = itertools.count()
        kv_cache = KVCache(backend, parked=parked)
        scheduler = Scheduler(kv_cache, SchedulerOptions(**{**defaults, **options}), cost)  # type: ignore[arg-type]
        self.begun: list[str] = []
        self.engine = Engine(
            backend,
            scheduler,
            Sampler(is_end),
            cost,
            is_end=lambda token_id: token_id == 0,
            on_begin=self.begun.extend,
            clock=lambda: next(ticks),
        )
        self._late: list[TokenOutput] | None = [] if is_text_late else None
        self._texts = OutputProcessor(self.engine.abort, is_end=lambda token_id: token_id == 0, names=PIECES)

    def add(
        self, request_id: str, prompt: list[int], *, max_tokens: int = 8, sampling: SamplingParams = GREEDY, **more: Any
    ) -> None:
        sequence = Sequence(request_id, prompt, sampling, max_tokens=max_tokens, **more)
        self._texts.open(sequence, Detokenizer(PIECES, sampling.stop))
        self.engine.add(sequence)

    def step(self) -> list[Output]:
        """A step; its text at once or, as in a worker at its latest, only after the next one."""
        outputs = self.engine.step()
        if self._late is not None:
            outputs, self._late = self._late, outputs
        return self._texts.process(outputs)

    def fail_all(self, reason: str) -> list[Output]:
        return self._texts.process(self.engine.fail_all(reason))

    def run_until_idle(self, *, max_steps: int = 2000) -> list[Output]:
        outputs: list[Output] = []
        for _ in range(max_steps):
            outputs += self.step()
            if self.engine.num_running + self.engine.num_waiting == 0:
                outputs += self.step() + self.step()  # the late text, and what it has to say to the engine
                self.engine.check_integrity()
                return outputs
        raise AssertionError(f"still busy after {max_steps} steps")


def text_of(outputs: list[Output], request_id: str) -> str:
    return "".join(event.text for owner, event in outputs if owner == request_id and isinstance(event, Delta))


def endings_of(outputs: list[Output], request_id: str) -> list[Finished | Failed]:
    return [event for owner, event in outputs if owner == request_id and isinstance(event, Finished | Failed)]


def expected_text(prompt: list[int], *, max_tokens: int, stop: int | None = None) -> str:
    tokens = generate_alone(prompt, max_tokens=max_tokens, vocab_size=50)
    if stop in tokens:
        tokens = tokens[: tokens.index(stop)]
    return "".join(f"<{token_id}>" for token_id in tokens if token_id)
