"""`cycles dev` in this process: a function runs instead of the wait for a signal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded.serve import Listener
from tests.operators.conftest import Cycles
from tests.operators.kit import Ran

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}


class Dev:
    """Runs `cycles dev`, and a function while it serves.

    Attributes:
        begun: What it printed before it waited.
    """

    def __init__(self, run: Cycles, read: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run
        self.begun = Ran(0, "", "")
        self.read = read
        self.patch = monkeypatch

    def __call__(self, program: Callable[[], object], *arguments: str) -> Ran:
        def wait() -> None:
            self.begun = Ran(0, *self.read())
            program()

        self.patch.setattr("cycles.cli.dev.stop_signal", lambda: nullcontext(SimpleNamespace(wait=wait)))
        return self.run("dev", "--port", "0", *arguments)

    @property
    def lines(self) -> list[str]:
        return self.begun.out.splitlines()

    def client(self, place: int = 0) -> cycles.Cycles:
        tenant = self.begun.document["tenants"][place]
        return cycles.Cycles(
            base_url=self.begun.document["url"], api_key=tenant["api_key"], tenant=tenant["tenant"], journal=False
        )

    def left(self, place: int = 0) -> list[str]:
        with self.client(place) as client:
            return [str(balance.remaining) for balance in client.balances()]


@pytest.fixture
def dev(run_here: Cycles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dev:
    return Dev(run_here, capsys.readouterr, monkeypatch)


def test_it_serves_ten_dollars_of_acme_until_it_is_stopped(dev: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    found, waits = list[list[str]](), list[float]()
    stop = Listener.stop

    def noted(listener: Listener, timeout: float) -> None:
        waits.append(timeout)
        stop(listener, timeout)

    monkeypatch.setattr(Listener, "stop", noted)
    ran = dev(lambda: found.append(dev.left()), "--json")
    assert (ran.status, ran.out, ran.err, found) == (0, "", "", [["$10.00"]])
    assert set(dev.begun.document) == {"url", "dashboard", "tenants"}
    assert dev.begun.document["dashboard"].startswith(f"{dev.begun.document['url']}/dashboard#")
    assert [tenant["tenant"] for tenant in dev.begun.document["tenants"]] == ["acme"]
    assert waits == [1.0], "the process ends within two seconds"
    with pytest.raises(httpx.ConnectError):
        httpx.get(dev.begun.document["url"])


def test_it_is_closed_after_an_error_too(dev: Dev) -> None:
    def fail() -> None:
        raise cycles.ConfigurationError("a fault")

    ran = dev(fail, "--json")
    assert (ran.status, ran.document["message"]) == (2, "a fault")
    with pytest.raises(httpx.ConnectError):
        httpx.get(dev.begun.document["url"])


def test_a_file_keeps_what_was_spent_and_gets_no_other_budget(dev: Dev, tmp_path: Path) -> None:
    file = ("--db", str(tmp_path / "ledger.db"), "--json")

    def spend() -> None:
        assert dev.begun.document["tenants"][0] == {"tenant": "beta", "api_key": "own-key"}
        with dev.client() as client:
            client.record(cycles.tokens(100), action=("kind", "name"))

    assert dev(spend, "--budget", "tenant:beta=500TOKENS", "--api-key", "own-key=beta", *file).status == 0
    found: list[Any] = []

    def look() -> None:
        found.append(dev.left())
        found.append([tenant["tenant"] for tenant in dev.begun.document["tenants"]])

    assert dev(look, "--api-key", "own-key=beta", *file).status == 0
    assert found == [["400 tokens"], ["beta"]]


def test_people_get_addresses_a_key_and_a_line_to_paste(dev: Dev) -> None:
    ran = dev(lambda: None, "--budget", "tenant:acme=2USD")
    assert (ran.status, dev.begun.err, ran.err) == (0, "Ctrl-C stops the server\n", "")
    server, dashboard, tenant, paste = dev.lines
    url, key = server.split()[1], tenant.split()[2]
    assert server == f"server       {url}"
    assert dashboard.startswith(f"dashboard    {url}/dashboard#")
    assert tenant == f"tenant acme  {key}"
    assert paste == f"export CYCLES_BASE_URL={url} CYCLES_API_KEY={key} CYCLES_TENANT=acme"


@pytest.mark.parametrize("more", [0, 1, 3])
def test_of_many_tenants_twenty_are_printed_and_the_first_is_in_the_line_to_paste(dev: Dev, more: int) -> None:
    tenants = [f"t{number:02}" for number in range(20 + more)]
    dev(lambda: None, *(part for tenant in tenants for part in ("--budget", f"tenant:{tenant}=1USD")))
    assert [line.split()[1] for line in dev.lines if line.startswith("tenant ")] == tenants[:20]
    notes = [line.strip() for line in dev.lines if "more tenants" in line]
    assert notes == [f"and {more} more tenants; --json prints all"] * bool(more)
    assert dev.lines[-1].endswith(" CYCLES_TENANT=t00")


def test_a_document_has_all_tenants(dev: Dev) -> None:
    tenants = [f"t{number:02}" for number in range(23)]
    dev(lambda: None, "--json", *(part for tenant in tenants for part in ("--budget", f"tenant:{tenant}=1USD")))
    assert [tenant["tenant"] for tenant in dev.begun.document["tenants"]] == tenants


def test_budgets_on_which_no_call_draws_by_default_are_named_with_the_options_that_they_need(dev: Dev) -> None:
    scopes = ("acme=1USD", "acme=5TOKENS", "acme=9CREDITS", "acme/workspace:w/agent:bot=1USD", "acme/agent:b=5TOKENS")
    dev(lambda: None, *(part for scope in scopes for part in ("--budget", f"tenant:{scope}")))
    assert sorted(line for line in dev.lines if "no call draws" in line) == [
        "tenant:acme in CREDITS: no call draws on it by default; it needs an estimate in its unit",
        "tenant:acme in TOKENS: no call draws on it by default; it needs --unit TOKENS",
        "tenant:acme/agent:b in TOKENS: no call draws on it by default; it needs --subject agent=b --unit TOKENS",
        "tenant:acme/workspace:w/agent:bot: no call draws on it by default; it needs "
        "--subject workspace=w --subject agent=bot",
    ]


@pytest.mark.parametrize("more", [0, 1, 2])
def test_of_many_such_budgets_twenty_are_named(dev: Dev, more: int) -> None:
    scopes = [f"tenant:acme/agent:bot-{number:02}=1USD" for number in range(20 + more)]
    dev(lambda: None, "--budget", "tenant:acme=1USD", *(part for scope in scopes for part in ("--budget", scope)))
    assert sum("it needs --subject agent=bot-" in line for line in dev.lines) == 20
    notes = [line for line in dev.lines if line.startswith("and ")]
    assert notes == [f"and {more} more budgets on which no call draws by default"] * bool(more)


def test_with_fake_and_admin_it_prints_the_variables_of_both(dev: Dev) -> None:
    found: dict[str, Any] = {}

    def use() -> None:
        found.update(variables := dev.begun.document["environment"])
        response = httpx.post(f"{variables['OPENAI_BASE_URL']}/chat/completions", json=CHAT, trust_env=False)
        found["answer"] = (response.status_code, "Done (" in response.text)
        with cycles.Admin(variables["CYCLES_ADMIN_BASE_URL"], variables["CYCLES_ADMIN_API_KEY"]) as admin:
            found["budgets"] = [budget.scope for budget in admin.budgets()]

    assert dev(use, "--fake", "--admin", "--json").status == 0
    assert (found["answer"], found["budgets"]) == ((200, True), ["tenant:acme"])
    assert found["CYCLES_ADMIN_BASE_URL"] == dev.begun.document["url"]
    assert found["ANTHROPIC_BASE_URL"].startswith(found["OPENAI_BASE_URL"].partition("/openai")[0])
    assert {found[f"{name}_API_KEY"] for name in ("OPENAI", "ANTHROPIC", "GEMINI")} == {"fake"}
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{found['OPENAI_BASE_URL']}/chat/completions", json=CHAT, trust_env=False)


def test_people_get_a_second_line_to_paste_with_these_variables_only(dev: Dev) -> None:
    dev(lambda: None, "--admin")
    url = dev.lines[0].split()[1]
    names, values = zip(*(part.split("=") for part in dev.lines[-1].removeprefix("export ").split()), strict=True)
    assert names == ("CYCLES_ADMIN_BASE_URL", "CYCLES_ADMIN_API_KEY")
    assert values[0] == url
    dev(lambda: None, "--admin")
    assert dev.lines[-1].rpartition("=")[2] != values[1], "each server has its own key"


@pytest.mark.parametrize("opened", [True, False])
def test_open_opens_the_dashboard_in_a_thread(dev: Dev, opened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses, threads, serving = list[str](), list[threading.Thread](), threading.Event()

    def browse(address: str) -> bool:
        assert serving.wait(60), "the command waits for the browser"
        addresses.append(address)
        return opened

    def start(**options: Any) -> threading.Thread:
        threads.append(threading.Thread(**options))
        return threads[0]

    monkeypatch.setattr("cycles.cli.dev.webbrowser.open", browse)
    monkeypatch.setattr("cycles.cli.dev.threading", SimpleNamespace(Thread=start))

    def use() -> None:
        serving.set()
        threads[0].join(60)

    ran = dev(use, "--open", "--json")
    assert addresses == [dev.begun.document["dashboard"]]
    assert threads[0].daemon, "an open browser does not keep the process"
    note = "cannot open a browser; open the address of the dashboard yourself\n"
    assert (ran.status, ran.err) == (0, "" if opened else note)
