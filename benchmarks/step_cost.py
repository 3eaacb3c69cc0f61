"""What one engine step costs, and where its time goes.

    python -m benchmarks.step_cost                # about a minute on two cores

- Overhead: scheduling, sampling and text of 64 sequences, with a stub in the model's place whose logits fall off as
  SmolLM2's do over its 49,152 tokens; greedy, and with top_k 40, top_p 0.95, temperature 0.8.
- Profile: the real model at 16 and 64 sequences, part by part.

Text is made on a thread of its own while the next step computes; it is counted here all the same. Writes the sections
`step_cost` and `step_profile` of benchmarks/results/chat.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.chat_contenders import THREADS, WEIGHTS
from benchmarks.prompts import Prompts
from benchmarks.results import CHAT, Section, environment, save_section
from benchmarks.stopwatch import Stopwatch
from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import LlamaContext
from server.bindings.llama_model import LlamaModel
from server.engine.backend import Backend, CellStates, Logits
from server.engine.batch import Batch
from server.engine.detokenizer import Detokenizer
from server.engine.engine import Engine
from server.engine.kv_cache import KVCache
from server.engine.llama_backend import LlamaBackend
from server.engine.output_processor import OutputProcessor
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.types import SamplingParams, TokenIds

VOCAB_SIZE = 49152
END_ID = 2
GREEDY = SamplingParams(temperature=0)
TRUNCATED = SamplingParams(temperature=0.8, top_k=40, top_p=0.95)
NUM_PROMPT_TOKENS = 128
NUM_WARM_UP_STEPS = 10

RANKS = (1, 2, 5, 17, 41, 65, 129, 513, 2049, 8193, 30001, VOCAB_SIZE)
FALL = (0, 0.8, 2.2, 4.0, 5.2, 5.9, 6.8, 8.6, 11.1, 13.9, 18.4, 25.0)
"""How far below the best the logits of these ranks lie: medians over SmolLM2-135M's at 50 places of an English text."""

PARTS = ("schedule", "fill batch", "llama_decode", "sample", "commit", "text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="with the stub; a tenth of it with the model")
    parser.add_argument("--out", type=Path, default=CHAT)
    arguments = parser.parse_args()
    about = {"environment": environment()}
    overhead = {
        name: measure_overhead(sampling, num_sequences=64, num_steps=arguments.steps)
        for name, sampling in (("greedy", GREEDY), ("truncated", TRUNCATED))
    }
    save_section({**about, **overhead}, "step_cost", path=arguments.out)
    profile = {str(width): profile_model(num_sequences=width, num_steps=arguments.steps // 10) for width in (16, 64)}
    save_section({**about, **profile}, "step_profile", path=arguments.out)


def measure_overhead(sampling: SamplingParams, *, num_sequences: int, num_steps: int) -> Section:
    """Times of whole steps; then where they go, in a run of its own, as watching the parts costs time too."""
    rig = stub_rig(sampling, num_sequences=num_sequences)
    step_ms = [1000 * seconds for seconds in run_steps(rig, num_steps)]
    watched = stub_rig(sampling, num_sequences=num_sequences)
    section = {
        "num_sequences": num_sequences,
        "step_ms": {f"p{percent}": round(float(np.percentile(step_ms, percent)), 3) for percent in (5, 50, 95)},
        "parts_ms": run_watched(watched, num_steps),
    }
    print(f"stub, {num_sequences} sequences, temperature {sampling.temperature:g}: {section}", flush=True)
    return section


def profile_model(*, num_sequences: int, num_steps: int) -> Section:
    """Decode steps of the real model, part by part."""
    options = ContextOptions(
        num_cells=512 * num_sequences, max_sequences=num_sequences, num_threads=THREADS, streams=True
    )
    with LlamaModel(WEIGHTS) as model, LlamaContext(model, options) as context:
        prompts = Prompts(seed=num_sequences)
        rig = build_rig(LlamaBackend(context), model.vocab.is_end, model.vocab.pieces, num_sequences=num_sequences)
        for index in range(num_sequences):
            token_ids = model.vocab.tokenize(prompts.words(2 * NUM_PROMPT_TOKENS), parse_special=False)
            rig.add(str(index), token_ids[:NUM_PROMPT_TOKENS], TRUNCATED)
        section = {"num_sequences": num_sequences, "parts_ms": run_watched(rig, num_steps)}
    print(f"model, {section}", flush=True)
    return section


# ---- the engine with all that belongs to it


@dataclass(frozen=True)
class Rig:
    """An engine and what makes text of its tokens, without processes."""

    engine: Engine
    scheduler: Scheduler
    backend: Backend
    processor: OutputProcessor
    pieces: list[bytes]

    def add(self, request_id: str, prompt: TokenIds, sampling: SamplingParams) -> None:
        sequence = Sequence(request_id, prompt, sampling, max_tokens=100_000)
        self.processor.open(sequence, Detokenizer(self.pieces, sampling.stop))
        self.engine.add(sequence)

    @property
    def all_decode(self) -> bool:
        """Whether every sequence has been added to the batch, and its prompt is computed."""
        running = self.scheduler.running
        return bool(running) and not self.engine.num_waiting and all(sequence.is_decoding for sequence in running)

    def step(self) -> None:
        self.processor.process(self.engine.step())


def build_rig(
    backend: Backend, is_end_table: np.typing.NDArray[np.bool_], pieces: list[bytes], *, num_sequences: int
) -> Rig:
    """Join them as `workers/chat_worker.py` does."""

    def is_end(token_id: int) -> bool:
        return bool(is_end_table[token_id])

    cost = StepCost()
    options = SchedulerOptions(max_step_tokens=backend.max_batch_tokens, max_running=num_sequences)
    scheduler = Scheduler(KVCache(backend), options, cost)
    engine = Engine(backend, scheduler, Sampler(is_end_table), cost, is_end=is_end)
    return Rig(engine, scheduler, backend, OutputProcessor(engine.abort, is_end=is_end), pieces)


def run_steps(rig: Rig, num_steps: int) -> list[float]:
    """Seconds of each step in which everybody decodes."""
    while not rig.all_decode:
        rig.step()
    for _ in range(NUM_WARM_UP_STEPS):
        rig.step()
    return [_timed(rig.step) for _ in range(num_steps)]


def run_watched(rig: Rig, num_steps: int) -> dict[str, float]:
    """Mean milliseconds of each part of a decode step."""
    run_steps(rig, 0)
    watch = Stopwatch()
    watch.watch("commit", rig.engine, "step")  # what remains of a step: appending tokens, endings, book-keeping
    watch.watch("schedule", rig.scheduler, "schedule")
    watch.watch("fill batch", rig.engine, "_decode")
    watch.watch("llama_decode", rig.backend, "decode")
    watch.watch("sample", rig.engine, "_sample")
    watch.watch("text", rig.processor, "process")
    for _ in range(num_steps):
        rig.step()
    return {part: round(1000 * watch.self_s[part] / num_steps, 3) for part in PARTS}


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


# ---- the stub


class StubBackend:
    """Answers at once with logits made beforehand; they are copied nowhere, as llama.cpp's are not."""

    def __init__(self, *, num_sequences: int, num_tables: int = 4) -> None:
        self.num_cells = 2048
        self.max_sequences = num_sequences
        self.has_streams = True
        self.can_share = True
        self.can_save = False
        self.max_batch_tokens = 2048
        self.vocab_size = VOCAB_SIZE
        random = np.random.default_rng(0)
        self._tables = [make_logits(num_sequences, random) for _ in range(num_tables)]
        self._num_batches = 0

    def decode(self, batch: Batch) -> Logits:
        self._num_batches += 1
        return self._tables[self._num_batches % len(self._tables)][: batch.num_outputs]

    def free(self, seq_id: int) -> None:
        pass

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        pass

    def trim(self, seq_id: int, num_tokens: int) -> None:
        pass

    def save(self, seq_id: int) -> CellStates:
        return b""

    def restore(self, seq_id: int, states: CellStates) -> bool:
        return False


def make_logits(num_rows: int, random: np.random.Generator) -> Logits:
    """Rows that fall off as a language model's do, some flatter, some steeper; nothing ever ends."""
    fall = np.interp(np.log(np.arange(1, VOCAB_SIZE + 1)), np.log(RANKS), FALL)
    steepness = random.uniform(0.6, 1.6, num_rows)
    logits = np.stack([20 - random.permutation(fall) * factor for factor in steepness]).astype(np.float32)
    logits[:, END_ID] = -10
    return logits


def stub_rig(sampling: SamplingParams, *, num_sequences: int) -> Rig:
    random = np.random.default_rng(1)
    is_end = np.arange(VOCAB_SIZE) == END_ID
    pieces = [f" word{token_id}".encode() for token_id in range(VOCAB_SIZE)]
    rig = build_rig(StubBackend(num_sequences=num_sequences), is_end, pieces, num_sequences=num_sequences)
    for index in range(num_sequences):
        rig.add(str(index), random.integers(3, VOCAB_SIZE, NUM_PROMPT_TOKENS).tolist(), sampling)
    return rig


if __name__ == "__main__":
    main()
