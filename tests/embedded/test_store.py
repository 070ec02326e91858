"""The ledger in a file: what it stores, kill -9 without loss, and failed writes without effect."""

from __future__ import annotations

import itertools
import json
import random
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer
from tests.support.short import fewer

from .process import KEY, embedded_process

ALLOCATED = 10_000_000
WHO = {"subject": {"tenant": "acme"}, "action": {"kind": "k", "name": "n"}}


def opened(path: Path, clock: cycles.ManualClock) -> EmbeddedServer:
    return EmbeddedServer({"tenant:acme": cycles.tokens(1000)}, path=path, clock=clock, api_keys={KEY: "acme"})


def caller(server: EmbeddedServer) -> httpx.Client:
    return httpx.Client(transport=server.transport(), base_url="http://x", headers={"X-Cycles-API-Key": KEY})


def reserve(key: str, amount: int = 100, **fields: Any) -> dict[str, Any]:
    return {"idempotency_key": key, "estimate": {"unit": "TOKENS", "amount": amount}, **WHO, **fields}


def post(http: httpx.Client, body: dict[str, Any]) -> Any:
    """A reservation, written in ASCII: half of a surrogate pair is legal JSON, but httpx does not write it."""
    headers = {"Content-Type": "application/json"}
    return http.post("/v1/reservations", content=json.dumps(body), headers=headers).json()


def test_a_restart_keeps_every_record(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", cycles.ManualClock()
    with opened(path, clock) as server, caller(server) as http:
        server.ledger.set_budget("tenant:acme", cycles.tokens(1000), overdraft_limit=50, caps={"max_tokens": 5})
        server.ledger.set_tenant("acme", status="SUSPENDED", max_reservation_extensions=3)
        server.ledger.set_tenant("acme", max_reservation_extensions=3)
        minted = server.api_key_for("other")
        made = post(http, reserve("a", metadata={"é": [1, None, "\ud83d"]}))
        rid = made["reservation_id"]
        extend = {"idempotency_key": "e", "extend_by_ms": 1000}
        extended = http.post(f"/v1/reservations/{rid}/extend", json=extend).json()
        lapsing = http.post("/v1/reservations", json=reserve("b", ttl_ms=1000, grace_period_ms=0)).json()
        rows, balance = http.get("/v1/reservations?include=metadata").json(), server.ledger.balance("tenant:acme")
    clock.advance(1001)
    with opened(path, clock) as server, caller(server) as http:
        after = server.ledger.balance("tenant:acme")
        assert after.reserved == cycles.tokens(100)  # the one that expired without a request was returned
        assert (after.allocated, after.overdraft_limit) == (balance.allocated, balance.overdraft_limit)
        assert server.api_key_for("other") == minted
        replay = post(http, reserve("a", metadata={"é": [1, None, "\ud83d"]}))
        assert replay == made | {"remaining_ttl_ms": 60_000 - 1001}
        again = http.post(f"/v1/reservations/{rid}/extend", json=extend).json()
        assert again == extended | {"remaining_ttl_ms": 61_000 - 1001}
        shown = http.get("/v1/reservations?include=metadata").json()
        assert shown["reservations"][0] == rows["reservations"][0]
        assert shown["reservations"][1]["status"] == "EXPIRED"
        assert lapsing["reservation_id"] == shown["reservations"][1]["reservation_id"]
        newest = http.post("/v1/reservations", json=reserve("c")).json()["reservation_id"]
        assert http.get("/v1/reservations").json()["reservations"][-1]["reservation_id"] == newest
        again = [http.post(f"/v1/reservations/{rid}/extend", json=extend | {"idempotency_key": key}) for key in "xyz"]
        assert [response.status_code for response in again] == [200, 200, 409]  # one key of three was used before


def test_deleted_records_stay_deleted_after_a_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", cycles.ManualClock()
    with opened(path, clock) as server, caller(server) as http:
        rid = http.post("/v1/reservations", json=reserve("a")).json()["reservation_id"]
        server.ledger.set_budget("tenant:acme/agent:x", cycles.tokens(5))
        server.ledger.set_tenant("acme", status="CLOSED")
        server.ledger.delete_tenant("acme")
        server.ledger.delete_budget("tenant:acme/agent:x", unit="TOKENS")
        clock.advance(40 * 86_400_000)
        assert http.get(f"/v1/reservations/{rid}").status_code == 404
    with opened(path, clock) as server, caller(server) as http:
        assert http.get(f"/v1/reservations/{rid}").status_code == 404
        with pytest.raises(KeyError):
            server.ledger.balance("tenant:acme/agent:x")
    with sqlite3.connect(path) as file:
        kinds = {kind for (kind,) in file.execute("SELECT kind FROM records")}
    file.close()
    assert kinds == {"budget", "api_key"}


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Limit the size of this process's files to the current size of the ledger's log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", cycles.ManualClock()
    with opened(path, clock) as server, caller(server) as http:
        assert http.post("/v1/reservations", json=reserve("a")).status_code == 200
        with full_disk(path):
            response = http.post("/v1/reservations", json=reserve("b"))
        assert (response.status_code, response.json()["error"]) == (500, "INTERNAL_ERROR")
        assert server.ledger.balance("tenant:acme").reserved == cycles.tokens(100)
        assert http.post("/v1/reservations", json=reserve("b")).status_code == 200
        assert server.ledger.balance("tenant:acme").reserved == cycles.tokens(200)
        clock.advance(100_000)
        with full_disk(path):
            assert http.get("/v1/reservations").status_code == 500  # both have expired, and the sweep cannot be written
        assert server.ledger.balance("tenant:acme").reserved == cycles.tokens(0)


def test_only_one_server_at_a_time_opens_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.embedded.store.LOCK_WAIT_S", 0.01)
    path = tmp_path / "ledger.db"
    with opened(path, cycles.ManualClock()), pytest.raises(cycles.ConfigurationError, match="another server"):
        opened(path, cycles.ManualClock())
    opened(path, cycles.ManualClock()).close()
    assert path.stat().st_mode & 0o777 == 0o600


def write_text(path: Path) -> None:
    path.write_text("this is no database, and long enough to tell. " * 50)


def write_other_database(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE customers (name)")
    file.close()


def write_other_version(path: Path, version: int = 99) -> None:
    opened(path, cycles.ManualClock()).close()
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {version}")
    file.close()


def write_earlier_version(path: Path) -> None:
    write_other_version(path, 0)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_text, "cannot open the ledger"),
        (write_other_database, "not a ledger of the embedded server"),
        (write_other_version, r"has layout 99 of another version"),
        (write_earlier_version, r"has layout 0 of another version"),
    ],
)
def test_a_file_that_is_not_a_ledger_stays_unchanged(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    before = path.read_bytes()
    with pytest.raises(cycles.ConfigurationError, match=message):
        opened(path, cycles.ManualClock())
    assert path.read_bytes() == before


# --- kill -9 ----------------------------------------------------------------------------------------------------------


class Worker(threading.Thread):
    """Reserves and commits until the server dies. Stores which requests had a response and which had none."""

    def __init__(self, url: str, name: str, settled: threading.Semaphore) -> None:
        super().__init__(name=name)
        self._url = url
        self._settled = settled
        self.acknowledged: dict[str, int] = {}
        self.in_doubt: list[tuple[str, dict[str, Any]]] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers={"X-Cycles-API-Key": KEY}, timeout=10.0) as http:
            for number in itertools.count():
                try:
                    self._step(http, f"{self.name}-{number}")
                except httpx.TransportError:
                    return

    def _step(self, http: httpx.Client, key: str) -> None:
        self.in_doubt = [("/v1/reservations", reserve(key, 50))]
        rid = self._answer(http)["reservation_id"]
        actual = {"unit": "TOKENS", "amount": random.randint(1, 60)}
        self.in_doubt = [(f"/v1/reservations/{rid}/commit", {"idempotency_key": key, "actual": actual})]
        self.acknowledged[rid] = self._answer(http)["charged"]["amount"]
        self.in_doubt = []
        self._settled.release()

    def _answer(self, http: httpx.Client) -> dict[str, Any]:
        path, body = self.in_doubt[0]
        response = http.post(path, json=body)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


def test_kill_nine_under_load_loses_and_doubles_no_operation(tmp_path: Path) -> None:
    budget, file = f"tenant:acme={ALLOCATED}TOKENS", str(tmp_path / "ledger.db")
    arguments = ("--budget", budget, "--api-key", f"{KEY}=acme", "--db", file)
    charged: dict[str, int] = {}
    left_over: list[tuple[str, dict[str, Any]]] = []
    counts = [fewer(count) for count in (40, 75, 110)]
    for round_number, settlements in enumerate(counts):
        with embedded_process(*arguments) as (process, url):
            with httpx.Client(base_url=url, headers={"X-Cycles-API-Key": KEY}) as http:
                settle_what_was_in_doubt(http, left_over, charged)
                require_agreement(http, charged)
            settled = threading.Semaphore(0)
            workers = [Worker(url, f"round-{round_number}-{number}", settled) for number in range(4)]
            for worker in workers:
                worker.start()
            for _ in range(settlements):
                assert settled.acquire(timeout=120)
            process.kill()
            for worker in workers:
                worker.join(60)
                charged |= worker.acknowledged
                left_over += worker.in_doubt
    with embedded_process(*arguments) as (_, url), httpx.Client(base_url=url) as http:
        http.headers["X-Cycles-API-Key"] = KEY
        settle_what_was_in_doubt(http, left_over, charged)
        require_agreement(http, charged)
    assert len(charged) >= sum(counts)


def settle_what_was_in_doubt(
    http: httpx.Client, left_over: list[tuple[str, dict[str, Any]]], charged: dict[str, int]
) -> None:
    """Send each request twice again with its key: it is applied once, applied before or not."""
    for path, body in left_over:
        first, second = (http.post(path, json=body).json() for _ in range(2))
        if path.endswith("/commit"):
            assert first == second
            charged[path.split("/")[3]] = first["charged"]["amount"]
        else:
            rid = first["reservation_id"]
            assert rid == second["reservation_id"]
            assert http.post(f"/v1/reservations/{rid}/release", json={"idempotency_key": "r"}).status_code == 200
    left_over.clear()


def require_agreement(http: httpx.Client, charged: dict[str, int]) -> None:
    """The budget, the rows and the responses of the workers agree."""
    (balance,) = http.get("/v1/balances?tenant=acme").json()["balances"]
    assert balance["reserved"]["amount"] == 0
    assert balance["spent"]["amount"] == sum(charged.values())
    assert balance["remaining"]["amount"] == ALLOCATED - sum(charged.values())
    rows: dict[str, int] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = http.get("/v1/reservations", params={"status": "COMMITTED", "limit": 200, "cursor": cursor}).json()
        rows |= {row["reservation_id"]: row["committed"]["amount"] for row in page["reservations"]}
        cursor = page["next_cursor"]
    assert rows == charged
