"""Shares of a run: their requests and responses, their limits, and the commands that use them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from cycles.proxy._ledger import open_ledger
from cycles.proxy._shares import Shares
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import AS_PROCESSES, ROOT, environment, processes, run_process
from tests.operators.proxying import BOOK, EXACT, KEY, USED, Place, proxied
from tests.operators.running import GPT_4O, VARIABLES, agent, upstreams
from tests.support.short import IS_SHORT
from tests.support.waiting import PATIENCE_S

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
CLIENT = httpx.Client(timeout=60, trust_env=False)
"""One for all calls: a client takes longer to make than a call."""
WITHIN = {"tokens_input": 5, "tokens_output": 100}
"""Usage that is within the bound of that call: a provider that reports more could exceed any limit."""
COST = 5 * 100 + 100 * 1000
BOUND = 500_000
"""More than what the call above may cost."""


@pytest.fixture(scope="session", autouse=True)  # in a random order the module begins several times
def client_that_is_closed() -> Iterator[None]:
    yield
    CLIENT.close()


def _share(url: str, name: object = "researcher", limit: object = "1USD") -> httpx.Response:
    return CLIENT.post(f"{url}/shares", json={"name": name, "limit": limit})


def _made(url: str, name: str = "researcher", limit: str = "1USD") -> str:
    response = _share(url, name, limit)
    assert response.status_code == 200, response.text
    return str(response.json()["proxy_url"])


def _call(url: str, **more: Any) -> httpx.Response:
    return CLIENT.post(f"{url}/openai/v1/chat/completions", json=CHAT, **more)


def _microcents(amount: int) -> str:
    return f"{amount} USD_MICROCENTS"


def _root(place: Place) -> str:
    return f"{place.url}/{KEY}"


def test_a_share_has_variables_with_a_secret_of_its_own_and_is_charged() -> None:
    with proxied(tunnel=True, subject={"dimensions": {"team": "blue"}}) as place:
        place.provider.reply(usage=USED)
        response = _share(_root(place))
        found = response.json()
        assert found["name"] == "researcher"
        url, variables = found["proxy_url"], found["environment"]
        assert url.startswith(f"{place.url}/")
        assert KEY not in response.text
        secret = url.rpartition("/")[2]
        assert {name: variables[name] for name in VARIABLES} == {name: url + path for name, path in VARIABLES.items()}
        assert variables["HTTPS_PROXY"] == place.url.replace("http://", f"http://cycles:{secret}@")
        assert variables["CYCLES_PROXY_URL"] == url
        assert _call(url).status_code == 200
        [reserve] = place.server.requests.of("reserve")
        assert reserve.json["subject"]["agent"] == "researcher"
        assert reserve.json["subject"]["dimensions"] == {"agent_path": "researcher", "team": "blue"}
        state = httpx.get(f"{url}/shares").json()
        assert state["spent"]["amount"] == EXACT
        assert state["remaining"]["amount"] == 100_000_000 - EXACT
        of_the_run = httpx.get(f"{_root(place)}/shares").json()
        assert of_the_run == {"remaining": None, "shares": place.proxy.shares.document()}
        assert place.proxy.shares.document() == {
            "researcher": {
                "calls": 1,
                "denied": 0,
                "spent": {"unit": "USD_MICROCENTS", "amount": EXACT},
                "limit": {"unit": "USD_MICROCENTS", "amount": 100_000_000},
            }
        }


def test_the_same_request_returns_the_same_share_and_another_limit_is_409() -> None:
    with proxied() as place:
        first = _share(_root(place)).json()
        assert _share(_root(place), limit="1.00 USD").json() == first
        other = _share(_root(place), limit="2USD")
        assert other.status_code == 409
        assert other.json()["error"]["message"] == "the share researcher has the limit $1.00: use it, or another name"
        assert _share(_root(place), limit="20%").status_code == 409


@pytest.mark.parametrize(
    ("name", "limit", "says"),
    [
        ("", "1USD", "is not 1 to 64 characters"),
        ("A", "1USD", "is not 1 to 64 characters"),
        ("a/b", "1USD", "is not 1 to 64 characters"),
        ("a" * 65, "1USD", "is not 1 to 64 characters"),
        (5, "1USD", "is not 1 to 64 characters"),
        ("a", "1", "names no unit"),
        ("a", "1EUR", "names no unit"),
        ("a", "5TOKENS", "is not in USD"),
        ("a", "-1USD", ""),
        ("a", "0USD", "is not above zero"),
        ("a", 1, "is not an amount"),
        ("a", "0%", "is not a percentage"),
        ("a", "101%", "is not a percentage"),
        ("a", "20%", "the run has no --budget"),
    ],
)
def test_a_wrong_share_is_400(name: object, limit: object, says: str) -> None:
    with proxied() as place:
        response = _share(_root(place), name, limit)
        assert response.status_code == 400
        assert says in response.json()["error"]["message"]
        assert place.proxy.shares.document() == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"name": "a"}'])
def test_a_body_that_is_no_share_is_400(content: bytes) -> None:
    with proxied() as place:
        assert httpx.post(f"{_root(place)}/shares", content=content).status_code == 400
        assert httpx.put(f"{_root(place)}/shares", content=content).status_code == 405
        assert httpx.post(f"{place.url}/shares", json={"name": "a", "limit": "1USD"}).status_code == 401


def test_the_limit_of_a_share_holds_and_leaves_the_others_alone() -> None:
    with proxied(wait=0, min_output_tokens=None) as place:
        place.provider.reply(usage=USED, times=9)
        one = _made(_root(place), "one", _microcents(EXACT + BOUND))
        two = _made(_root(place), "two", "1USD")
        statuses = [_call(one).status_code for _ in range(5)]
        assert statuses[0] == 200
        assert statuses[-1] == 402
        denied = _call(one)
        assert denied.headers["x-cycles-reason"] == "run_limit"
        message = denied.json()["error"]["message"]
        assert "share one: it may cost up to" in message
        assert f"; the limit of share one is {cycles.usd_microcents(EXACT + BOUND)}, and " in message
        assert _call(two).status_code == _call(_root(place)).status_code == 200
        shares = place.proxy.shares.document()
        assert shares["one"]["denied"] == statuses.count(402) + 1 == place.proxy.app.totals.denied
        assert shares["one"]["spent"]["amount"] == statuses.count(200) * EXACT <= EXACT + BOUND


def test_the_limit_of_a_child_stops_neither_its_parent_nor_its_siblings() -> None:
    with proxied(wait=0, min_output_tokens=None) as place:
        place.provider.reply(usage=USED, times=2)
        parent = _made(_root(place), "parent", "1USD")
        child = _made(parent, "child", _microcents(1))
        sibling = _made(parent, "sibling", "1USD")
        assert [_call(url).status_code for url in (child, parent, sibling)] == [402, 200, 200]
        paths = [each.json["subject"]["dimensions"]["agent_path"] for each in place.server.requests.of("reserve")]
        assert paths == ["parent", "parent/sibling"]
        shares = place.proxy.shares.document()
        used = {path: (row["calls"], row["denied"], row["spent"]["amount"]) for path, row in shares.items()}
        assert used == {"parent": (2, 1, 2 * EXACT), "parent/child": (0, 1, 0), "parent/sibling": (1, 0, EXACT)}


def test_no_header_changes_the_share() -> None:
    with proxied(wait=0, min_output_tokens=None) as place:
        one = _made(_root(place), "one", _microcents(1))
        two = _made(_root(place), "two", "1USD")
        for key in (KEY, two.rpartition("/")[2]):
            assert _call(one, headers={"X-Cycles-Proxy-Key": key}).status_code == 402
        secret = one.rpartition("/")[2]
        headers = {"X-Cycles-Proxy-Key": secret}
        assert httpx.post(f"{place.url}/openai/v1/chat/completions", json=CHAT, headers=headers).status_code == 402
        assert place.provider.requests == []


def test_the_limits_of_the_parents_hold_for_a_share_of_a_share() -> None:
    with proxied(wait=0, min_output_tokens=None) as place:
        place.provider.reply(usage=USED, times=9)
        parent = _made(_root(place), "parent", _microcents(EXACT + BOUND))
        child = _made(parent, "child", "50USD")
        statuses = [_call(child).status_code for _ in range(5)]
        assert (statuses[0], statuses[-1]) == (200, 402)
        [first, *_] = place.server.requests.of("reserve")
        assert first.json["subject"]["agent"] == "child"
        assert first.json["subject"]["dimensions"]["agent_path"] == "parent/child"
        shares = place.proxy.shares.document()
        for count in ("spent", "calls", "denied"):
            assert shares["parent"][count] == shares["parent/child"][count]
        assert _made(_root(place), "child", "2USD") != child


def test_a_percentage_is_a_part_of_what_the_innermost_limit_has_left() -> None:
    with proxied(limit=cycles.usd(3)) as place:
        place.provider.reply(usage=USED)
        assert _call(_root(place)).status_code == 200
        parent = _made(_root(place), "parent", "33.3%")
        child = _made(parent, "child", "50%")
        shares = place.proxy.shares.document()
        expected = (300_000_000 - EXACT) * 333 // 1000
        assert shares["parent"]["limit"]["amount"] == expected
        assert shares["parent/child"]["limit"]["amount"] == expected // 2
        assert _made(parent, "child", "50%") == child
        assert _share(parent, "child", "1USD").status_code == 409


def test_twelve_agents_in_threads_share_a_limit_without_overspend() -> None:
    most = COST * 25
    with proxied(limit=cycles.usd_microcents(most), wait=0, min_output_tokens=None) as place:
        place.provider.reply(usage=WITHIN, times=200)
        urls = [_made(_root(place), f"agent-{number}", _microcents(COST * 4)) for number in range(12)]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda url: [_call(url) for _ in range(6)], urls))
        shares = place.proxy.shares.document()
        assert all(share["spent"]["amount"] <= COST * 4 for share in shares.values())
        assert sum(share["spent"]["amount"] for share in shares.values()) == place.spent <= most
        assert place.held == 0


def _tree(place: Place, seed: int, callers: Callable[[list[str]], None]) -> None:
    """Make a random tree of shares with 12 leaves, let them spend, and compare all sums and limits."""
    rng = random.Random(seed)
    parents, paths = {"": _root(place)}, [""]
    for depth in (1, 2):
        for number in range(rng.randint(1, 3)):
            above = rng.choice([path for path in paths if path.count("/") == depth - 1 and (path or depth == 1)])
            name = f"t{seed}-{depth}-{number}"
            parents[f"{above}/{name}"] = _made(parents[above], name, _microcents(rng.randint(1, COST * 12)))
            paths.append(f"{above}/{name}")
    leaves = []
    for number in range(12):
        above = rng.choice(paths[1:])
        leaves.append(_made(parents[above], f"leaf-{number}", _microcents(rng.randint(1, COST * 4))))
    before = place.spent
    callers(leaves)
    mine = {path: row for path, row in place.proxy.shares.document().items() if path.startswith(f"t{seed}-")}
    for path, row in mine.items():
        assert row["spent"]["amount"] <= row["limit"]["amount"], path
        below = [other for name, other in mine.items() if name.rpartition("/")[0] == path]
        if below:
            assert row["spent"]["amount"] == sum(other["spent"]["amount"] for other in below)
    roots = [row["spent"]["amount"] for path, row in mine.items() if "/" not in path]
    assert sum(roots) == place.spent - before


def _in_threads(leaves: list[str]) -> None:
    threads = [threading.Thread(target=_call, args=(url,)) for url in leaves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_processes(leaves: list[str]) -> None:
    code = (
        "import httpx, json, sys\n"
        f"body = json.loads({json.dumps(json.dumps(CHAT))})\n"
        "for _ in range(2): httpx.post(sys.argv[1] + '/openai/v1/chat/completions', json=body, timeout=60)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, url]) for url in leaves]
    assert [process.wait(60) for process in started] == [0] * 12


@pytest.mark.timeout(1200)
def test_random_trees_of_shares_exceed_no_limit_and_add_up() -> None:
    count = int(os.environ.get("CYCLES_SHARE_TREES", 100 if AS_PROCESSES else 8 if IS_SHORT else 20)) // 4
    for world in range(4):
        with proxied(wait=0, min_output_tokens=None) as place:
            place.provider.reply(usage=WITHIN, times=12 * count)
            for seed in range(world * count, (world + 1) * count):
                _tree(place, seed, _in_threads)
            assert place.held == 0


@processes
def test_random_trees_of_shares_add_up_over_processes() -> None:
    with proxied(wait=0, min_output_tokens=None) as place:
        place.provider.reply(usage=WITHIN, times=48)
        for seed in (1, 2):
            _tree(place, seed, _in_processes)
        assert place.held == 0


def test_delegate_outside_of_a_run_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CYCLES_PROXY_URL", raising=False)
    with pytest.raises(cycles.ConfigurationError, match="start this program with cycles run"):
        cycles.delegate("researcher", cycles.usd(1))


def test_delegate_returns_a_copy_of_the_environment_with_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied() as place:
        monkeypatch.setenv("CYCLES_PROXY_URL", _root(place))
        monkeypatch.setenv("MINE", "1")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # which has no part in this
        monkeypatch.setenv("OPENAI_BASE_URL", f"{_root(place)}/openai/v1")  # as for every program in the run
        with cycles.delegate("researcher", cycles.usd(1)) as share:
            assert share.environment["MINE"] == "1"
            assert share.environment["CYCLES_PROXY_URL"] == share.proxy_url != _root(place)
            assert share.environment["OPENAI_BASE_URL"] == f"{share.proxy_url}/openai/v1"
            assert share.proxy_url not in repr(share)
        assert cycles.delegate("researcher", "1USD") == share
        with pytest.raises(cycles.InvalidRequestError, match=r"the share researcher has the limit \$1.00: use it"):
            cycles.delegate("researcher", cycles.usd(2))
        with pytest.raises(cycles.InvalidRequestError, match="limit must be an amount"):
            cycles.delegate("other", 5)  # type: ignore[arg-type]


def test_delegate_without_a_proxy_that_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_PROXY_URL", "http://127.0.0.1:1/x")
    with pytest.raises(cycles.TransportError, match="did not respond"):
        cycles.delegate("researcher", cycles.usd(1))


def test_delegate_with_a_variable_that_is_no_address_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_PROXY_URL", "garbage")
    with pytest.raises(
        cycles.ConfigurationError, match="CYCLES_PROXY_URL is 'garbage', which is not an address: unset it"
    ):
        cycles.delegate("researcher", cycles.usd(1))


def test_delegate_shows_the_message_of_the_proxy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied() as place:
        monkeypatch.setenv("CYCLES_PROXY_URL", _root(place))
        with pytest.raises(cycles.InvalidRequestError, match=r"^limit: cannot read an amount from 'much'"):
            cycles.delegate("researcher", "much")


class Stranger(BaseHTTPRequestHandler):
    """A server that is not a proxy of `cycles run`: it responds to everything with 404 and one body."""

    body = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(404)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"error": "no"}', b"<html>", b""])
def test_another_server_at_the_address_is_not_taken_for_the_proxy(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stranger, "body", body)
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        monkeypatch.setenv("CYCLES_PROXY_URL", f"http://127.0.0.1:{server.server_port}/secret")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(cycles.TransportError, match="has that run ended"):
            cycles.delegate("researcher", cycles.usd(1))
        thread.join(PATIENCE_S)


def _inside(*arguments: str) -> list[str]:
    return ["--", sys.executable, "-m", "cycles", "run", *arguments]


@processes
def test_a_command_with_a_share_is_charged_to_it_and_starts_no_second_proxy(provider: FakeProvider) -> None:
    pytest.importorskip("openai")
    provider.reply(usage=USED, times=4)
    inside = _inside("--share", "helper", "--budget", "0.5USD", "--json", *agent("openai"))
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *inside)
    assert ran.status == 0, ran.err
    of_share, of_run = (json.loads(line) for line in ran.err.splitlines())
    used = {
        "calls": 4,
        "denied": 0,
        "spent": {"unit": "USD_MICROCENTS", "amount": GPT_4O * 4},
        "limit": {"unit": "USD_MICROCENTS", "amount": 50_000_000},
    }
    assert of_run["shares"] == {"helper": used}
    assert of_run["spent"]["amount"] == GPT_4O * 4
    assert {name: of_share[name] for name in used} == used
    assert (of_share["share"], of_share["exit"]) == ("helper", 0)


@processes
def test_the_summary_has_a_line_for_each_share(provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    inside = _inside("--share", "helper", "--budget", "20%", *agent("guarded"))
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), *inside)
    assert ran.err.count("share helper: 1 call, $0.0035 of $0.20 spent, 0 denied") == 2


def test_a_percentage_may_be_written_with_a_space_as_an_amount_may() -> None:
    with proxied(limit=cycles.usd(2)) as place:
        made = _share(_root(place), limit=" 20 % ").json()
        assert httpx.get(f"{made['proxy_url']}/shares").json()["remaining"]["amount"] == cycles.usd("0.40").amount
        assert _share(_root(place), limit="20%").json() == made


def test_the_limits_of_shares_of_one_name_add_up_in_the_ledger_of_the_run() -> None:
    """Those of other parents have the same scope there; the proxy keeps the limit of each of them."""
    ledger = open_ledger(cycles.Config(), cycles.usd(5), embedded=True, keep=None)
    shares = Shares(ledger.left, lambda share: ledger.add_share(share, share.subject({})), ledger.unit)
    with contextlib.closing(ledger):
        for parent, limit in (("a", "1USD"), ("b", "0.5USD")):
            made = shares.make(None, json.dumps({"name": parent, "limit": "2USD"}).encode())
            shares.make(made, json.dumps({"name": "helper", "limit": limit}).encode())
        reached: dict[str, Any] = {
            name.removeprefix("CYCLES_").lower(): value for name, value in ledger.environment.items()
        }
        with cycles.Cycles(**reached, journal=False) as client:
            budgets = {row.scope: row.allocated for row in client.balances(subject={"tenant": "run"})}
    found = {scope: amount for scope, amount in budgets.items() if "agent:" in scope}
    assert {scope.rpartition("agent:")[2]: str(amount) for scope, amount in found.items()} == {
        "a": "$2.00",
        "b": "$2.00",
        "helper": "$1.50",
    }


def test_a_share_that_was_overspent_in_an_earlier_run_has_its_limit_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def charged() -> str:
        ledger = open_ledger(cycles.Config(), cycles.usd(5), embedded=True, keep="job")
        shares = Shares(ledger.left, lambda share: ledger.add_share(share, share.subject({})), ledger.unit)
        with contextlib.closing(ledger):
            shares.make(None, json.dumps({"name": "helper", "limit": "1USD"}).encode())
            call = ledger.client.reserve(cycles.usd(1), action=("llm.completion", "m"), subject={"agent": "helper"})
            return str(call.acquire().commit(cycles.usd(3)).charged)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert [charged(), charged()] == ["$1.00", "$1.00"]


def test_in_a_later_run_of_a_kept_ledger_limits_of_one_name_add_up_and_what_was_spent_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*, spends: bool) -> dict[str, tuple[str, str]]:
        ledger = open_ledger(cycles.Config(), cycles.usd(5), embedded=True, keep="job")
        shares = Shares(ledger.left, lambda share: ledger.add_share(share, share.subject({})), ledger.unit)
        with contextlib.closing(ledger):
            for parent, limit in (("a", "1USD"), ("b", "0.5USD")):
                made = shares.make(None, json.dumps({"name": parent, "limit": "2USD"}).encode())
                shares.make(made, json.dumps({"name": "helper", "limit": limit}).encode())
            if spends:
                call = ledger.client.reserve(cycles.usd(1), action=("llm.c", "m"), subject={"agent": "helper"})
                call.acquire().commit(cycles.usd("0.25"))
            rows = ledger.client.balances(subject={"agent": "helper"})
            return {row.scope: (str(row.remaining), str(row.spent)) for row in rows}

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert run(spends=True) == {"agent:helper": ("$1.25", "$0.25")}
    assert run(spends=False) == {"agent:helper": ("$1.50", "$0.25")}


@processes
def test_a_share_has_a_budget_in_the_ledger_of_the_run_and_on_a_configured_server(
    provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    provider.reply(usage=USED, times=2)
    code = (
        "import cycles, subprocess, sys\n"
        "share = cycles.delegate('bot', cycles.usd('0.5'))\n"
        "command = [sys.executable, '-m', 'tests.operators.agents', 'guarded']\n"
        f"subprocess.run(command, env=share.environment, cwd='{ROOT}')\n"
        "with cycles.Cycles() as client:\n"
        "    rows = [(row.scope, row.allocated, row.spent) for row in client.balances(subject={'agent': 'bot'})]\n"
        "    print(*rows, sep='\\n')"
    )
    command = ["--", sys.executable, "-c", code]
    ran = run_process("run", "--budget", "1USD", "--embedded", *upstreams(provider), *command)
    assert "agent:bot" in ran.out, ran.err
    assert "$0.50" in ran.out
    assert "$0.0035" in ran.out
    ran = run_process("run", *upstreams(provider), *command)
    assert ran.status == 0, ran.err
    assert configured.spent("tenant:acme/agent:bot").amount == GPT_4O


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--share", "a", "--budget", "1USD"], "CYCLES_PROXY_URL is not set"),
        (["--budget", "20%"], "is a part of the run around this one, and there is none"),
        (["--share", "a"], "--share needs its limit"),
        (["--share", "a", "--budget", "1USD", "--prices", "x"], "--prices belongs to the run around this one"),
        (["--budget", "120%"], "is not a percentage"),
    ],
)
def test_a_share_outside_of_a_run_and_wrong_options_exit_2(run: Cycles, arguments: list[str], says: str) -> None:
    ran = run("run", *arguments, "--", "echo", "started")
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err


def test_a_wrong_share_inside_of_a_run_exits_2(run: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied() as place:
        monkeypatch.setenv("CYCLES_PROXY_URL", _root(place))
        ran = run_process("run", "--share", "a", "--budget", "1USD", "--", "echo", "started")
        assert (ran.status, "started" in ran.out) == (0, True), ran.err
        for name, budget in (("a", "2USD"), ("A!", "1USD"), ("b", "20%")):
            ran = run("run", "--share", name, "--budget", budget, "--", "echo", "started")
            assert (ran.status, "started" in ran.out) == (2, False), ran.err
        ran = run_process("run", "--share", "c", "--budget", "1USD", "--", "/no/such/program")
        assert ran.status == 127


def test_a_nested_run_may_have_a_part_of_what_is_left() -> None:
    with proxied(limit=cycles.usd(2)) as place:
        env = environment(CYCLES_PROXY_URL=_root(place), OPENAI_BASE_URL=place.openai_url)
        ran = run_process("run", "--budget", "25%", "--", "echo", "started", env=env)
        assert "of $0.50 spent" in ran.err


def test_the_book_of_these_tests_prices_the_call() -> None:
    assert (BOOK.cost("m", **USED).amount, BOOK.cost("m", **WITHIN).amount) == (EXACT, COST)
