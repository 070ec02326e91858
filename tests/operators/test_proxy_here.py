"""`cycles proxy` in this process: a function runs instead of the wait for a signal."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import Ran
from tests.operators.running import GPT_4O, USED, VARIABLES, upstreams

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [], "max_tokens": 100}
SECRET = "proxy-secret"


class Proxy:
    """Runs `cycles proxy`, and a function while it serves; SIGTERM ends it.

    Attributes:
        out: What it printed before it waited.
        number: The signal that ends it.
    """

    def __init__(
        self, run: Cycles, read: Callable[[], Any], provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.run = run
        self.read = read
        self.provider = provider
        self.number = signal.SIGTERM
        self.handlers: dict[int, Any] = {}
        self.out = ""
        self.program: Callable[[], object] = lambda: None
        proxy = self

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                proxy.out = proxy.read().out
                proxy.program()
                assert not self.is_set()
                proxy.handlers[proxy.number](proxy.number, None)
                return super().wait(60)

        names = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "signal": self.handlers.__setitem__}
        monkeypatch.setattr("cycles.cli.proxy.signal", SimpleNamespace(**names))
        monkeypatch.setattr("cycles.cli.proxy.threading", SimpleNamespace(Event=Stop))

    def __call__(self, program: Callable[[], object], *arguments: str, listen: str = "127.0.0.1:0") -> Ran:
        self.program = program
        return self.run("proxy", "--listen", listen, "--budget", "1USD", *upstreams(self.provider), *arguments)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def proxy(
    run_here: Cycles, capsys: pytest.CaptureFixture[str], provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> Proxy:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", *VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return Proxy(run_here, capsys.readouterr, provider, monkeypatch)


def post(base: str, **headers: str) -> int:
    url = f"{base}/chat/completions"
    return httpx.post(url, json=CHAT, headers=headers, timeout=60, trust_env=False).status_code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_addresses_serves_until_a_signal_and_prints_a_summary(
    proxy: Proxy, number: signal.Signals
) -> None:
    statuses: list[int] = []
    proxy.provider.reply(usage=USED)
    proxy.number = number
    ran = proxy(lambda: statuses.append(post(json.loads(proxy.out)["base_urls"]["OPENAI_BASE_URL"])), "--json")
    url = json.loads(proxy.out)["listening"]
    assert json.loads(proxy.out) == {"listening": url, "base_urls": {n: url + path for n, path in VARIABLES.items()}}
    assert (ran.status, ran.err, statuses) == (0, "", [200])
    assert (ran.document["calls"], ran.document["spent"]["amount"], ran.document["exit"]) == (1, GPT_4O, 0)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_people_get_lines_to_export_and_a_line_with_the_sum(proxy: Proxy) -> None:
    ran = proxy(lambda: None)
    url = proxy.lines[-1].partition("=")[2]
    variables = {**VARIABLES, "CYCLES_PROXY_URL": ""}
    assert proxy.lines == [f"export {name}={url}{path}" for name, path in variables.items()]
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.startswith("cycles: 0 calls, $0.00 of $1.00 spent")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_key_is_needed_and_is_not_in_the_lines_to_export(
    proxy: Proxy, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []

    def use() -> None:
        port = proxy.lines[-4].rpartition(":")[2].partition("/")[0].rstrip('"')
        base = f"http://127.0.0.1:{port}"
        statuses.extend(post(f"{base}{prefix}/openai/v1") for prefix in ("", f"/{SECRET}"))
        statuses.append(post(f"{base}/openai/v1", **{"x-cycles-proxy-key": SECRET}))

    proxy.provider.reply(usage=USED, times=2)
    if by == "variable":
        monkeypatch.setenv("CYCLES_PROXY_KEY", SECRET)
    key = ("--proxy-key", SECRET) if by == "option" else ()
    ran = proxy(use, "--tunnel", *key, listen="0.0.0.0:0")
    assert (ran.status, statuses) == (0, [401, 200, 200])
    assert "/$CYCLES_PROXY_KEY/openai/v1" in proxy.lines[0]
    assert proxy.lines[0].startswith('export OPENAI_BASE_URL="http://')
    assert proxy.lines[-3].startswith('export HTTPS_PROXY="http://cycles:$CYCLES_PROXY_KEY@')
    assert proxy.lines[-1] == 'export NODE_USE_ENV_PROXY="1"'
    assert SECRET not in proxy.out + ran.out + ran.err


def test_an_empty_key_is_none(proxy: Proxy) -> None:
    statuses: list[int] = []
    proxy.provider.reply(usage=USED)
    proxy(
        lambda: statuses.append(post(json.loads(proxy.out)["base_urls"]["OPENAI_BASE_URL"])), "--proxy-key=", "--json"
    )
    assert statuses == [200]
    proxy(lambda: None, "--proxy-key=")
    assert proxy.lines[0].startswith("export OPENAI_BASE_URL=http://127.0.0.1:")
    ran = proxy(lambda: None, "--proxy-key=", listen="0.0.0.0:0")
    assert ran.status == 2
    assert "0.0.0.0 is not a loopback address: pass --proxy-key KEY, or set CYCLES_PROXY_KEY" in ran.err


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("8790", "'8790' is not HOST:PORT"),
        (":8790", "':8790' is not HOST:PORT"),
        ("localhost", "'localhost' is not HOST:PORT"),
        ("127.0.0.1:x", "'127.0.0.1:x' is not HOST:PORT"),
        ("127.0.0.1:65536", "'127.0.0.1:65536' is not HOST:PORT"),
        ("[::1", "'[::1' is not HOST:PORT"),
        ("203.0.113.1:0", "203.0.113.1 is not a loopback address"),
    ],
)
def test_where_it_cannot_listen_is_wrong_usage(proxy: Proxy, listen: str, says: str) -> None:
    ran = proxy(lambda: None, listen=listen)
    assert (ran.status, ran.out, proxy.out) == (2, "", "")
    assert says in ran.err


def test_stop_at_a_denial_needs_a_command(proxy: Proxy) -> None:
    ran = proxy(lambda: None, "--on-denied", "stop")
    assert (ran.status, proxy.out) == (2, "")
    assert "--on-denied stop needs a command: use cycles run" in ran.err
    assert proxy(lambda: None, "--on-denied", "refuse").status == 0


def test_a_value_with_a_special_character_is_quoted_for_the_shell(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cycles.proxy._run.route_variables",
        lambda url, key, environ, settings: {"A_BASE_URL": f"{url}/a b;c", "CYCLES_PROXY_URL": url},
    )
    proxy(lambda: None)
    assert proxy.lines[0].startswith("export A_BASE_URL='http://")
    assert proxy.lines[0].endswith("/a b;c'")
