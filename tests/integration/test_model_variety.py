"""The engine on models with other memories than plain attention: tiny ones of random weights, in this process.

Their answers are compared with those of a plain loop over a context of its own. Kernels compute a token a little
differently in another batch (by up to 0.02 here, where logits spread by 4, in models with attention: an f16 cell rounds
the other way), so where an answer departs from the plain loop's, the two words must have been as good as tied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import LlamaContext
from server.bindings.llama_model import LlamaModel
from server.engine.batch import Batch
from server.engine.engine import Engine
from server.engine.kv_cache import KVCache
from server.engine.llama_backend import LlamaBackend
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.errors import LoadFailed
from server.types import SamplingParams, TokenIds
from tests.fakes.tiny_models import NUM_TOKENS, write_hybrid, write_recurrent, write_windowed

pytestmark = pytest.mark.integration

WRITERS = {"recurrent": write_recurrent, "hybrid": write_hybrid, "windowed": write_windowed}
GREEDY = SamplingParams(temperature=0, ignore_eos=True)
TIE = 0.1


@pytest.fixture(scope="module", params=WRITERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    yield from open_model(request.param, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    yield from open_model("windowed", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["unified", "streams"])
def streams(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "streams")


def open_model(kind: str, folder: Path) -> Iterator[LlamaModel]:
    path = folder / f"{kind}.gguf"
    WRITERS[kind](path)
    with LlamaModel(path) as loaded:
        yield loaded


def tokens(length: int, *, seed: int) -> TokenIds:
    """Random ones, control tokens left out."""
    found: TokenIds = np.random.default_rng(seed).integers(3, NUM_TOKENS, length).tolist()
    return found


PREFIX = tokens(150, seed=0)
PROMPTS = [
    [*PREFIX, *tokens(20, seed=1)],
    [*PREFIX, *tokens(45, seed=2)],
    [*PREFIX[:70], *tokens(9, seed=3)],
    tokens(230, seed=4),
    tokens(3, seed=5),
    [*PREFIX, *tokens(20, seed=1)],
]


class CountingBackend(LlamaBackend):
    """Knows how many tokens it has computed."""

    num_computed = 0

    def decode(self, batch: Batch) -> Any:
        logits = super().decode(batch)
        self.num_computed += batch.num_tokens
        return logits


class EngineUnderTest:
    """An engine that takes a prompt in small pieces, each over several micro-batches."""

    def __init__(self, context: LlamaContext) -> None:
        self.backend, cost = CountingBackend(context), StepCost()
        scheduler = Scheduler(KVCache(self.backend), SchedulerOptions(max_step_tokens=128), cost)
        nobody_ends = np.zeros(context.vocab_size, np.bool_)
        self.engine = Engine(self.backend, scheduler, Sampler(nobody_ends), cost, is_end=lambda token_id: False)

    def run(self, prompts: list[TokenIds], *, max_tokens: int) -> list[Sequence]:
        """Run prompts side by side to their ends; nothing may be left behind."""
        sequences = [Sequence(str(n), prompt, GREEDY, max_tokens=max_tokens) for n, prompt in enumerate(prompts)]
        for sequence in sequences:
            self.engine.add(sequence)
        self.engine.step()
        while self.engine.num_running + self.engine.num_waiting:
            self.engine.step()
        self.engine.check_integrity()
        return sequences


def make_context(model: LlamaModel, *, num_cells: int, max_sequences: int = 1, streams: bool = False) -> LlamaContext:
    options = ContextOptions(
        num_cells=num_cells * (max_sequences if streams else 1),
        max_sequences=max_sequences,
        max_batch_tokens=512,
        max_ubatch_tokens=32,
        num_threads=1,
        streams=streams,
    )
    return LlamaContext(model, options)


def decode(context: LlamaContext, seq_id: int, token_ids: TokenIds, *, start: int) -> Any:
    """Compute a run of one sequence; return the logits of its last token."""
    count = len(token_ids)
    positions = np.arange(start, start + count, dtype=np.int32)
    is_last = positions == start + count - 1
    assert context.decode(np.array(token_ids, np.int32), positions, np.full(count, seq_id, np.int32), is_last) == 0
    return context.logits(1)[0].copy()


@dataclass(frozen=True)
class Answer:
    """Greedy tokens, and the logits that each was chosen by."""

    token_ids: TokenIds
    logits: list[Any]


def answer_alone(model: LlamaModel, prompt: TokenIds, num_tokens: int) -> Answer:
    """The naive twin: one sequence, one context, one token at a time."""
    answer = Answer([], [])
    with make_context(model, num_cells=512) as context:
        logits = decode(context, 0, prompt, start=0)
        while True:
            answer.logits.append(logits)
            answer.token_ids.append(int(logits.argmax()))
            if len(answer.token_ids) == num_tokens:
                return answer
            logits = decode(context, 0, answer.token_ids[-1:], start=len(prompt) + len(answer.token_ids) - 1)


def assert_as_alone(model: LlamaModel, sequence: Sequence) -> None:
    prompt, generated = sequence.token_ids[: sequence.num_prompt_tokens], sequence.generated
    alone = answer_alone(model, prompt, len(generated))
    assert len({*alone.token_ids}) > 3, "the model says the same all the time: it tests nothing"
    for token_id, expected, logits in zip(generated, alone.token_ids, alone.logits, strict=True):
        if token_id != expected:
            assert logits[expected] - logits[token_id] < TIE, f"{generated} but alone {alone.token_ids}"
            return


def num_tokens_of(sequences: list[Sequence]) -> int:
    """Tokens that answers need computed once each: the last one is never computed."""
    return sum(sequence.num_tokens - 1 for sequence in sequences)


def test_each_says_in_company_what_it_says_alone(model: LlamaModel, streams: bool) -> None:
    with make_context(model, num_cells=2048, max_sequences=8, streams=streams) as context:
        engine = EngineUnderTest(context)

        sequences = engine.run(PROMPTS, max_tokens=16)

    for sequence in sequences:
        assert_as_alone(model, sequence)
    saved = num_tokens_of(sequences) - engine.backend.num_computed
    assert (saved > 2 * len(PREFIX)) if model.can_share_prefixes else (saved == 0)


def test_too_few_cells_change_no_answer(model: LlamaModel) -> None:
    """Answers get longer than was expected, so some are put off and computed again."""
    with make_context(model, num_cells=512, max_sequences=6) as context:
        engine = EngineUnderTest(context)

        sequences = engine.run([tokens(30, seed=seed) for seed in range(6)], max_tokens=220)

    for sequence in sequences:
        assert_as_alone(model, sequence)
    assert engine.backend.num_computed > num_tokens_of(sequences)


def test_a_conversation_goes_on_where_its_memory_allows(model: LlamaModel, streams: bool) -> None:
    """Four others pass through the cache meanwhile; the follow-up departs from the first turn before its end."""
    with make_context(model, num_cells=2048, max_sequences=6, streams=streams) as context:
        engine = EngineUnderTest(context)
        [first] = engine.run([PROMPTS[0]], max_tokens=16)
        engine.run(PROMPTS[2:5], max_tokens=16)

        [follow_up] = engine.run([[*first.token_ids[:-4], *tokens(12, seed=9)]], max_tokens=16)

    assert_as_alone(model, follow_up)
    assert follow_up.usage.cached_tokens == (len(first.token_ids) - 4 if model.can_share_prefixes else 0)


def test_a_prefix_behind_the_window_can_be_shared_after_others_have_passed(windowed: LlamaModel) -> None:
    """llama.cpp gives such cells away; the one who shares them would see nothing there, without any error."""
    with make_context(windowed, num_cells=1024, max_sequences=4) as context:
        kept, question = tokens(300, seed=1), tokens(20, seed=2)
        decode(context, 0, tokens(300, seed=0), start=0)
        decode(context, 1, kept, start=0)
        context.remove(0)
        decode(context, 2, tokens(400, seed=3), start=0)  # into the gap, and past it

        context.share(1, 3, length=100)
        logits = decode(context, 3, question, start=100)

    assert np.abs(logits - answer_alone(windowed, [*kept[:100], *question], 1).logits[0]).max() < TIE


def test_a_prompt_of_many_micro_batches_sees_its_whole_window(windowed: LlamaModel) -> None:
    """Its cells lie around a gap that another left: planning to fill it, llama.cpp drops cells that are still seen."""
    with make_context(windowed, num_cells=512, max_sequences=2) as context:
        prompt = tokens(161, seed=1)
        decode(context, 1, prompt[:1], start=0)
        decode(context, 0, tokens(50, seed=2), start=0)
        decode(context, 1, prompt[1:11], start=1)
        context.remove(0)

        logits = decode(context, 1, prompt[11:], start=11)

    assert np.abs(logits - answer_alone(windowed, prompt, 1).logits[0]).max() < TIE


def test_a_unified_cache_has_half_the_ids_for_a_windowed_model(windowed: LlamaModel) -> None:
    with pytest.raises(LoadFailed, match=r"llama\.cpp has ids for 128 of this model"):
        make_context(windowed, num_cells=1024, max_sequences=129)
