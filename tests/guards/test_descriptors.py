"""A process without a free file descriptor, which loads parts of the SDK when it first reserves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.short import some

from .conftest import TENANT, Shop

resource = pytest.importorskip("resource")

PROGRAM = """
import asyncio, json, os, resource, sys
import cycles

url, key, tenant, kind, use, free, journal, folder = sys.argv[1:]
client = cycles.Cycles(base_url=url, api_key=key, tenant=tenant, journal=journal == "journal", journal_dir=folder,
                       flush_timeout=0)
events = []
client.on_event(lambda event: events.append(type(event).__name__))
action, amount = ("llm.completion", "m"), cycles.tokens(10**12 if use == "deny" else 100)
held = []


def use_up(free):
    soft = max(int(name) for name in os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(free):
        os.close(held.pop())


def made():
    if use == "pool":
        return client.pool(cycles.tokens(400), action=action).reserve(amount)
    if use == "series":
        return client.lease_series(amount, action=action)
    return client.reserve(amount, action=action)


def run():
    with made() as guard:
        guard = guard.next() if use == "series" else guard
        return guard.commit(cycles.tokens(7)).actual.amount


async def arun():
    await asyncio.sleep(0)
    if not held:
        use_up(int(free))
    async with made() as guard:
        guard = await guard.next() if use == "series" else guard
        return (await guard.commit(cycles.tokens(7))).actual.amount


def outcome(call):
    try:
        return {"actual": call()}
    except cycles.CyclesError as error:
        return {"error": type(error).__name__, "sent": getattr(error, "request_sent", None), "text": str(error)}


def once():
    return outcome(lambda: asyncio.run(arun())) if kind == "async" else outcome(run)


if kind == "sync":
    use_up(int(free))
told = once()
for each in held:
    os.close(each)
print(json.dumps({"first": told, "then": once(), "events": events}))
"""


def run(shop: Shop, folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM, shop.url, shop.server.api_key_for(TENANT), TENANT, *arguments]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")


@pytest.mark.parametrize("journal", some(["journal", "none"]))
@pytest.mark.parametrize("use", ["reserve", "pool", "series"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_first_reserve_of_a_process_sends_nothing_and_says_so(
    shop: Shop, tmp_path: Path, kind: str, use: str, journal: str
) -> None:
    told = run(shop, tmp_path, kind, use, "0", journal)
    first = told["first"]
    assert (first.get("error"), first.get("sent")) == ("TransportError", False), told
    assert "Too many open files" in first["text"]
    assert told["then"] == {"actual": 7}, "the next call finds descriptors and works"
    if use != "pool":  # a pool opens its next chunk ahead
        assert shop.operations.count("reserve") == 1


@pytest.mark.parametrize("journal", some(["journal", "none"]))
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_one_free_descriptor_is_the_connection_and_reports_change_nothing(
    shop: Shop, tmp_path: Path, kind: str, journal: str
) -> None:
    told = run(shop, tmp_path, kind, "deny", "1", journal)
    assert told["first"]["error"] == "BudgetExceededError", "the event class could not be loaded"
    told = run(shop, tmp_path, kind, "reserve", "1", journal)
    assert told["first"] == {"actual": 7}
    assert shop.money() == (14, 0)
