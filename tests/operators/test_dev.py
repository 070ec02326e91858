"""`cycles dev`: its output, its options, how it ends, and its wrong usage."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from tests.operators.conftest import Cycles
from tests.operators.kit import ROOT, environment, processes, run_process

SOON_S = 30.0  # half of the delay of the response that the process does not wait for


@contextlib.contextmanager
def dev(*arguments: str, port: str = "0", **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a running `cycles dev` and the first line that it printed. It is killed at the end."""
    command = [sys.executable, "-W", "error", "-m", "cycles", "dev", "--port", port, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**env)
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=300)
            yield process, line
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[float, str, str]:
    """Send a signal and return the seconds until the process ended, and what it still printed."""
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return time.monotonic() - began, out, err


@processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_soon_with_open_pages(number: signal.Signals) -> None:
    with dev("--json") as (process, line), httpx.Client() as page:
        started = json.loads(line)
        assert set(started) == {"url", "dashboard", "tenants"}
        [tenant] = started["tenants"]
        assert tenant["tenant"] == "acme"
        assert started["dashboard"].startswith(f"{started['url']}/dashboard#")
        with cycles.Cycles(base_url=started["url"], api_key=tenant["api_key"], tenant="acme", journal=False) as client:
            assert [str(balance.allocated) for balance in client.balances()] == ["$10.00"]
        token = started["dashboard"].partition("#")[2]
        fault: dict[str, Any] = {"do": "fault", "operation": "balances", "kind": "delay", "seconds": 60}
        headers = {"Authorization": f"Bearer {token}"}
        assert page.post(f"{started['url']}/dashboard/control", json=fault, headers=headers).status_code == 200
        with page.stream("GET", f"{started['url']}/dashboard/events") as events:
            next(events.iter_raw())
            with socket.create_connection(("127.0.0.1", int(started["url"].rpartition(":")[2]))) as delayed:
                key = tenant["api_key"]
                delayed.sendall(
                    f"GET /v1/balances?tenant=acme HTTP/1.1\r\nHost: x\r\nX-Cycles-API-Key: {key}\r\n\r\n".encode()
                )
                page.get(f"{started['url']}/dashboard/state")
                seconds, out, err = end(process, number)
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err
        assert seconds < SOON_S


@processes
def test_budgets_keys_and_the_ledger_file(tmp_path: Path) -> None:
    file = str(tmp_path / "ledger.db")
    options = ("--budget", "tenant:acme=2USD", "--budget", "tenant:beta=500TOKENS", "--api-key", "own-key=acme")
    with dev(*options, "--db", file, "--json") as (process, line):
        started = json.loads(line)
        assert [tenant["tenant"] for tenant in started["tenants"]] == ["acme", "beta"]
        assert started["tenants"][0]["api_key"] == "own-key"
        with cycles.Cycles(base_url=started["url"], api_key="own-key", tenant="acme", journal=False) as client:
            client.record(cycles.usd("0.5"), action=("kind", "name"))
        assert end(process, signal.SIGTERM)[0] < SOON_S
    with dev("--db", file, "--json") as (process, line):  # the file has budgets, so there is no other one
        url = json.loads(line)["url"]
        with cycles.Cycles(base_url=url, api_key="own-key", tenant="acme", journal=False) as client:
            assert [str(balance.remaining) for balance in client.balances()] == ["$1.50"]


@processes
def test_people_get_addresses_keys_and_a_line_to_paste() -> None:
    with dev("--budget", "tenant:acme=2USD") as (process, line):
        assert process.stdout is not None
        dashboard, tenant, paste = (process.stdout.readline() for _ in range(3))
        _, out, err = end(process, signal.SIGINT)
    url = line.split()[1]
    assert dashboard.split()[1].startswith(f"{url}/dashboard#")
    key = tenant.split()[2]
    assert paste == f"export CYCLES_BASE_URL={url} CYCLES_API_KEY={key} CYCLES_TENANT=acme\n"
    assert (out, err) == ("", "Ctrl-C stops the server\n")


@processes
def test_open_opens_the_dashboard_with_its_token(tmp_path: Path) -> None:
    pipe, browser = tmp_path / "opened", tmp_path / "browser"
    os.mkfifo(pipe)
    browser.write_text(f'#!/bin/sh\necho "$1" > {pipe}\n')
    browser.chmod(0o755)
    with dev("--open", "--json", BROWSER=f"{browser} %s") as (_, line):
        assert pipe.read_text().strip() == json.loads(line)["dashboard"]


def test_wrong_usage_exits_2_and_says_what_to_type(
    run: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its signal handlers
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    before = foreign.read_bytes()
    (tmp_path / "text.db").write_text("no database at all, but a text of some length\n" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            (["--port", port], f"cannot listen on 127.0.0.1:{port} (Address already in use); pass another port"),
            (["--port", "70000"], "70000 is not an integer from 0 to 65535"),
            (["--db", str(foreign)], "is a database, but not a ledger of the embedded server; pass another file"),
            (["--db", str(tmp_path / "text.db")], "file is not a database"),
            (["--db", str(tmp_path / "no" / "x.db")], "cannot open the ledger"),
            (["--budget", "tenant:acme"], "--budget has no amount: tenant:acme; write it like tenant:acme=10USD"),
            (["--budget", "acme=1USD"], "'acme' is not level:value"),
            (["--budget", "tenant:acme=5EUR"], "'5EUR' names no unit; use USD"),
            (["--api-key", "secret"], "--api-key has no key or no tenant; write it like KEY=TENANT"),
        ):
            ran = run("dev", "--json", *arguments)
            assert (ran.status, ran.err) == (2, ""), arguments
            assert message in ran.document["message"]
            assert "secret" not in ran.out
    assert foreign.read_bytes() == before


@processes
def test_with_fake_it_prints_addresses_of_a_provider_that_responds() -> None:
    with dev("--fake", "--json") as (process, line):
        found = json.loads(line)
        variables = found["environment"]
        assert {variables[name] for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")} == {"fake"}
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
        part = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
        for variable, path, body in (
            ("OPENAI_BASE_URL", "/chat/completions", chat),
            ("ANTHROPIC_BASE_URL", "/v1/messages", chat),
            ("GOOGLE_GEMINI_BASE_URL", "/v1beta/models/gemini-2.5-flash:generateContent", part),
        ):
            response = httpx.post(f"{variables[variable]}{path}", json=body, timeout=60)
            assert (response.status_code, "Done (" in response.text) == (200, True), response.text
        [tenant] = found["tenants"]
        env = {"CYCLES_BASE_URL": found["url"], "CYCLES_API_KEY": tenant["api_key"], "CYCLES_TENANT": "acme"}
        agent = (sys.executable, "examples/agent.py")
        ran = run_process("run", "--budget", "0.05USD", "--", *agent, env=environment(**variables, **env))
        assert "4 calls, $0.0401 of $0.05 spent (gpt-4o $0.0401), 1 denied (run_limit)" in ran.err
        assert end(process, signal.SIGTERM)[0] < SOON_S
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{variables['OPENAI_BASE_URL']}/chat/completions", json=chat, timeout=60)


@processes
def test_with_fake_it_prints_two_lines_for_a_shell() -> None:
    with dev("--fake") as (process, line):
        assert process.stdout is not None
        assert process.stderr is not None
        exports = [line]
        while not exports[-1].startswith("export OPENAI_BASE_URL"):
            exports.append(process.stdout.readline())
            assert exports[-1], exports
        exports = [line.strip() for line in exports if line.startswith("export ")]
        assert "Ctrl-C" in process.stderr.readline()  # the last line: a signal before it would end it too soon
        assert [line.split("=")[0] for line in exports] == ["export CYCLES_BASE_URL", "export OPENAI_BASE_URL"]
        shown = subprocess.run(
            ["sh", "-c", f"{exports[1]}; echo $OPENAI_API_KEY $ANTHROPIC_BASE_URL"], capture_output=True, text=True
        )
        assert shown.stdout.startswith("fake http://127.0.0.1:")
