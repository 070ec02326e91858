"""The limits that a run must keep, and where in the results each figure is. A missing figure is shown as missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Results = dict[str, Any]


class Bar(NamedTuple):
    """One limit: a figure above `limit` misses it (with `at_least`, a figure below it)."""

    what: str
    limit: float
    figure: Callable[[Results], float]
    at_least: bool = False

    def holds(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit


def _ratio(series: str, name: str, to: str) -> Callable[[Results], float]:
    return lambda results: float(results["series"][series]["ratios"][f"{name} / {to}"]["median"])


def _at(*path: Any) -> Callable[[Results], float]:
    def figure(results: Results) -> float:
        found: Any = results
        for step in path:
            found = found[step]
        return float(found)

    return figure


def _proxy_more(figure: str) -> Callable[[Results], float]:
    return lambda results: results["proxy"]["cycles proxy"][figure] - results["proxy"]["pass-through"][figure]


def _proxy_ratio(figure: str) -> Callable[[Results], float]:
    return lambda results: results["proxy"]["cycles proxy"][figure] / results["proxy"]["pass-through"][figure]


def _difference(series: str, name: str, minus: str, to: str) -> Callable[[Results], float]:
    more, less = _ratio(series, name, to), _ratio(series, minus, to)
    return lambda results: more(results) - less(results)


BARS = [
    Bar("CPU, sync guard / two httpx posts", 0.55, _ratio("sync 1", "guard", "httpx posts")),
    Bar("CPU, sync guard, journal off / two httpx posts", 0.42, _ratio("sync 1", "guard, no journal", "httpx posts")),
    Bar("CPU, sync guard / runcycles, journals on", 0.50, _ratio("sync 1", "guard", "runcycles")),
    Bar("CPU of the journal / two posts", 0.16, _difference("sync 1", "guard", "guard, no journal", "httpx posts")),
    Bar("CPU, own httpx client, sync / posts", 1.75, _ratio("sync 1", "guard, own httpx client", "httpx posts")),
    Bar("CPU, own httpx client, async / posts", 1.65, _ratio("async 1", "guard, own httpx client", "httpx posts")),
    Bar("CPU us, decorator - guard, no I/O", 8, _at("decorator", "decorator", "added_us")),
    Bar("CPU us, decorator with callables - guard", 25, _at("decorator", "with callables", "added_us")),
    Bar("CPU, sync guard, 16 threads / posts", 0.55, _ratio("sync 16", "guard", "httpx posts")),
    Bar("CPU, pooled call / pair, 1 thread", 0.05, _at("pools", "CPU, pooled call / pair, 1 thread", "figure")),
    Bar("CPU, pooled call / pair, 16 threads", 0.05, _at("pools", "CPU, pooled call / pair, 16 threads", "figure")),
    Bar("requests per 10,000 pooled calls", 32, _at("pools", "requests per 10,000 calls", "figure")),
    Bar("p50 us, pooled, server 5 ms away", 60, _at("far", "p50 us of a pooled call", "figure")),
    Bar("pooled calls of 5,000 that waited", 10, _at("far", "calls of 5,000 that waited", "figure")),
    Bar("wall, commit(wait=False) / waiting", 0.62, _at("far", "wall, wait=False / wait=True", "figure")),
    Bar("CPU, commit(wait=False) / waiting", 1.15, _at("far", "CPU, wait=False / wait=True", "figure")),
    Bar("10,000 pooled tasks: settled", 10_000, _at("tasks", "10000 tasks, pooled", "settled"), at_least=True),
    Bar("CPU us, each of 10,000 pooled tasks", 150, _at("tasks", "10000 tasks, pooled", "cpu_us")),
    Bar("10,000 tasks with guards: settled", 10_000, _at("tasks", "10000 tasks, guards", "settled"), at_least=True),
    Bar("10,000 tasks with guards: pending", 0, _at("tasks", "10000 tasks, guards", "pending")),
    Bar("calls/s, 16 threads, disk / process", 0.80, _at("disk_ratio", "median"), at_least=True),
    Bar("CPU, async guard / two httpx posts", 0.38, _ratio("async 1", "guard", "httpx posts")),
    Bar("CPU, async guard, 64 tasks / posts", 0.10, _ratio("async 64", "guard", "httpx posts")),
    Bar("the same, httpx-aiohttp installed", 0.20, _ratio("async 64", "guard", "httpx posts")),
    Bar("CPU, 64 tasks, guard / pool of transports", 0.80, _ratio("async 64", "guard", "httpx pool")),
    Bar("CPU, import cycles / import httpx, attrs", 1.15, _at("imports", "cycles", "ratio")),
    Bar("CPU, cold first committed call / two posts", 1.40, _at("first_call", "cpu_ratio")),
    Bar("CPU us, guarded provider call - SDK - guard", 1000, _at("providers", "one call", "added_us")),
    Bar("CPU us, streamed event, guarded - SDK", 15, _at("providers", "one streamed event", "added_us")),
    Bar("first byte ms, proxy - pass-through", 2, _proxy_more("first_byte_ms")),
    Bar("CPU ms per call, proxy - pass-through", 2, _proxy_more("cpu_ms_per_call")),
    Bar("CPU per streamed chunk, proxy / pass-through", 1.10, _proxy_ratio("cpu_us_per_chunk")),
    Bar("KiB per stream of the proxy, 200 open", 200, _at("proxy", "cycles proxy", "kib_per_stream")),
    Bar("bytes sent per guarded call", 1138, _at("per_call", "bytes")),
    Bar("requests per guarded call", 2, _at("per_call", "requests")),
    Bar("KiB per live sync guard (5,000)", 4, _at("live", "sync 5000", "kib_per_guard")),
    Bar("threads with 5,000 live sync guards", 40, _at("live", "sync 5000", "threads")),
    Bar("KiB per live async guard (5,000)", 8, _at("live", "async 5000", "kib_per_guard")),
    Bar("leases lapsed, 5,000 sync guards", 0, _at("leases", "sync", "lapsed")),
    Bar("threads that keep 5,000 leases", 40, _at("leases", "sync", "threads")),
    Bar("latest of 15,000 heartbeats, ms", 1000, _at("leases", "sync", "late_ms_max")),
    Bar("leases lapsed, 10,000 async guards", 0, _at("leases", "async", "lapsed")),
    Bar("KiB per leased async guard (10,000)", 8, _at("leases", "async", "kib_per_guard")),
    Bar("latest of 30,000 heartbeats, ms", 1000, _at("leases", "async", "late_ms_max")),
    Bar("leases lost in chaos that could be kept", 0, _at("chaos", "chaos", "lost_needlessly")),
    Bar("threads for 10,000 journal records", 8, _at("backlog", "10000", "threads")),
    Bar("MiB for 10,000 journal records", 30, _at("backlog", "10000", "mib")),
]
