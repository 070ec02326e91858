"""Balances: their members, filters and pages."""

from __future__ import annotations

import pytest

from .kit import Response, Target, amount
from .test_lists import ids

A = "tenant:tenant-a"
INVALID = (400, "INVALID_REQUEST")


def paths(response: Response) -> set[tuple[str, str]]:
    assert response.status == 200, response.body
    return {(item["scope_path"], item["remaining"]["unit"]) for item in response.body["balances"]}


def test_a_balance_shows_debt_limit_and_flag_only_if_set(target: Target) -> None:
    target.seed()
    plain = {"scope", "scope_path", "remaining", "reserved", "spent", "allocated"}
    assert target.api.balances().body["balances"][0].keys() == plain
    target.seed(debt=5, overdraft_limit=9, is_over_limit=True)
    item = target.api.balances().body["balances"][0]
    assert item.keys() == plain | {"debt", "overdraft_limit", "is_over_limit"}
    assert (item["debt"], item["overdraft_limit"], item["is_over_limit"]) == (amount(5), amount(9), True)


def test_which_budgets_a_query_finds(target: Target) -> None:
    prod, bot = f"{A}/workspace:prod", f"{A}/workspace:prod/agent:bot"
    target.seed(prod, 5)
    target.seed(bot, 5, unit="CREDITS")
    target.seed(bot, 5)
    target.seed("agent:bot", 5)
    everything = {(A, "TOKENS"), (prod, "TOKENS"), (bot, "CREDITS"), (bot, "TOKENS")}
    assert paths(target.api.balances(tenant="tenant-a")) == everything
    assert paths(target.api.balances(tenant="tenant-a", include_children="false")) == everything
    assert paths(target.api.balances(workspace="PROD")) == everything - {(A, "TOKENS")}
    assert paths(target.api.balances(agent="bot")) == {(bot, "CREDITS"), (bot, "TOKENS")}
    assert paths(target.api.balances(agent="bot", workspace="other")) == set()
    assert paths(target.api.balances(agent="bo")) == set()
    assert paths(target.api.balances(agent="")) == set()
    assert paths(target.api.balances(tenant="")) == set()
    assert paths(target.api.balances(toolset="none")) == set()
    assert target.api.balances(toolset="none").body == {"balances": [], "has_more": False, "next_cursor": None}


def test_the_order_of_checks_of_balances(target: Target) -> None:
    assert target.api.get("/v1/balances?limit=0").mentions("limit")
    assert target.api.get("/v1/balances?include_children=true").outcome == INVALID
    assert target.api.balances(tenant="tenant-b").outcome == (403, "FORBIDDEN")
    assert target.api.balances(tenant="tenant-b", limit="0").outcome == INVALID


@pytest.mark.parametrize("value", ["true", "False", "YES", "no", "on", "off", "1", "0", ""])
def test_include_children_is_a_boolean_without_effect(target: Target, value: str) -> None:
    assert paths(target.api.balances(tenant="tenant-a", include_children=value)) == {(A, "TOKENS")}


@pytest.mark.embedded_only("the reference server returns 500")
def test_include_children_must_be_a_boolean(target: Target) -> None:
    assert target.api.balances(tenant="tenant-a", include_children="maybe").outcome == INVALID


def test_pages_of_balances(target: Target) -> None:
    for number in range(5):
        target.seed(f"{A}/agent:{number}", 5)
    found: set[tuple[str, str]] = set()
    cursor: dict[str, str] = {}
    for size in (2, 2, 2):
        response = target.api.balances(tenant="tenant-a", limit=2, **cursor)
        assert len(paths(response) - found) == size
        found |= paths(response)
        cursor = {"cursor": response.body["next_cursor"] or ""}
    assert len(found) == 6
    assert response.body["has_more"] == (response.body["next_cursor"] is not None)


def test_a_full_page_may_be_followed_by_an_empty_one(target: Target) -> None:
    page = target.api.balances(tenant="tenant-a", limit=1)
    assert len(paths(page)) == 1
    empty = {"balances": [], "has_more": False, "next_cursor": None}
    # The reference server says that there is more, depending on the order in which its store returns rows.
    if not target.api.is_live:
        assert page.body["has_more"] is True
        assert target.api.balances(tenant="tenant-a", cursor=page.body["next_cursor"]).body == empty
    rid = target.api.held()
    rows = target.api.rows(limit=1, status="ACTIVE")
    assert ids(rows) == [rid]
    if not target.api.is_live:  # as above
        assert rows.body["has_more"] is True
    if rows.body["has_more"]:
        rest = target.api.rows(status="ACTIVE", cursor=rows.body["next_cursor"])
        assert (ids(rest), rest.body["has_more"]) == ([], False)
