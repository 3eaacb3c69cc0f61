"""What happens to chunks on their way through a search: where each stage puts them, and why they are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from server.rag.documents import Chunk
from server.rag.search import Explanation, Place, Stage, StageName


class SearchTrace:
    """Grows with the search."""

    def __init__(self) -> None:
        self._stages: list[Stage] = []
        self._places: dict[int, dict[StageName, Place]] = {}
        self._chunks: dict[int, Chunk] = {}
        self._dropped: dict[int, str] = {}

    def add(self, stages: Iterable[Stage]) -> None:
        """Note what stages made of the search."""
        for stage in stages:
            self._stages.append(stage)
            for rank, (chunk_id, score) in enumerate(zip(stage.ids, stage.scores, strict=True), start=1):
                places = self._places.setdefault(chunk_id, {})
                if stage.name not in places or rank < places[stage.name].rank:
                    places[stage.name] = Place(rank, score)

    def add_ranking(self, name: StageName, scores: Mapping[int, float]) -> None:
        """Note what a stage made of the search, best first: scores by chunk id."""
        self.add([Stage(name, tuple(scores), tuple(scores.values()))])

    def look_at(self, chunks: Iterable[Chunk]) -> None:
        self._chunks.update((chunk.id, chunk) for chunk in chunks)

    def drop(self, chunk_ids: Iterable[int], reason: str) -> None:
        self._dropped.update(dict.fromkeys(chunk_ids, reason))

    def places(self, chunk_id: int) -> dict[StageName, Place]:
        """Where stages have put a chunk; of several rankings of one stage, the best place."""
        return self._places[chunk_id]

    def explanation(self) -> Explanation:
        return Explanation(stages=tuple(self._stages), chunks=self._chunks, dropped=self._dropped)


def best_query(arms: Sequence[Stage]) -> dict[int, str]:
    """Tell for each chunk which query has it in the best place."""
    places: dict[int, tuple[int, str]] = {}
    for arm in arms:
        assert arm.query is not None
        for rank, chunk_id in enumerate(arm.ids):
            if chunk_id not in places or rank < places[chunk_id][0]:
                places[chunk_id] = rank, arm.query
    return {chunk_id: query for chunk_id, (_, query) in places.items()}
