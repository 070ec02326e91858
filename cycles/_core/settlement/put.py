"""What came of saving a record, as far as it decides the next step of a settlement."""

from __future__ import annotations

from enum import Enum


class PutResult(Enum):
    """The result of saving a record in the journal.

    Attributes:
        SAVED: The journal has it, and another process finishes it if this one dies.
        FAILED: It is not saved. It is sent anyway: a journal that fails must not keep an amount from the ledger.
        TAKEN: Another client has claimed it and settles it; this one sends nothing for it.
        HELD_BACK: It is an event, and the journal still has the commit that it replaces. It is not sent before it is
            saved: a later process would send the commit and a second event, and servers delete the keys of events after
            7 days, so that both could be charged.
    """

    SAVED = "saved"
    FAILED = "failed"
    TAKEN = "taken"
    HELD_BACK = "held back"
