"""`cycles mcp`: an MCP server whose tools let an agent of any host ask for budget."""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

import cycles
from cycles._version import INSTALL_COMMAND
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._mcp_desk import Desk
from cycles.cli._options import amount, subject_option
from cycles.cli._output import say

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

_CHECK_S: Final = 1.0


@frame.command("mcp")
@subject_option
@click.option("--read-only", is_flag=True, help="Offer only budget_left and budget_check.")
@click.option("--max", "most", metavar="AMOUNT", type=amount, help="The largest estimate of one reservation.")
@click.option(
    "--http",
    "port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Serve HTTP on 127.0.0.1 instead of stdin and stdout; 0 is any free port.",
)
@click.option(
    "--mcp-key", metavar="KEY", envvar="CYCLES_MCP_KEY", help="The key that HTTP requests need; a new one by default."
)
def command(
    cli: Cli,
    subject: dict[str, Any] | None,
    read_only: bool,
    most: cycles.Amount | None,
    port: int | None,
    mcp_key: str | None,
) -> int:
    """Serve budget tools to an agent over MCP, on stdin and stdout.

    The tools are budget_left, budget_check, budget_reserve, budget_commit and budget_release. Amounts are texts such as
    0.40USD. The subject comes from --subject and the environment, never from the model. What is open when the session
    ends is released.
    """
    try:
        from cycles.cli._mcp_server import server_of
    except ImportError as missing:
        if (missing.name or "").partition(".")[0] != "mcp":
            raise
        install = INSTALL_COMMAND.replace("[run]", "[mcp]")
        raise click.ClickException(f"cycles mcp needs the package mcp; install it with {install}") from None
    if mcp_key is not None and port is None:
        raise click.UsageError("--mcp-key needs --http PORT")
    # stdout is the protocol's, and libraries that log each request hide what matters.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    with cli.client(journal=True) as client:
        desk = Desk(client, subject, most, clock=time.monotonic)
        server = server_of(desk, read_only=read_only)
        with _sigterm_as_interrupt(), contextlib.closing(desk):
            if port is None:
                server.run("stdio")
            else:
                _serve_http(desk, server, port, mcp_key or secrets.token_urlsafe(24))
    return 0


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """End the session at SIGTERM too, so that what is open is released."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve_http(desk: Desk, tools: MCPServer[Any], port: int, key: str) -> None:
    import asyncio

    import uvicorn

    from cycles.cli._mcp_server import KeyRequired
    from cycles.embedded.serve import bound

    sock = bound("127.0.0.1", port, "choose another port with --http")
    say(f"MCP server on http://127.0.0.1:{sock.getsockname()[1]}/mcp")
    say(f"requests need the header Authorization: Bearer {key}")
    app = KeyRequired(tools.streamable_http_app(), key)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))

    async def expire() -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            await asyncio.to_thread(desk.expire)

    async def serve() -> None:
        expiring = asyncio.create_task(expire())
        try:
            await server.serve([sock])  # it raises the signal that ended it again, when it has stopped
        finally:
            expiring.cancel()

    asyncio.run(serve())
