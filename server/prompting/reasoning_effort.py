"""`reasoning_effort` in the variables that chat templates have for it."""

from __future__ import annotations

from collections.abc import Container, Mapping

from server.errors import InvalidRequest
from server.types import ReasoningEffort, TemplateOption

_LEVEL = "reasoning_effort"
_SWITCHES = ("enable_thinking", "thinking")
_LEVELS: Mapping[ReasoningEffort, str] = {"minimal": "low", "xhigh": "high"}
"""For the efforts that templates do not know."""


def effort_options(effort: ReasoningEffort | None, known: Container[str]) -> dict[str, TemplateOption]:
    """Variables that tell a template how much its model is to think.

    Args:
        known: Variables that the template reads.

    Raises:
        InvalidRequest: The model cannot be told.
    """
    if effort is None:
        return {}
    options: dict[str, TemplateOption] = {name: effort != "none" for name in _SWITCHES if name in known}
    if effort != "none" and _LEVEL in known:
        options[_LEVEL] = _LEVELS.get(effort, effort)
    if not options and (effort != "none" or _LEVEL in known):
        advice = (
            "it cannot be stopped from thinking; use 'low'" if _LEVEL in known else "its template has no such setting"
        )
        message = f"reasoning_effort {effort!r} is not supported by this model: {advice}"
        raise InvalidRequest(message, param="reasoning_effort", code="unsupported_value")
    return options
