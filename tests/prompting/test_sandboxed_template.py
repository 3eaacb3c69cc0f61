"""Templates that try to leave their sandbox: every way that is known to have worked somewhere, and none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.prompting.sandboxed_template import SandboxedTemplate, TemplateFailed, TemplateTooCostly

GIVEN = {"messages": [{"role": "user", "content": "a"}], "bos_token": "<s>"}

ESCAPES = [
    "{{ lipsum.__globals__['os'].popen('touch FILE').read() }}",
    "{{ cycler.__init__.__globals__.os.system('touch FILE') }}",
    "{{ joiner.__init__.__globals__.os.system('touch FILE') }}",
    "{{ namespace.__init__.__globals__.os.system('touch FILE') }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ range.__class__.__base__.__subclasses__() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ [].__class__.__base__.__subclasses__()[0] }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'][1]['__subclasses__']() }}",
    "{{ ''|attr('__cla' ~ 'ss__')|attr('__base__') }}{{ x.y.z }}",
    "{{ messages|map(attribute='__class__.__init__.__globals__')|first|attr('x')|attr('y').z() }}",
    "{{ ['format']|map(attribute='__class__')|list|first|attr('mro')() }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ ['{0.__class__}']|map('format', '')|first + messages[9].x }}",
    "{{ self.__init__.__globals__.__builtins__.open('FILE', 'w') }}",
    "{{ self._TemplateReference__context.environment.from_string('x') }}",
    "{{ raise_exception.__globals__.__builtins__['open']('FILE', 'w') }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{% set f = joiner.__init__.__globals__.get('__builtins__') %}{{ f['eval']('1') }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{{ m.__globals__.x }}",
    "{% for x in messages %}{{ loop.__init__.__globals__.x }}{% endfor %}",
    "{% set g %}{% endset %}{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ (messages|select).gi_frame.f_back.f_globals.x }}",
    "{{ messages.append('x') }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].setdefault('x', 1) }}",
    "{{ messages|map('append', 'x')|list }}",
    "{% set messages[0].role = 'system' %}",
    "{% include 'FILE' %}",
    "{% extends 'FILE' %}",
    "{% from 'os' import system %}{{ system('touch FILE') }}",
    "{% import 'os' as os %}{{ os.system('touch FILE') }}",
    "{{ open('FILE', 'w') }}",
    "{{ __import__('os').system('touch FILE') }}",
    "{{ config.__class__.from_envvar.__globals__ }}",
    "{{ request.application.__globals__.__builtins__ }}",
    "{{ get_flashed_messages.__globals__.current_app.config }}",
    "{{ ''.join.__self__.__class__.__base__.__subclasses__() }}",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_template_cannot_leave_its_sandbox(escape: str, tmp_path: Path) -> None:
    file = tmp_path / "pwned"

    with pytest.raises(TemplateFailed):
        SandboxedTemplate(escape.replace("FILE", str(file))).render(GIVEN)

    assert not file.exists()
    assert GIVEN == {"messages": [{"role": "user", "content": "a"}], "bos_token": "<s>"}


@pytest.mark.parametrize(
    "look",
    [
        "{{ '' | attr('__class__') }}",
        "{{ [''] | map(attribute='__class__') | first }}",
        "{{ ''.__class__ }}",
        "{{ '%s'.format_map.__self__.__class__ }}",
        "{{ raise_exception.__code__ }}",
        "{{ strftime_now.func_globals }}",
        "{{ messages[0].__dict__ }}",
        "{{ range.mro }}",
        "{{ (''|attr('__class__'))|attr('__mro__')|first }}",
        "{{ '{m.__class__}'.format_map({'m': ''}) }}",
        "{{ ('{0.__class__}'|attr('format'))('') }}",
        "{{ {'f': '{0.__class__}'.format}.f('') }}",
    ],
)
def test_what_lies_outside_the_sandbox_is_not_there(look: str) -> None:
    assert SandboxedTemplate(look).render(GIVEN) == ""


def test_the_text_ends_where_it_gets_too_long() -> None:
    endless = SandboxedTemplate("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}")

    with pytest.raises(TemplateTooCostly, match="more than 1000 characters"):
        endless.render({}, max_chars=1000)


def test_it_says_which_variables_it_reads() -> None:
    template = SandboxedTemplate("{% if enable_thinking %}{{ messages[0].content }}{% endif %}{% set x = 1 %}{{ x }}")

    assert template.variables == {"enable_thinking", "messages"}
