"""Clients that fill a vector store and empty it again, with a ledger of what the server has acknowledged to them.

Whoever kills the server meanwhile learns from the ledger what must be there afterwards, what must not, and what may.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

NUM_CLIENTS = 4
POLL_S = 0.02

_SYLLABLES = [consonant + vowel for consonant in "bdklmnr" for vowel in "aeiou"]


@dataclass(frozen=True)
class Document:
    """Made-up words, and one that no other document has."""

    marker: str
    text: str


@dataclass
class Ledger:
    """What clients were told, by file id.

    Attributes:
        documents: What was sent, from before the upload was answered; the key is the marker until then.
        uploaded: The upload was acknowledged.
        attached: So was putting it into the store.
        completed: It was reported as completed: it must be found from now on.
        leaving: A deletion was sent, and may or may not have been carried out.
        deleted: The deletion was acknowledged: it must not be found any more.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    uploaded: set[str] = field(default_factory=set)
    attached: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)

    @property
    def owed(self) -> set[str]:
        """What must be found."""
        return self.completed - self.leaving


class Traffic:
    """Clients of one store. Each uploads, attaches, waits, and now and then deletes or adds again.

    Attributes:
        begun: Set when the first file is on its way into the store.
        flowing: Set when one is completed.
    """

    def __init__(self, store_id: str, ledger: Ledger, randomness: random.Random) -> None:
        self.begun, self.flowing = asyncio.Event(), asyncio.Event()
        self._files = f"/v1/vector_stores/{store_id}/files"
        self._ledger = ledger
        self._random = randomness
        self._taken: set[str] = set()

    async def run(self, url: str, until: Awaitable[object]) -> None:
        """Keep clients busy until `until` is done. A connection that breaks ends its client, another error the run."""
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            clients = [asyncio.create_task(self._be_client(http)) for _ in range(NUM_CLIENTS)]
            try:
                await until
            finally:
                for client in clients:
                    client.cancel()
                ended = await asyncio.gather(*clients, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, httpx.TransportError):
                raise error

    async def _be_client(self, http: httpx.AsyncClient) -> None:
        while True:
            await self._add(http)
            chance = self._random.random()
            if chance < 0.2:
                await self._with_one(lambda file_id: self._delete(http, file_id))
            elif chance < 0.3:
                await self._with_one(lambda file_id: self._add_again(http, file_id))

    async def _add(self, http: httpx.AsyncClient) -> None:
        document, ledger = self._make(), self._ledger
        ledger.documents[document.marker] = document
        upload = {"file": (f"{document.marker}.txt", document.text.encode())}
        answer = _checked(await http.post("/v1/files", files=upload, data={"purpose": "assistants"}))
        file_id = str(answer["id"])
        ledger.documents[file_id] = ledger.documents.pop(document.marker)
        ledger.uploaded.add(file_id)
        _checked(await http.post(self._files, json={"file_id": file_id, "attributes": {"marker": document.marker}}))
        ledger.attached.add(file_id)
        self.begun.set()
        while (status := _checked(await http.get(f"{self._files}/{file_id}"))["status"]) == "in_progress":  # noqa: ASYNC110 (HTTP has no event)
            await asyncio.sleep(POLL_S)
        if status != "completed":
            raise AssertionError(f"a plain text file is {status}")
        ledger.completed.add(file_id)
        self.flowing.set()

    async def _delete(self, http: httpx.AsyncClient, file_id: str) -> None:
        self._ledger.leaving.add(file_id)
        _checked(await http.delete(f"/v1/files/{file_id}"))
        self._ledger.deleted.add(file_id)

    async def _add_again(self, http: httpx.AsyncClient, file_id: str) -> None:
        """The old chunks stay searchable until the new ones are there, so what is owed stays owed."""
        sizes = {"max_chunk_size_tokens": self._random.randrange(100, 200), "chunk_overlap_tokens": 20}
        marker = self._ledger.documents[file_id].marker
        body = {
            "file_id": file_id,
            "attributes": {"marker": marker},
            "chunking_strategy": {"type": "static", "static": sizes},
        }
        _checked(await http.post(self._files, json=body))

    async def _with_one(self, act: Callable[[str], Awaitable[None]]) -> None:
        """Act on some document, which the other clients leave alone meanwhile."""
        free = sorted(self._ledger.owed - self._taken)
        if not free:
            return
        file_id = self._random.choice(free)
        self._taken.add(file_id)
        try:
            await act(file_id)
        finally:
            self._taken.remove(file_id)

    def _make(self) -> Document:
        marker = f"zq{self._random.getrandbits(48):012x}"
        words = [self._word() for _ in range(self._random.randrange(20, 150))]
        words.insert(self._random.randrange(len(words)), marker)
        return Document(marker, " ".join(words))

    def _word(self) -> str:
        return "".join(self._random.choices(_SYLLABLES, k=self._random.randrange(2, 5)))


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise AssertionError(f"{response.request.method} {response.url.path}: {response.status_code} {response.text}")
    body: dict[str, Any] = response.json()
    return body
