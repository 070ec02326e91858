"""Action kinds, policies and quotas of protocol 0.1.26: which action a reservation may be for, and how often.

`server.ledger.set_policy` makes policies. Of those that match a subject, only the one with the highest priority counts.
The order of the checks is: deny list, allow list, quotas of risk classes, quotas of kinds. See
`docs/testing.md#action-kinds-quotas-and-observe-mode`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import evolve

from cycles import kinds
from cycles._core.protocol import ACTION_KIND_DENIED, ACTION_KIND_NOT_ALLOWED, ACTION_QUOTA_EXCEEDED
from cycles._core.values.action_kinds import PER_RUN, window_end, window_key
from cycles.embedded.errors import ApiError
from cycles.embedded.records import DAY_MS, AdminInfo, Body, Policy, QuotaCounter, Reservation
from cycles.embedded.tables import Tables

RISK: Final = "__risk__"  # the action kind of a counter of a whole risk class
_UNREGISTERED_CLASS: Final = "side_effect"
_RUN: Final = "run_id"
_TENANT_WINDOW: Final = "per_tenant_per_day"


class ActionPolicies:
    """Reads policies and counters. The caller holds the ledger's lock and saves the counters that it gets."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def counted(self, tenant: str, derived: Sequence[str], request: Body, now_ms: int) -> list[QuotaCounter]:
        """Return the counters after one more reservation.

        Raises:
            ApiError: the kind is denied or not allowed, a quota is used up, or the request has no run id.
        """
        kind = request["action"]["kind"]
        risk_class = self._risk_class(kind)
        policy = self._policy(derived)
        if policy is None:
            return []
        _check_lists(policy, kind)
        counters = []
        for quota in sorted(_applying(policy, kind, risk_class, request), key=lambda quota: "action_kind" in quota):
            key = _window_key(quota["window"], request, now_ms)
            scope = derived[0] if quota["window"] == _TENANT_WINDOW else policy.scope
            counter = self._counter_of(tenant, policy, quota, scope, key)
            if counter.used >= counter.limit:
                raise _exceeded(policy, counter, kind)
            counters.append(
                evolve(counter, used=counter.used + 1, counted_at_ms=now_ms, until_ms=_until(counter, now_ms))
            )
        return counters

    def returned(self, row: Reservation) -> list[QuotaCounter]:
        """Return the counters of a run without a reservation that was released or has expired."""
        found = (self._tables.counters.get(tuple(json.loads(key))) for key in row.counted)
        return [evolve(counter, used=counter.used - 1) for counter in found if counter is not None and counter.used > 0]

    def replacement_of(self, kind: str) -> str | None:
        """Return the kind that replaces a deprecated one, or None."""
        info = self._info(kind)
        return None if info is None else info.get("replacement_kind")

    def registry(self) -> list[Body]:
        """Return the public kinds, by name: the built-in ones, with the changes of `set_action_kind`."""
        changed = {
            name: info.values for (about, name), info in self._tables.admin_info.items() if about == "action_kind"
        }
        names = [name for name in {**kinds.BUILT_IN, **changed} if not name.startswith("custom.")]
        return [self._shown(name, changed.get(name, {})) for name in sorted(names)]

    def _shown(self, name: str, changed: Body) -> Body:
        built_in = kinds.BUILT_IN.get(name)
        shown: Body = {"kind": name, "risk_class": _UNREGISTERED_CLASS}
        if built_in is not None:
            shown |= {"risk_class": built_in.risk_class, "mcp_tool_prefixes": list(built_in.mcp_tool_prefixes or ())}
        return shown | {"deprecated": "replacement_kind" in changed} | changed

    def _info(self, kind: str) -> Body | None:
        info: AdminInfo | None = self._tables.admin_info.get(("action_kind", kind))
        return None if info is None else info.values

    def _risk_class(self, kind: str) -> str:
        info = self._info(kind) or {}
        if "risk_class" in info:
            return str(info["risk_class"])
        if kind in kinds.BUILT_IN:
            return kinds.BUILT_IN[kind].risk_class
        if kind.startswith("custom.") and not info:
            raise ApiError("INVALID_REQUEST", f"action.kind: {kind!r:.80} is not declared; use set_action_kind")
        return _UNREGISTERED_CLASS

    def _policy(self, derived: Sequence[str]) -> Policy | None:
        matching = [policy for policy in self._tables.policies.values() if policy.scope in derived]
        return max(matching, key=lambda policy: policy.priority, default=None)

    def _counter_of(self, tenant: str, policy: Policy, quota: Body, scope: str, key: str) -> QuotaCounter:
        new = QuotaCounter(
            tenant=tenant,
            scope=scope,
            action_kind=quota.get("action_kind", RISK),
            risk_class=quota.get("risk_class"),
            window=quota["window"],
            window_key=key,
            limit=quota["limit"],
            policy=policy.name,
        )
        known = self._tables.counters.get(new.key)
        return new if known is None else evolve(known, limit=new.limit, policy=new.policy)


def counted_keys(counters: Sequence[QuotaCounter]) -> tuple[str, ...]:
    """Return what a reservation stores of the counters that its release returns: those of a run."""
    return tuple(json.dumps(counter.key) for counter in counters if counter.window == PER_RUN)


def _check_lists(policy: Policy, kind: str) -> None:
    if kind in policy.denied_kinds:
        raise _denied(
            ACTION_KIND_DENIED,
            policy,
            f"action kind denied: {kind}; change the policy {policy.name}, or use another kind",
        )
    if policy.allowed_kinds is not None and kind not in policy.allowed_kinds:
        raise _denied(
            ACTION_KIND_NOT_ALLOWED,
            policy,
            f"action kind not allowed: {kind}; change the policy {policy.name}, or use another kind",
        )


def _applying(policy: Policy, kind: str, risk_class: str, request: Body) -> Iterator[Body]:
    host = request["action"].get("policy_keys", {}).get("host")
    for quota in policy.quotas:
        if quota.get("action_kind", kind) != kind or quota.get("risk_class", risk_class) != risk_class:
            continue
        if quota.get("hosts") is None or host in quota["hosts"]:
            yield quota


def _window_key(window: str, request: Body, now_ms: int) -> str:
    if window != PER_RUN:
        return window_key(window, datetime.fromtimestamp(now_ms / 1000, UTC))
    run_id = request["subject"].get("dimensions", {}).get(_RUN)
    if not run_id:
        raise ApiError("INVALID_REQUEST", "subject.dimensions.run_id is required: a quota counts actions per run")
    return str(run_id)


def _until(counter: QuotaCounter, now_ms: int) -> int:
    end = window_end(counter.window, counter.window_key)
    return now_ms + DAY_MS if end is None else int(end.timestamp() * 1000) + DAY_MS


def _exceeded(policy: Policy, counter: QuotaCounter, kind: str) -> ApiError:
    violation = counter.to_body() | {"action_kind": kind}
    names = ("action_kind", "window", "used", "limit", "scope", "window_key", "policy_id", "risk_class")
    what = kind if counter.risk_class is None else f"risk class {counter.risk_class}"
    return _denied(
        ACTION_QUOTA_EXCEEDED,
        policy,
        f"the quota of {what} is used up: {counter.used} of {counter.limit}, {counter.window}; wait or raise the limit",
        {"quota_violation": {name: violation[name] for name in names if name in violation}},
    )


def _denied(code: str, policy: Policy, message: str, further: Mapping[str, Any] | None = None) -> ApiError:
    detail = {"reason_code": code, "blocked_by_scope": policy.scope, "blocked_by_policy": policy.name}
    return ApiError(code, message, details={"deny_detail": {**detail, **(further or {})}})
