"""Templates that never end, take all memory, or bring their process down: the next render is as good as the first."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from server.prompting.sandboxed_template import TemplateFailed, TemplateTooCostly
from server.prompting.template_process import TemplateProcess

BOMBS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "text": "{{ 'x' * 10**10 }}",
    "doubled text": "{% set ns = namespace(s='x') %}{% for i in range(50) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubled lists": "{% set ns = namespace(s=[]) %}{% for i in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
    "{{ ns.s }}",
    "compared lists": "{% set ns = namespace(a=[], b=[]) %}{% for i in range(50) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "numbers": "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "power": "{% set n = 9 %}{{ n ** (n ** n) }}",
    "format": "{{ '%1000000000d' | format(messages|length) }}",
    "percent": "{{ '%01000000000d' % messages|length }}",
    "format method": "{{ '{:1000000000d}'.format(messages|length) }}",
    "filters": "{{ 'x' | center(10**10) }}",
    "method": "{{ 'x'.ljust(10**10) }}",
    "join": "{{ range(99999) | join('x' * 10**6) }}",
    "replace": "{{ ('x' * 10**6) | replace('x', 'x' * 10**6) }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list | length }}",
    "indent": "{{ messages | tojson(indent=10**10) }}",
    "lorem ipsum": "{{ lipsum(n=10**7) }}",
    "forked recursion": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "output": "{% for i in range(99999) %}{{ 'x' * 10**5 }}{% endfor %}",
    "sum": "{{ [messages * 10**5] * 10**4 | sum(start=[]) }}",
}
CALM, SAID = {"messages": ["hi"]}, "hi"


@pytest.fixture(scope="module")
def bombs() -> Iterator[TemplateProcess]:
    """All of them, each for who asks for it."""
    branches = "".join(f"{{% elif bomb == '{name}' %}}{text}" for name, text in BOMBS.items())
    process = TemplateProcess("{% if not bomb %}{{ messages[0] }}" + branches + "{% endif %}")
    yield process
    process.close()


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_hurts_nobody_else(bombs: TemplateProcess, name: str) -> None:
    started_s = time.monotonic()

    with pytest.raises(TemplateFailed):
        bombs.render({**CALM, "bomb": name})

    assert time.monotonic() - started_s < 20
    assert bombs.render(CALM) == SAID


@pytest.mark.parametrize(
    ("name", "limit"),
    [("loops", "1 s of processor time"), ("text", "1024 MiB of memory"), ("output", "characters")],
)
def test_whoever_goes_beyond_a_limit_is_told_which(bombs: TemplateProcess, name: str, limit: str) -> None:
    with pytest.raises(TemplateTooCostly, match=limit):
        bombs.render({**CALM, "bomb": name})


def test_deep_recursion_ends_in_an_error_not_in_a_crash() -> None:
    process = TemplateProcess("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")

    with pytest.raises(TemplateFailed, match="recursion"):
        process.render({})

    process.close()


@pytest.mark.parametrize("source", ["{{ 9 ** (9 ** 9) }}", "{% for %}"])
def test_a_template_that_cannot_be_compiled_fails_at_once(source: str) -> None:
    with pytest.raises(TemplateFailed):
        TemplateProcess(source)


def test_a_text_that_was_not_read_is_not_taken_for_the_next(
    bombs: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(select, "select", Mock(side_effect=KeyboardInterrupt))
        bombs.render({"messages": ["of somebody else"]})

    assert bombs.render(CALM) == SAID


def test_threads_take_turns(bombs: TemplateProcess) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda n: bombs.render({"messages": [str(n)]}), range(200)))

    assert said == [str(n) for n in range(200)]


def test_the_longest_message_is_rendered(bombs: TemplateProcess) -> None:
    text = "é" * (16 << 20)

    assert bombs.render({"messages": [text]}) == text
