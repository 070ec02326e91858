"""Leases and processes: a prompt end, and forks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lease.server import LeaseServer, grant, hang

ROOT = Path(__file__).parents[2]
SOON_S = 30.0  # an attempt that hangs ends after 75 s
# Without a remaining ttl, the first heartbeat comes immediately.
SETUP = """
import os, sys, threading, cycles
client = cycles.Cycles(base_url=sys.argv[1], api_key="cyc_test", tenant="acme", journal=False, timeout=120)
def reserve(**options):
    return client.reserve(cycles.tokens(1), action=("test", "work"), ttl_ms=600_000, **options)
"""


def start(server: LeaseServer, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", SETUP + code, server.url]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate("go\n", timeout=300)
    assert process.returncode == 0, errors
    return errors


@pytest.mark.parametrize("kept", ["guard = reserve().acquire()", "guard = reserve(lease_policy='cancel').acquire()"])
def test_a_process_ends_promptly_during_a_heartbeat(kept: str) -> None:
    with LeaseServer(hang(), remaining_ms=None) as server, start(server, f"{kept}\ninput()") as process:
        server.wait_for_extends(1)
        begun = time.monotonic()
        finish(process)
        assert time.monotonic() - begun < SOON_S


def test_an_event_loop_ends_promptly_during_a_heartbeat() -> None:
    code = """
import asyncio
async def main():
    guard = await reserve()
    await asyncio.to_thread(input)
    guard.usage
asyncio.run(main())
"""
    with LeaseServer(hang(), remaining_ms=None) as server, start(server, code) as process:
        server.wait_for_extends(1)
        begun = time.monotonic()
        finish(process)
        assert time.monotonic() - begun < SOON_S


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_scheduler_and_never_extends_leases_of_its_parent() -> None:
    code = """
guard = reserve().acquire()
input()
pid = os.fork()
if pid == 0:
    assert threading.active_count() == 1
    heard = threading.Event()
    client.on_event(lambda event: type(event).__name__ == "LeaseExtended" and heard.set())
    mine = reserve().acquire()
    assert heard.wait(60)
    assert mine.commit(cycles.tokens(1)).status == "committed"
    try:
        guard.commit(cycles.tokens(1))
    except cycles.InvalidRequestError:
        sys.exit(0)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert guard.state == "active"
guard.commit(cycles.tokens(1))
"""
    with LeaseServer(grant(60_000), remaining_ms=None) as server, start(server, code) as process:
        server.wait_for_extends(1)
        finish(process)
        targets = [request.target.removeprefix("/v1/reservations/") for request in server.requests]
    assert targets.count("r1/commit") == targets.count("r2/commit") == 1
    assert targets.count("r2/extend") >= 1
    assert not [target for target in targets if target.endswith("release")]
    beats = [request for request in server.requests if request.target.endswith("r1/extend")]
    assert len({request.connection for request in beats}) == 1  # the parent's
