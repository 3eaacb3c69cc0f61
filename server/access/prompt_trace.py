"""What a chat model was asked and what it said, in the log: only where `server.trace_prompts` says so."""

from __future__ import annotations

import logging

import msgspec

from server.types import Delta, GenerateRequest

logger = logging.getLogger(__name__)


class PromptTrace:
    """One generation on its way into the log, in one line when it is over."""

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._pieces: list[Delta] = []

    def add(self, delta: Delta) -> None:
        self._pieces.append(delta)

    def write(self) -> None:
        extra = {
            "generation_id": self._request.request_id,
            "prompt": msgspec.to_builtins(self._request.prompt),
            "reasoning": "".join(delta.reasoning for delta in self._pieces),
            "answer": "".join(delta.text for delta in self._pieces),
            "tool_calls": [msgspec.to_builtins(call) for delta in self._pieces for call in delta.tool_calls],
        }
        logger.info("traced", extra=extra)
