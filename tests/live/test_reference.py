"""The fault run against the real servers: the runtime server killed and stopped, its Redis stopped and emptied.

`make test-live` starts them and names their folder. Without that, these tests are skipped.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import cycles

from .fault_run import Run, end_during
from .reference import ReferenceServers, wait_until

# Read when the suite is collected: while tests run, the environment has no settings of a developer.
FOLDER = os.environ.get("CYCLES_REFERENCE_FOLDER")
NAMES = ("URL", "KEY", "TENANT", "ADMIN_URL", "ADMIN_KEY", "REDIS")
SETTINGS = {name: os.environ.get(f"CYCLES_CONTRACT_{name}", "") for name in NAMES}
# Four tests with 50 guards each, so 200 in all.
GUARDS = 50
BUDGET = 100_000
SHORT_TTL_MS = 2_000
# Java servers that share a small machine with the tests are slow after a start.
CALL_S = 30.0

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="needs the reference servers, which make test-live starts"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # dropped guards
    pytest.mark.timeout(600),
]
_next = itertools.count()


@pytest.fixture(scope="module")
def servers() -> Iterator[ReferenceServers]:
    servers = ReferenceServers(Path(FOLDER or ""), SETTINGS)
    yield servers
    servers.close()


@pytest.fixture
def run(servers: ReferenceServers, tmp_path: Path) -> Iterator[Run]:
    with cycles.Cycles(
        base_url=servers.url,
        api_key=servers.key,
        tenant=servers.tenant,
        journal_dir=tmp_path / "journal",
        timeout=CALL_S,
    ) as client:
        assert list(client.balances())  # the first request after a start takes seconds
        run = Run(client, first=next(_next) * GUARDS)
        servers.make_budgets(run.agents(GUARDS), BUDGET)
        yield run


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_guards_that_end_while_the_server_ends(run: Run, servers: ReferenceServers, end: str) -> None:
    end_during(run.batch(GUARDS, ttl_ms=SHORT_TTL_MS), servers, end)
    run.settle()
    compare_after_the_leases(run, servers)


def test_guards_that_end_while_the_server_is_down_until_their_leases_are_over(
    run: Run, servers: ReferenceServers
) -> None:
    batch = run.batch(GUARDS, ttl_ms=SHORT_TTL_MS)
    servers.kill()
    batch.gate.release()
    batch.finish()
    servers.start()
    run.settle()
    compare_after_the_leases(run, servers)


def test_guards_that_end_while_redis_is_stopped(run: Run, servers: ReferenceServers) -> None:
    batch = run.batch(GUARDS)
    servers.stop_redis()
    batch.gate.release()
    batch.finish()
    servers.start_redis()
    run.settle()
    run.compare(servers.numbers(run.agents(GUARDS)))


def test_guards_that_end_after_redis_was_emptied(run: Run, servers: ReferenceServers) -> None:
    batch = run.batch(GUARDS)
    servers.empty_redis()
    batch.gate.release()
    batch.finish()
    servers.set_up_again()
    run.settle()
    numbers = servers.numbers(run.agents(GUARDS))
    # The restored budgets keep the amounts of reservations that the store no longer has.
    run.compare({agent: (spent, 0) for agent, (spent, _) in numbers.items()})


def compare_after_the_leases(run: Run, servers: ReferenceServers) -> None:
    """Compare when nothing is reserved: a release whose response was lost is not repeated until it succeeds."""
    # The server releases what expired reservations hold when it next looks for them.
    wait_until(lambda: not any(reserved for _, reserved in servers.numbers(run.agents(GUARDS)).values()))
    run.compare(servers.numbers(run.agents(GUARDS)))
