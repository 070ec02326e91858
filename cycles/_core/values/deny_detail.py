"""Why the server denied a reservation (protocol 0.1.26).

A server may send any value there. One of another form counts as absent, so that it never breaks a response or an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final

from attrs import frozen

from cycles._core.values.action_kinds import window_end
from cycles._core.values.result_base import Readers, Result
from cycles._version import public


@frozen(kw_only=True)
class QuotaViolation(Result):
    """The quota that a denied action would exceed (protocol 0.1.26).

    Attributes:
        action_kind: The kind of the action, also if the quota is that of its risk class.
        window: For example ``per_day_tumbling``; an unknown one is kept.
        used: Actions counted in this window.
        limit: Actions allowed in one window.
        scope: The scope that the quota applies to.
        window_key: The window on the server's clock (UTC), for example ``2026-04-09``, or the id of the run.
        risk_class: Set if the quota is that of a whole risk class.
    """

    action_kind: str | None = None
    window: str | None = None
    used: int | None = None
    limit: int | None = None
    scope: str | None = None
    window_key: str | None = None
    policy_id: str | None = None
    risk_class: str | None = None

    @property
    def resets_at(self) -> datetime | None:
        """When the server's window ends (UTC); None for ``per_run`` and for a `window_key` of another form.

        It is a time of the server's clock: compare it with the local clock only roughly.
        """
        return window_end(self.window, self.window_key)


@frozen(kw_only=True)
class DenyDetail(Result):
    """Why a reservation was denied (protocol 0.1.26). `suggested_fix` is the server's advice for people.

    `budget_remaining` is in the unit of the request, and may be below zero.
    """

    reason_code: str | None = None
    quota_violation: QuotaViolation | None = None
    blocked_by_scope: str | None = None
    blocked_by_policy: str | None = None
    suggested_fix: str | None = None
    budget_remaining: int | None = None

    _read: ClassVar[Readers] = {"quota_violation": QuotaViolation.read}


_TYPES: Final = {
    "reason_code": str,
    "quota_violation": Mapping,
    "blocked_by_scope": str,
    "blocked_by_policy": str,
    "suggested_fix": str,
    "budget_remaining": int,
}
_QUOTA_TYPES: Final = {
    **dict.fromkeys(("action_kind", "window", "scope", "window_key", "policy_id", "risk_class"), str),
    **dict.fromkeys(("used", "limit"), int),
}


def read_deny_detail(value: Any) -> DenyDetail | None:
    """Return the deny detail of a response, or None if the value has another form. Newer members are in `extra`."""
    # Another form counts as absent: the denial itself must reach the caller in any case.
    if not isinstance(value, Mapping) or not value or not _fits(value, _TYPES):
        return None
    quota = value.get("quota_violation")
    return DenyDetail.read(value) if quota is None or _fits(quota, _QUOTA_TYPES) else None


def _fits(body: Mapping[str, Any], types: Mapping[str, type]) -> bool:
    values = {name: value for name, value in body.items() if value is not None and name in types}
    return all(isinstance(value, types[name]) and not isinstance(value, bool) for name, value in values.items())


public(DenyDetail, QuotaViolation)
