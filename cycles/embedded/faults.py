"""Faults on demand: what a client must survive, made to happen to chosen requests.

A fault waits for the next request of its operation, happens as often as it was told, and is used up. Operations have
the server's short names (decide, reserve, list, get, commit, release, extend, balances, event, evidence, jwks).
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
    """One thing that goes wrong.

    Attributes:
        reaches_ledger: False if the request is answered (or lost) without the ledger having seen it.
        lost: The connection breaks instead of an answer.
        delay_s: Seconds the answer is held back.
        drip_s: Seconds between the single bytes of the answer's body.
        status, body, headers: What replaces the answer's own.
    """

    reaches_ledger: bool = True
    lost: bool = False
    delay_s: float = 0.0
    drip_s: float | None = None
    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(factory=dict)


class Faults:
    """`server.faults`. Faults of one operation happen in the order in which they were asked for.

    `times` is how many requests are hit, 1 by default; None means every one until `clear()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Fault, int | None]]] = {}

    def refuse(self, operation: str, *, times: int | None = 1) -> None:
        """The connection breaks before the ledger has seen the request."""
        self._add(operation, times, Fault(reaches_ledger=False, lost=True))

    def drop_response(self, operation: str, *, times: int | None = 1) -> None:
        """The ledger does it, then the connection breaks: the outcome is unknown to the client."""
        self._add(operation, times, Fault(lost=True))

    def delay(self, operation: str, seconds: float, *, times: int | None = 1) -> None:
        """The ledger does it at once, the answer comes `seconds` later."""
        self._add(operation, times, Fault(delay_s=seconds))

    def drip(self, operation: str, *, interval: float = 0.05, times: int | None = 1) -> None:
        """The ledger does it; the body comes byte by byte, with `interval` seconds between them."""
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
        """Answer with this status, and by default without asking the ledger, as a proxy in between would.

        Args:
            body: Bytes or text as they are, other values as JSON; None for an empty body.
            headers: Further headers, for example ``{"Retry-After": "2"}``.
            reaches_ledger: True if the ledger does what was asked before its answer is replaced.
        """
        fault = Fault(reaches_ledger=reaches_ledger, status=status, body=_as_bytes(body), headers=dict(headers or {}))
        self._add(operation, times, fault)

    def body(
        self, operation: str, body: Any, *, headers: Mapping[str, str] | None = None, times: int | None = 1
    ) -> None:
        """The ledger does it and the status is its own, but the body is this (bytes, text, or a value as JSON)."""
        self._add(operation, times, Fault(body=_as_bytes(body), headers=dict(headers or {})))

    def clear(self) -> None:
        """Forget every fault that has not happened yet."""
        with self._lock:
            self._waiting.clear()

    def take(self, operation: str | None) -> Fault | None:
        """The fault for a request of this operation, used up by this call."""
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
            raise InvalidRequestError(f"no operation {operation!r}; there are {', '.join(OPERATIONS)}")
        if times is not None and times < 1:
            raise InvalidRequestError(f"times: must be 1 or more, or None for every request, got {times}")
        with self._lock:
            self._waiting.setdefault(operation, []).append((fault, times))


def _as_bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
