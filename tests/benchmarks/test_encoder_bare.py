from __future__ import annotations

from benchmarks.encoder_bare import batches
from server.encoders.encoder import EncodedItem


def test_a_batch_is_as_large_as_its_padded_size_allows() -> None:
    items = [EncodedItem([0] * length, [0] * length) for length in (2, 3, 4, 5, 20)]

    assert [[item.num_tokens for item in batch] for batch in batches(items, 10)] == [[2, 3], [4, 5], [20]]
