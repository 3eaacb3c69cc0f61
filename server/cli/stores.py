"""Vector stores as people name them: by name, or by id."""

from __future__ import annotations

from server.cli.client import Refused, ServerClient, ServerFailure
from server.cli.settings import fail

NOT_FOUND = 404


def find_store(client: ServerClient, name: str) -> str | None:
    """The id of the store with this name or id, None if there is none; ends the command where a name is not enough.

    Raises:
        ServerFailure: The server did not say.
    """
    if name.startswith("vs_"):
        try:
            return str(client.try_request("GET", f"/v1/vector_stores/{name}")["id"])
        except Refused as exc:
            if exc.status != NOT_FOUND:
                raise
    stores = client.try_list("/v1/vector_stores")
    named = [str(store["id"]) for store in stores if store["name"] == name and store["status"] != "expired"]
    if len(named) > 1:
        fail(f"{len(named)} vector stores are named {name!r}; use one of their ids: {', '.join(named)}")
    return named[0] if named else None


def existing_store(client: ServerClient, name: str) -> str:
    """The id of a store that has to be there, or the command ends."""
    try:
        store_id = find_store(client, name)
    except ServerFailure as exc:
        fail(str(exc))
    if store_id is None:
        fail(f"there is no vector store named {name!r}; make one with `hearth ingest DIR --store {name}`")
    return store_id
