"""`cycles dev` and `cycles proxy` in this process: the test is what they wait for, and they stop when it returns."""

from __future__ import annotations

import json
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import Ran
from tests.operators.running import GPT_4O, USED, VARIABLES, upstreams

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [], "max_tokens": 100}
Serve = Callable[..., Ran]


class Served:
    """Runs a command until its stop event is waited for, calls `meanwhile` with what was printed, and lets it end."""

    def __init__(self, run: Cycles, capsys: pytest.CaptureFixture[str]) -> None:
        self._run = run
        self._capsys = capsys
        self.meanwhile: Callable[[str], Any] = lambda out: None

    def __call__(self, *arguments: str, meanwhile: Callable[[str], Any] = lambda out: None) -> Ran:
        self.meanwhile = meanwhile
        return self._run(*arguments)

    def set(self) -> None:
        """A signal would set the event."""

    def wait(self) -> None:
        self.meanwhile(self._capsys.readouterr().out)


@pytest.fixture
def serve(run_here: Cycles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Serve:
    served = Served(run_here, capsys)

    @contextmanager
    def stop_signal() -> Iterator[Served]:
        yield served

    monkeypatch.setattr("cycles.cli.dev.stop_signal", stop_signal)
    monkeypatch.setattr("cycles.cli.proxy.threading", SimpleNamespace(Event=lambda: served))
    own = SimpleNamespace(signal=lambda *_: None, SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM)
    monkeypatch.setattr("cycles.cli.proxy.signal", own)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return served


def lines_of(serve: Serve, *arguments: str) -> list[str]:
    found: list[str] = []
    assert serve(*arguments, meanwhile=lambda out: found.extend(out.splitlines())).status == 0
    return found


# --- cycles dev


def test_a_budget_that_calls_need_an_option_for_is_named_with_it(serve: Serve) -> None:
    budgets = ["tenant:acme=1USD", "tenant:acme=500TOKENS", "tenant:acme/workspace:w/agent:bot=1USD"]
    lines = lines_of(serve, "dev", "--port", "0", *(f"--budget={each}" for each in budgets))
    notes = [line for line in lines if "no call draws on it by default" in line]
    assert sorted(notes) == [
        "tenant:acme in TOKENS: no call draws on it by default; it needs --unit TOKENS",
        "tenant:acme/workspace:w/agent:bot: no call draws on it by default; it needs "
        "--subject workspace=w --subject agent=bot",
    ]


@pytest.mark.parametrize(("number", "last"), [(20, "a19: no call draws"), (21, "and 1 more budgets on which no call")])
def test_the_notes_on_budgets_are_at_most_20(serve: Serve, number: int, last: str) -> None:
    budgets = [f"--budget=tenant:acme/agent:a{index:02}=1USD" for index in range(number)]
    notes = [line for line in lines_of(serve, "dev", "--port", "0", *budgets) if "no call draws" in line]
    assert last in notes[-1]
    assert len(notes) == number


def test_a_file_keeps_its_budgets_and_the_default_is_for_none(serve: Serve, tmp_path: Path) -> None:
    def left(out: str) -> None:
        found = json.loads(out)
        [tenant] = found["tenants"]
        config: dict[str, Any] = {"base_url": found["url"], "api_key": tenant["api_key"], "tenant": tenant["tenant"]}
        with cycles.Cycles(**config, journal=False) as client:
            allocated.append([str(balance.allocated) for balance in client.balances()])

    allocated: list[list[str]] = []
    db = ("dev", "--json", "--port", "0", "--db", str(tmp_path / "ledger.db"))
    serve(*db, "--budget", "tenant:other=2USD", "--api-key", "my-key=other", meanwhile=left)
    serve(*db, meanwhile=left)
    serve("dev", "--json", "--port", "0", meanwhile=left)
    assert allocated == [["$2.00"], ["$2.00"], ["$10.00"]]


def test_the_key_of_an_option_is_that_of_its_tenant_and_the_server_ends(serve: Serve) -> None:
    found: list[Any] = []
    serve("dev", "--json", "--port", "0", "--api-key", "my-key=acme", meanwhile=lambda out: found.append(out))
    document = json.loads(found[0])
    assert document["tenants"] == [{"tenant": "acme", "api_key": "my-key"}]
    assert "environment" not in document
    with pytest.raises(httpx.ConnectError):
        httpx.get(document["url"], trust_env=False)


def test_the_variables_of_the_fake_provider_and_of_the_admin_operations_work(serve: Serve) -> None:
    def use(out: str) -> None:
        variables = json.loads(out)["environment"]
        with cycles.Admin(variables["CYCLES_ADMIN_BASE_URL"], variables["CYCLES_ADMIN_API_KEY"]) as admin:
            scopes.extend(budget.scope for budget in admin.budgets())
        address = f"{variables['OPENAI_BASE_URL']}/chat/completions"
        statuses.append(httpx.post(address, json=CHAT, timeout=60, trust_env=False).status_code)

    scopes: list[str] = []
    statuses: list[int] = []
    serve("dev", "--json", "--port", "0", "--fake", "--admin", meanwhile=use)
    assert (scopes, statuses) == (["tenant:acme"], [200])


def test_open_opens_the_dashboard_of_the_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: queue.SimpleQueue[str] = queue.SimpleQueue()

    def open_page(address: str) -> bool:
        opened.put(address)
        return True

    pages: list[tuple[str, str]] = []
    monkeypatch.setattr("cycles.cli.dev.webbrowser", SimpleNamespace(open=open_page))
    dev = ("dev", "--json", "--port", "0")
    serve(*dev, "--open", meanwhile=lambda out: pages.append((json.loads(out)["dashboard"], opened.get(timeout=60))))
    [(printed, page)] = pages
    assert page == printed
    serve(*dev)
    assert opened.empty()


# --- cycles proxy


def test_the_proxy_prints_its_addresses_and_its_summary(serve: Serve, provider: FakeProvider) -> None:
    def use(out: str) -> None:
        document.append(json.loads(out))
        address = f"{document[0]['base_urls']['OPENAI_BASE_URL']}/chat/completions"
        httpx.post(address, json=CHAT, timeout=60, trust_env=False)

    document: list[Any] = []
    provider.reply(usage=USED)
    listen = ("--listen", "127.0.0.1:0", "--budget", "1USD", *upstreams(provider))
    ran = serve("proxy", "--json", *listen, meanwhile=use)
    url = document[0]["listening"]
    assert document[0] == {"listening": url, "base_urls": {name: url + path for name, path in VARIABLES.items()}}
    assert (ran.document["calls"], ran.document["spent"]["amount"], ran.document["exit"]) == (1, GPT_4O, 0)
    ran = serve("proxy", *listen)
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.startswith("cycles: 0 calls, $0.00 of $1.00 spent, 0 denied")


def test_lines_of_a_proxy_with_a_key_name_the_variable_of_the_key_and_never_the_key(serve: Serve) -> None:
    listen = ("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD")
    plain = lines_of(serve, *listen)
    url = plain[-1].removeprefix("export CYCLES_PROXY_URL=")
    assert plain == [
        *(f"export {name}={url}{path}" for name, path in VARIABLES.items()),
        f"export CYCLES_PROXY_URL={url}",
    ]
    keyed = lines_of(serve, *listen, "--proxy-key", "s3cret")
    assert len(keyed) == len(plain)
    assert "s3cret" not in "".join(keyed)
    assert keyed[0].startswith('export OPENAI_BASE_URL="http://127.0.0.1:')
    assert keyed[0].endswith('/$CYCLES_PROXY_KEY/openai/v1"')


def test_the_tunnel_of_a_proxy_has_its_variables_only_with_the_option(serve: Serve) -> None:
    listen = ("proxy", "--listen", "127.0.0.1:0", "--budget", "1USD")
    assert [line for line in lines_of(serve, *listen) if "HTTPS_PROXY" in line] == []
    assert [line.split("=")[0] for line in lines_of(serve, *listen, "--tunnel") if "https_proxy" in line.lower()] == [
        "export HTTPS_PROXY", "export https_proxy",
    ]  # fmt: skip


@pytest.mark.parametrize("address", ["8790", "127.0.0.1", ":8790", "127.0.0.1:x", "127.0.0.1:99999", "[::1"])
def test_what_is_no_address_to_listen_on(serve: Serve, address: str) -> None:
    ran = serve("proxy", "--listen", address, "--budget", "1USD")
    assert (ran.status, ran.out) == (2, "")
    assert f"'{address}' is not HOST:PORT; write it like 127.0.0.1:8790" in ran.err


def test_a_proxy_has_no_command_to_stop(serve: Serve) -> None:
    ran = serve("proxy", "--budget", "1USD", "--on-denied", "stop")
    assert (ran.status, "--on-denied stop needs a command: use cycles run" in ran.err) == (2, True)
