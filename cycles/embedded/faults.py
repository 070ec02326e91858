"""Faults that a test injects: lost connections, delays, and replaced responses.

A fault waits for the next request of its operation and hits the given number of requests. Operations have the server's
short names (decide, reserve, list, get, commit, release, extend, balances, event, evidence, jwks).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from cycles._errors import InvalidRequestError
from cycles.embedded.routes import OPERATIONS


@frozen(kw_only=True)
class Fault:
    """One injected failure.

    Attributes:
        reaches_ledger: False if the ledger never receives the request.
        lost: The connection breaks before the response.
        delay_s: Delay of the response, in seconds.
        drip_s: Pause between single bytes of the response body, in seconds.
        status, body, headers: Replacements for those of the response.
    """

    reaches_ledger: bool = True
    lost: bool = False
    delay_s: float = 0.0
    drip_s: float | None = None
    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(factory=dict)

    @property
    def kind(self) -> str:
        """Return the name of the method of `Faults` that made this fault."""
        if self.lost:
            return "drop_response" if self.reaches_ledger else "refuse"
        if self.drip_s is not None:
            return "drip"
        if self.status is not None:
            return "status"
        return "delay" if self.body is None else "body"


class Faults:
    """`server.faults`. Faults of one operation happen in the order in which the test added them.

    `times` is the number of requests that are hit, 1 by default; None means every request until `clear()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Fault, int | None]]] = {}

    def refuse(self, operation: str, *, times: int | None = 1) -> None:
        """Break the connection before the ledger receives the request."""
        self._add(operation, times, Fault(reaches_ledger=False, lost=True))

    def drop_response(self, operation: str, *, times: int | None = 1) -> None:
        """Run the operation, then break the connection: the client cannot know the outcome."""
        self._add(operation, times, Fault(lost=True))

    def delay(self, operation: str, seconds: float, *, times: int | None = 1) -> None:
        """Run the operation immediately and send the response `seconds` later."""
        self._add(operation, times, Fault(delay_s=seconds))

    def drip(self, operation: str, *, interval: float = 0.05, times: int | None = 1) -> None:
        """Run the operation and send the response body byte by byte, with pauses of `interval` seconds."""
        self._add(operation, times, Fault(drip_s=interval))

    def status(
        self,
        operation: str,
        status: int,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        reaches_ledger: bool = False,
        times: int | None = 1,
    ) -> None:
        """Return this status, by default without running the operation, as a proxy would.

        Args:
            body: Bytes or a string are sent verbatim, other values as JSON; None is an empty body.
            headers: Further headers, for example ``{"Retry-After": "2"}``.
            reaches_ledger: True if the operation runs before its response is replaced.
        """
        fault = Fault(reaches_ledger=reaches_ledger, status=status, body=_as_bytes(body), headers=dict(headers or {}))
        self._add(operation, times, fault)

    def body(
        self, operation: str, body: Any, *, headers: Mapping[str, str] | None = None, times: int | None = 1
    ) -> None:
        """Run the operation, keep the status, and replace the body (bytes, string, or a value as JSON)."""
        self._add(operation, times, Fault(body=_as_bytes(body), headers=dict(headers or {})))

    def clear(self) -> None:
        """Delete every fault that has not happened yet."""
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> list[tuple[str, Fault, int | None]]:
        """Return the faults that have not happened yet: operation, fault, and how many requests it will hit."""
        with self._lock:
            return [(operation, *entry) for operation, entries in self._waiting.items() for entry in entries]

    def take(self, operation: str | None) -> Fault | None:
        """Return the fault for a request of this operation and count it as used."""
        if operation not in self._waiting:  # the common case costs no lock
            return None
        with self._lock:
            waiting = self._waiting.get(operation)
            if not waiting:
                return None
            fault, times = waiting[0]
            if times is not None:
                waiting[:1] = [(fault, times - 1)] if times > 1 else []
            return fault

    def _add(self, operation: str, times: int | None, fault: Fault) -> None:
        if operation not in OPERATIONS:
            raise InvalidRequestError(f"unknown operation: {operation!r:.80}; pass one of {', '.join(OPERATIONS)}")
        if times is not None and times < 1:
            raise InvalidRequestError(f"times must be 1 or more: {times}; pass None for every request")
        with self._lock:
            self._waiting.setdefault(operation, []).append((fault, times))


def _as_bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
