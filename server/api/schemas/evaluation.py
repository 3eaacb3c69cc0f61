"""The body of `POST /v1/vector_stores/{id}/evaluate`: questions, what answers them, and ways to search."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, FailFast, Field, ValidationInfo

from server.api.schemas.vector_stores import MAX_QUERY_CHARACTERS, Id, RankingOptions, search_options
from server.api.schemas.wire import WireModel, invalid
from server.errors import InvalidRequest
from server.rag.evaluation import Judgements
from server.services.evaluation import Configuration, Judged, KnownItems

MAX_QUESTIONS = 1000
MAX_JUDGEMENTS = 100_000
MAX_CONFIGURATIONS = 8
MAX_TIMEOUT_S = 3600.0


class EvaluationQuery(WireModel):
    id: Id
    text: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS, pattern=r"\S")]


def _check_one_item(value: Any, info: ValidationInfo) -> Any:
    if (value is None) == (info.data.get("file_id") is None):
        raise invalid("expected either file_id or chunk_id")
    return value


class Judgement(WireModel):
    """That a file, or a chunk, answers a query: `relevance` 1 and more; 0 says that it does not."""

    query_id: Id
    file_id: Id | None = None
    chunk_id: Annotated[int | None, Field(ge=1, validate_default=True), AfterValidator(_check_one_item)] = None
    relevance: Annotated[int, Field(ge=0, le=100)] = 1


class KnownItemOptions(WireModel):
    num_questions: Annotated[int, Field(ge=1, le=MAX_QUESTIONS)] = 100
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


class ConfigurationFields(WireModel):
    """A way to search; fields as in `StoreSearch`."""

    name: Annotated[str, Field(min_length=1, max_length=64)] = ""
    filters: Any = None
    ranking_options: RankingOptions = RankingOptions()


def _check_queries(value: Any, info: ValidationInfo) -> Any:
    makes_questions = info.data.get("known_item") is not None
    if value is None and not makes_questions and "known_item" in info.data:
        raise invalid("", code="missing_required_parameter")
    if value is not None and makes_questions:
        raise invalid("known_item makes questions; send one of them")
    return value


def _check_qrels(value: Any, info: ValidationInfo) -> Any:
    if (value is None) != (info.data.get("queries") is None):
        raise invalid("queries and qrels belong together")
    return value


class EvaluationRequest(WireModel):
    """`queries` with `qrels`, or `known_item`."""

    # In this order, because each check looks at what came before.
    known_item: KnownItemOptions | None = None
    """`{"num_questions", "seed"}`: questions made of what is in the store, where nobody has judged anything: headings,
    which ask for what stands below them; if these do not suffice, headings with words that are the text's own. 1 to
    1000, default 100; the same seed makes the same questions"""
    queries: Annotated[
        list[EvaluationQuery] | None,
        FailFast(),
        Field(min_length=1, max_length=MAX_QUESTIONS, validate_default=True),
        AfterValidator(_check_queries),
    ] = None
    """up to 1000 of `{"id", "text"}`; or `known_item`"""
    qrels: Annotated[
        list[Judgement] | None,
        FailFast(),
        Field(min_length=1, max_length=MAX_JUDGEMENTS, validate_default=True),
        AfterValidator(_check_qrels),
    ] = None
    """what answers them: up to 100,000 of `{"query_id", "file_id" or "chunk_id", "relevance"}`; files or chunks, not
    both; `relevance` is 0 (it does not) to 100, default 1"""
    configurations: Annotated[
        list[ConfigurationFields],
        Field(min_length=1, max_length=MAX_CONFIGURATIONS, default_factory=lambda: [ConfigurationFields()]),
    ]
    """ways to search, as in [search](#search): `{"name", "ranking_options", "filters"}`; default: a plain one"""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] = 600.0
    """at most 3600, default 600; else 504"""

    @property
    def judged(self) -> Judged:
        return "chunk" if self.qrels and self.qrels[0].file_id is None else "file"

    def questions(self) -> Judgements | KnownItems:
        """Raises InvalidRequest where queries and qrels contradict each other."""
        if self.known_item is not None:
            return KnownItems(num_questions=self.known_item.num_questions, seed=self.known_item.seed)
        queries: dict[str, str] = {}
        for index, query in enumerate(self.queries or ()):
            if query.id in queries:
                raise InvalidRequest(f"there are two queries with id {query.id!r}", param=f"queries[{index}].id")
            queries[query.id] = query.text
        return self._judgements(queries)

    def _judgements(self, queries: dict[str, str]) -> Judgements:
        found = Judgements(queries, {})
        for index, each in enumerate(self.qrels or ()):
            if each.query_id not in queries:
                message = f"there is no query with id {each.query_id!r}"
                raise InvalidRequest(message, param=f"qrels[{index}].query_id")
            if (each.file_id is None) != (self.judged == "chunk"):
                message = f"expected {self.judged}_id, as in the first one: files and chunks are ranked apart"
                raise InvalidRequest(f"qrels[{index}]: {message}", param=f"qrels[{index}]")
            item = each.file_id if each.file_id is not None else str(each.chunk_id)
            found.gains.setdefault(each.query_id, {})[item] = each.relevance
        if not found.judged:
            raise InvalidRequest("no file or chunk answers any of the queries", param="qrels")
        return found

    def ways(self) -> list[Configuration]:
        """The configurations, each with a name of its own. Raises InvalidRequest where a filter is wrong."""
        ways: dict[str, Configuration] = {}
        for index, each in enumerate(self.configurations):
            name = each.name or str(index + 1)
            if name in ways:
                raise InvalidRequest(f"two are named {name!r}", param=f"configurations[{index}].name")
            options = search_options(
                each.ranking_options, filters=each.filters, filters_param=f"configurations[{index}].filters"
            )
            ways[name] = Configuration(name=name, options=options)
        return list(ways.values())
