"""Records of the journal whose bits have flipped on the disk: none may be charged with another amount.

One seed is a journal of a few settlements whose commits had no response, some of them in event mode, of which some
files get flipped bits. A new client on the same journal then settles what it can. What it cannot read is quarantined.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from attrs import Factory, define

import cycles
from cycles._core.settlement.record import RecordError, decode

TENANT = "acme"


@define
class Outcome:
    """What one seed has led to.

    Attributes:
        problems: Amounts that were charged wrongly or lost.
        charged: Records that were settled.
        quarantined: Records that were quarantined.
        read: Records with flipped bits that were read, because their content is the same.
    """

    problems: list[str] = Factory(list)
    charged: int = 0
    quarantined: int = 0
    read: int = 0


def simulate(seed: int, folder: Path) -> Outcome:
    """Run one seed in an empty folder."""
    random, outcome = Random(seed), Outcome()
    agents = [f"agent-{number}" for number in range(random.randrange(1, 5))]
    spent = {agent: random.randrange(1, 10 ** random.randrange(1, 9)) for agent in agents}
    budgets = {f"tenant:{TENANT}/agent:{agent}": cycles.usd(1000) for agent in agents}
    clock = cycles.ManualClock()
    with cycles.EmbeddedServer(budgets, clock=clock) as server:
        _leave_records(server, folder, spent, random)
        files = sorted(folder.rglob("v2-*.json"))
        assert len(files) == len(agents), "each commit without a response leaves its record"
        hit = {path: _flip(path, random) for path in files if random.random() < 0.7}
        if random.random() < 0.3:
            clock.advance(3_600_000)  # the reservations expire: the amounts become events
        with server.client(tenant=TENANT, journal=True, journal_dir=folder, flush_timeout=0) as client:
            report = client.flush(timeout=60)
        left = list(folder.rglob("*.quarantined"))
        for path, (agent, is_damaged) in hit.items():
            kept = [each for each in left if each.name.startswith(path.name)]
            if is_damaged != bool(kept):
                outcome.problems.append(f"{agent}: damaged {is_damaged}, quarantined {bool(kept)}")
            outcome.read += not is_damaged
        damaged = {agent for agent, is_damaged in hit.values() if is_damaged}
        for agent in agents:
            found = server.spent(f"tenant:{TENANT}/agent:{agent}").amount
            wanted = 0 if agent in damaged else spent[agent]
            if found != wanted:
                outcome.problems.append(f"{agent}: charged {found}, not {wanted} of {spent[agent]}")
        if report.pending:
            outcome.problems.append(f"{report.pending} records are pending")
        outcome.charged, outcome.quarantined = len(agents) - len(damaged), len(left)
    return outcome


def _leave_records(server: cycles.EmbeddedServer, folder: Path, spent: dict[str, int], random: Random) -> None:
    """Settle amounts whose commits get no response, with a client that does not wait for them."""
    client = server.client(tenant=TENANT, journal=True, journal_dir=folder, flush_timeout=0)
    server.faults.refuse("commit", times=None)
    for agent, amount in spent.items():
        reserved = cycles.Amount("USD_MICROCENTS", amount)
        guard = client.reserve(reserved, action=("llm.completion", "m"), subject={"agent": agent}).acquire()
        guard.commit(reserved, metadata={"note": "\u20ac" * random.randrange(3), "agent": agent})
    client.close()
    server.faults.clear()


def _flip(path: Path, random: Random) -> tuple[str, bool]:
    """Flip one to three bits of a file; return the agent of its record, and whether a reader must reject it now."""
    content = bytearray(path.read_bytes())
    agent = json.loads(content)["commit_body"]["metadata"]["agent"]
    before = decode(bytes(content))
    for bit in random.sample(range(8 * len(content)), random.choice((1, 1, 1, 2, 3))):
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        after = decode(bytes(content))
    except RecordError:
        return agent, True
    same = (after.body, after.mode, after.reservation_id) == (before.body, before.mode, before.reservation_id)
    assert same, "a reader takes a record with other bytes for a valid one"
    return agent, False
