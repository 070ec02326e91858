"""Which guards a client ends when it closes and when the interpreter exits, and which of them are named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.lease.planner import StopReason
from cycles._core.settlement.lifecycle import Dropped
from cycles._drivers import live_guards as module
from cycles._drivers.live_guards import EXITED, LOOK_AGAIN_S, MOST_ENDED, GuardEnds, LiveGuards


class Guard:
    """A guard, as its client sees it."""

    def __init__(self, name: str, **members: Any) -> None:
        self.name = name
        self.reservation_id = f"res-{name}"
        self.finalized = self.sends_nothing = self.is_background = self.is_claimed = False
        self.state = "active"
        self.known: Any = None
        self.estimate = cycles.tokens(100)
        self.heartbeat: Any = None
        self.claims: list[str] = []
        self.__dict__.update(members)

    def claim(self, what: str) -> None:
        if self.is_claimed:
            raise cycles.CyclesError("a thread has ended it")
        self.claims.append(what)


class Ends:
    """The guards of a client, and how each of them was ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *guards: Guard) -> None:
        self.done: list[tuple[object, ...]] = []
        self.now_s = 100.0
        self.live = LiveGuards("io", lambda ends_at_s: f"until {ends_at_s}")  # type: ignore[arg-type, return-value]
        self.guards: list[Any] = list(guards)
        for each in self.guards:
            self.live.add(each)

        async def end_block(io: object, guard: Any, end: Dropped) -> None:
            self.note("block")(io, guard, end)

        monkeypatch.setattr(module, "end_block", end_block)
        for name in ("end_at_estimate", "end_later", "lose_lease"):
            monkeypatch.setattr(module, name, self.note(name))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s, sleep=self.sleep))
        self.slept: list[float] = []

    def note(self, name: str) -> Any:
        def call(io: object, *arguments: Any) -> None:
            self.done.append((name, io, *(str(each) if isinstance(each, Dropped) else each for each in arguments)))

        return call

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    @property
    def named(self) -> list[str]:
        return sorted(self.live.left({guard.reservation_id for guard in self.guards}))


def heartbeat(*, ended: bool = False, lost: bool = False) -> Any:
    return SimpleNamespace(ended=ended, lost=lost)


def test_a_closed_client_reports_the_leases_that_it_renews_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    live = heartbeat()
    guards = [
        Guard("a", heartbeat=live),
        Guard("b", heartbeat=heartbeat(ended=True)),
        Guard("c", heartbeat=heartbeat(lost=True)),
        Guard("d"),
        Guard("e", heartbeat=heartbeat(), finalized=True),
        Guard("f", heartbeat=heartbeat(), sends_nothing=True),
    ]
    ends = Ends(monkeypatch, *guards)
    ends.live.stop_heartbeats()
    [(_, io, lost, stop)] = ends.done
    assert (io, lost) == ("io", live)
    assert (stop.reason, stop.detail) == (StopReason.CLIENT_CLOSED, "the client was closed")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("members", "in_use"),
    [({}, True), ({"finalized": True}, False), ({"sends_nothing": True}, False)],
)
def test_a_guard_is_in_use_until_it_is_ended(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], in_use: bool
) -> None:
    ends = Ends(monkeypatch, Guard("a", **members))
    assert ends.live.in_use is in_use
    ends.live.end_all([])
    ends.live.end_all_here(1.0)
    assert len(ends.done) == 2 * in_use


def test_a_response_that_a_provider_makes_in_the_background_is_charged_at_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    background, other = Guard("a", is_background=True), Guard("b")
    ended = Guard("c", is_background=True, is_claimed=True)
    ends = Ends(monkeypatch, background, other, ended)
    ends.live.end_background()
    assert ends.done == [("end_at_estimate", "io", background)]
    assert (background.claims, other.claims) == (["close"], [])
    assert ends.named == ["a (100 tokens)"]


def test_the_exit_ends_each_guard_and_those_of_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, ended, pooled = Guard("a"), Guard("b", is_claimed=True), Guard("c", known=cycles.tokens(7), finalized=True)
    ends = Ends(monkeypatch, guard, ended)
    of_pools: Any = [pooled]
    ends.live.end_all(of_pools)
    assert sorted(ends.done, key=lambda done: done[2].name) == [  # type: ignore[attr-defined]
        ("end_later", "io", guard, EXITED),
        ("end_later", "io", pooled, EXITED),
    ]
    assert (guard.claims, pooled.claims) == (["exit"], ["exit"])
    assert ends.named == ["a (100 tokens)"]
    assert ends.live.left({"res-a", "res-c"}) == ["a (100 tokens)", "c (7 tokens)"]


@pytest.mark.parametrize(("timeout_s", "ended"), [(0.5, 2), (0.0, 0)])
def test_guards_of_a_closed_client_are_ended_while_time_is_left(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float, ended: int
) -> None:
    ends = Ends(monkeypatch, Guard("a"), Guard("b"))
    ends.live.end_all_here(timeout_s)
    assert [(name, io) for name, io, *_ in ends.done] == [("block", f"until {100.0 + timeout_s}")] * ended
    assert [end for *_, end in ends.done] == [EXITED] * ended
    assert ends.named == ["a (100 tokens)", "b (100 tokens)"]


def test_a_guard_whose_end_is_interrupted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    ends = Ends(monkeypatch, Guard("a"))
    monkeypatch.setattr(module, "end_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ends.live.end_all_here(1.0)
    assert ends.named == ["a (100 tokens)"]


@pytest.mark.parametrize(
    ("unfinished", "members", "is_left"),
    [
        (True, {"finalized": True, "state": "committed"}, True),
        (False, {"finalized": True, "state": "committed"}, False),
        (False, {"finalized": True, "state": "pending"}, True),
        (False, {"finalized": False, "state": "active"}, True),
        (True, None, True),
        (False, None, False),
    ],
)
def test_a_guard_that_was_not_ended_is_named_at_the_exit(
    monkeypatch: pytest.MonkeyPatch, unfinished: bool, members: dict[str, Any] | None, is_left: bool
) -> None:
    ends = Ends(monkeypatch)
    guard: Any = Guard("a", **(members or {}))
    ends.live.dropped(guard)
    if members is None:
        del guard  # it was freed since
    assert ends.live.left({"res-a"} if unfinished else {"res-b"}) == ["a (100 tokens)"] * is_left


def test_only_so_many_guards_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch)
    guard: Any = Guard("a")
    for _ in range(MOST_ENDED + 5):
        ends.live.dropped(guard)
    assert len(ends.live.left({"res-a"})) == MOST_ENDED


@pytest.mark.parametrize(("timeout_s", "sleeps"), [(0.0, 0), (LOOK_AGAIN_S, 1), (2.5 * LOOK_AGAIN_S, 3)])
def test_the_exit_waits_for_the_threads_that_end_guards(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float, sleeps: int
) -> None:
    ends, calls = Ends(monkeypatch), GuardEnds()
    seen: list[object] = []

    def end(ends_at_s: float) -> None:
        seen.append((ends_at_s, calls.running))
        if len(seen) == 1:  # while this thread ends one guard, the exit has its own time
            calls.finish(timeout_s)

    def no_thread(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    calls.add(end)
    calls.run(7.0)
    assert seen == [(7.0, True)]
    assert ends.slept == [LOOK_AGAIN_S] * sleeps
    assert not calls.running
    calls.add(end)
    calls.finish(1.0)
    assert seen[1:] == [(ends.now_s + 1.0, True)]
    assert len(ends.slept) == sleeps
