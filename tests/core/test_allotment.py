"""Random guards, denials, overages and kills against the arithmetic of pools: no amount is lost or doubled."""

from __future__ import annotations

import itertools
import json
from binascii import crc32
from struct import pack
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cycles._core.amounts import INT64_MAX
from cycles._core.pool.allotment import CHUNK_TRANSITIONS, Allotment, Chunk, Move
from cycles._core.pool.chunk_record import ChunkHeader, decode_header, recovered_record
from cycles._core.pool.sums import HALF, SECTOR, ChunkAudit, End, Sums, Totals, decode, encode
from cycles._core.settlement.record import RecordError
from cycles._core.subjects import Action, Subject
from tests.support.short import fewer

MAX_HELD = 100
CHUNK = 25
HEADER = ChunkHeader("r1", "http://x", "TOKENS", CHUNK, "k", Subject(tenant="acme"), Action("a", "b"))


def ended(chunk: Chunk, estimate: int, amount: int) -> None:
    """End a guard with an amount that fits."""
    chunk.sums = chunk.sums.ended(
        estimate, 0, amount, None, 3, End(None, None, "n", (1, amount), None, 1), failed=False
    )


class Metrics:
    tokens_input = 7
    tokens_output = 9


def test_the_sums_after_each_step_of_a_chunk() -> None:
    end = End(None, None, "a", (1, 30), "model", 5)
    opened = Sums(100)
    admitted = opened.admitted(40)
    assert admitted == Sums(60, 40, 1, Totals(), None)
    assert admitted.released(40) == Sums(100, 0, 0, Totals(), None)
    ahead = admitted._replace(totals=Totals(ahead=5, changes=1))
    assert ahead.released(40, 5) == Sums(100, 0, 0, Totals(ahead=0, changes=2), None)
    assert ahead.released(40, 5, is_sealed=True) == Sums(60, 0, 0, Totals(ahead=5, changes=1), None)
    used = ahead.ended(40, 5, 30, Metrics(), 11, end, failed=True)
    assert used == Sums(70, 0, 0, Totals(30, 7, 9, 11, 1, 1, 0, 2), end)
    unused = admitted.ended(40, 0, 55, None, 11, end, failed=False)
    assert unused == Sums(45, 0, 0, Totals(55, 0, 0, 11, 1, 0, 0, 1), end)


class Guard:
    def __init__(self, chunk: Chunk, estimate: int) -> None:
        self.chunk = chunk
        self.estimate = estimate


class PoolMachine(RuleBasedStateMachine):
    """One sub-pool beside a model ledger and the slots that a killed process would leave."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Allotment[Chunk](MAX_HELD, CHUNK)
        self.now_ms = 0.0
        self.guards: list[Guard] = []
        self.chunks: list[Chunk] = []
        self.slots: dict[Chunk, list[int]] = {}
        self.actuals = 0  # of commits that returned
        self.events = 0  # amounts of separate events, and those that are kept as rejected
        self.charged = 0  # by commits of chunks
        self.unsent: list[Chunk] = []

    @initialize(limit=st.none() | st.integers(0, 2 * MAX_HELD), is_fixed=st.booleans())
    def choose_options(self, limit: int | None, is_fixed: bool) -> None:
        self.pool = Allotment[Chunk](MAX_HELD, CHUNK, is_fixed=is_fixed, limit=limit)

    @rule(estimate=st.integers(0, CHUNK + 5), waiting=st.lists(st.integers(0, CHUNK), max_size=5))
    def reserve(self, estimate: int, waiting: list[int]) -> None:
        chunk = self._chunk_with(estimate)
        if chunk is not None:
            assert chunk.state == "open"
            chunk.sums = chunk.sums.admitted(estimate)
            self.guards.append(Guard(chunk, estimate))
            return
        for small in self.pool.too_small(estimate):
            self.pool.drained(small)
            self._seal_if_idle(small)
        step = self.pool.next_step(estimate, self.now_ms, waiting)
        if step.move is Move.OPEN:
            most = self.pool.size if self.pool.is_fixed else self.pool.size + max(estimate, *waiting, 1) - 1
            assert max(1, estimate) <= step.amount <= max(most, estimate)
            self.pool.begin(step.amount)
        elif step.move is Move.WAIT:
            assert any((self.pool.opening, self.pool.sending)), "a guard waits for other guards"

    @precondition(lambda self: self.pool.opening)
    @rule(
        outcome=st.sampled_from(["open", "deny", "fail"]),
        floor=st.integers(0, CHUNK),
        left=st.integers(-5, 2 * MAX_HELD),
    )
    def server_responds(self, outcome: str, floor: int, left: int) -> None:
        opening = self.pool.opening
        if outcome == "open":
            chunk = Chunk(opening)
            self.chunks.append(chunk)
            self.slots[chunk] = []
            self.pool.opened(chunk, left)
        elif outcome == "deny":
            smaller = self.pool.smaller([min(floor, opening)], self.now_ms + 1000)
            if smaller is not None and floor <= opening:
                assert floor <= smaller < opening
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
            chunk.sums = chunk.sums.released(guard.estimate, is_sealed=True)
            other = self._chunk_with(actual)
            if other is None:
                self.events += actual
                return
            other.sums = other.sums.admitted(actual)
            chunk, guard = other, Guard(other, actual)
        excess = max(0, actual - guard.estimate - chunk.sums.free)
        if rejects and excess:
            excess = actual - guard.estimate
        ended(chunk, guard.estimate, actual - excess)
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
            guard.chunk.sums = guard.chunk.sums.released(guard.estimate)
            self._seal_if_idle(guard.chunk)
        else:
            guard.chunk.sums = guard.chunk.sums.released(guard.estimate, is_sealed=True)

    @precondition(lambda self: any(chunk.takes_spend for chunk in self.chunks))
    @rule(data=st.data(), force=st.booleans())
    def end_chunk(self, data: Any, force: bool) -> None:
        chunk = data.draw(st.sampled_from([chunk for chunk in self.chunks if chunk.takes_spend]))
        self.pool.drained(chunk)
        if force or not chunk.sums.guards:
            self._seal(chunk)

    @precondition(lambda self: self.unsent)
    @rule(is_confirmed=st.booleans())
    def chunk_is_settled(self, is_confirmed: bool) -> None:
        chunk = self.unsent.pop(0)
        self.pool.sent(chunk)
        assert chunk.sums.totals.spent <= chunk.amount
        rest = chunk.amount - chunk.sums.totals.spent
        if not chunk.sums.totals.calls:
            assert self.pool.ended(chunk, "discard") == chunk.amount
        elif is_confirmed:
            assert self.pool.ended(chunk, "confirm") == rest
            self.charged += chunk.sums.totals.spent
        else:
            assert self.pool.ended(chunk, "reject") == 0
            self.events += chunk.sums.totals.spent

    @rule(milliseconds=st.integers(1, 1500))
    def time_passes(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule(torn=st.booleans())
    def a_kill_would_leave_every_amount(self, torn: bool) -> None:
        for chunk, amounts in self.slots.items():
            if chunk.state not in ("open", "draining", "sealed"):
                continue
            cell = bytearray(SECTOR)
            for calls, spent in enumerate(itertools.accumulate(amounts), 1):
                half = encode(Totals(spent, calls=calls, changes=calls))
                cell[start(calls) : start(calls) + len(half)] = half
            if torn:
                half = encode(Totals(sum(amounts) + 7, changes=len(amounts) + 1))
                begin = start(len(amounts) + 1)
                # One byte is not written: it must not happen to be there, from the half that this one replaces.
                cell[begin : begin + len(half)] = half[:-1] + bytes([half[-1] ^ 0xFF])
            of_chunk = evolve(HEADER, amount=chunk.amount)  # whole estimates may need more than CHUNK
            header, record = recovered_record(of_chunk.encode() + bytes(cell), 5)
            assert header == of_chunk
            if not amounts:
                assert record is None
            else:
                assert record is not None
                assert record.actual.amount == chunk.sums.totals.spent

    def _chunk_with(self, estimate: int) -> Chunk | None:
        return next((chunk for chunk in self.pool.open if chunk.sums.free >= estimate), None)

    def _seal_if_idle(self, chunk: Chunk) -> None:
        if chunk.state == "draining" and not chunk.sums.guards:
            self._seal(chunk)

    def _seal(self, chunk: Chunk) -> None:
        if chunk.takes_spend:
            self.unsent.append(chunk)
        self.pool.sealed(chunk)

    @invariant()
    def each_chunk_adds_up(self) -> None:
        for chunk in self.chunks:
            live = sum(guard.estimate for guard in self.guards if guard.chunk is chunk)
            assert (chunk.sums.live, chunk.sums.guards) == (live, sum(guard.chunk is chunk for guard in self.guards))
            if chunk.takes_spend:
                assert chunk.sums.totals.spent + chunk.sums.live + chunk.sums.free == chunk.amount
            assert chunk.sums.free >= 0
            assert chunk.sums.totals.spent == sum(self.slots[chunk])

    @invariant()
    def held_is_bounded_and_exact(self) -> None:
        held = sum(chunk.amount for chunk in self.chunks if chunk.state in ("open", "draining", "sealed"))
        assert self.pool.held == held + self.pool.opening
        assert self.pool.held <= MAX_HELD
        assert self.pool.open == [chunk for chunk in self.chunks if chunk.state == "open"]

    @invariant()
    def every_amount_is_somewhere(self) -> None:
        unsettled = sum(
            chunk.sums.totals.spent for chunk in self.chunks if chunk.state in ("open", "draining", "sealed")
        )
        assert self.charged + self.events + unsettled == self.actuals


PoolMachine.TestCase.settings = settings(max_examples=fewer(150, 8), stateful_step_count=60, deadline=None)
test_random_guards_denials_overages_and_kills = PoolMachine.TestCase


def start(changes: int) -> int:
    """Return where the half of a state begins if each was written once."""
    return HALF * (changes % 2)


NUMBERS = st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=5)


@given(st.lists(NUMBERS, max_size=8))
def test_a_cell_has_the_latest_state(states: list[list[int]]) -> None:
    cell, latest = bytearray(SECTOR), Totals()
    for calls, (spent, tokens_in, tokens_out, latency, errors) in enumerate(states, 1):
        latest = Totals(spent, tokens_in, tokens_out, latency, calls, errors, changes=calls)
        half = encode(latest)
        assert len(half) < HALF
        cell[start(calls) : start(calls) + len(half)] = half
        assert decode(bytes(cell)) == latest
    assert decode(bytes(cell)) == latest


@given(st.integers(1, 10), st.data())
def test_a_copy_that_was_not_completed_leaves_the_state_before(calls: int, data: Any) -> None:
    """The bytes of a copy may arrive in any order."""
    cell, states = bytearray(SECTOR), [Totals(), *(Totals(10 * n, n, n, n, n, changes=n) for n in range(1, calls + 1))]
    for state in states[1:]:
        half = encode(state)
        before = bytes(cell)
        written = data.draw(st.sets(st.integers(0, len(half) - 1)))
        for index in written:
            cell[start(state.calls) + index] = half[index]
        assert decode(bytes(cell)) in (states[state.calls - 1], state), before
        cell[start(state.calls) : start(state.calls) + len(half)] = half
        assert decode(bytes(cell)) == state
    assert decode(bytes(cell)) == states[calls]


def test_counts_that_do_not_fit_are_the_largest_that_fits() -> None:
    cell = encode(Totals(5, 2**70, 1, 2**64, 1, 0, changes=1)).ljust(SECTOR, b"\0")
    assert decode(cell) == Totals(5, 2**64 - 1, 1, 2**64 - 1, 1, 0, changes=1)


def test_a_cell_of_version_2_is_recovered() -> None:
    """It has six numbers, and the number of calls is its serial number."""
    line = HEADER.encode().replace(b'"version":3', b'"version":2')
    halves = [pack(">6Q", spent, 1, 1, 20, calls, 0) for calls, spent in ((2, 12), (1, 7))]
    cell = b"".join((half + pack(">I", crc32(half))).ljust(256, b"\0") for half in halves)
    record = recovered_record(line + cell, 5)[1]
    assert record is not None
    assert record.actual.amount == 12
    assert recovered_record(line + bytes(512), 5) == (HEADER, None)


def test_what_live_guards_have_spent_is_charged_up_to_the_amount_of_the_chunk() -> None:
    for totals, charged in (
        (Totals(ahead=3, changes=1), 3),
        (Totals(7, calls=1, ahead=3, changes=2), 10),
        (Totals(20, calls=1, ahead=6, changes=2), HEADER.amount),
    ):
        record = recovered_record(HEADER.encode() + encode(totals).ljust(SECTOR, b"\0"), 5)[1]
        assert record is not None
        assert record.actual.amount == charged
    assert recovered_record(HEADER.encode() + encode(Totals(changes=2)).ljust(SECTOR, b"\0"), 5) == (HEADER, None)


def test_the_header_is_read_as_it_was_written() -> None:
    subject, action = Subject(agent="é", dimensions={"a": "b"}), Action("k", "n", ["t"])
    encoded = ChunkHeader("rés-1\ud800", "http://x", "CREDITS", 5, "key", subject, action).encode()
    assert len(encoded) % 512 == 0  # also of earlier versions, whose logs are read
    with pytest.raises(RecordError):  # half of a surrogate pair cannot be part of a path
        decode_header(encoded)
    usable = ChunkHeader("rés-1", "http://x", "CREDITS", 5, "key", subject, action)
    assert decode_header(usable.encode()) == usable


NEGATIVE = HEADER.encode().replace(b'"amount":25', b'"amount":-1')


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"version":3}', NEGATIVE])
def test_another_file_is_no_log(line: bytes) -> None:
    with pytest.raises(RecordError):
        decode_header(line)


def test_the_commit_of_a_chunk_names_its_biggest_actions() -> None:
    audit, totals = ChunkAudit(), Totals(tokens_input=2**40, calls=100)
    for number in range(100):
        audit.note(End(None, None, f"action-{number}", (1, number), "m", 5))
    metadata, metrics = audit.metadata(100, {}), audit.metrics(totals)
    assert list(metadata["actions"]) == [f"action-{number}" for number in range(99, 79, -1)]
    assert (metrics["tokens_input"], metrics["custom"]["tokens_input"]) == (2**31 - 1, 2**40)
    assert metrics["model_version"] == "m"
    audit.note(End(None, None, "n", (1, 1), "other", 6))
    assert "model_version" not in audit.metrics(totals)
    for model in ("third", None, "m"):
        audit.note(End(None, None, "n", (1, 1), model, 7))
        assert "model_version" not in audit.metrics(totals)
    audit.actions = {"x" * 3000 + str(number): (1, number) for number in range(3)}
    assert list(audit.metadata(3, {})["actions"].values()) == [(1, 2)]


@pytest.mark.parametrize("length", range(150, 250, 3))
def test_the_metadata_of_a_commit_has_at_most_four_kibibytes(length: int) -> None:
    audit = ChunkAudit()
    audit.actions = {f"{number:0{length}}": (1, number) for number in range(20)}
    metadata = audit.metadata(20, {"pool": "p" * 12, "pool_chunk": 1_000})
    assert metadata["pool_chunk"] == 1_000
    assert 3_300 < len(json.dumps(metadata)) <= 4_096
    assert (len(metadata["actions"]) == 20) == (length <= 186)  # as many as fit


@pytest.mark.parametrize(("more", "actions"), [(0, ["a", "b"]), (1, ["b"])])
def test_metadata_of_exactly_four_kibibytes_fits(more: int, actions: list[str]) -> None:
    audit = ChunkAudit(actions={"a": (1, 5), "b": (1, 6)})
    length = 4_096 - len(json.dumps(audit.metadata(2, {"pool": ""})))
    assert sorted(audit.metadata(2, {"pool": "p" * (length + more)})["actions"]) == actions


def test_every_state_of_a_chunk_that_ends_has_no_way_back() -> None:
    last = [state for state, following in CHUNK_TRANSITIONS.items() if not following]
    assert last == ["confirmed", "rejected", "empty"]


def test_an_estimate_above_the_chunk_is_reserved_directly() -> None:
    assert Allotment[Chunk](MAX_HELD, CHUNK).next_step(CHUNK + 1, 0).move is Move.DIRECT


def test_live_guards_that_use_up_max_held_are_not_waited_for() -> None:
    pool = Allotment[Chunk](CHUNK, CHUNK)
    pool.begin(CHUNK)
    pool.opened(Chunk(CHUNK))
    pool.open[0].sums = pool.open[0].sums.admitted(CHUNK)
    assert pool.next_step(1, 0).move is Move.DIRECT


def test_a_success_doubles_the_size_after_denials() -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK)
    pool.begin(CHUNK)
    assert [pool.smaller([1], 1000) for _ in range(5)] == [12, 6, 3, 2, 1]
    assert pool.smaller([1], 1000) is None
    assert pool.next_step(2, 999).move is Move.WAIT
    pool.opened(Chunk(1))
    assert pool.next_step(2, 999).move is Move.DENY
    assert pool.size == 4


@pytest.mark.parametrize(("amount", "move"), [(CHUNK - 1, Move.DENY), (CHUNK, Move.OPEN)])
def test_a_chunk_of_the_denied_amount_ends_the_denial(amount: int, move: Move) -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK)
    pool.begin(CHUNK)
    pool.failed(denied=CHUNK, denied_until_ms=1000.0)
    pool.begin(amount)
    pool.opened(Chunk(amount))
    assert pool.next_step(CHUNK, 999).move is move


@pytest.mark.parametrize(("waiting", "move"), [([], Move.OPEN), ([0], Move.DENY)])
def test_a_chunk_that_is_denied_ahead_of_need_denies_no_guard(waiting: list[int], move: Move) -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK)
    pool.begin(CHUNK)
    pool.smaller(waiting, 1000)
    pool.failed()
    assert pool.next_step(CHUNK, 999).move is move


@pytest.mark.parametrize(
    ("denied", "estimate", "step"),
    [
        (0, 0, (Move.DENY, 0)),  # for another reason than its amount
        (1, 0, (Move.DENY, 0)),  # there is no smaller chunk, not even for a guard without an estimate
        (1, 1, (Move.DENY, 0)),
        (2, 0, (Move.OPEN, 1)),
        (2, 1, (Move.OPEN, 1)),
        (2, 2, (Move.DENY, 0)),
    ],
)
def test_a_denied_amount_is_requested_again_only_in_a_smaller_chunk(denied: int, estimate: int, step: object) -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK)
    pool.begin(denied)
    pool.failed(denied=denied, denied_until_ms=1000.0)
    assert pool.next_step(estimate, 999) == step
    assert pool.next_step(estimate, 1000).move is Move.OPEN


def test_a_chunk_changes_as_its_table_says_and_not_otherwise() -> None:
    for state, row in CHUNK_TRANSITIONS.items():
        for event in {each for other in CHUNK_TRANSITIONS.values() for each in other}:
            chunk = Chunk(10)
            chunk.state = state
            assert chunk.change(event) is (event in row)
            assert chunk.state == row.get(event, state)


def test_the_last_chunk_takes_the_rest() -> None:
    pool = Allotment[Chunk](100, 30)
    for _ in range(3):
        step = pool.next_step(5, 0)
        assert step == (Move.OPEN, 30)
        pool.begin(step.amount)
        pool.opened(Chunk(step.amount))
    assert pool.next_step(11, 0).move is Move.DIRECT
    assert pool.next_step(10, 0) == (Move.OPEN, 10)
    pool.open[-1].sums = pool.open[-1].sums.admitted(30)
    assert pool.ahead(0) == 10
    pool.begin(10)
    pool.opened(Chunk(10))
    assert pool.held == 100
    assert pool.next_step(0, 0).move is Move.DIRECT
    assert pool.ahead(0) == 0


def admitted_at_once(pool: Allotment[Chunk], estimates: list[int], budget: int) -> tuple[list[int], int]:
    """Return the estimates of the guards that a burst admits before one of them ends, and the number of chunks."""
    waiting, admitted, chunks = list(estimates), list[int](), list[Chunk]()
    while waiting:
        estimate = waiting[0]
        chunk = next((chunk for chunk in pool.open if chunk.sums.free >= estimate), None)
        if chunk is None:
            step = pool.next_step(estimate, 0, waiting[1:])
            if step.move is not Move.OPEN or step.amount > budget:
                break
            budget -= step.amount
            pool.begin(step.amount)
            chunks.append(Chunk(step.amount))
            pool.opened(chunks[-1], budget)
            continue
        chunk.sums = chunk.sums.admitted(estimate)
        pool.latest = estimate
        admitted.append(waiting.pop(0))
    return admitted, len(chunks)


@given(st.integers(1, MAX_HELD // 4), st.integers(MAX_HELD // 4, MAX_HELD))
def test_a_burst_of_equal_guards_uses_all_that_a_pool_may_spend(estimate: int, max_held: int) -> None:
    """No chunk is smaller than before, but for the last one: each request still serves as many guards."""
    chunk = max(estimate, -(-max_held // 4))
    pool = Allotment[Chunk](max_held, chunk, limit=max_held)
    admitted, chunks = admitted_at_once(pool, [estimate] * 200, max_held)
    assert len(admitted) == max_held // estimate
    assert chunks <= 4


@given(st.integers(1, CHUNK), st.integers(CHUNK, MAX_HELD))
def test_a_budget_below_what_a_pool_may_hold_loses_less_than_two_guards(estimate: int, budget: int) -> None:
    """What is lost is the rest of the first chunk: no response has said yet that the budget is small."""
    admitted, _ = admitted_at_once(Allotment[Chunk](MAX_HELD, CHUNK), [estimate] * 200, budget)
    assert budget // estimate - len(admitted) <= 1


def test_a_chunk_consists_of_the_guards_that_wait_for_it() -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK, limit=MAX_HELD)
    assert pool.next_step(5, 0, [21, 4, 17]).amount == 5 + 21
    assert pool.next_step(5, 0, [3]).amount == 5 + 3 + 6 * 3
    pool.held = MAX_HELD - 10
    assert pool.next_step(5, 0, [21]).amount == 10, "the last chunk takes the rest"


def test_chunks_have_the_usual_size_as_long_as_the_budget_is_large() -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK)
    for left in (INT64_MAX, 10 * MAX_HELD):
        step = pool.next_step(7, 0, [7] * 20)
        assert step == (Move.OPEN, CHUNK)
        pool.begin(step.amount)
        pool.opened(Chunk(step.amount), left)
    pool.left = MAX_HELD
    assert pool.next_step(7, 0).amount == CHUNK, "more than the pool may still hold"
    pool.left = MAX_HELD - pool.held
    assert pool.next_step(7, 0).amount == 28


def test_a_chunk_that_the_caller_has_chosen_keeps_its_size() -> None:
    assert Allotment[Chunk](MAX_HELD, CHUNK, is_fixed=True, limit=1).next_step(7, 0, [7] * 20).amount == CHUNK


def test_a_chunk_takes_what_is_left_of_the_budget() -> None:
    pool = Allotment[Chunk](MAX_HELD, CHUNK, is_fixed=True)
    pool.begin(CHUNK)
    pool.opened(Chunk(CHUNK), 15)
    pool.open[0].sums = pool.open[0].sums.admitted(CHUNK)
    assert (pool.next_step(7, 0).amount, pool.ahead(0)) == (15, 15)
    assert pool.next_step(16, 0).amount == CHUNK, "the budget may be larger now; only the server decides"
    pool.sealed(pool.open[0])
    (chunk,) = pool.sending
    pool.ended(chunk, "discard")
    assert pool.next_step(16, 0).amount == CHUNK, "the chunk has returned its amount"


@pytest.mark.parametrize(("event", "returned"), [("confirm", 7), ("discard", 7), ("reject", 0)])
def test_only_what_the_server_has_released_is_left_of_the_budget_again(event: Any, returned: int) -> None:
    pool, chunk = Allotment[Chunk](MAX_HELD, CHUNK), Chunk(CHUNK)
    pool.begin(CHUNK)
    pool.opened(chunk, left=50)
    chunk.sums = chunk.sums.admitted(20)
    ended(chunk, 20, CHUNK - 7)
    pool.sealed(chunk)
    assert pool.ended(chunk, event) == returned
    assert (pool.left, pool.held) == (50 + returned, 0)
    assert pool.ended(chunk, event) == 0, "only once"
