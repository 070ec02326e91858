"""A fault run against the embedded server over HTTP: killed, stopped, and restored from an older file.

Every known amount is settled exactly once, and no budget stays reserved: the ledger is compared guard by guard. The
short form is part of the suite; `make test-faults` runs 200 guards (CYCLES_FAULT_GUARDS).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import cycles

from .embedded import EmbeddedProcess
from .fault_run import Run, end_during

# Read when the suite is collected: while tests run, the environment has no settings of a developer.
GUARDS = int(os.environ.get("CYCLES_FAULT_GUARDS", "70"))
# Each test opens two batches; in the short form, they have one guard of each kind.
BATCH = GUARDS // 10
MINUTE_MS = 60_000
LEASES_END_MS = 600_000

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # dropped guards
    pytest.mark.timeout(900),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedProcess]:
    process = EmbeddedProcess(tmp_path, 2 * BATCH)
    process.start()
    yield process
    process.close()


@pytest.fixture
def run(server: EmbeddedProcess, tmp_path: Path) -> Iterator[Run]:
    with cycles.Cycles(
        base_url=server.url, api_key=server.key, tenant=server.tenant, journal_dir=tmp_path / "journal"
    ) as client:
        yield Run(client)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_guards_that_end_while_the_server_ends(run: Run, server: EmbeddedProcess, end: str) -> None:
    for _ in range(2):
        end_during(run.batch(BATCH), server, end)
    run.settle()
    server.stop()
    run.compare(server.numbers())


def test_guards_that_begin_and_end_while_the_server_is_killed(run: Run, server: EmbeddedProcess) -> None:
    batch = run.make_batch(2 * BATCH)
    batch.gate.release()
    batch.begin()
    batch.gate.wait_until_ending(0.25)
    server.kill()
    batch.finish()
    server.start()
    run.settle()
    server.stop()
    run.compare(server.numbers())


def test_guards_that_end_while_the_server_is_down_until_their_leases_are_over(
    run: Run, server: EmbeddedProcess
) -> None:
    batch = run.batch(2 * BATCH)
    server.kill()
    batch.gate.release()
    batch.finish()
    server.start(later_ms=LEASES_END_MS)
    run.settle()
    server.stop()
    run.compare(server.numbers())


def test_guards_that_a_restored_ledger_knows(run: Run, server: EmbeddedProcess) -> None:
    settled, active = run.batch(BATCH), run.batch(BATCH)
    server.stop()
    server.copy()
    server.start()
    settled.gate.release()
    settled.finish()
    run.settle()
    restore(server)
    active.gate.release()
    active.finish()
    run.settle()
    server.stop()
    run.compare(server.numbers(), lost=settled.cases)


def test_guards_that_a_restored_ledger_does_not_know(run: Run, server: EmbeddedProcess) -> None:
    server.stop()
    server.copy()
    server.start()
    batch = run.batch(2 * BATCH)
    restore(server)
    batch.gate.release()
    batch.finish()
    run.settle()
    server.stop()
    run.compare(server.numbers())


def restore(server: EmbeddedProcess) -> None:
    """Kill the server and start it on the copy of its ledger, a minute later by its clock."""
    server.kill()
    server.restore()
    server.start(later_ms=MINUTE_MS)
