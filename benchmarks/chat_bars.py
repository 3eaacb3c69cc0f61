"""What the chat benchmark has to show: which figures are compared, with whom, and the ratio to reach."""

from __future__ import annotations

from benchmarks.bars import Bar

# Flags are chosen by one short round each, on machines that are seldom quiet: what was best there may turn out to be
# behind the defaults. So where a bar is near, both must be beaten.
BARS = (
    Bar(load="a1", figure="tokens_per_s", label="tok/s", least=1.0),
    Bar(load="a1", figure="tokens_per_s", label="tok/s", against="defaults", least=1.0),
    Bar(load="a4", figure="tokens_per_s", label="tok/s"),
    Bar(load="a16", figure="tokens_per_s", label="tok/s", least=1.05),
    Bar(load="a16", figure="tokens_per_s", label="tok/s", against="defaults", least=1.05),
    Bar(load="a16", figure="tokens_per_s", label="tok/s", against="bare", least=0.9),
    Bar(load="a64", figure="tokens_per_s", label="tok/s", least=1.2),
    Bar(load="a64", figure="tokens_per_s", label="tok/s", against="defaults", least=1.2),
    Bar(load="b", figure="requests_per_s", label="requests/s", least=2.5),
    Bar(load="b", figure="requests_per_s", label="requests/s", against="defaults", least=4.0),
    Bar(load="b", figure="ttft_p95_s", label="TTFT p95", most=0.25),
    Bar(load="c", figure="gap_max_s", label="worst gap of a stream", most=0.25),
    Bar(load="c", figure="long_ttft_s", label="TTFT of the long prompt", most=1.3),
    Bar(load="d", figure="completion_rate", label="requests completed", against=None, least=1.0),
    Bar(load="d", figure="tokens_per_s", label="tok/s"),
    Bar(load="e", figure="tokens_per_s", label="tok/s", least=1.3),
    Bar(load="e", figure="tokens_per_s", label="tok/s", against="defaults", least=1.3),
    Bar(load="o", figure="ttft_p95_s", label="TTFT p95"),
    Bar(load="o", figure="latency_p95_s", label="time to the end, p95"),
)
