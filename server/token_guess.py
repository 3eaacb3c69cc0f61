"""How many tokens something has, roughly, where the model that would know has not been asked, or does not tell."""

from __future__ import annotations

from collections.abc import Iterable

from server.types import ChatPrompt, Prompt, TextPrompt, TokenIds

CHARS_PER_TOKEN = 4
"""Of English, roughly; a generation's prompt is known exactly as soon as it has been tokenised."""


def num_prompt_tokens(prompt: Prompt) -> int:
    """About how many tokens a prompt has."""
    if isinstance(prompt, ChatPrompt):
        messages = sum(len(each.content) + len(each.reasoning) for each in prompt.messages)
        tools = sum(len(tool.description) + len(tool.parameters) for tool in prompt.tool_use.tools)
        return (messages + tools) // CHARS_PER_TOKEN
    if isinstance(prompt, TextPrompt):
        return (len(prompt.text) + len(prompt.suffix)) // CHARS_PER_TOKEN
    return len(prompt.token_ids)


def num_input_tokens(inputs: Iterable[str | TokenIds]) -> int:
    """About how many tokens an encoder's inputs have."""
    return sum(1 + len(each) // CHARS_PER_TOKEN if isinstance(each, str) else len(each) for each in inputs)
