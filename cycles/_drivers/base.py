"""The verbs both drivers share: whatever needs neither a thread nor a task of its own."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from cycles._core.outcome import Outcome, Success, Unreachable
from cycles._core.records import Record
from cycles._core.requests import Call
from cycles._flows.guard_state import GuardState, Release
from cycles._http.exchange import ExchangeError
from cycles._wire.wire import Prepared

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime
    from cycles.events import Event

EXTEND = "extendReservation"


class BaseIo:
    """The part of `Io` that is the same in both worlds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.base_url = runtime.base_url
        self.timeout_s = runtime.config.timeout
        self.is_enabled_for = runtime.reporter.is_enabled_for
        self.check = runtime.wire.check

    def now_ms(self) -> float:
        """Monotonic milliseconds."""
        return time.monotonic() * 1000

    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def random(self) -> float:
        """A random number from 0 to 1, for jitter."""
        return random.random()  # noqa: S311 - jitter keeps no secret

    def report(self, event: Event) -> None:
        """Tell observers and the log."""
        self._runtime.reporter.report(event)

    def keep_settling(self, record: Record, guard: GuardState | None, detail: str) -> None:
        """Hand a settlement that is still owed to the background."""
        self._runtime.recovery.add_settlement(record, guard, detail)

    def keep_releasing(self, release: Release) -> None:
        """Hand a release to the background."""
        self._runtime.recovery.add_release(release)

    def _prepare(self, call: Call) -> tuple[Prepared, float]:
        timeout_s = self.timeout_s if call.timeout_s is None else call.timeout_s
        return self._runtime.wire.prepare(call), timeout_s

    def _judge(self, call: Call, reply: Any) -> Outcome:
        outcome = self._runtime.wire.classify_response(call, reply)
        if isinstance(outcome, Success):
            self._runtime.recovery.server_responded()
        return outcome

    def _unreachable(self, call: Call, error: ExchangeError) -> Unreachable:
        where = self._runtime.base_url
        message = f"no usable answer from {where}: {error}"
        if not error.request_sent:
            message += "; is the server running, and is base_url / CYCLES_BASE_URL right?"
        return Unreachable(
            self._runtime.wire.redact(message), error.__cause__ or error, error.request_sent, call.trace_id
        )
