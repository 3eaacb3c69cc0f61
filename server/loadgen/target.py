"""Whom to ask: the base URL of an OpenAI-compatible API, and the key for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from server.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """One server.

    Attributes:
        base: What stands before `/chat/completions` in the path; no slash at its end.
        api_key: Sent as a bearer token; empty where there is none.
        more_headers: Names and values.
    """

    host: str
    port: int
    base: str = "/v1"
    is_tls: bool = False
    api_key: str = field(default="", repr=False)
    more_headers: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self._authority}{self.base}"

    @property
    def headers(self) -> dict[str, str]:
        return {**({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}), **dict(self.more_headers)}

    def request(self, path: str, payload: bytes, *, is_kept: bool) -> bytes:
        """A POST of JSON to `path` below the base, whole.

        Args:
            is_kept: Whether more requests are to follow on the connection.
        """
        headers = {
            "Host": self._authority,
            "Content-Type": "application/json",
            "Content-Length": str(len(payload)),
            **self.headers,
            **({} if is_kept else {"Connection": "close"}),
        }
        lines = [f"POST {self.base}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + payload

    @property
    def _authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(url: str, *, api_key: str = "") -> Target:
    """Read a base URL as SDKs take it. Without a path it means `/v1`, without a scheme `http`.

    Raises:
        ConfigError: It is none, or the key cannot be sent.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"{url!r} has no valid port; expected http://HOST:PORT/v1") from exc
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ConfigError(f"{url!r} is not the address of a server; expected http://HOST:PORT/v1, or https")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("the address has more than host, port and path; a key belongs into HEARTH_API_KEY")
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise ConfigError("the API key has characters that no header can carry; is it one line of ASCII?")
    path = parts.path.rstrip("/")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(f"{url!r} has characters that no path can have; percent-encode them")
    return Target(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        base=path or "/v1",
        is_tls=parts.scheme == "https",
        api_key=api_key,
    )
