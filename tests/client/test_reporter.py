"""What the reporter of a client and the calls of a tracer make of what they get: texts, bounds and order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.messages.outcome import Ambiguous, Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call, CallOptions
from cycles._core.messages.used_fraction import ThresholdWatcher
from cycles._core.protocol import GET_BALANCES
from cycles._core.settlement.settlement import PendingSettlement
from cycles._drivers.reporting import LONGEST_MESSAGE, Reporter, log_message, request_log
from cycles._drivers.tracing import AttemptResult, SafeTrace, result_of
from cycles.events import ActionKindDeprecated, HeartbeatDelayed


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain é", "plain é"),
        ("a\nb\x1b[0m", "a\\nb\\x1b[0m"),
        ("x" * LONGEST_MESSAGE, "x" * LONGEST_MESSAGE),
        ("x" * (LONGEST_MESSAGE + 1), "x" * LONGEST_MESSAGE + "..."),
        ("\n" * LONGEST_MESSAGE, "\\n" * LONGEST_MESSAGE),
        ("\n" * (LONGEST_MESSAGE + 1), "\\n" * LONGEST_MESSAGE + "..."),
    ],
)
def test_a_log_record_is_one_line_of_bounded_length(text: str, line: str) -> None:
    assert log_message(text) == line


def success(**body: Any) -> Success:
    return Success(body, "req-1", "trace", 1.0, 2.0, b"")


OUTCOMES: list[tuple[Outcome, str, str]] = [
    (success(), "200 1500 ms request req-1", " Success"),
    (RejectedResponse(409, "BUDGET_EXCEEDED", "no", "req-2"), "409 1500 ms request req-2",
     " RejectedResponse BUDGET_EXCEEDED"),
    (RejectedResponse(502, None, "no"), "502 1500 ms request -", " RejectedResponse"),
    (RejectedResponse(400, "C" * 90, "no", "r" * 140), f"400 1500 ms request {'r' * 128}",
     f" RejectedResponse {'C' * 80}"),
    (Ambiguous(200, "no"), "200 1500 ms request -", " Ambiguous"),
    (Unreachable("no", OSError("x")), "no response 1500 ms request -", " Unreachable OSError"),
    (Unreachable("no"), "no response 1500 ms request -", " Unreachable"),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "line", "detail"), OUTCOMES)
@pytest.mark.parametrize("level", ["info", " DEBUG "])
def test_a_request_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], outcome: Outcome, line: str, detail: str,
    level: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("CYCLES_LOG", level)
    write = request_log()
    assert write is not None
    write("GET", "/v1/balances?tenant=secret", 1.5, outcome)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"cycles: GET /v1/balances {line}{'' if level == 'info' else detail}\n"


@pytest.mark.parametrize("level", [None, "", "  "])
def test_without_a_level_no_request_is_printed(monkeypatch: pytest.MonkeyPatch, level: str | None) -> None:
    if level is not None:
        monkeypatch.setenv("CYCLES_LOG", level)
    assert request_log() is None


def test_another_level_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_LOG", "Verbose" + "x" * 80)
    with pytest.raises(cycles.ConfigurationError) as raised:
        request_log()
    shown = f"'verbose{'x' * 52}"
    assert str(raised.value) == f"CYCLES_LOG must be info or debug, got {shown}: correct it or unset it"


IDS: Any = SimpleNamespace(reservation_id="res-1", trace_id="trace", request_id=None)


@pytest.mark.parametrize(
    ("times", "reported"),
    [
        ([(1_000.0, 1_249.0)], []),
        ([(1_000.0, 1_250.0)], [250]),
        ([(1_000.0, 1_250.6)], [251]),
        ([(1_000.0, 2_000.0), (2_000.0, 61_999.0)], [1_000]),
        ([(1_000.0, 2_000.0), (2_000.0, 62_000.0)], [1_000, 60_000]),
        ([(1_000.0, 2_000.0), (62_000.0, 62_001.0), (62_000.0, 62_300.0)], [1_000, 300]),
    ],
)
@pytest.mark.parametrize("blocked_loop", [True, False])
def test_a_late_heartbeat_is_reported_at_most_once_a_minute(
    times: list[tuple[float, float]], reported: list[int], blocked_loop: bool
) -> None:
    reporter, seen = Reporter(), list[Any]()
    reporter.add(seen.append)
    for due_ms, now_ms in times:
        reporter.note_heartbeat_delay(IDS, due_ms, now_ms, blocked_loop=blocked_loop)
    assert [type(event) for event in seen] == [HeartbeatDelayed] * len(reported)
    assert [event.late_ms for event in seen] == reported
    assert {event.blocked_loop for event in seen} <= {blocked_loop}


def test_each_observer_is_removed_by_itself_and_one_that_fails_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: object) -> None:
        raise ValueError

    reporter, first, last = Reporter(), list[object](), list[object]()
    caplog.set_level(logging.CRITICAL, "cycles")
    assert not reporter.is_enabled_for(logging.ERROR)
    remove = reporter.add(first.append)
    assert reporter.is_enabled_for(logging.DEBUG)
    stop_failing = reporter.add(fail)
    reporter.add(last.append)
    reporter.journal_problem("one")
    caplog.set_level(logging.ERROR, "cycles")
    stop_failing()
    remove()
    reporter.journal_problem("two")
    assert ([event.detail for event in first], [event.detail for event in last]) == (["one"], ["one", "two"])  # type: ignore[attr-defined]
    assert [event.quarantined for event in last] == [False, False]  # type: ignore[attr-defined]
    assert "observer failed" not in caplog.text


@pytest.mark.parametrize("level", [logging.DEBUG, logging.CRITICAL], ids=["logged", "not logged"])
def test_a_deprecated_kind_is_a_warning_of_python_once_for_each_kind(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    reporter, seen = Reporter(), list[Any]()
    reporter.add(seen.append)
    caplog.set_level(level, "cycles")
    for kind in ("llm.old", "tool.old"):
        event = ActionKindDeprecated(kind=kind, replacement="llm.new")
        with pytest.warns(DeprecationWarning, match=f"action kind {kind} is deprecated: use llm.new"):
            reporter.emit(event)
        reporter.emit(event)  # a warning would be an error here
    assert [event.kind for event in seen] == ["llm.old", "tool.old"]
    assert len(caplog.records) == (2 if level == logging.DEBUG else 0)


@pytest.mark.parametrize(("kind", "is_quarantined"), [("quarantined", True), ("unreadable", False)])
def test_an_issue_of_the_journal_is_reported_with_its_kind(kind: Any, is_quarantined: bool) -> None:
    reporter, seen = Reporter(), list[Any]()
    reporter.add(seen.append)
    reporter.journal_issue(SimpleNamespace(kind=kind, message="because"))  # type: ignore[arg-type]
    assert [(event.detail, event.quarantined) for event in seen] == [("because", is_quarantined)]


PENDING = [
    PendingSettlement("res-1", "commit", cycles.tokens(3), 5, None),
    PendingSettlement("res-2", "commit", cycles.usd(1), 5, None),
    PendingSettlement("res-3", "event", cycles.tokens(4), 5, None),
]


@pytest.mark.parametrize(
    ("left", "directory", "total", "has_lost"),
    [
        (PENDING, "/journal", "7 tokens, $1.00", False),
        (PENDING, None, "7 tokens, $1.00", True),
        ([], "/journal", None, False),
        ([], None, None, False),
    ],
)
def test_what_a_client_leaves_pending_is_added_up_for_each_unit(
    left: list[PendingSettlement], directory: str | None, total: str | None, has_lost: bool
) -> None:
    reporter, seen = Reporter(), list[Any]()
    reporter.add(seen.append)
    reporter.left_pending(cycles.FlushReport(2, 3, 0), left, directory)
    assert [type(event).__name__ for event in seen] == ["SettlementsLeftPending", *["SettlementsLost"] * has_lost]
    first = seen[0]
    assert (first.settled, first.pending, first.directory, first.total) == (2, 3, directory, total)
    lost = [event.amounts for event in seen[1:]]
    assert lost == [tuple((each.reservation_id, each.amount) for each in PENDING)] * has_lost


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (success(decision="ALLOW"), (200, "req-1", "ALLOW", None)),
        (success(decision="ALLOW_WITH_CAPS"), (200, "req-1", "ALLOW_WITH_CAPS", None)),
        (success(decision="DENY"), (200, "req-1", "DENY", "DENY")),
        (success(decision="DENY", reason_code="A"), (200, "req-1", "DENY", "A")),
        (success(decision="DENY", deny_detail={"reason_code": "B"}), (200, "req-1", "DENY", "B")),
        (success(decision="DENY", reason_code="A", deny_detail={"reason_code": "B"}), (200, "req-1", "DENY", "A")),
        (success(decision="DENY", deny_detail="B"), (200, "req-1", "DENY", "DENY")),
        (success(decision="MAYBE"), (200, "req-1", "MAYBE", "MAYBE")),
        (success(status="COMMITTED", reason_code="A"), (200, "req-1", None, None)),
        (RejectedResponse(409, "CODE", "no", "req-2"), (409, "req-2", None, "CODE")),
        (RejectedResponse(502, None, "no", "req-2"), (502, "req-2", None, "502")),
        (Ambiguous(201, "no", "req-3"), (201, "req-3", None, "AmbiguousResponseError")),
        (Unreachable("no"), (None, None, None, "TransportError")),
    ],
)
def test_a_tracer_sees_the_result_of_each_attempt(outcome: Outcome, expected: tuple[Any, ...]) -> None:
    assert result_of(outcome) == AttemptResult(*expected)


def test_of_two_equal_observers_or_watchers_each_is_removed_by_itself() -> None:
    seen = list[object]()
    reporter = Reporter()
    remove_first, remove_second = reporter.add(seen.append), reporter.add(seen.append)
    reporter.journal_problem("both")
    remove_first()
    remove_first()
    reporter.journal_problem("one")
    remove_second()
    reporter.journal_problem("none")
    assert [event.detail for event in seen] == ["both", "both", "one"]  # type: ignore[attr-defined]
    watchers = [ThresholdWatcher((0.5,), seen.append, None) for _ in range(2)]
    removers = [reporter.watch(watcher) for watcher in watchers]
    removers[0]()
    assert [*map(id, reporter.watchers)] == [id(watchers[1])]


TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("trace_id", "is_one"),
    [(TRACE, True), ("0" * 31 + "1", True), ("0" * 32, False), (TRACE[1:], False), (TRACE + "0", False),
     (TRACE.upper(), False), (5, False), (None, False)],
)  # fmt: skip
def test_a_trace_id_of_a_tracer_is_used_if_it_is_one(trace_id: Any, is_one: bool) -> None:
    assert SafeTrace(SimpleNamespace(trace_id=trace_id)).trace_id == (trace_id if is_one else None)


def test_a_trace_without_an_id_is_used_without_it() -> None:
    reporter = Reporter()
    reporter.trace = SafeTrace(SimpleNamespace(begin=lambda request: object()))
    request: Any = SimpleNamespace(timeout=1.5, extra_headers={"x": "1"}, max_retries=3)
    options = reporter.begin_trace(request, known=TRACE)
    assert isinstance(options.trace, SafeTrace)
    assert (options.trace_id, options.timeout_s, options.max_retries) == (TRACE, 1.5, 3)
    assert options.headers == {"x": "1"}


class Tracer:
    """A tracer whose attempts have these headers; `ends` are the exceptions with which they were left."""

    def __init__(self, headers: Any, fails: str = "") -> None:
        self.headers = headers
        self.fails = fails
        self.ends: list[object] = []
        self.results: list[Any] = []

    @contextmanager
    def sending(self, _: str) -> Iterator[Any]:
        if self.fails == "enter":
            raise ValueError
        try:
            yield SimpleNamespace(headers=self.headers, received=self.received)
        except BaseException as error:
            self.ends.append(error)
            raise
        self.ends.append(None)

    def received(self, result: Any) -> None:
        if self.fails == "received":
            raise ValueError
        self.results.append(result)


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "a=b", "baggage": "c"}, {"traceparent": PARENT, "tracestate": "a=b"}),
        ({"traceparent": PARENT, "tracestate": "a\nb"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": ""}, {"traceparent": PARENT}),
        ({"traceparent": PARENT + "-x"}, None),
        ({"traceparent": PARENT.upper()}, None),
        ({"tracestate": "a=b"}, None),
        ({}, None),
        (None, None),
        ({"traceparent": 5}, None),
    ],
)
def test_the_headers_of_a_tracer_are_sent_if_they_name_a_trace(headers: Any, sent: dict[str, str] | None) -> None:
    call = Call(GET_BALANCES, options=CallOptions("other", timeout_s=3.0))
    with SafeTrace(Tracer(headers)).sending(call) as (traced, _):
        assert traced.trace_headers == sent
        assert traced.trace_id == ("other" if sent is None else TRACE)
        assert (traced.operation, traced.options.timeout_s) == (GET_BALANCES, 3.0)


@pytest.mark.parametrize("fails", ["", "enter", "received"])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_an_attempt_ends_for_its_tracer_as_it_ended(fails: str, error: BaseException | None) -> None:
    tracer, raised = Tracer({}, fails), list[BaseException]()
    try:
        with SafeTrace(tracer).sending(Call(GET_BALANCES)) as (_, received):
            received(success())
            if error is not None:
                raise error
    except KeyboardInterrupt as caught:
        raised.append(caught)
    assert raised == [error] * (error is not None)
    assert tracer.ends == ([] if fails == "enter" else [error])
    assert len(tracer.results) == (fails == "")


@pytest.mark.parametrize("fails", ["", "enter", "exit", "both"])
def test_an_attempt_that_no_tracer_has_begun_is_not_ended_by_it(fails: str) -> None:
    told = list[str]()

    class Manager:
        def __enter__(self) -> Any:
            told.append("enter")
            if fails in ("enter", "both"):
                raise ValueError
            return SimpleNamespace(headers={}, received=lambda result: told.append("received"))

        def __exit__(self, *_: object) -> None:
            told.append("exit")
            if fails in ("exit", "both"):
                raise ValueError

    with SafeTrace(SimpleNamespace(sending=lambda operation: Manager())).sending(Call(GET_BALANCES)) as (_, received):
        received(success())
    assert told == (["enter"] if fails in ("enter", "both") else ["enter", "received", "exit"])
