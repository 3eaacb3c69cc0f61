"""Chat: a conversation in, a stream of events out."""

from __future__ import annotations

from server.config.schema import ModelConfig
from server.errors import InvalidRequest
from server.models.registry import ModelRegistry
from server.services.generation import Generation, SamplingOptions, new_id, with_defaults
from server.types import NO_HURRY, ChatMessage, ChatPrompt, GenerateRequest, Urgency


class ChatService:
    """Finds the model and starts one generation."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def generate(
        self,
        model: str,
        messages: tuple[ChatMessage, ...],
        *,
        sampling: SamplingOptions,
        urgency: Urgency = NO_HURRY,
        uses_tools: bool = False,
    ) -> Generation:
        """Prepare an answer to `messages`; the model starts with the first step of `Generation.events`.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not chat, or the request offers tools to a model that cannot call them.
        """
        config, chat_model = self._registry.chat(model)
        if uses_tools and not _can_call_tools(config):
            raise InvalidRequest(
                f"model {config.id!r} cannot call tools; leave them out, or use a model with the capability 'tools'",
                param="tools",
                code="unsupported_parameter",
            )
        request = GenerateRequest(
            request_id=new_id("chatcmpl"),
            prompt=ChatPrompt(messages),
            sampling=with_defaults(config.defaults, sampling),
            urgency=urgency,
        )
        return Generation(request.request_id, config.id, chat_model.generate(request))


def _can_call_tools(config: ModelConfig) -> bool:
    """Only scripts do: no other worker is told of the tools, so it would answer as if there were none."""
    return config.backend == "script" and "tools" in config.effective_capabilities
