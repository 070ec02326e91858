"""What the embedded server answers about action kinds, which quotas count, and how operators' queries are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from cycles.embedded import admin_forms as forms
from cycles.embedded.action_kinds import respond
from cycles.embedded.action_policies import ActionPolicies, counted_keys
from cycles.embedded.errors import ApiError
from cycles.embedded.records import AdminInfo, Policy, QuotaCounter, Reservation
from cycles.embedded.tables import Tables

NOW: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY_MS: Final = 86_400_000
ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
MAIL: Final = "message.email.send"
LONG: Final = "x" * 100


def policies(*records: Any, **kinds: dict[str, Any]) -> ActionPolicies:
    """Return policies of a server with these records, and action kinds whose names have _ for a dot."""
    tables = Tables()
    named = ((name.replace("_", "."), values) for name, values in kinds.items())
    tables.apply(*(AdminInfo(about="action_kind", name=name, values=values) for name, values in named), *records)
    return ActionPolicies(tables)


def failed(call: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


def told(call: Callable[[], Any]) -> tuple[str, int, str]:
    error = failed(call)
    return error.code, error.status, error.message


def answered(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or ``! `` and the message of its INVALID_REQUEST."""
    try:
        return call()
    except ApiError as error:
        return f"! {error.message}" if (error.code, error.status) == ("INVALID_REQUEST", 400) else error


# --- the registry -----------------------------------------------------------------------------------------------------


def test_the_registry_has_built_in_and_changed_kinds_by_name_and_no_custom_ones() -> None:
    changed = policies(
        AdminInfo(about="tenant", name="about.another", values={}),
        llm_completion={"risk_class": "read_only", "deprecated": True, "replacement_kind": "llm.other"},
        custom_deploy={"risk_class": "high_risk"},
        zzz={"risk_class": "high_risk"},
    )
    rows = {row["kind"]: row for row in changed.registry()}
    assert list(rows) == sorted(rows)
    assert rows["zzz"] == {"kind": "zzz", "risk_class": "high_risk", "deprecated": False}
    assert "custom.deploy" not in rows
    assert "about.another" not in rows
    built_in = {row["kind"]: row for row in policies().registry()}
    assert len(rows) == len(built_in) + 1
    assert built_in[MAIL] == {
        "kind": MAIL,
        "risk_class": "external_side_effect",
        "mcp_tool_prefixes": ["send_email", "email_", "smtp_", "sendgrid_"],
        "deprecated": False,
    }
    more = {"risk_class": "read_only", "deprecated": True, "replacement_kind": "llm.other"}
    assert rows["llm.completion"] == {**built_in["llm.completion"], **more}
    assert [changed.replacement_of(name) for name in ("llm.completion", "zzz", MAIL)] == ["llm.other", None, None]


def test_one_kind_or_a_page_of_kinds_is_answered() -> None:
    kinds = policies(a_a={"risk_class": "high_risk"}, a_b={"risk_class": "high_risk", "replacement_kind": "a.a"})
    shown = {"kind": "a.a", "risk_class": "high_risk", "deprecated": False}
    old = {"kind": "a.b", "risk_class": "high_risk", "deprecated": True, "replacement_kind": "a.a"}
    assert respond(kinds, "actionKind", "a.a", "/v1/action-kinds/a.a") == shown
    assert respond(kinds, "actionKind", "a.b", "/v1/action-kinds/a.b") == old

    def page(query: str) -> dict[str, Any]:
        return respond(kinds, "actionKinds", "", f"/v1/action-kinds?{query}")

    first = page("risk_class=high_risk&limit=1")
    assert first == {"version": "0.1.26", "kinds": [shown], "has_more": True, "next_cursor": "a.a"}
    more = page("risk_class=high_risk&limit=1&cursor=a.a")
    assert old not in more["kinds"]
    assert page("risk_class=high_risk&deprecated=true&limit=2")["kinds"] == [shown, old]
    assert old not in page("risk_class=high_risk&deprecated=false")["kinds"]
    assert {row["risk_class"] for row in page("risk_class=read_only")["kinds"]} == {"read_only"}
    assert len(page("limit=100")["kinds"]) > len(page("risk_class=read_only")["kinds"])


@pytest.mark.parametrize(
    ("kind", "query", "problem"),
    [
        ("q" * 64, "", ("NOT_FOUND", 404, f"no such action kind: {'q' * 64}")),
        ("q" * 65, "", ("INVALID_REQUEST", 400, "kind: must have 1 to 64 characters")),
        ("", "deprecated=no", ("INVALID_REQUEST", 400, "deprecated: invalid value 'no'; use true, false")),
        (
            "",
            "risk_class=",
            (
                "INVALID_REQUEST",
                400,
                "risk_class: invalid value ''; use read_only, local_mutation, side_effect, external_side_effect, "
                "high_risk",
            ),
        ),
    ],
)
def test_a_kind_that_is_unknown_and_a_wrong_query(kind: str, query: str, problem: tuple[str, int, str]) -> None:
    operation = "actionKind" if kind else "actionKinds"
    assert told(lambda: respond(policies(), operation, kind, f"/v1/action-kinds?{query}")) == problem


# --- policies and quotas ----------------------------------------------------------------------------------------------


def request(kind: str = MAIL, run: str | None = "r1", **action: Any) -> dict[str, Any]:
    dimensions = {} if run is None else {"dimensions": {"run_id": run}}
    return {"action": {"kind": kind, "name": "n", **action}, "subject": {"tenant": "acme", **dimensions}}


def policy(name: str = "p", scope: str = ACME, **members: Any) -> Policy:
    return Policy(name=name, scope=scope, **members)


def counted(source: ActionPolicies, form: dict[str, Any] | None = None, scopes: Any = (ACME, BOT)) -> list[Any]:
    """Return window, key of the window, scope, kind, class and number of what one more reservation counts."""
    found = source.counted("acme", scopes, form or request(), NOW)
    assert {each.counted_at_ms for each in found} <= {NOW}
    return [(each.window, each.window_key, each.scope, each.action_kind, each.risk_class, each.used) for each in found]


@pytest.mark.parametrize(
    ("kind", "kinds", "lists", "code"),
    [
        (MAIL, {}, {}, None),
        (MAIL, {}, {"denied_kinds": (MAIL,)}, "DENIED"),
        (MAIL, {}, {"denied_kinds": (MAIL,), "allowed_kinds": (MAIL,)}, "DENIED"),
        (MAIL, {}, {"denied_kinds": ("x",), "allowed_kinds": (MAIL,)}, None),
        (MAIL, {}, {"allowed_kinds": ("x",)}, "NOT_ALLOWED"),
        (MAIL, {}, {"allowed_kinds": ()}, "NOT_ALLOWED"),
        ("unknown.kind", {}, {}, None),
    ],
)
def test_lists_of_a_policy(kind: str, kinds: dict[str, Any], lists: dict[str, Any], code: str | None) -> None:
    source = policies(policy(scope=BOT, **lists), **kinds)
    if code is None:
        assert counted(source, request(kind)) == []
        return
    error = failed(lambda: counted(source, request(kind)))
    text = {"DENIED": "denied", "NOT_ALLOWED": "not allowed"}[code]
    assert (error.code, error.status) == (f"ACTION_KIND_{code}", 409)
    assert error.message == f"action kind {text}: {kind}; change the policy p, or use another kind"
    detail = {"reason_code": error.code, "blocked_by_scope": BOT, "blocked_by_policy": "p"}
    assert error.details == {"deny_detail": detail}


def test_a_custom_kind_must_be_declared() -> None:
    source = policies(policy(), custom_known={"risk_class": "high_risk"})
    assert counted(source, request("custom.known")) == []
    message = f"action.kind: 'custom.{LONG[:72]} is not declared; use set_action_kind"
    assert told(lambda: counted(source, request(f"custom.{LONG}"))) == ("INVALID_REQUEST", 400, message)
    assert told(lambda: counted(policies(), request("custom.x")))[0] == "INVALID_REQUEST"


def quota(limit: int = 5, window: str = "per_day_tumbling", **members: Any) -> dict[str, Any]:
    named = members if "risk_class" in members else {"action_kind": MAIL, **members}
    return {**named, "window": window, "limit": limit}


@pytest.mark.parametrize(
    ("kind", "kinds", "risk_class"),
    [
        (MAIL, {}, "external_side_effect"),
        ("llm.embedding", {}, "read_only"),
        ("llm.embedding", {"llm_embedding": {"risk_class": "high_risk"}}, "high_risk"),
        ("llm.embedding", {"llm_embedding": {"replacement_kind": "x"}}, "read_only"),
        ("unknown.kind", {}, "side_effect"),
        ("unknown.kind", {"unknown_kind": {"risk_class": "local_mutation"}}, "local_mutation"),
        ("custom.x", {"custom_x": {}}, None),
        ("custom.x", {"custom_x": {"replacement_kind": "y"}}, "side_effect"),
    ],
)
def test_a_quota_of_a_risk_class_counts_kinds_of_this_class(
    kind: str, kinds: dict[str, Any], risk_class: str | None
) -> None:
    classes = ("read_only", "local_mutation", "side_effect", "external_side_effect", "high_risk")
    source = policies(policy(quotas=tuple(quota(risk_class=each) for each in classes)), **kinds)
    if risk_class is None:
        assert told(lambda: counted(source, request(kind)))[0] == "INVALID_REQUEST"
    else:
        expected = ("per_day_tumbling", "2026-01-01", ACME, "__risk__", risk_class, 1)
        assert counted(source, request(kind)) == [expected]


def test_only_the_matching_policy_of_the_highest_priority_counts() -> None:
    mail = (quota(),)
    low, high = policy("low", BOT, priority=1, quotas=mail), policy("high", priority=2, quotas=mail)
    assert [entry[2] for entry in counted(policies(low, high))] == [ACME]
    assert [entry[2] for entry in counted(policies(low, high), scopes=(ACME,))] == [ACME]
    assert [entry[2] for entry in counted(policies(low, policy("other", "tenant:x", priority=9, quotas=mail)))] == [BOT]
    assert counted(policies(low), scopes=(ACME,)) == []
    assert [entry[2] for entry in counted(policies(policy("a", BOT, quotas=mail), policy("b", quotas=mail)))] == [BOT]


@pytest.mark.parametrize(
    ("window", "key", "scope"),
    [
        ("per_run", "r1", BOT),
        ("per_minute_tumbling", "2026-01-01T00:00", BOT),
        ("per_hour_tumbling", "2026-01-01T00", BOT),
        ("per_day_tumbling", "2026-01-01", BOT),
        ("per_tenant_per_day", "2026-01-01", ACME),
    ],
)
def test_a_quota_counts_until_its_limit_in_its_window(window: str, key: str, scope: str) -> None:
    tables = Tables()
    tables.apply(policy("p", BOT, quotas=(quota(2, window),)))
    source = ActionPolicies(tables)
    for used in (1, 2):
        found = source.counted("acme", (ACME, BOT), request(), NOW)
        assert [(each.window_key, each.scope, each.used, each.limit) for each in found] == [(key, scope, used, 2)]
        assert counted_keys(found) == (
            (f'["acme", "{scope}", "{MAIL}", "", "per_run", "r1"]',) if window == "per_run" else ()
        )
        tables.apply(*found)
    lengths = {"per_run": 0, "per_minute_tumbling": 60_000, "per_hour_tumbling": 3_600_000}
    assert found[0].until_ms == NOW + DAY_MS + lengths.get(window, DAY_MS)
    error = failed(lambda: source.counted("acme", (ACME, BOT), request(), NOW))
    assert (error.code, error.status) == ("ACTION_QUOTA_EXCEEDED", 409)
    assert error.message == f"the quota of {MAIL} is used up: 2 of 2, {window}; wait or raise the limit"
    assert error.details == {
        "deny_detail": {
            "reason_code": "ACTION_QUOTA_EXCEEDED",
            "blocked_by_scope": BOT,
            "blocked_by_policy": "p",
            "quota_violation": {
                "action_kind": MAIL,
                "window": window,
                "used": 2,
                "limit": 2,
                "scope": scope,
                "window_key": key,
                "policy_id": "p",
            },
        }
    }
    tables.apply(policy("q", BOT, priority=1, quotas=(quota(3, window),)))
    again = source.counted("acme", (ACME, BOT), request(), NOW)
    assert [(each.used, each.limit, each.policy) for each in again] == [(3, 3, "q")]
    assert source.counted("other", (ACME, BOT), request(), NOW)[0].used == 1
    later = source.counted("acme", (ACME, BOT), request(run="r2"), NOW + DAY_MS)
    assert later[0].used == 1


def test_quotas_of_risk_classes_are_checked_before_those_of_kinds() -> None:
    source = policies(policy(quotas=(quota(0), quota(0, risk_class="external_side_effect"))))
    error = failed(lambda: counted(source))
    expected = "the quota of risk class external_side_effect is used up: 0 of 0, per_day_tumbling; "
    assert error.message == f"{expected}wait or raise the limit"
    assert error.details is not None
    violation = error.details["deny_detail"]["quota_violation"]
    assert (violation["action_kind"], violation["risk_class"]) == (MAIL, "external_side_effect")
    both = policies(policy(quotas=(quota(), quota(risk_class="external_side_effect"), quota(action_kind="x"))))
    assert [entry[3] for entry in counted(both)] == ["__risk__", MAIL]


@pytest.mark.parametrize(
    ("hosts", "action", "counts"),
    [
        (None, {}, True),
        (None, {"policy_keys": {"host": "a"}}, True),
        (["a", "b"], {"policy_keys": {"host": "b"}}, True),
        (["a"], {"policy_keys": {"host": "b"}}, False),
        (["a"], {"policy_keys": {}}, False),
        (["a"], {}, False),
        ([], {"policy_keys": {"host": "a"}}, False),
    ],
)
def test_a_quota_of_hosts(hosts: list[str] | None, action: dict[str, Any], counts: bool) -> None:
    named: dict[str, Any] = {} if hosts is None else {"hosts": hosts}
    assert bool(counted(policies(policy(quotas=(quota(**named),))), request(**action))) is counts


@pytest.mark.parametrize("run", [None, ""])
def test_a_quota_of_runs_needs_the_run(run: str | None) -> None:
    source = policies(policy(quotas=(quota(window="per_run"),)))
    message = "subject.dimensions.run_id is required: a quota counts actions per run"
    assert told(lambda: counted(source, request(run=run))) == ("INVALID_REQUEST", 400, message)
    assert counted(source, request("llm.completion", run=run)) == []


def test_what_a_release_returns() -> None:
    def counter(used: int, run: str = "r1") -> QuotaCounter:
        return QuotaCounter(
            tenant="acme",
            scope=ACME,
            action_kind=MAIL,
            window="per_run",
            window_key=run,
            limit=5,
            policy="p",
            used=used,
        )

    def returned(*counters: QuotaCounter) -> list[tuple[str, int]]:
        tables = Tables()
        tables.apply(*counters)
        keys = counted_keys([counter(1), counter(1, "r2")])
        members: dict[str, Any] = {"subject": {}, "action": {}, "scopes": (ACME,), "budgeted": (), "counted": keys}
        row = Reservation(
            reservation_id="r", number=1, tenant="acme", idempotency_key="k", unit="TOKENS", reserved=1,
            overage_policy="REJECT", created_at_ms=0, expires_at_ms=0, grace_period_ms=0, max_extensions=0, **members,
        )  # fmt: skip
        return [(each.window_key, each.used) for each in ActionPolicies(tables).returned(row)]

    assert returned(counter(2), counter(1, "r2")) == [("r1", 1), ("r2", 0)]
    assert returned(counter(0), counter(3, "r2"), counter(4, "r3")) == [("r2", 2)]
    assert returned() == []


# --- bodies and queries of operators ----------------------------------------------------------------------------------

ORDER: Final = "must begin with tenant: and keep the order tenant, workspace, app, workflow, agent, toolset"
NO_JSON: Final = "the body is not JSON: "
WINDOW: Final = "window: must be one of per_run, per_minute_tumbling, per_hour_tumbling, per_day_tumbling"
RESET: Final = b'{"tenant_id":"acme","scope":"tenant:acme","window":"%s"}'
KEY: Final = b'{"tenant_id":"acme","name":"x","permissions":["reservations:list","%s"]}'


@pytest.mark.parametrize(
    ("operation", "content", "message"),
    [
        ("createTenant", b"", f"{NO_JSON}Expecting value: line 1 column 1 (char 0)"),
        ("createTenant", b"\xff", f"{NO_JSON}'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("createTenant", b"[" * 200_000, "the body is nested too deeply; send at most 500 levels"),
        ("createTenant", b'{"metadata":{"x":NaN}}', f"{NO_JSON}NaN is not a JSON value"),
        ("createTenant", b"[]", "must be object, got []"),
        ("createTenant", b'{"tenant_id":null,"name":"x"}', "tenant_id: is required"),
        ("createTenant", b'{"tenant_id":"acme","name":"x","window":"w"}', "window: no such member"),
        ("freezeBudget", b"1x", f"{NO_JSON}Extra data: line 1 column 2 (char 1)"),
        ("resetActionQuotaCounter", RESET % b"w", f"{WINDOW}, per_tenant_per_day, got 'w'"),
        ("resetActionQuotaCounter", RESET % LONG.encode(), f"{WINDOW}, per_tenant_per_day, got '{LONG[:59]}"),
        ("createApiKey", KEY % b"no", f"permissions: unknown permission 'no'; use {', '.join(forms.PERMISSIONS)}"),
        (
            "createApiKey",
            KEY % LONG.encode(),
            f"permissions: unknown permission '{LONG[:59]}; use {', '.join(forms.PERMISSIONS)}",
        ),
    ],
)
def test_a_wrong_body_is_named(operation: str, content: bytes, message: str) -> None:
    assert told(lambda: forms.body_of(operation, content)) == ("INVALID_REQUEST", 400, message)


@pytest.mark.parametrize(
    ("operation", "content", "body"),
    [
        ("freezeBudget", b"", {}),
        ("freezeBudget", b" \n", {}),
        ("unfreezeBudget", b"", {}),
        ("freezeBudget", b'{"reason":null}', {}),
        ("freezeBudget", b'{"reason":"x"}', {"reason": "x"}),
        (
            "createTenant",
            b'{"tenant_id":"acme","name":"x","metadata":null}',
            {"tenant_id": "acme", "name": "x"},
        ),
        (
            "resetActionQuotaCounter",
            RESET % b"per_run",
            {"tenant_id": "acme", "scope": "tenant:acme", "window": "per_run"},
        ),
    ],
)
def test_members_that_are_null_count_as_absent(operation: str, content: bytes, body: dict[str, Any]) -> None:
    assert forms.body_of(operation, content) == body


@pytest.mark.parametrize(
    ("scope", "tenant", "stored"),
    [
        ("tenant:A", None, "tenant:a"),
        ("tenant:A/agent:B", "a", "tenant:a/agent:b"),
        ("tenant:a", "A", "tenant:a"),
        ("tenant:a/workspace:w/app:x/workflow:f/agent:b/toolset:t", None, None),
        ("tenant:a.b_c-d", None, None),
        ("tenant:a", None, None),
        (f"tenant:{'a' * 128}", None, None),
    ],
)
def test_the_scope_of_an_operator_in_its_stored_form(scope: str, tenant: str | None, stored: str | None) -> None:
    assert forms.scope_of(scope, tenant) == (stored or scope)


@pytest.mark.parametrize(
    ("scope", "tenant", "message"),
    [
        ("tenant:ab", "a", "'tenant:ab' does not begin with tenant:a"),
        (f"tenant:{LONG}", "a", f"'tenant:{LONG[:72]} does not begin with tenant:a"),
        ("agent:b", None, f"'agent:b' {ORDER}"),
        ("tenant:a/tenant:b", None, f"'tenant:a/tenant:b' {ORDER}"),
        ("tenant:a/agent:b/app:c", None, f"'tenant:a/agent:b/app:c' {ORDER}"),
        (f"agent:{LONG}", None, f"'agent:{LONG[:73]} {ORDER}"),
        ("tenant", None, "'tenant' is not level:id without wildcards"),
        ("tenant:", None, "'tenant:' is not level:id without wildcards"),
        ("", None, "'' is not level:id without wildcards"),
        ("tenant:-a", None, "'tenant:-a' is not level:id without wildcards"),
        ("tenant:a-", None, "'tenant:a-' is not level:id without wildcards"),
        ("tenant:a/", None, "'' is not level:id without wildcards"),
        ("tenant:a/team:x", None, "'team:x' is not level:id without wildcards"),
        (f"tenant:{'a' * 129}", None, f"'tenant:{'a' * 72} is not level:id without wildcards"),
    ],
)
def test_a_wrong_scope_of_an_operator_is_named(scope: str, tenant: str | None, message: str) -> None:
    assert told(lambda: forms.scope_of(scope, tenant)) == ("INVALID_REQUEST", 400, f"scope: {message}")


def missing(name: str) -> str:
    return f"! the query parameter {name} is missing; send it"


@pytest.mark.parametrize(
    ("read", "query", "found"),
    [
        (forms.place_of, {"scope": "TENANT:A", "unit": "TOKENS"}, ("tenant:a", "TOKENS")),
        (forms.place_of, {"scope": "a"}, missing("unit")),
        (forms.place_of, {"unit": "TOKENS"}, missing("scope")),
        (forms.place_of, {"scope": "", "unit": ""}, missing("scope")),
        (forms.place_of, {"scope": "a", "unit": ""}, missing("unit")),
        (
            forms.place_of,
            {"scope": "a", "unit": "EUR"},
            "! unit: invalid value 'EUR'; use USD_MICROCENTS, TOKENS, CREDITS, RISK_POINTS",
        ),
        (forms.search, {}, ""),
        (forms.search, {"search": "AbC"}, "abc"),
        (forms.search, {"search": "X" * 128}, "x" * 128),
        (forms.search, {"search": "x" * 129}, "! search: has 129 characters; use at most 128"),
        (forms.instants, {}, ("", "~")),
        (forms.instants, {"from": "2026-01-01T00:00:00Z"}, ("2026-01-01T00:00:00.000Z", "~")),
        (forms.instants, {"to": "2026-01-01T01:00:00+01:00"}, ("", "2026-01-01T00:00:00.000Z")),
        (
            forms.instants,
            {"from": LONG},
            f"! from: must be an ISO 8601 time with a zone, got '{LONG[:60]}'",
        ),
    ],
)
def test_what_a_query_says(read: Callable[[Any], Any], query: dict[str, str], found: Any) -> None:
    assert answered(lambda: read(query)) == found


@pytest.mark.parametrize(
    ("read", "text", "found"),
    [
        (forms.number, None, None),
        (forms.number, "1", 1.0),
        (forms.number, "-1.5", -1.5),
        *(
            (forms.number, text, f"! n: invalid value '{text}'; use a number")
            for text in ("", "x", "nan", "inf", "1e400")
        ),
        (forms.number, LONG, f"! n: invalid value '{LONG[:59]}; use a number"),
        (forms.flag, None, None),
        (forms.flag, "true", True),
        (forms.flag, "false", False),
        (forms.flag, "TRUE", "! n: invalid value 'TRUE'; use true, false"),
        (forms.flag, LONG, f"! n: invalid value '{LONG[:59]}; use true, false"),
        (forms.instant, None, None),
        (forms.instant, "2026-01-01T00:00:00Z", NOW),
        (forms.instant, "2026-01-01T01:00:00+01:00", NOW),
        (forms.instant, "2026-01-01T00:00:00.0015Z", NOW + 1),
        (forms.instant, "1969-12-31T23:59:59Z", -1_000),
        *(
            (forms.instant, text, f"! n: must be an ISO 8601 time with a zone, got '{text}'")
            for text in ("", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+10:00", "x")
        ),
    ],
)
def test_a_value_of_a_query(read: Callable[[Any, str], Any], text: str | None, found: Any) -> None:
    query = {} if text is None else {"n": text}
    assert answered(lambda: read(query, "n")) == found


def test_blank_values_count_as_absent_but_for_some_names() -> None:
    assert forms.query_of("/a?x=1&y=&x=2&z=%20b") == {"x": "2", "y": "", "z": " b"}
    assert forms.query_of("/a") == {}
    blank = {"a": " ", "b": "x", "sort_dir": "", "limit": " ", "cursor": ""}
    assert forms.given(blank) == {"b": "x", "sort_dir": "", "limit": " "}
    assert forms.given(blank, "a", "cursor") == blank
    assert forms.given({"limit": ""}) == {}


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ({}, [2, 0, 1, 3]),
        ({"sort_dir": "ASC"}, [1, 3, 0, 2]),
        ({"sort_dir": "Desc"}, [2, 0, 1, 3]),
        ({"sort_by": "b"}, [1, 3, 0, 2]),
        ({"sort_by": "b", "sort_dir": "asc"}, [0, 2, 3, 1]),
        ({"sort_dir": ""}, "! sort_dir: invalid value ''; use asc, desc"),
        ({"sort_dir": "UP"}, "! sort_dir: invalid value 'up'; use asc, desc"),
        ({"sort_by": "c"}, "! sort_by: invalid value 'c'; use a, b"),
    ],
)
def test_the_order_of_a_list(query: dict[str, str], order: list[int] | str) -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": None, "b": "z"}, {"a": 3, "b": "x"}, {"b": "y"}]
    numbered = [{**row, "number": number} for number, row in enumerate(rows)]
    found = answered(lambda: forms.sort(numbered, query, ("a", "b"), "a"))
    assert (found or [row["number"] for row in numbered]) == order


@pytest.mark.parametrize(
    ("query", "rows", "cursor"),
    [
        ({}, "01234", None),
        ({"limit": "2"}, "01", "1"),
        ({"limit": "2", "cursor": "0"}, "12", "2"),
        ({"limit": "2", "cursor": "1"}, "23", "3"),
        ({"limit": "2", "cursor": "2"}, "34", None),
        ({"cursor": "4"}, "", None),
        ({"cursor": ""}, "01234", None),
        ({"limit": "5"}, "01234", None),
        ({"limit": "4"}, "0123", "3"),
    ],
)
def test_a_page_begins_after_its_cursor(query: dict[str, str], rows: str, cursor: str | None) -> None:
    found = forms.page("rows", [{"id": text} for text in "01234"], lambda row: str(row["id"]), query)
    more = {"has_more": False} if cursor is None else {"has_more": True, "next_cursor": cursor}
    assert found == {"rows": [{"id": text} for text in rows], **more}


def test_an_unknown_cursor_is_named() -> None:
    message = "cursor: is not valid for this list; begin without a cursor"
    found = told(lambda: forms.page("rows", [{"id": "0"}], lambda row: str(row["id"]), {"cursor": "9"}))
    assert found == ("INVALID_REQUEST", 400, message)
