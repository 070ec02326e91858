"""Run real work under a budget. `make demo` runs this file.

A Cycles server runs in a separate process and has a budget of six cents for the tenant `demo`. Workers, some in threads
and some as asyncio tasks, read the standard library of this Python and hash or compress it, at one microcent per byte.
One worker crashes, one is so slow that its reservation needs a heartbeat, and the last one continues until the budget
is used up. At the end the sums of the workers must equal the sums of the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shlex
import subprocess
import sys
import sysconfig
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cycles
from cycles import Amount, AsyncGuard, Cycles, Guard

TENANT = "demo"
BUDGET = cycles.usd("0.06")  # the planned work costs about four cents; the last worker uses the rest
LIBRARY = Path(sysconfig.get_path("stdlib"))

SLOW_PAUSE_S = 0.1  # between two of about 120 files, like a wait for a slow service
SLOW_TTL_MS = 5_000  # so short that the lease has to be extended; the default is a minute

started = time.monotonic()


def price(byte_count: int) -> Amount:
    """Return the price of a number of bytes: one microcent per byte, about a cent per megabyte."""
    return cycles.usd_microcents(byte_count)


def sources(package: str) -> list[Path]:
    return sorted((LIBRARY / package).rglob("*.py"))


def compress(paths: Iterable[Path]) -> tuple[int, int]:
    """Compress files. Return the number of bytes read, and the compressed size."""
    contents = b"".join(path.read_bytes() for path in paths)
    return len(contents), len(zlib.compress(contents, 9))


def estimate(package: str) -> Amount:
    """Return what a package may cost: the size of its files and a tenth more. A commit releases the unused rest."""
    size = sum(path.stat().st_size for path in sources(package))
    return price(size + size // 10)


def say(who: str, what: str) -> None:
    # The line end is part of the string: `print` would write it separately, and lines of two threads would mix.
    print(f"{time.monotonic() - started:5.1f} s  {who:<7} {what}\n", end="", flush=True)


class SimulatedCrashError(Exception):
    """Raised by the worker that crashes."""


@dataclass
class Worker:
    """One row of the table: a worker, its guards, and why it ended."""

    name: str
    guards: list[Guard | AsyncGuard] = field(default_factory=list)
    ended: str = "still working"

    def say(self, what: str) -> None:
        say(self.name, what)

    @contextmanager
    def shift(self) -> Iterator[None]:
        """Run the work of this worker, and record why it ended."""
        try:
            yield
            self.ended = "finished"
        except cycles.BudgetExceededError:
            self.ended = "denied: budget used up"
        except SimulatedCrashError as crash:
            self.ended = f"crashed: {crash}"
        self.say(self.ended)

    def estimated(self) -> Amount:
        return sum((guard.estimate for guard in self.guards), price(0))

    def charged(self) -> Amount:
        return sum((guard.settlement.charged or price(0) for guard in self.guards if guard.settlement), price(0))

    def released(self) -> Amount:
        return sum((released_amount(guard) for guard in self.guards), price(0))


def released_amount(guard: Guard | AsyncGuard) -> Amount:
    """Return what a guard released: all of it after a release, the unused rest after a commit."""
    if guard.state == "released":
        return guard.estimate
    return (guard.settlement and guard.settlement.released) or price(0)


# --- the work -------------------------------------------------------------------------------------------------------


def hash_packages(client: Cycles, worker: Worker, packages: Iterable[str]) -> None:
    """Hash packages in a thread: `with` reserves the budget of one package, `commit` reports what it cost."""
    with worker.shift():
        for package in packages:
            with client.reserve(estimate(package), action=("file.hash", package)) as guard:
                worker.guards.append(guard)
                contents = b"".join(path.read_bytes() for path in sources(package))
                digest = hashlib.sha256(contents).hexdigest()
                guard.commit(price(len(contents)))
            worker.say(f"{package}: sha256 {digest[:12]}, {len(contents):,} bytes")


def crash_half_way(client: Cycles, worker: Worker, package: str) -> None:
    """Raise in a block before its commit: the whole reservation is released, and the exception propagates."""
    with worker.shift(), client.reserve(estimate(package), action=("file.hash", package)) as guard:
        worker.guards.append(guard)
        worker.say(f"{package}: holds {guard.reserved} and is about to crash")
        raise SimulatedCrashError("power failure")


async def compress_packages(client: Cycles, worker: Worker, packages: Iterable[str]) -> None:
    """Compress packages in a task: `async with` on the same client, and `await` for each call that sends a request."""
    with worker.shift():
        for package in packages:
            async with client.reserve(estimate(package), action=("file.compress", package)) as guard:
                worker.guards.append(guard)
                read, packed = await asyncio.to_thread(compress, sources(package))
                await guard.commit(price(read))
            worker.say(f"{package}: {read:,} bytes, compressed to {packed:,}")


async def compress_slowly(client: Cycles, worker: Worker, package: str) -> None:
    """Work longer than the lease: the client extends it. `spend` adds amounts, the end of the block commits them."""
    with worker.shift():
        async with client.reserve(estimate(package), action=("file.compress", package), ttl_ms=SLOW_TTL_MS) as guard:
            worker.guards.append(guard)
            for number, path in enumerate(sources(package), start=1):
                read, _ = await asyncio.to_thread(compress, [path])
                spent = guard.spend(price(read))
                if number % 30 == 0:
                    worker.say(f"{package}: {number} files, {spent} so far")
                await asyncio.sleep(SLOW_PAUSE_S)


def work(client: Cycles) -> list[Worker]:
    """Run threads and tasks on one client, then one more worker until its reservation is denied."""
    hash_1, hash_2, hash_3, crash = (Worker(name) for name in ("hash-1", "hash-2", "hash-3", "crash"))
    zip_1, zip_2, zip_3, slow = (Worker(name) for name in ("zip-1", "zip-2", "zip-3", "slow"))
    last = Worker("last")

    async def tasks() -> None:
        await asyncio.gather(
            compress_packages(client, zip_1, ["xml", "re"]),
            compress_packages(client, zip_2, ["importlib", "concurrent"]),
            compress_packages(client, zip_3, ["collections", "multiprocessing"]),
            compress_slowly(client, slow, "encodings"),
        )

    with ThreadPoolExecutor(max_workers=4) as threads:
        futures = [
            threads.submit(hash_packages, client, hash_1, ["json", "logging", "urllib"]),
            threads.submit(hash_packages, client, hash_2, ["email", "http"]),
            threads.submit(hash_packages, client, hash_3, ["asyncio", "html"]),
            threads.submit(crash_half_way, client, crash, "unittest"),
        ]
        asyncio.run(tasks())
        for future in futures:
            future.result()  # raises the exception of the thread, if there was one

    asyncio.run(compress_packages(client, last, itertools.cycle(["asyncio", "email", "xml"])))
    return [hash_1, hash_2, hash_3, zip_1, zip_2, zip_3, crash, slow, last]


# --- the report -----------------------------------------------------------------------------------------------------


def row(name: str, jobs: object, amounts: Iterable[Amount | str], why: str) -> str:
    columns = [amount if isinstance(amount, str) else f"${cycles.to_usd(amount):.8f}" for amount in amounts]
    return f"{name:<7} {jobs:>4}  {'  '.join(f'{column:>11}' for column in columns)}  {why}".rstrip()


def report(workers: list[Worker], heartbeats: Counter[str | None], balance: cycles.Balance) -> bool:
    """Print the table and the balance of the server. Return whether they agree."""
    rule = "-" * 80
    print(f"\n{row('worker', 'jobs', ['estimated', 'charged', 'released'], 'why it ended')}\n{rule}")
    for worker in workers:
        count = sum(heartbeats[guard.reservation_id] for guard in worker.guards)
        why = f"{worker.ended}, {count} heartbeats" if count else worker.ended
        print(row(worker.name, len(worker.guards), [worker.estimated(), worker.charged(), worker.released()], why))
    estimated = sum((worker.estimated() for worker in workers), price(0))
    charged = sum((worker.charged() for worker in workers), price(0))
    released = sum((worker.released() for worker in workers), price(0))
    print(f"{rule}\n{row('all', sum(len(worker.guards) for worker in workers), [estimated, charged, released], '')}\n")

    agree = (
        estimated == charged + released
        and balance.spent == charged
        and balance.reserved == price(0)
        and balance.remaining == BUDGET - charged
    )
    print(f"the server's balance of {balance.scope_path}:")
    print(f"  allocated {balance.allocated}, spent {balance.spent}, reserved {balance.reserved}, ", end="")
    print(f"remaining {balance.remaining}")
    print("  It agrees with the table." if agree else "  IT DOES NOT AGREE with the table.")
    return agree


@contextmanager
def server_process() -> Iterator[None]:
    """Run `python -m cycles.embedded` as a process, and set the environment variables that it prints."""
    budget = f"tenant:{TENANT}={cycles.to_usd(BUDGET)}USD"
    command = [sys.executable, "-m", "cycles.embedded", "--port", "0", "--budget", budget]
    # In its own session, so that Ctrl-C reaches only the client, which can then still release its reservations.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        exports = next((printed for printed in process.stdout if printed.startswith("export ")), None)
        if exports is None:
            sys.exit("the embedded server did not start; its messages are above")
        for assignment in shlex.split(exports)[1:]:
            name, _, value = assignment.partition("=")
            os.environ[name] = value
        yield
    finally:
        process.terminate()
        process.communicate()


def main() -> int:
    """Run the demo. Return exit status 0 only if the sums of workers and server agree."""
    with server_process(), Cycles(journal=False) as client:  # no journal: the demo leaves no files behind
        print(f"A Cycles server listens at {client.config.base_url}; {TENANT} may spend {BUDGET}.\n")
        heartbeats: Counter[str | None] = Counter()  # by reservation

        def watch(event: cycles.events.Event) -> None:
            if isinstance(event, cycles.events.LeaseExtended):
                heartbeats[event.reservation_id] += 1
                say("slow", "heartbeat: the lease is extended")

        client.on_event(watch)
        workers = work(client)
        [balance] = client.balances()
        return 0 if report(workers, heartbeats, balance) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: the reservations are released")
