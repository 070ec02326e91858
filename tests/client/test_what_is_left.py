"""What errors and warnings name: what is left, a commit far above its estimate, wrong names, wrong variables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from cycles import _config
from cycles.events import Event, FarAboveEstimate

ACTION = ("llm.completion", "gpt-4o")


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10), "tenant:other": cycles.usd(1)}) as server:
        yield server


def test_a_denial_says_how_much_is_left_and_which_command_adds_to_it(server: cycles.EmbeddedServer) -> None:
    client = server.client(tenant="acme")
    client.record(cycles.usd("9.02"), action=ACTION)
    with pytest.raises(cycles.BudgetExceededError, match=r"tenant:acme has \$0\.98 left, and \$2\.00 is needed") as e:
        client.reserve(cycles.usd(2), action=ACTION).acquire()
    assert "cycles fund SCOPE AMOUNT" in str(e.value)
    assert "has $0.98 left" in str(e.value)


def test_a_commit_far_above_its_estimate_is_reported_and_named_by_later_denials(
    server: cycles.EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = server.client(tenant="acme")
    seen: list[Event] = []
    client.on_event(seen.append)
    with client.reserve(cycles.usd("0.05"), action=ACTION) as guard:
        guard.commit(cycles.usd("9.5"))
    [event] = [each for each in seen if isinstance(each, FarAboveEstimate)]
    assert (event.estimate, event.actual) == (cycles.usd("0.05"), cycles.usd("9.5"))
    assert event.reservation_id == guard.reservation_id
    assert "$9.50 was committed, 190 times its estimate of $0.05; check the unit and the price" in caplog.text
    with pytest.raises(cycles.BudgetExceededError) as denied:
        client.reserve(cycles.usd(1), action=ACTION).acquire()
    named = f"reservation {guard.reservation_id} was committed with $9.50, 190 times its estimate"
    assert named in str(denied.value)
    client.record(cycles.usd("0.4"), action=ACTION)
    with client.reserve(cycles.usd("0.0001"), action=ACTION) as last:
        last.commit(cycles.usd("0.02"))
    with pytest.raises(cycles.BudgetExceededError, match=f"reservation {last.reservation_id} was com.*") as again:
        client.reserve(cycles.usd(1), action=ACTION).acquire()
    assert named not in str(again.value)


@pytest.mark.parametrize("other", ["tenant", "unit", "server"])
def test_a_denial_names_no_commit_of_another_budget(other: str) -> None:
    budgets: dict[str, Any] = {"tenant:acme": [cycles.usd(10), cycles.tokens(1)], "tenant:other": cycles.usd(1)}
    with cycles.EmbeddedServer(budgets=budgets) as server:
        client = server.client(tenant="acme")
        with client.reserve(cycles.usd("0.05"), action=ACTION) as guard:
            guard.commit(cycles.usd("9.5"))
        denied = {
            "tenant": server.client(tenant="other").reserve(cycles.usd(2), action=ACTION),
            "unit": client.reserve(cycles.tokens(2), action=ACTION),
            "server": server.client(tenant="acme", base_url="http://b").reserve(cycles.usd(2), action=ACTION),
        }
        with pytest.raises(cycles.BudgetExceededError) as unrelated:
            denied[other].acquire()
    assert "times its estimate" not in str(unrelated.value)


@pytest.mark.parametrize(("estimate", "actual"), [("0.05", "5"), ("0", "5"), ("0.05", "0.01")])
def test_other_commits_are_not_reported(server: cycles.EmbeddedServer, estimate: str, actual: str) -> None:
    client = server.client(tenant="acme")
    seen: list[Event] = []
    client.on_event(seen.append)
    with client.reserve(cycles.usd(estimate), action=ACTION) as guard:
        guard.commit(cycles.usd(actual))
    assert not [each for each in seen if isinstance(each, FarAboveEstimate)]


@pytest.mark.parametrize("name", ["a b", "caf\u00e9", "a/b", "a:b", "x" * 129, 5])
def test_a_name_that_servers_reject_is_rejected_before_anything_is_sent(
    server: cycles.EmbeddedServer, name: Any
) -> None:
    client = server.client(tenant="acme")
    calls: list[Any] = [
        lambda: client.reserve(cycles.usd(1), action=ACTION, subject={"agent": name}).acquire(),
        lambda: client.record(cycles.usd(1), action=ACTION, subject={"agent": name}),
        lambda: client.decide(cycles.usd(1), action=ACTION, subject={"agent": name}),
    ]
    for call in calls:
        with pytest.raises(cycles.InvalidRequestError, match=r"subject\.agent must be 1 to 128 letters"):
            call()
    assert list(server.requests) == []


@pytest.mark.parametrize("name", ["a", "A-1._", "x" * 128])
def test_other_names_are_sent(server: cycles.EmbeddedServer, name: str) -> None:
    server.client(tenant="acme").reserve(cycles.usd(1), action=ACTION, subject={"agent": name}).acquire().release()
    assert server.requests.of("reserve")[0].json["subject"]["agent"] == name


def test_misspelled_variables_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_config, "_warned", set())
    known = ["LOG", "PROXY_URL", "PROXY_KEY", "ADMIN_BASE_URL", "ADMIN_API_KEY", "QUEUE_TIMEOUT", "BACKGROUND_COMMITS"]
    for name in ("BASE_URI", "APIKEY", "UNRELATED_WORD", *known):
        monkeypatch.setenv(f"CYCLES_{name}", "x")
    monkeypatch.setenv("CYCLES_JOURNAL_URL", "redis://host")
    with caplog.at_level(logging.WARNING, "cycles"):
        for _ in range(2):
            cycles.Config.from_env()
    assert [record.getMessage() for record in caplog.records] == [
        "variables that no setting has: CYCLES_APIKEY (did you mean CYCLES_API_KEY?), CYCLES_BASE_URI (did you mean "
        "CYCLES_BASE_URL?); correct or unset them"
    ]
