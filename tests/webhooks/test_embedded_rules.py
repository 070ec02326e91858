"""The rules of the webhook operations: filters, orders, permissions, defaults, and what the audit log keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cycles
from cycles.embedded.http import Request
from tests.webhooks.conftest import ADMIN, START

URL = "https://hooks.test/x"
HOOKS, EVENTS = "/v1/admin/webhooks", "/v1/admin/events"
BODY: dict[str, Any] = {"url": URL, "event_types": ["budget.funded"]}


class Direct:
    """Requests to the server without a client. `headers` are those of the last response."""

    def __init__(self, server: cycles.EmbeddedServer, **headers: str) -> None:
        self.server = server
        self.key = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers: dict[str, str] = {}

    def __call__(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        response, _ = self.server.handle(Request(method=method, target=target, headers=self.key, body=content))
        assert response is not None
        self.headers = response.headers
        return response.status, json.loads(response.body) if response.body else None

    def ok(self, method: str, target: str, body: Any = None) -> Any:
        status, found = self(method, target, body)
        assert status in (200, 201, 202, 204), found
        return found


@pytest.fixture
def admin(server: cycles.EmbeddedServer) -> Direct:
    return Direct(server, x_admin_api_key=ADMIN)


def key_with(admin: Direct, *permissions: str) -> Direct:
    form = {"tenant_id": "acme", "name": "n", "permissions": permissions}
    return Direct(admin.server, x_cycles_api_key=admin.ok("POST", "/v1/admin/api-keys", form)["key_secret"])


def of_tenant(server: cycles.EmbeddedServer, tenant: str = "acme") -> Direct:
    return Direct(server, x_cycles_api_key=server.api_key_for(tenant))


# --- lists of subscriptions -----------------------------------------------------------------------------------------


@pytest.fixture
def four(server: cycles.EmbeddedServer, clock: cycles.ManualClock) -> dict[str, str]:
    """Four subscriptions; returns the letter of each id."""
    made = [
        server.webhooks.subscribe("https://b.test/", ["budget.funded"], tenant="acme"),
        server.webhooks.subscribe("https://A.test/", ["budget.closed", "budget.funded"], tenant="other"),
        server.webhooks.subscribe("https://d.test/", ["custom.x"]),
        server.webhooks.subscribe("https://c.test/", ["budget.closed"], tenant="acme"),
    ]
    made[2].consecutive_failures = 2
    server.webhooks.update(made[3].subscription_id, status="PAUSED")
    return {each.subscription_id: each.url[8].lower() for each in made}


@pytest.mark.parametrize(
    ("query", "letters"),
    [
        ("", "dcab"),  # the most failures first, else the newest
        ("?sort_dir=asc", "cabd"),
        ("?sort_by=url&sort_dir=asc", "abcd"),
        ("?sort_by=url&sort_dir=desc", "dcba"),
        ("?sort_by=status&sort_dir=asc", "dabc"),
        ("?sort_by=tenant_id&sort_dir=asc", "dcba"),
        ("?status=PAUSED", "c"),
        ("?status=ACTIVE", "dab"),
        ("?status=", ""),
        ("?event_type=budget.funded", "ab"),
        ("?event_type=", ""),
        ("?tenant_id=acme", "cb"),
        ("?tenant_id=acme&status=ACTIVE", "b"),
        ("?tenant_id=", ""),
        ("?search=A.TEST", "a"),
        ("?search=whsub_", "dcab"),
        ("?search=nothing", ""),
        ("?search=%20", "dcab"),
        ("?limit=1", "d"),
    ],
)
def test_which_subscriptions_the_operator_lists(admin: Direct, four: dict[str, str], query: str, letters: str) -> None:
    found = admin.ok("GET", HOOKS + query)["subscriptions"]
    assert "".join(four[each["subscription_id"]] for each in found) == letters


def test_a_wrong_order_of_subscriptions(admin: Direct) -> None:
    for query in ("sort_by=name", "sort_dir=up", "sort_dir=", f"search={'x' * 129}", "limit=x", "cursor=x"):
        assert admin("GET", f"{HOOKS}?{query}")[0] == 400, query


def test_which_subscriptions_a_tenant_lists(server: cycles.EmbeddedServer, four: dict[str, str]) -> None:
    acme = of_tenant(server)
    admin = Direct(server, x_admin_api_key=ADMIN)

    def letters(caller: Direct, query: str = "") -> list[str]:
        found = caller.ok("GET", "/v1/webhooks" + query)["subscriptions"]
        return [four[each["subscription_id"]] for each in found]

    by_id = [letter for _, letter in sorted(four.items()) if letter in "bc"]
    assert letters(acme) == letters(acme, "?search=b.test&sort_by=url") == letters(admin, "?tenant=acme") == by_id
    assert (letters(acme, "?status=PAUSED"), letters(acme, "?status=")) == (["c"], [])
    assert letters(acme, "?limit=1") == by_id[:1]
    for _ in range(8):
        server.webhooks.subscribe(URL, ["budget.funded"], tenant="acme")
    ids = [each["subscription_id"] for each in acme.ok("GET", "/v1/webhooks")["subscriptions"]]
    assert (len(ids), ids) == (10, sorted(ids))
    for caller, query, reason in (
        (acme, "?tenant=acme", "tenant: is that of the API key; leave the query parameter out"),
        (admin, "", "the query parameter tenant is missing; send it with the admin key"),
        (admin, "?tenant=%20", "the query parameter tenant is missing; send it with the admin key"),
    ):
        status, error = caller("GET", "/v1/webhooks" + query)
        assert (status, error["error"], error["message"]) == (400, "INVALID_REQUEST", reason)


# --- permissions ----------------------------------------------------------------------------------------------------


def test_the_permission_of_each_operation_of_a_tenant(admin: Direct) -> None:
    none, events, reads, writes = (
        key_with(admin, each) for each in ("balances:read", "events:read", "webhooks:read", "webhooks:write")
    )
    one = "/v1/webhooks/" + writes.ok("POST", "/v1/webhooks", BODY)["subscription"]["subscription_id"]
    cases: list[tuple[str, str, Any, list[int]]] = [
        ("GET", "/v1/events", None, [403, 200, 403, 403]),
        ("GET", "/v1/webhooks", None, [403, 403, 200, 403]),
        ("GET", one, None, [403, 403, 200, 403]),
        ("GET", f"{one}/deliveries", None, [403, 403, 200, 403]),
        ("PATCH", one, {"name": "n"}, [403, 403, 403, 200]),
        ("POST", "/v1/webhooks", BODY, [403, 403, 403, 201]),
        ("DELETE", one, None, [403, 403, 403, 204]),
    ]
    for method, path, body, statuses in cases:
        assert [each(method, path, body)[0] for each in (none, events, reads, writes)] == statuses, (method, path)


def test_which_keys_list_the_events_of_a_tenant(server: cycles.EmbeddedServer, admin: Direct) -> None:
    """The key of a test has no permissions: its GET of events is one of the runtime operations, which have none."""
    assert of_tenant(server)("GET", "/v1/events")[0] == 405
    assert key_with(admin, "events:read")("POST", "/v1/events", {})[0] == 415
    status, error = Direct(
        server, x_admin_api_key=ADMIN, x_cycles_api_key=key_with(admin, "balances:read").key["x-cycles-api-key"]
    )("GET", "/v1/events")
    assert (status, error["error"]) == (403, "INSUFFICIENT_PERMISSIONS")  # the admin key is of no use
    for path in ("/v1/admin/webhooksx", "/v1/admin/eventsx"):
        assert admin("GET", path)[1]["error"] == "NOT_FOUND"
    for path in ("/v1/webhooksx", "/v1/webhook"):  # unknown paths need a tenant's key
        assert (admin("GET", path)[0], of_tenant(server)("GET", path)[0]) == (401, 404)


# --- responses ------------------------------------------------------------------------------------------------------


def test_the_form_of_a_response(server: cycles.EmbeddedServer) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    admin = Direct(server, x_admin_api_key=ADMIN, x_cycles_trace_id=trace)
    request = Request(method="POST", target=HOOKS, headers=admin.key, body=json.dumps({**BODY, "name": "é"}).encode())
    response, _ = server.handle(request)
    assert response is not None
    assert "é".encode() in response.body
    assert b": " not in response.body
    assert (response.headers["X-Cycles-Trace-Id"], response.headers["Content-Type"]) == (trace, "application/json")
    status, error = admin("PUT", HOOKS)
    assert (status, error["error"], admin.headers["Allow"]) == (405, "INVALID_REQUEST", "GET, POST")
    assert (error["request_id"], error["trace_id"]) == (admin.headers["X-Request-Id"], trace)
    for method, path, message in (
        ("DELETE", f"{HOOKS}/nope", "webhook subscription not found: nope"),
        ("GET", f"{EVENTS}/nope", "event not found: nope"),
    ):
        status, error = admin(method, path)
        assert (status, error["message"]) == (404, message)
    for body, reason in ((b"{", "the body is not JSON: Expecting"), (b"[" * 100_000, "the body is nested too deeply"),
                         (b'{"url":NaN}', "the body is not JSON: NaN is not a JSON value"),
                         (b"5", "the body is not a JSON object; send one")):  # fmt: skip
        status, error = admin("POST", HOOKS, body)
        assert (status, error["message"].startswith(reason)) == (400, True)


def test_the_audit_log_of_webhooks(server: cycles.EmbeddedServer, admin: Direct) -> None:
    made = admin.ok("POST", f"{HOOKS}?tenant_id=acme", BODY)["subscription"]["subscription_id"]
    one = f"{HOOKS}/{made}"
    tested = admin.ok("POST", f"{one}/test")
    replayed = admin.ok("POST", f"{one}/replay", {})
    admin.ok("PUT", "/v1/admin/config/webhook-security", {"blocked_cidr_ranges": ["10.0.0.0/8"], "allow_http": True})
    for path in (one, HOOKS, EVENTS, f"{one}/deliveries", "/v1/admin/config/webhook-security"):
        admin.ok("GET", path)
    admin("GET", f"{HOOKS}/nope")
    Direct(server)("GET", HOOKS)
    admin.ok("DELETE", one)
    rows = admin.ok("GET", "/v1/admin/audit/logs?sort_by=timestamp&sort_dir=asc")["logs"]
    found = {
        row["operation"]: (row["status"], row["tenant_id"], row.get("resource_id"), row.get("metadata")) for row in rows
    }
    missing = "the admin API key is missing; send it in the header X-Admin-API-Key"
    unknown = {"error_message": "webhook subscription not found: nope"}
    assert found == {
        "createWebhookSubscription": (201, "acme", made, {"url": URL}),
        "testWebhookSubscription": (200, "acme", made, tested),
        "replayEvents": (202, "acme", made, {name: replayed[name] for name in ("replay_id", "events_queued")}),
        "updateWebhookSecurityConfig": (
            200, "__admin__", "webhook-security", {"allow_http": True, "blocked_cidr_count": 1},
        ),
        f"GET:{HOOKS}/nope": (404, "__admin__", None, unknown),
        f"GET:{HOOKS}": (401, "__unauth__", None, {"error_message": missing}),
        "deleteWebhookSubscription": (204, "acme", made, {"url": URL}),
    }  # fmt: skip


def test_the_audit_log_has_the_tenant_of_a_request_that_fails(server: cycles.EmbeddedServer, admin: Direct) -> None:
    acme = of_tenant(server)
    other = server.webhooks.subscribe(URL, ["budget.funded"], tenant="other").subscription_id
    own = server.webhooks.subscribe(URL, ["budget.funded"], tenant="acme").subscription_id
    failing: list[tuple[str, str, Any, str]] = [
        ("GET", f"/v1/webhooks/{other}", None, "WEBHOOK_NOT_FOUND"),
        ("PATCH", f"/v1/webhooks/{own}", {"url": "ftp://x"}, "WEBHOOK_URL_INVALID"),
        ("PATCH", f"/v1/webhooks/{own}", {"status": "x"}, "INVALID_REQUEST"),
        ("POST", "/v1/webhooks", {}, "INVALID_REQUEST"),
        ("GET", "/v1/webhooks?tenant=acme", None, "INVALID_REQUEST"),
    ]
    for method, target, body, code in failing:
        assert acme(method, target, body)[1]["error"] == code
        assert Direct(server)(method, target, body)[0] == 401
    rows = admin.ok("GET", "/v1/admin/audit/logs?limit=100")["logs"]
    of_acme = [(row["operation"], row["error_code"]) for row in rows if row["tenant_id"] == "acme"]
    assert of_acme == [(f"{method}:{target.partition('?')[0]}", code) for method, target, _, code in failing[::-1]]


# --- one subscription -----------------------------------------------------------------------------------------------


def test_the_tenant_of_a_new_subscription(server: cycles.EmbeddedServer, admin: Direct) -> None:
    def tenant(caller: Direct, path: str) -> str:
        return str(caller.ok("POST", path, BODY)["subscription"]["tenant_id"])

    assert (tenant(admin, HOOKS), tenant(admin, f"{HOOKS}?tenant_id=other")) == ("__system__", "other")
    assert tenant(of_tenant(server), "/v1/webhooks?tenant_id=other") == "acme"


def test_the_addresses_that_the_configuration_rejects(admin: Direct) -> None:
    config = "/v1/admin/config/webhook-security"
    assert admin.ok("GET", config) == {"blocked_cidr_ranges": [], "allow_http": True}
    one = f"{HOOKS}/{admin.ok('POST', HOOKS, BODY)['subscription']['subscription_id']}"
    changed = {"blocked_cidr_ranges": ["10.0.0.0/8"], "allow_http": False}
    assert (admin("PUT", config, changed), admin.ok("GET", config)) == ((200, changed), changed)
    for url in ("http://hooks.test/", "HTTP://hooks.test/", "https://10.1.1.1/", "https://[::1", "https://[x]/"):
        for method, path, body in (("PATCH", one, {"url": url}), ("POST", HOOKS, {**BODY, "url": url})):
            status, error = admin(method, path, body)
            assert (status, error["error"]) == (400, "WEBHOOK_URL_INVALID")
    assert admin("PATCH", one, {"url": 5})[1]["error"] == "INVALID_REQUEST"
    assert admin.ok("PATCH", one, {"url": "https://hooks.test/2"})["url"] == "https://hooks.test/2"
    assert admin.ok("GET", one)["url"] == "https://hooks.test/2"


def test_which_deliveries_are_listed(server: cycles.EmbeddedServer, clock: cycles.ManualClock, admin: Direct) -> None:
    policy = {"max_retries": 0}
    made = server.webhooks.subscribe("http://127.0.0.1:9/", ["budget.funded"], retry_policy=policy)
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    clock.advance(1_000)
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    server.ledger.fund("tenant:acme", cycles.tokens(1))  # not attempted yet

    def statuses(query: str = "") -> list[str]:
        rows = admin.ok("GET", f"{HOOKS}/{made.subscription_id}/deliveries{query}")["deliveries"]
        return [f"{row['status']} {row.get('attempted_at', '')[17:19]}".strip() for row in rows]

    first, second, rest = "FAILED 20", "FAILED 21", "PENDING"
    assert statuses() == [rest, second, first]
    assert statuses("?status=FAILED") == [second, first]
    assert statuses("?status=PENDING") == [rest]
    assert statuses("?to=2023-11-14T22:13:20Z") == [rest, first]  # one without a time is always listed
    assert statuses("?from=2023-11-14T22:13:21Z") == [rest, second]
    assert statuses("?from=2023-11-14T22:13:21.001Z") == [rest]
    assert statuses("?to=2023-11-14T22:13:19.999Z") == [rest]
    assert statuses("?limit=1") == [rest]


def test_which_events_are_sent_again(server: cycles.EmbeddedServer, clock: cycles.ManualClock, admin: Direct) -> None:
    made = server.webhooks.subscribe(URL, ["budget.funded", "custom.x"])
    one = f"{HOOKS}/{made.subscription_id}/replay"
    for _ in range(101):
        server.ledger.fund("tenant:acme", cycles.tokens(1))
    clock.advance(1_000)
    server.webhooks.emit("custom.x", "acme")

    def queued(**form: Any) -> int:
        return int(admin.ok("POST", one, form)["events_queued"])

    assert (queued(), queued(max_events=102), queued(max_events=1_000), queued(max_events=5)) == (100, 102, 102, 5)
    assert (queued(event_types=["custom.x"]), queued(event_types=["custom.y"])) == (1, 0)
    later, now = "2023-11-14T22:13:20.001Z", "2023-11-14T22:13:20Z"
    assert [queued(max_events=200, **{"from": each}) for each in (now, later)] == [102, 1]
    assert [queued(max_events=200, to=each) for each in (now, "2023-11-14T22:13:21Z")] == [101, 102]
    seconds = [admin.ok("POST", one, {"max_events": most})["estimated_completion_seconds"] for most in (1, 19, 20, 102)]
    assert seconds == [1, 1, 2, 10]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_replay_sends_the_oldest_events_first(
    server: cycles.EmbeddedServer, clock: cycles.ManualClock, most: int
) -> None:
    made = server.webhooks.subscribe(URL, ["custom.x"])
    ids = []
    for _ in range(3):
        ids.append(server.webhooks.emit("custom.x", "acme"))
        clock.advance(1)
    server.webhooks.replay(made.subscription_id, max_events=most)
    sent = [each.to_dict()["event_id"] for each in server.webhooks.deliveries(made.subscription_id)][::-1]
    assert sent == ids + ids[:most]


def test_several_subscriptions_are_changed_at_once(server: cycles.EmbeddedServer, admin: Direct) -> None:
    ids = [server.webhooks.subscribe(URL, ["budget.funded"], tenant="acme").subscription_id for _ in range(3)]
    other = server.webhooks.subscribe(URL, ["budget.funded"], tenant="other").subscription_id

    def run(action: str, **filters: Any) -> dict[str, int]:
        form = {"action": action, "filter": {"tenant_id": "acme", **filters}, "idempotency_key": f"{action}{filters}"}
        found = admin.ok("POST", f"{HOOKS}/bulk-action", form)
        return {name: len(found[name]) for name in ("succeeded", "failed", "skipped")}

    assert run("RESUME") == {"succeeded": 0, "failed": 0, "skipped": 3}
    assert run("PAUSE") == {"succeeded": 3, "failed": 0, "skipped": 0}
    assert {server.webhooks.subscription(each).status for each in ids} == {"PAUSED"}
    assert run("PAUSE", status="PAUSED") == {"succeeded": 0, "failed": 0, "skipped": 3}
    assert run("RESUME", status="PAUSED") == {"succeeded": 3, "failed": 0, "skipped": 0}
    assert {server.webhooks.subscription(each).status for each in ids} == {"ACTIVE"}
    assert run("DELETE") == {"succeeded": 3, "failed": 0, "skipped": 0}
    assert [each.subscription_id for each in server.webhooks.subscriptions()] == [other]


# --- events ---------------------------------------------------------------------------------------------------------


def test_which_events_are_listed(server: cycles.EmbeddedServer, clock: cycles.ManualClock, admin: Direct) -> None:
    key = key_with(admin, "events:read")
    clock.advance(1_000)
    for number, (tenant, scope) in enumerate((("acme", "tenant:acme"), ("other", None), ("acme", "tenant:acme/app:x"))):
        server.webhooks.emit("custom.x" if number else "budget.funded", tenant, {"n": number}, scope=scope)
        clock.advance(1_000)

    def numbers(caller: Direct, query: str = "", path: str = EVENTS) -> list[int]:
        return [each["data"]["n"] for each in caller.ok("GET", path + query)["events"] if "n" in each.get("data", {})]

    assert numbers(admin) == [2, 1, 0]
    for query, found in (
        ("?event_type=custom.x", [2, 1]), ("?category=budget", [0]), ("?tenant_id=other", [1]),
        ("?scope=tenant:acme", [2, 0]), ("?scope=tenant:acme/", [2]), ("?scope=", [2, 0]), ("?search=APP", [2]),
        ("?from=2023-11-14T22:13:22Z", [2, 1]), ("?to=2023-11-14T22:13:22Z", [1, 0]), ("?sort_dir=asc", [0, 1, 2]),
        ("?sort_by=tenant_id&sort_dir=desc&category=custom", [1, 2]), ("?event_type=", []), ("?limit=2", [2, 1]),
    ):  # fmt: skip
        assert numbers(admin, query) == found, query
    assert numbers(key, "", "/v1/events") == [2, 0]
    assert numbers(key, "?sort_dir=asc&search=nothing&sort_by=x", "/v1/events") == [2, 0]
    assert numbers(key, "?tenant_id=other", "/v1/events") == [2, 0]
    assert numbers(key, "?category=budget", "/v1/events") == [0]
    assert numbers(key, "?event_type=budget.funded", "/v1/events") == [0]
    for query, reason in (
        ("event_type=custom.x", "event_type: 'custom.x' needs the admin key; use budget, reservation, tenant"),
        ("category=webhook", "category: 'webhook' needs the admin key; use budget, reservation, tenant"),
        ("event_type=nope", "event_type: unknown type 'nope'; see docs/webhooks.md"),
    ):
        assert key("GET", f"/v1/events?{query}")[1]["message"] == reason
    newest = admin.ok("GET", EVENTS)["events"][0]
    assert admin("GET", f"{EVENTS}/{newest['event_id']}") == (200, newest)
    assert clock.now_ms() == START + 4_000
