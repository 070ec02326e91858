"""Compare two versions of the protocol: what changed, and which changes break users.

The comparison uses the tables of the generated client (`protocol.py`). They contain everything that decides what may
be sent and which responses are valid, and nothing else. No maintained Python library makes this comparison with the
direction of each member (sent or read), so this package has its own rules.

A change is breaking if the server would reject requests of a client of the old version, if that client would treat a
response as invalid, or if code written against the generated client stops working. A member or value that is only
added to responses is never breaking.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        subject: What kind of thing changed: operation, parameter, schema, member, enum value, bound, type...
        action: added, removed, changed or renamed.
        where: The changed place: `createReservation`, `Balance.debt`.
        detail: The old and the new value.
        breaking: Whether it breaks users; see the module.
        reason: Why it breaks users, or a note on a change that does not.
        names: Names that handwritten code contains if it depends on this.
    """

    subject: str
    action: str
    where: str
    detail: str = ""
    breaking: bool = False
    reason: str = ""
    names: tuple[str, ...] = field(default=(), compare=False)
