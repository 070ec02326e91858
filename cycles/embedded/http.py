"""Handle HTTP requests without a socket: `Request` in, `Response` out. Only the ledger changes.

The order of the checks is the protocol's: key, route, body, fields, path id, subject, idempotency header, tenant, and
then those of the ledger. See `docs/protocol/server.md#order-of-checks`.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from attrs import frozen

from cycles.embedded import action_kinds, framework, listing, query, validation
from cycles.embedded.authentication import Authenticator, Caller, PublicLimit
from cycles.embedded.errors import ApiError
from cycles.embedded.ledger import Ledger
from cycles.embedded.records import Body
from cycles.embedded.routes import NEXT_OPERATIONS, Route, find


@frozen(kw_only=True)
class Request:
    """An HTTP request. `target` is the raw path with its query; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    address: str = "127.0.0.1"

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]


@frozen
class Response:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


# The reference server compresses responses of exactly this type.
JSON: Final = "application/json"
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_EVIDENCE_ID: Final = re.compile(r"[0-9a-f]{64}")
_JSON_TYPE: Final = re.compile(r"application/(json|[a-z0-9.!#$&^_-]+\+json)", re.IGNORECASE)
_HARDENING: Final = {
    "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
    "Pragma": "no-cache",
    "Expires": "0",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-XSS-Protection": "0",
}
# The reference server sends these on every response: they mean "no limit".
_NO_LIMIT: Final = {"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "0"}


# The first three are called with a subject, the others with the id of a reservation.
_OPENING: Final = {"decide": Ledger.decide, "reserve": Ledger.reserve, "event": Ledger.event}
_SETTLING: Final = {"commit": Ledger.commit, "release": Ledger.release, "extend": Ledger.extend}


class Application:
    """The server's routes and checks over one ledger."""

    def __init__(self, ledger: Ledger, admin_api_key: str | None = None, *, is_next: bool = False) -> None:
        self._ledger = ledger
        self._is_next = is_next  # protocol 0.1.26
        self._shapes = validation.NEXT_SHAPES if is_next else validation.SHAPES
        self._authenticator = Authenticator(ledger.tables, admin_api_key)
        self._public = PublicLimit()

    def handle(self, request: Request) -> Response:
        """Return the response to one request."""
        now_ms = self._ledger.clock.now_ms()
        headers = {"Date": _http_date(now_ms // 1000)}
        if framework.is_bad_request(request.path, request.target, request.headers):
            return Response(400, headers | {"Content-Type": framework.HTML}, framework.BAD_REQUEST_PAGE)
        headers |= {"X-Request-Id": str(uuid.uuid4()), "X-Cycles-Trace-Id": trace_id_of(request.headers)}
        if framework.is_suspicious(request.path):
            return Response(403, headers, b"")
        headers |= _HARDENING
        route = find(request.method, request.path)
        if route.operation in NEXT_OPERATIONS and not self._is_next:
            route = Route(None)
        try:
            caller = self._authenticate(route, request, now_ms)
        except ApiError as error:
            # Only these responses of the reference server name a charset: filters send them, no controllers.
            headers |= {"Content-Type": "application/json;charset=UTF-8", **error.headers}
            return _encoded(request, error.status, headers, _error_body(error, headers))
        if request.path.startswith("/v1/"):
            headers |= _NO_LIMIT
        if caller.tenant is not None:
            headers["X-Cycles-Tenant"] = caller.tenant
        return self._respond(route, caller, request, headers)

    def _authenticate(self, route: Route, request: Request, now_ms: int) -> Caller:
        with self._ledger.locked():
            if route.public:
                self._public.count(request.address, now_ms)
            return self._authenticator.authenticate(route, request.headers, now_ms)

    def _respond(self, route: Route, caller: Caller, request: Request, headers: dict[str, str]) -> Response:
        if request.method == "OPTIONS" and route.allow:
            return Response(200, headers | {"Allow": ",".join((*route.allow, "OPTIONS"))}, b"")
        try:
            status, body = self._run(route, caller, request, headers)
        except ApiError as error:
            status, body = error.status, _error_body(error, headers)
            headers |= error.headers
        if not framework.accepts_json(request.headers):
            return Response(403, headers, b"")
        return _encoded(request, status, headers | {"Content-Type": JSON}, body)

    def _run(self, route: Route, caller: Caller, request: Request, headers: dict[str, str]) -> tuple[int, Body]:
        if route.operation is None:
            raise _unrouted(route, request)
        if route.operation in validation.SHAPES:
            form = self._form(route.operation, route.path_id, request)
            if self._is_next and "action" in form:
                headers |= self._deprecation(form["action"]["kind"])
            return self._write(route.operation, route.path_id, caller, form)
        body = self._read(route.operation, route.path_id or "", caller, request)
        if route.operation in NEXT_OPERATIONS:
            return action_kinds.cached(body, request.headers, headers), body
        return 200, body

    # --- writing ------------------------------------------------------------------------------------------------

    def _deprecation(self, kind: str) -> dict[str, str]:
        with self._ledger.locked():
            replacement = self._ledger.actions.replacement_of(kind)
        return {} if replacement is None else {"X-Cycles-Deprecated-Kind": replacement}

    def _form(self, operation: str, path_id: str | None, request: Request) -> Body:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        # Without a type and a body, the body is what is wrong.
        if (media_type or request.body) and not _JSON_TYPE.fullmatch(media_type):
            raise ApiError(
                "INVALID_REQUEST",
                "the body is not declared as JSON; send it with Content-Type: application/json",
                status=415,
            )
        form = validation.checked(operation, validation.decode(request.body), self._shapes)
        if path_id is not None:
            validation.require_id_length(path_id)
        if "subject" in form:
            validation.require_level(form["subject"])
        header_key = request.headers.get("x-idempotency-key")
        if header_key is not None and header_key != form["idempotency_key"]:
            raise ApiError(
                "INVALID_REQUEST",
                "X-Idempotency-Key differs from idempotency_key of the body; send the same key or omit the header",
            )
        return form

    def _write(self, operation: str, path_id: str | None, caller: Caller, form: Body) -> tuple[int, Body]:
        if path_id is not None:
            return 200, _SETTLING[operation](self._ledger, caller.tenant, path_id, form)
        tenant = caller.tenant or ""
        if form["subject"].get("tenant", tenant) != tenant:
            raise ApiError(
                "FORBIDDEN", "subject.tenant is not the tenant of the API key; omit it, or send a key of that tenant"
            )
        return (201 if operation == "event" else 200), _OPENING[operation](self._ledger, tenant, form)

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, operation: str, path_id: str, caller: Caller, request: Request) -> Body:
        if operation == "get":
            validation.require_id_length(path_id)
            return listing.row_of(self._ledger.get(caller.tenant, path_id))
        if operation == "evidence":
            if not _EVIDENCE_ID.fullmatch(path_id):
                raise ApiError("INVALID_REQUEST", f"evidence_id must be 64 lower-case hex digits, got {path_id!r:.80}")
            raise ApiError("NOT_FOUND", f"evidence not found: {path_id}; this server signs none")
        if operation == "jwks":
            raise ApiError("NOT_FOUND", "the server signs no evidence; pass evidence_key= to EmbeddedServer")
        if operation in NEXT_OPERATIONS:
            with self._ledger.locked():
                return action_kinds.respond(self._ledger.actions, operation, path_id, request.target)
        parameters = query.parse(request.target.partition("?")[2])
        with self._ledger.locked():
            tables = self._ledger.tables
            if operation == "list":
                return listing.reservations(tables.reservations.values(), caller, parameters)
            return listing.balances(tables.budgets.values(), caller, parameters)


def trace_id_of(headers: Mapping[str, str]) -> str:
    """Return the trace id of a request: from traceparent, or X-Cycles-Trace-Id, or a new one."""
    parent = _TRACEPARENT.fullmatch(headers.get("traceparent", "").lower())
    if parent is not None and all(part.strip("0") for part in parent.groups()):
        return parent[1]
    given = headers.get("x-cycles-trace-id", "").lower()
    if _TRACE_ID.fullmatch(given) and given.strip("0"):
        return given
    return secrets.token_hex(16)


def _encoded(request: Request, status: int, headers: dict[str, str], body: Body) -> Response:
    content = b"" if request.method == "HEAD" or status == 304 else json.dumps(body, separators=(",", ":")).encode()
    return Response(status, headers, content)


def error_body(error: ApiError, ids: Mapping[str, str]) -> Body:
    """Return the body of an error response."""
    body: Body = {"error": error.code, "message": error.message, **ids}
    return body if error.details is None else body | {"details": dict(error.details)}


def _error_body(error: ApiError, headers: Mapping[str, str]) -> Body:
    return error_body(error, {"request_id": headers["X-Request-Id"], "trace_id": headers["X-Cycles-Trace-Id"]})


def wrong_method(request: Request, route: Route) -> ApiError:
    """Return the error for a path that has other methods."""
    allow = ", ".join(route.allow)
    message = f"unknown method for this path: {request.method}; use {allow}"
    return ApiError("INVALID_REQUEST", message, status=405, headers={"Allow": allow})


def _unrouted(route: Route, request: Request) -> ApiError:
    if not route.allow:
        return ApiError("NOT_FOUND", f"unknown path: {request.path[:200]}; paths begin with /v1")
    return wrong_method(request, route)


@lru_cache(maxsize=1)  # formatting the date takes as long as half an operation
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
