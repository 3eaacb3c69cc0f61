"""What models.yaml may say under `server`: where it listens, where it keeps things, and the bounds of its clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from server.config.section import Section

HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=253)]
Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$")]
"""Of a page, as browsers write it."""


class Limits(Section):
    """Bounds that protect the server from its clients."""

    max_body_mb: int = Field(32, ge=1, le=1024, description="Largest request body, in MiB; larger ones get 413.")
    max_upload_mb: int = Field(
        512, ge=1, le=65536, description="Largest file that may be uploaded, in MiB; larger ones get 413."
    )
    max_import_mb: int = Field(
        8192, ge=1, le=1_048_576, description="Largest exported vector store that may be imported, in MiB."
    )
    max_inputs: int = Field(2048, ge=1, le=65536, description="Most texts in one embeddings request.")
    max_documents: int = Field(1000, ge=1, le=65536, description="Most documents in one rerank request.")
    max_queued_requests: int = Field(
        512, ge=1, le=65536, description="Most requests that one model holds at a time; more get 503 at once."
    )
    max_queued_tokens: int = Field(
        4_000_000,
        ge=1,
        description="Most tokens of prompts and inputs, about, that wait for one model; more get 503 at once.",
    )
    max_wait_s: float = Field(
        120.0,
        ge=0.1,
        le=3600,
        description="Longest time that a request may be expected to wait before its model works on it; beyond that it "
        "gets 503 at once, with the time to try again. Inputs with `priority: bulk` may wait longer.",
    )
    load_wait_s: float = Field(
        60.0, ge=0, le=3600, description="How long a request waits for a model that is loading, before it gets 503."
    )
    receive_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="How long a request may take to arrive, headers and body; later ones get 408. Files and imported "
        "stores may take as long as they need, at 1 KiB/s or more.",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        le=65536,
        description="Most connections at a time; requests on those above get 503 at once. Fewer where the operating "
        "system allows fewer open files.",
    )


class ServerSettings(Section):
    """Where the server listens and keeps things."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to bind. One that other machines reach needs keys: see `hearth key create`.",
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    allow_insecure: bool = Field(
        False, description="Serve everybody who reaches the server, although there are no keys."
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description="Names that clients reach the server by, besides `localhost`; addresses need none. On loopback, "
        "and with `allow_insecure`, other names are refused; elsewhere they are once there is one here.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (),
        description="Pages that browsers may let ask this server, e.g. `https://chat.example.com`: scheme, name and "
        "port as the browser writes them.",
    )
    data_dir: Path = Field(
        Path("data"),
        description="Folder of keys, uploaded files, vector stores and their indexes, for this server alone. Relative "
        "to models.yaml.",
    )
    weights_dir: Path = Field(Path("weights"), description="Folder for model files, relative to models.yaml.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto` writes text on a terminal and JSON lines elsewhere."
    )
    tune: bool = Field(
        True,
        description="Measure at the first load of a model what runs it fastest on this machine, and remember it; "
        "`false`: fixed rules.",
    )
    bulk_share: float = Field(
        0.25,
        ge=0.01,
        le=1,
        description="Part of the time that bulk embedding and reranking (`priority: bulk`) may compute in while a chat "
        "model answers on the same processor; 1: they do not yield.",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="How long running requests may take to end after SIGTERM or Ctrl-C; then, or at a second signal, "
        "they end with an error.",
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="How long new requests are served after SIGTERM or Ctrl-C, while `/ready` says 503: as long as a "
        "load balancer takes to notice.",
    )
    sender_header: str = Field(
        "x-hearth-sender",
        pattern=r"^[a-z0-9-]{1,64}$",
        description="Request header in which clients say for whom they ask, e.g. a user of theirs; usage can be "
        "grouped by it.",
    )
    usage_retention_days: int = Field(
        400, ge=1, le=36_500, description="How long it is kept who used what; older records are deleted."
    )
    trace_prompts: bool = Field(
        False,
        description="Write conversations and answers of chat models into the log, which otherwise never has any of "
        "them. To find a fault, not to leave on.",
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Where OpenTelemetry traces go, over HTTP, e.g. `http://localhost:4318/v1/traces`; needs "
        "`pip install hearth[otel]`. Unset: none are made.",
    )
    memory_budget_mb: int | None = Field(
        None,
        ge=1,
        description="Memory that the models of this server may take together, in MiB; models that nobody is asking go "
        "when another one needs their room. Default: what the machine, or its cgroup, has to give, less a sixteenth.",
    )
    model_ttl_s: float = Field(
        0,
        ge=0,
        description="`ttl_s` of models that have none of their own: unload what nobody has asked for so long, in "
        "seconds; 0: never.",
    )
    limits: Limits = Field(default_factory=Limits, description="Bounds that protect the server from its clients.")
