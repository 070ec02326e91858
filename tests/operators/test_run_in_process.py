"""`cycles run` in this process: its command is a function, which gets the variables and returns the exit status."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

import cycles
from cycles.cli import main
from cycles.embedded.serve import Listener
from cycles.proxy._agents import for_agents, gemini_environment
from cycles.proxy._around import part_of_run
from cycles.proxy._child import Child, CommandError
from cycles.proxy._kept import kept_file, opened
from cycles.proxy._ledger import open_ledger
from cycles.proxy._prompts import Prompt
from cycles.proxy._sealing import CannotSealError
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import Ran
from tests.operators.running import GPT_4O, USED, VARIABLES, upstreams

Program = Callable[[dict[str, str]], int]
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}


@attrs.define
class Runs:
    """Runs functions as the command of `cycles run`."""

    run: Cycles
    program: Program = attrs.field(default=lambda environment: 0)
    command: list[str] = attrs.Factory(list)
    environment: dict[str, str] = attrs.Factory(dict)
    signals: list[int] = attrs.Factory(list)

    def __call__(self, program: Program, *options: str) -> Ran:
        self.program = program
        return self.run("run", *options, "--", "program", "argument")

    def summary(self, program: Program, *options: str) -> Any:
        ran = self(program, "--json", *options)
        return json.loads(ran.err.splitlines()[-1])


@pytest.fixture
def runs(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs(run_here)

    class Command:
        def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
            made.command, made.environment = list(command), dict(environment)

        def wait(self) -> int:
            return made.program(made.environment)

        def stop(self) -> None:
            made.signals.append(signal.SIGTERM)

    monkeypatch.setattr("cycles.proxy._run.Child", Command)
    monkeypatch.setattr("cycles.proxy._share_run.Child", Command)
    monkeypatch.setattr("cycles.proxy._child.blocked_signals", nullcontext)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", *VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return made


def post(environment: Mapping[str, str], body: Mapping[str, Any] = CHAT, **headers: str) -> httpx.Response:
    url = f"{environment['OPENAI_BASE_URL']}/chat/completions"
    return httpx.post(url, json=body, headers={"Authorization": "Bearer k", **headers}, trust_env=False, timeout=60)


@contextmanager
def variables(environment: dict[str, str]) -> Iterator[None]:
    """Set the variables that a command got: its block is that command."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def calls(number: int, status: int = 0, **headers: str) -> Program:
    def program(environment: dict[str, str]) -> int:
        for _ in range(number):
            post(environment, CHAT, **headers)
        return status

    return program


def test_calls_are_charged_and_the_status_is_that_of_the_command(runs: Runs, provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=2)
    ran = runs(calls(2, status=7), "--budget", "1USD", *upstreams(provider))
    assert (ran.status, ran.out) == (7, "")
    assert ran.err.startswith("cycles: 2 calls, $0.0070 of $1.00 spent (gpt-4o $0.0070), 0 denied")
    assert runs.command == ["program", "argument"]


def test_the_summary_as_json(runs: Runs, provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    found = runs.summary(calls(1, status=3), "--budget", "1USD", *upstreams(provider))
    spent = {"unit": "USD_MICROCENTS", "amount": GPT_4O}
    assert (found["calls"], found["spent"], found["exit"], found["fake"]) == (1, spent, 3, False)
    assert found["models"] == {"gpt-4o": {"calls": 1, "spent": spent}}
    assert (found["denied"], found["failed"], found["shares"], found["agents"]) == (0, 0, {}, {})


def test_the_command_gets_the_variables_of_routes_tunnel_and_ledger(runs: Runs, provider: FakeProvider) -> None:
    runs(calls(0), "--budget", "1USD", *upstreams(provider))
    found = runs.environment
    prefix = found["CYCLES_PROXY_URL"]
    address, _, key = prefix.rpartition("/")
    assert {name: found[name] for name in VARIABLES} == {name: prefix + path for name, path in VARIABLES.items()}
    tunnel = f"http://cycles:{key}@{address.removeprefix('http://')}"
    assert (found["HTTPS_PROXY"], found["https_proxy"], found["NODE_USE_ENV_PROXY"]) == (tunnel, tunnel, "1")
    assert (found["NO_PROXY"], found["no_proxy"]) == ("127.0.0.1,localhost",) * 2
    assert found["CYCLES_TENANT"] == "run"
    assert found["CYCLES_BASE_URL"].startswith("http://127.0.0.1:")
    assert len(key) == 24
    assert key not in found["CYCLES_API_KEY"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "127.0.0.1,localhost"),
        ("intranet, .corp", "intranet,.corp,127.0.0.1,localhost"),
        ("*", "127.0.0.1,localhost"),
        (".openai.com,intranet", "intranet,127.0.0.1,localhost"),
        ("api.anthropic.com localhost", "localhost,127.0.0.1"),
    ],
)
def test_hosts_of_providers_are_not_left_out_of_the_tunnel(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, given: str, kept: str
) -> None:
    monkeypatch.setenv("NO_PROXY", given)
    runs(calls(0), "--budget", "1USD")
    assert (runs.environment["NO_PROXY"], runs.environment["no_proxy"]) == (kept, kept)
    runs(calls(0), "--budget", "1USD", "--no-tunnel")
    assert "HTTPS_PROXY" not in runs.environment
    assert set(given.replace(",", " ").split()) <= set(runs.environment["NO_PROXY"].split(","))


def test_local_models_have_their_variables_only_with_an_upstream(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    runs(calls(0), "--budget", "1USD")
    assert "OLLAMA_HOST" not in runs.environment
    runs(calls(0), "--budget", "1USD", "--upstream", "ollama=http://localhost:11434")
    assert runs.environment["OLLAMA_HOST"] == f"{runs.environment['CYCLES_PROXY_URL']}/ollama"


def test_the_command_has_the_limit_of_files_of_the_caller(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    seen: list[int] = []

    class Command:
        def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
            seen.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("cycles.proxy._run.Child", Command)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        assert runs(calls(0), "--budget", "1USD").status == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert seen == [before[1] - 1]


def test_without_the_variables_of_cycles(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_TENANT", "acme")
    runs(calls(0), "--budget", "1USD", "--no-cycles-env")
    assert [name for name in runs.environment if name.startswith("CYCLES_")] == []
    assert "OPENAI_BASE_URL" in runs.environment
    assert "HTTPS_PROXY" in runs.environment


def test_a_variable_that_no_route_replaces_is_named(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", "http://gateway.internal/bedrock")
    monkeypatch.setenv("CO_API_URL", "https://api.cohere.com")  # the tunnel rejects it
    ran = runs(calls(0), "--budget", "1USD")
    line = "cycles: ANTHROPIC_BEDROCK_BASE_URL is set: calls to that address do not pass the proxy"
    assert line in ran.err.splitlines()
    assert "CO_API_URL" not in ran.err


def test_a_denial_stops_the_command_once(runs: Runs, provider: FakeProvider) -> None:
    ran = runs(calls(2, status=143), "--budget", "0.000001USD", "--on-denied", "stop", *upstreams(provider))
    assert (ran.status, runs.signals) == (143, [signal.SIGTERM])
    assert ran.err.count("the command was stopped (--on-denied stop): Cycles denied this call") == 2  # and the summary
    assert provider.requests == []
    ran = runs(calls(2), "--budget", "0.000001USD", *upstreams(provider))
    assert (ran.status, len(runs.signals)) == (0, 1)
    assert "0 calls, $0.00 of $0.000001 spent, 2 denied (budget_exceeded)" in ran.err


@pytest.mark.parametrize(("status", "expected"), [(0, 3), (5, 5)])
def test_a_ledger_that_decides_nothing_is_reported(
    runs: Runs, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, status: int, expected: int
) -> None:
    monkeypatch.setenv("CYCLES_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CYCLES_API_KEY", "cyc_live_x")
    monkeypatch.setenv("CYCLES_TENANT", "acme")
    monkeypatch.setenv("CYCLES_MAX_RETRIES", "0")
    ran = runs(calls(1, status=status), *upstreams(provider))
    assert ran.status == expected
    assert "no call could be sent, because the budget server decided none" in ran.err
    assert "cycles doctor finds the cause" in ran.err
    assert "no call reached the proxy" not in ran.err


def test_a_call_without_a_subject_is_a_wrong_request_and_sends_nothing(
    runs: Runs, provider: FakeProvider, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CYCLES_TENANT")
    responses: list[httpx.Response] = []

    def program(environment: dict[str, str]) -> int:
        responses.append(post(environment))
        return 0

    ran = runs(program, *upstreams(provider))
    [response] = responses
    assert (response.status_code, "subject is empty" in response.text, provider.requests) == (400, True, [])
    assert "1 failed (invalid request)" in ran.err
    assert "the budget server decided none" not in ran.err


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (0, "cycles: no call reached the proxy: the command may set its base URL itself"),
        (4, "cycles: the command ended with status 4, and no call had reached the proxy"),
    ],
)
def test_a_command_without_calls(runs: Runs, status: int, line: str) -> None:
    ran = runs(calls(0, status=status), "--budget", "1USD")
    assert ran.status == status
    assert line in ran.err.splitlines()


@pytest.mark.parametrize("status", [0, 7])
def test_a_command_whose_calls_were_all_denied_is_not_said_to_have_made_none(runs: Runs, status: int) -> None:
    ran = runs(calls(1, status), "--budget", "0.000001USD", "--fake")
    assert (ran.status, "1 denied (budget_exceeded)" in ran.err, "reached the proxy" in ran.err) == (
        status,
        True,
        False,
    )


def test_reservations_of_the_command_itself_are_counted(runs: Runs, provider: FakeProvider) -> None:
    def program(environment: dict[str, str]) -> int:
        names = {"base_url": "BASE_URL", "api_key": "API_KEY", "tenant": "TENANT"}
        given: Any = {name: environment[f"CYCLES_{variable}"] for name, variable in names.items()}
        with cycles.Cycles(cycles.Config(**given, journal=False)) as client:
            for _ in range(2):
                with client.reserve(cycles.usd("0.1"), action=("llm.completion", "m"), actual=cycles.usd(0)):
                    pass
        return 0

    ran = runs(program, "--budget", "1USD", *upstreams(provider))
    assert "2 reservations came from the command itself: what it also guards was charged twice" in ran.err


@pytest.mark.parametrize(
    ("most", "options", "count"),
    [(10, (), 1), (3, (), 1), (2, (), None), (10, ("--no-cycles-env",), None)],
    ids=["few", "one below the most", "the most", "without variables"],
)
def test_reservations_on_a_server_are_those_of_others_only_if_the_proxy_knows_its_own(
    runs: Runs,
    provider: FakeProvider,
    configured: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    options: tuple[str, ...],
    count: int | None,
) -> None:
    def program(environment: dict[str, str]) -> int:
        for _ in range(2):
            post(environment)
        with configured.client(tenant="acme") as client:
            client.reserve(cycles.usd("0.1"), action=("llm.completion", "m")).acquire().release()
        return 0

    monkeypatch.setattr("cycles.proxy._totals.MOST_IDS", most)
    monkeypatch.setattr("cycles.proxy._ledger.LIST_S", 60.0)
    provider.reply(usage=USED, times=2)
    ran = runs(program, *options, *upstreams(provider))
    assert ran.status == 0, ran.err
    assert ("1 more reservation was made for model calls on the server" in ran.err) is (count is not None)
    assert "more reservations" not in ran.err


def test_what_the_command_reads_of_its_ledger_is_no_reservation(runs: Runs, provider: FakeProvider) -> None:
    def program(environment: dict[str, str]) -> int:
        names = {"base_url": "BASE_URL", "api_key": "API_KEY", "tenant": "TENANT"}
        given: Any = {name: environment[f"CYCLES_{variable}"] for name, variable in names.items()}
        with cycles.Cycles(cycles.Config(**given, journal=False)) as client:
            assert (list(client.reservations()), len(list(client.balances(subject={"tenant": "run"})))) == ([], 1)
        return 0

    assert "came from the command itself" not in runs(program, "--budget", "1USD", *upstreams(provider)).err


def test_the_fake_provider(runs: Runs) -> None:
    ran = runs(calls(1), "--budget", "1USD", "--fake")
    lines = ran.err.splitlines()
    assert lines[0] == "cycles: --fake: a fake provider responds to all calls, and nothing is paid"
    assert "cycles: --fake: the fake provider made the responses, and nothing was paid" in lines
    assert "1 call, $0.0010 of $1.00 spent" in ran.err


def test_the_fake_provider_is_not_behind_the_proxy_of_the_caller(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # no server
    ran = runs(calls(1), "--budget", "1USD", "--fake")
    assert "1 call, $0.0010 of $1.00 spent" in ran.err


def test_measured_calls_have_no_budget_in_the_summary(runs: Runs, provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    runs.program = calls(1)
    ran = runs.run("measure", *upstreams(provider), "--", "program")
    assert ran.err.startswith("cycles: 1 call, $0.0035 spent (gpt-4o $0.0035), 0 denied")
    assert "kept as measure: $0.0035 spent by all its runs" in ran.err.splitlines()[-1]


def test_a_kept_ledger_adds_up(runs: Runs, run_here: Cycles, provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=3)
    ran = runs(calls(1), "--budget", "0.01USD", "--keep", "mine", *upstreams(provider))
    assert "kept as mine: $0.0035 of $0.01 spent by all its runs" in ran.err
    found = runs.summary(calls(1), "--keep", "mine", *upstreams(provider))
    budget = {"unit": "USD_MICROCENTS", "amount": 1_000_000}
    total = {"unit": "USD_MICROCENTS", "amount": 2 * GPT_4O}
    assert found["kept"] == {"name": "mine", "spent": total, "budget": budget}
    assert found["spent"]["amount"] == GPT_4O
    assert run_here("runs", "list", "--json").document["runs"][0]["spent"] == total
    used_up = ("--keep", "mine", "--wait", "0", "--min-output-tokens", "0", "--max-output-tokens", "100")
    ran = runs(calls(1), "--budget", "0.0075USD", *used_up, *upstreams(provider))
    assert "0 calls, $0.00 of $0.0075 spent, 1 denied (budget_exceeded)" in ran.err
    assert run_here("runs", "reset", "mine", "--yes").status == 0
    assert run_here("runs", "list", "--json").document["runs"][0]["spent"]["amount"] == 0


def test_a_ledger_without_a_budget(runs: Runs) -> None:
    ran = runs(calls(0))
    assert (ran.status, runs.command) == (2, [])
    assert "there is no budget: pass --budget 5USD, or set CYCLES_BASE_URL and CYCLES_API_KEY" in ran.err


def test_agents_are_listed_below_their_parents(runs: Runs, provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=3)

    def program(environment: dict[str, str]) -> int:
        for path in ("planner", "planner/searcher", "planner/searcher"):
            post(environment, CHAT, **{"X-Cycles-Agent": path})
        return 0

    ran = runs(program, "--budget", "1USD", *upstreams(provider))
    assert ran.err.splitlines()[1:3] == [
        "cycles: agent planner: 1 call, $0.0035 ($0.0105 with those below)",
        "cycles:   agent searcher: 2 calls, $0.0070",
    ]
    assert all("x-cycles-agent" not in request.headers for request in provider.requests)


def test_unmetered_paths_are_named(runs: Runs, provider: FakeProvider) -> None:
    def program(environment: dict[str, str]) -> int:
        url = f"{environment['OPENAI_BASE_URL']}/fine_tuning/jobs"
        return httpx.post(url, json={}, trust_env=False).status_code != 402

    ran = runs(program, "--budget", "1USD", *upstreams(provider))
    assert ran.status == 0
    assert "0 calls, $0.00 of $1.00 spent, 1 denied (unmetered: POST /v1/fine_tuning/jobs)" in ran.err
    ran = runs(program, "--budget", "1USD", "--unmetered", "allow", *upstreams(provider))
    assert ran.status == 1
    assert "1 not metered" in ran.err
    assert "cycles: not metered: 1 to /v1/fine_tuning/jobs" in ran.err.splitlines()


def test_a_websocket_is_to_be_sent_as_a_request(runs: Runs, provider: FakeProvider) -> None:
    seen: list[int] = []

    def program(environment: dict[str, str]) -> int:
        seen.append(post(environment, CHAT, Connection="Upgrade", Upgrade="websocket").status_code)
        return 0

    ran = runs(program, "--budget", "1USD", *upstreams(provider))
    assert (seen, provider.requests) == ([426], [])
    assert "0 calls, $0.00 of $1.00 spent, 0 denied" in ran.err


def test_the_summary_of_a_window_has_no_line_of_all_runs(runs: Runs, provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    ran = runs(calls(1), "--budget", "1USD/month", "--keep", "job", *upstreams(provider))
    assert "$0.0035 of $1.00 spent this month" in ran.err
    assert "by all its runs" not in ran.err


def test_a_run_inside_a_run_on_a_server_is_charged_once_and_warns_of_its_own_limit(
    runs: Runs, provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    provider.reply(usage=USED)

    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            runs.program = calls(1)
            # The ledger of the calls that another run charges has no subjects, so that none is rejected.
            subject = ("--subject", "tenant=acme", "--subject", "agent=bot")
            return main(("run", "--budget", "0.005USD", "--warn-at", "50%", *subject, "--", "program"))

    ran = runs(parent, *upstreams(provider))
    assert ran.status == 0, ran.err
    assert "70% of this run is used" in ran.err
    assert "the run around this one charged the calls: its summary contains them" in ran.err
    assert configured.spent("tenant:acme", "USD_MICROCENTS").amount == GPT_4O


# --- shares


def test_a_share_of_the_run_around(runs: Runs, run_here: Cycles, provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=2)
    inner: list[int] = []

    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            runs.program = calls(1, status=6)
            options = ("--share", "researcher", "--budget", "50%")
            inner.append(main(("run", *options, "--", "program")))
        return 0

    ran = runs(parent, "--budget", "1USD", *upstreams(provider))
    assert inner == [6]
    assert "share researcher: 1 call, $0.0035 of $0.50 spent, 0 denied" in ran.err
    assert runs.environment["CYCLES_PROXY_URL"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    "options", [("--json",), ("--profile", "none", "--tenant", "acme", "--base-url", "http://h:1")]
)
def test_a_share_may_have_the_options_of_all_commands(
    runs: Runs, provider: FakeProvider, options: tuple[str, ...]
) -> None:
    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            runs.program = calls(0, status=6)
            return main(("run", "--share", "helper", "--budget", "0.5USD", *options, "--", "program"))

    assert runs(parent, "--budget", "1USD", *upstreams(provider)).status == 6


def test_a_part_of_a_run_is_in_its_unit(runs: Runs, provider: FakeProvider) -> None:
    statuses: list[int] = []

    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            for unit in ("TOKENS", "USD"):
                runs.program = calls(0)
                statuses.append(main(("run", "--embedded", "--budget", "50%", "--unit", unit, "--", "program")))
        return 0

    ran = runs(parent, "--budget", "1000TOKENS", *upstreams(provider))
    assert statuses == [0, 2]
    assert "0 calls, 0 of 500 tokens spent" in ran.err
    assert "--unit USD is not the unit of --budget 500 tokens: a run has one unit" in ran.err


@pytest.mark.parametrize(
    ("left", "part", "found"),
    [(1_000, "33.3%", 333), (999, "0.1%", 0), (2**53 + 1, "100%", 2**53 + 1), (100, "29 %", 29), (3, "50%", 1)],
)
@pytest.mark.parametrize("unit", ["TOKENS", "USD_MICROCENTS"])
def test_a_part_of_what_is_left_is_rounded_down_exactly(
    monkeypatch: pytest.MonkeyPatch, left: int, part: str, found: int, unit: str
) -> None:
    asked: list[str] = []

    def ask(url: str) -> dict[str, Any]:
        asked.append(url)
        return {"remaining": {"unit": unit, "amount": left}}

    monkeypatch.setattr("cycles.proxy._around.ask", ask)
    assert part_of_run(part, {"CYCLES_PROXY_URL": "http://h/key"}) == cycles.Amount(unit, found)
    assert asked == ["http://h/key"]


def test_a_denial_of_a_share_stops_the_command_of_the_run(runs: Runs, provider: FakeProvider) -> None:
    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            runs.program = calls(1)
            return main(("run", "--share", "helper", "--budget", "0.000001USD", "--", "program"))

    ran = runs(parent, "--budget", "1USD", "--on-denied", "stop", *upstreams(provider))
    assert runs.signals == [signal.SIGTERM]
    assert "the command was stopped (--on-denied stop): Cycles denied this call: share helper" in ran.err


def test_the_command_of_a_share_that_is_not_found(
    runs: Runs, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(command: Sequence[str], environment: Mapping[str, str]) -> Child:
        raise CommandError("command not found: x", 127)

    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            return main(("run", "--share", "helper", "--budget", "0.5USD", "--", "x"))

    monkeypatch.setattr("cycles.proxy._share_run.Child", missing)
    ran = runs(parent, "--budget", "1USD", *upstreams(provider))
    assert ran.status == 127
    lines = ran.err.splitlines()
    assert "cycles: command not found: x" in lines
    assert any(line.startswith("cycles: share helper: 0 calls, $0.00 of $0.50 spent, 0 denied") for line in lines)


def test_the_end_of_a_share_whose_run_has_ended(
    runs: Runs, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise cycles.TransportError("has that run ended?")

    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            runs.program = calls(0, status=6)
            statuses.append(main(("run", "--share", "helper", "--budget", "0.5USD", "--", "x")))
            monkeypatch.setattr("cycles.proxy._share_run.Child", missing)
            statuses.append(main(("run", "--share", "helper", "--budget", "0.5USD", "--", "x")))
        return 0

    def missing(*_: object) -> Child:
        raise CommandError("command not found: x", 127)

    statuses: list[int] = []
    monkeypatch.setattr("cycles.proxy._share_run.ask", ended)
    ran = runs(parent, "--budget", "1USD", *upstreams(provider))
    end = "cycles: has that run ended?"
    assert (statuses, ran.err.splitlines()[:3]) == ([6, 127], [end, "cycles: command not found: x", end])


def test_a_command_that_cannot_be_sealed_is_status_3(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        raise CannotSealError("no")

    monkeypatch.setattr("cycles.proxy._sealing.check_platform", check)
    ran = runs(calls(0), "--budget", "1USD", "--sealed", "--json")
    assert (ran.status, ran.document["error"], runs.command) == (3, "CANNOT_SEAL", [])
    ran = runs(calls(0), "--budget", "1USD", "--sealed")
    assert (ran.status, ran.out, ran.err.startswith("error: ")) == (3, "", True)


def test_a_ledger_that_another_run_has_open_starts_nothing(
    runs: Runs, run_here: Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.embedded.store.LOCK_WAIT_S", 0.01)
    with opened(kept_file("job")):
        ran = runs(calls(0), "--budget", "1USD", "--keep", "job")
        assert (ran.status, runs.command) == (2, [])
        assert "wait for its end, or pass another --keep" in ran.err
        for command in (["report", "--keep", "job"], ["runs", "reset", "job", "--yes"]):
            ran = run_here(*command)
            assert (ran.status, "wait for its end" in ran.err) == (2, True)


def test_a_share_is_a_part_of_the_limit_of_a_run_on_a_server(
    runs: Runs, provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    def parent(environment: dict[str, str]) -> int:
        with variables(environment):
            runs.program = calls(0)
            return main(("run", "--share", "helper", "--budget", "50%", "--no-cycles-env", "--", "program"))

    ran = runs(parent, "--budget", "3USD", *upstreams(provider))
    assert ran.status == 0, ran.err
    assert "share helper: 0 calls, $0.00 of $1.50 spent, 0 denied" in ran.err
    assert [name for name in runs.environment if name.startswith("CYCLES_")] == []
    assert "OPENAI_BASE_URL" in runs.environment


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--share", "a"), "--share needs its limit: pass --budget 1USD, or a part of what is left, like 20%"),
        (("--share", "a", "--budget", "1USD/day"), "--share has no window: pass --budget like 1USD"),
        (("--share", "a", "--budget", "1USD", "--fake"), "--fake belongs to the run around this one"),
        (("--share", "a", "--budget", "1USD"), "CYCLES_PROXY_URL is not set, so there is no budget to share"),
        (("--budget", "20%"), "--budget 20% is a part of the run around this one, and there is none"),
        (("--share-port", "5432"), "--share-port needs --sealed: without it the command reaches every port"),
        (("--capture", "--no-tunnel"), "--capture needs the tunnel: leave --no-tunnel out"),
        (("--allow-host", "x.com", "--no-tunnel"), "--allow-host needs the tunnel"),
        (("--fake", "--upstream", "openai=http://h"), "--fake and --upstream exclude each other"),
        (("--budget", "5USD/year"), "'year' is no window; write it like 5USD/day"),
        (("--budget", "5USD/day"), "--keep"),
        (("--budget", "0USD"), "'0USD' is not above zero; write it like 5USD"),
        (("--budget", "5CREDITS"), "is neither in USD nor in TOKENS; write it like 5USD"),
        (
            ("--subject", "agent=a b"),
            "subject.agent must be 1 to 128 letters (a-z), digits, '_', '.' or '-', got 'a b'",
        ),
        (("--budget", "1USD", "--budget", "2USD"), "it is there 2 times (1USD, 2USD); pass one"),
        (("--budget", "101%"), "'101%' is not a percentage; write it like 80%"),
        (("--warn-at", "0%"), "'0%' is not a percentage; write it like 80%"),
        (("--upstream", "openai=http://a", "--upstream", "openai=http://b"), "openai is there 2 times"),
        (("--upstream", "unknown=http://a"), "is not PROVIDER=URL; write it like openai=https://HOST/v1"),
        (("--upstream", "openai=ftp://a"), "--upstream openai is not an http or https address: 'ftp://a'"),
        (("--allow-host", "https://x.com"), "is not a host name; write it like chatgpt.com"),
        (("--free-host", "http://x"), "has what is no host; write it like localhost:11434 or *.gpu.internal"),
        (("--unknown-model", "maybe"), "'maybe' is neither deny nor allow=AMOUNT; write it like allow=0.10USD"),
        (("--unknown-model", "allow=5TOKENS"), "is not in USD; write it like 5USD"),
        (("--keep", "a/b", "--budget", "1USD"), "--keep must be a name of letters, digits, dots and dashes"),
        (("--prices", "/nowhere/x.json", "--budget", "1USD"), "/nowhere/x.json"),
    ],
)
def test_a_wrong_option_starts_nothing(runs: Runs, options: tuple[str, ...], says: str) -> None:
    given = options if "--budget" in options or "--share" in options else (*options, "--budget", "1USD")
    ran = runs(calls(0), *given)
    assert (ran.status, ran.out, runs.command) == (2, "", [])
    assert says in " ".join(ran.err.split())


@pytest.mark.parametrize("address", ["http://[x", "http://h:99999", "http://h:port", "http://:80", "h:0"])
def test_an_address_of_the_callers_proxy_that_is_none(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    ran = runs(calls(0), "--budget", "1USD")
    assert (ran.status, runs.command) == (2, [])
    assert "HTTPS_PROXY is not the address of a proxy: write http://HOST:PORT, or unset it" in ran.err
    monkeypatch.setenv("HTTPS_PROXY", "socks5://h:1080")
    assert "HTTPS_PROXY is a socks5:// proxy, which is not supported" in runs(calls(0), "--budget", "1USD").err


# --- without a limit


@pytest.mark.parametrize("options", [(), ("--no-cycles-env",)], ids=["", "no-cycles-env"])
def test_a_measured_command_has_no_limit_and_what_it_costs_is_kept(
    runs: Runs, provider: FakeProvider, options: tuple[str, ...]
) -> None:
    provider.reply(usage=USED, times=3)
    statuses: list[int] = []

    def program(environment: dict[str, str]) -> int:
        for model in ("gpt-4o", "gpt-4o", "nobody-knows-this"):
            statuses.append(post(environment, {**CHAT, "model": model}).status_code)
        return 9

    runs.program = program
    ran = runs.run("measure", "--json", *options, *upstreams(provider), "--", "codex", "exec")
    found = json.loads(ran.err.splitlines()[-1])
    assert (ran.status, statuses) == (9, [200, 200, 200])
    assert (found["calls"], found["denied"], found["spent"]["amount"]) == (3, 0, 2 * GPT_4O)
    assert runs.command[:2] == ["codex", "-c"], "its settings are those of a run"
    assert {"HTTPS_PROXY", "OPENAI_BASE_URL"} <= runs.environment.keys()
    assert ("CYCLES_BASE_URL" in runs.environment) is (options == ())
    report = runs.run("report", "--json").document
    assert (report["calls"], report["unpriced"], report["spent"]["amount"]) == (3, 1, 2 * GPT_4O)
    assert kept_file("measure").exists()


# --- coding agents


@pytest.mark.parametrize(
    ("command", "captured", "changed"),
    [
        (["codex", "exec"], False, ["codex", "-c", 'openai_base_url="http://p/s/openai/v1"', "exec"]),
        (["/usr/bin/codex"], False, ["/usr/bin/codex", "-c", 'openai_base_url="http://p/s/openai/v1"']),
        (["codex", "exec"], True, ["codex", "exec"]),
        (["codex-wrapper"], False, ["codex-wrapper"]),
        (["python", "codex"], False, ["python", "codex"]),
    ],
)
def test_codex_gets_its_base_url(command: list[str], captured: bool, changed: list[str]) -> None:
    said: list[str] = []
    found, environment = for_agents(command, {}, "http://p/s", captured=captured, say=said.append)
    assert (found, environment) == (changed, {})
    assert len(said) == (changed != command)
    assert all("shows the secret of this run in the process list" in line for line in said)


def test_codex_without_the_tunnel_gets_its_base_url_as_an_option(runs: Runs) -> None:
    for options, is_option in (([], False), (["--no-tunnel"], True)):
        runs.run("run", "--budget", "1USD", *options, "--", "codex", "exec")
        assert (runs.command[1] == "-c") is is_option
        assert runs.command[-1] == "exec"


def test_gemini_keeps_its_login_by_key(tmp_path: Path) -> None:
    said: list[str] = []
    key = {"GEMINI_API_KEY": "k"}
    _, environment = for_agents(["gemini"], key, "http://p/s", captured=False, say=said.append)
    file = Path(environment["GEMINI_CLI_SYSTEM_DEFAULTS_PATH"])
    assert json.loads(file.read_text()) == {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    assert file.is_relative_to(tmp_path)
    assert file.parent.stat().st_mode & 0o077 == 0
    own = {**key, "GEMINI_CLI_SYSTEM_DEFAULTS_PATH": "/mine"}
    assert for_agents(["gemini"], own, "u", captured=False, say=said.append)[1] == own
    assert for_agents(["gemini"], {}, "u", captured=False, say=said.append)[1] == {}
    file.parent.chmod(0o777)
    said.clear()
    for_agents(["gemini"], key, "u", captured=False, say=said.append)
    for_agents(["node"], key, "u", captured=False, say=said.append)
    assert len(said) == 1
    assert "because others may write to" in said[0]


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_run_says_if_the_defaults_of_gemini_cannot_be_written(tmp_path: Path, what: str) -> None:
    said: list[str] = []
    directory = tmp_path / "agents"
    if what == "directory":
        directory.write_text("it is a file")
    else:
        (directory / "gemini-cli.json").mkdir(parents=True)
    assert gemini_environment(["gemini"], {"GEMINI_API_KEY": "k"}, directory, said.append) == {}
    assert len(said) == 1
    assert f"the defaults of gemini-cli cannot be written to {directory}/gemini-cli.json: " in said[0]


@pytest.mark.parametrize(
    ("options", "is_option", "captures"),
    [
        ((), False, True),
        (("--capture",), False, True),
        (("--capture", "--no-agent-settings"), False, True),
        (("--no-agent-settings",), False, False),
        (("--no-tunnel",), True, False),
        (("--no-tunnel", "--no-agent-settings"), False, False),
    ],
)
def test_what_codex_gets(runs: Runs, options: tuple[str, ...], is_option: bool, captures: bool) -> None:
    ran = runs.run("run", "--budget", "1USD", *options, "--", "codex", "exec")
    assert ("-c" in runs.command, "CODEX_CA_CERTIFICATE" in runs.environment) == (is_option, captures)
    assert ("shows the secret of this run" in ran.err) is is_option


# --- the command as a process


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Signals that a command's `wait` gets, and whether the terminal sent them; the end of the command is the last."""
    given: list[tuple[int, bool]] = []

    def next_signal() -> tuple[int, bool]:
        if given:
            return given.pop(0)
        os.waitid(os.P_PID, started[-1], os.WEXITED | os.WNOWAIT)
        return signal.SIGCHLD, False

    started: list[int] = []
    spawn = os.posix_spawnp

    def noted(*args: Any, **options: Any) -> int:
        started.append(spawn(*args, **options))
        return started[-1]

    monkeypatch.setattr("cycles.proxy._child._next_signal", next_signal)
    monkeypatch.setattr(os, "posix_spawnp", noted)
    return given


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 9", 9), ("kill -9 $$", 137), ("kill -15 $$", 143), ("kill -2 $$", 130)],
)
def test_the_exit_status_is_that_of_a_shell(signalled: list[Any], script: str, status: int) -> None:
    assert Child(["/bin/sh", "-c", script], {}).wait() == status


@pytest.mark.parametrize("shares", [True, False])
def test_a_signal_of_the_terminal_is_not_sent_twice(
    signalled: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    monkeypatch.setattr("cycles.proxy._child.has_terminal", lambda: shares)
    sent: list[int] = []
    child = Child(["/bin/sh", "-c", "exit 4"], {})
    monkeypatch.setattr(child, "send", sent.append)
    signalled += [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, False)]
    assert child.wait() == 4
    assert sent == [*([] if shares else [signal.SIGINT]), signal.SIGTERM, signal.SIGHUP]


def test_a_signal_is_passed_to_a_command_that_was_stopped_or_looked_at(signalled: list[tuple[int, bool]]) -> None:
    signalled += [(signal.SIGCHLD, False), (signal.SIGTERM, False)]
    assert Child(["/bin/sh", "-c", "exec sleep 5"], {"PATH": os.environ["PATH"]}).wait() == 128 + signal.SIGTERM


def test_the_command_gets_its_variables_only(signalled: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "out"
    assert Child(["/bin/sh", "-c", f'echo "$A-$HOME" > {file}'], {"A": "1"}).wait() == 0
    assert file.read_text() == "1-\n"


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("no-such-program", 127, "command not found: no-such-program; check its spelling and PATH"),
        ("", 127, "command not found: ''"),
        ("/", 126, "cannot run /: Permission denied; check that the file is a program"),
    ],
)
def test_a_command_that_cannot_be_started(command: str, status: int, says: str) -> None:
    with pytest.raises(CommandError) as raised:
        Child([command], {})
    assert (raised.value.status, str(raised.value)) == (status, says)


def test_a_signal_after_the_end_reaches_no_other_process(signalled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(["/bin/sh", "-c", ":"], {})
    child.wait()
    monkeypatch.setattr(os, "kill", lambda *given: pytest.fail(f"sent to another process: {given}"))
    child.send(signal.SIGTERM)


# --- questions


@pytest.mark.parametrize(
    ("typed", "reply"),
    [
        ("y\n", True),
        ("YES\n", True),
        ("\n", False),
        ("n\n", False),
        ("No\n", False),
        ("", False),
        ("what?\ny\n", True),
        ("2USD\n", cycles.usd(2)),
        ("500 tokens\n", cycles.tokens(500)),
    ],
)
def test_replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, reply: Any) -> None:
    from cycles.proxy._asking import Question

    terminal = tmp_path / "tty"
    terminal.write_bytes(b"")
    lines = [line.encode() for line in typed.splitlines(keepends=True)]
    monkeypatch.setattr("cycles.proxy._prompts.TERMINAL", str(terminal))
    monkeypatch.setattr("cycles.proxy._prompts.os.read", lambda *_: lines.pop(0) if lines else b"")
    question = Question("evil\x1b[2Jmodel", cycles.usd("0.5"), "90% of this run is used", 2, cycles.usd(1))
    assert Prompt()(question) == reply
    shown = terminal.read_text()
    asked = "cycles: 90% of this run is used. evil?[2Jmodel may cost $0.50; 2 more wait, $1.00. Spend it? "
    assert shown.startswith(f"{asked}[y/N/amount, like 2USD] ")
    assert shown.count(asked) == 1 + typed.count("what?")


class _Unfiltered:
    """A server that lists all reservations, whatever a request filters."""

    def __init__(self, server: cycles.EmbeddedServer) -> None:
        self._server = server

    def handle(self, request: Any) -> Any:
        is_list = request.method == "GET" and request.path == "/v1/reservations"
        return self._server.handle(attrs.evolve(request, target=request.path) if is_list else request)


def test_a_reservation_of_an_earlier_run_is_none_of_the_command_also_if_the_server_does_not_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cycles.proxy._ledger.LIST_S", 60.0)
    action = ("llm.completion", "m")
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server,
        Listener(_Unfiltered(server), "127.0.0.1", 0) as url,
        cycles.Cycles(base_url=url, api_key=server.api_key_for("acme"), tenant="acme", journal=False) as client,
    ):
        client.reserve(cycles.usd(1), action=action).acquire().release()
        with closing(open_ledger(client.config, None, embedded=False, keep=None)) as ledger:
            assert ledger.note_of_others([]) is None
            client.reserve(cycles.usd(1), action=action).acquire().release()
            assert str(ledger.note_of_others([])).startswith("1 more reservation was made")
