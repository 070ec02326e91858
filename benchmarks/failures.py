"""What each client of the protocol does at each failure, measured in the ledger of the embedded server.

`make compare` runs every failure with this SDK and with `runcycles`, each client in a process of its own, and prints a
table. A client reserves $0.05 and reports $0.032 while the failure happens. After at most ten seconds of repairs the
table says what the ledger was charged, and what it still holds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

import cycles
from benchmarks.process import ROOT
from benchmarks.sibling import IS_HERE, MISSING, module

ESTIMATE: Final = 5_000_000
ACTUAL: Final = 3_200_000
SCOPE: Final = "tenant:acme"
ACTION: Final = ("llm.completion", "gpt-4o")
REPAIR_S: Final = 10.0


@frozen
class Failure:
    """One failure: what happens, when it begins, and how the client's process ends.

    Attributes:
        begin: Is called while the client is in its block (or before it reserves, if `early`).
        end: Is called when the process has ended its block; then the client has `REPAIR_S` to repair.
        early: The failure begins before the reservation.
        way: What the block does: "commit" its cost, "raise" after its cost was reported, or report it and "wait".
        killed: The process is killed after the block, and another one starts with the same journal.
        has_holds: The table says what is still reserved. A server that has lost the reservation holds nothing.
    """

    name: str
    begin: Callable[[cycles.EmbeddedServer, cycles.ManualClock], object]
    end: Callable[[cycles.EmbeddedServer], object] = lambda server: server.faults.clear()
    early: bool = False
    way: str = "commit"
    killed: bool = False
    has_holds: bool = True


def _forget(server: cycles.EmbeddedServer) -> None:
    """Answer as a server that was restored from an older copy of its ledger."""
    body = {"error": "NOT_FOUND", "message": "reservation not found", "request_id": "restored"}
    server.faults.status("commit", 404, body=body, times=None)


def _pause(server: cycles.EmbeddedServer, _: cycles.ManualClock) -> None:
    """Give the client more than the second after which a reported cost is saved."""
    time.sleep(1.5)


def _unavailable(server: cycles.EmbeddedServer, _: cycles.ManualClock) -> None:
    for operation in ("commit", "release", "extend", "event"):
        server.faults.refuse(operation, times=None)


FAILURES: Final = (
    Failure("no failure", lambda server, clock: None),
    Failure("the response to the commit is lost", lambda server, _: server.faults.drop_response("commit")),
    Failure("the server is down at the commit, then back", _unavailable),
    Failure("the server returns 503 to the commit", lambda server, _: server.faults.status("commit", 503)),
    Failure(
        "a proxy returns 200 with HTML to the commit",
        lambda server, _: server.faults.status("commit", 200, body="<html>busy</html>"),
    ),
    Failure(
        "the commit is limited by a 429",
        lambda server, _: server.faults.status(
            "commit",
            429,
            body={"error": "LIMIT_EXCEEDED", "message": "slow down", "request_id": "limited"},
            headers={"Retry-After": "1"},
        ),
    ),
    Failure("the lease is over at the commit", lambda _, clock: clock.advance(600_000)),
    Failure("the server has lost the reservation", lambda server, _: _forget(server), has_holds=False),
    Failure("the process is killed while the server is down", _unavailable, killed=True),
    Failure("the process is killed in its block, after it reported its cost", _pause, way="wait", killed=True),
    Failure("the block raises after its cost was reported", lambda server, clock: None, way="raise"),
    Failure(
        "the response to the reserve is lost",
        lambda server, _: server.faults.drop_response("reserve"),
        early=True,
    ),
    Failure(
        "both responses to the reserve are lost",
        lambda server, _: server.faults.drop_response("reserve", times=2),
        early=True,
    ),
)


@frozen
class Outcome:
    """What a client did: the amounts in the ledger, in microcents, and what its caller saw."""

    charged: int
    held: int
    seen: str

    @property
    def text(self) -> str:
        """Return one cell of the table."""
        charged = {0: "nothing", ACTUAL: "$0.032", 2 * ACTUAL: "$0.032 twice", ESTIMATE: "the estimate"}
        caller = [f"the caller got {self.seen}"] if self.seen else []
        parts = [f"{charged.get(self.charged, str(self.charged))} charged"]
        if self.held:
            parts.append("$0.05 still reserved")
        return ", ".join([*parts, *caller])


def measure(client: str, failure: Failure) -> Outcome:
    """Run one failure with one client, and read the ledger afterwards."""
    clock = cycles.ManualClock(time.time_ns() // 1_000_000)
    with (
        cycles.EmbeddedServer(budgets={SCOPE: cycles.usd(100)}, clock=clock) as server,
        tempfile.TemporaryDirectory() as journal,
        server.listen(port=0) as url,
    ):
        arguments = [client, failure.way, url, server.api_key, journal]
        if failure.early:
            failure.begin(server, clock)
        with _process([*arguments, "killed" if failure.killed else "stays"]) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline().startswith("in block"):
                if not failure.early:
                    failure.begin(server, clock)
                if failure.way != "wait":
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    process.stdout.readline()
            failure.end(server)
            if failure.killed:
                process.kill()
                seen = ""
                _replay(arguments, server)
            else:
                _repaired(server)
                process.stdin.close()
                seen = process.stdout.read().partition("the caller got ")[2].strip()
        return Outcome(_spent(server), _held(server) if failure.has_holds else 0, seen)


def _replay(arguments: list[str], server: cycles.EmbeddedServer) -> None:
    client, _, *rest = arguments
    with _process([client, "replay", *rest, "stays"]) as process:
        assert process.stdin is not None
        _repaired(server)
        process.stdin.close()


def _repaired(server: cycles.EmbeddedServer) -> None:
    """Wait until the ledger is as it should be, at most `REPAIR_S` seconds."""
    until = time.monotonic() + REPAIR_S
    while time.monotonic() < until and (_spent(server) != ACTUAL or _held(server)):
        time.sleep(0.1)


def _spent(server: cycles.EmbeddedServer) -> int:
    return server.spent(SCOPE).amount


def _held(server: cycles.EmbeddedServer) -> int:
    reserved = server.ledger.balance(SCOPE, None).reserved
    return reserved.amount if reserved else 0


@contextmanager
def _process(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.failures", "--child", json.dumps(arguments)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, text=True, **streams) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


# --- the process of a client ---------------------------------------------------------------------------------------


def child(client: str, way: str, url: str, key: str, journal: str, _: str) -> None:
    """Be the process of one client: run its block, say what the caller saw, and stay until stdin is closed."""
    try:
        seen = {"cycles": _ours, "runcycles": _sibling}[client](way, url, key, journal)
    except Exception as problem:
        seen = f"the caller got `{type(problem).__name__}`"
    print("after block", flush=True)
    print(seen, flush=True)


def _in_block() -> None:
    print("in block", flush=True)
    sys.stdin.readline()


class WorkFailedError(Exception):
    """What the caller's block raises."""


def _ours(way: str, url: str, key: str, journal: str) -> str:
    client = cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal_dir=journal, timeout=2.0)
    with client:
        try:
            if way != "replay":
                with client.reserve(cycles.usd_microcents(ESTIMATE), action=ACTION) as guard:
                    if way == "wait":
                        guard.spend(cycles.usd_microcents(ACTUAL))
                    _in_block()
                    guard.spend(cycles.usd_microcents(ACTUAL))
                    if way == "raise":
                        raise WorkFailedError
        except WorkFailedError:
            pass
        print("after block", flush=True)
        sys.stdin.read()
    return ""


def _sibling(way: str, url: str, key: str, journal: str) -> str:
    names = module()
    config = names.CyclesConfig(base_url=url, api_key=key, tenant="acme", journal_dir=journal, read_timeout=2.0)
    with names.CyclesClient(config) as client:
        work = client.stream_reservation(
            action=names.Action(kind=ACTION[0], name=ACTION[1]),
            estimate=names.Amount(unit=names.Unit.USD_MICROCENTS, amount=ESTIMATE),
        )
        try:
            if way != "replay":
                with work as guard:
                    guard.usage.set_actual_cost(ACTUAL)
                    _in_block()
                    if way == "raise":
                        raise WorkFailedError
            else:
                with work:  # its journal is replayed with the first reservation
                    raise WorkFailedError
        except WorkFailedError:
            pass
        print("after block", flush=True)
        sys.stdin.read()
    return ""


def clients() -> dict[str, str]:
    """Return each client that is installed, with its name in the table."""
    found = {"cycles": f"this SDK {cycles.__version__}"}
    if IS_HERE:
        found["runcycles"] = f"runcycles {importlib.metadata.version('runcycles')}"
    return found


def table() -> str:
    """Run every failure with every client, and return the table."""
    heads = clients()
    lines = [f"| what fails | {' | '.join(heads.values())} |", f"|---|{'---|' * len(heads)}"]
    for failure in FAILURES:
        cells = [measure(client, failure).text for client in heads]
        lines.append(f"| {failure.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description="compare what each client does at each failure")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help="put the table into this page, after its mark")
    options = parser.parse_args()
    if options.child:
        return child(*json.loads(options.child))
    if not IS_HERE:
        print(MISSING, file=sys.stderr)
    result = table()
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, mark, _ = page.partition("<!-- results -->\n")
        options.write.write_text(f"{before}{mark}\n{result}\n", encoding="utf-8")
    print(result)
    return None


if __name__ == "__main__":
    main()
