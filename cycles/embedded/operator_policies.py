"""Policies, quotas and action kinds of `server.ledger` (protocol 0.1.26)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cycles._core.values.action_kinds import RISK_CLASSES, WINDOWS
from cycles._errors import InvalidRequestError
from cycles.embedded.ledger import Ledger
from cycles.embedded.records import AdminInfo, Body, Policy
from cycles.embedded.scopes import normalise

_MEMBERS: Final = ("action_kind", "risk_class", "window", "limit", "hosts")


class PolicyOperator:
    """The methods of `server.ledger` that only `EmbeddedServer(protocol="0.1.26")` uses."""

    _ledger: Ledger

    def set_policy(
        self,
        name: str,
        scope: str,
        *,
        priority: int = 0,
        allowed_kinds: Iterable[str] | None = None,
        denied_kinds: Iterable[str] = (),
        quotas: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Create or replace a policy for a scope and what is below it. The highest priority that matches counts.

        Args:
            allowed_kinds: The only action kinds that are allowed; None allows every kind.
            denied_kinds: Action kinds that are denied, also if they are allowed.
            quotas: Mappings with `action_kind` or `risk_class`, `window` such as ``"per_day_tumbling"``, `limit`, and
                optionally `hosts`: the quota then counts only actions whose policy key `host` is one of them.

        Raises:
            InvalidRequestError: (a ValueError) naming the member that is wrong.
        """
        policy = Policy(
            name=name,
            scope=normalise(scope),
            priority=priority,
            allowed_kinds=None if allowed_kinds is None else tuple(allowed_kinds),
            denied_kinds=tuple(denied_kinds),
            quotas=tuple(_quota(quota) for quota in quotas),
        )
        with self._ledger.locked():
            self._ledger.tables.apply(policy)

    def delete_policy(self, name: str) -> None:
        """Delete a policy. One that does not exist is no error."""
        with self._ledger.locked():
            policy = self._ledger.tables.policies.get((name,))
            self._ledger.tables.apply(deleted=[] if policy is None else [policy])

    def set_action_kind(
        self, kind: str, *, risk_class: str = "side_effect", replacement_kind: str | None = None
    ) -> None:
        """Declare an action kind, such as ``custom.acme.deploy``, or deprecate one by naming its replacement.

        Raises:
            InvalidRequestError: (a ValueError) if there is no such risk class.
        """
        if risk_class not in RISK_CLASSES:
            raise InvalidRequestError(f"risk_class must be one of {', '.join(RISK_CLASSES)}, got {risk_class!r:.80}")
        values: Body = {"risk_class": risk_class}
        if replacement_kind is not None:
            values |= {"deprecated": True, "replacement_kind": replacement_kind}
        with self._ledger.locked():
            self._ledger.tables.apply(AdminInfo(about="action_kind", name=kind, values=values))


def _quota(quota: Mapping[str, Any]) -> Body:
    unknown = sorted(set(quota) - set(_MEMBERS))
    if unknown:
        raise InvalidRequestError(f"unknown member of a quota: {unknown[0]!r:.80}; use {', '.join(_MEMBERS)}")
    if ("action_kind" in quota) == ("risk_class" in quota):
        raise InvalidRequestError("a quota needs action_kind or risk_class, and not both")
    if quota.get("window") not in WINDOWS:
        raise InvalidRequestError(f"window must be one of {', '.join(WINDOWS)}, got {quota.get('window')!r:.80}")
    limit = quota.get("limit")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise InvalidRequestError(f"limit must be an integer of 0 or more, got {limit!r:.80}")
    return {name: list(value) if name == "hosts" else value for name, value in quota.items()}
