"""Receive webhooks in FastAPI and Starlette; see `docs/webhooks.md`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from cycles import InvalidRequestError, WebhookError, WebhookEvent, WebhookReceiver


def webhook_event(receiver: WebhookReceiver) -> Callable[[Request], Awaitable[WebhookEvent]]:
    """Return a dependency that verifies a delivery and returns its `WebhookEvent`.

    A delivery that the receiver rejects becomes a response with the status of the error: 401 for a signature, 400 for
    everything else. A body that is larger than the receiver accepts is not read to its end. The endpoint may read the
    body again. The receiver runs in a worker thread, so its `seen` may block.

    Raises:
        InvalidRequestError: if `receiver` is no `WebhookReceiver`.
    """
    if not isinstance(receiver, WebhookReceiver):
        raise InvalidRequestError(f"receiver must be a cycles.WebhookReceiver, got {type(receiver).__name__}")

    async def dependency(request: Request) -> WebhookEvent:
        body = await _body(request, receiver.max_body_bytes)
        try:
            return await run_in_threadpool(receiver.receive, body=body, headers=request.headers)
        except WebhookError as error:
            raise HTTPException(error.status, str(error)) from error

    # FastAPI resolves annotations from the module's names, so they must not stay strings.
    dependency.__annotations__ = {"request": Request, "return": WebhookEvent}
    return dependency


async def _body(request: Request, limit: int) -> bytes:
    """Return the body, or more than `limit` bytes of it, which the receiver rejects."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return bytes(body)
    request._body = bytes(body)  # where `Request.body` keeps it, so that the endpoint may read it too
    return request._body
