"""What changed between two versions of the protocol, and what of it breaks users.

Both documents are compared as the tables that the generated client carries (`protocol.py`): all that decides what may
be sent and what is taken for a valid answer, nothing else. No kept library does this comparison in Python with the
direction of each member (sent or read) taken into account, so these few rules are our own.

Breaking means: a client released with the old version would be refused or would take an answer for invalid, or code
written against the generated client stops working. Members and values that are only new to an answer never are.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        subject: What kind of thing changed: operation, parameter, schema, member, enum value, bound, type...
        action: added, removed, changed or renamed.
        where: The place, as a person would say it: `createReservation`, `Balance.debt`.
        detail: What it was and what it is.
        breaking: See the module.
        reason: Why it breaks, or what to know although it does not.
        names: Names that handwritten code would mention if it depends on this.
    """

    subject: str
    action: str
    where: str
    detail: str = ""
    breaking: bool = False
    reason: str = ""
    names: tuple[str, ...] = field(default=(), compare=False)
