"""`reasoning_effort` for templates that know it, or something like it, or nothing."""

from __future__ import annotations

import pytest

from server.errors import InvalidRequest
from server.prompting.reasoning_effort import effort_options
from server.types import ReasoningEffort


@pytest.mark.parametrize(
    ("effort", "known", "options"),
    [
        (None, {"enable_thinking"}, {}),
        ("none", {"enable_thinking", "tools"}, {"enable_thinking": False}),
        ("high", {"enable_thinking"}, {"enable_thinking": True}),
        ("low", {"thinking"}, {"thinking": True}),
        ("low", {"reasoning_effort"}, {"reasoning_effort": "low"}),
        ("minimal", {"reasoning_effort"}, {"reasoning_effort": "low"}),
        ("xhigh", {"reasoning_effort"}, {"reasoning_effort": "high"}),
        ("medium", {"reasoning_effort", "thinking"}, {"reasoning_effort": "medium", "thinking": True}),
        ("none", {"reasoning_effort", "thinking"}, {"thinking": False}),
        ("none", set(), {}),
    ],
)
def test_an_effort_is_said_in_the_templates_words(
    effort: ReasoningEffort | None, known: set[str], options: dict[str, object]
) -> None:
    assert effort_options(effort, known) == options


@pytest.mark.parametrize(("effort", "known"), [("high", set()), ("none", {"reasoning_effort"})])
def test_an_effort_that_cannot_be_said_is_refused(effort: ReasoningEffort, known: set[str]) -> None:
    with pytest.raises(InvalidRequest, match="not supported by this model") as refusal:
        effort_options(effort, known)

    assert (refusal.value.param, refusal.value.code) == ("reasoning_effort", "unsupported_value")
