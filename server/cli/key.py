"""`hearth key`: make keys, list and end them, in the data directory itself, beside a running server or without one."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from server.access import key_store
from server.access.api_key import ApiKey, digest_of, hint_of, new_key, new_key_id
from server.cli.exit_codes import ExitCode
from server.cli.key_options import (
    LIMITS,
    SCOPES,
    read_expiry,
    read_limits,
    read_models,
    read_scopes,
    read_span,
    read_tenant,
    show_limits,
    show_time,
)
from server.cli.settings import ConfigOption, fail, load_or_exit
from server.cli.tables import print_table
from server.config.schema import HearthConfig
from server.errors import HearthError
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from server.types import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Keys: who may use a server, and for what. A running one follows at once.")

KeyIds = Annotated[list[str], typer.Argument(metavar="KEY_ID", help="As `hearth key list` has it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, for people.")] = "",
    tenant: Annotated[
        str, typer.Option("--tenant", help="Who owns what is made with it: files, vector stores, responses.")
    ] = DEFAULT_TENANT,
    scopes: Annotated[str, typer.Option("--scopes", help=f"Some of {', '.join(SCOPES)}.")] = "inference,rag",
    models: Annotated[
        str | None, typer.Option("--models", help="Models that may be asked, by id or alias [default: all]")
    ] = None,
    limits: Annotated[
        list[str] | None, typer.Option("--limits", help=f"e.g. rpm=60,tpm=100000; some of {', '.join(LIMITS)}.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="e.g. 90d, 12h or 2027-01-31 [default: never]")
    ] = None,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """Make a key and print it: this once, as only its digest is kept."""
    settings = load_or_exit(config, require_files=False).config
    try:
        wanted = {
            "tenant": read_tenant(tenant),
            "scopes": read_scopes(scopes),
            "models": read_models(models, settings),
            "limits": read_limits(limits or ()),
            "expires_at": read_expiry(expires),
        }
    except ValueError as exc:
        fail(str(exc), code=ExitCode.WRONG_INPUT)
    text = new_key()
    key = _made(text, name=name[:200], **wanted)
    with _database(settings) as database:
        asyncio.run(database.write(lambda db: key_store.insert(db, key)))
    _show_new(key, text, as_json=as_json)


@app.command(name="list")
def list_keys(
    show_all: Annotated[bool, typer.Option("--all", help="Also those that are revoked or have expired.")] = False,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List keys, oldest first; what they are made of is not known."""
    with _database(load_or_exit(config, require_files=False).config) as database:
        keys = asyncio.run(database.read(key_store.select))
    now = time.time()
    shown = [key for key in keys if show_all or key.state(now) == "active"]
    if as_json:
        typer.echo(json.dumps([_to_json(key, now) for key in shown], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("ID", "KEY", "NAME", "TENANT", "SCOPES", "MODELS", "LIMITS", "EXPIRES", "STATE"):
        table.add_column(title, overflow="fold", no_wrap=title in ("ID", "KEY"))
    for key in shown:
        models = "all" if key.models is None else ", ".join(sorted(key.models))
        facts = (key.id, f"{key.hint}…", key.name, key.tenant, ", ".join(sorted(key.scopes)), models)
        table.add_row(*facts, show_limits(key.limits), show_time(key.expires_at), key.state(now))
    print_table(table)


@app.command()
def revoke(key_ids: KeyIds, as_json: AsJson = False, config: ConfigOption = None) -> None:
    """End keys for good; a running server refuses them within a second."""
    now = int(time.time())

    def work(db: sqlite3.Connection) -> list[ApiKey]:
        return [key_store.revoke(db, key_id, now=now) for key_id in key_ids]

    with _database(load_or_exit(config, require_files=False).config) as database:
        revoked = asyncio.run(database.write(work, use_reserve=True))
    if as_json:
        typer.echo(json.dumps([_to_json(key, now) for key in revoked], indent=2))
        return
    for key in revoked:
        typer.echo(f"{key.id} ({key.hint}…) is revoked")


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `hearth key list` has it.")],
    keep_old: Annotated[
        str | None,
        typer.Option("--keep-old", help="Let the old key be good for so long, e.g. 24h [default: not at all]"),
    ] = None,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """Make a key that may do what another one may, and end that one."""
    now, text = int(time.time()), new_key()
    kept_s = read_span(keep_old) if keep_old is not None else 0
    if kept_s is None:
        fail(f"--keep-old is {keep_old!r}; expected e.g. 30m, 24h or 7d", code=ExitCode.WRONG_INPUT)

    def work(db: sqlite3.Connection) -> ApiKey:
        old = key_store.find(db, key_id)
        if old.state(now) != "active":
            fail(f"key {key_id!r} is {old.state(now)}; make a new one with `hearth key create`")
        key = _made(
            text,
            **{"name": old.name, "tenant": old.tenant, "scopes": old.scopes, "models": old.models},
            **{"limits": old.limits, "expires_at": old.expires_at},
        )
        key_store.insert(db, key)
        if kept_s:
            key_store.end_by(db, key_id, at=now + kept_s)
        else:
            key_store.revoke(db, key_id, now=now)
        return key

    with _database(load_or_exit(config, require_files=False).config) as database:
        key = asyncio.run(database.write(work))
    _show_new(key, text, as_json=as_json)


def _made(text: str, **properties: Any) -> ApiKey:
    created_at = int(time.time())
    return ApiKey(id=new_key_id(), digest=digest_of(text), hint=hint_of(text), created_at=created_at, **properties)


def _show_new(key: ApiKey, text: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"key": text, **_to_json(key, time.time())}, indent=2))
        return
    typer.echo(text)
    expiry = f", until {show_time(key.expires_at)}" if key.expires_at else ""
    typer.echo(f"{key.id}: tenant {key.tenant}, {', '.join(sorted(key.scopes))}{expiry}; shown this once", err=True)


def _to_json(key: ApiKey, now: float) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(key)
    del facts["digest"]
    models = None if key.models is None else sorted(key.models)
    return {**facts, "scopes": sorted(key.scopes), "models": models, "state": key.state(now)}


@contextmanager
def _database(settings: HearthConfig) -> Iterator[Database]:
    logging.getLogger("server").addHandler(logging.NullHandler())  # what goes wrong is said in one line
    try:
        accounts = DataLayout(settings.server.data_dir).accounts
        database = Database.open(accounts, ACCOUNT_MIGRATIONS, checked_table=key_store.TABLE)
        try:
            yield database
        finally:
            database.close()
    except HearthError as exc:
        fail(exc.message)
