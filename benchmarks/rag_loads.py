"""The loads of the benchmark of grounded chat: questions to one store, and the same with what was found for them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.chat_figures import outcome_of
from benchmarks.chat_loads import MODEL_ID, ClosedLoop
from benchmarks.figures import Outcome
from benchmarks.load import Answer, closed_loop, run_traffic
from benchmarks.prompts import Prompts
from benchmarks.rag_prompts import Messages
from benchmarks.rag_questions import POPULAR, RARE
from benchmarks.results import Section
from server.loadgen.answer import Body
from server.loadgen.figures import Figures, percentiles

NUM_CLIENTS = 8
MAX_TOKENS = 64
NUM_RESULTS = 2
SOURCE_TOKENS = 2048
"""For rules and sources: room for both results with their surroundings."""

SAMPLING: Body = {"temperature": 0.2, "top_k": 40, "top_p": 0.9, "min_p": 0, "ignore_eos": True}
"""As the default model's authors advise; answers of one length, so that all servers have the same to do."""

RANKERS = {"fused": "none", "reranked": "auto"}
TITLES = {"fused": "8 clients, one store", "reranked": "8 clients, one store, with the reranker"}


@dataclass(frozen=True, kw_only=True)
class GroundedChat(ClosedLoop):
    """All questions once, in an order that differs from repetition to repetition.

    Attributes:
        warm: Sent before anything is measured.
    """

    warm: Body

    def warm_up(self) -> list[Body]:
        return [self.warm] * 2

    def run(self, port: int, prompts: Prompts, num_requests: int) -> Outcome:
        bodies = self.bodies(prompts, num_requests)
        traffic = run_traffic(closed_loop(port, bodies, num_clients=self.num_clients))
        outcome = outcome_of(traffic)
        return replace(outcome, figures={**outcome.figures, **grounding_figures(traffic.answers)})


def grounding_figures(answers: Sequence[Answer]) -> Figures:
    """How much of the prompts was in the cache; of answers that the server has found sources for, what that took."""
    good = [answer for answer in answers if not answer.error]
    num_prompt_tokens = sum(answer.num_prompt_tokens for answer in good)
    if not num_prompt_tokens:
        return {}
    figures = {"cached_share": sum(answer.num_cached_tokens for answer in good) / num_prompt_tokens}
    found = [answer for answer in good if answer.num_sources]
    if not found:
        return figures
    return {
        **figures,
        "grounded_share": len(found) / len(good),
        "mean_sources": statistics.fmean(answer.num_sources for answer in found),
        **percentiles("finding", [answer.finding_s for answer in found], 50, 95),
        "finding_share": sum(answer.finding_s for answer in found) / sum(answer.latency_s for answer in found),
    }


def load_of(name: str, bodies: Sequence[Body], warm: Body) -> GroundedChat:
    return GroundedChat(
        name=name,
        title=TITLES[name],
        figure="requests_per_s",
        num_clients=NUM_CLIENTS,
        bodies=shuffled(bodies),
        warm=warm,
        num_requests=len(bodies),
        num_tuning_requests=NUM_CLIENTS,
        num_slots=NUM_CLIENTS,
        context=4096,
        num_cells=NUM_CLIENTS * 4096,
    )


def shuffled(bodies: Sequence[Body]) -> Callable[[Prompts, int], list[Body]]:
    """The same order for lists of the same length; the first so many."""
    return lambda prompts, num_requests: random.Random(prompts.seed).sample(bodies, len(bodies))[:num_requests]


def questions() -> list[str]:
    return [*(question for wordings in POPULAR for question in wordings), *RARE]


def asked_body(question: str, store_id: str, ranker: str) -> Body:
    """A question to a server that finds the sources by itself."""
    tool = {
        "type": "file_search",
        "vector_store_ids": [store_id],
        "max_num_results": NUM_RESULTS,
        "ranking_options": {"ranker": ranker},
    }
    return {**_body([{"role": "user", "content": question}]), "tools": [tool]}


def rendered_body(messages: Messages) -> Body:
    """The same with the sources in it."""
    return _body(messages)


def _body(messages: Messages) -> Body:
    return {"model": MODEL_ID, "messages": messages, "max_tokens": MAX_TOKENS, **SAMPLING}


def sharing(prompts: Sequence[Messages]) -> Section:
    """How much of the prompts is alike: what a cache of prefixes could spare, were it perfect."""
    texts = ["\n".join(message["content"] for message in messages) for messages in prompts]
    shared = [
        max((_common_chars(text, other) for other in texts[:place]), default=0) for place, text in enumerate(texts)
    ]
    return {
        "questions": len(prompts),
        "source_sets": len({repr(messages[:-1]) for messages in prompts}),
        "mean_prompt_chars": round(statistics.fmean(map(len, texts))),
        "shareable_share": round(sum(shared) / sum(map(len, texts)), 3),
    }


def _common_chars(text: str, other: str) -> int:
    pairs = zip(text, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))
