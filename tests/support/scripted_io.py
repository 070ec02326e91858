"""An `Io` without a network, a journal and threads: a script has the responses, and `steps` what a flow did, in order.

    io = ScriptedIo([committed(42)])
    run(commit(io.io, io.guard(100), cycles.tokens(42), wait=True))
    assert io.story == "check commit > put commit 42 > ... > end heartbeat > [committed] report Settled > ..."

In brackets are the states of the guard, as a caller in another thread would see them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import cycles
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call, CallOptions
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import Settlement
from cycles._core.subjects import Action, Subject
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat import begin_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import CleanUp, Clock, Io, Settings, Settle, run
from cycles._flows.reports import event_of
from cycles._flows.signal import Signal

NOW_MS = 1_000_000
TTL_MS = 60_000
SCOPE = "tenant:acme"


def success(*, after_ms: float = 0, **body: Any) -> Success:
    received_s = (NOW_MS + after_ms) / 1000
    return Success(body, "req-1", "trace-1", received_s, received_s, json.dumps(body).encode())


def allowed(**changes: Any) -> Success:
    body = {"decision": "ALLOW", "reservation_id": "r1", "expires_at_ms": NOW_MS + TTL_MS, "affected_scopes": [SCOPE]}
    return success(**{**body, "remaining_ttl_ms": TTL_MS, **changes})


def extended(after_ms: float = 0, remaining_ms: int | None = TTL_MS) -> Success:
    expires_at_ms = NOW_MS + int(after_ms) + (remaining_ms or TTL_MS)
    return success(after_ms=after_ms, status="ACTIVE", expires_at_ms=expires_at_ms, remaining_ttl_ms=remaining_ms)


def committed(amount: int) -> Success:
    return success(status="COMMITTED", charged=tokens(amount))


def recorded(**changes: Any) -> Success:
    return success(status="APPLIED", event_id="e1", **changes)


def tokens(amount: int) -> dict[str, Any]:
    return cycles.tokens(amount).to_dict()


def rejected(status: int, code: str | None = None, message: str = "no", **changes: Any) -> RejectedResponse:
    return RejectedResponse(status, code, message, "req-9", "trace-9", **changes)


class ScriptedIo:
    """Does nothing but note the steps. An exception in the script is raised in place of the step that it is for.

    Attributes:
        responses: To the requests, in order.
        puts: The results of saving a record, in order; then `SAVED`.
        takes: Whether the background takes a settlement without a caller.
        journal: The records of others, by reservation.
        is_traced: Whether the client has a tracer.
        raises: Raised once at the first step that begins with this text.
    """

    def __init__(self, responses: Sequence[Outcome | BaseException] = (), **script: Any) -> None:
        self.responses = list(responses)
        self.puts: list[PutResult] = list(script.get("puts", ()))
        self.takes: bool = script.get("takes", True)
        self.journal: dict[str, Record] = script.get("journal", {})
        self.is_traced: bool = script.get("is_traced", True)
        self.raises: dict[str, BaseException] = dict(script.get("raises", {}))
        self.acts: dict[str, Callable[[], object]] = {}
        self.settings = Settings("http://x", 5.0, script.get("max_retries", 1), "kept in rejected/")
        self.clock_ms = float(NOW_MS)
        self.approval_ms = 0  # how long a person needs
        self.watched: GuardState | None = None
        self._state: str | None = "active"
        self.steps: list[str] = []
        self.calls: list[Call] = []
        self.events: list[Any] = []
        self.work: list[Any] = []
        self.records: list[Record] = []
        self.unfinished: frozenset[str] = frozenset()
        self.begun: list[str] = []
        self.given: list[CallOptions] = []
        """The options of its guards."""
        self.known_trace_id: str | None = None
        """The trace id that the last guard continues; its options have another one, which every story has."""
        self.on_clock: Callable[[], object] | None = None
        """Called once, when a flow looks at the clock: a signal handler in the middle of it."""
        self.folds: dict[str, str] = {}
        """Sequences of steps that `story` names."""
        self.others_run: Callable[[], object] = lambda: None
        """Called when a caller waits for a signal that is not set: other threads run meanwhile."""

    @property
    def io(self) -> Io:
        return cast(Io, self)

    @property
    def clock(self) -> Clock:
        if self.on_clock is not None:
            act, self.on_clock = self.on_clock, None
            act()
        return Clock(lambda: self.clock_ms, lambda: int(self.clock_ms), lambda: self.clock_ms, lambda: 0.5)

    def note(self, step: str) -> None:
        state = None if self.watched is None else self.watched.state
        self.steps.append(step if state in (None, self._state) else f"[{state}] {step}")
        self._state = state
        for begin in list(self.acts):
            if step.startswith(begin):
                self.acts.pop(begin)()
        for begin in list(self.raises):
            if step.startswith(begin):
                raise self.raises.pop(begin)

    @property
    def story(self) -> str:
        story = " > ".join(self.steps)
        for steps, name in self.folds.items():
            story = story.replace(steps, name)
        return story

    def run(self, flow: Coroutine[Any, Any, Any]) -> str:
        """Run a flow, and return its steps with what it returned or raised."""
        try:
            value = run(flow)
        except BaseException as error:
            self.steps.append(f"raise {type(error).__name__}")
        else:
            is_settlement = isinstance(value, Settlement)
            self.steps.append(f"return {value.status} {value.actual.amount}" if is_settlement else f"return {value}")
        return self.story

    def of(self, name: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == name]

    async def send(self, call: Call) -> Outcome:
        self.calls.append(call)
        self.note(f"send {short(call)}")
        assert self.responses, f"no response is left: {self.story}"
        response = self.responses.pop(0)
        if isinstance(response, BaseException):
            raise response
        return response

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        self.note(f"wait {'for ever' if timeout_s is None else f'{timeout_s:g} s'}")
        if not signal.is_set:
            self.others_run()
        if not signal.is_set:
            assert timeout_s is not None, f"no other thread sets the signal: {self.story}"
            self.clock_ms += timeout_s * 1000
        return signal.is_set

    async def put(self, record: Record) -> PutResult:
        self.records.append(record)
        unknown = " may have arrived" if record.attempt_unknown else ""
        later = "" if record.not_before_ms is None else f" not before {record.not_before_ms - NOW_MS} ms"
        since = "" if record.event_since_ms is None else f" since {record.event_since_ms - NOW_MS} ms"
        self.note(f"put {record.mode} {record.actual.amount}{since}{unknown}{later}")
        return self.puts.pop(0) if self.puts else PutResult.SAVED

    async def finish(self, record: Record, result: object) -> None:
        self.note(f"finish {record.mode} {record.actual.amount} {type(result).__name__}")

    def finish_later(self, record: Record, result: object) -> None:
        self.note(f"finish later {record.mode} {record.actual.amount} {type(result).__name__}")

    async def ensure_journal(self) -> None:
        self.note("ensure journal")

    async def pending(self, reservation_id: str) -> Record | None:
        self.note(f"pending {reservation_id}")
        return self.journal.get(reservation_id)

    def unsettled(self) -> frozenset[str]:
        self.note("unsettled")
        return self.unfinished

    async def sync(self, log: Any) -> None:
        log.sync()

    def check(self, call: Call) -> None:
        self.note(f"check {short(call)}")

    def schedule(self, heartbeat: Heartbeat) -> None:
        self.note(f"schedule {getattr(heartbeat.step, 'due_ms', 0) - NOW_MS:g}")

    def hand_over(self, work: Any, *, now: bool) -> bool:
        self.work.append(work)
        unsaved = " unsaved" if isinstance(work, Settle) and not work.is_saved else ""
        self.note(f"queue {type(work).__name__}{unsaved} {'now' if now else 'later'}")
        return self.takes or not isinstance(work, Settle)

    def begin_trace(self, request: ReserveRequest, known: str | None = None) -> CallOptions:
        self.known_trace_id = known
        return self.give(Trace(self) if self.is_traced else None)

    def give(self, trace: Trace | None = None) -> CallOptions:
        self.given.append(CallOptions("t" * 32, trace=trace))
        return self.given[-1]

    def with_other_options(self) -> list[str]:
        """Return the requests, also those of the background, whose options are not those of a guard."""
        requests = [(short(call), call.options) for call in self.calls]
        requests += [
            (f"clean up {short(work.call)}", work.call.options) for work in self.work if isinstance(work, CleanUp)
        ]
        requests += [("release later", work.options) for work in self.work if isinstance(work, Release)]
        return [name for name, options in requests if not any(options is each for each in self.given)]

    async def approve(self, request: ReserveRequest) -> None:
        if not request.is_approved:  # else there is nothing to ask
            self.note("approve")
            self.clock_ms += self.approval_ms

    def is_enabled_for(self, level: int) -> bool:
        return True

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        self.events.append(event_of(name, ids, members))
        self.note(f"report {name}")

    def take(self, guard: GuardState) -> None:
        """Note that a guard has an owner."""
        self.note("take")

    def guard(
        self,
        estimate: int = 100,
        *,
        is_held: bool = True,
        observed: bool = False,
        remaining_ms: Any = TTL_MS,
        **options: Any,
    ) -> GuardState:
        """Return a guard with a heartbeat and with spend that is written ahead, whose steps are noted from now on.

        Without `is_held` no server could be reached to reserve, or none was to reserve: nothing is held.
        """
        request = request_of(estimate, **options)
        response = allowed(remaining_ttl_ms=remaining_ms) if is_held else None
        if observed or request.shadow:
            response = success(decision="DENY", reason_code="BUDGET_EXCEEDED", affected_scopes=[SCOPE])
        guard = GuardState(request, "key-1", self.give(Trace(self)), self.clock_ms, response, observed=observed)
        guard.commit_key = "key-2"
        if response is not None and "reservation_id" in response.body:
            begin_heartbeat(self.io, guard, "r1", response)
            assert guard.own_heartbeat is not None
            guard.own_heartbeat.timer = _Noting(self, "heartbeat")
            guard.ahead = Ahead(self)
        self.watched = guard
        self.begun = list(self.steps)
        self.steps.clear()
        return guard


def short(call: Call) -> str:
    return call.operation.removesuffix("Reservation").removeprefix("create").lower() or "reserve"


def request_of(estimate: int = 100, **options: Any) -> ReserveRequest:
    subject, action = Subject(tenant="acme"), Action("test", "work")
    return ReserveRequest(estimate=cycles.tokens(estimate), subject=subject, action=action, ttl_ms=TTL_MS, **options)


class _Noting:
    """A timer that notes when it is cancelled."""

    def __init__(self, io: ScriptedIo, name: str) -> None:
        self._io = io
        self._name = name

    def cancel(self) -> None:
        self._io.note(f"end {self._name}")


class Trace:
    """The trace of one guard."""

    def __init__(self, io: ScriptedIo) -> None:
        self._io = io

    def opened(self, guard: GuardState) -> None:
        self._io.note(f"trace of {guard.state} guard opens")

    def refused(self, error: BaseException) -> None:
        self._io.note(f"trace without a guard: {type(error).__name__}")

    def ended(self, guard: GuardState) -> None:
        self._io.note("end trace")


class Ahead:
    """Spend that is written ahead."""

    def __init__(self, io: ScriptedIo) -> None:
        self._io = io
        self.is_left = True

    def replace(self, record: Record) -> None:
        self._io.note(f"replace ahead by {record.mode} {record.actual.amount}")

    def end(self) -> None:
        if self.is_left:
            self._io.note("end ahead")
        self.is_left = False


UNSENT = Unreachable("refused", sent=False)
LOST = Unreachable("timed out")
