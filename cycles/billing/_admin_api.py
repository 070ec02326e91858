"""Read the pages of a provider's admin API. Only GET, only its own origin, and the key appears in no message."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

import cycles
from cycles._errors import ConfigurationError, ProtocolError, TransportError
from cycles.billing._rows import BillRow, ReportError

Query = Sequence[tuple[str, str]]

ATTEMPT_S: Final = 60.0
"""How long one page may take."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""The largest page that is read."""
MAX_PAGES: Final = 10_000
_REJECTED: Final = (400, 401, 403, 404)
_CODES: Final = {400: "INVALID_REQUEST", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}


class AdminApi:
    """The admin API of one provider.

    Args:
        base: Its address, without ``/v1``.
        key: The admin key.
        variable: The name of the environment variable that has the key, for messages.
        headers: The headers of each request, with the key.
    """

    def __init__(self, base: str, key: str, variable: str, headers: Mapping[str, str]) -> None:
        self._base = checked_base(base)
        self._key = checked_key(key, variable)
        self._variable = variable
        self._headers = {"User-Agent": f"cycles-sdk/{cycles.__version__}", "Accept": "application/json", **headers}

    def pages(self, path: str, query: Query) -> Iterator[Mapping[str, Any]]:
        """Yield the bodies of all pages.

        Raises:
            TransportError: There is no usable response: none at all, 5xx, 429, a redirect, or no report.
            ProtocolError: The provider rejected the request; `status` says why.
        """
        # A proxy sees only ciphertext of https; a plain address is one of this machine, which no proxy has to see.
        is_secure = self._base.startswith("https:")
        seen: set[str] = set()
        with httpx.Client(follow_redirects=False, trust_env=is_secure, timeout=ATTEMPT_S / 2) as client:
            more: Query = ()
            for _ in range(MAX_PAGES):
                body = self._page(client, path, [*query, *more])
                yield body
                token = self._next(path, body)
                if token is None:
                    return
                if token in seen:
                    raise TransportError(f"{self._name(path)} returned a page token twice; run the command again")
                seen.add(token)
                more = [("page", token)]
        raise TransportError(f"{self._name(path)} has more than {MAX_PAGES} pages; pass a later --since")

    def _next(self, path: str, body: Mapping[str, Any]) -> str | None:
        if body.get("has_more") is not True:
            return None
        token = body.get("next_page")
        if not isinstance(token, str) or not token:
            raise self.no_report(path, "it has more pages, and no token of the next one")
        return token

    def _page(self, client: httpx.Client, path: str, query: Query) -> Mapping[str, Any]:
        request = client.build_request("GET", self._base + path, params=list(query), headers=self._headers)
        try:
            status, content = _read(client, request)
        except httpx.HTTPError as error:
            cause = type(error).__name__
            raise TransportError(f"{self._name(path)} gave no response ({cause}); run the command again") from None
        except ReportError as error:
            raise self.no_report(path, str(error)) from None
        if status in _REJECTED or (400 <= status < 500 and status not in (408, 429)):
            raise self._rejected(path, status, content)
        if status != 200:
            what = "redirects, which is not followed" if 300 <= status < 400 else f"responded with status {status}"
            raise TransportError(f"{self._name(path)} {what}; run the command again later", status=status)
        try:
            body = json.loads(content, parse_float=Decimal, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise self.no_report(path, "it is no JSON") from None
        if not isinstance(body, dict) or not isinstance(body.get("data"), list):
            raise self.no_report(path, "it has no list data")
        return body

    def rows(
        self, path: str, query: Query, read: Callable[[Mapping[str, Any]], Iterable[BillRow]]
    ) -> Iterator[BillRow]:
        """Yield the rows that `read` returns for each item of a report.

        Raises:
            TransportError: as `pages` does, and for an item that `read` cannot read.
            ProtocolError: as `pages` does.
        """
        for body in self.pages(path, query):
            try:
                for item in body["data"]:
                    yield from read(item)
            except ReportError as error:
                raise self.no_report(path, str(error)) from None
            except (KeyError, TypeError, AttributeError) as error:
                detail = f"a member is missing or has another type ({type(error).__name__})"
                raise self.no_report(path, detail) from None

    def no_report(self, path: str, detail: str) -> TransportError:
        """Return the error for a body that is no report."""
        message = f"{self._name(path)} returned a body that is no report: {detail}; check --upstream"
        return TransportError(self._without_key(message))

    def _rejected(self, path: str, status: int, content: bytes) -> ProtocolError:
        advice = f"check {self._variable}: it must be an admin key" if status in (401, 403) else "check --upstream"
        said = _message_of(content) if status not in (401, 403) else ""  # some providers quote the key there
        detail = f" ({said})" if said else ""
        message = self._without_key(f"{self._name(path)} rejected the request with status {status}{detail}; {advice}")
        return ProtocolError(message, status=status, code=_CODES.get(status, "INVALID_REQUEST"))

    def _name(self, path: str) -> str:
        return f"{urlsplit(self._base).netloc}{path}"

    def _without_key(self, message: str) -> str:
        return message.replace(self._key, "...")


def checked_base(base: str) -> str:
    """Return the address of an admin API without a slash at its end.

    Raises:
        ConfigurationError: it is no address to which a key may be sent.
    """
    try:
        parts = urlsplit(base)
        has_port = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number
        parts, has_port = urlsplit(""), False
    named = has_port and parts.hostname and parts.scheme in ("http", "https") and parts.username is None
    if not named or parts.query or parts.fragment or not base.isprintable() or " " in base:
        shown = "..." if "@" in base else f"{base!r:.120}"
        raise ConfigurationError(f"--upstream is not an http or https address: {shown}; write https://HOST")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise ConfigurationError(f"--upstream {base:.120} would show the admin key to the network; write https://HOST")
    return base.rstrip("/").removesuffix("/v1")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_key(key: str, variable: str) -> str:
    """Return an admin key.

    Raises:
        ConfigurationError: it has characters that no header may have.
    """
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"{variable} has characters that no key has, for example a line end; set it again")
    return key


def _read(client: httpx.Client, request: httpx.Request) -> tuple[int, bytes]:
    """Return the status and the content of a response, of limited size and within a limited time."""
    end = time.monotonic() + ATTEMPT_S
    content = bytearray()
    response = client.send(request, stream=True)
    try:
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                raise ReportError(f"it has more than {MAX_BYTES} bytes")
            if time.monotonic() > end:
                raise httpx.ReadTimeout("the response took too long", request=request)
    finally:
        response.close()
    return response.status_code, bytes(content)


def _message_of(content: bytes) -> str:
    """Return what the provider says is wrong."""
    try:
        error = json.loads(content)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return said[:200] if isinstance(said, str) else ""


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")
