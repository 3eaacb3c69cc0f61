"""What models.yaml may say under `rag`. Whether the models that it names are there, `schema.py` checks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from server.config.section import ModelAlias, ModelId, Section, error_at

NO_MODEL = "none"
"""In place of a model's name."""

StoreName = Annotated[str, Field(min_length=1, max_length=256)]


class ParserSettings(Section):
    """Bounds of the processes that read uploaded documents; what exceeds them fails, and harms nothing else."""

    workers: int = Field(2, ge=1, le=64, description="Documents that are read at the same time.")
    timeout_s: float = Field(60.0, gt=0, le=3600, description="Longest that reading one document may take.")
    memory_mb: int = Field(512, ge=128, le=65536, description="Most memory of a process that reads documents, in MiB.")
    max_text_mb: int = Field(64, ge=1, le=1024, description="Most text of one document, in MiB.")
    max_pages: int = Field(10_000, ge=1, description="Most pages of a pdf, or slides of a presentation.")


class RagModel(Section):
    """A name under which a chat model answers from vector stores, for clients that know nothing of them."""

    id: ModelId = Field(description="Name that clients put in `model`.")
    chat_model: str = Field(description="Id or alias of the chat model that answers.")
    vector_stores: tuple[StoreName, ...] = Field(
        min_length=1, max_length=16, description="Names or ids of the vector stores that are searched."
    )
    aliases: tuple[ModelAlias, ...] = Field((), description="Further names that clients may use.")
    description: str = Field("", description="One sentence for people.")
    system_prompt: str = Field("", description="Goes before the rules for sources, and before what clients say.")
    max_num_results: int = Field(10, ge=1, le=50, description="Most chunks that a search finds.")
    score_threshold: float = Field(0.0, ge=0, le=1, description="Hits with a lower score are left out.")
    embedding_weight: float = Field(1.0, ge=0, le=1000, description="How much the search by meaning counts.")
    text_weight: float = Field(
        1.0, ge=0, le=1000, description="How much the search by words counts, in proportion; 0: not at all."
    )
    ranker: Literal["auto", "none"] = Field("auto", description="`none`: no rerank model has a say.")
    min_relevance: float | None = Field(
        None, ge=0, le=1, description="In place of `rag.min_relevance`, where that is not right for these documents."
    )
    min_similarity: float | None = Field(
        None, ge=0, le=1, description="In place of `rag.min_similarity`, where that is not right for these documents."
    )
    rewrite_query: bool = Field(
        False, description="Let the chat model make search queries of the conversation, which takes it a moment."
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.embedding_weight == self.text_weight == 0:
            raise error_at(("text_weight",), "embedding_weight is 0 too, so nothing would be found; raise one")
        return self


class RagSettings(Section):
    """How documents are read, embedded and found."""

    embedding_model: str | None = Field(
        None,
        description="Id or alias of the model that embeds the documents of new vector stores, and queries; default: "
        "the first embedding model. A vector store keeps the model that it was made with.",
    )
    rerank_model: str | None = Field(
        None,
        description="Id or alias of the model that sorts what was found, or `none`; default: the first rerank model.",
    )
    chat_model: str | None = Field(
        None,
        description="Id or alias of the model that rewrites questions for searches (`rewrite_query`) and says of "
        "chunks where they stand (`context`), or `none`; default: the first chat model.",
    )
    rerank_candidates: int = Field(30, ge=1, le=1000, description="How many of the chunks that were found are sorted.")
    rerank_timeout_s: float = Field(
        2.0, gt=0, le=600, description="Longest that sorting may take; chunks that were not reached keep their place."
    )
    rewrite_timeout_s: float = Field(
        5.0, gt=0, le=600, description="Longest that rewriting a question may take; else it is used as it stands."
    )
    min_relevance: float = Field(
        0.0005,  # this and the next: docs/decisions/0018-grounded-chat.md
        ge=0,
        le=1,
        description="What a chunk must have, 0 to 1 by the rerank model, to be a source of a grounded answer; where "
        "none has it, `No relevant source found.` is the answer. 0: everything that is found is a source.",
    )
    min_similarity: float = Field(
        0.3,
        ge=0,
        le=1,
        description="The same for chunks that no rerank model has scored: the cosine of question and chunk.",
    )
    max_source_tokens: int = Field(
        4096,
        ge=64,
        le=1_048_576,
        description="Most tokens that rules and sources of a grounded answer may have; less where the chat model's "
        "context leaves less.",
    )
    index_memory_mb: int = Field(
        2048,
        ge=1,
        description="Most memory for what is searched of vector stores, in MiB: 100,000 chunks of 384 numbers take "
        "some 130. Beyond it, the store that was not searched for longest leaves it, until its next search.",
    )
    parser: ParserSettings = Field(
        default_factory=ParserSettings, description="Bounds of the processes that read uploaded documents."
    )
    models: tuple[RagModel, ...] = Field((), description="Names under which chat models answer from vector stores.")
