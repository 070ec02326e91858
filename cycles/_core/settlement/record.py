"""The journal's record of an unfinished settlement, as a value and as bytes. Nothing in this file opens a file.

The format is the journal format of the recovery profile, version 1, so other Cycles SDKs can read and write the same
records. Members that this version does not know are kept unchanged.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn

import attrs

from cycles._core.amounts import INT64_MAX, Amount, amount_of
from cycles._core.values.json_values import canonical, compact, is_text

VERSION: Final = 1
# A wrong Retry-After, or a clock that was wrong when the record was saved, must not defer an amount for days.
MAX_DEFERRED_MS: Final = 3_600_000
# The principal may be an API key and names a directory: stretched, so that a leaked name does not disclose a weak key.
PARTITION_ROUNDS: Final = 30_000
PARTITION_HEX_DIGITS: Final = 16
CHECK: Final = "check"  # the first member of a record: a reader charges nothing of one whose bytes have changed

Mode = Literal["commit", "event"]


class RecordError(ValueError):
    """The bytes are no record of a known version, or the record cannot be encoded."""


@attrs.frozen
class Made:
    """How this process made a record: what the age of the record is counted from.

    Attributes:
        boot_ms: When, on a clock that also counts while the machine is suspended; None without such a clock.
        is_interrupted: An attempt was interrupted, so its request may have arrived.
    """

    boot_ms: float | None
    is_interrupted: bool = False


@attrs.define(kw_only=True)  # not frozen: see `Call`
class Record:
    """One unfinished settlement, never changed: everything that another process needs to finish it.

    Attributes:
        reservation_id: The server's id, or `event_record_id(key)` if there is no reservation.
        base_url: The server it belongs to, as configured; empty in records of writers that leave it out.
        mode: Which request is sent next: the commit, or the event that replaces it.
        commit_body: Body of the commit, idempotency key included; None for direct events.
        recorded_at_ms: When it was first saved, milliseconds since the epoch.
        not_before_ms: No attempt before this time (429), milliseconds since the epoch, or None.
        attempt_unknown: An earlier attempt ended without a final response, so the amount may be charged already.
        event_since_ms: When the event could first have been sent, milliseconds since the epoch, or None.
        estimate: The reserved amount, if the actual is larger: it is committed if the server rejects the excess.
        excess: What the server rejected when the estimate was committed in place of the actual: `amount`, `code` and
            `message`. None if nothing was.
        previous_body: The body of the request before it was changed, which the server may have. None otherwise.
        rejected: Why the server rejected the amount; such a record is kept and never sent. None for all others.
        sent: Its amount is the upper bound of a request that was sent to a provider and whose cost is unknown, because
            the process ended. It is charged unless the server has charged the reservation already.
        settled: What is charged of it; such a record stays in a shared store for a time, so that no late put brings it
            back. None for all others.
        extra: Members of the file that this version does not know.
        made: How this process made it; None if it was read. It is not in the file.
    """

    reservation_id: str
    base_url: str
    mode: Mode = "commit"
    commit_body: dict[str, Any] | None = None
    _event_fallback_body: dict[str, Any] | None = attrs.field(default=None, alias="event_fallback_body")
    recorded_at_ms: int = 0
    not_before_ms: int | None = None
    attempt_unknown: bool = False
    event_since_ms: int | None = None
    estimate: int | None = None
    excess: dict[str, Any] | None = None
    previous_body: dict[str, Any] | None = None
    rejected: str | None = None
    sent: bool = False
    settled: int | None = None
    extra: dict[str, Any] = attrs.field(factory=dict)
    made: Made | None = attrs.field(default=None, eq=False)
    event_of: Callable[[], dict[str, Any]] | None = attrs.field(default=None, eq=False, repr=False)
    """Makes the event body, which most records need for their file only, and records without a journal never."""
    _actual: Amount | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def event_fallback_body(self) -> dict[str, Any] | None:
        """Body of the event with the same idempotency key, made when it is needed; None if the writer had none."""
        if self._event_fallback_body is None and self.event_of is not None:
            self._event_fallback_body = self.event_of()
        return self._event_fallback_body

    @property
    def actual(self) -> Amount:
        """The amount to settle; zero tokens if a record of another SDK encodes it differently."""
        if self._actual is None:
            body: Mapping[str, Any] = self.commit_body or self.event_fallback_body or {}
            try:
                self._actual = amount_of(body["actual"])
            # It is listed with what is readable, and sent unchanged: the server decides what it means.
            except (KeyError, TypeError, ValueError):
                self._actual = Amount("TOKENS", 0)
        return self._actual

    @property
    def whole(self) -> Amount:
        """The amount to settle, and what of it the server has rejected before."""
        excess = (self.excess or {}).get("amount", 0)
        is_usable = type(excess) is int and 0 < excess <= INT64_MAX - self.actual.amount
        return Amount(self.actual.unit, self.actual.amount + excess) if is_usable else self.actual

    @property
    def may_have_arrived(self) -> bool:
        """Whether a server may have received a request of this record, in the mode that it has now."""
        made = self.made
        return made is None or made.is_interrupted or self.attempt_unknown or self.previous_body is not None

    def interrupted(self) -> Record:
        """Return the record after an attempt that was interrupted."""
        return self if self.made is None else attrs.evolve(self, made=attrs.evolve(self.made, is_interrupted=True))

    def age_ms(self, now_ms: int, boot_ms: float | None) -> float:
        """Return how long ago it was made, or first sent as an event; by the wall clock only if it was read.

        `boot_ms` counts while the machine is suspended: otherwise an event could be sent after its key has ended.
        """
        # A wall clock may be set at any time; this one only counts.
        if self.made is not None and self.made.boot_ms is not None and boot_ms is not None:
            return boot_ms - self.made.boot_ms
        since_ms = self.event_since_ms if self.mode == "event" else None
        return now_ms - (self.recorded_at_ms if since_ms is None else since_ms)

    @property
    def body(self) -> dict[str, Any]:
        """The body of the request that is sent next; empty if the record has none."""
        return (self.commit_body if self.mode == "commit" else self.event_fallback_body) or {}

    @property
    def replaces_commit(self) -> bool:
        """Whether it is an event in place of a commit, and no attempt at the event may have reached the server."""
        return self.mode == "event" and self.commit_body is not None and not self.attempt_unknown

    def with_extra_of(self, earlier: Record | None) -> Record:
        """Return the record with the members of another form of it that this version does not know."""
        return self if earlier is None else attrs.evolve(self, extra=earlier.extra | self.extra)

    def with_body(self, body: dict[str, Any]) -> Record:
        """Return the record with another body for the request that is sent next."""
        if self.mode == "commit":
            return attrs.evolve(self, commit_body=body)
        return attrs.evolve(self, event_fallback_body=body)

    def to_event_mode(self, now_ms: int | None = None, boot_ms: float | None = None) -> Record:
        """Return the record after a response that the reservation is over: the event is sent next."""
        return attrs.evolve(
            self,
            mode="event",
            not_before_ms=None,
            attempt_unknown=False,
            previous_body=None,
            event_since_ms=now_ms,
            made=None if self.made is None else Made(boot_ms),
        )

    def deferred_until(self, not_before_ms: int, *, now_ms: int) -> Record:
        """Return the record after a 429: not tried again before then, at most `MAX_DEFERRED_MS` from now."""
        return attrs.evolve(self, not_before_ms=min(not_before_ms, now_ms + MAX_DEFERRED_MS))

    def wait_ms(self, now_ms: int) -> int:
        """Return the milliseconds until the next attempt is allowed: 0 if it is, at most `MAX_DEFERRED_MS`."""
        if self.not_before_ms is None:
            return 0
        return max(0, min(self.not_before_ms - now_ms, MAX_DEFERRED_MS))


def event_record_id(idempotency_key: str) -> str:
    """Return the reservation id in the record of an event that has no reservation."""
    return f"event:{idempotency_key}"


@lru_cache(maxsize=256)  # a record is saved, and soon deleted
def file_name(reservation_id: str) -> str:
    """Return the only file name of a record of this reservation; two ids never share one."""
    # A lone surrogate has no UTF-8 form, but an id that contains one must not prevent its settlement.
    return f"v2-{hashlib.sha256(reservation_id.encode('utf-8', 'surrogatepass')).hexdigest()}.json"


def partition(base_url: str, tenant: str | None, api_key: str) -> str:
    """Return the directory name of one server and principal. It takes about 10 ms of CPU: compute it once.

    A configured tenant is the principal, so that its records survive the rotation of the key.
    """
    principal = f"tenant\n{tenant}" if tenant and tenant.strip() else f"key\n{api_key}"
    salt = f"runcycles-commit-journal\n{base_url}"
    digest = hashlib.pbkdf2_hmac("sha256", _utf8(principal), _utf8(salt), PARTITION_ROUNDS)
    return digest.hex()[:PARTITION_HEX_DIGITS]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_ADDED: Final = (
    "attempt_unknown",
    "event_since_ms",
    "estimate",
    "excess",
    "previous_body",
    "rejected",
    "sent",
    "settled",
)
"""Members that this SDK adds to the format of the recovery profile. See `docs/recovery.md`."""


def encode(record: Record) -> bytes:
    """Return the bytes of the file: one line of ASCII JSON, with the check of its other members first.

    Raises:
        RecordError: a body contains a value that JSON cannot express.
    """
    members = {
        "version": VERSION,
        "reservation_id": record.reservation_id,
        "base_url": record.base_url,
        "mode": record.mode,
        "commit_body": record.commit_body,
        "event_fallback_body": record.event_fallback_body,
        "recorded_at_ms": record.recorded_at_ms,
        "not_before_ms": record.not_before_ms,
    }
    # Absent by default: other SDKs and earlier versions carry members that they do not know.
    for name in _ADDED:
        value = getattr(record, name)
        if value is not None and value is not False:  # 0 is a value
            members[name] = value
    members |= record.extra
    try:
        return compact({CHECK: check_of(members), **members})
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"the record of {record.reservation_id!r:.120} cannot be written as JSON: {error}") from error


def is_sent(raw: bytes) -> bool:
    """Return whether these bytes are a record with `sent`, as far as that can be told without decoding it."""
    return b'"sent":true' in raw


def check_of(members: Mapping[str, Any]) -> str:
    """Return the check of a record, over all its other members."""
    return hashlib.sha256(canonical(members)).hexdigest()[:16]


def decode(raw: bytes) -> Record:
    """Return the record in these bytes.

    Raises:
        RecordError: they are no record, or of an unknown version; the message says what is wrong.
    """
    members = _members(raw)
    version = members.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise RecordError(f"unknown record version {version!r:.80}; this release reads version {VERSION}")
    mode: Mode = "event" if members.get("mode") == "event" else "commit"
    if members.pop("mode", "commit") != mode:
        raise RecordError("mode is neither commit nor event")
    reservation_id = _text(members, "reservation_id")
    if reservation_id in (".", "..") or not is_text(reservation_id):
        raise RecordError(f"reservation_id {reservation_id!r:.120} cannot be part of a request path")
    record = Record(
        reservation_id=reservation_id,
        base_url=_text(members, "base_url", absent=""),
        mode=mode,
        commit_body=_body(members, "commit_body"),
        event_fallback_body=_body(members, "event_fallback_body"),
        recorded_at_ms=_time(members, "recorded_at_ms") or 0,
        not_before_ms=_time(members, "not_before_ms"),
        attempt_unknown=members.pop("attempt_unknown", None) is True,
        event_since_ms=_time(members, "event_since_ms"),
        estimate=_time(members, "estimate"),
        excess=_body(members, "excess"),
        previous_body=_body(members, "previous_body"),
        rejected=_text(members, "rejected", absent="") or None,
        sent=members.pop("sent", None) is True,
        settled=_time(members, "settled"),
        extra=members,
    )
    _check_body(record.commit_body if mode == "commit" else record.event_fallback_body, mode)
    return record


def _check_body(body: dict[str, Any] | None, mode: Mode) -> None:
    """Check that the body has a key and an amount: the server would reject it without them, which ends the record."""
    if body is None:
        raise RecordError(f"the body that mode {mode} needs is missing")
    key, actual = body.get("idempotency_key"), body.get("actual")
    if not isinstance(key, str) or not key:
        raise RecordError(f"the body that mode {mode} needs has no idempotency_key")
    amount = actual.get("amount") if isinstance(actual, dict) else None
    if type(amount) is not int or amount < 0:
        raise RecordError(f"the body that mode {mode} needs has no actual that is an amount")


def _members(raw: bytes) -> dict[str, Any]:
    try:
        members = json.loads(raw.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    if not isinstance(members, dict):
        raise RecordError("not a JSON object")
    # An older version rewrites a record with the members that it does not know at the end.
    is_first = next(iter(members), None) == CHECK
    check = members.pop(CHECK, None)  # in another place, an older version has rewritten what it stands for
    if is_first and check != check_of(members):
        raise RecordError(f"its check {check!r:.80} is not that of its content: bytes were changed")
    return members


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is out of range")
    return number


def _text(members: dict[str, Any], name: str, absent: str | None = None) -> str:
    value = members.pop(name, absent)
    if not isinstance(value, str) or (not value and absent is None):
        raise RecordError(f"{name} is missing or not a string")
    return value


def _body(members: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = members.pop(name, None)
    if value is not None and not isinstance(value, dict):
        raise RecordError(f"{name} is not an object")
    return value


def _time(members: dict[str, Any], name: str) -> int | None:
    value = members.pop(name, None)
    if value is not None and (type(value) is not int or value < 0):
        raise RecordError(f"{name} is not a time in milliseconds")
    return value
