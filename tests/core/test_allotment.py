"""Random guards, denials, overages and kills against the arithmetic of pools: no amount is lost or doubled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cycles._core.allotment import CHUNK_TRANSITIONS, Allotment, Chunk, Move
from cycles._core.pool_log import (
    SLOT_BYTES,
    ChunkHeader,
    Slot,
    decode_header,
    decode_slots,
    encode_slot,
    recovered_record,
)
from cycles._core.pool_totals import ChunkTotals
from cycles._core.records import RecordError
from cycles._core.subjects import Action, Subject

MAX_HELD = 100
CHUNK = 25
SLOTS = 8
HEADER = ChunkHeader("r1", "http://x", "TOKENS", CHUNK, "k", Subject(tenant="acme"), Action("a", "b"))


class Guard:
    def __init__(self, chunk: Chunk, estimate: int) -> None:
        self.chunk = chunk
        self.estimate = estimate


class PoolMachine(RuleBasedStateMachine):
    """One sub-pool beside a model ledger and the slots that a killed process would leave."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Allotment(MAX_HELD, CHUNK, SLOTS)
        self.now_ms = 0.0
        self.guards: list[Guard] = []
        self.chunks: list[Chunk] = []
        self.slots: dict[Chunk, list[int]] = {}
        self.actuals = 0  # of commits that returned
        self.events = 0  # amounts of separate events, and those that are kept as rejected
        self.charged = 0  # by commits of chunks
        self.unsent: list[Chunk] = []

    @rule(estimate=st.integers(0, CHUNK + 5))
    def reserve(self, estimate: int) -> None:
        chunk = self.pool.admit(estimate)
        if chunk is not None:
            assert chunk.state == "open"
            self.guards.append(Guard(chunk, estimate))
            return
        for small in self.pool.too_small(estimate):
            self.pool.drained(small)
            self._seal_if_idle(small)
        step = self.pool.next_step(estimate, self.now_ms)
        if step.move is Move.OPEN:
            assert step.amount >= estimate
            self.pool.begin(step.amount)
        elif step.move is Move.WAIT:
            assert self.pool.opening or self.pool.sending, "a guard waits for other guards"

    @precondition(lambda self: self.pool.opening)
    @rule(outcome=st.sampled_from(["open", "deny", "fail"]), floor=st.integers(0, CHUNK))
    def server_responds(self, outcome: str, floor: int) -> None:
        opening = self.pool.opening
        if outcome == "open":
            chunk = Chunk(opening, SLOTS)
            self.chunks.append(chunk)
            self.slots[chunk] = []
            self.pool.opened(chunk)
        elif outcome == "deny":
            smaller = self.pool.smaller(min(floor, opening))
            assert smaller is None or floor <= smaller < opening or floor > opening
            if smaller is None:
                self.pool.failed(denied_until_ms=self.now_ms + 1000)
                assert self.pool.next_step(1, self.now_ms).move is Move.DENY
        else:
            self.pool.failed()

    @rule()
    def open_ahead(self) -> None:
        amount = self.pool.ahead(self.now_ms)
        if amount:
            self.pool.begin(amount)

    @precondition(lambda self: self.guards)
    @rule(data=st.data(), actual=st.integers(0, 2 * CHUNK), rejects=st.booleans())
    def commit(self, data: Any, actual: int, rejects: bool) -> None:
        guard = self.guards.pop(data.draw(st.integers(0, len(self.guards) - 1)))
        chunk = guard.chunk
        self.actuals += actual
        if not chunk.takes_spend:
            chunk.leave(guard.estimate)
            other = self.pool.admit(actual)
            if other is None:
                self.events += actual
                return
            chunk, guard = other, Guard(other, actual)
        if rejects and not chunk.fits(guard.estimate, actual):
            assert chunk.settle(guard.estimate, guard.estimate) == 0
            self.events += actual - guard.estimate
            self.slots[chunk].append(guard.estimate)
        else:
            excess = chunk.settle(guard.estimate, actual)
            self.events += excess
            self.slots[chunk].append(actual - excess)
        if chunk.is_used_up:
            self.pool.drained(chunk)
        self._seal_if_idle(chunk)

    @precondition(lambda self: self.guards)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        guard = self.guards.pop(data.draw(st.integers(0, len(self.guards) - 1)))
        if guard.chunk.takes_spend:
            guard.chunk.release(guard.estimate)
            self._seal_if_idle(guard.chunk)
        else:
            guard.chunk.leave(guard.estimate)

    @precondition(lambda self: any(chunk.takes_spend for chunk in self.chunks))
    @rule(data=st.data(), force=st.booleans())
    def end_chunk(self, data: Any, force: bool) -> None:
        chunk = data.draw(st.sampled_from([chunk for chunk in self.chunks if chunk.takes_spend]))
        self.pool.drained(chunk)
        if force or not chunk.guards:
            self._seal(chunk)

    @precondition(lambda self: self.unsent)
    @rule(is_confirmed=st.booleans())
    def chunk_is_settled(self, is_confirmed: bool) -> None:
        chunk = self.unsent.pop(0)
        self.pool.sent()
        assert chunk.spent <= chunk.amount
        if not chunk.used:
            assert self.pool.ended(chunk, "discard")
        elif is_confirmed:
            assert self.pool.ended(chunk, "confirm")
            self.charged += chunk.spent
        else:
            assert self.pool.ended(chunk, "reject")
            self.events += chunk.spent

    @rule(milliseconds=st.integers(1, 1500))
    def time_passes(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule(torn=st.booleans())
    def a_kill_would_leave_every_amount(self, torn: bool) -> None:
        for chunk, amounts in self.slots.items():
            if chunk.state not in ("open", "draining", "sealed"):
                continue
            content = HEADER.encode()
            for amount in amounts:
                content += (b"+" + encode_slot(amount, 1, 2, 3, "o")).ljust(SLOT_BYTES, b"\0")
            if torn:
                content += (b"\0" + encode_slot(7, 1, 2, 3, "o")).ljust(SLOT_BYTES, b"\0")
            header, record = recovered_record(content + bytes(SLOT_BYTES), 5)
            assert header == HEADER
            if not amounts:
                assert record is None
            else:
                assert record is not None
                assert record.actual.amount == chunk.spent

    def _seal_if_idle(self, chunk: Chunk) -> None:
        if chunk.state == "draining" and not chunk.guards:
            self._seal(chunk)

    def _seal(self, chunk: Chunk) -> None:
        if self.pool.sealed(chunk):
            self.unsent.append(chunk)

    @invariant()
    def each_chunk_adds_up(self) -> None:
        for chunk in self.chunks:
            live = sum(guard.estimate for guard in self.guards if guard.chunk is chunk)
            assert chunk.live == live
            if chunk.takes_spend:
                assert chunk.spent + chunk.live + chunk.free == chunk.amount
            assert chunk.free >= 0
            assert chunk.used + (chunk.guards if chunk.takes_spend else 0) <= SLOTS
            assert chunk.spent == sum(self.slots[chunk])

    @invariant()
    def held_is_bounded_and_exact(self) -> None:
        held = sum(chunk.amount for chunk in self.chunks if chunk.state in ("open", "draining", "sealed"))
        assert self.pool.held == held + self.pool.opening
        assert self.pool.held <= MAX_HELD
        assert self.pool.open == [chunk for chunk in self.chunks if chunk.state == "open"]

    @invariant()
    def every_amount_is_somewhere(self) -> None:
        unsettled = sum(chunk.spent for chunk in self.chunks if chunk.state in ("open", "draining", "sealed"))
        assert self.charged + self.events + unsettled == self.actuals


PoolMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
test_random_guards_denials_overages_and_kills = PoolMachine.TestCase


@given(st.lists(st.tuples(*(st.integers(0, 2**63 - 1) for _ in range(4)), st.sampled_from("oecd")), max_size=8))
def test_a_slot_is_read_as_it_was_written(slots: list[tuple[int, int, int, int, str]]) -> None:
    content = b""
    for slot in slots:
        encoded = encode_slot(*slot)
        assert len(encoded) < SLOT_BYTES
        content += b"+" + encoded + bytes(SLOT_BYTES - 1 - len(encoded))
    clipped = [
        Slot(slot[0], min(slot[1], 10**13 - 1), min(slot[2], 10**13 - 1), min(slot[3], 10**10 - 1), slot[4])
        for slot in slots
    ]
    assert list(decode_slots(content)) == clipped


@given(st.integers(0, SLOT_BYTES))
def test_a_slot_that_was_not_completed_counts_as_nothing(written: int) -> None:
    slot = encode_slot(2**63 - 1, 10**13 - 1, 10**13 - 1, 10**10 - 1, "e")
    assert list(decode_slots((b"\0" + slot[:written]).ljust(SLOT_BYTES, b"\0"))) == []


def test_the_header_is_read_as_it_was_written() -> None:
    subject, action = Subject(agent="é", dimensions={"a": "b"}), Action("k", "n", ["t"])
    encoded = ChunkHeader("rés-1\ud800", "http://x", "CREDITS", 5, "key", subject, action).encode()
    assert len(encoded) % SLOT_BYTES == 0
    with pytest.raises(RecordError):  # half of a surrogate pair cannot be part of a path
        decode_header(encoded)
    usable = ChunkHeader("rés-1", "http://x", "CREDITS", 5, "key", subject, action)
    assert decode_header(usable.encode()) == usable


NEGATIVE = HEADER.encode().replace(b'"amount":25', b'"amount":-1')


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"version":2}', NEGATIVE])
def test_another_file_is_no_log(line: bytes) -> None:
    with pytest.raises(RecordError):
        decode_header(line)


def test_the_totals_of_a_chunk_name_its_biggest_actions() -> None:
    totals = ChunkTotals()
    totals.actions = {f"action-{number}": [1, number] for number in range(100)}
    totals.tokens_in = 2**40
    totals.count_model("m")
    metadata, metrics = totals.metadata(100, {}), totals.metrics(100)
    assert list(metadata["actions"]) == [f"action-{number}" for number in range(99, 79, -1)]
    assert (metrics["tokens_input"], metrics["custom"]["tokens_input"]) == (2**31 - 1, 2**40)
    assert metrics["model_version"] == "m"
    totals.count_model("other")
    assert "model_version" not in totals.metrics(100)
    totals.actions = {"x" * 3000 + str(number): [1, number] for number in range(3)}
    assert len(totals.metadata(3, {})["actions"]) == 1


@pytest.mark.parametrize("length", range(150, 250, 3))
def test_the_metadata_of_a_commit_has_at_most_four_kibibytes(length: int) -> None:
    totals = ChunkTotals()
    totals.actions = {f"{number:0{length}}": [1, number] for number in range(20)}
    metadata = totals.metadata(20, {"pool": "p" * 12, "pool_chunk": 1_000})
    assert metadata["pool_chunk"] == 1_000
    assert 3_300 < len(json.dumps(metadata)) <= 4_096
    assert (len(metadata["actions"]) == 20) == (length <= 186)  # as many as fit


def test_every_state_of_a_chunk_that_ends_has_no_way_back() -> None:
    last = [state for state, following in CHUNK_TRANSITIONS.items() if not following]
    assert last == ["confirmed", "rejected", "empty"]


def test_an_estimate_above_the_chunk_is_reserved_directly() -> None:
    assert Allotment(MAX_HELD, CHUNK).next_step(CHUNK + 1, 0).move is Move.DIRECT


def test_live_guards_that_use_up_max_held_are_not_waited_for() -> None:
    pool = Allotment(CHUNK, CHUNK)
    pool.begin(CHUNK)
    pool.opened(Chunk(CHUNK))
    assert pool.admit(CHUNK) is not None
    assert pool.next_step(1, 0).move is Move.DIRECT


def test_a_success_doubles_the_size_after_denials() -> None:
    pool = Allotment(MAX_HELD, CHUNK)
    pool.begin(CHUNK)
    assert [pool.smaller(1) for _ in range(4)] == [12, 6, 3, 2]
    assert pool.smaller(1) is None
    pool.opened(Chunk(2))
    assert pool.size == 4
