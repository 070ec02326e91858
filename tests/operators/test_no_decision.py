"""What `cycles run` says if no call works because of the ledger, and why `--on-denied stop` stopped the program."""

from __future__ import annotations

import json
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import cycles
from tests.operators.kit import ROOT, environment, processes, run_process
from tests.operators.proxying import proxied
from tests.operators.running import start, summary

RUN = ("run", "--fake", "--budget", "1USD")
ENDS_WITH_0 = ("--", "sh", "-c", f"{shlex.quote(sys.executable)} examples/agent.py; exit 0")
SAYS = "cycles: no call could be sent, because the budget server decided none: "
WRONG_KEY = "the server does not accept this key; check api_key / CYCLES_API_KEY"


def test_a_wrong_key_is_said_when_it_happens_and_in_the_summary(
    configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_API_KEY", "cyc_live_wrong")
    ran = run_process(*RUN, *ENDS_WITH_0)
    assert ran.status == 3
    lines = ran.err.splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith(SAYS)]
    assert len(found) == 2
    assert found[0] < next(number for number, line in enumerate(lines) if "0 calls, " in line) < found[1]
    for number in found:
        assert WRONG_KEY in lines[number]
        assert lines[number].endswith("; cycles doctor finds the cause")
    assert "1 failed (no decision of the budget server: UNAUTHORIZED)" in ran.err


def test_no_server_is_exit_3_also_in_the_document() -> None:
    env = environment(CYCLES_BASE_URL="http://127.0.0.1:9", CYCLES_API_KEY="cyc_live_x", CYCLES_TENANT="acme")
    ran = run_process(*RUN, "--json", *ENDS_WITH_0, env=env)
    assert (ran.status, summary(ran)["exit"]) == (3, 3)
    assert summary(ran)["failed_by"] == {"no decision of the budget server: no response": 1}
    assert ran.err.splitlines()[1].startswith(f"{SAYS}no usable response from http://127.0.0.1:9")


def test_the_exit_status_of_a_program_that_failed_stays() -> None:
    env = environment(CYCLES_BASE_URL="http://127.0.0.1:9", CYCLES_API_KEY="cyc_live_x", CYCLES_TENANT="acme")
    ran = run_process(*RUN, "--", sys.executable, "examples/agent.py", env=env)
    assert ran.status == 1
    assert ran.err.count(SAYS) == 2


def test_a_ledger_that_recovers_ends_as_the_program_does() -> None:
    with proxied() as place:
        place.server.faults.refuse("reserve", times=4)
        assert place.post().status_code == 503
        assert place.proxy.app.totals.is_stuck
        place.server.faults.clear()
        assert place.post().status_code == 200
        assert not place.proxy.app.totals.is_stuck
        place.server.faults.refuse("reserve", times=4)
        assert place.post().status_code == 503
        assert not place.proxy.app.totals.is_stuck


@pytest.mark.parametrize("budget", [cycles.usd_microcents(10), cycles.tokens(10**9)], ids=["too small", "other unit"])
def test_a_ledger_that_denies_has_decided(budget: cycles.Amount) -> None:
    with proxied(budget) as place:
        assert place.post().status_code == 402
        place.server.faults.refuse("reserve", times=4)
        assert place.post().status_code == 503
        assert not place.proxy.app.totals.is_stuck


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    kept = (*RUN, "--keep", "job")
    env = environment(CYCLES_FLUSH_TIMEOUT="0.1")  # what a full disk cannot save stays pending
    assert run_process(*kept, "--", "true", env=env).status == 0
    [file] = tmp_path.rglob("job.db")
    size = file.stat().st_size
    ran = subprocess.run(
        [sys.executable, "-m", "cycles", *kept, *ENDS_WITH_0],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),  # as on a disk that is full
    )
    assert ran.returncode == 3, ran.stderr
    assert f"{SAYS}cannot write the ledger's file" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_stopped_program_is_named_with_the_reason() -> None:
    ran = run_process("run", "--fake", "--budget", "0.05USD", "--on-denied", "stop", *ENDS_WITH_0)
    assert ran.status == 128 + signal.SIGTERM
    why = "cycles: the command was stopped (--on-denied stop): Cycles denied this call: it may cost up to "
    assert ran.err.count(why) == 2
    assert "is left in tenant:run (BUDGET_EXCEEDED)" in ran.err


@processes
def test_the_proxy_says_it_too_and_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BASE_URL", "http://127.0.0.1:9"), ("API_KEY", "cyc_live_x"), ("TENANT", "acme")):
        monkeypatch.setenv(f"CYCLES_{name}", value)
    process = start("proxy", "--listen", "127.0.0.1:0", "--fake", "--json")
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["base_urls"]["OPENAI_BASE_URL"]
    chat = {"model": "gpt-4o", "messages": [], "max_tokens": 10}
    statuses = {httpx.post(f"{url}/chat/completions", json=chat, timeout=60).status_code for _ in range(3)}
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert statuses == {503}
    assert (process.returncode, json.loads(out.splitlines()[-1])["exit"]) == (0, 0)
    assert err.count(SAYS) == 1  # the summary is a document
