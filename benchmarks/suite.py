"""The groups of cases that are measured together."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks import (
    backlog,
    decorator,
    embedded_server,
    floors,
    live,
    many_guards,
    ours,
    pools,
    process,
    providers,
    proxy,
    sibling,
    startup,
)
from benchmarks.measure import AsyncCase, Case, Series, interleave, interleave_async
from benchmarks.report import AGAIN, as_values

POSTS = "httpx posts"
OWN_CLIENT = "guard, own httpx client"
Say = Callable[[str], None]


class Scale:
    """Size of a run: calls per round, rounds, and counts of guards and records."""

    def __init__(self, quick: bool) -> None:
        self.rounds = 3 if quick else 9
        self.calls = 60 if quick else 200
        self.busy_calls = 320 if quick else 640
        self.processes = 3 if quick else 9
        self.live = [10, 100] if quick else [10, 1000, 5000]
        self.tasks = [1000] if quick else [1000, 10_000]
        self.leases = 10 if quick else 1
        self.records = [10, 100] if quick else [10, 1000, 10_000]


def machine() -> dict[str, Any]:
    what = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {
        "processor": _processor(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "what": what,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    """Return the name of the processor as Linux knows it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def sync(port: int, journal: str, scale: Scale, say: Say) -> dict[str, Any]:
    """One thread, 16 and 64; journal on, off and on disk; decorator; sibling; floors."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        cases = [
            Case(POSTS, enter(floors.httpx_posts(port))),
            Case(AGAIN, enter(floors.httpx_posts(port))),
            Case("raw socket", enter(floors.raw_socket(port))),
            Case("raw file", enter(floors.raw_file(journal + "/file"))),
            Case("guard", enter(ours.guard(port, journal + "/ours"))),
            Case("guard, no journal", enter(ours.guard(port, None))),
            Case("decorator, no journal", enter(ours.decorator(port, None))),
            Case(
                "guard, own httpx client",
                enter(ours.guard(port, journal + "/httpx", http_client=enter(httpx.Client()))),
            ),
            Case("pooled", enter(ours.pooled(port, journal + "/pooled"))),
        ]
        if sibling.IS_HERE:
            cases.append(Case("runcycles", enter(sibling.decorator(port, journal + "/sibling"))))
        busy = [case for case in cases if case.name not in ("raw socket", "raw file", "decorator, no journal")]
        disk = Case("guard, disk", enter(ours.guard(port, journal + "/disk", durability="disk")))
        found: dict[str, Series] = {}
        for workers, chosen in ((1, [*cases, disk]), (16, [*busy, disk]), (64, busy)):
            say(f"sync, {workers} threads")
            calls = scale.calls if workers == 1 else scale.busy_calls
            found[f"sync {workers}"] = interleave(chosen, workers=workers, calls=calls, rounds=scale.rounds)
    say("the decorator without I/O")
    without_io = decorator.measure(port, scale.calls, scale.rounds)
    speed = found["sync 16"].ratio("guard, disk", "guard", lambda sample: sample.calls / sample.wall_s)
    values: dict[str, Any] = {"series": {title: as_values(series, POSTS) for title, series in found.items()}}
    values["decorator"] = without_io
    if speed is not None:
        values["disk_ratio"] = speed._asdict()
    return values


async def asynchronous(port: int, journal: str, scale: Scale, say: Say) -> dict[str, Any]:
    """One task, 16 and 64."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        cases = [
            AsyncCase(POSTS, await enter(floors.async_httpx_posts(port))),
            AsyncCase(AGAIN, await enter(floors.async_httpx_posts(port))),
            AsyncCase("httpx pool", await enter(floors.async_httpx_posts(port, floors.TransportPool(16)))),
            AsyncCase("guard", await enter(ours.async_guard(port, journal + "/async"))),
            AsyncCase("guard, no journal", await enter(ours.async_guard(port, None))),
            AsyncCase("pooled", await enter(ours.async_pooled(port, journal + "/apooled"))),
        ]
        own = await enter(httpx.AsyncClient())
        guard = ours.async_guard(port, journal + "/ahttpx", async_http_client=own)
        cases.append(AsyncCase(OWN_CLIENT, await enter(guard)))
        if importlib.util.find_spec("httpx_aiohttp") is not None:
            from httpx_aiohttp import AiohttpTransport

            cases.append(
                AsyncCase("httpx-aiohttp posts", await enter(floors.async_httpx_posts(port, AiohttpTransport())))
            )
            theirs = await enter(httpx.AsyncClient(transport=AiohttpTransport()))
            guard = ours.async_guard(port, journal + "/aiohttp", async_http_client=theirs)
            cases.append(AsyncCase("guard, aiohttp", await enter(guard)))
        if sibling.IS_HERE:
            cases.append(AsyncCase("runcycles", await enter(sibling.async_decorator(port, journal + "/asibling"))))
        found: dict[str, Series] = {}
        for workers in (1, 16, 64):
            say(f"async, {workers} tasks")
            calls = scale.calls if workers == 1 else scale.busy_calls
            found[f"async {workers}"] = await interleave_async(cases, workers=workers, calls=calls, rounds=scale.rounds)
    return {"series": {title: as_values(series, POSTS) for title, series in found.items()}}


def pooled(port: int, journal: str, scale: Scale, say: Say) -> dict[str, Any]:
    """Pools and commits that do not wait, and thousands of tasks on one client."""
    say("pools, commits that do not wait, thousands of tasks")
    return pools.measure(port, journal, scale.rounds, scale.calls // 2, scale.tasks)


def per_call(port: int, journal: str) -> dict[str, dict[str, float]]:
    """Return requests and bytes of one guarded call, and of its httpx reference, as the server counts them."""
    calls: dict[str, contextlib.AbstractContextManager[Callable[[], object]]] = {
        "per_call": ours.guard(port, journal + "/count"),
        "per_call_posts": floors.httpx_posts(port),
    }
    found = {}
    for name, opened in calls.items():
        with opened as call:
            call()
            process.counts(port)
            for _ in range(100):
                call()
            seen = process.counts(port)
        found[name] = {what: seen[what] / 100 for what in ("requests", "bytes")}
    return found


def processes(port: int, journal: str, scale: Scale, say: Say) -> dict[str, Any]:
    """Measure what needs separate processes: import, first call, live guards, a full journal."""
    say("import and first call")
    values: dict[str, Any] = {
        "imports": startup.imports(scale.processes),
        "first_call": startup.first_call(port, journal + "/first", scale.processes),
        "live": {},
        "backlog": {},
    }
    for count in scale.live:
        for kind in ["sync", "async"] + (["sibling"] if sibling.IS_HERE and count <= 1000 else []):
            say(f"{count} live guards, {kind}")
            values["live"][f"{kind} {count}"] = live.measure(kind, port, count, f"{journal}/live-{kind}-{count}")
    for count in scale.records:
        say(f"{count} journal records")
        values["backlog"][str(count)] = backlog.measure(port, count, f"{journal}/backlog-{count}")
    return values


def provider_clients(port: int, scale: Scale, say: Say) -> dict[str, Any]:
    """Measure what a guarded provider client adds to the SDK."""
    if not providers.can_be_measured():
        say("not the provider clients: openai is not installed")
        return {}
    say("guarded provider clients")
    return {"providers": providers.measure(port, scale.calls, scale.rounds)}


def guard_proxy(scale: Scale, say: Say) -> dict[str, Any]:
    """Measure what the proxy of `cycles run` adds to a plain pass-through."""
    if not proxy.can_be_measured():
        say("not the proxy: starlette or uvicorn is not installed, or there is no /proc")
        return {}
    say("the proxy of cycles run")
    return {"proxy": proxy.measure(scale.calls, scale.rounds)}


def leases(scale: Scale, say: Say) -> dict[str, Any]:
    """Measure thousands of concurrent leases with three heartbeats each, and a minute of faults."""
    found: dict[str, dict[str, Any]] = {"leases": {}, "chaos": {}}
    for kind, guards in many_guards.GUARDS.items():
        guards //= scale.leases
        say(f"{guards} leases, {kind}")
        found["chaos" if kind == "chaos" else "leases"][kind] = many_guards.measure(kind, guards)
    return found


def embedded(scale: Scale, say: Say) -> dict[str, Any]:
    """Measure the response times of the embedded server."""
    if importlib.util.find_spec("uvicorn") is None:
        say("not the embedded server: uvicorn is not installed")
        return {}
    say("the embedded server")
    return {"embedded": embedded_server.measure(scale.calls)}
