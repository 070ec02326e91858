"""Protocol 0.1.26 as users see it: action kinds, quotas, denial details and observe mode, on a server that has them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from cycles._core.outcome import Success
from cycles._drivers.tracing import result_of
from tests.client.conftest import BUDGETS, World, held, spent

pytestmark = pytest.mark.anyio

MAIL = cycles.Action("message.email.send", "welcome", policy_keys=cycles.PolicyKeys(host="api.mail.example"))
NOON = int(datetime(2026, 4, 9, 12, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock(start_ms=NOON)


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": BUDGETS}, protocol="0.1.26", clock=clock) as server:
        yield server


def of(world: World, action: Any = MAIL, **options: Any) -> cycles.Reservation:
    return world.client.reserve(cycles.tokens(10), action=action, actual=cycles.tokens(4), **options)


async def denied(world: World, action: Any = MAIL, **options: Any) -> Any:
    with pytest.raises(cycles.ReservationDeniedError) as caught:
        async with world.enter(of(world, action, **options)):
            raise AssertionError("the block must not run")
    return caught.value


def observing(server: cycles.EmbeddedServer) -> None:
    server.ledger.set_tenant("acme", observe_mode="OBSERVE")


# Quotas and lists


async def test_a_used_up_quota_raises_an_error_that_says_which(
    world: World, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    quota = {"action_kind": MAIL.kind, "window": "per_day_tumbling", "limit": 1}
    server.ledger.set_policy("mail", "tenant:acme", quotas=[quota])
    async with world.enter(of(world)):
        pass
    error = await denied(world)
    assert type(error) is cycles.ActionQuotaExceededError
    assert (error.status, error.code, error.retryable) == (409, "ACTION_QUOTA_EXCEEDED", False)
    assert (error.quota.used, error.quota.limit, error.quota.window_key) == (1, 1, "2026-04-09")
    assert error.quota.resets_at == datetime(2026, 4, 10, tzinfo=UTC)
    assert error.deny_detail.blocked_by_policy == "mail"
    assert pickle.loads(pickle.dumps(error)).quota == error.quota
    clock.advance(12 * 60 * 60 * 1000)
    async with world.enter(of(world)):
        pass


@pytest.mark.parametrize(
    ("lists", "code"),
    [
        ({"denied_kinds": ["message.email.send"], "allowed_kinds": ["message.email.send"]}, "ACTION_KIND_DENIED"),
        ({"allowed_kinds": ["llm.completion"]}, "ACTION_KIND_NOT_ALLOWED"),
    ],
)
async def test_a_kind_that_a_policy_does_not_permit(
    world: World, server: cycles.EmbeddedServer, lists: dict[str, Any], code: str
) -> None:
    server.ledger.set_policy("kinds", "tenant:acme", **lists)
    error = await denied(world)
    assert type(error) is cycles.ActionNotPermittedError
    assert (error.code, error.deny_detail.reason_code, error.deny_detail.blocked_by_scope) == (
        code,
        code,
        "tenant:acme",
    )
    preview = await world.get(world.operations.preview(cycles.tokens(1), action=MAIL))
    assert (preview.decision, preview.reason_code, preview.deny_detail.blocked_by_policy) == ("DENY", code, "kinds")
    decision = await world.get(world.operations.decide(cycles.tokens(1), action=MAIL))
    assert decision.deny_detail == preview.deny_detail


async def test_a_quota_of_a_run_needs_a_run_and_a_release_returns_its_call(
    world: World, server: cycles.EmbeddedServer
) -> None:
    quota = {"risk_class": "external_side_effect", "window": "per_run", "limit": 1}
    server.ledger.set_policy("runs", "tenant:acme", quotas=[quota])
    with pytest.raises(cycles.ProtocolError, match="run_id is required"):
        await world.acquire(of(world))
    with cycles.run("run-1"):
        guard = await world.acquire(of(world))
        error = await denied(world)
        assert (error.quota.risk_class, error.quota.window_key, error.quota.resets_at) == (
            "external_side_effect",
            "run-1",
            None,
        )
        await world.get(guard.release())
        async with world.enter(of(world)):
            pass
    with cycles.run("run-2"):
        async with world.enter(of(world)):
            pass


async def test_a_quota_for_hosts_applies_only_to_their_actions(world: World, server: cycles.EmbeddedServer) -> None:
    quota = {"action_kind": MAIL.kind, "window": "per_hour_tumbling", "limit": 0, "hosts": ["api.mail.example"]}
    server.ledger.set_policy("hosts", "tenant:acme", quotas=[quota])
    async with world.enter(of(world, cycles.Action(MAIL.kind, "welcome"))):
        pass
    assert (await denied(world)).code == "ACTION_QUOTA_EXCEEDED"


async def test_the_policy_with_the_highest_priority_counts(world: World, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_policy("strict", "tenant:acme", denied_kinds=[MAIL.kind])
    server.ledger.set_policy("lenient", "tenant:acme/agent:mailer", priority=1)
    async with world.enter(of(world, subject={"agent": "mailer"})):
        pass
    assert (await denied(world)).code == "ACTION_KIND_DENIED"
    server.ledger.delete_policy("strict")
    async with world.enter(of(world)):
        pass


async def test_a_denied_kind_hides_an_empty_budget_and_an_event_passes(
    world: World, server: cycles.EmbeddedServer
) -> None:
    server.ledger.set_policy("kinds", "tenant:acme", denied_kinds=[MAIL.kind])
    with pytest.raises(cycles.ActionNotPermittedError):
        await world.acquire(world.client.reserve(cycles.tokens(10**9), action=MAIL))
    recorded = await world.get(world.operations.record(cycles.tokens(3), action=MAIL))
    assert (recorded.status, spent(server)) == ("APPLIED", 3)


def test_an_undeclared_custom_kind_is_rejected(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    deploy = cycles.Action("custom.acme.deploy", "deploy")
    with pytest.raises(cycles.ProtocolError, match="not declared"):
        client.reserve(cycles.tokens(1), action=deploy).acquire()
    server.ledger.set_action_kind("custom.acme.deploy", risk_class="high_risk")
    client.reserve(cycles.tokens(1), action=deploy).acquire().release()
    assert "custom.acme.deploy" not in {kind.kind for kind in client.action_kinds()}


# Observe mode


async def test_an_observed_reservation_raises_by_default_and_sends_one_request(
    world: World, server: cycles.EmbeddedServer
) -> None:
    observing(server)
    for amount, decision in ((cycles.tokens(1), "ALLOW"), (cycles.tokens(10**9), "DENY")):
        server.requests.clear()
        with pytest.raises(cycles.ObservedReservationError, match="observe mode") as caught:
            await world.acquire(world.client.reserve(amount, action=MAIL))
        error = caught.value
        assert (error.decision, error.status) == (decision, 200)
        assert error.reason_code == (None if decision == "ALLOW" else "BUDGET_EXCEEDED")
        assert len(server.requests.of("reserve")) == 1
        assert pickle.loads(pickle.dumps(error)).decision == decision


@pytest.mark.parametrize("asked", ["setting", "argument", "request"])
async def test_an_observed_block_runs_with_any_decision_and_sends_nothing_more(
    server: cycles.EmbeddedServer, asked: str, tmp_path: Path, world: World
) -> None:
    choices: dict[str, dict[str, Any]] = {"argument": {"on_observed": "run"}, "request": {"observe": True}}
    options = choices.get(asked, {})
    if asked != "request":
        observing(server)
    settings = {"on_observed": "run"} if asked == "setting" else {}
    with server.client(tenant="acme", journal_dir=tmp_path / asked, **settings) as client:
        seen: list[Any] = []
        client.on_event(seen.append)
        used = World("async" if world.is_async else "sync", client)
        server.requests.clear()
        huge = client.reserve(cycles.tokens(10**9), action=MAIL, **options)
        async with used.enter(huge) as guard:
            assert (guard.state, guard.decision, guard.reason_code) == ("observed", "DENY", "BUDGET_EXCEEDED")
            assert (guard.reservation_id, guard.expires_at_ms, guard.reserved) == (None, None, None)
            settlement = await used.get(guard.commit(cycles.tokens(7)))
        assert (settlement.status, settlement.actual, guard.state) == ("shadow", cycles.tokens(7), "observed")
        with pytest.raises(cycles.GuardFinalizedError):
            await used.get(guard.release())
        async with used.enter(client.reserve(cycles.tokens(2), action=MAIL, **options)) as guard:
            assert guard.decision == "ALLOW"
            await used.get(guard.release())
        observed = [event for event in seen if isinstance(event, cycles.events.Observed)]
        assert [(event.decision, event.estimate, event.actual) for event in observed] == [
            ("DENY", cycles.tokens(10**9), cycles.tokens(7)),
            ("ALLOW", cycles.tokens(2), None),
        ]
        assert observed[0].would_deny
        assert [each.operation for each in server.requests] == ["reserve", "reserve"]
        assert client.pending() == []
    assert (spent(server), held(server)) == (0, 0)


async def test_a_block_that_is_observed_warns_of_nothing_and_cannot_be_detached(
    world: World, server: cycles.EmbeddedServer
) -> None:
    observing(server)
    plain = world.client.reserve(cycles.tokens(1), action=MAIL, on_observed="run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with world.enter(plain) as guard:
            with pytest.raises(cycles.GuardFinalizedError, match="only observed"):
                guard.detach()
        guard = await world.acquire(plain)
        del guard  # dropped: nothing is held, so nothing is said
    with cycles.limit(cycles.tokens(10)) as limit:
        async with world.enter(of(world, on_observed="run")):
            assert limit.held == cycles.tokens(10)
        assert (limit.spent, limit.held) == (cycles.tokens(4), cycles.tokens(0))


def test_an_enforced_request_goes_before_the_mode_of_the_tenant(server: cycles.EmbeddedServer) -> None:
    observing(server)
    client = server.client(tenant="acme")
    body = {
        "idempotency_key": "k1",
        "subject": {"tenant": "acme"},
        "action": MAIL.to_dict(),
        "estimate": {"unit": "TOKENS", "amount": 1},
        "observe_mode": "ENFORCE",
    }
    with client:
        created = client.raw("createReservation", body=body)
    assert created.reservation_id
    assert held(server) == 1


@pytest.mark.parametrize("member", ["reservation_id", "expires_at_ms", "affected_scopes"])
def test_other_forms_stay_ambiguous(member: str, server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    body: dict[str, Any] = {"decision": "ALLOW", "affected_scopes": ["tenant:acme"]}
    further: dict[str, dict[str, Any]] = {
        "reservation_id": {"reservation_id": ""},
        "expires_at_ms": {"expires_at_ms": 5},
    }
    body |= further.get(member, {})
    if member == "affected_scopes":
        body["affected_scopes"] = []
    server.faults.body("reserve", body, times=2)
    with pytest.raises(cycles.AmbiguousResponseError):
        client.reserve(cycles.tokens(1), action=MAIL, on_observed="run").acquire()


# Kinds


async def test_the_registry_is_read_without_a_key(world: World, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_action_kind("code.exec", risk_class="high_risk", replacement_kind="code.deploy")
    server.requests.clear()
    found = await world.all(world.operations.action_kinds(risk_class="high_risk"))
    names = [kind.kind for kind in found]
    assert "code.deploy" in names
    assert "code.exec" not in names
    every = await world.all(world.operations.action_kinds(include_deprecated=True))
    assert {kind.kind for kind in every} == set(cycles.kinds.BUILT_IN)
    old = await world.get(world.operations.action_kind("code.exec"))
    assert (old.deprecated, old.replacement_kind, old.risk_class) == (True, "code.deploy", "high_risk")
    with pytest.raises(cycles.NotFoundError):
        await world.get(world.operations.action_kind("code"))
    assert not [each for each in server.requests if "x-cycles-api-key" in each.headers]


def test_the_registry_may_be_cached_and_compared_by_its_tag(server: cycles.EmbeddedServer) -> None:
    with httpx.Client(transport=server.transport(), base_url="http://cycles.test") as http:
        for path in ("/v1/action-kinds?limit=5", "/v1/action-kinds/code.exec"):
            first = http.get(path)
            tag = first.headers["ETag"]
            assert (first.status_code, first.headers["Cache-Control"]) == (200, "public, max-age=3600")
            for known in (tag, f'"other", W/{tag}', "*"):
                again = http.get(path, headers={"If-None-Match": known})
                assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
            assert http.get(path, headers={"If-None-Match": '"other"'}).json() == first.json()
        server.ledger.set_action_kind("code.exec", replacement_kind="code.deploy")
        assert http.get("/v1/action-kinds/code.exec", headers={"If-None-Match": tag}).status_code == 200
        missing = http.get("/v1/action-kinds/nope.nope", headers={"If-None-Match": "*"})
        assert (missing.status_code, "ETag" in missing.headers) == (404, False)


def test_a_deprecated_kind_is_reported_once_per_client(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    server.ledger.set_action_kind(MAIL.kind, replacement_kind="message.chat.post")
    seen: list[Any] = []
    client.on_event(seen.append)
    with pytest.warns(DeprecationWarning, match=r"message\.email\.send is deprecated: use message\.chat\.post"):
        client.reserve(cycles.tokens(1), action=MAIL).acquire().release()
    client.reserve(cycles.tokens(1), action=MAIL).acquire().release()
    told = [event for event in seen if isinstance(event, cycles.events.ActionKindDeprecated)]
    assert [(event.kind, event.replacement) for event in told] == [("message.email.send", "message.chat.post")]


def test_built_in_kinds_and_tools() -> None:
    assert len(cycles.kinds.BUILT_IN) == 62
    assert cycles.kinds.BUILT_IN["code.exec"].risk_class == "high_risk"
    assert cycles.kinds.BUILT_IN["message.email.send"].policy_key_spec == {"host": "", "recipient_domain": ""}
    tools = ("send_email_to_user", "chat_send_now", "chat_now", "embed_and_store", "embed_text", "look_up")
    assert [cycles.kinds.for_tool(tool) for tool in tools] == [
        "message.email.send",
        "message.chat.post",
        "llm.completion",
        "vector.upsert",
        "llm.embedding",
        "unknown.call",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "https://api.example"},
        {"host": "api.example:443"},
        {"host": "a" * 254},
        {"path_prefix": "relative"},
        {"custom": {str(n): "" for n in range(9)}},
        {"custom": {"a": "b" * 257}},
        {"resource_type": 5},
    ],
)
def test_wrong_policy_keys_are_rejected_before_sending(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(cycles.InvalidRequestError, match=rf"^policy_keys\.{name}"):
        cycles.PolicyKeys(**wrong)


def test_a_kind_that_is_too_long_and_a_wrong_run_are_rejected(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"action\.kind"):
        client.reserve(cycles.tokens(1), action=("k" * 65, "n"))
    with pytest.raises(cycles.InvalidRequestError, match="run_id"):
        cycles.run("")
    with pytest.raises(cycles.InvalidRequestError, match="on_observed must be one of raise, run"):
        client.reserve(cycles.tokens(1), action=MAIL, on_observed="maybe")  # type: ignore[arg-type]


# Old and new side by side


def test_a_client_that_uses_nothing_new_works_with_both_servers(tmp_path: Path) -> None:
    sent = []
    for version in ("0.1.25", "0.1.26"):
        with cycles.EmbeddedServer({"tenant:acme": BUDGETS}, protocol=version) as server:
            with server.client(tenant="acme", journal_dir=tmp_path / version) as client:
                with client.reserve(cycles.tokens(5), action=("llm.completion", "m")) as guard:
                    guard.extend()
                    guard.commit(cycles.tokens(3))
                client.record(cycles.tokens(1), action=("llm.completion", "m"))
                assert client.decide(cycles.tokens(1), action=("llm.completion", "m")).allowed
            assert spent(server) == 4
            sent.append([each.operation for each in server.requests])
            assert not [each for each in server.requests if b"observe_mode" in each.body or b"policy_keys" in each.body]
    assert sent[0] == sent[1]


def test_an_old_server_rejects_new_members_that_the_caller_passes() -> None:
    with cycles.EmbeddedServer({"tenant:acme": BUDGETS}) as server, server.client(tenant="acme") as client:
        cases: list[dict[str, Any]] = [{"action": MAIL}, {"action": ("llm.completion", "m"), "observe": True}]
        for options in cases:
            with pytest.raises(cycles.ProtocolError) as caught:
                client.reserve(cycles.tokens(1), **options).acquire()
            assert (caught.value.status, caught.value.code) == (400, "INVALID_REQUEST")
        with pytest.raises(cycles.UnauthorizedError):  # an old server requires a key for every path that it lacks
            client.action_kind("code.exec")


def test_a_wrong_deny_detail_never_breaks_an_error(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    cases: list[Any] = [5, [], {"quota_violation": 3}, {"reason_code": {}}, {"quota_violation": {"used": "many"}}]
    for wrong in cases:
        error = {"error": "ACTION_QUOTA_EXCEEDED", "message": "m", "request_id": "r"}
        server.faults.status("reserve", 409, body={**error, "details": {"deny_detail": wrong}})
        with pytest.raises(cycles.ActionQuotaExceededError) as caught:
            client.reserve(cycles.tokens(1), action=MAIL).acquire()
        assert (caught.value.deny_detail, caught.value.quota) == (None, None)


def test_the_advice_of_the_server_is_in_the_message(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    detail = {"reason_code": "POLICY_VIOLATION", "suggested_fix": f"ask {client.config.api_key}", "new": 1}
    error = {"error": "POLICY_VIOLATION", "message": "m", "request_id": "r", "details": {"deny_detail": detail}}
    server.faults.status("reserve", 409, body=error)
    with pytest.raises(cycles.ReservationDeniedError, match=r"the server suggests: ask \[api key\]") as caught:
        client.reserve(cycles.tokens(1), action=MAIL).acquire()
    assert caught.value.deny_detail.extra == {"new": 1}
    assert str(client.config.api_key) not in str(caught.value.details)


@pytest.mark.parametrize("options", [{"shadow": True}, {"on_observed": "run"}])
def test_the_reason_of_a_guard_may_stand_in_the_detail_only(
    server: cycles.EmbeddedServer, client: cycles.Cycles, options: dict[str, Any]
) -> None:
    body = {"decision": "DENY", "affected_scopes": ["tenant:acme"], "deny_detail": {"reason_code": "POLICY_VIOLATION"}}
    server.faults.status("reserve", 200, body=body)
    seen: list[Any] = []
    client.on_event(seen.append)
    with client.reserve(cycles.tokens(1), action=MAIL, **options) as guard:
        guard.commit(cycles.tokens(1))
    assert guard.reason_code == "POLICY_VIOLATION"
    decided = [event for event in seen if isinstance(event, cycles.events.ShadowDecided | cycles.events.Observed)]
    assert [event.reason_code for event in decided] == ["POLICY_VIOLATION"]


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (
            {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "deny_detail": {"reason_code": "X"}},
            "BUDGET_EXCEEDED",
        ),
        ({"decision": "DENY", "deny_detail": {"reason_code": "POLICY_VIOLATION"}}, "POLICY_VIOLATION"),
        ({"decision": "DENY", "deny_detail": "text"}, "DENY"),
        ({"decision": "ALLOW", "deny_detail": {"reason_code": "X"}}, None),
    ],
)
def test_a_tracer_sees_the_reason_that_stands_in_the_detail_only(body: dict[str, Any], error_type: str | None) -> None:
    assert result_of(Success(body, None, None, None, 0.0, b"")).error_type == error_type
