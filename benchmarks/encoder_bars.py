"""What the embeddings and rerank benchmarks have to show: which figures are compared, with whom, and what to reach."""

from __future__ import annotations

from benchmarks.bars import Bar, Role

OTHERS: dict[Role, str] = {
    "infinity": "Infinity",
    "infinity-bf16": "Infinity in bfloat16",
    "plain": "plain sentence-transformers",
    "bare": "bare forward pass",
}

EMBEDDING_BARS = (
    Bar(load="c16", figure="items_per_s", label="texts/s", against="infinity", least=5.0),
    Bar(load="c16", figure="items_per_s", label="texts/s", against="infinity-bf16"),
    Bar(load="c16", figure="items_per_s", label="texts/s", against="plain", least=2.0),
    Bar(load="c16", figure="items_per_s", label="texts/s", against="bare", least=0.85),
    Bar(load="c16", figure="padding_share", label="padding", against=None, most=0.1),
    Bar(load="short", figure="items_per_s", label="texts/s", against="infinity", least=2.0),
    Bar(load="short", figure="latency_p95_s", label="p95", against="infinity", most=0.5),
    Bar(
        load="bulk", figure="latency_p99_s", label="p99 of a query, by the time of a batch", against="bare",
        other_figure="batch_p50_s", most=2.0,
    ),
    Bar(load="bulk", figure="latency_p99_s", label="p99 of a query", against="infinity"),
    Bar(load="bulk", figure="bulk_items_per_s", label="texts/s of the job", against="infinity"),
    Bar(load="again", figure="cold_items_per_s", label="texts/s, the first time", against=None),
    Bar(load="again", figure="items_per_s", label="texts/s, the second time", against=None),
    Bar(load="again", figure="computed_items", label="texts computed", against=None, most=0),
    Bar(load="chat", figure="chat_share", label="tok/s of the chats, of those alone", against=None, least=0.7),
)  # fmt: skip

RERANK_BARS = (
    Bar(load="rerank", figure="items_per_s", label="documents/s", against="infinity", least=2.0),
    Bar(load="rerank", figure="items_per_s", label="documents/s", against="plain", least=2.0),
    Bar(load="rerank", figure="items_per_s", label="documents/s", against="bare"),
    Bar(load="rerank", figure="latency_p95_s", label="p95", against="infinity"),
)

CURVES = {
    "clients, lists of 8": {"1": "c1", "4": "c4", "16": "c16", "32": "c32"},
    "texts in a list, 16 clients": {"1": "l1", "8": "c16", "64": "l64"},
}
"""Throughput over the number of clients and over the length of lists: by the title of the axis, loads by their tick."""
