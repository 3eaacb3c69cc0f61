"""Messages and tools in the shape that chat templates take them, with every text of a user in quarantine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from server.prompting.quarantine import Quarantine
from server.types import ChatMessage, Tool, ToolCall

Turn = dict[str, object]
"""A message as templates expect it: plain dicts and lists."""

_SHORT_ID = 9
_SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class TurnStyle:
    """How a template wants to see messages.

    Attributes:
        has_short_ids: It refuses ids of calls that are not of nine letters and digits, as Mistral's do.
        has_thinking: It calls reasoning `thinking`, as gpt-oss does, and refuses it beside content and calls.
        has_objects: See `TemplateAbilities.takes_objects`.
    """

    has_short_ids: bool
    has_thinking: bool
    has_objects: bool = False

    def turn_of(self, message: ChatMessage, quarantine: Quarantine) -> Turn:
        """The message with every text that a user may have written cleaned."""
        clean = quarantine.clean
        turn: Turn = {
            "role": "system" if message.role == "developer" else message.role,
            "content": clean(message.content),
        }
        if message.reasoning:
            turn["reasoning_content"] = clean(message.reasoning)
            if self.has_thinking:
                turn["thinking"] = clean(message.reasoning)
                turn["content"] = "" if message.tool_calls else turn["content"]
        if message.name is not None:
            turn["name"] = clean(message.name)
        if message.tool_call_id is not None:
            turn["tool_call_id"] = clean(self._id_of(message.tool_call_id))
        if message.tool_calls:
            turn["tool_calls"] = [
                {
                    "id": clean(self._id_of(call.id)),
                    "type": "function",
                    "function": {
                        "name": clean(call.name),
                        "arguments": quarantine.clean_json(self._arguments_of(call)),
                    },
                }
                for call in message.tool_calls
            ]
        return turn

    def _id_of(self, call_id: str) -> str:
        is_short = len(call_id) == _SHORT_ID and call_id.isascii() and call_id.isalnum()
        if is_short or not self.has_short_ids:
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID]

    def _arguments_of(self, call: ToolCall) -> object:
        """An object where the template wants one, and the arguments are one: an answer may have been cut."""
        if not self.has_objects:
            return call.arguments
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError):
            return call.arguments
        return arguments if isinstance(arguments, dict) else call.arguments


def without_system(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    """For templates that have no system role: what the system says begins the first message of the user."""
    system = [message.content for message in messages if message.role in _SYSTEM]
    others = [message for message in messages if message.role not in _SYSTEM]
    first = next((at for at, message in enumerate(others) if message.role == "user"), None)
    if not system or first is None:
        return messages
    content = "\n\n".join([*system, others[first].content])
    return [*others[:first], structs.replace(others[first], content=content), *others[first + 1 :]]


def offer(tool: Tool) -> dict[str, object]:
    """As OpenAI has it, and after it transformers; all keys are there, because some templates rely on it."""
    function = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
    return {"type": "function", "function": function}
