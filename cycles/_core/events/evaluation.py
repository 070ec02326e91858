"""The events of reservations that hold nothing, in shadow and observe mode, and of deprecated action kinds.

They are members of `cycles.events`.
"""

from __future__ import annotations

import logging

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.events.base import Event
from cycles._core.protocol import is_allowed


@frozen(kw_only=True)
class ShadowDecided(Event):
    """Shadow mode: what the server would have decided. `decision` is None if no server could be reached."""

    estimate: Amount
    action: str
    decision: str | None
    reason_code: str | None = None
    detail: str | None = None

    level = logging.DEBUG

    @property
    def would_deny(self) -> bool:
        """True if a live reservation would have been denied."""
        return self.decision is not None and not is_allowed(self.decision)

    def text(self) -> str:
        if self.decision is None:
            return f"shadow: {self.estimate} for {self.action}: no decision ({self.detail})"
        reason = f" ({self.reason_code})" if self.reason_code else ""
        return f"shadow: {self.estimate} for {self.action}: the server decided {self.decision}{reason}"


@frozen(kw_only=True)
class ShadowSettled(Event):
    """Shadow mode: what the block cost, and its estimate.

    `actual` is None if the block reported no amount, and `would_deny` is None if no server could be reached.
    """

    estimate: Amount
    actual: Amount | None
    action: str
    would_deny: bool | None

    def text(self) -> str:
        cost = "an unknown amount" if self.actual is None else str(self.actual)
        decision = {True: "would have been denied", False: "would have been allowed", None: "no decision is known"}
        return f"shadow: {self.action} cost {cost}, estimated {self.estimate}; {decision[self.would_deny]}"


@frozen(kw_only=True)
class Observed(Event):
    """The server only observed a reservation, and its block has ended. Nothing was held, and nothing is charged.

    `actual` is None if the block reported no amount.
    """

    estimate: Amount
    actual: Amount | None
    action: str
    decision: str
    reason_code: str | None = None

    @property
    def would_deny(self) -> bool:
        """True if the reservation would have been denied without observe mode."""
        return not is_allowed(self.decision)

    def text(self) -> str:
        cost = "an unknown amount" if self.actual is None else str(self.actual)
        reason = f" ({self.reason_code})" if self.reason_code else ""
        return (
            f"observed: {self.action} cost {cost}, estimated {self.estimate}; "
            f"the server decided {self.decision}{reason} and holds nothing"
        )


@frozen(kw_only=True)
class ActionKindDeprecated(Event):
    """The server names a replacement for an action kind. Reported once per kind and client."""

    kind: str
    replacement: str

    level = logging.WARNING

    def text(self) -> str:
        return f"action kind {self.kind} is deprecated: use {self.replacement}"


for _event in (ActionKindDeprecated, Observed, ShadowDecided, ShadowSettled):
    _event.__module__ = "cycles.events"
