"""What a grounded answer shall rest on, and what its stream says besides the answer: sources, then citations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.rag.prompt import Source
from server.rag.quotes import Quote
from server.rag.search import SearchOptions
from server.rag.support import Support


@dataclass(frozen=True, kw_only=True)
class GivenDocument:
    """A document that came with the request.

    Attributes:
        text: What the model is shown; not blank.
        fields: The document as it came.
    """

    id: str
    title: str
    text: str
    fields: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """Where sources come from, and how they are found.

    Attributes:
        documents: Always sources, as far as there is room for them; before what is found.
        store_ids: Of the vector stores that are searched.
        store_names: The same, by id or by name.
        options: How these are searched; parents are the grounded chat's own business.
        system_prompt: Goes before everything else.
        rewrites_query: Let the chat model make queries of the conversation.
        min_relevance, min_similarity: As in the configuration, which has the last word where they are None.
    """

    documents: tuple[GivenDocument, ...] = ()
    store_ids: tuple[str, ...] = ()
    store_names: tuple[str, ...] = ()
    options: SearchOptions = field(default_factory=SearchOptions)
    system_prompt: str = ""
    rewrites_query: bool = False
    min_relevance: float | None = None
    min_similarity: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """What the answer may rest on; comes before its first word.

    Attributes:
        queries: What was searched for; none where no store was searched.
        sources: Number n is `sources[n - 1]`.
        num_dropped: Sources that there was no room for.
        num_irrelevant: Hits that were not relevant enough to become sources.
        rerank_failure: Why the reranker had no say, or less than it should; None: nothing is amiss.
        timings_ms: Of what came before the model was asked.
    """

    queries: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    num_dropped: int = 0
    num_irrelevant: int = 0
    rerank_failure: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CitedSource:
    """One number of a mark in the answer.

    Attributes:
        start, end: Of the mark, in code points of the answer; the same where the server has made it (`attribution.py`).
        number: Of the source.
        quote: The place in it that the statement rests on, as far as words tell.
        is_supported: Whether that statement is supported by its sources.
    """

    start: int
    end: int
    number: int
    quote: Quote | None
    is_supported: bool


@dataclass(frozen=True, kw_only=True)
class Cited:
    """What the answer rests on; comes after its last word.

    Attributes:
        text: The whole answer.
        marks: In the order of the text; none for marks without a statement.
        statements: The sentences that name sources, or rest on one without saying so, in order.
        num_removed: Numbers that named no source, and did not reach the client.
    """

    text: str
    marks: tuple[CitedSource, ...] = ()
    statements: tuple[Support, ...] = ()
    num_removed: int = 0
