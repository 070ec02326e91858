"""Charge what is on the bill only, once: also if it is run again, by two processes, and after the bill has grown.

One import reserves 0 and commits the difference. Its key contains what was known, so that a repetition of the same
import charges nothing. Imports that know different bills have different keys. They exclude each other by a claim: a
reservation of 0 whose key is the number of imports that the row has had, and whose metadata has the difference. The
server rejects the same key with another difference. The second process then reads the claim of the first one, finishes
that import with its key, and claims the rest. So an import whose process was killed blocks no other.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

import cycles
from cycles.billing._compare import Row
from cycles.billing._ledger import CLAIMS, IMPORTED

_ROUNDS: Final = 5  # imports of other processes that one run finishes for a row
_MISMATCH: Final = "IDEMPOTENCY_MISMATCH"
_POLICY: Final = "ALLOW_IF_AVAILABLE"
_FLOOR: Final = cycles.Amount("USD_MICROCENTS", 1)
_NOTHING: Final = cycles.Amount("USD_MICROCENTS", 0)


@frozen
class Import:
    """One import: what it wanted to charge, and what was charged.

    Attributes:
        day: The day of the row.
        model: The model of the row.
        amount: Microcents on the bill only.
        charged: Microcents that were charged.
        reservation_id: The reservation; None if there is none.
        status: ``imported``, ``partly`` (the budget had less) or ``denied``.
    """

    day: str
    model: str
    amount: int
    charged: int
    reservation_id: str | None
    status: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        names = ("day", "model", "amount", "charged", "reservation_id", "status")
        return {name: getattr(self, name) for name in names}


class Importer:
    """Imports rows of one provider.

    Args:
        client: Charges them.
        provider: The provider.
        subject: What is charged; None: the subject of the configuration.
    """

    def __init__(self, client: cycles.Cycles, provider: str, subject: Any = None) -> None:
        self._client = client
        self._provider = provider
        self._subject = subject

    def run(self, row: Row) -> list[Import]:
        """Charge the difference of a row, and add what was charged to its imports.

        Raises:
            TransportError: the server gave no usable response; run the import again.
        """
        found: list[Import] = []
        for _ in range(_ROUNDS):
            wanted = row.difference
            if wanted <= 0:
                break
            done = self._next(row, wanted)
            if done is None:
                break
            found.append(done)
            row.imports.amount += done.charged
            row.imports.done += done.reservation_id is not None
            row.imports.failed += done.reservation_id is not None and not done.charged
            if done.status != "imported":
                break
        return found

    def _next(self, row: Row, wanted: int) -> Import | None:
        """Make the next import of a row; None if another process knows a later bill, and imports that."""
        denied = Import(row.day, row.model, wanted, 0, None, "denied")
        if not self._has_budget(row):
            return denied
        try:
            known, amount = self._claim(row, row.ledger + row.imports.amount, wanted)
            return None if amount > wanted else self._import(row, known, amount)
        except cycles.ReservationDeniedError:
            return denied

    def _claim(self, row: Row, known: int, wanted: int) -> tuple[int, int]:
        """Return which import is next for a row: this one, or the one that another process has claimed."""
        key = f"reconcile:{self._provider}:{row.day}:{row.model}:claim:{row.imports.done}"
        metadata = {**self._metadata(row), CLAIMS: [known, wanted]}
        try:
            self._client.release_reservation(self._reserve(row, key, metadata), "claimed", idempotency_key=key)
        except (cycles.ReservationNotActiveError, cycles.ReservationFinalizedError, cycles.ReservationExpiredError):
            pass  # this difference was claimed before
        except cycles.ProtocolError as error:
            if error.code != _MISMATCH:
                raise
            theirs = self._claimed(key)
            if theirs is None:
                raise
            return theirs
        return known, wanted

    def _claimed(self, key: str) -> tuple[int, int] | None:
        for row in self._client.reservations(idempotency_key=key, include=("metadata",)):
            claim = (row.metadata or {}).get(CLAIMS)
            if isinstance(claim, list | tuple) and len(claim) == 2 and all(type(each) is int for each in claim):
                return claim[0], claim[1]
        return None

    def _import(self, row: Row, known: int, amount: int) -> Import:
        key = f"reconcile:{self._provider}:{row.day}:{row.model}:{known}:{amount}"
        if row.imports.failed:  # the key of an import that has charged nothing would return that again
            key = f"{key}:{row.imports.failed}"
        try:
            reservation_id = self._reserve(row, key, self._metadata(row))
            commit = self._client.commit_reservation(
                reservation_id,
                cycles.Amount("USD_MICROCENTS", amount),
                metadata=self._metadata(row),
                idempotency_key=key,
            )
        except cycles.ReservationNotActiveError as ended:
            charged = 0 if ended.committed is None else ended.committed.amount
            return self._ended(row, amount, charged, ended.reservation_id)
        if commit.status != "COMMITTED":
            raise cycles.TransportError(
                f"the import of {row.model} on {row.day} is not confirmed; run the command again, it is charged once"
            )
        return self._ended(row, amount, commit.charged.amount, reservation_id)

    def _ended(self, row: Row, amount: int, charged: int, reservation_id: str | None) -> Import:
        status = "imported" if charged >= amount else "partly" if charged else "denied"
        return Import(row.day, row.model, amount, charged, reservation_id, status)

    def _has_budget(self, row: Row) -> bool:
        """Return whether anything can be charged: an import that charges nothing would only use up its key."""
        decision = self._client.decide(_FLOOR, action=(IMPORTED, row.model), subject=self._subject)
        return decision.allowed

    def _reserve(self, row: Row, key: str, metadata: dict[str, Any]) -> str:
        guard = self._client.reserve(
            _NOTHING,
            action=(IMPORTED, row.model),
            subject=self._subject,
            overage_policy=_POLICY,
            metadata=metadata,
            idempotency_key=key,
        ).acquire()
        reservation_id = guard.reservation_id
        assert reservation_id is not None
        guard.detach()
        return reservation_id

    def _metadata(self, row: Row) -> dict[str, Any]:
        return {"provider": self._provider, "day": row.day}
