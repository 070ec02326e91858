"""Measure what a shared journal costs, on a private Redis and a private PostgreSQL: `python -m tests.stores.measure`.

Run it on a quiet machine. `docs/fleets.md`, "Size and load", has the figures and their limits.
"""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from attrs import frozen

import cycles
from cycles._journal.open import open_store
from cycles._journal.stores.store import JournalStore, Put
from tests.stores import servers
from tests.support.inside import runtime_of

KEY: Final = "cyc_live_key_of_the_measurement"
RECORD: Final = b'{"version":1,"commit_body":"' + b"x" * 680 + b'"}'
ROUNDS: Final = 7
CALLS: Final = 150
BATCH: Final = 64
THREADS: Final = 16
IDLE_S: Final = 12.0
IDLE_CLAIM_MS: Final = 1_000  # in place of 30,000: the same number of steps in a thirtieth of the time


@frozen
class Row:
    """One figure and its limit."""

    what: str
    figure: float
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.what:58} {self.figure:10.3f}   {sign} {self.limit:g}{'' if self.holds else '   MISSED'}"


def keys(count: int, prefix: str) -> list[str]:
    return [hashlib.sha256(f"{prefix}{number}".encode()).hexdigest() for number in range(count)]


def bound(url: str, name: str) -> JournalStore:
    return open_store(url).bind(name, durability="process", timeout_s=5.0)  # type: ignore[attr-defined, no-any-return]


@contextlib.contextmanager
def server_process() -> Iterator[str]:
    """Run a server in its own process, so that it does not share the processor time of a thread with the clients."""
    port = servers.free_port()
    words = [sys.executable, "-m", "cycles.embedded", "--port", str(port), "--budget", f"tenant:acme={10**12}TOKENS"]
    process = subprocess.Popen([*words, "--api-key", f"{KEY}=acme"], stdout=subprocess.DEVNULL)
    try:
        servers._wait_for(port, process, "the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def clients(address: str, folder: Path, **urls: str) -> Iterator[dict[str, cycles.Cycles]]:
    """One client for each store, and one with files."""
    with contextlib.ExitStack() as stack:
        made: dict[str, cycles.Cycles] = {}
        for name, store in {"files": "", **urls}.items():
            more = {"journal_store": store} if store else {}
            settings: dict[str, Any] = {"base_url": address, "api_key": KEY, "tenant": "acme", **more}
            client = stack.enter_context(cycles.Cycles(journal_dir=folder / name, **settings))
            made[name] = client
        yield made


def guarded(client: cycles.Cycles) -> None:
    with client.reserve(cycles.tokens(5), action=("a", "b")) as guard:
        guard.commit(cycles.tokens(3))


def added_to_a_commit(made: dict[str, cycles.Cycles]) -> Iterator[Row]:
    """Alternate the clients in short series, so that what the machine does in the meantime hits all of them."""
    commits: dict[str, list[float]] = {name: [] for name in made}
    calls: dict[str, list[float]] = {name: [] for name in made}
    for client in made.values():
        guarded(client)
    for _ in range(ROUNDS):
        for name, client in made.items():
            for _ in range(CALLS):
                began = time.perf_counter()
                guard = client.reserve(cycles.tokens(5), action=("a", "b")).acquire()
                held = time.perf_counter()
                guard.commit(cycles.tokens(3))
                ended = time.perf_counter()
                commits[name].append((ended - held) * 1000)
                calls[name].append((ended - began) * 1000)
    files, of_a_call = statistics.median(commits["files"]), statistics.median(calls["files"])
    for name, limit, ratio in (("redis", 0.2, 1.8), ("postgres", 0.4, 2.0)):
        yield Row(f"added to a commit by {name}, median, ms", statistics.median(commits[name]) - files, limit)
        yield Row(f"guarded call, {name} over files, wall", statistics.median(calls[name]) / of_a_call, ratio)


def batches(store: JournalStore, name: str) -> Row:
    """CPU of this process for each record of a batch that is put and settled, in microseconds."""
    found = []
    puts = [Put(key, RECORD, None, 30_000) for key in keys(BATCH, name)]
    for _ in range(ROUNDS * 20):
        began = time.process_time()
        fences = store.put(puts)
        store.delete([(put.key, fence or "") for put, fence in zip(puts, fences, strict=True)])
        found.append((time.process_time() - began) / BATCH * 1e6)
    return Row(f"batches of {BATCH}, {name}, CPU a record, us", statistics.median(found), 50)


def puts_per_second(made: cycles.Cycles, name: str) -> Row:
    """Records that threads save in the same moment go to the store together."""
    journal: Any = runtime_of(made).records.shared
    combiner, count = journal._combiner, 400
    own = {number: keys(count, f"{name}{number}") for number in range(THREADS)}

    def work(number: int) -> None:
        for key in own[number]:
            combiner.put([Put(key, RECORD, None, 30_000)])

    threads = [threading.Thread(target=work, args=(number,)) for number in own]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for each in own.values():
        journal._store.delete([(found.key, found.fence) for found in journal._store.get(each) if found is not None])
    return Row(f"puts a second, {name}, {THREADS} threads", THREADS * count / seconds, 3_000, at_least=True)


def idle_requests(url: str, address: str, folder: Path) -> Row:
    """Requests a minute of a client that has nothing to do, at the default of `journal_claim_ms`."""
    import redis

    settings: dict[str, Any] = {"journal_store": url, "journal_claim_ms": IDLE_CLAIM_MS, "journal_dir": folder}
    with cycles.Cycles(base_url=address, api_key=KEY, tenant="idle", **settings) as client, redis.from_url(url) as seen:
        assert runtime_of(client).background._scanned.wait(60)
        time.sleep(0.5)
        before = seen.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        time.sleep(IDLE_S)
        calls = seen.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) - before
    return Row("requests a minute of an idle client", calls / IDLE_S * 60 * IDLE_CLAIM_MS / 30_000, 8)


def main() -> int:
    """Print the figures. The status is 1 if one misses its limit."""
    servers.install()
    rows: list[Row] = []
    with servers.redis() as redis, servers.postgres() as postgres, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server_process() as address:
            with clients(address, folder, redis=redis, postgres=postgres) as made:
                rows += added_to_a_commit(made)
                for each, url in (("redis", redis), ("postgres", postgres)):
                    store = bound(url, "bench")
                    rows.append(batches(store, each))
                    rows.append(puts_per_second(made[each], each))
                    store.close()
            rows.append(idle_requests(redis, address, folder / "idle"))
    for row in rows:
        print(row)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
