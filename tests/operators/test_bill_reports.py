"""What the reports of both providers become: rows of the bill, or an error for what is no report. No server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles.billing import _anthropic as anthropic, _openai as openai
from cycles.billing._admin_api import AdminApi, checked_base
from cycles.billing._rows import BillRow, ReportError, count, exact, merged

DAY, NEXT, LAST = "2026-11-24", "2026-11-25", "2026-11-26"
KEY = "sk-very-secret"
COMPLETIONS, COSTS, EMBEDDINGS = openai.USAGE, openai.COSTS, openai.EMBEDDINGS


class Upstream:
    """The reports of a provider by path. A number in place of a report is the status that rejects the request."""

    def __init__(self) -> None:
        self.reports: dict[str, Any] = {}
        self.paths: list[str] = []
        self.respond: Callable[[httpx.Request], httpx.Response] = self._report

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return self.respond(request)

    def _report(self, request: httpx.Request) -> httpx.Response:
        given = self.reports.get(request.url.path, 404)
        if isinstance(given, int):
            return httpx.Response(given, json={"error": {"message": "no"}})
        return httpx.Response(200, json={"data": given, "has_more": False})


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    made = Upstream()
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=httpx.MockTransport(made)))
    return made


def shown(rows: list[BillRow]) -> list[tuple[Any, ...]]:
    found = [(row.day, row.model, row.amount, row.calls, ",".join(sorted(row.tiers)), row.is_model) for row in rows]
    return sorted(found)


def at(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def costs(*items: tuple[str | None, str | None], day: str = DAY) -> dict[str, Any]:
    results = [
        {"line_item": name, "amount": None if value is None else {"value": value, "currency": "USD"}}
        for name, value in items
    ]
    return {"start_time": at(day), "results": results}


def usage(model: str | None, calls: Any, day: str = DAY, **members: Any) -> dict[str, Any]:
    return {"start_time": at(day), "results": [{"model": model, "num_model_requests": calls, **members}]}


CENT = Fraction(1_000_000)
EMBEDDING = "text-embedding-3-small"


@pytest.mark.parametrize(
    ("reports", "rows"),
    [
        # Calls without a cost are a row that costs nothing; a cost without calls has no number of them.
        ({COMPLETIONS: [usage("gpt-5", 3)]}, [(DAY, "gpt-5", 0, 3, "", True)]),
        ({COSTS: [costs(("gpt-5, input", "0.01"))]}, [(DAY, "gpt-5", CENT, None, "", True)]),
        (
            {COSTS: [costs(("gpt-5, input", "0.01"))], COMPLETIONS: [usage("gpt-5", 0, service_tier="flex")]},
            [(DAY, "gpt-5", CENT, 0, "", True)],
        ),
        (
            {COSTS: [costs(("gpt-5, input", "0.01"), ("gpt-5-2026-01-01, output", "0.02"), ("gpt-5, x", None))]},
            [(DAY, "gpt-5", 3 * CENT, None, "", True)],
        ),
        # The calls of all tiers are one sum, and a tier counts if it has a call.
        (
            {
                COSTS: [costs(("gpt-5, input", "0.01"))],
                COMPLETIONS: [
                    usage("gpt-5", 3, service_tier="default"),
                    usage("gpt-5", 2, service_tier="flex"),
                    usage("gpt-5", 0, service_tier="priority"),
                    usage("gpt-5", 4, batch=True),
                    usage("gpt-5", 1, batch=False),
                ],
            },
            [(DAY, "gpt-5", CENT, 10, "batch,flex", True)],
        ),
        # The name of a model that no pattern knows is one if the usage has it; a name of a tool never is.
        (
            {COSTS: [costs(("acme-1", "0.01"))], COMPLETIONS: [usage("acme-1", 2)]},
            [(DAY, "acme-1", CENT, 2, "", True)],
        ),
        (
            {COSTS: [costs(("acme-1", "0.01"), ("web search, calls", "0.02"), (None, "0.03"))]},
            [
                (DAY, "(other)", 3 * CENT, None, "", False),
                (DAY, "acme-1", CENT, None, "", False),
                (DAY, "web search", 2 * CENT, None, "", False),
            ],
        ),
        ({COMPLETIONS: [usage(None, 2)]}, [(DAY, "(other)", 0, 2, "", True)]),
        (
            {COSTS: [costs(("acme-1", "0.01"), ("acme-1, input", "0.02"))], COMPLETIONS: [usage("acme-1", 2)]},
            [(DAY, "acme-1", 3 * CENT, 2, "", True)],
        ),
        # Calls of embeddings are in a report of their own, also if there are calls of other models.
        (
            {
                COSTS: [costs(("gpt-5, input", "0.01"), (f"{EMBEDDING}, input", "0.02"))],
                COMPLETIONS: [usage("gpt-5", 3)],
                EMBEDDINGS: [usage(EMBEDDING, 7)],
            },
            [(DAY, "gpt-5", CENT, 3, "", True), (DAY, EMBEDDING, 2 * CENT, 7, "", True)],
        ),
        (
            {
                COSTS: [costs((f"{EMBEDDING}, input", "0.01")), costs((f"{EMBEDDING}, input", "0.02"), day=NEXT)],
                COMPLETIONS: [usage(EMBEDDING, 3)],
                EMBEDDINGS: [usage(EMBEDDING, 7, day=NEXT)],
            },
            [(DAY, EMBEDDING, CENT, 3, "", True), (NEXT, EMBEDDING, 2 * CENT, 7, "", True)],
        ),
        # Only the days that were asked for.
        (
            {
                COSTS: [costs(("gpt-5, input", "0.01"), day=day) for day in ("2026-11-23", DAY, NEXT, LAST)],
                COMPLETIONS: [usage("gpt-5", 1, day=day) for day in ("2026-11-23", DAY, NEXT, LAST)],
            },
            [(DAY, "gpt-5", CENT, 1, "", True), (NEXT, "gpt-5", CENT, 1, "", True)],
        ),
    ],
)
def test_rows_of_openai(upstream: Upstream, reports: Mapping[str, Any], rows: list[Any]) -> None:
    upstream.reports = {COSTS: [], COMPLETIONS: [], **reports}
    found = openai.read(openai.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))
    assert shown(found) == rows
    assert (EMBEDDINGS in upstream.paths) is (EMBEDDINGS in reports)


@pytest.mark.parametrize(
    "name", ["gpt-5", "o3", "chatgpt-4o", "ft:gpt-4o", "text-embedding-9", "whisper-1", "dall-e-3", "codex-mini"]
)
def test_a_line_item_without_a_comma_is_a_model_by_its_name(upstream: Upstream, name: str) -> None:
    upstream.reports = {COSTS: [costs((name, "0.01"))], COMPLETIONS: []}
    found = openai.read(openai.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))
    assert shown(found) == [(DAY, name, CENT, None, "", True)]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_only_a_missing_report_of_embeddings_is_left_out(upstream: Upstream, status: int) -> None:
    upstream.reports = {COSTS: [costs((EMBEDDING, "0.01"))], COMPLETIONS: [], EMBEDDINGS: status}
    with pytest.raises(cycles.ProtocolError) as caught:
        openai.read(openai.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))
    assert caught.value.status == status


def analysed(model: str | None, amount: str, day: str = DAY, tier: str = "standard", **cost: Any) -> dict[str, Any]:
    group = {"model": model, "service_tier": tier}
    return {"starting_at": f"{day}T00:00:00Z", "cost": {"amount": amount, **cost}, "group": group}


@pytest.mark.parametrize(
    ("items", "rows", "listed"),
    [
        ([analysed("claude-x", "1")], [(DAY, "claude-x", CENT, None, "", True)], None),
        ([analysed("claude-x", "1", requests=0)], [(DAY, "claude-x", CENT, 0, "", True)], None),
        ([analysed("claude-x", "1", list_amount="2")], [(DAY, "claude-x", CENT, None, "", True)], 2 * CENT),
        ([analysed("claude-x", "1", list_amount="0")], [(DAY, "claude-x", CENT, None, "", True)], 0),
        # A part without a list price has none for the sum either.
        (
            [
                analysed("claude-x-20260101", "1", list_amount="2", requests=3),
                analysed("claude-x", "4", tier="batch", requests=2),
            ],
            [(DAY, "claude-x", 5 * CENT, 5, "batch", True)],
            None,
        ),
        (
            [analysed("claude-x", "4", tier="batch"), analysed("claude-x", "1", list_amount="2", requests=3)],
            [(DAY, "claude-x", 5 * CENT, 3, "batch", True)],
            None,
        ),
        (
            [analysed("claude-x", "1", list_amount="2"), analysed("claude-x", "1", list_amount="3", currency="usd")],
            [(DAY, "claude-x", 2 * CENT, None, "", True)],
            5 * CENT,
        ),
        ([analysed(None, "1", requests=2)], [(DAY, "(other)", CENT, 2, "", False)], None),
        ([analysed("claude-x", "1", day=day) for day in ("2026-11-23", LAST)], [], None),
        ([analysed("claude-x", "1", day=NEXT)], [(NEXT, "claude-x", CENT, None, "", True)], None),
    ],
)
def test_rows_of_anthropic(upstream: Upstream, items: list[Any], rows: list[Any], listed: Any) -> None:
    upstream.reports = {anthropic.ANALYTICS: items}
    found = anthropic.read(anthropic.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))
    assert shown(found) == rows
    assert [row.listed for row in found] == [listed] * len(rows)
    assert upstream.paths == [anthropic.ANALYTICS]


def test_rows_of_the_older_report_of_anthropic(upstream: Upstream) -> None:
    results = [
        {"model": "claude-x-20260101", "amount": "1", "service_tier": "standard"},
        {"model": "claude-x", "amount": "2", "currency": "USD", "service_tier": "batch"},
        {"model": None, "description": "Code Execution", "amount": "3"},
        {"amount": "4"},
    ]
    days = ("2026-11-23", DAY, LAST)
    upstream.reports = {
        anthropic.REPORT: [{"starting_at": f"{day}T00:00:00Z", "results": results} for day in days],
    }
    found = anthropic.read(anthropic.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))
    assert shown(found) == [
        (DAY, "(other)", 4 * CENT, None, "", False),
        (DAY, "Code Execution", 3 * CENT, None, "", False),
        (DAY, "claude-x", 3 * CENT, None, "batch", True),
    ]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_only_missing_analytics_are_read_from_the_older_report(upstream: Upstream, status: int) -> None:
    upstream.reports = {anthropic.ANALYTICS: status, anthropic.REPORT: []}
    with pytest.raises(cycles.ProtocolError) as caught:
        anthropic.read(anthropic.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))
    assert (caught.value.status, upstream.paths) == (status, [anthropic.ANALYTICS])


@pytest.mark.parametrize("currency", ["EUR", None, 1])
@pytest.mark.parametrize("path", [anthropic.ANALYTICS, anthropic.REPORT])
def test_another_currency_is_no_report(upstream: Upstream, path: str, currency: Any) -> None:
    result = {"model": "claude-x", "amount": "1", "currency": currency}
    reports = {
        anthropic.ANALYTICS: analysed("claude-x", "1", currency=currency),
        anthropic.REPORT: {"starting_at": DAY, "results": [result]},
    }
    upstream.reports = {path: [reports[path]]}
    with pytest.raises(cycles.TransportError, match="and not in USD"):
        anthropic.read(anthropic.admin_api(None, KEY), date.fromisoformat(DAY), date.fromisoformat(LAST))


# --- pages ---------------------------------------------------------------------------------------------------------


def admin_api() -> AdminApi:
    return AdminApi("https://bill.example", KEY, "ADMIN_KEY", {})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, cycles.ProtocolError) for status in (400, 401, 403, 404, 405, 409, 422, 451, 499)),
        *((status, cycles.TransportError) for status in (201, 204, 301, 308, 408, 429, 500, 503, 529)),
    ],
)
def test_which_status_may_be_repeated(upstream: Upstream, status: int, error: type[cycles.CyclesError]) -> None:
    upstream.reports = {"/report": status}
    with pytest.raises(cycles.CyclesError) as caught:
        list(admin_api().pages("/report", ()))
    assert type(caught.value) is error
    assert getattr(caught.value, "status", None) == status
    assert upstream.paths == ["/report"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "no such group"}}, " (no such group);"),
        ({"error": "no such group"}, " (no such group);"),
        ({"error": {"message": "x" * 201}}, f" ({'x' * 200});"),
        ({"error": {"message": f"bad {KEY}"}}, " (bad ...);"),
        ({"error": {"message": 5}}, " status 400;"),
        ({"error": None}, " status 400;"),
        ({}, " status 400;"),
        ([], " status 400;"),
    ],
)
def test_what_the_provider_says_is_in_the_error(upstream: Upstream, body: Any, said: str) -> None:
    upstream.respond = lambda request: httpx.Response(400, json=body)
    with pytest.raises(cycles.ProtocolError) as caught:
        list(admin_api().pages("/report", ()))
    assert said in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "read"),
    [(["a", "b", None], 3), (["a", "a"], 2), (["a", "b", "a"], 3), (["a", "b", "c", "b"], 4), ([""], 1), ([5], 1)],
)
def test_pages_end_without_a_token_or_at_one_that_was_used(
    upstream: Upstream, tokens: list[str | None], read: int
) -> None:
    left = iter(tokens)

    def respond(request: httpx.Request) -> httpx.Response:
        token = next(left)
        return httpx.Response(200, json={"data": [], "has_more": token is not None, "next_page": token})

    upstream.respond = respond
    pages = admin_api().pages("/report", [("limit", "1")])
    if tokens[-1] is None:
        assert len(list(pages)) == read
    else:
        with pytest.raises(cycles.TransportError, match="token"):
            list(pages)
    assert len(upstream.paths) == read


def test_a_report_has_a_limited_number_of_pages(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.billing._admin_api.MAX_PAGES", 3)
    tokens = itertools.count()
    upstream.respond = lambda request: httpx.Response(
        200, json={"data": [], "has_more": True, "next_page": f"t{next(tokens)}"}
    )
    with pytest.raises(cycles.TransportError, match="more than 3 pages"):
        list(admin_api().pages("/report", ()))
    assert len(upstream.paths) == 3


def test_a_page_that_arrives_too_slowly_is_left(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout of the HTTP client is that of one read; here each piece takes a quarter of the whole time."""
    moments = itertools.count(0, 15)
    monkeypatch.setattr("cycles.billing._admin_api.time", SimpleNamespace(monotonic=lambda: float(next(moments))))
    pieces = [b'{"data": [', *[b" "] * 20, b"]}"]
    upstream.respond = lambda request: httpx.Response(200, content=iter(pieces))
    with pytest.raises(cycles.TransportError, match="ReadTimeout"):
        list(admin_api().pages("/report", ()))
    upstream.respond = lambda request: httpx.Response(200, content=iter([pieces[0], b" ", pieces[-1]]))
    assert list(admin_api().pages("/report", ())) == [{"data": []}]


@pytest.mark.parametrize(
    ("base", "used"),
    [
        ("https://bill.example", "https://bill.example"),
        ("https://bill.example/", "https://bill.example"),
        ("https://bill.example/v1", "https://bill.example"),
        ("https://bill.example/v1/", "https://bill.example"),
        ("https://bill.example/gateway/v1/", "https://bill.example/gateway"),
        ("http://localhost:8080/v1", "http://localhost:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.0.1:8080", "http://127.8.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        *(
            (base, None)
            for base in ("http://10.0.0.1", "http://bill.example", "http://localhost.example", "http://[2001:db8::1]")
        ),
        *((base, None) for base in ("https://h:0", "https://h:x", "https://h?a=b", "https://h#a", "https://h /", "")),
        *((base, None) for base in ("ftp://h", "https://", "https://user@h", "https://h\n")),
    ],
)
def test_addresses_to_which_an_admin_key_may_be_sent(base: str, used: str | None) -> None:
    if used is not None:
        assert checked_base(base) == used
        return
    with pytest.raises(cycles.ConfigurationError, match="--upstream"):
        checked_base(base)


# --- values --------------------------------------------------------------------------------------------------------


NO_AMOUNTS: tuple[Any, ...] = ("10000000000000", "1e-61", "inf", "nan", "", "x", True, None, 1.5, [])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0", 0),
        ("-1.5", -3),
        (Decimal("0.5"), 1),
        (2, 4),
        ("9999999999999", 2 * 9_999_999_999_999),
        ("1e-60", Fraction(2, 10**60)),
        ("0e-99", 0),
        *((value, None) for value in NO_AMOUNTS),
    ],
)
def test_amounts_of_reports(value: Any, found: Any) -> None:
    if found is not None:
        assert exact(value, 2) == found
        return
    with pytest.raises(ReportError, match="is no amount"):
        exact(value, 2)


@pytest.mark.parametrize(
    ("value", "found"), [(None, None), (0, 0), (7, 7), (Decimal("3.0"), 3), (Decimal("0"), 0), (Decimal("1E+2"), 100)]
)
def test_counts_of_reports(value: Any, found: int | None) -> None:
    assert count(value) == found


@pytest.mark.parametrize("value", [-1, True, "3", 1.0, Decimal("0.5"), Decimal("-1"), []])
def test_what_is_no_count(value: Any) -> None:
    with pytest.raises(ReportError, match="is no number of calls"):
        count(value)


def test_parts_of_a_row_add_up_and_other_rows_stay_apart() -> None:
    parts = [
        BillRow(day=DAY, model="m", amount=Fraction(1), calls=None, listed=Fraction(5), tiers=frozenset({"a"})),
        BillRow(day=DAY, model="m", amount=Fraction(2), calls=3, listed=Fraction(7), tiers=frozenset({"b"})),
        BillRow(day=DAY, model="m", amount=Fraction(4), is_model=False),
        BillRow(day=NEXT, model="m", amount=Fraction(8)),
        BillRow(day=DAY, model="m", amount=Fraction(16), calls=2, listed=Fraction(1)),
    ]
    one, other, later = merged(parts)
    sums = Fraction(19), 5, Fraction(13), frozenset({"a", "b"})
    assert (one.amount, one.calls, one.listed, one.tiers) == sums
    assert (other.amount, other.is_model, later.amount, later.day) == (Fraction(4), False, Fraction(8), NEXT)
