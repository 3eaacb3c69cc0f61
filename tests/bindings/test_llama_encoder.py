from __future__ import annotations

import random

import numpy as np

from server.bindings.llama_encoder import MAX_CALL_SEQUENCES, Tokens, common_prefix, pack


def tokens(*sequences: list[int]) -> list[Tokens]:
    return [np.array(each, np.int32) for each in sequences]


def calls(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Lengths of the sequences of each call."""
    sequences = tokens(*([7] * length for length in lengths))
    return [[lengths[index] for index in call] for call in pack(sequences, max_tokens)]


def test_a_call_takes_what_fits_in_order() -> None:
    assert calls([3, 4, 3, 1, 9], 10) == [[3, 4, 3], [1, 9]]


def test_what_does_not_fit_goes_alone() -> None:
    assert calls([2, 50, 2], 10) == [[2], [50], [2]]


def test_nothing_is_lost_and_no_call_is_too_large() -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    lengths = [rng.randint(1, 40) for _ in range(500)]

    made = calls(lengths, 100)

    assert [length for call in made for length in call] == lengths, seed
    assert all(sum(call) <= 100 and len(call) <= MAX_CALL_SEQUENCES for call in made), seed


def test_what_sequences_begin_with_counts_once_and_brings_them_together() -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    prompts = [[query] * 30 for query in range(3)]
    sequences = tokens(*(rng.choice(prompts) + rng.choices(range(10, 99), k=rng.randint(1, 20)) for _ in range(200)))

    made = list(pack(sequences, 100, shares_prefixes=True))

    assert sorted(index for call in made for index in call) == list(range(200)), seed
    for call in made:
        shared = common_prefix([sequences[index] for index in call]) if len(call) > 1 else 0
        assert shared + sum(len(sequences[index]) - shared for index in call) <= 100, seed
    assert len(made) <= 200 * 10.5 / 70 * 1.5, seed


def test_the_common_prefix_ends_where_sequences_part() -> None:
    prompt = list(range(20))

    assert common_prefix(tokens([*prompt, 3, 4], [*prompt, 9, 4], [*prompt, 3])) == 20


def test_a_short_common_prefix_is_none() -> None:
    """Computing it would cost a call of its own."""
    assert common_prefix(tokens([1, 2, 3], [1, 2, 4])) == 0


def test_the_last_token_is_nobodys_prefix() -> None:
    """Its output is wanted, so each sequence must compute it."""
    prompt = list(range(20))

    assert common_prefix(tokens(prompt, [*prompt, 4])) == 19
