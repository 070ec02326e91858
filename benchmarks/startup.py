"""The cost of importing the SDK, and of the first committed call of a new process."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.floors import COMMIT, COMMIT_PATH, CREATE, CREATE_PATH, HEADERS, KEY
from benchmarks.process import run
from benchmarks.sibling import IS_HERE

_IMPORT = """
import json, sys, time
before, begun, spent = set(sys.modules), time.perf_counter(), time.process_time()
{what}
print(json.dumps([time.process_time() - spent, time.perf_counter() - begun, len(set(sys.modules) - before)]))
"""
_REFERENCE = f"""
import sys, httpx
with httpx.Client(base_url="http://127.0.0.1:" + sys.argv[1]) as client:
    client.post({CREATE_PATH!r}, content={CREATE!r}, headers={HEADERS!r})
    client.post({COMMIT_PATH!r}, content={COMMIT!r}, headers={HEADERS!r})
"""
_FIRST = f"""
import sys, cycles
client = cycles.Cycles(base_url="http://127.0.0.1:" + sys.argv[1], api_key={KEY!r}, tenant="acme",
                       journal_dir=sys.argv[2])
with client, client.reserve(cycles.usd("0.05"), action=("llm.completion", "gpt-4o")) as guard:
    guard.commit(cycles.usd("0.032"))
"""


def imports(rounds: int) -> dict[str, dict[str, Any]]:
    """Return CPU and wall time and modules of an import (medians), with the ratio to `import httpx, attrs`."""
    statements = {"httpx, attrs": "import httpx, attrs", "cycles": "import cycles", "nothing": "pass"}
    if IS_HERE:
        statements["runcycles"] = "import runcycles"
    found: dict[str, list[list[float]]] = {name: [] for name in statements}
    for what in statements.values():
        run(_IMPORT.format(what=what))  # compiles what no earlier run has compiled
    for _ in range(rounds):
        for name, what in statements.items():
            found[name].append(run(_IMPORT.format(what=what)).output)
    base = found["httpx, attrs"]
    return {
        name: {
            "cpu_ms": statistics.median(each[0] for each in samples) * 1000,
            "wall_ms": statistics.median(each[1] for each in samples) * 1000,
            "modules": int(samples[0][2]),
            "ratio": statistics.median(each[0] / its[0] for each, its in zip(samples, base, strict=True)),
        }
        for name, samples in found.items()
    }


def first_call(port: int, journal: str, rounds: int) -> dict[str, Any]:
    """Compare a new process with one committed call with a new process that makes two httpx posts."""
    run(_FIRST, port, journal)  # compiles what no earlier run has compiled
    pairs = [(run(_FIRST, port, journal), run(_REFERENCE, port)) for _ in range(rounds)]
    return {
        "cpu_ms": statistics.median(ours.cpu_s for ours, _ in pairs) * 1000,
        "wall_ms": statistics.median(ours.wall_s for ours, _ in pairs) * 1000,
        "posts_cpu_ms": statistics.median(posts.cpu_s for _, posts in pairs) * 1000,
        "cpu_ratio": statistics.median(ours.cpu_s / posts.cpu_s for ours, posts in pairs),
        "wall_ratio": statistics.median(ours.wall_s / posts.wall_s for ours, posts in pairs),
    }
