"""What of a guard's spend is written ahead, and when: without a file, and on a clock that the test moves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import RecordError
from cycles._drivers import write_ahead as module
from cycles._drivers.write_ahead import INTERVAL_S, Entry, WriteAhead
from cycles._journal.files.spend import LARGE

T = cycles.tokens


class Slot:
    def __init__(self, size: int) -> None:
        self.size = size
        self.records: list[bytes] = []
        self.ended = False

    def write(self, record: bytes) -> bool:
        if self.ended or len(record) > self.size:
            return False
        self.records.append(record)
        return True

    def end(self) -> None:
        self.ended = True


class Log:
    """Slots of 16 and of 32 bytes."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[None] = contextlib.nullcontext()
        self.slots: list[Slot] = []
        self.error: OSError | None = None
        self.closed = 0

    def open_slot(self, length: int) -> Slot | None:
        if self.error is not None:
            raise self.error
        if length > 32:
            return None
        self.slots.append(Slot(16 if length <= 16 else 32))
        return self.slots[-1]

    def close(self) -> None:
        self.closed += 1

    @property
    def written(self) -> list[bytes]:
        return [record for slot in self.slots for record in slot.records]


class Guard:
    def __init__(self, **members: Any) -> None:
        self.name = "the guard"
        self.ahead: Any = None
        self.known: Any = None
        self.counted: Any = None
        self.sent = 0
        self.sends_nothing = self.finalized = self.is_ended_later = False
        self.settler: Any = None
        self.estimate = T(100)
        self.request = SimpleNamespace(actual=None)
        self.usage = "usage"
        self.__dict__.update(members)

    def check_unit(self, amount: cycles.Amount) -> None:
        if amount.unit != "TOKENS":
            raise ValueError


class Ahead:
    """The spend of a client's guards, its timers and its problems."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, journaled: bool = True, has_log: bool = True) -> None:
        self.now_s = 100.0
        self.log = Log()
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.problems: list[str] = []
        self.short_of_threads = False
        self.on_encode: Callable[[], object] = lambda: None
        self.padding = ""
        records: Any = SimpleNamespace(spend_log=lambda: self.log if has_log else None, journaled=journaled)
        pool: Any = SimpleNamespace(scheduler=self)
        io: Any = SimpleNamespace()
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(module, "ahead_record", lambda io, guard, amount, sent: (amount.amount, amount.unit, sent))
        monkeypatch.setattr(module, "encode", self.encode)
        self.ahead = WriteAhead(records, io, pool, self.problems.append)

    def encode(self, record: Any) -> bytes:
        self.on_encode()
        if isinstance(record, str):
            return record.encode()
        amount, unit, sent = record
        assert unit == "TOKENS"
        return f"{amount}{'+' * sent}{self.padding}".encode()

    def at(self, when_s: float, job: Callable[[], object], _: object) -> None:
        self.timers.append((when_s, job))

    def run_timers(self) -> None:
        timers, self.timers = self.timers, []
        for when_s, job in timers:
            self.now_s = max(self.now_s, when_s)
            job()

    def spend(self, guard: Any, amount: int) -> None:
        guard.known = T(amount)
        self.ahead.spent(guard)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return Ahead(monkeypatch)


def test_spend_is_written_at_first_and_then_once_a_second(ahead: Ahead) -> None:
    guard, other = Guard(), Guard()
    ahead.spend(guard, 1)
    assert ahead.log.written == [b"1"]
    ahead.now_s += INTERVAL_S - 0.25
    for amount in (2, 3):
        ahead.spend(guard, amount)
    ahead.spend(other, 7)
    ahead.spend(other, 8)
    assert ahead.log.written == [b"1", b"7"]
    assert [when_s for when_s, _ in ahead.timers] == [100.75 + INTERVAL_S]  # one for both
    ahead.run_timers()
    assert [slot.records for slot in ahead.log.slots] == [[b"1", b"3"], [b"7", b"8"]]
    ahead.now_s += INTERVAL_S
    ahead.spend(guard, 4)
    assert ahead.log.slots[0].records == [b"1", b"3", b"4"]
    assert ahead.timers == []


def test_a_guard_that_has_ended_before_the_second_is_over_writes_nothing(ahead: Ahead) -> None:
    guard: Any = Guard()
    for amount in (1, 2):
        ahead.spend(guard, amount)
    guard.finalized = True
    guard.ahead.end()
    ahead.run_timers()
    assert ahead.log.written == [b"1"]
    assert ahead.log.slots[0].ended


def test_a_guard_that_has_ended_keeps_no_other_one_from_being_written(ahead: Ahead) -> None:
    guards: list[Any] = [Guard(), Guard(), Guard()]
    for amount in (1, 2):
        for guard in guards:
            ahead.spend(guard, amount)
    guards[1].finalized = True
    ahead.run_timers()
    assert [slot.records for slot in ahead.log.slots] == [[b"1", b"2"], [b"1"], [b"1", b"2"]]


def test_without_threads_each_spend_is_written(ahead: Ahead) -> None:
    ahead.short_of_threads = True
    guard = Guard()
    for amount in (1, 2, 3):
        ahead.spend(guard, amount)
    assert ahead.log.written == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("members", "written"),
    [
        ({}, []),
        ({"known": T(5), "counted": T(9)}, [b"5"]),
        ({"known": T(0), "counted": T(9)}, [b"0"]),
        ({"counted": T(9)}, [b"9"]),
        ({"sent": 3}, [b"3+"]),
        ({"known": T(5), "sent": 3}, [b"8+"]),
        ({"known": T(5), "sends_nothing": True}, []),
        ({"known": T(5), "finalized": True}, []),
        ({"known": T(5), "finalized": True, "is_ended_later": True}, [b"5"]),
    ],
)
@pytest.mark.parametrize("journaled", [True, False])
def test_the_known_amount_and_the_bounds_of_requests_are_written(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], written: list[bytes], journaled: bool
) -> None:
    ahead = Ahead(monkeypatch, journaled)
    guard: Any = Guard(**members)
    ahead.ahead.spent(guard)
    assert ahead.log.written == (written if journaled else [])
    assert ahead.problems == []


def test_the_bound_of_a_request_is_written_before_it_is_sent_and_left_out_afterwards(ahead: Ahead) -> None:
    guard: Any = Guard()
    ahead.ahead.sent(guard, 30)
    ahead.ahead.sent(guard, 10)  # at once: it must not wait for the next second
    assert ahead.log.written == [b"30+", b"40+"]
    ahead.ahead.ended(guard, 30)
    assert (guard.sent, len(ahead.log.written)) == (10, 2)
    ahead.now_s += INTERVAL_S
    ahead.spend(guard, 7)
    ahead.ahead.ended(guard, 10)
    guard.known = None
    ahead.now_s += INTERVAL_S
    ahead.ahead.spent(guard)  # nothing is known any more, and the entry says so
    assert ahead.log.written[2:] == [b"17+", b"0"]


@pytest.mark.parametrize("takes", [True, False])
def test_the_chunk_of_a_pool_gets_the_spend_of_its_guards(ahead: Ahead, takes: bool) -> None:
    spent: list[tuple[object, int]] = []

    def note(guard: object, amount: int) -> bool:
        spent.append((guard, amount))
        return takes

    guard: Any = Guard(known=T(5), sent=2, settler=SimpleNamespace(spent=note))
    ahead.ahead.spent(guard)
    assert spent == [(guard, 7)]
    assert ahead.log.written == ([] if takes else [b"7+"])


@pytest.mark.parametrize(
    ("has_log", "error", "why"),
    [(False, None, "this system has no file locks"), (True, OSError("no space"), "no space")],
)
def test_a_log_that_cannot_be_had_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, has_log: bool, error: OSError | None, why: str
) -> None:
    ahead = Ahead(monkeypatch, has_log=has_log)
    ahead.log.error = error
    for _ in range(2):
        ahead.spend(Guard(), 5)
    assert ahead.problems == [f"spend is not written ahead ({why}); `kill -9` loses what is not committed"]
    ahead.ahead.close()
    assert ahead.log.closed == has_log


def test_a_record_that_is_too_large_is_reported_once_and_others_are_written(ahead: Ahead) -> None:
    ahead.padding = "x" * 32
    for _ in range(2):
        ahead.spend(Guard(), 5)
    ahead.padding = "x" * 31
    ahead.spend(Guard(), 5)
    assert ahead.log.written == [b"5" + b"x" * 31]
    assert ahead.problems == [
        "the spend of the guard is not written ahead: its record has 33 bytes, more than "
        f"{LARGE.half_bytes}; `kill -9` loses it until it is committed"
    ]


def test_what_json_cannot_express_is_not_written(ahead: Ahead) -> None:
    def fail() -> None:
        raise RecordError("no JSON")

    ahead.on_encode = fail
    ahead.spend(Guard(), 5)
    assert (ahead.log.written, ahead.problems) == ([], [])
    ahead.on_encode = lambda: None
    ahead.spend(Guard(), 6)
    assert ahead.log.written == [b"6"]


@pytest.mark.parametrize("finalized", [False, True])
def test_what_a_signal_handler_spends_during_a_write_is_written_later(ahead: Ahead, finalized: bool) -> None:
    guard: Any = Guard(is_ended_later=True)
    spends = [9]

    def spend() -> None:
        if spends:
            guard.known = T(spends.pop())
            guard.finalized = finalized

    ahead.on_encode = spend
    ahead.spend(guard, 5)
    assert ahead.log.written == [b"5"]
    assert len(ahead.timers) == (not finalized)
    ahead.run_timers()
    assert ahead.log.written == ([b"5"] if finalized else [b"5", b"9"])


@pytest.mark.parametrize(
    ("members", "actual", "counted"),
    [
        ({}, lambda usage: T(len(usage)), T(5)),
        ({"finalized": True}, lambda usage: T(5), None),
        ({"known": T(1)}, lambda usage: T(5), None),
        ({}, T(5), None),
        ({}, lambda usage: cycles.usd(5), None),
        ({}, lambda usage: 1 / 0, None),
    ],
)
def test_usage_counts_as_what_the_callers_callable_says(
    ahead: Ahead, members: dict[str, Any], actual: Any, counted: cycles.Amount | None
) -> None:
    guard: Any = Guard(**members, request=SimpleNamespace(actual=actual))
    ahead.ahead.counted(guard)
    assert guard.counted == counted
    assert ahead.log.written == ([] if counted is None else [b"5"])


# Entries


def entry(log: Log) -> Entry:
    made: Any = log
    return Entry(made)


def test_an_entry_that_grows_moves_to_a_larger_slot(ahead: Ahead) -> None:
    log = ahead.log
    it = entry(log)
    assert (it.is_left, it.is_due(INTERVAL_S - 0.5), it.is_due(INTERVAL_S)) == (False, False, True)
    assert it.write(b"a" * 16, 50.0)
    assert (it.is_left, it.is_due(50.0 + INTERVAL_S - 0.5), it.is_due(50.0 + INTERVAL_S)) == (True, False, True)
    assert it.write(b"b" * 17, 51.0)
    assert [(slot.size, slot.ended) for slot in log.slots] == [(16, True), (32, False)]
    assert not it.write(b"c" * 33, 52.0)
    assert [(slot.size, slot.ended) for slot in log.slots] == [(16, True), (32, False)]
    it.end()
    assert not it.is_left
    assert it.write(b"d", 53.0)  # it has ended: nothing is written, and no other slot is used
    assert log.written == [b"a" * 16, b"b" * 17]
    assert [slot.ended for slot in log.slots] == [True, True]


def test_an_entry_that_ends_before_its_first_write_leaves_nothing(ahead: Ahead) -> None:
    it = entry(ahead.log)
    it.end()
    assert it.write(b"a", 50.0)
    assert [slot.ended for slot in ahead.log.slots] == [True]


def test_a_commit_takes_the_place_of_all_later_spend(ahead: Ahead) -> None:
    commit: Any = "commit"
    it = entry(ahead.log)
    assert it.write(b"a", 50.0)
    it.replace(commit)
    assert it.write(b"b", 51.0)
    assert ahead.log.written == [b"a", b"commit", b"commit"]
    too_large: Any = "x" * 40
    other = entry(ahead.log)
    other.write(b"c", 50.0)
    other.replace(too_large)  # then the spend stays
    assert ahead.log.slots[1].records == [b"c"]
    assert not ahead.log.slots[1].ended


class Lock:
    """Lets another thread act when the lock is released."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act: Callable[[], object] | None = act

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


def test_spend_that_waits_for_a_commit_does_not_replace_it(ahead: Ahead) -> None:
    commit: Any = "commit"
    it = entry(ahead.log)
    it.write(b"a", 50.0)
    ahead.log.lock = Lock(lambda: it.write(b"b", 51.0))
    it.replace(commit)
    assert ahead.log.written == [b"a", b"commit", b"commit"]
