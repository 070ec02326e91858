"""Which requests the embedded server rejects before an operation: by path, headers, host, key and repetition."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles.embedded.authentication import Authenticator, PublicLimit, is_same_secret
from cycles.embedded.dashboard.checks import has_token, is_loopback, problem_of
from cycles.embedded.errors import ApiError
from cycles.embedded.framework import MAX_HEAD_BYTES, accepts_json, is_bad_request, is_suspicious
from cycles.embedded.idempotency import IdempotencyStore, digest
from cycles.embedded.options import budgets_of, export_command, keys_by_tenant, keys_of, stop_signal
from cycles.embedded.records import ApiKey, Reservation, Tenant
from cycles.embedded.routes import Route
from cycles.embedded.tables import Tables
from cycles.embedded.tenants import TenantRules

KEY = "cyc_live_abcdef-secret"
DAY = 86_400_000

# --- the web framework ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "is_bad"),
    [("/v1/a", False), ("/v1/a%2Fb", True), ("/v1/%5c", True), ("/v1/%00", True), ("/v1/%20", False), ("/2f", False)],
)
def test_paths_that_get_a_page(path: str, is_bad: bool) -> None:
    assert is_bad_request(path, path, {}) is is_bad


def test_the_size_of_a_head() -> None:
    target, headers = "/v1/a", {"host": "h", "x": ""}
    room = MAX_HEAD_BYTES - 16 - len(target) - (4 + 1 + 4) - (1 + 4)
    assert not is_bad_request("/v1/a", target, headers | {"x": "v" * room})
    assert is_bad_request("/v1/a", target, headers | {"x": "v" * (room + 1)})
    assert MAX_HEAD_BYTES == 8_192


@pytest.mark.parametrize(
    "path", ["/a;b", "/a//b", "/a%3Bb", "/a%25b", "/../a", "/a/..", "/a/./b", "/%2e/a", "/a/%2E%2e"]
)
def test_suspicious_paths(path: str) -> None:
    assert is_suspicious(path)


@pytest.mark.parametrize("path", ["/v1/a", "/a.b", "/..a", "/a../b", "/...", "/"])
def test_paths_that_are_not_suspicious(path: str) -> None:
    assert not is_suspicious(path)


@pytest.mark.parametrize(
    ("accept", "accepts"),
    [
        ("", True),
        ("  ", True),
        ("*/*", True),
        ("application/json", True),
        ("application/*", True),
        ("application/problem+json", True),
        ("text/html, application/json;q=0.5", True),
        ("text/html,*/*;q=0", True),
        ("text/html", False),
        ("application/jsonx", False),
        ("text/*", False),
        ("xapplication/json", False),
    ],
)
def test_what_a_client_accepts(accept: str, accepts: bool) -> None:
    assert accepts_json({"accept": accept}) is accepts
    assert accepts_json({})


# --- the dashboard --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_hosts_of_this_machine(host: str, loops: bool) -> None:
    assert is_loopback(host) is loops


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"host": "localhost:7878"}, None),
        ({"host": "[::1]:7878"}, None),
        ({"host": "box.lan"}, None),
        ({"host": "127.0.0.1:1", "origin": "http://127.0.0.1:1"}, None),
        ({"host": "LocalHost:1", "origin": "HTTP://localhost:1"}, None),
        ({"host": "localhost", "sec-fetch-site": "same-origin"}, None),
        ({}, "names another server"),
        ({"host": "evil.example"}, "names another server"),
        ({"host": "user@localhost"}, "names another server"),
        ({"host": "@localhost"}, "names another server"),
        ({"host": "localhost/x"}, "names another server"),
        ({"host": "localhost:x"}, "names another server"),
        ({"host": "localhost:99999"}, "names another server"),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, "from another origin"),
        ({"host": "localhost:1", "origin": "https://localhost:1"}, "from another origin"),
        ({"host": "localhost", "origin": "null"}, "from another origin"),
        ({"host": "localhost", "sec-fetch-site": "Cross-Site"}, "from another site"),
    ],
)
def test_requests_of_other_pages(headers: dict[str, str], problem: str | None) -> None:
    found = problem_of(headers, frozenset({"box.lan"}))
    assert (found is None) == (problem is None)
    assert str(problem or "None") in str(found)


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        ("Bearer abc", True),
        ("bearer  abc ", True),
        ("abc", False),
        ("Basic abc", False),
        ("Bearer abcd", False),
        ("", False),
    ],
)
def test_the_token_of_the_dashboard(value: str, is_right: bool) -> None:
    assert has_token({"authorization": value}, "abc") is is_right
    assert not has_token({}, "abc")


# --- keys -----------------------------------------------------------------------------------------------------------

ROUTE, PUBLIC = Route("reserve"), Route("jwks", public=True)


def why(key: str = KEY, *records: Any, now_ms: int = 100, headers: dict[str, str] | None = None) -> str | None:
    """Return why a key gets 401; None if it is accepted."""
    tables = Tables()
    tables.apply(*records)
    try:
        caller = Authenticator(tables, None).authenticate(ROUTE, headers or {"x-cycles-api-key": key}, now_ms)
    except ApiError as error:
        return error.message if (error.code, error.status) == ("UNAUTHORIZED", 401) else error.code
    assert caller.tenant == "acme"
    return None


@pytest.mark.parametrize(
    ("members", "now_ms", "reason"),
    [
        ({}, 100, None),
        ({"expires_at_ms": 100}, 100, None),
        ({"expires_at_ms": 100}, 101, "KEY_EXPIRED"),
        ({"status": "REVOKED"}, 100, "KEY_REVOKED"),
        ({"status": "EXPIRED"}, 100, "KEY_EXPIRED"),
        ({"status": "ODD"}, 100, "INTERNAL_ERROR"),
        ({"secret": "cyc_live_abcde-other", "tenant": "acme"}, 100, "INVALID_KEY"),  # 14 characters are the same
        ({"secret": "cyc_live_abcd+"}, 100, "KEY_NOT_FOUND"),
        ({"tenant": None}, 100, "KEY_NOT_OWNED_BY_TENANT"),
        ({"tenant": " "}, 100, "KEY_NOT_OWNED_BY_TENANT"),
    ],
)
def test_keys_that_are_rejected(members: dict[str, Any], now_ms: int, reason: str | None) -> None:
    own: dict[str, Any] = {"secret": KEY, "tenant": "acme"}
    assert why(KEY, ApiKey(**{**own, **members}), now_ms=now_ms) == reason


def test_a_wrong_secret_is_looked_up_as_the_newest_key_that_begins_with_it() -> None:
    older, newer = (
        ApiKey(secret=f"cyc_live_abcde-{n}", tenant="acme", status=s) for n, s in ((1, "REVOKED"), (2, "ACTIVE"))
    )
    assert why("cyc_live_abcde-3", older, newer) == "INVALID_KEY"
    assert why("cyc_live_abcde-3", newer, older) == "KEY_REVOKED"
    assert why("cyc_live_abcde-1", older, newer) == "KEY_REVOKED"
    assert why("cyc_live_abcde-2", newer, older) is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("ACTIVE", None),
        ("SUSPENDED", "TENANT_SUSPENDED"),
        ("CLOSED", "TENANT_CLOSED"),
        ("ODD", None),
        (5, "INTERNAL_ERROR"),
    ],
)
def test_keys_of_tenants_that_are_not_active(status: Any, reason: str | None) -> None:
    assert why(KEY, ApiKey(secret=KEY, tenant="acme"), Tenant(name="acme", status=status)) == reason


def test_a_missing_key_and_a_path_that_needs_none() -> None:
    assert why(headers={"x-cycles-api-key": "  "}) == "the API key is missing; send it in the header X-Cycles-API-Key"
    assert Authenticator(Tables(), None).authenticate(PUBLIC, {}, 0).tenant is None
    assert (is_same_secret("a\ud800", "a\ud800"), is_same_secret("a", "b")) == (True, False)


@pytest.mark.parametrize("admin", ["", " ", "\t"])
@pytest.mark.parametrize("operation", ["list", "get", "release", "reserve"])
def test_a_blank_admin_key_leaves_the_request_to_the_key_of_the_tenant(admin: str, operation: str) -> None:
    tables = Tables()
    tables.apply(ApiKey(secret=KEY, tenant="acme"))
    headers = {"x-admin-api-key": admin, "x-cycles-api-key": KEY}
    assert Authenticator(tables, "adm").authenticate(Route(operation), headers, 0).tenant == "acme"
    headers["x-admin-api-key"] = "adm"
    caller = Authenticator(tables, "adm").authenticate(Route(operation), headers, 0)
    assert caller.tenant == ("acme" if operation == "reserve" else None)


@pytest.mark.parametrize(
    ("given", "known", "code"),
    [("k", "k", None), ("x", "k", "UNAUTHORIZED"), ("k", None, "INTERNAL_ERROR"), ("k", " ", "INTERNAL_ERROR")],
)
def test_the_admin_key(given: str, known: str | None, code: str | None) -> None:
    authenticator = Authenticator(Tables(), known)
    if code is None:
        assert authenticator.authenticate(Route("list"), {"x-admin-api-key": given}, 0).tenant is None
        return
    with pytest.raises(ApiError) as caught:
        authenticator.authenticate(Route("list"), {"x-admin-api-key": given}, 0)
    assert caught.value.code == code


def test_requests_without_a_key_are_limited_by_address_and_minute() -> None:
    limit = PublicLimit()
    for _ in range(300):
        limit.count("a", 1_000)
    limit.count("b", 1_000)
    for now_ms, after_s in ((1_000, "60"), (1_999, "60"), (2_000, "59"), (60_000, "1"), (60_999, "1")):
        with pytest.raises(ApiError) as caught:
            limit.count("a", now_ms)
        headers = {"Retry-After": after_s, "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "61"}
        assert (caught.value.code, caught.value.headers) == ("LIMIT_EXCEEDED", headers)
    for _ in range(300):  # a new minute
        limit.count("a", 61_000)
    with pytest.raises(ApiError, match="more than 300 requests in a minute; retry after the seconds in Retry-After"):
        limit.count("a", 61_000)


# --- tenants and repetitions ----------------------------------------------------------------------------------------


def rules(**members: Any) -> TenantRules:
    tables = Tables()
    if members:
        tables.apply(Tenant(name="acme", **members))
    return TenantRules(tables)


def test_what_a_tenant_sets() -> None:
    assert [rules().ttl_ms("acme", each) for each in (None, 1, 3_600_000, 3_600_001)] == [
        60_000,
        1,
        3_600_000,
        3_600_000,
    ]
    own = rules(default_reservation_ttl_ms=5, max_reservation_ttl_ms=7, max_reservation_extensions=0)
    assert [own.ttl_ms("acme", each) for each in (None, 7, 8)] == [5, 7, 7]
    assert (own.max_extensions("acme"), rules().max_extensions("acme"), own.max_extensions("other")) == (0, 10, 10)
    assert rules(default_reservation_ttl_ms=0).ttl_ms("acme", None) == 0
    observed = rules(observe_mode="OBSERVE")
    assert observed.is_observed("acme", {})
    assert not observed.is_observed("acme", {"observe_mode": "ENFORCE"})
    assert rules().is_observed("acme", {"observe_mode": "OBSERVE"})
    assert not rules().is_observed("acme", {})


def test_the_overage_policy_of_a_request() -> None:
    own = rules(default_commit_overage_policy="REJECT")
    assert own.policy("acme", {}) == "REJECT"
    assert own.policy("acme", {"overage_policy": "ALLOW_WITH_OVERDRAFT"}) == "ALLOW_WITH_OVERDRAFT"
    assert rules().policy("acme", {}) == "ALLOW_IF_AVAILABLE"
    with pytest.raises(ApiError, match="unknown default overage policy"):
        rules(default_commit_overage_policy="ODD").policy("acme", {})


@pytest.mark.parametrize(
    ("status", "code"), [("ACTIVE", None), ("SUSPENDED", None), ("CLOSED", "TENANT_CLOSED"), ("ODD", "INTERNAL_ERROR")]
)
def test_a_tenant_that_is_not_open(status: str, code: str | None) -> None:
    if code is None:
        rules(status=status).require_open("acme")
        return
    with pytest.raises(ApiError) as caught:
        rules(status=status).require_open("acme")
    assert caught.value.code == code


ROW = Reservation(
    reservation_id="r",
    number=1,
    tenant="acme",
    idempotency_key="k",
    subject={},
    action={},
    unit="TOKENS",
    reserved=1,
    overage_policy="REJECT",
    scopes=("tenant:acme",),
    budgeted=(),
    created_at_ms=0,
    expires_at_ms=1_000,
    grace_period_ms=500,
    max_extensions=10,
)
REQUEST = {"idempotency_key": "k", "amount": 1}


@pytest.mark.parametrize(
    ("operation", "lives_ms"),
    [("decide", DAY), ("reserve", DAY), ("event", 7 * DAY), ("commit", 30 * DAY), ("release", 30 * DAY)],
)
def test_how_long_a_response_is_stored(operation: str, lives_ms: int) -> None:
    store = IdempotencyStore(Tables())
    assert store.entry(operation, "acme", REQUEST, {}, 5).until_ms == 5 + lives_ms
    long = evolve(ROW, expires_at_ms=5 + lives_ms, grace_period_ms=1)
    assert store.entry(operation, "acme", REQUEST, {}, 5, reservation=long).until_ms == 6 + lives_ms
    entry = store.entry("extend", "r", REQUEST, {}, 5, reservation=ROW)
    assert (entry.until_ms, entry.reservation_id, entry.observed) == (1_000, "r", False)


def test_a_repeated_request() -> None:
    tables = Tables()
    store = IdempotencyStore(tables)
    assert store.replay("reserve", "acme", REQUEST, 5) is None
    tables.apply(ROW, store.entry("reserve", "acme", REQUEST, {"expires_at_ms": 1_000}, 5, reservation=ROW))
    for now_ms, left_ms in ((5, 995), (999, 1), (1_000, 0), (2_000, 0)):
        replayed = store.replay("reserve", "acme", dict(REQUEST), now_ms)
        assert replayed == {"expires_at_ms": 1_000, "remaining_ttl_ms": left_ms}
    with pytest.raises(ApiError, match="another payload"):
        store.replay("reserve", "acme", {**REQUEST, "amount": 2}, 5)
    assert store.replay("reserve", "other", REQUEST, 5) is store.replay("decide", "acme", REQUEST, 5) is None
    tables.apply(evolve(ROW, status="COMMITTED"))
    replayed = store.replay("reserve", "acme", REQUEST, 5)
    assert replayed == {"expires_at_ms": 1_000, "remaining_ttl_ms": 0}
    tables.apply(store.entry("decide", "acme", REQUEST, {"decision": "ALLOW"}, 5))
    assert store.replay("decide", "acme", REQUEST, 5) == {"decision": "ALLOW"}
    assert digest({"a": 1, "b": 2}) != digest({"b": 2, "a": 1})


def test_options_of_the_commands() -> None:
    budgets = budgets_of(["tenant:a=1USD", "tenant:b=5TOKENS", "tenant:a=7TOKENS"])
    assert budgets == {"tenant:a": [cycles.usd(1), cycles.tokens(7)], "tenant:b": [cycles.tokens(5)]}
    with pytest.raises(cycles.InvalidRequestError, match="--budget has no amount"):
        budgets_of(["tenant:a"])
    assert keys_of(["a=b=acme", "c=other"]) == {"a=b": "acme", "c": "other"}
    wrong = ("acme", "=acme", "key=")
    for text in wrong:
        with pytest.raises(cycles.InvalidRequestError, match="--api-key has no key or no tenant"):
            keys_of([text])
    said = export_command("http://h", {"acme": "k", "other": "x"})
    assert said == "export CYCLES_BASE_URL=http://h CYCLES_API_KEY=k CYCLES_TENANT=acme"


def test_the_keys_that_a_command_shows_and_the_signal_that_stops_it() -> None:
    with cycles.EmbeddedServer({"tenant:a": cycles.usd(1), "tenant:b": cycles.usd(1)}) as server:
        found = keys_by_tenant(server, {"k": "b", "x": "c"})
        assert list(found.items()) == [("b", "k"), ("c", "x"), ("a", server.api_key_for("a"))]
    with cycles.EmbeddedServer() as server:
        assert keys_by_tenant(server, {}) == {"default": server.api_key_for("default")}
    with cycles.EmbeddedServer({"tenant:A": cycles.usd(1)}) as server:
        assert keys_by_tenant(server, {"first": "A", "last": "A"}) == {"A": "last"}
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        with stop_signal() as stop:
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set()
    with pytest.raises(ZeroDivisionError), stop_signal():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in numbers] == before
