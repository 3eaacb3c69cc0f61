"""Tools for models whose chat template knows nothing of them: told in words, with calls and results as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from server.prompting.answers.tool_format import CallFrame
from server.types import ChatMessage

RESULT, END_RESULT = "<tool_response>\n", "\n</tool_response>"


def write_instructions(tools: Iterable[str], frame: CallFrame) -> str:
    """Tell a model which tools there are and how to call them, much as Hermes and Qwen are told.

    Args:
        tools: Each as JSON.
    """
    example = frame.write([("<function-name>", "<args-json-object>")])
    lines = "\n".join(tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{lines}\n</tools>\n\n"
        "For each function call, write the function name and its arguments, a JSON object, exactly so:\n"
        f"{example}"
    )


def spell_calls(messages: Sequence[ChatMessage], frame: CallFrame) -> list[ChatMessage]:
    """Write the calls of a conversation as the assistant's text, and their results as the user's."""
    spelled: list[ChatMessage] = []
    for message in messages:
        if message.tool_calls:
            calls = frame.write([(call.name, call.arguments) for call in message.tool_calls])
            content = "\n".join(filter(None, [message.content, calls]))
            spelled.append(structs.replace(message, content=content, tool_calls=()))
        elif message.role != "tool":
            spelled.append(message)
        else:
            result = f"{RESULT}{message.content}{END_RESULT}"
            if spelled and spelled[-1].role == "user" and spelled[-1].content.startswith(RESULT):
                result = f"{spelled.pop().content}\n{result}"  # the results of one turn are one message
            spelled.append(ChatMessage(role="user", content=result))
    return spelled
