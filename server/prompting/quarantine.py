"""Keeps text that a user wrote from becoming control tokens while a template makes a prompt of it.

Before rendering, each control-token string in such a text is replaced by one private-use character, and brought back
after it as text that is to be tokenised without control tokens. Everything else is rendered as it stands: prompts
without such strings, nearly all, are tokenised in one piece, exactly as the model was trained.

That leaves strings that are made of both: a template that writes `<` and `>` around a name, and a name like `|im_end|`.
Where a text begins or ends with what could be part of a control-token string, the prompt is rendered once more with the
characters at its edges in quarantine as well. If that changes which control tokens there are, it is the one to use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import InvalidRequest

_MARKS = [chr(code) for code in range(0xF0000, 0xF0000 + 4096)]
"""Stand-ins: supplementary private-use characters, which no template tests for. A text that holds one itself has it
replaced like a control-token string."""


@dataclass(frozen=True)
class PromptPiece:
    """Part of a rendered prompt. Only where `parse_special` may control-token strings become control tokens."""

    text: str
    parse_special: bool


class ControlTexts:
    """The strings of a model's control tokens, e.g. "<|im_end|>"."""

    def __init__(self, texts: Iterable[str]) -> None:
        longest_first = sorted({*texts} - {""}, key=len, reverse=True)
        self.pattern = re.compile("|".join([*map(re.escape, longest_first)]) or "(?!)")
        self.forbidden = re.compile("|".join([*map(re.escape, longest_first), f"[{_MARKS[0]}-{_MARKS[-1]}]"]))
        self._beginnings = {text[:length] for text in longest_first for length in range(1, len(text))}
        self._ends = {text[-length:] for text in longest_first for length in range(1, len(text))}
        self._longest = max(map(len, longest_first), default=0)
        self._all = "\n".join(longest_first)

    def may_extend_left(self, text: str) -> bool:
        """Whether a control-token string could begin before `text` and end in it, or behind it."""
        return text in self._all or any(text[:length] in self._ends for length in range(1, self._longest))

    def may_extend_right(self, text: str) -> bool:
        return text in self._all or any(text[-length:] in self._beginnings for length in range(1, self._longest))


def render_safely(render: Callable[[Quarantine], str], controls: ControlTexts) -> list[PromptPiece]:
    """Render with whatever user's text went through the quarantine that `render` is given, once or twice."""
    quarantine = Quarantine(controls)
    pieces = quarantine.split(render(quarantine))
    if not quarantine.has_seen_edges:
        return pieces
    strict = Quarantine(controls, guards_edges=True)
    strict_pieces = strict.split(render(strict))
    is_same = _controls_in(pieces, controls) == _controls_in(strict_pieces, controls)
    return pieces if is_same else strict_pieces


class Quarantine:
    """What was taken out of one prompt.

    Attributes:
        has_seen_edges: A text may form a control-token string together with what stands around it.
    """

    def __init__(self, controls: ControlTexts, *, guards_edges: bool = False) -> None:
        self._controls = controls
        self._guards_edges = guards_edges
        self._mark_of: dict[str, str] = {}
        self.has_seen_edges = False

    def clean(self, text: str) -> str:
        """The text as a template may see it."""
        clean = self._controls.forbidden.sub(lambda match: self._mark(match.group()), text)
        core = clean.strip()  # templates do that, too
        if not core:
            return clean
        left, right = self._controls.may_extend_left(core), self._controls.may_extend_right(core)
        if not left and not right:
            return clean
        self.has_seen_edges = True
        if not self._guards_edges:
            return clean
        start = clean.index(core)
        end = start + len(core)
        guarded = {at for at, is_edge in ((start, left), (end - 1, right)) if is_edge}  # none of them is a mark already
        return "".join(self._mark(char) if at in guarded else char for at, char in enumerate(clean))

    def clean_json(self, value: Any) -> Any:
        """A JSON value with all its texts cleaned, those of its keys included."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {self.clean(key): self.clean_json(each) for key, each in value.items()}
        if isinstance(value, Sequence):
            return [self.clean_json(each) for each in value]
        return value

    def split(self, text: str) -> list[PromptPiece]:
        """The rendered prompt, with everything brought back."""
        if not self._mark_of:
            return [PromptPiece(text, parse_special=True)]
        text_of = {mark: original for original, mark in self._mark_of.items()}
        parts = re.split(f"([{''.join(text_of)}])", text)
        return [PromptPiece(text_of.get(part, part), parse_special=part not in text_of) for part in parts if part]

    def _mark(self, original: str) -> str:
        if original not in self._mark_of:
            if len(self._mark_of) == len(_MARKS):
                raise InvalidRequest("the messages hold too many different control-token strings", param="messages")
            self._mark_of[original] = _MARKS[len(self._mark_of)]
        return self._mark_of[original]


def _controls_in(pieces: Sequence[PromptPiece], controls: ControlTexts) -> list[str]:
    return [found for piece in pieces if piece.parse_special for found in controls.pattern.findall(piece.text)]
