"""`cycles proxy` as a process: what it prints, whom it accepts, and how it ends."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import httpx
import pytest

from cycles.testing import FakeProvider
from tests.operators.kit import processes, run_process
from tests.operators.running import GPT_4O, USED, VARIABLES, start, upstreams

pytestmark = processes

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [], "max_tokens": 100}


def test_it_prints_its_addresses_and_a_summary_and_lets_running_calls_finish(provider: FakeProvider) -> None:
    gate = threading.Event()
    provider.reply(usage=USED, gate=gate)
    process = start("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD", "--json", *upstreams(provider))
    assert process.stdout is not None
    document = json.loads(process.stdout.readline())
    url = document["listening"]
    assert document == {"listening": url, "base_urls": {name: url + path for name, path in VARIABLES.items()}}
    statuses: list[int] = []
    address = f"{document['base_urls']['OPENAI_BASE_URL']}/chat/completions"
    caller = threading.Thread(target=lambda: statuses.append(httpx.post(address, json=CHAT, timeout=120).status_code))
    caller.start()
    while not provider.requests:
        caller.join(0.01)
    process.send_signal(signal.SIGTERM)
    gate.set()
    out, err = process.communicate(timeout=300)
    caller.join()
    assert statuses == [200]
    summary = json.loads(out.splitlines()[-1])
    assert (summary["calls"], summary["spent"]["amount"], summary["exit"]) == (1, GPT_4O, 0)
    assert (process.returncode, err) == (0, "")


def test_it_prints_lines_to_export(provider: FakeProvider) -> None:
    process = start("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD", *upstreams(provider))
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(len(VARIABLES) + 1)]
    url = lines[-1].partition("=")[2]
    assert lines == [
        *(f"export {name}={url}{path}" for name, path in VARIABLES.items()),
        f"export CYCLES_PROXY_URL={url}",
    ]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "0 calls, $0.00 of $1.00 spent" in err


def test_with_tunnel_it_also_prints_the_variables_of_the_tunnel_without_the_key(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_PROXY_KEY", "proxy-secret")
    process = start("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD", "--tunnel", *upstreams(provider))
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(len(VARIABLES) + 4)]
    assert lines[0].startswith('export OPENAI_BASE_URL="http://127.0.0.1:')
    assert lines[-3].startswith('export HTTPS_PROXY="http://cycles:$CYCLES_PROXY_KEY@127.0.0.1:')
    assert lines[-1] == 'export NODE_USE_ENV_PROXY="1"'
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert "proxy-secret" not in "".join(lines) + out + err


def test_another_address_needs_a_key_which_is_never_printed(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run_process("proxy", "--listen", "0.0.0.0:0", "--budget", "1USD")
    assert (ran.status, ran.out) == (2, "")
    assert "pass --proxy-key KEY, or set CYCLES_PROXY_KEY" in ran.err
    monkeypatch.setenv("CYCLES_PROXY_KEY", "proxy-secret")
    process = start("proxy", "--listen", "0.0.0.0:0", "--budget", "1USD", "--json", *upstreams(provider))
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["listening"].rpartition(":")[2]
    base = f"http://127.0.0.1:{port}"
    provider.reply(usage=USED, times=2)
    assert httpx.post(f"{base}/openai/v1/chat/completions", json=CHAT).status_code == 401
    assert httpx.post(f"{base}/proxy-secret/openai/v1/chat/completions", json=CHAT).status_code == 200
    key = {"X-Cycles-Proxy-Key": "proxy-secret"}
    assert httpx.post(f"{base}/openai/v1/chat/completions", json=CHAT, headers=key).status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert "proxy-secret" not in out + err


@pytest.mark.parametrize(
    ("listen", "says"), [("8790", "is not HOST:PORT"), ("127.0.0.1:x", "is not HOST:PORT"), ("203.0.113.1:0", "KEY")]
)
def test_wrong_addresses_exit_2(listen: str, says: str) -> None:
    ran = run_process("proxy", "--listen", listen, "--budget", "1USD")
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err


def test_on_denied_is_an_option_of_run_and_proxy_and_stop_needs_a_command(provider: FakeProvider) -> None:
    ran = run_process("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD", "--on-denied", "stop")
    assert (ran.status, ran.out) == (2, "")
    assert "--on-denied stop needs a command: use cycles run" in ran.err
    process = start("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD", "--on-denied", "refuse", "--json")
    assert process.stdout is not None
    assert "listening" in json.loads(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 0


def test_a_port_in_use_exits_2(provider: FakeProvider) -> None:
    port = provider.url.rpartition(":")[2]
    ran = run_process("proxy", "--listen", f"127.0.0.1:{port}", "--budget", "1USD")
    assert (ran.status, ran.out) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port}" in ran.err
