"""What benchmarks of encoders add to the load generator; its own tests are in tests/loadgen/."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.encoder_traffic import closed_loop, open_loop
from server.loadgen.exchange import Ask
from tests.fakes.upstream import plain, upstream

ASK = Ask("/v1/embeddings", {"input": ["a", "b"]}, num_items=2)


async def test_clients_keep_their_connections_and_paths_are_whole() -> None:
    async with upstream(lambda _: [plain("200 OK")]) as server:
        replies = await closed_loop(server.port, itertools.repeat(ASK, 6), num_clients=2, is_over=lambda: False)

    assert ({reply.error for reply in replies}, len(replies), server.num_connections) == ({""}, 6, 2)
    assert {request.path for request in server.requests} == {"/v1/embeddings"}


@pytest.mark.parametrize("keep", [True, False])
async def test_contents_are_kept_where_they_are_wanted(keep: bool) -> None:
    async with upstream(lambda _: [plain("200 OK")]) as server:
        [reply] = await closed_loop(server.port, iter([ASK]), num_clients=1, is_over=lambda: False, keep=keep)

    assert reply.content == (b"{}" if keep else b"")


async def test_an_open_loop_has_a_connection_for_each() -> None:
    async with upstream(lambda _: [plain("200 OK")]) as server:
        replies = await open_loop(server.port, itertools.repeat(ASK), [0.0, 0.01])

    assert ([reply.error for reply in replies], server.num_connections) == (["", ""], 2)
