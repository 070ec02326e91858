"""`cycles mcp` in this process, with a stand-in of the package mcp: a function is the session of an agent."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

import cycles
import cycles.cli
from cycles._version import INSTALL_COMMAND
from cycles.cli._mcp_desk import Desk
from tests.integrations.stand_ins import module
from tests.operators.conftest import Cycles
from tests.operators.kit import Ran
from tests.support.waiting import until

ACTION = "tool.call/web_search"
READING = {"budget_left", "budget_check"}
TOOLS = READING | {"budget_reserve", "budget_commit", "budget_release"}
KEY = "s3cret-mcp-key"


class ToolError(Exception):
    """What a tool raises for the model."""


class Server:
    """A stand-in of an MCP server.

    Attributes:
        session: What its agent does.
        made: The servers that were made.
    """

    session: Callable[[Server], object]
    made: list[Server]

    def __init__(self, name: str, *, instructions: str, version: str) -> None:
        self.described = (name, version)
        self.instructions = instructions
        self.tools: dict[str, Any] = {}
        self.transport = "http"
        self.made.append(self)

    def tool(self) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            self.tools[function.__name__] = function
            return function

        return register

    def call(self, tool: str, **arguments: Any) -> Any:
        return anyio.run(partial(self.tools[tool], **arguments))

    def run(self, transport: str) -> None:
        self.transport = transport
        self.session(self)

    def streamable_http_app(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                for _ in range(2):
                    await send({"type": f"{(await receive())['type']}.complete"})
                return
            arguments = json.loads((await receive())["body"])
            result = await self.tools[scope["path"].removeprefix("/mcp/")](**arguments)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(result).encode()})

        return app


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """The servers that the commands of a test made. A signal that a command should take is not that of pytest."""
    servers: list[Server] = []
    monkeypatch.setattr(Server, "made", servers, raising=False)
    name = "cycles.cli._mcp_server"
    before, level = signal.signal(signal.SIGTERM, missed), logging.getLogger("mcp").level
    monkeypatch.delitem(sys.modules, name, raising=False)
    for each in (
        module("mcp"),
        module("mcp.server"),
        module("mcp.server.mcpserver", MCPServer=Server),
        module("mcp.server.mcpserver.exceptions", ToolError=ToolError),
    ):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    try:
        yield servers
    finally:
        handler = signal.signal(signal.SIGTERM, before)
        logging.getLogger("mcp").setLevel(level)
        sys.modules.pop(name, None)
        vars(cycles.cli).pop("_mcp_server", None)
    assert handler is missed, "the handler of before is back"


def missed(*_: Any) -> None:
    raise AssertionError("the command did not take the signal")


@pytest.fixture
def mcp(
    made: list[Server], configured: cycles.EmbeddedServer, run_here: Cycles, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Run `cycles mcp` with a session."""

    def run(session: Callable[[Server], object], *arguments: str) -> Ran:
        monkeypatch.setattr(Server, "session", staticmethod(session), raising=False)
        return run_here("mcp", "--subject", "agent=bot", *arguments)

    return run


def charged(server: cycles.EmbeddedServer) -> tuple[int, int]:
    """Return what the agent has spent and what is reserved, in cents."""
    balance = server.ledger.balance("tenant:acme/agent:bot", "USD_MICROCENTS")
    assert balance.spent is not None
    assert balance.reserved is not None
    return balance.spent.amount // 1_000_000, balance.reserved.amount // 1_000_000


def test_a_session_reserves_commits_and_releases_and_what_is_open_at_its_end_is_released(
    mcp: Callable[..., Ran], made: list[Server], configured: cycles.EmbeddedServer
) -> None:
    seen: list[Any] = []

    def session(server: Server) -> None:
        reserve = partial(server.call, "budget_reserve", action=ACTION)
        seen.append(server.call("budget_left"))
        seen.append(server.call("budget_check", estimate="1.01USD", action=ACTION))
        first, second = reserve(estimate="0.40USD"), reserve(estimate="0.20USD", ttl_s=60)
        seen.append(charged(configured))
        seen.append(server.call("budget_commit", id=first["id"], actual="0.32USD"))
        seen.append(server.call("budget_release", id=second["id"]))
        seen.append(charged(configured))
        with pytest.raises(ToolError, match="there is no open reservation"):
            server.call("budget_commit", id=first["id"], actual="0.32USD")
        reserve(estimate="0.50USD")

    ran = mcp(session)
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert seen == [
        {"USD": "1.00USD", "TOKENS": "1000000TOKENS"},
        {"allowed": False, "reason": "BUDGET_EXCEEDED"},
        (0, 60),
        {"committed": "0.32USD"},
        {"released": True},
        (32, 0),
    ]
    [server] = made
    assert (server.transport, server.described, set(server.tools)) == ("stdio", ("cycles", cycles.__version__), TOOLS)
    assert "budget_reserve before an action" in server.instructions
    assert charged(configured) == (32, 0)
    assert logging.getLogger("mcp").level == logging.WARNING


def test_a_read_only_session_has_two_tools(mcp: Callable[..., Ran], made: list[Server]) -> None:
    assert mcp(lambda server: None, "--read-only").status == 0
    assert set(made[0].tools) == READING


def test_the_largest_estimate_is_that_of_the_option(mcp: Callable[..., Ran]) -> None:
    seen: list[Any] = []

    def session(server: Server) -> None:
        seen.extend(server.call("budget_check", estimate=text, action=ACTION) for text in ("0.10USD", "0.11USD"))

    mcp(session, "--max", "0.10USD")
    assert seen == [{"allowed": True}, {"allowed": False, "reason": "one reservation may be at most 0.10USD"}]


@pytest.mark.parametrize("ending", ["SIGTERM", "error"])
def test_what_is_open_is_released_however_the_session_ends(
    mcp: Callable[..., Ran], configured: cycles.EmbeddedServer, ending: str
) -> None:
    seen: list[Any] = []

    def session(server: Server) -> None:
        server.call("budget_reserve", estimate="0.40USD", action=ACTION)
        seen.append(charged(configured))
        if ending == "error":
            raise cycles.ConfigurationError("the session broke")
        signal.raise_signal(signal.SIGTERM)

    ran = mcp(session)
    assert (ran.status, ran.err) == ((0, "") if ending == "SIGTERM" else (2, "error: the session broke\n"))
    assert seen == [(0, 40)]
    assert charged(configured) == (0, 0)


def test_a_commit_that_the_server_does_not_take_is_in_the_journal(
    mcp: Callable[..., Ran], configured: cycles.EmbeddedServer, run_here: Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0")
    monkeypatch.setenv("CYCLES_TIMEOUT", "0.2")

    def session(server: Server) -> None:
        made = server.call("budget_reserve", estimate="0.40USD", action=ACTION)
        configured.faults.status("commit", 503, times=None)
        server.call("budget_commit", id=made["id"], actual="0.32USD")

    assert mcp(session).status == 0
    [record] = run_here("pending", "--json").document["records"]
    assert record["amount"] == {"unit": "USD_MICROCENTS", "amount": 32_000_000}


def test_a_reservation_of_a_call_that_the_host_gave_up_is_released(
    mcp: Callable[..., Ran], configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    reserve = Desk.reserve

    async def given_up(server: Server, estimate: str) -> None:
        with anyio.CancelScope() as scope:

            def reserve_and_cancel(*arguments: Any) -> Any:
                result = reserve(*arguments)
                seen.append(charged(configured))
                anyio.from_thread.run_sync(scope.cancel)
                return result

            monkeypatch.setattr(Desk, "reserve", reserve_and_cancel)
            await server.tools["budget_reserve"](estimate=estimate, action=ACTION)
        seen.append((scope.cancelled_caught, charged(configured)))

    def session(server: Server) -> None:
        anyio.run(given_up, server, "0.40USD")
        anyio.run(given_up, server, "1.40USD")  # it is denied, and nothing is left to release

    assert mcp(session).status == 0
    assert seen == [(0, 40), (True, (0, 0)), (0, 0), (True, (0, 0))]


def test_a_call_that_is_given_up_is_released_after_its_reservation(
    mcp: Callable[..., Ran], configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release before it would find nothing, and the reservation would hold its amount until its ttl ends."""
    steps: list[str] = []
    reserve, release = Desk.reserve, Desk.release

    async def given_up(server: Server) -> None:
        with anyio.CancelScope() as scope:

            def cancel_and_reserve(*arguments: Any) -> Any:
                anyio.from_thread.run_sync(scope.cancel)
                for _ in range(50):  # the loop may do what it would do before the reservation is made
                    anyio.from_thread.run_sync(int)
                result = reserve(*arguments)
                steps.append("reserved")
                return result

            def note_and_release(*arguments: Any) -> Any:
                steps.append("released")
                return release(*arguments)

            monkeypatch.setattr(Desk, "reserve", cancel_and_reserve)
            monkeypatch.setattr(Desk, "release", note_and_release)
            await server.tools["budget_reserve"](estimate="0.40USD", action=ACTION)

    assert mcp(lambda server: anyio.run(given_up, server)).status == 0
    assert (steps, charged(configured)) == (["reserved", "released"], (0, 0))


class Host:
    """A host that sends requests when the command has printed where it listens, and then ends the command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.statuses: list[int] = []
        self.printed = threading.Event()
        self.failed: BaseException | None = None
        monkeypatch.setattr("cycles.cli.mcp.say", self.say)

    def say(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == 2:
            self.printed.set()

    @property
    def url(self) -> str:
        return self.lines[0].removeprefix("MCP server on ")

    @property
    def key(self) -> str:
        return self.lines[1].rpartition(" ")[2]

    def post(self, tool: str, key: str | None, **arguments: Any) -> Any:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        response = httpx.post(f"{self.url}/{tool}", json=arguments, headers=headers, timeout=60, trust_env=False)
        self.statuses.append(response.status_code)
        return response.json() if response.status_code == 200 else response.text

    def during(self, command: Callable[[], Ran], program: Callable[[], object]) -> Ran:
        def act() -> None:
            try:
                assert self.printed.wait(20)
                program()
            except BaseException as error:
                self.failed = error
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        ran = command()
        thread.join(60)
        if self.failed is not None:
            raise self.failed
        return ran


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_over_http_a_key_is_needed_and_sigterm_releases_what_is_open(
    mcp: Callable[..., Ran], configured: cycles.EmbeddedServer, host: Host
) -> None:
    seen: list[Any] = []

    def program() -> None:
        for key in (None, f"{KEY}x", KEY[:-1]):
            seen.append(host.post("budget_left", key))
        seen.append(host.post("budget_left", KEY))
        host.post("budget_reserve", KEY, estimate="0.40USD", action=ACTION)
        seen.append(charged(configured))

    ran = host.during(lambda: mcp(lambda server: None, "--http", "0", "--mcp-key", KEY), program)
    assert (ran.status, ran.out) == (0, "")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/mcp", host.url)
    assert host.lines[1] == f"requests need the header Authorization: Bearer {KEY}"
    assert host.statuses == [401, 401, 401, 200, 200]
    assert "the header Authorization: Bearer KEY is missing or wrong" in seen[0]
    assert seen[-2:] == [{"USD": "1.00USD", "TOKENS": "1000000TOKENS"}, (0, 40)]
    assert charged(configured) == (0, 0)
    with pytest.raises(httpx.ConnectError):
        httpx.get(host.url, trust_env=False)


def test_over_http_what_was_left_for_its_time_is_released(
    mcp: Callable[..., Ran], configured: cycles.EmbeddedServer, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("cycles.cli.mcp._CHECK_S", 0.005)
    monkeypatch.setattr("cycles.cli.mcp.time", SimpleNamespace(monotonic=lambda: now[0]))

    def program() -> None:
        for seconds in (60, 30):
            host.post("budget_reserve", host.key, estimate="0.20USD", action=ACTION, ttl_s=seconds)
            now[0] += seconds
            until(lambda: charged(configured) == (0, 0), 20.0)

    assert host.during(lambda: mcp(lambda server: None, "--http", "0"), program).status == 0
    assert host.statuses == [200, 200]
    assert len(host.key) == 32


def test_the_key_comes_from_the_environment_too_and_needs_http(
    mcp: Callable[..., Ran], made: list[Server], host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_MCP_KEY", KEY)
    ran = host.during(lambda: mcp(lambda server: None, "--http", "0"), lambda: host.post("budget_left", KEY))
    assert (ran.status, host.key, host.statuses) == (0, KEY, [200])
    ran = mcp(lambda server: None)
    assert (ran.status, len(made)) == (2, 1)
    assert "--mcp-key needs --http PORT" in ran.err


def test_an_empty_key_is_none(mcp: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    monkeypatch.setattr("cycles.cli.mcp._serve_http", lambda desk, server, port, key: keys.append(key))
    assert [mcp(lambda server: None, "--http", "0", *more).status for more in ((), ("--mcp-key", ""))] == [0, 0]
    assert [len(key) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


def test_a_port_in_use_is_wrong_usage(mcp: Callable[..., Ran], configured: cycles.EmbeddedServer) -> None:
    port = os.environ["CYCLES_BASE_URL"].rpartition(":")[2]
    ran = mcp(lambda server: None, "--http", port)
    assert ran.status == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ran.err
    assert "choose another port with --http" in ran.err


def test_without_the_package_one_line_names_the_extra(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cycles.cli._mcp_server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    ran = run_here("mcp")
    assert (ran.status, ran.out) == (2, "")
    install = INSTALL_COMMAND.replace("[run]", "[mcp]")
    assert ran.err == f"error: cycles mcp needs the package mcp; install it with {install}\n"


def test_a_package_that_mcp_needs_is_not_taken_for_it(made: list[Server], run_here: Cycles) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "anyio", None)
        with pytest.raises(ImportError, match="anyio"):
            run_here("mcp")
