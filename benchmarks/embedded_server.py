"""Response times of the embedded server: in this process, with its ledger in a file, and over HTTP.

One round is nine requests, from reserve to balances. The result is the median time of each, and the size of its
response. Over HTTP the server is a separate process, and the times include the client (`http.client`).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cycles
from benchmarks.process import ROOT
from cycles.embedded import EmbeddedServer
from cycles.embedded.http import Request

KEY = "cyc_live_benchmark"
TOKENS = 10**15
CONNECTIONS = 8
HEADERS = {"X-Cycles-API-Key": KEY, "Content-Type": "application/json"}
WHO = {"subject": {"tenant": "acme", "agent": "bot"}, "action": {"kind": "llm.completion", "name": "gpt-4o"}}

Reply = tuple[int, int, bytes]  # status, bytes of the response with its head, body
Send = Callable[[str, str, bytes], Reply]
_keys = itertools.count()


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """Return rows by operation: microseconds in each place, and bytes of a response. The last row has 8 connections."""
    places = {"in_process_us": in_process, "sqlite_us": in_a_file, "http_us": over_http}
    rows: dict[str, dict[str, Any]] = defaultdict(dict)
    for column, place in places.items():
        with place() as connect:
            send = connect()
            one_round(send, rows, "")  # warm
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(rounds):
                for operation, seconds in one_round(send, rows, column).items():
                    found[operation].append(seconds)
            for operation, times in found.items():
                rows[operation][column] = statistics.median(times) * 1e6
            if place is over_http:
                rows[f"{CONNECTIONS} connections, responses/s"] = {column: concurrently(connect, rounds)}
    return {name: {column: row.get(column) for column in (*places, "response_bytes")} for name, row in rows.items()}


def one_round(send: Send, rows: dict[str, dict[str, Any]], column: str) -> dict[str, float]:
    """Send one request of each operation. Return the seconds that each took."""
    times: dict[str, float] = {}

    def call(operation: str, method: str, target: str, **body: Any) -> Any:
        content = json.dumps({"idempotency_key": f"k{next(_keys)}", **body}).encode() if method == "POST" else b""
        begun = time.perf_counter()
        status, size, reply = send(method, target, content)
        times[operation] = time.perf_counter() - begun
        if status not in (200, 201):
            raise RuntimeError(f"{operation} returned status {status}: {reply[:200]!r}")
        if column == "http_us":
            rows[operation]["response_bytes"] = size
        return json.loads(reply)

    amount = {"unit": "TOKENS", "amount": 1000}
    first = call("reserve", "POST", "/v1/reservations", estimate=amount, **WHO)["reservation_id"]
    call("extend", "POST", f"/v1/reservations/{first}/extend", extend_by_ms=60_000)
    call("get", "GET", f"/v1/reservations/{first}")
    call("commit", "POST", f"/v1/reservations/{first}/commit", actual={"unit": "TOKENS", "amount": 800})
    second = call("reserve", "POST", "/v1/reservations", estimate=amount, **WHO)["reservation_id"]
    call("release", "POST", f"/v1/reservations/{second}/release")
    call("decide", "POST", "/v1/decide", estimate=amount, **WHO)
    call("event", "POST", "/v1/events", actual=amount, **WHO)
    call("balances", "GET", "/v1/balances?tenant=acme")
    return times


def concurrently(connect: Callable[[], Send], rounds: int) -> float:
    """Return responses per second of several concurrent connections."""
    threads = [
        threading.Thread(target=lambda send: [one_round(send, {}, "") for _ in range(rounds)], args=(connect(),))
        for _ in range(CONNECTIONS)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CONNECTIONS * rounds * 9 / (time.perf_counter() - begun)


@contextlib.contextmanager
def in_process(path: Path | None = None) -> Iterator[Callable[[], Send]]:
    """Call the server's `handle` function, without any transport."""
    budgets = {"tenant:acme": cycles.tokens(TOKENS), "tenant:acme/agent:bot": cycles.tokens(TOKENS)}
    headers = {name.lower(): value for name, value in HEADERS.items()}
    with EmbeddedServer(budgets, path=path, api_keys={KEY: "acme"}) as server:

        def send(method: str, target: str, body: bytes) -> Reply:
            response, _ = server.handle(Request(method=method, target=target, headers=headers, body=body))
            assert response is not None
            return response.status, len(response.body), response.body

        yield lambda: send


@contextlib.contextmanager
def in_a_file() -> Iterator[Callable[[], Send]]:
    """Call the same function with the ledger in an SQLite file."""
    with tempfile.TemporaryDirectory() as folder, in_process(Path(folder) / "ledger.db") as connect:
        yield connect


@contextlib.contextmanager
def over_http() -> Iterator[Callable[[], Send]]:
    """Start a server process with the ledger in memory; each `connect` opens a persistent connection."""
    budgets = [f"--budget={scope}={TOKENS}TOKENS" for scope in ("tenant:acme", "tenant:acme/agent:bot")]
    command = [sys.executable, "-m", "cycles.embedded", "--port=0", f"--api-key={KEY}=acme", *budgets]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://([\w.]+):(\d+)", process.stdout.readline())
    if found is None:
        process.kill()
        raise RuntimeError("the embedded server did not start")
    with contextlib.ExitStack() as open_connections:
        open_connections.callback(process.wait)
        open_connections.callback(process.terminate)

        def connect() -> Send:
            connection = http.client.HTTPConnection(found[1], int(found[2]))
            open_connections.callback(connection.close)

            def send(method: str, target: str, body: bytes) -> Reply:
                connection.request(method, target, body or None, HEADERS)
                response = connection.getresponse()
                content = response.read()
                head = sum(len(name) + len(value) + 4 for name, value in response.getheaders()) + 19
                return response.status, len(content) + head, content

            return send

        yield connect


if __name__ == "__main__":
    from benchmarks.report import table

    print(table("Embedded server", measure(rounds=300)))
