"""Authenticate requests: API keys, the admin key, and the request limit of the public paths.

The order of the checks is the reference server's: a wrong secret for a revoked key gets KEY_REVOKED, not INVALID_KEY.
See `docs/protocol/server.md#api-keys`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from cycles.embedded.errors import ApiError
from cycles.embedded.records import ApiKey
from cycles.embedded.routes import ADMIN_OPERATIONS, Route
from cycles.embedded.tables import Tables

# A key is looked up by this many characters; its secret is compared afterwards.
PREFIX_LENGTH: Final = 14
PUBLIC_REQUESTS: Final = 300
PUBLIC_WINDOW_MS: Final = 60_000


@frozen
class Caller:
    """The caller of a request. `tenant` is None for the admin key and on public paths."""

    tenant: str | None = None


class Authenticator:
    """Identifies callers. An unknown one gets 401, or 500 if it sends an admin key and the server has none."""

    def __init__(self, tables: Tables, admin_api_key: str | None) -> None:
        self._tables = tables
        self._admin_api_key = admin_api_key

    def authenticate(self, route: Route, headers: Mapping[str, str], now_ms: int) -> Caller:
        """Return the caller of a request from its headers (names in lower case)."""
        if route.public:
            return Caller()
        admin = headers.get("x-admin-api-key", "")
        if admin.strip() and route.operation in ADMIN_OPERATIONS:
            self._check_admin(admin)
            return Caller()
        return Caller(self._tenant_of(headers.get("x-cycles-api-key", ""), now_ms))

    def _check_admin(self, given: str) -> None:
        if self._admin_api_key is None or not self._admin_api_key.strip():
            raise ApiError("INTERNAL_ERROR", "the server has no admin API key; pass admin_api_key= to EmbeddedServer")
        if not is_same_secret(given, self._admin_api_key):
            raise ApiError("UNAUTHORIZED", "the admin API key is wrong; send the admin_api_key of the server")

    def _tenant_of(self, secret: str, now_ms: int) -> str:
        if not secret.strip():
            raise _unauthorized("the API key is missing; send it in the header X-Cycles-API-Key")
        record = self._lookup(secret)
        if record is None:
            raise _unauthorized("KEY_NOT_FOUND")
        _check_status(record, now_ms)
        if not is_same_secret(record.secret, secret):
            raise _unauthorized("INVALID_KEY")
        if not record.tenant or not record.tenant.strip():
            raise _unauthorized("KEY_NOT_OWNED_BY_TENANT")
        tenant = self._tables.tenants.get((record.tenant,))
        if tenant is not None and not isinstance(tenant.status, str | None):
            raise _unauthorized("INTERNAL_ERROR")  # the reference server cannot decode such a record
        if tenant is not None and tenant.status in ("SUSPENDED", "CLOSED"):
            raise _unauthorized(f"TENANT_{tenant.status}")
        return record.tenant

    def _lookup(self, secret: str) -> ApiKey | None:
        exact = self._tables.api_keys.get((secret,))
        return exact if exact is not None else _last(self._tables.api_keys.values(), secret[:PREFIX_LENGTH])


def _last(records: Iterable[ApiKey], prefix: str) -> ApiKey | None:
    found = None
    for record in records:
        if record.secret[:PREFIX_LENGTH] == prefix:
            found = record
    return found


def _check_status(record: ApiKey, now_ms: int) -> None:
    if record.status in ("REVOKED", "EXPIRED"):
        raise _unauthorized(f"KEY_{record.status}")
    if record.status != "ACTIVE":
        raise _unauthorized("INTERNAL_ERROR")  # the reference server returns 401 for a record that it cannot read
    if record.expires_at_ms is not None and now_ms > record.expires_at_ms:
        raise _unauthorized("KEY_EXPIRED")


def _unauthorized(message: str) -> ApiError:
    return ApiError("UNAUTHORIZED", message)


def is_same_secret(left: str, right: str) -> bool:
    """Compare two secrets in a time that does not tell how much of them is the same."""
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


class PublicLimit:
    """Limits the paths that need no key to 300 requests a minute from one address."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, int]] = {}

    def count(self, address: str, now_ms: int) -> None:
        """Count one request.

        Raises:
            ApiError: LIMIT_EXCEEDED, with the header Retry-After.
        """
        start_ms, seen = self._windows.get(address, (now_ms, 0))
        if now_ms >= start_ms + PUBLIC_WINDOW_MS:
            start_ms, seen = now_ms, 0
        self._windows[address] = (start_ms, seen + 1)
        if seen >= PUBLIC_REQUESTS:
            end_ms = start_ms + PUBLIC_WINDOW_MS
            raise ApiError(
                "LIMIT_EXCEEDED",
                f"more than {PUBLIC_REQUESTS} requests in a minute; retry after the seconds in Retry-After",
                headers={
                    "Retry-After": str(max(1, -(-(end_ms - now_ms) // 1000))),
                    "X-RateLimit-Remaining": "0",
                    "X-RateLimit-Reset": str(-(-end_ms // 1000)),
                },
            )
