"""Call a tracer (`cycles/_client/tracing.py`) so that it can break nothing: what it raises is logged.

The trace of a guard travels with the options of the guard's requests (`CallOptions`), so flows do not know it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from attrs import evolve, frozen

from cycles._core.messages.outcome import Ambiguous, Outcome, RejectedResponse, Success
from cycles._core.messages.requests import Call
from cycles._core.protocol import is_allowed

logger: Final = logging.getLogger("cycles")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_HEADER: Final = re.compile(r"[\x20-\x7e]+")


@frozen
class AttemptResult:
    """How one attempt ended: see `cycles/_client/tracing.py`."""

    status: int | None
    request_id: str | None
    decision: str | None
    error_type: str | None


def result_of(outcome: Outcome) -> AttemptResult:
    """Return what a tracer sees of an outcome."""
    if isinstance(outcome, Success):
        decision = outcome.body.get("decision")
        denied = decision is not None and not is_allowed(decision)
        error_type = str(_reason_of(outcome.body) or decision) if denied else None
        return AttemptResult(outcome.status, outcome.request_id, decision, error_type)
    if isinstance(outcome, RejectedResponse):
        return AttemptResult(outcome.status, outcome.request_id, None, outcome.code or str(outcome.status))
    if isinstance(outcome, Ambiguous):
        return AttemptResult(outcome.status, outcome.request_id, None, "AmbiguousResponseError")
    return AttemptResult(None, None, None, "TransportError")


def _reason_of(body: Mapping[str, Any]) -> object:
    """Return the reason of a DENY: that of `deny_detail` if it stands only there."""
    detail = body.get("deny_detail")
    return body.get("reason_code") or (detail.get("reason_code") if isinstance(detail, Mapping) else None)


class SafeTrace:
    """A tracer, or the trace of one guard. No method raises."""

    __slots__ = ("_ended", "_trace")

    def __init__(self, trace: Any) -> None:
        self._trace = trace
        self._ended = False

    def begin(self, request: Any) -> SafeTrace | None:
        """Return the trace of a guard, or None if the tracer fails."""
        trace = self._call("begin", request)
        return None if trace is None else SafeTrace(trace)

    @property
    def trace_id(self) -> str | None:
        """The trace id that the tracer gives, if it is one."""
        trace_id = getattr(self._trace, "trace_id", None)
        is_id = isinstance(trace_id, str) and re.fullmatch("[0-9a-f]{32}", trace_id) and trace_id.strip("0")
        return trace_id if is_id else None

    def opened(self, guard: Any) -> None:
        """The reservation is made, or the block runs without one."""
        self._call("opened", guard)

    def refused(self, error: BaseException) -> None:
        """There is no guard."""
        self._call("refused", error)

    def ended(self, guard: Any) -> None:
        """The state of the guard is final or pending: reported once."""
        # The flag first: a tracer that ends a guard itself would be called again from there.
        if not self._ended:
            self._ended = True
            self._call("ended", guard)

    def entered(self) -> Any:
        """A block begins."""
        return self._call("entered")

    def left(self, token: Any) -> None:
        """The block ended."""
        self._call("left", token)

    @contextmanager
    def sending(self, call: Call) -> Iterator[tuple[Call, Callable[[Outcome], None]]]:
        """Trace one attempt: return the call with the tracer's headers, and what takes the outcome."""
        manager = self._call("sending", call.operation)
        # If it fails to enter, it must not be left either.
        attempt = None if manager is None else _safely("sending", manager.__enter__)
        raised: BaseException | None = None
        try:
            yield _with_headers(call, attempt), lambda outcome: _receive(attempt, outcome)
        except BaseException as error:
            raised = error
            raise
        finally:
            if manager is not None and attempt is not None:
                traceback = None if raised is None else raised.__traceback__
                _safely("sending", manager.__exit__, None if raised is None else type(raised), raised, traceback)

    def _call(self, name: str, *arguments: Any) -> Any:
        return _safely(name, lambda: getattr(self._trace, name)(*arguments))


def _receive(attempt: Any, outcome: Outcome) -> None:
    if attempt is not None:
        _safely("received", lambda: attempt.received(result_of(outcome)))


def _with_headers(call: Call, attempt: Any) -> Call:
    headers: Mapping[str, str] = _safely("headers", lambda: _usable(attempt.headers)) if attempt is not None else {}
    # The call gets the id of the header too, so that errors and events name the one that the server has logged.
    parent = _TRACEPARENT.fullmatch((headers or {}).get("traceparent", ""))
    if parent is None:
        return call
    options = call.options if call.trace_id == parent[1] else evolve(call.options, trace_id=parent[1])
    return evolve(call, options=options, trace_headers=headers)


def _usable(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in ("traceparent", "tracestate") if _HEADER.fullmatch(headers.get(name, ""))}


def _safely(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception:  # a tracer must never break a guard
        logger.exception("tracer failed in %s, the call continues without it; correct the tracer", name)
        return None
