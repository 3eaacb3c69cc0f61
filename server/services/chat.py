"""Chat: a conversation in, a stream of events out."""

from __future__ import annotations

from server.asker import on_behalf
from server.config.rag_section import RagModel, RagSettings
from server.errors import InvalidRequest
from server.models.registry import ModelRegistry
from server.rag.search import SearchOptions
from server.services.generation import (
    Generation,
    SamplingOptions,
    new_id,
    refuse_for_script,
    siblings_of,
    with_defaults,
)
from server.services.grounded_chat import GroundedChat
from server.services.grounding import Grounding
from server.types import DEFAULT_TENANT, NO_HURRY, ChatPrompt, GenerateRequest, Grammar, Urgency


class ChatService:
    """Finds the model and starts generations, grounded if the request or the model wants it."""

    def __init__(self, registry: ModelRegistry, grounded: GroundedChat) -> None:
        self._registry = registry
        self._grounded = grounded

    def configure(self, settings: RagSettings) -> None:
        """Ground by other settings from now on."""
        self._grounded.configure(settings)

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
        prediction: str = "",
        num_choices: int = 1,
    ) -> Generation:
        """Prepare an answer to a conversation; the model starts with the first step of `Generation.events`.

        Args:
            grounding: What the request itself brings to ground the answer in.
            prediction: What the answer will probably say; see `GenerateRequest`.
            num_choices: Answers that are wanted. The conversation is computed once for all of them.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, or is a script that is asked for what it cannot do, or has vector
                stores of its own where the request names some; or several answers shall be grounded.
        """
        config, chat_model, rag_model = self._registry.chat_or_rag(model)
        if rag_model is not None:
            grounding = _bound(rag_model, grounding)
        if grammar:
            refuse_for_script(config, grammar.param)
        if "num_logprobs" in sampling:
            refuse_for_script(config, "logprobs")
        request = GenerateRequest(
            request_id=new_id("chatcmpl"),
            prompt=prompt,
            sampling=with_defaults(config.defaults, sampling),
            grammar=grammar,
            urgency=on_behalf(urgency),
            tenant=tenant,
            prediction=prediction,
        )
        model_id = rag_model.id if rag_model else config.id
        if grounding is None:
            streams = tuple(map(chat_model.generate, siblings_of(request, num_choices)))
            return Generation(request.request_id, model_id, streams)
        if num_choices > 1:
            raise InvalidRequest(
                f"n is {num_choices}, but grounded answers come one at a time; leave n out, or ask without sources",
                param="n",
                code="unsupported_value",
            )
        return Generation(request.request_id, model_id, (self._grounded.answer(chat_model, request, grounding),))

    async def count_tokens(self, model: str, prompt: ChatPrompt) -> int:
        """Tell how many tokens a conversation has as the model's template writes it; sources would come on top.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, or its template refuses the messages.
            ContextLengthExceeded: It is much longer than the model accepts.
            ModelUnavailable: The model cannot answer now.
        """
        _config, chat_model, _rag_model = self._registry.chat_or_rag(model)
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
