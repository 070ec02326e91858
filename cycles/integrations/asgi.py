"""ASGI: the subject of each request, and the life of the client. No framework is needed.

See `docs/integrations/fastapi.md`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import define

import cycles
from cycles import InvalidRequestError, Subject
from cycles.integrations._levels import (
    InvalidSubject,
    checked_callable,
    checked_level,
    checked_levels,
    checked_value,
    members_of,
    to_subject,
)
from cycles.integrations._problems import Problem

if TYPE_CHECKING:
    from cycles import Cycles

__all__ = ["SubjectMiddleware", "lifespan"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

RESPONSE_KEY: Final = "cycles.response"
"""Key of the `ResponseState` in the scope of a request."""

_POLICY_VIOLATION: Final = 1008


@define
class ResponseState:
    """How far the response to a request is: servers may end its task quietly if the caller leaves."""

    started: bool = False
    complete: bool = False

    @property
    def left(self) -> bool:
        """Whether the response ended in the middle of its body, once its task has ended."""
        return self.started and not self.complete

    def note(self, message: Message) -> None:
        """Note a message that the application sends."""
        self.started = self.started or message["type"] == "http.response.start"
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True


class SubjectMiddleware:
    """Sets `cycles.subject(...)` for each request, its streamed body and its background tasks.

    Args:
        app: The ASGI application.
        headers: Level of the subject, or ``dimensions.<key>``, by header name.
        claims: The same by claim, for claims that an authentication middleware has verified.
        claims_of: Returns the verified claims of a scope; by default ``scope["state"]["claims"]`` or
            ``scope["user"].claims``.
        subject: Returns a subject or mapping for a scope; it overrides headers and claims. May be a coroutine function.
        required: Levels that each request must have. Without one the response is 400 and the application does not run.

    Raises:
        InvalidRequestError: A value is wrong, or a header maps to the tenant, which follows from the API key.
    """

    def __init__(
        self,
        app: App,
        *,
        headers: Mapping[str, str] | None = None,
        claims: Mapping[str, str] | None = None,
        claims_of: Callable[[Scope], Mapping[str, Any] | None] | None = None,
        subject: Callable[[Scope], Any] | None = None,
        required: Iterable[str] = (),
    ) -> None:
        self.app = app
        self._headers = {name.lower().encode("latin-1"): at for name, at in checked_levels("headers", headers).items()}
        if "tenant" in self._headers.values():
            raise InvalidRequestError("headers must not map to tenant: the tenant follows from the API key; remove it")
        self._claims = checked_levels("claims", claims)
        self._claims_of = checked_callable("claims_of", claims_of) or _claims_in
        self._subject = checked_callable("subject", subject)
        self._required = tuple(checked_level("required", level) for level in required)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            subject = await self._subject_of(scope)
        except InvalidSubject:
            await _reject(scope, send)
            return
        state = scope.setdefault(RESPONSE_KEY, ResponseState())

        async def noted(message: Message) -> None:
            await send(message)
            state.note(message)

        with cycles.subject(subject):
            await self.app(scope, receive, noted)

    async def _subject_of(self, scope: Scope) -> Subject:
        found = self._from_headers(scope)
        claims = (self._claims_of(scope) or {}) if self._claims else {}
        for claim, level in self._claims.items():
            if (value := claims.get(claim)) is not None:
                found[level] = checked_value(value)
        if self._subject is not None:
            given = self._subject(scope)
            found |= members_of(await given if inspect.isawaitable(given) else given)
        if any(level not in found for level in self._required):
            raise InvalidSubject
        return to_subject(found)

    def _from_headers(self, scope: Scope) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in scope["headers"]:
            level = self._headers.get(name.lower())
            if level is not None:
                if level in found:  # which of two values is meant cannot be known
                    raise InvalidSubject
                found[level] = checked_value(value.decode("latin-1"))
        return found


def lifespan(
    client: Cycles | None = None, inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a lifespan whose state has the client as ``cycles``, and which closes the client last.

    Args:
        client: The client; by default the default client, looked up when the application starts.
        inner: The lifespan of the application, whose state is merged.

    Raises:
        InvalidRequestError: A value is wrong.
    """
    if client is not None and not isinstance(client, cycles.Cycles):
        raise InvalidRequestError(f"client must be a cycles.Cycles or None, got {client!r:.80}")
    checked_callable("inner", inner)

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with client or cycles.get_default_client() as used:
            if inner is None:
                yield {"cycles": used}
                return
            async with inner(app) as state:
                yield {**(state or {}), "cycles": used}

    return run


def _claims_in(scope: Scope) -> Any:
    state = scope.get("state") or {}
    return state.get("claims") or getattr(scope.get("user"), "claims", None)


async def _reject(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    problem = Problem(400, "INVALID_SUBJECT")
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body})
