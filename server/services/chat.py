"""Chat: a conversation in, a stream of events out."""

from __future__ import annotations

from server.errors import InvalidRequest
from server.models.registry import ModelRegistry
from server.services.generation import Generation, SamplingOptions, new_id, with_defaults
from server.types import ChatMessage, ChatPrompt, GenerateRequest


class ChatService:
    """Finds the model and starts one generation."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def generate(
        self, model: str, messages: tuple[ChatMessage, ...], *, sampling: SamplingOptions, uses_tools: bool = False
    ) -> Generation:
        """Prepare an answer to `messages`; the model starts with the first step of `Generation.events`.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, or the request offers tools to a model without that capability.
        """
        config, chat_model = self._registry.chat(model)
        if uses_tools and "tools" not in config.effective_capabilities:
            raise InvalidRequest(
                f"model {config.id!r} does not support tools; use a model with the capability 'tools'",
                param="tools",
                code="unsupported_parameter",
            )
        request = GenerateRequest(
            request_id=new_id("chatcmpl"),
            prompt=ChatPrompt(messages),
            sampling=with_defaults(config.defaults, sampling),
        )
        return Generation(request.request_id, config.id, chat_model.generate(request))
