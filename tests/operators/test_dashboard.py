"""The dashboard in a browser: what changes live, its controls, whom it rejects, and its bars."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

import cycles
from tests.operators.browser import REBOUND, Browser, address
from tests.operators.kit import processes

pytestmark = processes

ACTION: Final = ("llm.completion", "small-model")
TENANT: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
AGENT: Final = {"agent": "bot"}
# Chromium reports a rejected control in the console, and no page can prevent that.
REJECTED: Final = "/dashboard/control - Failed to load resource"


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    budgets: dict[str, Any] = {TENANT: [cycles.usd(10), cycles.tokens(500)], BOT: cycles.usd(2)}
    with cycles.EmbeddedServer(budgets, clock=cycles.ManualClock()) as server:
        yield server


@pytest.fixture
def url(server: cycles.EmbeddedServer) -> Iterator[str]:
    with server.listen() as url:
        yield url


@pytest.fixture
def page(tab: Browser, server: cycles.EmbeddedServer, url: str) -> Iterator[Browser]:
    """The page with its token, live. No test leaves an error in its console or a request to another origin."""
    tab.open(address(server))
    tab.wait_for_text("live", "connection")
    yield tab
    console, requests = tab.logs()
    assert [entry for entry in console if REJECTED not in entry["message"]] == []
    assert requests
    assert [sent for sent in requests if not sent.startswith(f"{url}/dashboard")] == []


# --- what changes live ------------------------------------------------------------------------------------------------


def test_budgets_and_reservations_change_live(page: Browser, server: cycles.EmbeddedServer) -> None:
    page.wait_for_text("3", "budget-count")
    client = server.client(tenant="acme")
    subject = {"agent": "bot", "dimensions": {"run": "7"}}
    with client.reserve(cycles.usd("0.50"), action=ACTION, subject=subject) as guard:
        assert guard.reservation_id is not None
        found = {"id": guard.reservation_id}
        page.wait_for_text("$0.50 reserved", "budget", scope=BOT, unit="USD_MICROCENTS")
        page.wait_for_text("1 min 0 s left", "reservation", **found)
        assert "llm.completion small-model" in page.part("reservation", **found).text
        assert f"{BOT} run=7" in page.part("reservation", **found).text
        clock = server._clock
        assert isinstance(clock, cycles.ManualClock)
        clock.advance(20_000)
        page.wait_for_text("40 s left", "reservation", **found)
        guard.extend()
        page.wait_for_text("1 of 10 extensions", "reservation", **found)
        guard.commit(cycles.usd("0.20"))
    page.wait_for_text("charged $0.20, released $0.30", "reservation", **found)
    page.wait_for_text("$1.80 left", "budget", scope=BOT, unit="USD_MICROCENTS")
    page.wait_for_text("$0.20 spent in the last 5 minutes, $0.00 reserved now, in USD", "spend")
    server.ledger.set_budget("tenant:acme/agent:new", cycles.tokens(7))
    page.wait_for_text("7 left", "budget", scope="tenant:acme/agent:new", unit="TOKENS")
    page.wait_for_text("4", "budget-count")


def test_a_denial_says_which_rule_and_what_was_missing(page: Browser, server: cycles.EmbeddedServer) -> None:
    client = server.client(tenant="acme")
    server.ledger.set_budget(BOT, cycles.usd(2), caps={"max_tokens": 7})
    client.decide(cycles.usd(1), action=ACTION)
    client.decide(cycles.usd(1), action=ACTION, subject={"agent": "bot"})
    with pytest.raises(cycles.BudgetExceededError) as denied:
        client.reserve(cycles.usd(5), action=ACTION, subject={"agent": "bot"}).acquire()
    page.wait_for_text(f"{BOT}: the remaining budget is too small, $3.00 missing", "decision", decision="DENY")
    assert str(denied.value.request_id) not in page.part("decision", decision="DENY").text  # ids are in the details
    page.part("decision", decision="DENY").click()
    page.wait_for_text(f'"request_id": "{denied.value.request_id}"', "details")
    page.wait_for_text('"error": "BUDGET_EXCEEDED"', "details")
    page.press("\ue00c")  # Escape
    page.wait_for("return !document.getElementById('details').open")
    page.wait_for_text("caps: max_tokens 7", "decision", decision="ALLOW_WITH_CAPS")
    page.part("decision", decision="ALLOW")
    page.wait_for_text("409", "request")


def test_a_request_shows_its_bodies_and_a_replay_is_marked(page: Browser, server: cycles.EmbeddedServer) -> None:
    for _ in range(2):
        server.client(tenant="acme").record(cycles.tokens(3), action=ACTION, idempotency_key="key-1")
    page.wait_for_text("replay", "request")
    page.part("request").click()
    page.wait_for("return document.getElementById('details-text').innerText.includes('\"idempotency_key\": \"key-1\"')")
    page.wait_for_text("APPLIED", "details")


def select(page: Browser, name: str, value: str) -> None:
    """Select a value as a user does."""
    found = page.driver.find_element("id", name)
    page.run("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", found, value)


def figures(page: Browser) -> dict[str, list[str]]:
    """Return the lines of the four figures: the name, the figure and its period."""
    found: dict[str, list[str]] = page.run(
        "return Object.fromEntries([...document.querySelectorAll('[data-testid=figure]')]"
        ".map((it) => [it.dataset.figure, it.innerText.split('\\n').filter(Boolean)]))"
    )
    return found


def legend(page: Browser) -> dict[str, str]:
    """Return the amounts of the legend by name."""
    lines = page.run("return [...document.querySelectorAll('#spend-legend li')].map((it) => it.innerText.split('\\n'))")
    return {line[0]: line[1] for line in lines}


def test_the_figures_and_the_legend_of_a_busy_scope_are_the_sums_of_the_ledger(
    page: Browser, server: cycles.EmbeddedServer
) -> None:
    """More reservations than the page has rows, over three hours; the figures have their periods."""
    clock, client = server._clock, server.client(tenant="acme")
    assert isinstance(clock, cycles.ManualClock)
    server.ledger.set_budget(BOT, cycles.usd(9))
    for number in range(260):
        with client.reserve(
            cycles.usd("0.02"), action=("llm.completion", f"model-{number % 3}"), subject=AGENT
        ) as guard:
            guard.commit(cycles.usd_microcents(1_000_000 + number))
        clock.advance(40_000)
    page.part("budget", scope=BOT).click()
    page.wait_for("return location.search.includes('agent%3Abot')")
    rows = [row for row in server.ledger.reservations() if BOT in row.scopes and row.charged]
    assert len(rows) == 260
    hour_ms = 59 * 60_000 + clock.now_ms() % 60_000  # 60 steps of a minute; the last one is not over
    for period, words, longest_ms in (("1h", "in the last hour", hour_ms), ("all", "since", 1 << 50)):
        page.run("document.querySelector(`#periods [value='${arguments[0]}']`).click()", period)
        page.wait_for("return document.getElementById('spent-period').innerText.startsWith(arguments[0])", words)
        since = clock.now_ms() - longest_ms
        spent = sum(row.charged or 0 for row in rows if (row.finalized_at_ms or 0) >= since)
        shown = page.driver.execute_async_script(
            "import('/dashboard/format.js').then(({ number }) => arguments[1](number(arguments[0], 'USD_MICROCENTS')))",
            spent,
        )
        page.wait_for("return document.getElementById('spent').innerText === arguments[0]", shown)
        assert legend(page)["spent"] == shown
        select(page, "spend-by", "action")
        page.wait_for("return document.querySelectorAll('#spend-legend li').length === 4")
        assert page.part("figure", figure="spent").text.split("\n")[1] == shown
        amounts = [float(text[1:]) for name, text in legend(page).items() if name != "reserved"]
        assert round(sum(amounts) * 10**8) == spent
        select(page, "spend-by", "unit")
        page.wait_for("return document.querySelectorAll('#spend-legend li').length === 2")
    found = figures(page)
    left = server.ledger.balance(BOT).remaining.amount
    assert found["left"][1:] == [f"${left / 10**8:.2f}", "now, of $9.00"]
    assert found["reserved"][1:] == ["$0.00", "now, by active reservations"]
    assert found["denied"][1] == "0"
    assert page.run("return document.querySelectorAll('[data-testid=reservation]').length") == 200


def test_denials_are_grouped_and_the_page_names_the_scope_that_was_denied_most(
    page: Browser, server: cycles.EmbeddedServer
) -> None:
    client = server.client(tenant="acme")
    for _ in range(3):
        client.decide(cycles.usd(3), action=ACTION, subject=AGENT)
    client.decide(cycles.usd(30), action=ACTION)
    page.wait_for_text("3 times", "denials")
    assert page.part("denials").text.split("\n") == [
        BOT,
        "3 times",
        "BUDGET_EXCEEDED",
        TENANT,
        "1 time",
        "BUDGET_EXCEEDED",
    ]
    name, count, period = figures(page)["denied"]
    assert (name, count) == ("Denied", "4")
    assert period.endswith(f"; most: {BOT} (3)")
    assert "4 a minute" in page.run("return document.getElementById('denials-sum').innerText")


def test_budgets_are_sorted_by_the_used_share_and_one_that_is_used_up_is_marked(
    page: Browser, server: cycles.EmbeddedServer
) -> None:
    shares = {"a": 50, "b": 85, "c": 97, "d": 100}
    for name, cents in shares.items():
        server.ledger.set_budget(f"{TENANT}/agent:{name}", cycles.usd(1), spent=cents * 1_000_000)
    page.wait_for_text("7", "budget-count")
    page.wait_for("return document.querySelectorAll('[data-testid=budget]').length === 7")
    script = "return [...document.querySelectorAll('[data-testid=budget]')].map((it) => [it.dataset.scope.at(-1), "
    found = page.run(f"{script}it.dataset.level, it.querySelector('.share').innerText])")
    assert found[:4] == [
        ["d", "out", "USED UP"],
        ["c", "red", "97% used"],
        ["b", "amber", "85% used"],
        ["a", "", "50% used"],
    ]
    server.ledger.fund(f"{TENANT}/agent:d", cycles.usd(9))
    page.wait_for("return document.querySelector('[data-testid=budget]').dataset.scope.endsWith('agent:c')")
    select(page, "sort", "left")
    page.wait_for("return document.querySelector('[data-testid=budget]').innerText.includes('$0.03 left')")
    select(page, "sort", "name")
    page.wait_for("return document.querySelector('[data-testid=budget]').dataset.scope === 'tenant:acme'")
    assert page.run(f"{script}it.getAttribute('aria-level')])")[-1] == ["d", "2"]


def test_a_list_of_many_budgets_scrolls_with_the_page_and_names_how_many_are_hidden(
    page: Browser, server: cycles.EmbeddedServer
) -> None:
    for number in range(600):
        server.ledger.set_budget(f"{TENANT}/agent:bot-{number}", cycles.usd(1), spent=number)
    page.wait_for_text("603", "budget-count")
    page.wait_for_text("The 50 with the largest share used are shown, 553 are not.", "budgets-note")
    assert page.run("return getComputedStyle(document.getElementById('budgets')).overflowY") == "visible"
    for _ in range(5):
        page.run("document.getElementById('budgets-more').click()")
    page.wait_for_text("The 500 with the largest share used are shown, 103 are not. Search", "budgets-note")
    first = f"{TENANT}/agent:bot-599"
    assert page.run("return document.querySelector('[data-testid=budget]').dataset.scope") == first


def test_the_text_of_an_empty_list_is_true(page: Browser, server: cycles.EmbeddedServer) -> None:
    """The page keeps the last requests of all scopes; reservations are those of the ledger."""
    client = server.client(tenant="acme")
    client.reserve(cycles.usd("0.1"), action=ACTION, subject=AGENT).acquire().release()
    for _ in range(210):
        client.decide(cycles.usd("0.1"), action=ACTION)
    page.part("budget", scope=BOT).click()
    page.wait_for("return document.querySelectorAll('[data-testid=decision]').length === 1")
    assert page.run("return document.querySelectorAll('[data-testid=reservation]').length") == 1
    server.ledger.set_budget("tenant:acme/agent:idle", cycles.usd(1))
    page.driver.get(page.driver.current_url.replace("agent%3Abot", "agent%3Aidle"))
    page.wait_for("return document.getElementById('reservations-note').innerText !== ''")
    notes = "return ['reservations', 'decisions'].map((it) => document.getElementById(`${it}-note`).innerText)"
    reservations, decisions = page.run(notes)
    assert reservations == "The ledger has no reservation of tenant:acme/agent:idle."
    assert decisions.startswith("No decision of tenant:acme/agent:idle since ")
    assert decisions.endswith(": earlier ones are not kept.")


def test_the_root_leads_to_the_dashboard_and_keeps_the_token(tab: Browser, server: cycles.EmbeddedServer) -> None:
    with server.listen():
        tab.open(address(server).replace("/dashboard#", "/#"))
        tab.wait_for_text("live", "connection")
        assert tab.driver.current_url.endswith("/dashboard")
        assert tab.driver.find_element("id", "controls").is_enabled()


def test_the_chart_has_the_same_numbers_as_text(page: Browser, server: cycles.EmbeddedServer) -> None:
    client = server.client(tenant="acme")
    for amount, name in ((1, "large"), (0.25, "small")):
        with client.reserve(cycles.usd(2), action=("llm.completion", name)) as guard:
            guard.commit(cycles.usd(amount))
    page.wait_for_text("$1.25 spent", "spend")
    assert page.run("return document.querySelectorAll('#spend-chart canvas').length") == 1
    select(page, "spend-by", "action")
    page.wait_for_text("llm.completion large\n$1.00", "spend")
    page.wait_for_text("llm.completion small\n$0.25", "spend")


def test_small_amounts_are_exact_and_the_marks_of_an_empty_chart_differ(page: Browser) -> None:
    script = """
        const [unit, done] = arguments;
        import("/dashboard/format.js").then(({ number, short, top }) => {
          const end = top(0, unit);
          done([number(40, unit), ...[0, 0.2, 0.4, 1].map((part) => short(part * end, unit))]);
        });
    """
    shown = page.driver.execute_async_script(script, "USD_MICROCENTS")
    assert shown == ["$0.0000004", "$0", "$0.20", "$0.40", "$1"]
    assert page.driver.execute_async_script(script, "TOKENS") == ["40", "0", "2", "4", "10"]


def test_a_click_and_the_keyboard_narrow_the_page_to_a_scope(page: Browser, server: cycles.EmbeddedServer) -> None:
    client = server.client(tenant="acme")
    for subject in ({}, {"agent": "bot"}):
        client.decide(cycles.usd(1), action=ACTION, subject=subject)
    page.wait_for("return document.querySelectorAll('[data-testid=decision]').length === 2")
    page.part("budget", scope=BOT).click()
    page.wait_for("return document.querySelectorAll('[data-testid=decision]').length === 1")
    page.wait_for_text("1", "budget-count")
    assert page.run("return document.querySelectorAll('[data-testid=budget]').length") == 1
    page.driver.back()
    page.wait_for("return document.querySelectorAll('[data-testid=budget]').length === 3")
    page.run("document.querySelector('[data-testid=budget]').focus()")
    page.press("\ue010")  # End: the last budget is that of the agent
    page.press("\ue007")  # Enter
    page.wait_for("return location.search.includes('agent%3Abot')")
    page.wait_for("return document.querySelectorAll('[data-testid=budget]').length === 1")


def test_the_search_finds_budgets(page: Browser, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget("tenant:beta", cycles.usd(1))
    page.wait_for_text("4", "budget-count")
    page.driver.find_element("id", "search").send_keys("BETA")
    page.wait_for_text("1", "budget-count")
    page.wait_for("return document.querySelectorAll('[data-testid=budget]').length === 1")


# --- controls ---------------------------------------------------------------------------------------------------------


def use(page: Browser, form: str, button: str, **values: str) -> None:
    """Fill in a form of the controls and press one of its buttons."""
    found = page.driver.find_element("id", form)
    for name, value in values.items():
        field = found.find_element("name", name)
        if field.tag_name == "select":
            page.run("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", field, value)
        else:
            field.clear()
            field.send_keys(value)
    found.find_element("css selector", f"button[value={button}]").click()


def test_the_controls_work_with_the_token_and_it_leaves_the_address_bar(
    page: Browser, server: cycles.EmbeddedServer, url: str
) -> None:
    assert page.driver.current_url == f"{url}/dashboard"
    use(page, "budget-form", "fund", scope=BOT, amount="3USD")
    page.wait_for_text(f"funded {BOT} with $3.00", "control-result")
    page.wait_for_text("$5.00 left", "budget", scope=BOT)
    use(page, "budget-form", "freeze", scope=BOT)
    page.wait_for_text("frozen", "budget", scope=BOT)
    use(page, "budget-form", "set", scope="tenant:new", amount="50TOKENS")
    page.part("budget", scope="tenant:new", unit="TOKENS")
    use(page, "budget-form", "fund", scope="tenant:new", amount="7", unit="TOKENS")
    page.wait_for_text("57 left of 57 tokens", "budget", scope="tenant:new", unit="TOKENS")
    use(page, "budget-form", "fund", scope=BOT, amount="three", unit="")
    page.wait_for_text("Not done: cannot read an amount from 'three'", "control-result")
    use(page, "fault-form", "fault", operation="commit", kind="status", status="429", times="2")
    page.wait_for_text("status 429: the next 2 requests of commit", "controls")
    use(page, "fault-form", "clear_faults")
    page.wait_for_text("removed all faults", "control-result")
    use(page, "clock-form", "advance", ms="60000")
    page.wait_for_text("advanced the clock by 60000 ms", "control-result")
    assert server._clock.now_ms() == 1_700_000_060_000
    page.driver.refresh()  # the tab keeps the token
    page.wait_for_text("live", "connection")
    assert page.driver.find_element("id", "controls").is_enabled()


def test_without_the_token_the_controls_are_disabled_and_say_why(tab: Browser, url: str) -> None:
    tab.open(f"{url}/dashboard")
    tab.wait_for_text("live", "connection")
    tab.wait_for_text("Disabled, because this page has no token", "controls")
    fields = tab.driver.find_elements("css selector", "#controls :is(input, select, button)")
    assert len(fields) > 10
    assert not any(field.is_enabled() for field in fields)
    status = tab.driver.execute_async_script(
        "fetch('/dashboard/control', {method: 'POST', body: '{}'}).then((it) => arguments[0](it.status))"
    )
    assert status == 401


def test_the_machines_clock_cannot_be_advanced_and_the_page_says_so(tab: Browser) -> None:
    with cycles.EmbeddedServer({TENANT: cycles.usd(1)}) as server, server.listen():
        tab.open(address(server))
        tab.wait_for_text("Disabled, because the server uses the machine's clock", "controls")
        assert not tab.driver.find_element("css selector", "#clock-form button").is_enabled()
        assert tab.driver.find_element("css selector", "#fault-form button").is_enabled()


# --- other sites ------------------------------------------------------------------------------------------------------


def test_a_name_that_was_rebound_to_this_machine_is_rejected(tab: Browser, url: str) -> None:
    tab.open(url.replace("127.0.0.1", REBOUND) + "/dashboard")
    assert "names another server" in tab.run("return document.body.innerText")


@contextmanager
def other_site() -> Iterator[int]:
    """Yield the port of another web server of this machine."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title>")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", REBOUND])
def test_a_page_of_another_origin_reads_and_changes_nothing(
    tab: Browser, server: cycles.EmbeddedServer, url: str, host: str
) -> None:
    token = address(server).partition("#")[2]
    with other_site() as port:
        tab.open(f"http://{host}:{port}/")
        script = """
            const [url, token, done] = arguments;
            const form = JSON.stringify({do: "fund", scope: "tenant:acme/agent:bot", amount: "5USD"});
            const headers = {Authorization: `Bearer ${token}`};
            Promise.allSettled([
              fetch(`${url}/dashboard/state`).then((it) => it.text()),
              fetch(`${url}/dashboard/control`, {method: "POST", body: form, headers}),
              fetch(`${url}/dashboard/control`, {method: "POST", body: form, mode: "no-cors"}),
            ]).then((all) => done(all.map((one) => one.status)));
        """
        found = tab.driver.execute_async_script(script, url, token)
    assert found == ["rejected"] * 3
    assert server.ledger.balance(BOT).allocated == cycles.usd(2)


# --- a server that stops ----------------------------------------------------------------------------------------------


def test_the_page_says_offline_and_connects_again(tab: Browser, server: cycles.EmbeddedServer) -> None:
    listener = server.listen()
    port = int(listener.start().rpartition(":")[2])
    tab.open(address(server))
    tab.wait_for_text("live", "connection")
    listener.stop()
    tab.wait_for_text("offline", "connection")
    assert "The server" in tab.run("return document.querySelector('[role=alert]').innerText")
    server.ledger.fund(BOT, cycles.usd(1))
    with server.listen(port=port):
        tab.wait_for_text("live", "connection")
        tab.wait_for_text("$3.00 left", "budget", scope=BOT)


def test_a_new_server_on_the_same_port_replaces_the_state(tab: Browser, server: cycles.EmbeddedServer) -> None:
    listener = server.listen()
    port = int(listener.start().rpartition(":")[2])
    tab.open(address(server))
    tab.wait_for_text("live", "connection")
    listener.stop()
    with cycles.EmbeddedServer({"tenant:beta": cycles.usd(1)}) as other, other.listen(port=port):
        tab.part("budget", scope="tenant:beta")
        tab.wait_for_text("1", "budget-count")
        use(tab, "fault-form", "clear_faults")  # the token is that of the first server
        tab.wait_for_text("Not done: the token is missing or wrong", "control-result")


# --- people -----------------------------------------------------------------------------------------------------------


def show_everything(page: Browser, server: cycles.EmbeddedServer) -> None:
    """Fill every list, with each kind of row."""
    client = server.client(tenant="acme")
    server.ledger.set_budget("tenant:acme/workspace:a", cycles.usd(1), overdraft_limit=9, debt=5, is_over_limit=True)
    server.ledger.set_budget("tenant:acme/workspace:b", cycles.usd(1), status="FROZEN", caps={"max_tokens": 5})
    client.decide(cycles.usd(1), action=ACTION, subject={"workspace": "b" * 60})
    client.decide(cycles.usd(50), action=ACTION)
    for _ in range(2):
        client.record(cycles.tokens(1), action=ACTION, idempotency_key="k")
    client.reserve(cycles.usd("0.1"), action=ACTION, subject={"agent": "bot"}).acquire().release()
    client.reserve(cycles.usd("0.1"), action=ACTION, subject={"agent": "bot"}).acquire().detach()
    server.faults.delay("commit", 1)
    page.wait_for_text("delay of 1 s", "controls")
    page.part("request").click()
    page.wait_for("return document.getElementById('details-text').innerText.includes('response')")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False), (400, True)])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    tab: Browser, server: cycles.EmbeddedServer, url: str, width: int, dark: bool
) -> None:
    tab.open(address(server), width=width, dark=dark)
    tab.wait_for_text("live", "connection")
    show_everything(tab, server)
    assert tab.run("return innerWidth") == width
    assert tab.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert tab.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    wide = "return [...document.querySelectorAll('main *')].filter((it) => it.scrollWidth > it.clientWidth + 1 && "
    assert tab.run(f"{wide}getComputedStyle(it).overflowX === 'auto').map((it) => it.id)") == []
    assert tab.axe() == []


def test_each_colour_of_the_budgets_is_beside_its_word(tab: Browser, server: cycles.EmbeddedServer, url: str) -> None:
    tab.open(address(server), width=400)
    tab.wait_for_text("live", "connection")
    apart = """return [...document.querySelectorAll('.key .swatch')].map((colour) => {
        const word = document.createRange();
        word.selectNode(colour.nextSibling);
        return word.getBoundingClientRect().left >= colour.getBoundingClientRect().right;
    });"""
    assert tab.run(apart) == [True] * 4


def test_axe_finds_nothing_on_an_empty_an_offline_and_a_tokenless_page(tab: Browser) -> None:
    with cycles.EmbeddedServer() as server:
        with server.listen() as url:
            tab.open(f"{url}/dashboard")
            tab.wait_for_text("live", "connection")
            assert tab.axe() == []
        tab.wait_for_text("offline", "connection")
        tab.run("document.getAnimations().forEach((it) => it.finish())")
        assert tab.axe() == []


def test_every_list_is_one_tab_stop(page: Browser, server: cycles.EmbeddedServer) -> None:
    show_everything(page, server)
    for number in range(100):
        server.ledger.set_budget(f"tenant:acme/agent:bot-{number}", cycles.usd(1))
    page.wait_for("return document.querySelectorAll('[data-testid=budget]').length === 50")
    stops = "return [...document.querySelectorAll('.whole, .list')].map((it) => [it, ...it.querySelectorAll('*')]"
    assert page.run(f"{stops}.filter((part) => part.tabIndex >= 0).length)") == [1, 1, 1, 1]
    page.run("document.activeElement.blur(); document.querySelector('[data-testid=budget]').focus()")
    page.press("\ue015", "\ue015")  # ArrowDown
    assert page.run("return [...document.activeElement.parentElement.children].indexOf(document.activeElement)") == 2
    page.press("\ue004")  # Tab leaves the list
    assert page.run("return document.activeElement.closest('#budgets')") is None
