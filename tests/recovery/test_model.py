"""Any failures in any order: once it is over, what is charged is the sum of what was spent."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import cycles
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, TENANT, journal_files
from tests.support.short import fewer

HOUR_MS: Final = 3_600_000
NEVER_BY_ITSELF: Final = {"retry_initial_delay": 3_600.0, "retry_max_delay": 3_600.0, "flush_timeout": 0.0}
"""The background waits for a flush, so that hypothesis decides what happens when."""


def error_body(code: str) -> dict[str, str]:
    return {"error": code, "message": "m", "request_id": "r"}


Fault = dict[str, Any]
faults: Final = st.sampled_from(
    [
        ("nothing", {}),
        ("refuse", {}),
        ("drop_response", {}),
        ("status", {"status": 500, "reaches_ledger": True}),
        ("status", {"status": 503, "reaches_ledger": False}),
        ("status", {"status": 202, "reaches_ledger": True}),
        ("status", {"status": 401, "body": error_body("UNAUTHORIZED")}),
        ("status", {"status": 403, "body": b"<html>"}),
        ("status", {"status": 409, "body": error_body("SOMETHING_NEW")}),
        ("status", {"status": 429, "body": error_body("LIMIT_EXCEEDED"), "headers": {"Retry-After": "0"}}),
        ("body", {"body": b"<html>hotel</html>"}),
        ("body", {"body": b'{"status": "COMM'}),
    ]
)
amounts: Final = st.integers(min_value=0, max_value=100)
which: Final = st.sampled_from(["a", "b"])


class Settling(RuleBasedStateMachine):
    """Two clients on one journal, each killed and restarted at will, and a server that fails at will."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = cycles.ManualClock()
        self.server = cycles.EmbeddedServer({f"tenant:{TENANT}": cycles.tokens(10**9)}, clock=self.clock)
        self.clients: dict[str, cycles.Cycles] = {}
        self.spent = 0

    def client(self, name: str) -> cycles.Cycles:
        if name not in self.clients:
            self.clients[name] = self.server.client(
                tenant=TENANT, journal_dir=self.folder, base_url="http://ledger.test", **NEVER_BY_ITSELF
            )
        return self.clients[name]

    def arm(self, operation: str, fault: tuple[str, Fault], times: int = 1) -> None:
        kind, details = fault
        if kind != "nothing":
            getattr(self.server.faults, kind)(operation, **details, times=times)

    @property
    def charged(self) -> int:
        spent = self.server.ledger.balance(f"tenant:{TENANT}", unit="TOKENS").spent
        return 0 if spent is None else spent.amount

    @rule(name=which, amount=amounts, on_commit=faults, on_event=faults, late=st.booleans())
    def commit(
        self, name: str, amount: int, on_commit: tuple[str, Fault], on_event: tuple[str, Fault], late: bool
    ) -> None:
        guard = self.client(name).reserve(cycles.tokens(50), action=ACTION).acquire()
        if late:
            self.clock.advance(HOUR_MS)
        self.arm("commit", on_commit)
        self.arm("event", on_event)
        guard.commit(cycles.tokens(amount))
        self.spent += amount

    @rule(name=which, amount=amounts, on_event=faults)
    def record(self, name: str, amount: int, on_event: tuple[str, Fault]) -> None:
        self.arm("event", on_event)
        self.client(name).record(cycles.tokens(amount), action=ACTION)
        self.spent += amount

    @rule(name=which, on_commit=faults, on_event=faults, times=st.integers(1, 3))
    def flush(self, name: str, on_commit: tuple[str, Fault], on_event: tuple[str, Fault], times: int) -> None:
        self.arm("commit", on_commit, times)
        self.arm("event", on_event, times)
        self.client(name).flush(timeout=0.0)
        self.client(name).flush(timeout=0.02)

    @rule(name=which)
    def kill(self, name: str) -> None:
        """As a killed process leaves it: nothing flushed, nothing reported, the files unchanged."""
        client = self.clients.pop(name, None)
        if client is not None:
            abandon(client)

    @rule(minutes=st.integers(1, 120))
    def time_passes(self, minutes: int) -> None:
        self.clock.advance(minutes * 60_000)

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.server.faults.clear()

    @invariant()
    def nothing_is_charged_twice(self) -> None:
        assert self.charged <= self.spent

    def teardown(self) -> None:
        self.server.faults.clear()
        for name in ("a", "b"):
            assert self.client(name).flush(timeout=PATIENCE_S).pending == 0
        left = journal_files(self.folder)
        for client in self.clients.values():
            client.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert self.charged == self.spent
        assert left == []


def abandon(client: cycles.Cycles) -> None:
    """Stops a client's threads where they are, and ensures that nothing else of it runs ever again."""
    runtime = client._runtime_
    assert runtime is not None
    runtime.closed = True
    atexit.unregister(runtime._at_exit)
    runtime.background.close()
    runtime.scheduler.close(PATIENCE_S)


TestSettling = Settling.TestCase
TestSettling.settings = settings(
    max_examples=fewer(40, 8), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
