"""A fork while another thread makes the first call of a client never hangs the child."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.http.conftest import ANSWERS
from tests.support.stub import Stub, ok

PROGRAM = """
import os, sys, threading, time
import cycles

def decide(client):
    return client.decide(cycles.tokens(1), action=("a", "b")).allowed

def fork_during(client, wait_s):
    caller = threading.Thread(target=decide, args=(client,))
    caller.start()
    time.sleep(wait_s)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if decide(client) else 1)
    caller.join()
    return pid

pids = []
for number in range(int(sys.argv[2])):
    client = cycles.Cycles(base_url=sys.argv[1], api_key="k", tenant="acme", journal=False)
    pids.append(fork_during(client, number * 0.0005))
    client.close()
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("count", [1, 12])
def test_a_fork_while_another_thread_makes_the_first_call_hangs_no_child(count: int) -> None:
    with Stub(ok(ANSWERS["decide"])) as stub:
        ran = subprocess.run(
            # From Python 3.12, `os.fork` warns in a process with threads; that is what this test is about.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, stub.url, str(count)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")
