"""Models whose chat templates attack whoever renders them: from the start, or once a message says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.errors import InvalidRequest, LoadFailed
from server.types import ChatMessage, ChatPrompt
from server.workers.chat_prompts import ChatPrompts
from tests.fakes.tiny_models import write_speaking

pytestmark = pytest.mark.integration

CONFIG = ModelConfig(id="tiny", kind="chat", backend="llama_cpp", source="file:x.gguf")
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@contextmanager
def prompts_of(template: str, folder: Path) -> Iterator[ChatPrompts]:
    write_speaking(folder / "model.gguf", template, [])
    with LlamaModel(folder / "model.gguf") as model:
        prompts = ChatPrompts(model, CONFIG, context_length=1000)
        try:
            yield prompts
        finally:
            prompts.close()


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (LOOPS, "not safe to use: it takes more than 1 s of processor time"),
        (
            "{{ 'x' * 10**9 * messages|length }}",
            "does not compile: it takes more than (1024 MiB of memory|5 s of processor time)",
        ),
        ("{{ messages[0].__class__.__mro__ }}", "renders no conversation: access to attribute '__class__'"),
        ("{% for m in messages %}", "does not compile"),
    ],
)
def test_such_a_model_is_not_loaded(template: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=reason), prompts_of(template, tmp_path):
        pass


def test_a_message_that_sets_it_off_is_refused_and_the_next_is_served(tmp_path: Path) -> None:
    template = "{% if messages[0].content == 'boom' %}" + LOOPS + "{% endif %}{{ messages[0].content }}"

    with prompts_of(template, tmp_path) as prompts:
        with pytest.raises(
            InvalidRequest, match="model 'tiny' refuses these messages: it takes more than 1 s"
        ) as refusal:
            prompts.token_ids(ChatPrompt((ChatMessage(role="user", content="boom"),)))
        token_ids = prompts.token_ids(ChatPrompt((ChatMessage(role="user", content="hi"),)))

    assert (refusal.value.code, refusal.value.param) == ("template_error", "messages")
    assert token_ids
