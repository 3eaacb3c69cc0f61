"""What a chat request may be grounded in: the tool `file_search`, OpenAI's, and `documents`, Cohere's and vLLM's."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from server.api.schemas.vector_stores import MAX_RESULTS, Id, RankingOptions, search_options
from server.api.schemas.wire import WireModel, invalid
from server.services.grounding import GivenDocument, Grounding

MAX_STORES = 16
MAX_DOCUMENTS = 1000
MAX_ID_CHARACTERS = 256


class FileSearchTool(WireModel):
    """Search vector stores for every question; `rewrite_query` is an extension."""

    type: Literal["file_search"]
    vector_store_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_STORES)]
    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    filters: Any = None
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: bool = False

    def grounding(self, documents: tuple[GivenDocument, ...], *, param: str) -> Grounding:
        """Raises InvalidRequest where the filter is wrong, which the request has under `param`."""
        options = search_options(self.ranking_options, filters=self.filters, filters_param=param)
        return Grounding(
            documents=documents,
            store_ids=tuple(self.vector_store_ids),
            options=replace(options, max_results=self.max_num_results),
            rewrites_query=self.rewrite_query,
        )


def _parse_documents(value: Any) -> tuple[GivenDocument, ...]:
    """Strings, `{"id"?, "data": {…}}`, or the fields themselves; names are given to those that have none."""
    if not isinstance(value, list):
        raise invalid("expected a list of documents", code="invalid_type")
    if len(value) > MAX_DOCUMENTS:
        raise invalid(f"expected at most {MAX_DOCUMENTS} documents")
    documents = tuple(_parse_document(index, each) for index, each in enumerate(value))
    if len({document.id for document in documents}) < len(documents):
        raise invalid("expected an id of its own for each document")
    return documents


def _parse_document(index: int, value: Any) -> GivenDocument:
    fields = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        raise invalid(f"expected strings or objects, but document {index} is neither", code="invalid_type")
    document_id = f"doc:{index}"  # as Cohere names them
    if fields.get("id"):
        document_id = _text_of(index, "id", fields["id"])
        fields = {key: each for key, each in fields.items() if key != "id"}
    if len(document_id) > MAX_ID_CHARACTERS:
        raise invalid(f"expected ids of at most {MAX_ID_CHARACTERS} characters, but that of document {index} is longer")
    if "data" in fields:
        fields = _data_of(index, fields)
    texts = {key: _text_of(index, key, each) for key, each in fields.items() if each is not None}
    title = texts.get("title", "")
    body = {key: text for key, text in texts.items() if key != "title"} or texts
    text = next(iter(body.values())) if len(body) == 1 else "\n".join(f"{key}: {each}" for key, each in body.items())
    if not any(each.strip() for each in body.values()):
        raise invalid(f"expected documents with text, but document {index} has none")
    return GivenDocument(id=document_id, title=title, text=text, fields=texts)


def _data_of(index: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Cohere's form: the fields are inside, or a string is."""
    if len(fields) > 1:
        raise invalid(f"expected 'id' and 'data' and nothing else, but document {index} has more")
    data = fields["data"]
    if isinstance(data, str):
        return {"text": data}
    if not isinstance(data, dict):
        raise invalid(f"expected an object under 'data' of document {index}", code="invalid_type")
    return data


def _text_of(index: int, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise invalid(
            f"expected strings and numbers, but {key[:40]!r} of document {index} is neither", code="invalid_type"
        )
    return str(value)


Documents = Annotated[
    tuple[GivenDocument, ...], PlainValidator(_parse_documents, json_schema_input_type=list[str | dict[str, Any]])
]
