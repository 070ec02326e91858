"""FastAPI and Starlette: guard an endpoint, turn errors into problem details, receive webhooks; all of `asgi` too.

Needs the extra ``fastapi``; see `docs/integrations/fastapi.md`. This module has no postponed annotations: older
versions of FastAPI cannot resolve them on a callable instance.
"""

import hashlib
import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import cycles
from cycles import Action, Amount, AsyncGuard, Cycles, CyclesError, InvalidRequestError, Usage
from cycles.integrations._options import Common, checked_actual, checked_budget, estimate_of
from cycles.integrations._problems import checked_statuses, close_code_of, problem_of
from cycles.integrations._shared import require
from cycles.integrations.asgi import RESPONSE_KEY, SubjectMiddleware, lifespan

require("starlette.requests", "fastapi")
require("fastapi", "fastapi")

from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from cycles.integrations._webhook_event import webhook_event

__all__ = ["Guarded", "ProblemDetails", "SubjectMiddleware", "lifespan", "problem_details", "webhook_event"]

_KIND: Final = "http.request"


class CallerLeft(Exception):
    """Ends the guard of a request whose caller left in the middle of the body. It is never raised to a caller."""


class Guarded:
    """A dependency that reserves before the endpoint runs and gives it the guard of the request.

    The guard is the current one in the endpoint. It ends after the response body, also if that is streamed.

    Args:
        estimate: An amount, or a callable of the connection. None from it: this request is not guarded.
        action: The action, or a callable like `estimate`; by default ``("http.request", "GET /path/{id}")``.
        actual: The cost: an amount, or a callable of ``guard.usage``.
        client: The Cycles client; by default the default client, looked up at each request.
        idempotency_header: The header whose value makes the key of the reservation, with method, path and subject.
        options: Other options of `reserve`, and `subject`, which may be a callable of the connection.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        estimate: Amount | Callable[..., Any],
        *,
        action: Action | tuple[str, str] | Callable[..., Any] | None = None,
        actual: Amount | Callable[[Usage], Amount] | None = None,
        client: Cycles | None = None,
        idempotency_header: str | None = None,
        subject: Any = None,
        **options: Any,
    ) -> None:
        self._estimate = checked_budget("estimate", estimate)
        self._actual = checked_actual("actual", actual)
        if not (action is None or callable(action) or isinstance(action, Action | tuple)):
            raise InvalidRequestError(f"action must be an Action, a pair or a callable, got {action!r:.80}")
        if idempotency_header is not None and not (isinstance(idempotency_header, str) and idempotency_header):
            raise InvalidRequestError(f"idempotency_header must be a header's name, got {idempotency_header!r:.80}")
        self._action = action
        self._header = idempotency_header
        self._common = Common(client, subject, None, options)

    async def __call__(self, connection: HTTPConnection) -> AsyncIterator[AsyncGuard | None]:
        """Reserve, run the endpoint, and settle when the response or the websocket has ended."""
        estimate = estimate_of("estimate", await _value(self._estimate, connection), None)
        if estimate is None:
            yield None
            return
        subject = await _value(self._common.subject, connection)
        reservation = self._common.reserving().reserve(
            estimate,
            action=await _value(self._action, connection) or (_KIND, _name_of(connection)),
            subject=subject,
            actual=self._actual,
            idempotency_key=self._key(connection, subject),
            **self._common.options,
        )
        try:
            guard = await reservation
        except CyclesError as error:
            if connection.scope["type"] == "websocket":
                raise WebSocketException(close_code_of(error)) from error
            raise
        async with guard:
            try:
                yield guard
            except WebSocketDisconnect:  # the normal end of a websocket
                await guard.end()
                raise
            if _caller_left(connection):
                await guard.end(CallerLeft())

    def _key(self, connection: HTTPConnection, subject: Any) -> str | None:
        """Return the key of the reservation: one customer's key never replays another's."""
        given = connection.headers.get(self._header) if self._header is not None else None
        if not given:
            return None
        around = cycles.current_subject() or cycles.Subject()
        own = subject.to_dict() if isinstance(subject, cycles.Subject) else dict(subject or {})
        parts = [connection.scope.get("method"), connection.scope["path"], {**around.to_dict(), **own}, given]
        return "http:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ProblemDetails:
    """An exception handler: a `CyclesError` becomes ``application/problem+json`` (RFC 9457).

    Args:
        statuses: Other HTTP statuses by code, for example ``{"BUDGET_EXCEEDED": 403}``.

    Raises:
        InvalidRequestError: `statuses` is wrong.
    """

    def __init__(self, statuses: Mapping[str, int] | None = None) -> None:
        self._statuses = checked_statuses(statuses)

    async def __call__(self, request: Request, error: Exception) -> Response:
        """Return the response. Nothing else of the error is sent: server messages name scopes and amounts."""
        if request.scope["type"] == "websocket":
            await getattr(request, "close")(close_code_of(error))  # noqa: B009 - it is a WebSocket here
            return None  # type: ignore[return-value] # Starlette would send a response after the close
        problem = problem_of(error, self._statuses)
        return Response(problem.body, problem.status, problem.headers)


problem_details: Final = ProblemDetails()
"""The exception handler with the statuses of `docs/integrations/fastapi.md`."""


async def _value(option: Any, connection: HTTPConnection) -> Any:
    value = option(connection) if callable(option) else option
    return await value if inspect.isawaitable(value) else value


def _name_of(connection: HTTPConnection) -> str:
    scope = connection.scope
    path = getattr(scope.get("route"), "path", None) or scope["path"]
    return f"{scope.get('method', 'WEBSOCKET')} {path}"[:256]


def _caller_left(connection: HTTPConnection) -> bool:
    state = connection.scope.get(RESPONSE_KEY)
    return state is not None and connection.scope["type"] == "http" and state.left
