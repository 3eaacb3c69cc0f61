"""What a worker and the process that renders its chat template say to each other, in msgpack."""

from __future__ import annotations

from typing import Any

import msgspec

from server.prompting.sandboxed_template import TemplateFailed, TemplateTooCostly


class Compile(msgspec.Struct, frozen=True):
    """The first message, and the only one of its kind."""

    source: str


class Compiled(msgspec.Struct, frozen=True, tag=True):
    """What becomes of it. See `Renderer.variables`."""

    variables: list[str]


class Render(msgspec.Struct, frozen=True):
    """Every further message."""

    variables: dict[str, Any]


class Rendered(msgspec.Struct, frozen=True, tag=True):
    """What becomes of one."""

    text: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """What else may become of either."""

    reason: str
    is_too_costly: bool = False

    def error(self) -> TemplateFailed:
        return TemplateTooCostly(self.reason) if self.is_too_costly else TemplateFailed(self.reason)


Answer = Compiled | Rendered | Refused
