"""What the embedded server reads from the query of a list, and which rows each page has."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from attrs import evolve

from cycles.embedded import listing, query
from cycles.embedded.authentication import Caller
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Budget, Reservation

EPOCH = "1970-01-01T00:00:00Z"
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def message_of(call: Any, *args: Any, **options: Any) -> str:
    """Return the message of a request that gets 400."""
    with pytest.raises(ApiError) as caught:
        call(*args, **options)
    assert (caught.value.code, caught.value.status) == ("INVALID_REQUEST", 400)
    return caught.value.message


# --- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a=1&a=2&a=3", {"a": "1,2,3"}),
        ("limit=1&limit=2", {"limit": "1"}),
        ("limit=&limit=2", {"limit": ""}),
        ("a=&a=2&b=1&b=", {"a": ",2", "b": "1,"}),
        ("include_children=no&include_children=x", {"include_children": "no"}),
        ("a=%20x+y&b=%E2%9C%93", {"a": " x y", "b": "✓"}),
    ],
)
def test_the_parameters_of_a_query(text: str, found: dict[str, str]) -> None:
    assert query.parse(text) == found


def test_a_query_has_at_most_two_hundred_parameters() -> None:
    assert query.parse("&".join(["limit=1"] * 200)) == {"limit": "1"}
    assert message_of(query.parse, "&".join(["limit=1"] * 201)) == "too many query parameters; send at most 200"


@pytest.mark.parametrize(
    ("text", "rows"),
    [(None, 50), ("", 50), ("  ", 50), ("1", 1), (" 7 ", 7), ("+7", 7), ("0000000007", 7), ("199", 199), ("200", 200)],
)
def test_how_many_rows_a_page_has(text: str | None, rows: int) -> None:
    assert query.limit({} if text is None else {"limit": text}) == rows


@pytest.mark.parametrize("text", ["0", "-1", "201", "00000000007", "x", "1.5", "1 0", "\u0665"])
def test_a_wrong_number_of_rows(text: str) -> None:
    assert message_of(query.limit, {"limit": text}) == f"limit must be 1 to 200, got {text!r}"


def test_the_messages_of_wrong_parameters_are_short() -> None:
    assert message_of(query.limit, {"limit": "x" * 21}) == f"limit must be 1 to 200, got {'x' * 20!r}"
    assert message_of(query.flag, {"f": "x" * 41}, "f") == f"f must be true or false, got {'x' * 40!r}"
    unknown = message_of(query.keyword, {"k": "x" * 41}, "k", ("a", "b"))
    assert unknown == f"unknown k: {'x' * 40!r}; send a, b"
    instant = message_of(query.window, {"from": "x" * 41}, "from", "to")
    assert instant == f"from is not an instant: {'x' * 40!r}; send one like 2026-01-31T12:00:00Z"


def test_flags_and_keywords() -> None:
    for text in ("", " ", "true", "FALSE", " yes ", "No", "on", "off", "1", "0"):
        query.flag({"f": text}, "f")
    query.flag({}, "f")
    assert message_of(query.flag, {"f": "2"}, "f") == "f must be true or false, got '2'"
    assert query.keyword({}, "k", ("a",)) is None
    assert query.keyword({"k": "a"}, "k", ("a",)) == query.keyword({"k": "A"}, "k", ("a",), any_case=True) == "a"
    assert message_of(query.keyword, {"k": "A"}, "k", ("a",)) == "unknown k: 'A'; send a"


def test_the_levels_of_a_query() -> None:
    given = {"tenant": "t", "agent": "", "limit": "1"}
    assert query.levels(given) == {"tenant": "t", "agent": ""}
    assert query.levels(given, tenant=False) == {"agent": ""}


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        (EPOCH, 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-02T03:04:05Z", DAY + 3 * HOUR + 4 * MINUTE + 5 * SECOND),
        ("1969-12-31T23:59:59Z", -SECOND),
        ("1970-01-01T00:00:00.Z", 0),
        ("1970-01-01T00:00:00.5Z", 500),
        ("1970-01-01T00:00:00.05Z", 50),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1970-01-01T00:00:00.9999Z", 999),
        ("1969-12-31T23:59:59.001Z", -999),
        ("1970-01-01T24:00:00Z", DAY),
        ("1970-01-01T24:00:00.000Z", DAY),
        ("1970-01-01T23:59:60Z", DAY - SECOND),
        ("1970-01-01T23:59:60.5Z", DAY - 500),
        ("1970-01-01T00:00:00+01:00", -HOUR),
        ("1970-01-01T00:00:00-01:30", HOUR + 30 * MINUTE),
        ("1970-01-01T00:00:00-01:30:15", HOUR + 30 * MINUTE + 15 * SECOND),
        ("1970-01-01T00:00:00+00:59:59", -59 * MINUTE - 59 * SECOND),
        ("1970-01-01T00:00:00-18:00", 18 * HOUR),
        (" 1970-01-01T00:00:00Z ", 0),
    ],
)
def test_an_instant(text: str, at_ms: int) -> None:
    assert query.window({"from": text}, "from", "to") == (at_ms, None)
    assert query.window({"to": text}, "from", "to") == (None, at_ms)


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-01T24:00:00.001Z",
        "9999-12-31T24:00:00Z",
        "1970-01-01T24:01:00Z",
        "1970-01-01T24:00:01Z",
        "1970-01-01T23:58:60Z",
        "1970-01-01T22:59:60Z",
        "1970-01-01T00:00:00-18:01",
        "1970-01-01T00:00:00-18:00:01",
        "1970-01-01T00:00:00+01:60",
        "1970-01-01T00:00:00+01:00:60",
        "1970-01-01T00:00:00.1234567890Z",
        "1970-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_an_impossible_instant(text: str) -> None:
    said = f"from is not an instant: {text[:40]!r}; send one like 2026-01-31T12:00:00Z"
    assert message_of(query.window, {"from": text}, "from", "to") == said


def test_the_ends_of_a_window() -> None:
    later = "1970-01-01T00:00:01Z"
    assert query.window({}, "from", "to") == query.window({"from": " ", "to": ""}, "from", "to") == (None, None)
    assert query.window({"from": EPOCH, "to": EPOCH}, "from", "to") == (0, 0)
    assert query.window({"from": EPOCH, "to": later}, "from", "to") == (0, SECOND)
    reversed_ = message_of(query.window, {"from": later, "to": EPOCH}, "from", "to")
    assert reversed_ == "from is after to; send the earlier time as from"


WRONG_CURSOR = "cursor does not belong to this list; omit it to start from the first page"


def test_a_cursor() -> None:
    for parts in ([], ["a"], ["ab", 1], ["abc", None, "✓"], ["\u00ff\u00fe>?", "~~~"]):
        cursor = query.seal(*parts)
        assert (query.unseal(cursor, len(parts)), "=" in cursor) == (parts, False)
        assert message_of(query.unseal, cursor, len(parts) + 1) == WRONG_CURSOR
    encoded = base64.urlsafe_b64encode(json.dumps(["????", "~~~>>"]).encode()).decode()
    assert query.unseal(encoded.rstrip("="), 2) == ["????", "~~~>>"]
    for wrong in (
        f"{query.seal('ab')[:4]}!{query.seal('ab')[4:]}",
        "%",
        "é",
        "a",
        query.seal("a")[:-2],
        base64.b64encode(b'{"a": 1}').decode(),
        "W" * 100_000,
    ):
        assert message_of(query.unseal, wrong, 1) == WRONG_CURSOR


# --- reservations ---------------------------------------------------------------------------------------------------

ACME, ADMIN = Caller("acme"), Caller(None)


def row(number: int, **members: Any) -> Reservation:
    fixed: dict[str, Any] = {
        "reservation_id": f"r{number}", "number": number, "tenant": "acme", "idempotency_key": f"k{number}",
        "subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"}, "unit": "TOKENS", "reserved": 10,
        "overage_policy": "REJECT", "scopes": ("tenant:acme",), "budgeted": (), "created_at_ms": 1_000 * number,
        "expires_at_ms": 10_000 * number, "grace_period_ms": 5_000, "max_extensions": 10,
    }  # fmt: skip
    return Reservation(**{**fixed, **members})


AGENT = "tenant:acme/agent:b"
ROWS = [
    row(1, reserved=30),
    row(2, reserved=20, status="COMMITTED", finalized_at_ms=5_000, charged=0, scopes=("tenant:acme", AGENT)),
    row(3, reserved=20, status="RELEASED", finalized_at_ms=6_000),
    row(4, tenant="other"),
    row(5, reserved=10, status="EXPIRED"),
]  # fmt: skip


ORDERS = ("reservation_id", "tenant", "scope_path", "status", "reserved", "created_at_ms", "expires_at_ms")


def listed(caller: Caller = ACME, /, **given: str) -> str:
    """Return the numbers of the rows of a page."""
    found = listing.reservations(ROWS, caller, given)
    return "".join(each["reservation_id"][1:] for each in found["reservations"])


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({}, "1235"),
        ({"tenant": "acme"}, "1235"),
        ({"tenant": ""}, ""),
        ({"status": "EXPIRED"}, "5"),
        ({"idempotency_key": "k3"}, "3"),
        ({"idempotency_key": ""}, ""),
        ({"agent": "B"}, "2"),
        ({"agent": "c"}, ""),
        ({"from": "1970-01-01T00:00:02Z"}, "235"),
        ({"to": "1970-01-01T00:00:02Z"}, "12"),
        ({"from": "1970-01-01T00:00:02Z", "to": "1970-01-01T00:00:02Z"}, "2"),
        ({"from": "1970-01-01T00:00:02.001Z"}, "35"),
        ({"to": "1970-01-01T00:00:01.999Z"}, "1"),
        ({"expires_from": "1970-01-01T00:00:30Z"}, "35"),
        ({"expires_to": "1970-01-01T00:00:20Z"}, "12"),
        ({"finalized_from": "1970-01-01T00:00:06Z"}, "3"),
        ({"finalized_to": "1970-01-01T00:00:05Z"}, "2"),
        ({"sort_by": "reserved"}, "1235"),
        ({"sort_by": "reserved", "sort_dir": "asc"}, "5231"),
        ({"sort_by": "Reservation_Id"}, "5321"),
        ({"sort_by": "status", "sort_dir": "asc"}, "1253"),
        ({"sort_by": "expires_at_ms"}, "5321"),
        ({"sort_dir": "asc"}, "1235"),
        ({"sort_dir": "DESC"}, "5321"),
        ({"sort_by": "scope_path"}, "2135"),
        ({"sort_by": "tenant"}, "1235"),
        ({"cursor": "0"}, "1235"),
        ({"cursor": "2"}, "35"),
        ({"cursor": "5"}, ""),
        ({"cursor": "00000000000000000002999"}, "35"),  # what follows the twentieth digit is ignored
        ({"limit": "3"}, "123"),
    ],
)
def test_which_reservations_are_listed(given: dict[str, str], numbers: str) -> None:
    assert listed(**given) == numbers


def test_the_tenant_of_a_list() -> None:
    assert (listed(ADMIN, tenant="other"), listed(ADMIN, tenant="acme", status="ACTIVE")) == ("4", "1")
    for given in ({}, {"tenant": ""}, {"tenant": " "}):
        said = message_of(listing.reservations, ROWS, ADMIN, given)
        assert said == "tenant is missing; send it with the admin key"
    with pytest.raises(ApiError, match="tenant is not the tenant of the API key; omit it") as caught:
        listed(tenant="other")
    assert (caught.value.code, caught.value.status) == ("FORBIDDEN", 403)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "order",
    [
        {},
        {"sort_dir": "asc"},
        *({"sort_by": name} for name in ORDERS),
        *({"sort_by": name, "sort_dir": "asc"} for name in ORDERS),
        {"sort_by": "EXPIRES_AT_MS", "sort_dir": "DESC"},
    ],
)
def test_the_pages_of_a_list(order: dict[str, str], limit: int) -> None:
    whole, found, cursor = listed(**order), "", ""
    sizes = []
    for _ in range(6):
        page = listing.reservations(ROWS, ACME, {**order, "limit": str(limit), "cursor": cursor})
        numbers = "".join(each["reservation_id"][1:] for each in page["reservations"])
        sizes.append(len(numbers))
        found += numbers
        cursor = page["next_cursor"]
        assert page["has_more"] is (cursor is not None)
        if cursor is None:
            break
    # Without an order, a full page has a cursor even if no row follows.
    pages = -(-4 // limit) if order else 4 // limit + 1
    assert (found, len(sizes), set(sizes[:-1]) <= {limit}) == (whole, pages, True)


@pytest.mark.parametrize(
    ("parts", "fits"),
    [
        (["reserved", "asc", 20, "r2"], True),
        (["reserved", "desc", 20, "r2"], False),
        (["tenant", "asc", "acme", "r2"], False),
        (["reserved", "asc", "20", "r2"], False),
        (["reserved", "asc", True, "r2"], False),
        (["reserved", "asc", 20.0, "r2"], False),
        (["reserved", "asc", 20, 2], False),
        ([1, "asc", 20, "r2"], False),
        (["reserved", 1, 20, "r2"], False),
        (["reserved", "asc", 20], False),
    ],
)
def test_which_cursors_an_order_accepts(parts: list[Any], fits: bool) -> None:
    given = {"sort_by": "reserved", "sort_dir": "asc"}
    last = query.unseal(listing.reservations(ROWS, ACME, {**given, "limit": "2"})["next_cursor"], 5)
    assert last[1:] == ["reserved", "asc", 20, "r2"]
    cursor = query.seal(last[0], *parts)
    if fits:
        assert (listed(**given, cursor=cursor), listed(cursor=cursor)) == ("31", "31")
        assert message_of(listing.reservations, ROWS, ACME, {"cursor": query.seal("x", *parts)}) == WRONG_CURSOR
        return
    assert message_of(listing.reservations, ROWS, ACME, {**given, "cursor": cursor}) == WRONG_CURSOR


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        ({"sort_by": "reserved", "sort_dir": "asc"}, True),
        ({"sort_by": "reserved"}, False),  # the other member has its default, not that of the cursor
        ({"sort_dir": "asc"}, False),
        ({"sort_by": "status", "sort_dir": "asc"}, False),
        ({"status": "RELEASED"}, False),
        ({"idempotency_key": "k1"}, False),
        ({"agent": "b"}, False),
        ({"from": "1970-01-01T00:00:00Z"}, False),
        ({"expires_to": "1970-01-02T00:00:00Z"}, False),
    ],
)
def test_which_requests_a_cursor_continues(given: dict[str, str], fits: bool) -> None:
    order = {"sort_by": "reserved", "sort_dir": "asc"}
    cursor = listing.reservations(ROWS, ACME, {**order, "limit": "2"})["next_cursor"]
    if fits:
        assert listed(**given, cursor=cursor) == "31"
    else:
        assert message_of(listing.reservations, ROWS, ACME, {**given, "cursor": cursor}) == WRONG_CURSOR


def test_a_cursor_of_an_unknown_order() -> None:
    digest = query.unseal(listing.reservations(ROWS, ACME, {"limit": "1", "sort_dir": "asc"})["next_cursor"], 5)[0]
    cursor = query.seal(digest, "unknown", "asc", "x", "r1")
    assert message_of(listing.reservations, ROWS, ACME, {"cursor": cursor}) == WRONG_CURSOR


def test_a_row_shows_its_metadata_on_request() -> None:
    done = evolve(ROWS[1], metadata={"a": 1}, committed_metadata={"b": 2})

    def shown(**given: str) -> list[str]:
        (found,) = listing.reservations([done], ACME, given)["reservations"]
        assert (found["committed"], found["finalized_at_ms"]) == ({"unit": "TOKENS", "amount": 0}, 5_000)
        return [name for name in found if "metadata" in name]

    assert (shown(), shown(include=" Metadata,x"), shown(include="committed_metadata")) == (
        [], ["metadata"], ["committed_metadata"],
    )  # fmt: skip
    assert listing.row_of(done).keys() >= {"metadata", "committed_metadata"}
    assert {"committed", "finalized_at_ms"}.isdisjoint(listing.row_of(ROWS[0]))


# --- balances -------------------------------------------------------------------------------------------------------

BUDGETS = [
    Budget(scope=scope, unit=unit, allocated=1)
    for scope, unit in (
        (AGENT, "TOKENS"), ("tenant:acme", "USD_MICROCENTS"), ("tenant:acme", "TOKENS"),
        ("tenant:other", "TOKENS"), ("agent:b", "TOKENS"),
    )
]  # fmt: skip


def test_which_balances_are_listed() -> None:
    def found(**given: str) -> list[tuple[str, str]]:
        rows = listing.balances(BUDGETS, ACME, given)["balances"]
        return [(each["scope_path"], each["allocated"]["unit"]) for each in rows]

    acme, agent = "tenant:acme", (AGENT, "TOKENS")
    assert found(tenant="acme") == [(acme, "TOKENS"), (acme, "USD_MICROCENTS"), agent]
    assert (found(agent="B"), found(agent="x"), found(tenant="")) == ([agent], [], [])
    cursor, pages = "", []
    while cursor is not None:
        page = listing.balances(BUDGETS, ACME, {"tenant": "acme", "limit": "1", "cursor": cursor})
        cursor = page["next_cursor"]
        pages.append((len(page["balances"]), page["has_more"]))
    assert pages == [(1, True)] * 3 + [(0, False)]  # a full page has a cursor
    assert listing.balances(BUDGETS, ACME, {"tenant": "acme", "limit": "4"})["next_cursor"] is None
    said = message_of(listing.balances, BUDGETS, ACME, {})
    assert said.startswith("the filter is empty; send at least one of tenant, ")
    for parts in (["a", 1], [1, "a"], ["a"], ["a", "b", "c"]):
        given = {"tenant": "acme", "cursor": query.seal(*parts)}
        assert message_of(listing.balances, BUDGETS, ACME, given) == WRONG_CURSOR
    with pytest.raises(ApiError, match="tenant is not the tenant of the API key"):
        found(tenant="other")
    assert message_of(listing.balances, BUDGETS, ACME, {"include_children": "x"}).startswith("include_children must")
