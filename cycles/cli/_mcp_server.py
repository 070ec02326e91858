"""The tools of `cycles mcp`: an agent of any MCP host reserves budget before it acts, and commits what it cost."""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio
from anyio import lowlevel
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

import cycles
from cycles.cli._mcp_desk import AgentError, Desk

T = TypeVar("T")
_INSTRUCTIONS: Final = (
    "Your actions have a budget. Call budget_reserve before an action that costs money, and act only if it is allowed. "
    "Then call budget_commit with what it cost, or budget_release if you did not act. "
    'Amounts are strings such as "0.40USD" or "2500TOKENS".'
)


def server_of(desk: Desk, *, read_only: bool) -> MCPServer[Any]:
    """Return an MCP server with the tools of a desk.

    Args:
        desk: The reservations.
        read_only: Whether there are only `budget_left` and `budget_check`.
    """
    server: MCPServer[Any] = MCPServer("cycles", instructions=_INSTRUCTIONS, version=cycles.__version__)

    @server.tool()
    async def budget_left() -> dict[str, str]:
        """Return what is left of the budget, by unit."""
        return await _answered(desk.left)

    @server.tool()
    async def budget_check(estimate: str, action: str) -> dict[str, Any]:
        """Return whether an action with this estimated cost would be allowed now. Nothing is reserved.

        estimate: such as "0.40USD". action: kind and name, such as "tool.call/web_search".
        """
        return await _answered(desk.check, estimate, action)

    if read_only:
        return server

    @server.tool()
    async def budget_reserve(estimate: str, action: str, ttl_s: int = 600) -> dict[str, Any]:
        """Reserve the estimated cost of an action before it. Act only if "allowed" is true; keep "id" for the end.

        estimate: such as "0.40USD". action: kind and name, such as "tool.call/web_search". ttl_s: how many seconds the
        action may take.
        """
        key = secrets.token_hex(8)
        try:
            made = await _answered(desk.reserve, estimate, action, ttl_s, key)
            await lowlevel.checkpoint_if_cancelled()  # the thread ends also if the call is cancelled
            return made
        except anyio.get_cancelled_exc_class():
            # The host gave the call up and never learns the id. There is no reservation if it was denied.
            with anyio.CancelScope(shield=True), contextlib.suppress(AgentError):
                await anyio.to_thread.run_sync(desk.release, key)
            raise

    @server.tool()
    async def budget_commit(id: str, actual: str) -> dict[str, Any]:  # noqa: A002 # the name of the tool's parameter
        """Commit what an action really cost, once. actual: such as "0.32USD"; it may differ from the estimate."""
        return await _answered(desk.commit, id, actual)

    @server.tool()
    async def budget_release(id: str) -> dict[str, Any]:  # noqa: A002
        """Give a reservation back, because the action did not happen and cost nothing."""
        return await _answered(desk.release, id)

    return server


async def _answered(function: Callable[..., T], *arguments: Any) -> T:
    try:
        return await anyio.to_thread.run_sync(function, *arguments)
    except AgentError as error:
        raise ToolError(str(error)) from None


class KeyRequired:
    """An ASGI application that lets only requests with the key pass: ``Authorization: Bearer KEY``."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        """Answer 401 without the key."""
        given = dict(scope["headers"]).get(b"authorization", b"") if scope["type"] == "http" else self._wanted
        if hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
            return
        body = b"the header Authorization: Bearer KEY is missing or wrong; cycles mcp prints the key when it starts\n"
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})
