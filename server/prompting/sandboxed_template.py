"""One chat template in Jinja's immutable sandbox, compiled.

The sandbox keeps a template from what it must not touch. It does not keep it from taking all the time and memory there
is: a few characters are enough, and the worst of it happens inside a single call that nothing in Python can interrupt.
So workers have this run by a process that may be killed (`template_process.py`).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import NoReturn, Protocol

import jinja2
from jinja2 import meta
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Variables = Mapping[str, object]
"""What a template is given: plain dicts, lists, texts, numbers."""


class TemplateFailed(Exception):
    """A template does not compile, or refuses what it is given, or breaks; the message says why."""


class TemplateTooCostly(TemplateFailed):
    """It goes beyond a limit; the message names it."""


class Renderer(Protocol):
    """A compiled template.

    Attributes:
        variables: Names that it reads from what it is given.
    """

    @property
    def variables(self) -> frozenset[str]: ...

    def render(self, variables: Variables) -> str:
        """Make a text. Any thread may call it.

        Raises:
            TemplateFailed: There is none.
        """


class SandboxedTemplate:
    """A compiled template, without limits.

    Args:
        source: Jinja text from the weights.

    Raises:
        TemplateFailed: It does not compile.
    """

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag], autoescape=False
        )
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        environment.filters["tojson"] = to_json
        try:
            self._template = environment.from_string(source)
            self.variables = frozenset(meta.find_undeclared_variables(environment.parse(source)))
        except MemoryError:  # constants are computed meanwhile
            raise
        except Exception as exc:
            raise TemplateFailed(_reason(exc)) from exc

    def render(self, variables: Variables, *, max_chars: int | None = None) -> str:
        """Make a text.

        Raises:
            TemplateFailed: A template may fail with anything, as programs do.
            TemplateTooCostly: The text would have more than `max_chars`.
        """
        pieces: list[str] = []
        num_chars = 0
        try:
            for piece in self._template.generate(variables):
                num_chars += len(piece)
                if max_chars is not None and num_chars > max_chars:
                    raise TemplateTooCostly(f"it makes a text of more than {max_chars} characters")
                pieces.append(piece)
        except (TemplateTooCostly, MemoryError):
            raise
        except Exception as exc:
            raise TemplateFailed(_reason(exc)) from exc
        return "".join(pieces)


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def to_json(
    value: object,
    *,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers: Jinja's own filter escapes for HTML, which no model was trained on.

    `ensure_ascii` would hide the stand-ins of the quarantine, so it is taken and ignored.
    """
    if isinstance(value, Generator):  # what Jinja's own filters give, such as `map`
        value = list(value)
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    """Templates call this to refuse a conversation."""
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Templates call this to tell the model the date."""
    return datetime.now().strftime(pattern)


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
