"""Hearth as a server of grounded chat; whoever it is compared with is sent prompts that have the sources already."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chat_contenders import Server, chat_entry
from benchmarks.chat_loads import Load
from benchmarks.embeddings import CACHED as EMBEDDER
from benchmarks.encoder_asks import RERANKER_ID
from benchmarks.figures import Outcome
from benchmarks.peers.reranker_weights import SOURCE
from benchmarks.prompts import Prompts
from benchmarks.rag_loads import SOURCE_TOKENS
from benchmarks.servers import RunningServer, hearth

RERANKER: dict[str, object] = {
    "id": RERANKER_ID,
    "kind": "rerank",
    "backend": "sentence_transformers",
    "source": f"file:{SOURCE}",
}

RAG_SETTINGS: dict[str, object] = {"max_source_tokens": SOURCE_TOKENS}


def entries(load: Load) -> list[Mapping[str, object]]:
    """The models of grounded chat, as they stand in models.yaml."""
    return [chat_entry(load), EMBEDDER, RERANKER]


@dataclass(frozen=True)
class GroundedHearth(Server):
    """Hearth, asked the bare questions.

    Attributes:
        questions: The load in place of that of the others.
        data_dir: Where the store is.
    """

    questions: Load
    data_dir: Path

    @property
    def name(self) -> str:
        return "hearth, which finds the sources"

    def start(self, load: Load) -> AbstractContextManager[RunningServer]:
        return hearth(*entries(load), data_dir=self.data_dir, rag=RAG_SETTINGS)

    def measure(self, load: Load, prompts: Prompts, num_requests: int) -> Outcome:
        return super().measure(self.questions, prompts, num_requests)
