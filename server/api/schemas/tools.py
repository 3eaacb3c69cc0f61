"""`tools` and `tool_choice` of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field

from server.api.schemas.json_schema import check_schema
from server.api.schemas.wire import WireModel, invalid
from server.types import NO_TOOLS, Tool, ToolUse

MAX_TOOLS = 128
MAX_SCHEMA_BYTES = 128 * 1024

FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
ToolChoice = str | dict[str, Any]

_EXPECTED = (
    'expected "none", "auto", "required", {"type": "function", "function": {"name": "..."}} or'
    ' {"type": "allowed_tools", "allowed_tools": {"mode": "...", "tools": [...]}}'
)


def check_parameters(value: Any) -> Any:
    """Refuse what is no JSON schema of an object, or too large."""
    if not isinstance(value, dict):
        raise invalid("expected a JSON schema, which is an object", code="invalid_type")
    if value.get("type", "object") != "object":
        raise invalid('expected a JSON schema with "type": "object"')
    if len(orjson.dumps(value)) > MAX_SCHEMA_BYTES:
        raise invalid(f"expected at most {MAX_SCHEMA_BYTES} bytes of JSON")
    return check_schema(value)


class FunctionDefinition(WireModel):
    name: FunctionName
    description: str = ""
    parameters: Annotated[dict[str, Any] | None, BeforeValidator(check_parameters)] = None
    strict: bool = False


class FunctionTool(WireModel):
    type: Literal["function"]
    function: FunctionDefinition

    def to_tool(self) -> Tool:
        function = self.function
        tool = Tool(name=function.name, description=function.description, strict=function.strict)
        if function.parameters is None:
            return tool
        schema = {"type": "object", "properties": {}, **function.parameters}
        return Tool(
            name=tool.name, description=tool.description, strict=tool.strict, parameters=orjson.dumps(schema).decode()
        )


def check_unique(names: Sequence[str]) -> None:
    """Refuse two tools of one name: nobody could tell which is called."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise invalid(f"two of them are named {twice!r}; give each a name of its own")


def check_names(tools: list[FunctionTool]) -> list[FunctionTool]:
    check_unique([tool.function.name for tool in tools])
    return tools


def check_choice(choice: ToolChoice, tools: Sequence[FunctionTool]) -> ToolChoice:
    """Refuse what is no choice, and names that are not among the tools."""
    names = _names_in(choice)
    if choice == "none":
        return choice
    if not tools:
        raise invalid("it needs tools that are functions, and the request has none", code="unsupported_parameter")
    offered = [tool.function.name for tool in tools]
    for name in names:
        if name not in offered:
            raise invalid(f"it names {name[:64]!r}, which is not among the tools: {', '.join(offered)[:200]}")
    return choice


def to_tool_use(tools: Sequence[FunctionTool], choice: ToolChoice, *, is_parallel: bool) -> ToolUse:
    """What the answer may call; of tools that it must not call the model is not told."""
    if choice == "none" or not tools:
        return NO_TOOLS
    all_tools = tuple(tool.to_tool() for tool in tools)
    return ToolUse(
        tools=all_tools,
        names=_names_in(choice) or tuple(tool.name for tool in all_tools),
        is_required=_mode_of(choice) == "required",
        is_parallel=is_parallel and not _is_named(choice),
    )


def _names_in(choice: ToolChoice) -> tuple[str, ...]:
    """The tools that a choice names; none where all will do."""
    match choice:
        case "none" | "auto" | "required":
            return ()
        case {"type": "function", "function": {"name": str(name)}}:
            return (name,)
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required", "tools": [_, *_] as named}}:
            return tuple(name for each in named for name in _names_in(each))
    raise invalid(_EXPECTED)


def _mode_of(choice: ToolChoice) -> str:
    if isinstance(choice, str):
        return choice
    return "required" if _is_named(choice) else str(choice["allowed_tools"]["mode"])


def _is_named(choice: ToolChoice) -> bool:
    return isinstance(choice, dict) and choice["type"] == "function"
