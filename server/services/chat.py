"""Chat: a conversation in, a stream of events out."""

from __future__ import annotations

from server.errors import InvalidRequest
from server.models.registry import ModelRegistry
from server.services.generation import Generation, SamplingOptions, new_id, with_defaults
from server.types import NO_HURRY, ChatPrompt, GenerateRequest, Grammar, Urgency


class ChatService:
    """Finds the model and starts one generation."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def generate(
        self,
        model: str,
        prompt: ChatPrompt,
        *,
        sampling: SamplingOptions,
        grammar: Grammar | None = None,
        urgency: Urgency = NO_HURRY,
    ) -> Generation:
        """Prepare an answer to a conversation; the model starts with the first step of `Generation.events`.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, or the request has a grammar for a script.
        """
        config, chat_model = self._registry.chat(model)
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
        )
        return Generation(request.request_id, config.id, chat_model.generate(request))
