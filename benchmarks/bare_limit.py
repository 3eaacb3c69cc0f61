"""The bare limit: the tokens of a load through `llama_decode` in a plain loop, without server, scheduler or sampling.

    python -m benchmarks.bare_limit --streams < bodies.json

Reads chat request bodies as a JSON list from standard input, so that it computes the very prompts that servers were
sent, and prints `{"tokens_per_s": ...}`. A process of its own, so that memory and threads are too.

Rounds of `--width` sequences: their whole prompts in batches of up to 2,048 tokens, then one token each a step. What
follows a token costs nothing here: the next one is not sampled but taken from the prompt, which computes as slowly.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import DECODED, LlamaContext
from server.bindings.llama_model import LlamaModel
from server.prompting.chat_template import ChatTemplate
from server.prompting.sandboxed_template import SandboxedTemplate
from server.types import ChatMessage, TokenIds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cells", type=int, default=32768)
    parser.add_argument("--width", type=int, default=16, help="sequences at a time")
    parser.add_argument("--streams", action="store_true", help="cells of its own for each sequence")
    parser.add_argument("--flash-attention", action="store_true")
    arguments = parser.parse_args()
    options = ContextOptions(
        num_cells=arguments.cells,
        max_sequences=arguments.width,
        num_threads=arguments.threads,
        streams=arguments.streams,
        flash_attention=arguments.flash_attention,
    )
    bodies = json.load(sys.stdin)
    with LlamaModel(arguments.weights) as model, LlamaContext(model, options) as context:
        prompts = tokenize(model, bodies)
        generate(context, prompts[: arguments.width], num_tokens=2)  # warm up
        started = time.perf_counter()
        for round_ in rounds(prompts, arguments.width):
            generate(context, round_, num_tokens=bodies[0]["max_tokens"])
        wall_s = time.perf_counter() - started
    print(json.dumps({"tokens_per_s": len(prompts) * bodies[0]["max_tokens"] / wall_s}))


def tokenize(model: LlamaModel, bodies: Sequence[dict[str, object]]) -> list[TokenIds]:
    """The prompts as the chat worker makes them."""
    vocab = model.vocab
    template = ChatTemplate(
        model.metadata("tokenizer.chat_template"),
        SandboxedTemplate,
        model=model.architecture,
        control_texts=vocab.control_texts,
        bos=vocab.bos,
        eos=vocab.eos,
    )
    return [
        [
            token_id
            for piece in template.render([ChatMessage(**message) for message in body["messages"]])  # type: ignore[attr-defined]  # JSON
            for token_id in vocab.tokenize(piece.text, parse_special=piece.parse_special)
        ]
        for body in bodies
    ]


def generate(context: LlamaContext, prompts: Sequence[TokenIds], *, num_tokens: int) -> None:
    """`num_tokens` tokens after each prompt; all side by side, each in the sequence of its place."""
    for places in batches(prompts, context.options.max_batch_tokens):
        _decode(context, [(place, 0, prompts[place]) for place in places])
    for step in range(num_tokens - 1):  # the first token came with the prompt
        _decode(
            context,
            [(place, len(prompt) + step, [prompt[step % len(prompt)]]) for place, prompt in enumerate(prompts)],
        )
    for place in range(len(prompts)):
        context.remove(place)


def rounds(prompts: Sequence[TokenIds], width: int) -> Iterator[Sequence[TokenIds]]:
    for start in range(0, len(prompts), width):
        yield prompts[start : start + width]


def batches(prompts: Sequence[TokenIds], max_tokens: int) -> Iterator[list[int]]:
    """Places of prompts that fit into a batch together, in order."""
    places: list[int] = []
    for place, prompt in enumerate(prompts):
        if places and sum(len(prompts[other]) for other in places) + len(prompt) > max_tokens:
            yield places
            places = []
        places.append(place)
    yield places


def _decode(context: LlamaContext, runs: Sequence[tuple[int, int, TokenIds]]) -> None:
    """Compute runs of (sequence id, first position, token ids); the last token of each wants logits."""
    lengths = [len(token_ids) for _, _, token_ids in runs]
    wants_logits = np.zeros(sum(lengths), np.bool_)
    wants_logits[np.cumsum(lengths) - 1] = True
    status = context.decode(
        np.fromiter(itertools.chain.from_iterable(token_ids for _, _, token_ids in runs), np.int32),
        np.concatenate([np.arange(start, start + len(token_ids), dtype=np.int32) for _, start, token_ids in runs]),
        np.repeat([seq_id for seq_id, _, _ in runs], lengths).astype(np.int32),
        wants_logits,
    )
    assert status == DECODED, status
    context.logits(len(runs))  # waits until they are there


if __name__ == "__main__":
    main()
