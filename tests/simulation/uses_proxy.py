"""Requests of programs to the guard proxy: the real ASGI application of `cycles.proxy`, without sockets.

The server of the application is simulated: what a program sends, when it leaves, and how slowly it reads. The fake
provider is behind an `httpx` client, as for the SDKs. A task that is cancelled is a proxy that stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from random import Random
from typing import TYPE_CHECKING, Any, Final

from cycles.prices import PriceBook
from cycles.proxy._agent_tree import AGENT_HEADER
from cycles.proxy._app import App
from cycles.proxy._clients import UpstreamClient
from cycles.proxy._relay import BrokenUpstreamError
from cycles.proxy._settings import ProxySettings
from tests.simulation.provider import URL, Upstream, Use

if TYPE_CHECKING:
    from tests.simulation.swarm import Swarm
    from tests.simulation.workload import Op, Program

PROXY: Final = "request to the proxy"
FEATURE: Final = "proxy"
SHARE: Final = 0.6
"""The share of programs whose loop has the proxy, if the feature is on."""
LEAVES_S: Final = (None, None, 0.0, 0.05, 0.5, 3.0, 10.0)
"""When a program leaves, in seconds after its request."""

STATUSES: Final = (None, 200, 402, 502, 503)
"""What the proxy responds: nothing to a program that has left, a denial, or that one side is down."""


def with_proxy(tasks: list[str], swarm: Swarm, random: Random) -> list[str]:
    """Return the kinds of uses of the tasks of a loop, of which requests to a proxy may replace the first ones."""
    return [PROXY] * 3 + tasks[3:] if tasks and FEATURE in swarm and random.random() < SHARE else tasks


class Proxy:
    """The proxies of one program, one for each workspace that pays."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.upstream = Upstream(asyncio.sleep)
        self._apps: dict[str | None, App] = {}

    def app(self, workspace: str | None) -> App:
        """Return the application whose requests a workspace pays."""
        if workspace not in self._apps:
            random = Random(f"proxy {self._program.hub.seed} {self._program.process.name} {workspace}")
            settings = ProxySettings(
                upstreams={"openai": f"{URL}/v1"},
                prices=PriceBook({}),
                unit="TOKENS",
                subject={} if workspace is None else {"workspace": workspace},
                wait=0,
                min_output_tokens=random.choice((None, 1, 16)),
            )
            self._apps[workspace] = App(
                settings,
                self._program.client,
                UpstreamClient(transport=self.upstream, trust_env=False),
                on_denied=lambda _: None,
                on_no_decision=lambda _: None,
                on_settled=lambda: None,
                forwarding=None,
            )
        return self._apps[workspace]


class _Connection:
    """The connection of a program to the proxy, as an ASGI server has it."""

    def __init__(self, use: Use, body: bytes) -> None:
        self._use = use
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._parts = 0
        after_s = use.random.choice(LEAVES_S)
        self.timer = None if after_s is None else asyncio.get_running_loop().call_later(after_s, self._gone.set)
        self.sent = bytearray()
        self.status: int | None = None

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.sent += message.get("body", b"")
        if self._parts == self._use.leaves_after:
            self._gone.set()
        self._parts += 1
        if self._use.random.random() < 0.2:
            await asyncio.sleep(0.2)  # it reads slowly


async def request_in_task(program: Program, op: Op) -> None:
    program.server.swarm.matters(FEATURE)
    use, proxy = Use(program, op), program.proxy
    body = json.dumps(use.body).encode()
    headers = {
        **proxy.upstream.expect(use),
        AGENT_HEADER: op.agent,
        "host": "127.0.0.1:8080",
        "content-length": str(len(body)),
    }
    connection = _Connection(use, body)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/openai/responses",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "server": ("127.0.0.1", 8080),
    }
    use.reserves()
    with contextlib.suppress(BrokenUpstreamError):
        await proxy.app(op.account.workspace)(scope, connection.receive, connection.send)
    if connection.timer is not None:
        connection.timer.cancel()
    if connection.status not in STATUSES:
        op.problems.append(f"the proxy responds {connection.status}: {bytes(connection.sent)!r:.300}")
    if use.sent > 1:
        op.problems.append(f"the proxy has sent one request {use.sent} times")
    if connection.status == 200 and not use.stream and json.loads(connection.sent)["status"] != "completed":
        op.problems.append(f"the proxy has changed a response: {bytes(connection.sent)!r}")
    program.hub.trace(f"{op.agent}: the proxy responds {connection.status}, {use.sent} sent, {op.billed} billed")
    use.ends()
