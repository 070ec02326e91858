"""A signal handler may record an amount or close the client at any point of a guarded call: it never hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.performance.conftest import answer
from tests.support.short import IS_SHORT
from tests.support.stub import Stub, ok

ROOT = Path(__file__).parents[2]
EACH = 23 if IS_SHORT else 1
PROGRAM = """
import sys
import cycles
from tests.support.points import run_at

url, folder, what, part, step = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
AMOUNT = cycles.usd("0.01")

def make():
    return cycles.Cycles(base_url=url, api_key="key", tenant="acme", journal_dir=folder, flush_timeout=0.005)

def guarded():
    with client.reserve(AMOUNT, action=("a", "b")) as guard:
        guard.spend(AMOUNT)
        guard.commit()

def act():
    if what == "record":
        assert client.record(AMOUNT, action=("a", "b")).status == "APPLIED"
    else:
        client.close()

number, client, done = 0, make(), True
guarded()
while done:
    try:
        done = run_at(part, number, act, guarded)
    except cycles.CyclesError as error:
        assert "closed" in str(error), error
    if what == "close":
        client.close()
        client = make()
        guarded()
    number += step
guarded()
assert what == "close" or client.pending() == []
client.close()
assert number > 15
print("done")
"""


@pytest.mark.parametrize(
    ("what", "part", "step"),
    [
        ("record", "/cycles/_", 20),
        ("close", "/cycles/_", 120),
        # Where locks are, every point, or each third in short form.
        ("record", "/cycles/_drivers/", EACH),
        ("close", "/cycles/_drivers/", EACH),
        ("record", "/cycles/_flows/", EACH),
        ("close", "/cycles/_flows/", EACH),
        ("record", "/cycles/_journal/", EACH),
        ("close", "/cycles/_journal/", EACH),
    ],
)
def test_a_signal_handler_hangs_at_no_point_of_a_guarded_call(tmp_path: Path, what: str, part: str, step: int) -> None:
    def respond(sock: object, ended: object) -> bool:
        target = stub.requests[-1].target
        if target.endswith("/events"):
            return ok({"status": "APPLIED", "event_id": "evt-1"}, 201)(sock, ended)  # type: ignore[arg-type]
        return ok(answer(target))(sock, ended)  # type: ignore[arg-type]

    with Stub(respond) as stub:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, stub.url, str(tmp_path), what, part, str(step)],
            capture_output=True,
            text=True,
            timeout=500,
            cwd=ROOT,
        )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr[-2000:]
