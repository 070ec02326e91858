"""Real work on a budget: what `make demo` runs.

A Cycles server runs in a process of its own and has six cents for the tenant `demo`. Workers, some in threads and some
as asyncio tasks, read the library of this very Python and hash or compress it, at one microcent a byte. One of them
crashes, one is so slow that its reservation needs a heartbeat, and the last one goes on until the budget is gone.
In the end what the workers booked must be what the server booked.
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
BUDGET = cycles.usd("0.06")  # the planned work costs about four cents; the last worker gets the rest
LIBRARY = Path(sysconfig.get_path("stdlib"))

SLOW_PAUSE_S = 0.1  # between two of about 120 files, as if each waited for a slow service
SLOW_TTL_MS = 5_000  # a lease this short must be extended meanwhile; the usual one lasts a minute

started = time.monotonic()


def price(byte_count: int) -> Amount:
    """One microcent a byte: about a cent a megabyte."""
    return cycles.usd_microcents(byte_count)


def sources(package: str) -> list[Path]:
    return sorted((LIBRARY / package).rglob("*.py"))


def compress(paths: Iterable[Path]) -> tuple[int, int]:
    """How many bytes were read, and how many are left of them."""
    contents = b"".join(path.read_bytes() for path in paths)
    return len(contents), len(zlib.compress(contents, 9))


def estimate(package: str) -> Amount:
    """What a package may cost: the size of its files and a tenth more. What is too much comes back."""
    size = sum(path.stat().st_size for path in sources(package))
    return price(size + size // 10)


def say(who: str, what: str) -> None:
    # The line end is part of the text: `print` would write it separately, and lines of two threads would mix.
    print(f"{time.monotonic() - started:5.1f} s  {who:<7} {what}\n", end="", flush=True)


class PowerCutError(Exception):
    """What the crashing worker dies of."""


@dataclass
class Worker:
    """One line of the table: a worker, the guards it held, and why it ended."""

    name: str
    guards: list[Guard | AsyncGuard] = field(default_factory=list)
    ended: str = "still working"

    def say(self, what: str) -> None:
        say(self.name, what)

    @contextmanager
    def shift(self) -> Iterator[None]:
        """Whatever ends the work of this worker ends here, and is noted."""
        try:
            yield
            self.ended = "finished"
        except cycles.BudgetExceededError:
            self.ended = "denied: the budget is gone"
        except PowerCutError as crash:
            self.ended = f"crashed: {crash}"
        self.say(self.ended)

    def estimated(self) -> Amount:
        return sum((guard.estimate for guard in self.guards), price(0))

    def charged(self) -> Amount:
        return sum((guard.settlement.charged or price(0) for guard in self.guards if guard.settlement), price(0))

    def released(self) -> Amount:
        return sum((given_back(guard) for guard in self.guards), price(0))


def given_back(guard: Guard | AsyncGuard) -> Amount:
    """A released guard gave back all it held; a committed one what it did not need."""
    if guard.state == "released":
        return guard.estimate
    return (guard.settlement and guard.settlement.released) or price(0)


# --- the work -------------------------------------------------------------------------------------------------------


def hash_packages(client: Cycles, worker: Worker, packages: Iterable[str]) -> None:
    """Blocking work, for a thread: `with` holds the budget of one package, `commit` says what it really cost."""
    with worker.shift():
        for package in packages:
            with client.reserve(estimate(package), action=("file.hash", package)) as guard:
                worker.guards.append(guard)
                contents = b"".join(path.read_bytes() for path in sources(package))
                digest = hashlib.sha256(contents).hexdigest()
                guard.commit(price(len(contents)))
            worker.say(f"{package}: sha256 {digest[:12]}, {len(contents):,} bytes")


def crash_half_way(client: Cycles, worker: Worker, package: str) -> None:
    """A block that raises with nothing committed gives its whole budget back, and the exception goes on."""
    with worker.shift(), client.reserve(estimate(package), action=("file.hash", package)) as guard:
        worker.guards.append(guard)
        worker.say(f"{package}: holds {guard.reserved} and is about to crash")
        raise PowerCutError("power cut")


async def compress_packages(client: Cycles, worker: Worker, packages: Iterable[str]) -> None:
    """The same in asyncio: `async with` on the same client, and `await` where something is sent."""
    with worker.shift():
        for package in packages:
            async with client.reserve(estimate(package), action=("file.compress", package)) as guard:
                worker.guards.append(guard)
                read, packed = await asyncio.to_thread(compress, sources(package))
                await guard.commit(price(read))
            worker.say(f"{package}: {read:,} bytes, compressed to {packed:,}")


async def compress_slowly(client: Cycles, worker: Worker, package: str) -> None:
    """Work that outlives its lease: the client extends it meanwhile. `spend` adds up; the end of the block commits."""
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
    """Threads and tasks side by side on one client; then one more worker, until the budget says no."""
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
            future.result()  # raises what the thread raised, should anything have gone wrong

    asyncio.run(compress_packages(client, last, itertools.cycle(["asyncio", "email", "xml"])))
    return [hash_1, hash_2, hash_3, zip_1, zip_2, zip_3, crash, slow, last]


# --- the report -----------------------------------------------------------------------------------------------------


def row(name: str, jobs: object, amounts: Iterable[Amount | str], why: str) -> str:
    columns = [amount if isinstance(amount, str) else f"${cycles.to_usd(amount):.8f}" for amount in amounts]
    return f"{name:<7} {jobs:>4}  {'  '.join(f'{column:>11}' for column in columns)}  {why}".rstrip()


def report(workers: list[Worker], beats: Counter[str | None], balance: cycles.Balance) -> bool:
    """Print the table, and beside it the server's own books; answer whether they agree."""
    rule = "-" * 80
    print(f"\n{row('worker', 'jobs', ['estimated', 'charged', 'released'], 'why it ended')}\n{rule}")
    for worker in workers:
        beaten = sum(beats[guard.reservation_id] for guard in worker.guards)
        why = f"{worker.ended}, {beaten} heartbeats" if beaten else worker.ended
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
    print(f"the server's books for {balance.scope_path}:")
    print(f"  allocated {balance.allocated}, spent {balance.spent}, reserved {balance.reserved}, ", end="")
    print(f"remaining {balance.remaining}")
    print("  They agree with the table." if agree else "  THEY DO NOT AGREE with the table.")
    return agree


@contextmanager
def server_process() -> Iterator[None]:
    """`python -m cycles.embedded` as a process; the environment then says where it is, as it would in a shell."""
    budget = f"tenant:{TENANT}={cycles.to_usd(BUDGET)}USD"
    command = [sys.executable, "-m", "cycles.embedded", "--port", "0", "--budget", budget]
    # In a session of its own, so that Ctrl-C reaches only the client, which can still give back what it holds.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        to_paste = next((line for line in process.stdout if line.startswith("export ")), None)
        if to_paste is None:
            sys.exit("the embedded server did not start; what it said is above")
        for assignment in shlex.split(to_paste)[1:]:
            name, _, value = assignment.partition("=")
            os.environ[name] = value
        yield
    finally:
        process.terminate()
        process.communicate()


def main() -> int:
    """Run it all; the exit status is 0 only if the books agree."""
    with server_process(), Cycles(journal=False) as client:  # no journal: the demo leaves no files behind
        print(f"A Cycles server listens at {client.config.base_url}; {TENANT} may spend {BUDGET}.\n")
        beats: Counter[str | None] = Counter()  # by reservation

        def watch(event: cycles.events.Event) -> None:
            if isinstance(event, cycles.events.LeaseExtended):
                beats[event.reservation_id] += 1
                say("slow", "heartbeat: the lease goes on")

        client.on_event(watch)
        workers = work(client)
        [balance] = client.balances()
        return 0 if report(workers, beats, balance) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; what was held has been given back")
