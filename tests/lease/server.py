"""A server on a real socket whose extends are scripted, with the times at which they came in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tests.support.stub import Answer, Stub, StubRequest, ok, reply, stall

Extend = Callable[["LeaseServer"], Answer]
START_MS = 1_700_000_000_000
RELEASED = {"status": "RELEASED", "released": {"unit": "TOKENS", "amount": 1}}
T = TypeVar("T")


class Seen(NamedTuple):
    """One request: monotonic milliseconds of its arrival, its operation, its body."""

    at_ms: float
    what: str
    body: dict[str, Any]


def grant(remaining_ms: int | None = None, **more: Any) -> Extend:
    """An extend that is granted; by default the server tops the lead up to the ttl."""
    return lambda server: ok(server.extended(server.remaining_ms if remaining_ms is None else remaining_ms) | more)


def refuse(status: int, code: str = "INTERNAL_ERROR", *, retry_after: str | None = None) -> Extend:
    """An extend that gets an error of the protocol."""
    headers = [] if retry_after is None else [("Retry-After", retry_after)]
    body = {"error": code, "message": f"scripted {code}", "request_id": "req-1"}
    return lambda server: ok(body, status, headers)


def hang() -> Extend:
    """An extend that gets no response."""
    return lambda server: stall()


class LeaseServer(Stub):
    """Reserves with `remaining_ms` left (None: it does not say), then plays `extends`; the last one is repeated."""

    def __init__(self, *extends: Extend, remaining_ms: int | None = 3_500) -> None:
        super().__init__()
        self.remaining_ms = remaining_ms
        self.extends = list(extends) or [grant()]
        self.by_reservation: dict[str, list[Extend]] = {}
        self.commits: list[Answer] = [ok({"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": 1}})]
        self.seen: list[Seen] = []
        self.came: dict[str, list[float]] = {}  # when the extends of each reservation came in
        self.created = 0
        self.started_ms = time.monotonic() * 1000

    def extended(self, remaining_ms: int | None) -> dict[str, Any]:
        body: dict[str, Any] = {"status": "ACTIVE", "expires_at_ms": self.now_ms() + (remaining_ms or 60_000)}
        return body if remaining_ms is None else {**body, "remaining_ttl_ms": remaining_ms}

    def now_ms(self) -> int:
        """Server time, which has nothing to do with ours."""
        return START_MS + int(time.monotonic() * 1000 - self.started_ms)

    def fail_commits(self) -> list[Answer]:
        """Respond to commits with 503 until `commits` is set to what this returns."""
        before, self.commits = self.commits, [refuse(503)(self)]
        return before

    def of(self, what: str) -> list[Seen]:
        return [seen for seen in list(self.seen) if seen.what == what]

    def wait_for_extends(self, count: int, timeout_s: float = 60.0) -> list[Seen]:
        self.wait_for(lambda stub: len(self.of("extend")) >= count, timeout_s)
        return self.of("extend")

    def _take(self, request: StubRequest) -> Answer:
        what = request.target.rsplit("/", 1)[-1]
        body = request.json()
        assert isinstance(body, dict)
        with self._news:
            self.requests.append(request)
            self.seen.append(Seen(time.monotonic() * 1000, what, body))
            self._news.notify_all()
            if what == "reservations":
                return ok(self._create(body))
            if what == "extend":
                self.came.setdefault(request.target.split("/")[-2], []).append(self.seen[-1].at_ms)
                return _next(self.by_reservation.get(request.target.split("/")[-2], self.extends))(self)
            return _next(self.commits) if what == "commit" else ok(RELEASED)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        self.created += 1
        answer: dict[str, Any] = {
            "decision": "ALLOW",
            "reservation_id": f"r{self.created}",
            "affected_scopes": ["tenant:acme"],
        }
        answer["expires_at_ms"] = self.now_ms() + (self.remaining_ms or body["ttl_ms"])
        return answer if self.remaining_ms is None else {**answer, "remaining_ttl_ms": self.remaining_ms}


def _next(script: list[T]) -> T:
    return script.pop(0) if len(script) > 1 else script[0]


def gated(gate: threading.Event, body: dict[str, Any], status: int = 200) -> Answer:
    """A response that waits for the test."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        while not gate.wait(0.02):
            if ended.is_set():
                return False
        sock.sendall(reply(body, status))
        return True

    return answer
