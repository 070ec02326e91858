"""What one attempt at some pending work sends, what it leaves for the next one, and when that comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from cycles._core.messages.outcome import Ambiguous, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call, CallOptions
from cycles._core.protocol import CREATE_RESERVATION, STUCK_AFTER_MS, UNLISTED_LONGEST_PAUSE_S
from cycles._core.settlement.record import Made, Record, file_name
from cycles._core.settlement.schedule import Item
from cycles._core.settlement.settlement import Rejected, Settled, Taken, Unresolved
from cycles._drivers.work import work as module
from cycles._drivers.work.work import RELEASE_TRIES, Done, Found, Later, attempt, is_settlement, key_of, record_of
from cycles._flows.guard_state import Release
from cycles._flows.io import CleanUp, Settle, run
from cycles._journal.journal import Entry

NOW_MS = 1_700_000_000_000
SETTLED: Any = Settled("settlement")  # type: ignore[arg-type]
DOWN = Unreachable("down")
OPTIONS = CallOptions("trace")


def rejected(status: int, code: str | None = None, *, conformant: bool = True, message: str = "no") -> RejectedResponse:
    return RejectedResponse(status, code, message, conformant=conformant)


class Flow:
    """The parts of a client that an attempt uses, and what it did with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.result: Any = SETTLED
        self.outcome: Any = DOWN
        self.attempts: list[dict[str, Any]] = []
        self.concluded: list[dict[str, Any]] = []
        self.finished: list[Any] = []
        self.reports: list[Any] = []
        self.stuck: list[str] = []
        self.ended: list[Record] = []
        self.sent: list[Call] = []
        self.record: Record | None = record()
        self.latest: Record | None = None
        self.rest: Record | None = None
        self.rests: list[tuple[Record, object]] = []
        self.taken = False
        self.journaled = True
        self.now_s = 500.0
        self.clock = SimpleNamespace(wall_ms=lambda: NOW_MS)
        self.left = SimpleNamespace(load=lambda entry: self.record)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(module, "attempt_settlement", self.attempt_settlement)
        monkeypatch.setattr(module, "rest_of", self.rest_of)
        monkeypatch.setattr(module, "clean_up_create", self.clean_up)
        monkeypatch.setattr(module, "conclude", self.conclude)
        monkeypatch.setattr(module, "report_pending", lambda io, record, detail, journaled: self.stuck.append(detail))

    async def attempt_settlement(self, io: Any, record: Record, guard: Any, **options: Any) -> Any:
        self.attempts.append({"record": record, "guard": guard, **options})
        return record, self.result

    async def rest_of(self, io: Any, record: Record, guard: Any) -> Record | None:
        self.rests.append((record, guard))
        return self.rest

    async def clean_up(self, io: Any, call: Call) -> Any:
        self.sent.append(call)
        return self.outcome

    async def send(self, call: Call) -> Any:
        self.sent.append(call)
        return self.outcome

    async def finish(self, record: Record, result: Any) -> None:
        self.finished.append(result)

    def conclude(self, io: Any, record: Record, result: Any, guard: Any, **options: Any) -> None:
        self.concluded.append({"result": result, "guard": guard, **options})

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        self.reports.append((name, ids, members))

    def is_taken(self, _: Record) -> bool:
        return self.taken

    def attempt_ended(self, record: Record) -> None:
        self.ended.append(record)

    def run(self, item: Any) -> Any:
        records: Any = SimpleNamespace(
            left=self.left,
            journaled=self.journaled,
            is_taken=self.is_taken,
            attempt_ended=self.attempt_ended,
            latest=lambda record: self.latest or record,
        )
        this: Any = self
        return run(attempt(this, records, item))


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Flow:
    return Flow(monkeypatch)


def record(**members: Any) -> Record:
    return evolve(Record(reservation_id="res-1", base_url="http://x", commit_body={}, made=Made(0.0)), **members)


def item(work: Any, attempts: int = 0) -> Any:
    return Item("key", work, 0.0, attempts=attempts)


def settle(guard: Any = None, *, detail: str | None = None, is_saved: bool = True, **members: Any) -> Settle:
    return Settle(record(**members), guard, detail=detail, is_saved=is_saved, options=OPTIONS)


FOUND = Found(Entry("res-1.json"))
EVENT = {"mode": "event", "event_fallback_body": {}}


@pytest.mark.parametrize(
    ("work", "journaled", "found", "is_saved", "recovered"),
    [
        (settle(), True, False, True, False),
        (settle(is_saved=False), True, False, False, True),
        (settle(detail="failed"), True, True, True, True),
        (settle(detail="failed"), False, False, True, True),
        (settle(detail="failed", is_saved=False), True, False, False, True),
        (FOUND, True, True, True, True),
        (FOUND, False, True, True, True),
        (Found(Entry("res-1.json"), is_saved=False), True, True, False, True),
    ],
)
def test_an_attempt_says_what_other_processes_may_have_sent(
    flow: Flow, work: Any, journaled: bool, found: bool, is_saved: bool, recovered: bool
) -> None:
    flow.journaled = journaled
    assert flow.run(item(work)) == Done(settled=True)
    [sent] = flow.attempts
    assert (sent["found"], sent["is_saved"]) == (found, is_saved)
    assert sent["options"] == (CallOptions() if isinstance(work, Found) else OPTIONS)
    assert [(each["result"], each["recovered"]) for each in flow.concluded] == [(SETTLED, recovered)]
    assert flow.finished == [SETTLED]


@pytest.mark.parametrize(
    ("members", "is_saved"), [(EVENT, False), ({**EVENT, "attempt_unknown": True}, True), ({}, True)]
)
def test_an_event_of_another_process_is_saved_before_it_is_sent(
    flow: Flow, members: dict[str, Any], is_saved: bool
) -> None:
    flow.record = record(**members)
    flow.run(item(FOUND))
    flow.run(item(settle(detail="failed", **members)))
    assert [sent["is_saved"] for sent in flow.attempts] == [is_saved, True]


def test_only_a_settled_amount_is_counted(flow: Flow) -> None:
    flow.result = Rejected(rejected(409, "BUDGET_EXCEEDED"), "BUDGET_EXCEEDED")
    assert flow.run(item(settle())) == Done(settled=False)
    assert flow.finished == [flow.result]


def test_a_record_that_is_gone_is_nothing_to_do(flow: Flow) -> None:
    flow.record = None
    assert flow.run(item(FOUND)) is None
    assert flow.attempts == flow.concluded == flow.finished == []


@pytest.mark.parametrize(("is_saved", "is_latest"), [(True, False), (False, True)])
def test_an_interrupted_attempt_continues_with_what_was_saved_last(flow: Flow, is_saved: bool, is_latest: bool) -> None:
    flow.latest = record(recorded_at_ms=7)
    flow.run(item(settle(is_saved=is_saved)))
    [sent] = flow.attempts
    assert sent["record"].recorded_at_ms == (7 if is_latest else 0)
    assert sent["record"].may_have_arrived is is_latest


@pytest.mark.parametrize(
    "work", [FOUND, settle(), settle(guard=SimpleNamespace(own_heartbeat=None))], ids=["found", "no guard", "a guard"]
)
@pytest.mark.parametrize(("has_rest", "result"), [(False, SETTLED), (True, SETTLED), (True, Taken())])
def test_what_another_client_has_claimed_is_left_to_it_but_for_the_rest(
    flow: Flow, work: Any, has_rest: bool, result: Any
) -> None:
    flow.taken, flow.result = True, result
    flow.rest = record(recorded_at_ms=9) if has_rest else None
    step = flow.run(item(work))
    assert [sent["record"].recorded_at_ms for sent in flow.attempts] == [9] * has_rest
    own = None if isinstance(work, Found) else work.guard
    assert flow.rests == [(record(), own)], "its log stays until the rest is saved"
    assert [sent["guard"] for sent in flow.attempts] == [own] * has_rest
    is_left = not has_rest or isinstance(result, Taken)
    assert step == (None if is_left else Done(settled=True))
    [concluded] = flow.concluded
    assert concluded["result"] == (Taken() if is_left else SETTLED)
    assert concluded["recovered"] is (is_left or isinstance(work, Found))
    assert flow.finished == ([] if is_left else [SETTLED])


@pytest.mark.parametrize(
    ("work", "not_before_ms", "is_deferred"),
    [
        (FOUND, NOW_MS + 3_000, True),
        (FOUND, NOW_MS, False),
        (settle(not_before_ms=NOW_MS + 3_000), NOW_MS, False),  # the queue has its time already
    ],
)
def test_a_record_of_an_earlier_process_keeps_its_retry_after(
    flow: Flow, work: Any, not_before_ms: int, is_deferred: bool
) -> None:
    flow.record = record(not_before_ms=not_before_ms)
    step = flow.run(item(work))
    deferred = Later("deferred by the server's Retry-After", outage=False, floor_s=503.0)
    assert step == (deferred if is_deferred else Done(settled=True))
    assert len(flow.attempts) == (not is_deferred)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DOWN, Later("down", outage=True)),
        (Unreachable("no slot", sent=False, queued=True), Later("no slot", outage=False)),
        (Ambiguous(200, "what"), Later("what", outage=True)),
        (rejected(503), Later("no (HTTP 503)", outage=True)),
        (rejected(500, "INTERNAL_ERROR"), Later("no (HTTP 500, INTERNAL_ERROR)", outage=True)),
        (rejected(401, "UNAUTHORIZED"), Later("no (HTTP 401, UNAUTHORIZED)", outage=True, rejected=True)),
        (rejected(403, "FORBIDDEN"), Later("no (HTTP 403, FORBIDDEN)", outage=True, rejected=True)),
        (rejected(429, "LIMIT_EXCEEDED"), Later("no (HTTP 429, LIMIT_EXCEEDED)", outage=True)),
        (rejected(409, "BUDGET_EXCEEDED"), Later("no (HTTP 409, BUDGET_EXCEEDED)", outage=False, rejected=True)),
        (rejected(404), Later("no (HTTP 404)", outage=True, rejected=True, longest_s=UNLISTED_LONGEST_PAUSE_S)),
        (rejected(409, "NEW"), Later("no (HTTP 409, NEW)", outage=False, rejected=True,
                                     longest_s=UNLISTED_LONGEST_PAUSE_S)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("work", [settle(), settle(detail="failed"), FOUND], ids=["first", "again", "found"])
def test_a_failure_says_when_the_next_attempt_may_help(flow: Flow, outcome: Any, expected: Later, work: Any) -> None:
    flow.result = Unresolved(outcome)
    flow.record = record(recorded_at_ms=NOW_MS)
    assert flow.run(item(evolve(work, record=flow.record) if isinstance(work, Settle) else work)) == expected
    assert flow.stuck == flow.finished == []


def test_a_failure_with_a_retry_after_has_its_time(flow: Flow) -> None:
    flow.result = Unresolved(rejected(429), retry_after_ms=2_500)
    step = flow.run(item(settle(not_before_ms=NOW_MS + 2_500)))
    assert step.floor_s == 502.5


@pytest.mark.parametrize("is_saved", [True, False])
def test_the_next_attempt_has_the_record_of_the_last_one(flow: Flow, is_saved: bool) -> None:
    flow.result = Unresolved(DOWN, is_saved=is_saved)
    again = item(settle(detail="failed"))
    flow.run(again)
    assert (again.value.record, again.value.is_saved, again.value.detail) == (record(), is_saved, "failed")
    read = item(FOUND)
    flow.run(read)
    assert read.value == Found(Entry(file_name("res-1")), is_saved)
    assert flow.ended == [record()]
    assert flow.concluded == []
    first = item(settle())
    flow.run(first)
    [concluded] = flow.concluded
    assert (concluded["result"], concluded["options"]) == (flow.result, OPTIONS)


@pytest.mark.parametrize(
    ("mode", "has_guard", "has_heartbeat", "ends"),
    [("event", True, True, 1), ("commit", True, True, 0), ("event", True, False, 0), ("event", False, False, 0)],
)
def test_the_lease_of_a_guard_whose_event_is_pending_is_renewed_no_longer(
    flow: Flow, mode: Any, has_guard: bool, has_heartbeat: bool, ends: int
) -> None:
    ended: list[int] = []
    heartbeat = SimpleNamespace(end=lambda: ended.append(1)) if has_heartbeat else None
    guard = SimpleNamespace(own_heartbeat=heartbeat) if has_guard else None
    flow.result = Unresolved(DOWN)
    flow.run(item(settle(guard, detail="failed", mode=mode, event_fallback_body={})))
    assert len(ended) == ends


@pytest.mark.parametrize(
    ("age_ms", "outcome", "is_reported"),
    [
        (STUCK_AFTER_MS, rejected(404), False),
        (STUCK_AFTER_MS + 1, rejected(404), True),
        (STUCK_AFTER_MS + 1, DOWN, False),
    ],
)
def test_what_is_stuck_for_a_day_is_reported_once(flow: Flow, age_ms: int, outcome: Any, is_reported: bool) -> None:
    flow.result = Unresolved(outcome)
    stuck = item(settle(detail="failed", recorded_at_ms=NOW_MS - age_ms))
    for _ in range(2):
        flow.run(stuck)
    assert flow.stuck == ["stuck for more than 24 hours: no (HTTP 404); see `cycles journal show res-1`"] * is_reported


# Releases and creates

RELEASE = Release("res-1", "key-1", "because", OPTIONS)
RELEASED = ("Released", RELEASE, {"trace_id": "trace", "reason": "because"})


def failed(detail: str) -> tuple[Any, ...]:
    return "ReleaseFailed", RELEASE, {"trace_id": "trace", "detail": detail, "retrying": False}


FINALIZED = "RESERVATION_FINALIZED"


@pytest.mark.parametrize(
    ("outcome", "attempts", "step", "reports"),
    [
        (Success({}, None, None, None, 0.0, b""), 0, Done(), [RELEASED]),
        (rejected(409, FINALIZED, message="already Released"), 0, Done(), [RELEASED]),
        (rejected(409, FINALIZED, message="already committed"), 0, Done(),
         [failed(f"already committed (HTTP 409, {FINALIZED})")]),
        (rejected(410, "RESERVATION_EXPIRED"), 0, Done(), [failed("no (HTTP 410, RESERVATION_EXPIRED)")]),
        (DOWN, RELEASE_TRIES - 2, Later("down", outage=True), []),
        (DOWN, RELEASE_TRIES - 1, None, [failed("down")]),
        (Unreachable("down", sent=False), 0, Later("down", outage=False), []),
        (rejected(401, message="INTERNAL_ERROR"), 0, Later("INTERNAL_ERROR (HTTP 401)", outage=False), []),
        (rejected(503), 0, Later("no (HTTP 503)", outage=True), []),
    ],
)  # fmt: skip
def test_a_release_is_tried_a_few_times(flow: Flow, outcome: Any, attempts: int, step: Any, reports: list[Any]) -> None:
    flow.outcome = outcome
    assert flow.run(item(RELEASE, attempts)) == step
    assert flow.reports == reports
    [sent] = flow.sent
    assert (sent.path, sent.body) == ({"reservation_id": "res-1"}, {"idempotency_key": "key-1", "reason": "because"})


LIFE_S = 7.0


@pytest.mark.parametrize(
    ("body", "age_s", "is_sent"),
    [
        ({"ttl_ms": 5_000, "grace_period_ms": 2_000}, LIFE_S, True),
        ({"ttl_ms": 5_000, "grace_period_ms": 2_000}, LIFE_S + 0.5, False),
        ({"ttl_ms": 5_000, "grace_period_ms": 0}, 5.5, False),
        ({"ttl_ms": 5_000}, 10.0, True),
        ({"ttl_ms": 5_000}, 10.5, False),
        ({"grace_period_ms": 2_000}, 62.0, True),
        ({"grace_period_ms": 2_000}, 62.5, False),
        (None, 65.0, True),
        (None, 65.5, False),
    ],
)
def test_a_create_is_cleaned_up_while_its_reservation_may_live(
    flow: Flow, body: Any, age_s: float, is_sent: bool
) -> None:
    work = item(CleanUp(Call(CREATE_RESERVATION, body=body)))
    work.since = flow.now_s - age_s
    step = flow.run(work)
    assert step == (Later(f"{CREATE_RESERVATION}: down", outage=True) if is_sent else None)
    assert flow.sent == [work.value.call] * is_sent


@pytest.mark.parametrize(
    ("outcome", "step", "lives_on"),
    [
        (Success({}, None, None, None, 0.0, b""), Done(), False),
        (rejected(409, "BUDGET_EXCEEDED"), Done(), False),
        (rejected(409, "BUDGET_EXCEEDED", conformant=False), "no (HTTP 409, BUDGET_EXCEEDED)", False),
        (rejected(404), "no (HTTP 404)", False),
        (DOWN, "down", True),
        (Ambiguous(200, "what"), "what", True),
        (Unreachable("down", sent=False), "down", False),
    ],
)
def test_the_life_of_a_create_begins_again_with_each_attempt_that_may_have_made_it(
    flow: Flow, outcome: Any, step: Any, lives_on: bool
) -> None:
    flow.outcome = outcome
    work = item(CleanUp(Call(CREATE_RESERVATION, body={})))
    work.since = 490.0
    is_down = isinstance(outcome, Unreachable | Ambiguous)
    assert flow.run(work) == (Later(f"{CREATE_RESERVATION}: {step}", outage=is_down) if isinstance(step, str) else step)
    assert work.since == (500.0 if lives_on else 490.0)


def test_each_kind_of_work_has_its_key() -> None:
    created = CleanUp(Call(CREATE_RESERVATION, body={"idempotency_key": "k"}))
    works: list[Any] = [settle(), FOUND, RELEASE, created, CleanUp(Call(CREATE_RESERVATION))]
    assert [key_of(work) for work in works] == [
        file_name("res-1"),
        "res-1.json",
        "release:key-1",
        "create:k",
        "create:",
    ]
    assert [is_settlement(work) for work in works] == [True, True, False, False, False]
    records: Any = SimpleNamespace(left=SimpleNamespace(load=lambda entry: entry))
    assert [record_of(work, records) for work in works] == [record(), "res-1.json", None, None, None]
