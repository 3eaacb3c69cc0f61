"""llama.cpp itself, through our bindings, with the default chat model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import DECODED, NO_KV_SLOT, LlamaContext
from server.bindings.llama_model import LlamaModel
from server.errors import LoadFailed

pytestmark = pytest.mark.integration

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def gguf(live_config: Path) -> Path:
    from tests.integration.live_models import REPOSITORY

    [path] = (REPOSITORY / "weights" / "smollm2-135m-instruct").glob("*.gguf")
    return path


@pytest.fixture(scope="module")
def model(gguf: Path) -> Iterator[LlamaModel]:
    with LlamaModel(gguf) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def controls(model: LlamaModel) -> set[int]:
    vocab = model.vocab
    return {token_id for token_id in range(vocab.size) if vocab.text_of(token_id) in vocab.control_texts}


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    options = ContextOptions(num_cells=512, max_sequences=4, max_batch_tokens=64, max_ubatch_tokens=16, num_threads=2)
    with LlamaContext(model, options) as made:
        yield made


def decode(context: LlamaContext, runs: dict[int, list[int]], *, start: int = 0, wants: str = "last") -> Any:
    """Compute runs of tokens by sequence id; logits of the last token of each (or of all), or the failed status."""
    token_ids = np.array([token for run in runs.values() for token in run], np.int32)
    positions = np.concatenate([np.arange(start, start + len(run)) for run in runs.values()]).astype(np.int32)
    seq_ids = np.repeat(list(runs), [len(run) for run in runs.values()]).astype(np.int32)
    wants_logits = np.full(len(token_ids), wants == "all")
    wants_logits[np.cumsum([len(run) for run in runs.values()]) - 1] = True
    status = context.decode(token_ids, positions, seq_ids, wants_logits)
    return context.logits(int(wants_logits.sum())).copy() if status == DECODED else status


def assert_alike(logits: np.ndarray, others: np.ndarray) -> None:
    """The same up to what 4-bit kernels for different batch sizes make of it; a wrong cell or position gives another
    picture altogether."""
    assert np.corrcoef(logits, others)[0, 1] > 0.99
    assert others[logits.argmax()] > others.max() - 0.5


@settings(max_examples=200, deadline=None)
@given(st.text())
@example("a\0b")
@example("<|im_start|>user\n")
@example("  two spaces,\ttab\r\n\n")
@example("𝔘𝔫𝔦 ﷽ 👩‍👩‍👧 é é \U000f0000")
def test_text_survives_the_round_trip_through_tokens(model: LlamaModel, text: str) -> None:
    """But for bytes that the vocabulary has no token for: this model's lacks those of far planes of Unicode."""
    assume({bytes([byte]) for byte in text.encode()} <= {piece for piece in model.vocab.pieces if len(piece) == 1})

    token_ids = model.vocab.tokenize(text, parse_special=False)

    assert b"".join(model.vocab.pieces[token_id] for token_id in token_ids).decode() == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|", "im_end", "|>", "a", " "])))
def test_message_text_gives_no_control_token(model: LlamaModel, controls: set[int], snippets: list[str]) -> None:
    assert not controls & set(model.vocab.tokenize("".join(snippets), parse_special=False))


def test_template_text_gives_the_control_tokens(model: LlamaModel) -> None:
    vocab = model.vocab

    [start, *_, end] = vocab.tokenize("<|im_start|>user\nhi<|im_end|>", parse_special=True)

    assert (vocab.text_of(start), vocab.text_of(end)) == ("<|im_start|>", "<|im_end|>")
    assert vocab.is_end[end]
    assert vocab.pieces[end] == b""
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(vocab.control_texts)


def test_the_model_tells_its_facts(model: LlamaModel) -> None:
    assert (model.architecture, model.context_length) == ("llama", 8192)
    assert model.num_parameters == 134_515_008
    assert "im_start" in model.metadata("tokenizer.chat_template")
    assert model.metadata("no.such.key") == ""


def test_a_batch_says_what_its_sequences_say_one_token_at_a_time(model: LlamaModel, context: LlamaContext) -> None:
    """Three prompts in one decode over several micro-batches, against each alone, token by token."""
    prompts = {
        seq_id: model.vocab.tokenize(text, parse_special=False)
        for seq_id, text in enumerate([PROMPT, "one two three four five six seven", "x"])
    }

    together = decode(context, prompts, wants="all")
    assert isinstance(together, np.ndarray)

    row = 0
    for prompt in prompts.values():
        context.remove(3)
        for position, token_id in enumerate(prompt):
            alone = decode(context, {3: [token_id]}, start=position)
            assert isinstance(alone, np.ndarray)
            assert_alike(together[row], alone[0])
            row += 1


def test_removed_cells_are_free_and_forgotten(model: LlamaModel, context: LlamaContext) -> None:
    prompt = model.vocab.tokenize(PROMPT, parse_special=False)
    before = decode(context, {0: prompt})
    filler = [prompt[0]] * 56
    for n in range(9):
        assert isinstance(decode(context, {1: filler}, start=n * 56), np.ndarray)

    assert decode(context, {2: filler}) == NO_KV_SLOT
    context.remove(0)
    context.remove(1)

    assert_alike(decode(context, {2: prompt})[0], before[0])


def test_a_sequence_can_be_cut_and_continued(model: LlamaModel, context: LlamaContext) -> None:
    prompt = model.vocab.tokenize(PROMPT, parse_special=False)
    before = decode(context, {0: prompt})

    assert context.remove(0, start=len(prompt) - 1)

    assert_alike(decode(context, {0: prompt[-1:]}, start=len(prompt) - 1)[0], before[0])


LOAD = """
import sys
from pathlib import Path
from typing import Any
from server.bindings.llama_model import LlamaModel
from server.errors import LoadFailed

try:
    LlamaModel(Path(sys.argv[1]))
except LoadFailed as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "not a GGUF file"),
        (lambda data: b"<!doctype html>", "not a GGUF file: it starts with b'<!do'"),
        (lambda data: data[:4], "failed to read header"),
        (lambda data: data[:5000], "failed to read key-value pairs"),
        (lambda data: data[: len(data) // 2], "data is not within the file bounds"),
        (lambda data: data[:4] + b"\x7f" * 4 + data[8:], "is version 2139062143"),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], "number of tensors is -1"),
        (lambda data: data[:24] + b"\x7f" * 64 + data[88:], "string length"),
    ],
    ids=["empty", "html", "magic", "metadata", "half", "version", "tensors", "garbled"],
)
def test_a_damaged_file_is_refused_and_nothing_dies(gguf: Path, tmp_path: Path, damage, reason: str) -> None:  # type: ignore[no-untyped-def]  # a lambda
    """In a child: what llama.cpp does not refuse may be an abort."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(damage(gguf.read_bytes()))

    ended = subprocess.run(
        [sys.executable, "-c", LOAD, damaged], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert reason in ended.stdout


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"cannot read absent\.gguf: No such file"):
        LlamaModel(tmp_path / "absent.gguf")
