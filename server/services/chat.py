"""Chat: a conversation in, a stream of events out."""

from __future__ import annotations

from server.config.rag_section import RagModel
from server.errors import InvalidRequest
from server.models.registry import ModelRegistry
from server.rag.search import SearchOptions
from server.services.generation import Generation, SamplingOptions, new_id, with_defaults
from server.services.grounded_chat import GroundedChat
from server.services.grounding import Grounding
from server.types import DEFAULT_TENANT, NO_HURRY, ChatPrompt, GenerateRequest, Grammar, Urgency


class ChatService:
    """Finds the model and starts one generation, grounded if the request or the model wants it."""

    def __init__(self, registry: ModelRegistry, grounded: GroundedChat) -> None:
        self._registry = registry
        self._grounded = grounded

    def generate(
        self,
        model: str,
        prompt: ChatPrompt,
        *,
        sampling: SamplingOptions,
        grammar: Grammar | None = None,
        urgency: Urgency = NO_HURRY,
        tenant: str = DEFAULT_TENANT,
        grounding: Grounding | None = None,
    ) -> Generation:
        """Prepare an answer to a conversation; the model starts with the first step of `Generation.events`.

        Args:
            grounding: What the request itself brings to ground the answer in.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, the request has a grammar for a script, or it names vector stores
                to a model that has its own.
        """
        rag_model = self._registry.rag_model(model)
        if rag_model is not None:
            grounding = _bound(rag_model, grounding)
        config, chat_model = self._registry.chat(rag_model.chat_model if rag_model else model)
        if grammar and config.backend == "script":
            raise InvalidRequest(
                f"the answers of model {config.id!r} are written in models.yaml; leave {grammar.param} out",
                param=grammar.param,
                code="unsupported_parameter",
            )
        request = GenerateRequest(
            request_id=new_id("chatcmpl"),
            prompt=prompt,
            sampling=with_defaults(config.defaults, sampling),
            grammar=grammar,
            urgency=urgency,
            tenant=tenant,
        )
        model_id = rag_model.id if rag_model else config.id
        if grounding is None:
            return Generation(request.request_id, model_id, chat_model.generate(request))
        return Generation(request.request_id, model_id, self._grounded.answer(chat_model, request, grounding))

    async def count_tokens(self, model: str, prompt: ChatPrompt) -> int:
        """Tell how many tokens a conversation has as the model's template writes it; sources would come on top.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, or its template refuses the messages.
            ContextLengthExceeded: It is much longer than the model accepts.
            ModelUnavailable: The model cannot answer now.
        """
        rag_model = self._registry.rag_model(model)
        _config, chat_model = self._registry.chat(rag_model.chat_model if rag_model else model)
        [token_ids] = await chat_model.token_ids([prompt])
        return len(token_ids)


def _bound(rag_model: RagModel, wanted: Grounding | None) -> Grounding:
    """What a RAG model is grounded in, and the documents that a request brings besides."""
    if wanted is not None and wanted.store_ids:
        raise InvalidRequest(
            f"model {rag_model.id!r} searches vector stores of its own; leave the tool 'file_search' out, or use model "
            f"{rag_model.chat_model!r}",
            param="tools",
            code="unsupported_parameter",
        )
    return Grounding(
        documents=wanted.documents if wanted else (),
        store_names=rag_model.vector_stores,
        options=SearchOptions(
            max_results=rag_model.max_num_results,
            ranker=rag_model.ranker,
            score_threshold=rag_model.score_threshold,
            embedding_weight=rag_model.embedding_weight,
            text_weight=rag_model.text_weight,
        ),
        system_prompt=rag_model.system_prompt,
        rewrites_query=rag_model.rewrite_query,
        min_relevance=rag_model.min_relevance,
        min_similarity=rag_model.min_similarity,
    )
