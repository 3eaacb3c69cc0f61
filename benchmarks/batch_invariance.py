"""How much company changes logits: the reason why a batched answer may differ from the same one alone.

    python -m benchmarks.batch_invariance         # half a minute on two cores

The default chat model computes texts one token at a time alone; then the same tokens again in other ways that the
engine uses: beside 15 other sequences, in one prefill, in chunks, as a draft of 5. llama.cpp picks kernels by the size
of a batch, and they add in other orders. Writes the section `batch_invariance` of benchmarks/results/chat.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.chat_contenders import THREADS, WEIGHTS
from benchmarks.prompts import Prompts
from benchmarks.results import CHAT, Section, environment, save_section
from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import DECODED, LlamaContext
from server.bindings.llama_model import LlamaModel

NUM_SEQUENCES = 16
NUM_TOKENS = 64

Logits = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CHAT)
    arguments = parser.parse_args()
    with LlamaModel(WEIGHTS) as model:
        texts = [model.vocab.tokenize(Prompts(n).words(90), parse_special=False) for n in range(NUM_SEQUENCES)]
        texts = [text[:NUM_TOKENS] for text in texts]
        layouts = {
            f"{layout}, flash attention {'on' if flash else 'off'}": compare(model, texts, layout == "streams", flash)
            for layout in ("unified", "streams")
            for flash in (False, True)
        }
    save_section({"environment": environment(), "layouts": layouts}, "batch_invariance", path=arguments.out)


def compare(model: LlamaModel, texts: list[list[int]], streams: bool, flash_attention: bool) -> dict[str, Section]:
    """Logits of the first text, computed in several ways, against those computed token by token alone."""
    options = ContextOptions(
        num_cells=256 * NUM_SEQUENCES,
        max_sequences=NUM_SEQUENCES,
        num_threads=THREADS,
        streams=streams,
        flash_attention=flash_attention,
    )
    ways = {"beside 15 others": (texts, 1), "draft of 5": (texts[:1], 5), "chunks of 24": (texts[:1], 24)}
    with LlamaContext(model, options) as context:
        alone = rows_of_first(context, texts[:1], chunk=1)
        found = {}
        for name, (company, chunk) in {**ways, "one prefill": (texts[:1], NUM_TOKENS)}.items():
            found[name] = difference(alone, rows_of_first(context, company, chunk=chunk))
            print(f"streams {streams} flash {flash_attention} {name}: {found[name]}", flush=True)
    return found


def rows_of_first(context: LlamaContext, texts: list[list[int]], *, chunk: int) -> Logits:
    """Logits of the first of several texts computed side by side, `chunk` tokens of each at a time."""
    rows = [logits[:chunk].copy() for logits in decode_in_chunks(context, texts, chunk)]
    for seq_id in range(len(texts)):
        context.remove(seq_id)
    return np.concatenate(rows)[:NUM_TOKENS]


def decode_in_chunks(context: LlamaContext, texts: list[list[int]], chunk: int) -> Iterator[Logits]:
    for start in range(0, NUM_TOKENS, chunk):
        pieces = [text[start : start + chunk] for text in texts]
        token_ids = np.concatenate([np.array(piece, np.int32) for piece in pieces])
        positions = np.concatenate([np.arange(start, start + len(piece), dtype=np.int32) for piece in pieces])
        seq_ids = np.repeat(np.arange(len(texts), dtype=np.int32), [len(piece) for piece in pieces])
        status = context.decode(token_ids, positions, seq_ids, np.ones(len(token_ids), np.bool_))
        assert status == DECODED
        yield context.logits(len(token_ids))


def difference(expected: Logits, actual: Logits) -> Section:
    """Largest difference of any logit, the spread that logits have, and how often the best token is another one."""
    return {
        "max_difference": round(float(np.abs(expected - actual).max()), 4),
        "std_of_logits": round(float(expected.std()), 2),
        "other_best_tokens": int((expected.argmax(axis=1) != actual.argmax(axis=1)).sum()),
        "num_tokens": len(expected),
    }


if __name__ == "__main__":
    main()
