"""Read one reservation, and the list with its filters, order and pages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.short import some

from .kit import Api, Response, Target, amount, fresh_key

A = "tenant:tenant-a"
INVALID = (400, "INVALID_REQUEST")
AT = "2023-11-14T22:13:20Z"  # where the tests' clock starts


def ids(response: Response) -> list[str]:
    assert response.status == 200, response.body
    return [row["reservation_id"] for row in response.body["reservations"]]


# --- one row ----------------------------------------------------------------------------------------------------------


def test_a_row_has_exactly_these_members(target: Target) -> None:
    key = fresh_key()
    made = target.api.reserve(
        77, idempotency_key=key, subject={"tenant": "tenant-a", "agent": "Bot"}, action={"kind": "k", "name": "n"}
    ).body
    assert target.api.row(made["reservation_id"]).body == {
        "reservation_id": made["reservation_id"],
        "status": "ACTIVE",
        "idempotency_key": key,
        "subject": {
            "tenant": "tenant-a",
            "workspace": None,
            "app": None,
            "workflow": None,
            "agent": "Bot",
            "toolset": None,
            "dimensions": None,
        },
        "action": {"kind": "k", "name": "n", "tags": None},
        "reserved": amount(77),
        "created_at_ms": target.clock.now_ms(),
        "expires_at_ms": target.clock.now_ms() + 60_000,
        "scope_path": f"{A}/agent:bot",
        "affected_scopes": [A, f"{A}/agent:bot"],
    }


def test_a_row_from_creation_to_end(target: Target) -> None:
    start = target.clock.now_ms()
    rid, released = target.api.held(), target.api.held()
    target.api.extend(rid, 5_000)
    assert target.api.row(rid).body["expires_at_ms"] == start + 65_000
    target.clock.advance(3_000)
    target.api.commit(rid, 800)
    target.api.release(released)
    row = target.api.row(rid).body
    assert (row["status"], row["committed"], row["finalized_at_ms"]) == ("COMMITTED", amount(800), start + 3_000)
    assert row["reserved"] == amount(1000)
    ended = target.api.row(released).body
    assert (ended["status"], ended["finalized_at_ms"]) == ("RELEASED", start + 3_000)
    assert "committed" not in ended


def test_committed_is_the_charged_amount(target: Target) -> None:
    target.seed(allocated=1000)
    rid = target.api.held(1000, overage_policy="ALLOW_IF_AVAILABLE")
    target.api.commit(rid, 5000)
    assert target.api.row(rid).body["committed"] == amount(1000)


@pytest.mark.parametrize(("given", "shown"), [({}, {}), ({"a": None}, {"a": None}), (None, "absent")])
def test_metadata_is_returned_unchanged(target: Target, given: Any, shown: Any) -> None:
    assert target.api.row(target.api.held(metadata=given)).body.get("metadata", "absent") == shown


def test_a_row_is_readable_by_its_tenant_only(target: Target) -> None:
    rid = target.api.held()
    assert target.other.row(rid).outcome == (403, "FORBIDDEN")
    assert target.other.row("unknown").outcome == (404, "NOT_FOUND")
    assert target.api.row("x" * 129).outcome == INVALID


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.new_tenants
def test_a_list_has_the_callers_rows_only(target: Target) -> None:
    mine = target.api.held()
    target.other.held()
    target.seed("agent:bot", 5000)
    no_tenant = target.api.held(subject={"agent": "bot"})
    assert sorted(ids(target.api.rows())) == sorted([mine, no_tenant])
    assert sorted(ids(target.api.rows(tenant="tenant-a"))) == sorted([mine, no_tenant])
    assert ids(target.api.rows(tenant="")) == []
    assert target.api.rows(tenant="tenant-b").outcome == (403, "FORBIDDEN")
    assert target.api.rows(tenant="Tenant-A").outcome == (403, "FORBIDDEN")


@pytest.mark.new_tenants
def test_all_filters_must_match(target: Target) -> None:
    target.seed(f"{A}/agent:bot", 5000)
    key = fresh_key()
    bot = {"tenant": "tenant-a", "workspace": "Prod", "agent": "bot"}
    first = target.api.held(subject=bot, idempotency_key=key)
    second = target.api.held(subject=bot)
    third = target.api.held(subject={"tenant": "tenant-a", "agent": "bots"})
    target.api.commit(second)
    assert sorted(ids(target.api.rows(agent="BOT"))) == sorted([first, second])
    assert ids(target.api.rows(agent="bots")) == [third]
    assert ids(target.api.rows(agent="bot", workspace="prod", status="COMMITTED")) == [second]
    assert ids(target.api.rows(idempotency_key=key)) == [first]
    assert ids(target.api.rows(idempotency_key=key.upper())) == []
    assert ids(target.api.rows(agent="")) == []
    assert ids(target.api.rows(agent="bo")) == []
    assert sorted(ids(target.api.rows(unknown="x"))) == sorted([first, second, third])


@pytest.mark.parametrize("status", ["active", "", "DONE", "ACTIVE,COMMITTED"])
def test_a_status_filter_is_one_exact_keyword(api: Api, status: str) -> None:
    assert api.rows(status=status).outcome == INVALID


@pytest.mark.new_tenants
def test_windows_are_inclusive_and_omit_rows_without_the_time(target: Target) -> None:
    rid = target.api.held(ttl_ms=60_000)
    target.clock.advance(1_500)
    other = target.api.held(ttl_ms=60_000)
    target.api.commit(other)
    assert ids(target.api.rows(from_=AT, to=AT)) == [rid]
    assert ids(target.api.rows(from_="2023-11-14T22:13:20.001Z")) == [other]
    assert ids(target.api.rows(to="2023-11-14T22:13:21.4999Z")) == [rid]
    assert ids(target.api.rows(to="2023-11-14T22:13:21.500000999Z")) == [rid, other]
    assert ids(target.api.rows(from_="2023-11-14T23:13:20.5+01:00")) == [other]
    assert ids(target.api.rows(from_="2023-11-14t17:13:20-05:00", from_to="x")) == [rid, other]
    assert ids(target.api.rows(expires_from="2023-11-14T22:14:20.500Z")) == [other]
    assert ids(target.api.rows(expires_to="2023-11-14T22:14:20Z")) == [rid]
    assert ids(target.api.rows(finalized_from="2000-01-01T00:00:00Z")) == [other]
    assert ids(target.api.rows(finalized_to="2000-01-01T00:00:00Z")) == []
    assert ids(target.api.rows(from_=" ", finalized_to="")) == [rid, other]


@pytest.mark.parametrize(
    "instant",
    [
        "2023-11-14",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13Z",
        "2023-11-14T22:13+01:00",
        "2023-11-14 22:13:20Z",
        "2023-02-30T00:00:00Z",
        "2023-11-14T25:00:00Z",
        "2023-11-14T22:13:20+99:00",
        "1700000000000",
        "yesterday",
    ],
)
@pytest.mark.parametrize("name", some(["from", "to", "expires_from", "expires_to", "finalized_from", "finalized_to"]))
def test_an_instant_needs_seconds_and_a_zone(api: Api, name: str, instant: str) -> None:
    assert api.rows(**{name: instant}).outcome == INVALID


@pytest.mark.parametrize(
    "instant",
    ["2020-01-01T24:00:00Z", "2016-12-31T23:59:60Z", "2020-02-01t10:00:00.z", "2020-02-01T10:00:00-00:00:30"],
)
def test_unusual_instants_are_accepted(api: Api, instant: str) -> None:
    assert api.rows(to=instant).status == 200


@pytest.mark.parametrize("instant", ["2020-01-01T24:00:01Z", "2020-01-01T10:10:60Z", "2020-02-01T10:00:00+18:01"])
def test_impossible_instants_are_rejected(api: Api, instant: str) -> None:
    assert api.rows(to=instant).outcome == INVALID


@pytest.mark.new_tenants
def test_midnight_may_belong_to_the_day_before(target: Target) -> None:
    target.clock.advance(1_700_006_400_000 - target.clock.now_ms())
    rid = target.api.held()
    assert ids(target.api.rows(from_="2023-11-15T00:00:00Z", to="2023-11-14T24:00:00Z")) == [rid]
    assert ids(target.api.rows(to="2023-11-14T23:59:60Z")) == []


def test_repeated_parameters_are_joined(api: Api) -> None:
    assert api.get("/v1/reservations?status=ACTIVE&status=COMMITTED").outcome == INVALID
    assert api.get("/v1/reservations?sort_by=reserved&sort_by=status").outcome == INVALID
    assert api.get("/v1/reservations?include=metadata&include=evidence&limit=1&limit=999").status == 200


@pytest.mark.parametrize("prefix", ["", "expires_", "finalized_"])
def test_a_window_must_not_be_reversed(api: Api, prefix: str) -> None:
    later = "2023-11-14T22:13:21Z"
    assert api.rows(**{f"{prefix}from": later, f"{prefix}to": AT}).outcome == INVALID
    assert api.rows(**{f"{prefix}from": AT, f"{prefix}to": AT}).status == 200


@pytest.mark.new_tenants
def test_maps_are_included_on_request(target: Target) -> None:
    rid = target.api.held(metadata={"a": 1})
    target.api.commit(rid, metadata={"b": 2})

    def shown(**query: str) -> set[str]:
        (row,) = target.api.rows(**query).body["reservations"]
        assert row["committed"] == amount(1000)
        return {"metadata", "committed_metadata", "evidence"} & set(row)

    assert shown() == set()
    assert shown(include="metadata") == {"metadata"}
    assert shown(include=" Committed_Metadata ,evidence,,x") == {"committed_metadata"}
    assert shown(include="metadata,committed_metadata") == {"metadata", "committed_metadata"}


# --- limits, order, pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["0", "201", "-1"])
def test_limits_outside_their_range(api: Api, limit: str) -> None:
    assert api.rows(limit=limit).outcome == INVALID
    assert api.balances(tenant=api.tenant, limit=limit).outcome == INVALID


@pytest.mark.embedded_only("the reference server returns 500")
@pytest.mark.parametrize("limit", ["x", "1.5", "1e1", "1_0", "99999999999999999999", "\N{ARABIC-INDIC DIGIT FIVE}"])
def test_limits_that_are_not_integers(target: Target, limit: str) -> None:
    assert target.api.rows(limit=limit).outcome == INVALID
    assert target.api.balances(tenant="tenant-a", limit=limit).outcome == INVALID


@pytest.mark.new_tenants
def test_the_default_limit_is_fifty(target: Target) -> None:
    for _ in range(51):
        target.api.held(1)
    for query in ({}, {"limit": ""}):
        response = target.api.rows(**query)
        assert (len(ids(response)), response.body["has_more"]) == (50, True)
    assert len(ids(target.api.rows(limit="200"))) == 51


@pytest.mark.parametrize("query", [{"sort_by": "age"}, {"sort_by": ""}, {"sort_dir": "up"}, {"sort_dir": ""}])
def test_unknown_orders(api: Api, query: dict[str, str]) -> None:
    assert api.rows(**query).outcome == INVALID


def three(target: Target) -> list[str]:
    found = []
    for size in (300, 100, 100):
        found.append(target.api.held(size, ttl_ms=60_000 + size * 1000))
        target.clock.advance(1000)
    return found


@pytest.mark.new_tenants
def test_orders(target: Target) -> None:
    first, second, third = three(target)
    low, high = sorted((second, third))
    assert ids(target.api.rows(sort_by="created_at_ms", sort_dir="asc")) == [first, second, third]
    assert ids(target.api.rows(sort_by="CREATED_AT_MS")) == [third, second, first]
    assert ids(target.api.rows(sort_dir="ASC")) == [first, second, third]
    assert ids(target.api.rows(sort_by="reserved", sort_dir="asc")) == [low, high, first]
    assert ids(target.api.rows(sort_by="reserved", sort_dir="desc")) == [
        first,
        low,
        high,
    ]  # ties are ordered by id in both directions
    assert ids(target.api.rows(sort_by="expires_at_ms", sort_dir="desc")) == [first, third, second]
    assert ids(target.api.rows(sort_by="reservation_id", sort_dir="asc")) == sorted((first, second, third))
    for name in ("tenant", "scope_path", "status"):
        assert ids(target.api.rows(sort_by=name)) == sorted((first, second, third))


@pytest.mark.new_tenants
@pytest.mark.parametrize(
    "query",
    [{}, {"sort_by": "reserved"}, {"sort_by": "status", "sort_dir": "asc"}, {"sort_by": "created_at_ms"}],
)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_add_up_to_the_list(target: Target, query: dict[str, str], limit: int) -> None:
    three(target)
    whole = ids(target.api.rows(**query))
    found: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(10):
        response = target.api.rows(limit=limit, **query, **cursor)
        found += ids(response)
        assert response.body["has_more"] == (response.body["next_cursor"] is not None)
        if not response.body["has_more"]:
            break
        cursor = {"cursor": response.body["next_cursor"]}
    assert found == whole


@pytest.mark.new_tenants
def test_a_new_row_does_not_shift_a_page(target: Target) -> None:
    three(target)
    page = target.api.rows(limit=1, sort_by="created_at_ms", sort_dir="desc")
    target.api.held()
    rest = target.api.rows(sort_by="created_at_ms", sort_dir="desc", cursor=page.body["next_cursor"])
    assert len(ids(rest)) == 2


@pytest.mark.new_tenants
def test_a_cursor_belongs_to_its_order_and_filters(target: Target) -> None:
    three(target)
    cursor = target.api.rows(limit=1, sort_by="reserved", sort_dir="asc", status="ACTIVE").body["next_cursor"]
    same = {"sort_by": "reserved", "sort_dir": "asc", "status": "ACTIVE", "cursor": cursor}
    assert len(ids(target.api.rows(**same))) == 2
    assert len(ids(target.api.rows(**same | {"include": "metadata", "limit": "1"}))) == 1
    assert len(ids(target.api.rows(status="ACTIVE", cursor=cursor))) == 2  # without a sort, it continues in its own
    for change in (
        {"sort_by": "status"},
        {"sort_dir": "desc"},
        {"status": "COMMITTED"},
        {"agent": "x"},
        {"idempotency_key": "x"},
        {"from": AT},
        {"expires_to": "2030-01-01T00:00:00Z"},
    ):
        assert target.api.rows(**same | change).outcome == INVALID, change
    del same["status"]
    assert target.api.rows(**same).outcome == INVALID


@pytest.mark.embedded_only("the reference server returns 500 for some")
def test_malformed_cursors_are_rejected(target: Target) -> None:
    three(target)
    number = target.api.rows(limit=1).body["next_cursor"]
    assert target.api.rows(cursor=number, sort_by="reserved").outcome == INVALID
    forged = [json.dumps(value) for value in (5, [], ["", "status", "asc", "", ""], ["", [], "asc", 1, None])]
    for garbage in ("garbage", "é", "====", *(base64.urlsafe_b64encode(text.encode()).decode() for text in forged)):
        assert target.api.rows(cursor=garbage).outcome == INVALID
        assert target.api.rows(cursor=garbage, sort_by="status").outcome == INVALID
        assert target.api.balances(tenant="tenant-a", cursor=garbage).outcome == INVALID
    assert len(ids(target.api.rows(cursor=""))) == 3


def test_the_order_of_checks_of_a_list(target: Target) -> None:
    query = {
        "limit": "0",
        "status": "x",
        "sort_by": "x",
        "sort_dir": "x",
        "from": "x",
        "expires_from": "x",
        "finalized_from": "x",
        "tenant": "tenant-b",
        "cursor": "x",
    }
    if target.api.is_live:
        del query["cursor"]  # the reference server returns 500
    for name in list(query):
        response = target.api.rows(**query)
        expected = (403, "FORBIDDEN") if name == "tenant" else INVALID
        assert response.outcome == expected
        assert response.mentions(name)
        del query[name]
    assert target.api.rows(**query).status == 200
