"""The header `X-Cycles-Agent`: whose call it is, in the summary and in the ledger, and never at the provider."""

from __future__ import annotations

import sys
from functools import partialmethod
from typing import Any

import httpx
import pytest

import cycles
from cycles.proxy._agent_tree import MOST_PATHS, OTHERS, AgentTree
from cycles.testing import FakeProvider
from tests.operators.kit import processes, run_process
from tests.operators.proxying import EXACT, KEY, USED, Place, proxied
from tests.operators.running import upstreams


def ask(place: Place, agent: str | None, **options: Any) -> httpx.Response:
    place.provider.reply(usage=USED)
    return place.post(headers={} if agent is None else {"X-Cycles-Agent": agent}, **options)


def reserved(place: Place) -> list[tuple[Any, Any]]:
    """Return agent and path of each reservation."""
    bodies = [request.json for request in place.server.requests.of("reserve") if not request.json.get("dry_run")]
    return [(body["subject"].get("agent"), body["metadata"].get("agent_path")) for body in bodies]


def test_the_innermost_name_is_the_agent_and_the_path_is_in_the_metadata() -> None:
    with proxied() as place:
        for path in ("planner", "planner/searcher", None):
            assert ask(place, path).status_code == 200
        assert reserved(place) == [("planner", "planner"), ("searcher", "planner/searcher"), (None, None)]
        assert all("x-cycles-agent" not in request.headers for request in place.provider.requests)
        document = place.proxy.app.totals.document(1, 0)
    spent = {"unit": "USD_MICROCENTS", "amount": EXACT}
    assert document["agents"] == {
        "planner": {"calls": 1, "spent": spent},
        "planner/searcher": {"calls": 1, "spent": spent},
    }


def test_an_unmetered_request_and_a_free_one_carry_no_header_to_the_provider() -> None:
    with proxied(unmetered="allow") as place:
        headers = {"X-Cycles-Agent": "planner"}
        httpx.get(f"{place.openai_url}/models", headers=headers)
        httpx.post(f"{place.openai_url}/unknown", headers=headers, json={})
        assert len(place.provider.requests) == 2
        assert all("x-cycles-agent" not in request.headers for request in place.provider.requests)


@pytest.mark.parametrize(
    "path",
    ["", "/", "a/", "/a", "a//b", "a b", "a/b/c/d/e/f/g/h/i", "x" * 129, "gr\u00fcn", "a\\b", "a,b", "a:b"],
)
def test_what_is_no_path_is_rejected(path: str) -> None:
    with proxied() as place:
        response = place.post(headers={"X-Cycles-Agent": path.encode("utf-8")})
        assert response.status_code == 400
        assert place.proxy.app.totals.failed_by == {"invalid request": 1}  # so the summary names it
        assert "X-Cycles-Agent" in response.text
        assert place.provider.requests == []
        assert reserved(place) == []


@pytest.mark.parametrize("path", ["a/b/c/d/e/f/g/h", "x" * 128, "A-1_.b", "..", "."])
def test_the_limits_of_a_path(path: str) -> None:
    with proxied() as place:
        assert ask(place, path).status_code == 200
        assert reserved(place) == [(path.rpartition("/")[2], path)]


def test_two_headers_are_rejected() -> None:
    with proxied() as place:
        headers = [("X-Cycles-Agent", "a"), ("X-Cycles-Agent", "b")]
        assert place.post(headers=headers).status_code == 400
        assert place.provider.requests == []


def test_a_header_chooses_no_other_budget_than_that_of_the_configured_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles.EmbeddedServer, "client", partialmethod(cycles.EmbeddedServer.client, agent="fixed"))
    with proxied() as place:
        for path in ("planner", "team/searcher", None):
            assert ask(place, path).status_code == 200
        assert reserved(place) == [("fixed", "planner"), ("fixed", "team/searcher"), ("fixed", None)]


def test_a_header_chooses_no_other_budget() -> None:
    """`--subject agent=NAME`, a share, and a share's name outside of it."""
    with proxied(subject={"agent": "fixed"}) as place:
        ask(place, "planner")
        assert reserved(place) == [("fixed", "planner")]
    with proxied() as place:
        made = httpx.post(f"{place.url}/{KEY}/shares", json={"name": "team", "limit": "1USD"}).json()
        url = made["environment"]["OPENAI_BASE_URL"]
        place.provider.reply(usage=USED, times=3)
        chat = {"model": "m", "messages": []}
        httpx.post(f"{url}/chat/completions", headers={"X-Cycles-Agent": "planner"}, json=chat)
        httpx.post(f"{url}/chat/completions", json=chat)
        assert reserved(place) == [("team", "team/planner"), ("team", "team")]
        found = place.proxy.app.totals.document(1, 0)["agents"]
        assert {path: used["calls"] for path, used in found.items()} == {"team": 1, "team/planner": 1}


def test_the_tree_shows_own_and_total_spend() -> None:
    tree = AgentTree(is_named=True)
    for path, cents in (("planner", 1), ("planner/searcher", 20), ("writer", 5), ("planner/searcher/reader", 2)):
        tree.add(path, cents * 1_000_000)
    tree.add("a/b", 3_000_000)
    assert tree.lines() == [
        "agent planner: 1 call, $0.0100 ($0.2300 with those below)",
        "  agent searcher: 1 call, $0.2000 ($0.2200 with those below)",
        "    agent reader: 1 call, $0.0200",
        "agent writer: 1 call, $0.0500",
        "agent a: 0 calls, $0.00 ($0.0300 with those below)",
        "  agent b: 1 call, $0.0300",
    ]


def test_a_program_cannot_make_the_summary_endless() -> None:
    tree = AgentTree(is_named=True)
    for number in range(MOST_PATHS + 50):
        tree.add(f"agent-{number}", 1)
    assert len(tree.document()) == MOST_PATHS + 1
    assert tree.document()[OTHERS]["calls"] == 50


PROGRAM = """
import openai
for path in ("planner", "planner/searcher", "planner/searcher"):
    llm = openai.OpenAI(api_key="k", default_headers={"X-Cycles-Agent": path})
    llm.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=100)
"""


@processes
def test_the_summary_of_a_run_has_the_tree(provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=3)
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), "--", sys.executable, "-c", PROGRAM)
    assert ran.err.splitlines()[1:3] == [
        "cycles: agent planner: 1 call, $0.0035 ($0.0105 with those below)",
        "cycles:   agent searcher: 2 calls, $0.0070",
    ], ran.err
