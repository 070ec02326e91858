"""Reserve: send the create request, open the lease, and clean up a create whose caller has left.

A response to a create has four forms: a reservation; a denial; the decision of a server that only observes, which holds
nothing (`docs/protocol/decisions-and-caps.md#observe-mode`); and, under a key of the caller, the reservation of an
earlier run, whose work must not run again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from attrs import define, field

from cycles._core.messages.denial_message import denial_message
from cycles._core.messages.errors import denial, error_of, observed_error
from cycles._core.messages.outcome import Ambiguous, NoSuccess, Outcome, RejectedResponse, Success
from cycles._core.messages.requests import NO_OPTIONS, Call, CallOptions, is_id, new_key, new_keys
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.protocol import ALLOWING, CREATE_RESERVATION, DENY, GET_RESERVATION
from cycles._core.results import ReservationCreateResponse, ReservationDetail
from cycles._core.settlement.lifecycle import CALLER_LEFT, UNKNOWN_DECISION
from cycles._core.settlement.record import file_name
from cycles._errors import (
    BudgetClosedError,
    CyclesError,
    RateLimitedError,
    ReservationDeniedError,
    ReservationNotActiveError,
    TenantClosedError,
)
from cycles._far_above import name_far_above
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat import begin_heartbeat
from cycles._flows.io import CleanUp, Io
from cycles._flows.release import send_release
from cycles._flows.retry import BudgetWait, describe, may_have_taken_effect, pause, repeated, send_write, uncertain
from cycles._flows.run_limit import LIMITS, HeldByLimits

_CLEANUP: Final = uuid.UUID("6f1f2a3e-7a0f-5c0b-9d55-1f6f0a7c2b11")  # name space of the keys of cleanup releases
PERMANENT: Final = (BudgetClosedError, TenantClosedError)  # waiting for budget does not change these


Take: TypeAlias = Callable[[GuardState], object]
"""Makes a caller's guard the owner of a reservation. From then on that guard ends it, also after an interrupt."""


def create_call(request: ReserveRequest, key: str, options: CallOptions = NO_OPTIONS) -> Call:
    """Return the create request."""
    return Call(CREATE_RESERVATION, body=request.body(key), options=options)


async def open_lease(io: Io, request: ReserveRequest, take: Take) -> GuardState:
    """Reserve, and start the heartbeat.

    Args:
        io: The operations.
        request: What to reserve.
        take: Called with the guard before its heartbeat starts, if the server holds something for it. If the flow is
            interrupted before that, the background releases what the server may have reserved.

    Raises:
        ReservationDeniedError: the reservation was denied; also for a decision that this SDK does not know.
        ReservationNotActiveError: the caller's key replays a reservation that has ended.
        CyclesError: any other outcome that is no reservation.
    """
    # Trace id, reserve and commit: one read of random bytes, before anything is sent.
    keys = new_keys(3)
    options = io.begin_trace(request, keys.pop())
    opening, trace = open_with(io, request, options, take, keys), options.trace
    return await (opening if trace is None else traced(trace, opening))


async def traced(trace: Any, opening: Coroutine[Any, Any, GuardState]) -> GuardState:
    """Report to a tracer whether there is a guard."""
    try:
        guard = await opening
    except BaseException as error:
        trace.refused(error)
        raise
    trace.opened(guard)
    return guard


async def open_with(
    io: Io, request: ReserveRequest, options: CallOptions, take: Take, keys: list[str] | None = None
) -> GuardState:
    """As `open_lease`, with the options of `begin_trace`, and new keys for the reserve and the commit.

    The tracer is not notified of the guard.
    """
    # A dry run holds nothing, so it needs no approval, no journal and no limit.
    if request.shadow:
        return await _open_shadow(io, request, options)
    if not LIMITS.get():
        return await _open(io, request, options, take, keys)
    with HeldByLimits(request.estimate) as held:
        guard = held.guard = await _open(io, request, options, take, keys)
    return guard


async def _open(
    io: Io, request: ReserveRequest, options: CallOptions, take: Take, keys: list[str] | None
) -> GuardState:
    # Before the create: if the journal is required, nothing is reserved whose amount could not be saved.
    await io.ensure_journal()
    # The key of the commit is made now: what is written ahead before the commit has it, too.
    own_key, commit_key = keys or new_keys(2)
    # After the journal, so that no person is asked about a reservation that is not made anyway.
    await io.approve(request)
    create = _Create(io, request, options, take, request.idempotency_key or own_key)
    try:
        try:
            guard = await create.run()
            guard.commit_key = guard.commit_key or commit_key
            return guard
        except CyclesError:
            create.clean_up()
            raise
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled, also in `clean_up`: the server may make the reservation anyway
        create.clean_up(now=True)
        raise


@define(eq=False)
class _Create:
    """One create request with its repetitions, which have the same key, and its cleanup.

    A create whose outcome stays unknown may have made a reservation. The background finds it under the key and releases
    it. Under a caller's key it stays: it belongs to the next run with that key.
    """

    io: Io
    request: ReserveRequest
    options: CallOptions
    take: Take
    key: str
    call: Call = field(init=False)
    unsettled: frozenset[str] = frozenset()  # before the first attempt: the file names of pending records
    may_exist: bool = False

    def __attrs_post_init__(self) -> None:
        self.call = create_call(self.request, self.key, self.options)
        # Before the first attempt: a settlement that ends while it is sent is one of an earlier run.
        if self.request.idempotency_key is not None:
            self.unsettled = self.io.unsettled()

    async def run(self) -> GuardState:
        """Reserve; wait for budget as long as `wait=` says."""
        wait = None if self.request.wait is None else BudgetWait(self.io, self.request.wait)
        while True:
            try:
                outcome = await self._attempt()
                if not isinstance(outcome, Success):  # a success is the usual case, and needs nothing more
                    outcome = await repeated(self.io, self._attempt, self.request.max_retries, outcome)
                return await self._guard_of(outcome)
            except (ReservationDeniedError, RateLimitedError) as error:
                delay_s = None if wait is None or isinstance(error, PERMANENT) else wait.next_s(error)
                if delay_s is None:
                    if self.request.reports_denial:
                        report_denied(self.io, self.request, error)
                    raise
                if error.status == 200 and self.request.idempotency_key is None:  # a decision, which its key repeats
                    self.key = new_key()
                    self.call = create_call(self.request, self.key, self.options)
            await pause(self.io, delay_s)

    def clean_up(self, *, now: bool = False, runs_unreserved: bool = False) -> None:
        """Release in the background what an attempt may have reserved for which there is no guard.

        After a failure the server gets the pause of a retry; after an interruption, `now`, nothing shows that it fails.
        """
        if self.may_exist and (self.request.idempotency_key is None or runs_unreserved):
            self.io.hand_over(CleanUp(self.call), now=now)
            self.may_exist = False

    async def _attempt(self) -> Outcome:
        # Set before the request: an interrupt between here and the response leaves a create with an unknown outcome.
        earlier, self.may_exist = self.may_exist, True  # until there is a response
        outcome = _with_id(await self.io.send(self.call))
        if isinstance(outcome, Success):  # the response to the key, so it covers the earlier attempts too
            self.may_exist = is_id(outcome.body.get("reservation_id"))
        else:
            self.may_exist = earlier or may_have_taken_effect(outcome)
        return outcome

    async def _guard_of(self, outcome: Outcome) -> GuardState:
        io, request, options = self.io, self.request, self.options
        if not isinstance(outcome, Success):
            # An error response of a server that works is a decision, which this option does not override.
            if request.on_unavailable == "allow" and uncertain(outcome):
                self.clean_up(runs_unreserved=True)
                guard = _guard_without_response(io, request, self.key, options, outcome)
                if not request.is_chunk:  # a chunk reports each guard that runs without it
                    report_unreserved(io, guard)
                return guard
            raise error_of(outcome, CREATE_RESERVATION, request) from getattr(outcome, "cause", None)
        body = outcome.body
        # Also of a denied reservation: the caller has to change the kind anyway.
        if outcome.replacement_kind is not None:
            io.report("ActionKindDeprecated", outcome, kind=request.action.kind, replacement=outcome.replacement_kind)
        if _is_observed(outcome):
            if not (request.observe or request.on_observed == "run"):
                raise observed_error(_created(outcome, options))
            return GuardState(request, self.key, options, io.clock.now_ms(), outcome, observed=True)
        # An unknown decision counts as a denial: a newer server may mean anything by it.
        if body["decision"] not in ALLOWING:
            raise await self._denial(outcome)
        reservation_id = body["reservation_id"]
        if request.idempotency_key is not None:
            await self._check_replay(reservation_id, body)
        guard = GuardState(request, self.key, options, io.clock.now_ms(), outcome)
        # The owner first: if an interrupt comes before the heartbeat starts, the guard of the caller ends the
        # reservation.
        self.take(guard)
        self.may_exist = False  # from here on the caller's guard ends it
        begin_heartbeat(io, guard, reservation_id, outcome)
        io.report(
            "Reserved",
            outcome,
            reservation_id=reservation_id,
            trace_id=options.trace_id,
            estimate=request.estimate,
            decision=body["decision"],
            action=request.action.name,
        )
        return guard

    async def _denial(self, success: Success) -> CyclesError:
        """Return the error of DENY, or of a decision that this SDK does not know. Release what came with it.

        See `docs/protocol/decisions-and-caps.md#unknown-decisions`.
        """
        created = _created(success, self.options)
        if created.reservation_id is not None and is_id(created.reservation_id):
            release = Release(created.reservation_id, new_key(), UNKNOWN_DECISION, self.options)
            # A decision that this release does not know may have reserved; no guard would end that.
            await send_release(self.io, release)
        self.may_exist = False
        return denial(created, context=denial_message(self.request, success.body, created.balances))

    async def _check_replay(self, reservation_id: str, body: Mapping[str, Any]) -> None:
        """Raise ReservationNotActiveError if the caller's key replays a reservation whose work has ended."""
        # A replayed response is that of the first run, but for the time that is left.
        if body.get("remaining_ttl_ms") == 0:
            raise await _replay_error(self.io, self.key, reservation_id, self.options)
        pending = await self.io.pending(reservation_id)
        if pending is not None:
            raise _not_again(self.key, reservation_id, f"has a pending commit of {pending.actual}")
        if file_name(reservation_id) in self.unsettled:  # the background has settled it since this response was made
            raise await _replay_error(self.io, self.key, reservation_id, self.options)


def _created(success: Success, options: CallOptions) -> ReservationCreateResponse:
    """Return the response to a create of which no guard is made."""
    ids = {**success.ids, "trace_id": success.trace_id or options.trace_id}
    return ReservationCreateResponse.read(success.body, **ids)


def _with_id(outcome: Outcome) -> Outcome:
    """Treat an ALLOW without a usable id as ambiguous.

    See `docs/protocol/decisions-and-caps.md#allowed-without-an-id`.
    """
    if (
        isinstance(outcome, Success)
        and not is_id(outcome.body.get("reservation_id"))
        and outcome.body["decision"] in ALLOWING
        and not _is_observed(outcome)
    ):
        message = "the server allowed the reservation but returned no usable reservation_id"
        return Ambiguous(200, message, outcome.request_id, outcome.trace_id)
    return outcome


async def clean_up_create(io: Io, call: Call) -> Outcome:
    """Send a create once more whose caller has left, with its own key, and release the reservation that it made."""
    outcome = await io.send(call)
    if isinstance(outcome, Success) and is_id(reservation_id := outcome.body.get("reservation_id")):
        # The same key for every repetition of the cleanup.
        key = uuid.uuid5(_CLEANUP, str((call.body or {}).get("idempotency_key"))).hex
        await send_release(io, Release(reservation_id, key, CALLER_LEFT, call.options))
    return outcome


def _is_observed(outcome: Outcome) -> bool:
    """Return whether the response to a live create has the form of observe mode: a decision, and nothing held.

    The response has no mark of the mode. A response with an id or an expiry, but not both, is ambiguous.
    """
    if not isinstance(outcome, Success):
        return False
    body = outcome.body
    if body.get("reservation_id") is not None:
        return False
    is_known = body["decision"] in ALLOWING or body["decision"] == DENY
    return is_known and body.get("expires_at_ms") is None and bool(body.get("affected_scopes"))


async def _replay_error(io: Io, key: str, reservation_id: str, options: CallOptions) -> ReservationNotActiveError:
    """Read the reservation, and return the error for a replay: it contains status, amount and time of the first run.

    One attempt is made. Without a usable response, the error only says that the reservation has ended.
    """
    outcome = await io.send(Call(GET_RESERVATION, {"reservation_id": reservation_id}, options=options))
    if isinstance(outcome, RejectedResponse) and outcome.expired:
        return _not_again(key, reservation_id, "expired without a commit", status="EXPIRED")
    if not isinstance(outcome, Success):
        return _not_again(key, reservation_id, "has ended")
    first = ReservationDetail.read(outcome.body)
    amount = f" {first.committed}" if first.committed is not None else ""
    what = f"{first.status.lower()}{amount}{_time_of(first.finalized_at_ms)}"
    ids = {"status": first.status, "committed": first.committed, "finalized_at_ms": first.finalized_at_ms}
    return _not_again(key, reservation_id, what, **ids)


def _not_again(key: str, reservation_id: str, what: str, **first: Any) -> ReservationNotActiveError:
    """Return the error for a replay. `what`: what has become of the reservation; `first`: the members that say so."""
    return ReservationNotActiveError(
        f"idempotency_key {key!r:.80} was used before: reservation {reservation_id} {what}, so the block does not run "
        "again; use a new key for new work",
        reservation_id=reservation_id,
        **first,
    )


def _time_of(at_ms: int | None) -> str:
    try:
        return "" if at_ms is None else f" at {datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):  # a time that no calendar has
        return ""


def report_denied(io: Io, request: ReserveRequest, error: CyclesError) -> None:
    """Report that a reservation was denied."""
    name_far_above(io, request, error)
    io.report("Denied", error, estimate=request.estimate, action=request.action.name, reason=str(error))


def _guard_without_response(
    io: Io, request: ReserveRequest, key: str, options: CallOptions, outcome: NoSuccess
) -> GuardState:
    guard = GuardState(request, key, options, io.clock.now_ms(), None)
    guard.unreachable_detail = describe(outcome)
    return guard


def report_unreserved(io: Io, guard: GuardState) -> None:
    """Report that a block runs without a reservation."""
    io.report(
        "Unreserved",
        trace_id=guard.trace_id,
        estimate=guard.estimate,
        action=guard.request.action.name,
        detail=guard.unreachable_detail,
    )


async def _open_shadow(io: Io, request: ReserveRequest, options: CallOptions) -> GuardState:
    """Request the decision as a dry run. The block runs with any decision, and without one."""
    key = request.idempotency_key or new_key()
    outcome = await send_write(io, create_call(request, key, options))
    if isinstance(outcome, Success):
        guard = GuardState(request, key, options, io.clock.now_ms(), outcome)
    else:
        guard = _guard_without_response(io, request, key, options, outcome)
    created = guard.created
    io.report(
        "ShadowDecided",
        trace_id=options.trace_id,
        estimate=request.estimate,
        action=request.action.name,
        decision=created.decision if created is not None else None,
        reason_code=created.denial_code if created is not None else None,
        detail=guard.unreachable_detail,
    )
    return guard
