"""How much of a budget guarded calls can use: denied calls, overspend, waits, against a provider that keeps the bill.

`make bench-exact` runs every row, writes `benchmarks/exact.json`, and exits with 1 if a bar is missed;
``BENCH_ARGS=--quick`` runs one row of each kind, and ``--write docs/exact-budgets.md`` puts the table into the page.
The figures are the same on any machine but for the durations, which are in multiples of one call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import openai
from attrs import asdict, field, frozen

import cycles
from benchmarks.process import ROOT
from benchmarks.suite import machine
from cycles.providers import guard
from cycles.providers._conversations import Conversations, chain_of
from cycles.proxy._routes import ROUTES
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from cycles.testing import FakeProvider

BOOK: Final = cycles.PriceBook({"gpt-4o": cycles.Price("2.50", "10"), "gpt-5": cycles.Price("1.25", "10")})
USED: Final = {"tokens_input": 300, "tokens_output": 400}
HIDDEN: Final = {"tokens_input": 300, "tokens_output": 2_000, "tokens_reasoning": 1_600}
MOST_CALLS: Final = 600
"""Calls of a loop that is never denied, so that a wrong result ends."""
FITTING: Final = 5
"""Calls of each loop whose bound certainly fits: each sends one reserve and one commit."""
TEXT: Final = "word " * 19 + "word"
RESULTS: Final = ROOT / "benchmarks" / "exact.json"
CPU_MS: Final = 1.0
KEY: Final = "bench"


@frozen(kw_only=True)
class Row:
    """One measurement.

    Attributes:
        kind: What it shows; ``--quick`` runs the rows that are marked.
        calls: Calls at the same time; 0: one after the other until the first denial.
        limit: Their output limit; None: none is sent.
        way: ``"sdk"`` or ``"proxy"``.
        stream: Whether they are streamed.
        used: The tokens of each.
        budget_usd: The budget.
        processes: How many processes share it.
        most: `max_output_tokens`.
        conversation: Whether the prompt grows from 100 to 220 kB.
        can_pay: Whether the budget can pay for all calls: then none may be denied.
        least_used: The share of the budget that must be used.
        quick: Whether ``--quick`` runs it.
    """

    kind: str
    calls: int = 0
    limit: int | None = None
    way: str = "sdk"
    stream: bool = False
    used: dict[str, int] = field(factory=lambda: USED)
    model: str = "gpt-4o"
    budget_usd: str = "1"
    processes: int = 1
    most: int | None = None
    conversation: bool = False
    can_pay: bool = False
    least_used: float = 0.0
    quick: bool = False


def rows() -> list[Row]:
    """Return the rows of the table."""
    limits = (4_096, 16_000, 32_000, 64_000)
    found = [Row(kind="32 in parallel", calls=32, limit=n, can_pay=True, quick=n == 32_000) for n in limits]
    found += [
        Row(kind="64 in parallel", calls=64, limit=64_000, way=way, stream=stream, can_pay=True, quick=False)
        for way in ("sdk", "proxy")
        for stream in (False, True)
    ]
    found.append(Row(kind="64 in parallel, max_output_tokens=4096", calls=64, limit=64_000, most=4_096, can_pay=True))
    found.append(Row(kind="16 in parallel", calls=16, limit=16_000, way="proxy", stream=True, can_pay=True, quick=True))
    found += [Row(kind="in turn", limit=n, least_used=0.98, quick=n == 64_000) for n in limits]
    found += [
        Row(kind="in turn", limit=64_000, way=way, stream=stream, least_used=0.98)
        for way, stream in (("sdk", True), ("proxy", False), ("proxy", True))
    ]
    gpt5: dict[str, Any] = {"model": "gpt-5", "used": HIDDEN}
    found.append(Row(kind="32 in parallel, hidden reasoning", calls=32, limit=32_000, can_pay=True, **gpt5))
    found.append(Row(kind="in turn, hidden reasoning", limit=64_000, least_used=0.98, quick=True, **gpt5))
    long = {"tokens_input": 300, "tokens_output": 10_000}
    found.append(Row(kind="32 in parallel, no limit sent", calls=32, used=long, least_used=0.98, quick=True))
    four: dict[str, Any] = {"processes": 4}
    found.append(Row(kind="four processes, 8 each in parallel", calls=8, limit=32_000, can_pay=True, **four))
    found.append(Row(kind="four processes, 16 each in parallel", calls=16, limit=64_000, can_pay=True, **four))
    found.append(Row(kind="four processes, in turn", limit=64_000, least_used=0.97, quick=True, **four))
    found.append(
        Row(
            kind="a conversation that grows",
            limit=4_096,
            conversation=True,
            budget_usd="3",
            least_used=0.97,
            quick=True,
        )
    )
    dear = {"tokens_input": 300, "tokens_output": 5_000}
    found.append(Row(kind="64 in parallel that need $3.25", calls=64, limit=5_000, used=dear, least_used=0.98))
    found.append(
        Row(
            kind="16 streams that need $3.21",
            calls=16,
            limit=64_000,
            stream=True,
            used={"tokens_input": 300, "tokens_output": 20_000},
            least_used=0.98,
            quick=True,
        )
    )
    return found


@frozen
class Call:
    """One call: how it ended, and how long it took."""

    outcome: str
    seconds: float


class InFlight:
    """The most reservations at the same time, from the events of a client."""

    def __init__(self, client: cycles.Cycles) -> None:
        self.now = self.most = 0
        client.on_event(self._see)

    def _see(self, event: Any) -> None:
        name = type(event).__name__
        self.now += {"Reserved": 1, "Settled": -1, "Released": -1}.get(name, 0)
        self.most = max(self.most, self.now)


def body(row: Row, number: int) -> dict[str, Any]:
    """Return the keywords of a call."""
    messages = [{"role": "user", "content": "x" * 1_100}]
    if row.conversation:
        turns = 25 + number
        messages = [{"role": "user" if n % 2 else "assistant", "content": "word " * 800} for n in range(turns)]
    given: dict[str, Any] = {"model": row.model, "messages": messages, "stream": row.stream}
    return given if row.limit is None else {**given, "max_tokens": row.limit}


def queue_replies(provider: FakeProvider, row: Row, delay_s: float) -> None:
    """Let the provider respond to every call of a row."""
    for number in range(MOST_CALLS if row.calls == 0 else row.calls * row.processes):
        used = dict(row.used)
        if row.conversation:
            used["tokens_input"] = len(json.dumps(body(row, number)["messages"])) // 4
        provider.reply(text=TEXT, usage=used, delay_s=delay_s)


async def call(llm: Any, row: Row, number: int = 0) -> Call:
    """Make one call and read its response to the end."""
    started, finish = time.perf_counter(), None
    try:
        response = await llm.chat.completions.create(**body(row, number))
        if row.stream:
            async for chunk in response:
                finish = next((choice.finish_reason for choice in chunk.choices if choice.finish_reason), finish)
        else:
            finish = response.choices[0].finish_reason
    except (cycles.BudgetExceededError, openai.APIStatusError) as error:
        if isinstance(error, openai.APIStatusError) and error.status_code != 402:
            raise
        return Call("denied", time.perf_counter() - started)
    return Call("shorter" if finish == "length" else "complete", time.perf_counter() - started)


async def calls(llm: Any, row: Row) -> list[Call]:
    """Make the calls of a row: all at the same time, or in turn until the first denial."""
    if row.calls:
        return list(await asyncio.gather(*(call(llm, row, number) for number in range(row.calls))))
    made: list[Call] = []
    while len(made) < MOST_CALLS and (not made or made[-1].outcome != "denied"):
        made.append(await call(llm, row, len(made)))
    return made


async def guarded_calls(client: cycles.Cycles, provider_url: str, row: Row) -> list[Call]:
    """Make the calls with a guarded client."""
    async with openai.AsyncOpenAI(api_key="k", base_url=provider_url, max_retries=0, timeout=900) as plain:
        return await calls(guard(plain, client=client, prices=BOOK, max_output_tokens=row.most), row)


async def proxied_calls(url: str, row: Row) -> list[Call]:
    """Make the calls through the proxy."""
    base_url = f"{url}/{KEY}/openai/v1"
    async with openai.AsyncOpenAI(api_key="k", base_url=base_url, max_retries=0, timeout=900) as llm:
        return await calls(llm, row)


@contextlib.contextmanager
def proxy(server: cycles.EmbeddedServer, client: cycles.Cycles, provider: FakeProvider, row: Row) -> Iterator[str]:
    """Run the proxy, and yield its address."""
    upstreams = {name: provider.url + route.mount for name, route in ROUTES.items()}
    settings = ProxySettings(upstreams=upstreams, prices=BOOK, key=KEY, max_output_tokens=row.most)
    running = ProxyServer(settings, client)
    try:
        yield running.start("127.0.0.1", 0)
    finally:
        running.stop(5)


def in_processes(server: cycles.EmbeddedServer, provider: FakeProvider, row: Row) -> list[Call]:
    """Make the calls in several processes."""
    with server.listen() as url:
        given = json.dumps(
            {
                "row": asdict(row),
                "provider": provider.openai_url,
                "settings": {"base_url": url, "api_key": server.api_key_for("acme"), "tenant": "acme"},
            }
        )
        command = [sys.executable, "-m", "benchmarks.exact", "--worker", given]
        started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(row.processes)]
        printed = [process.communicate(timeout=600)[0] for process in started]
    return [Call(*each) for text in printed for each in json.loads(text.splitlines()[-1])]


def work(given: str) -> None:
    """Make the calls of one process, and print how they ended."""
    logging.getLogger("cycles").setLevel(logging.ERROR)
    told = json.loads(given)
    with cycles.Cycles(**told["settings"], journal=False) as client:
        made = asyncio.run(guarded_calls(client, told["provider"], Row(**told["row"])))
    print(json.dumps([[one.outcome, one.seconds] for one in made]))


def measured(row: Row, delay_s: float) -> dict[str, Any]:
    """Run a row and return its figures."""
    budget = cycles.usd(row.budget_usd)
    with FakeProvider() as provider, cycles.EmbeddedServer({"tenant:acme": budget}) as server:
        queue_replies(provider, row, delay_s)
        client = server.client(tenant="acme", journal=False)
        in_flight = InFlight(client)
        if row.processes > 1:
            made = in_processes(server, provider, row)
        elif row.way == "proxy":
            with proxy(server, client, provider, row) as url:
                made = asyncio.run(proxied_calls(url, row))
        else:
            made = asyncio.run(guarded_calls(client, provider.openai_url, row))
        client.close()
        bill = provider.bill(BOOK).amount
        fitting = [request.operation for request in server.requests][: 2 * FITTING]
    seconds = sorted(one.seconds for one in made if one.outcome != "denied")
    return {
        "row": asdict(row),
        "sent": sum(one.outcome != "denied" for one in made),
        "denied": sum(one.outcome == "denied" for one in made),
        "shorter": sum(one.outcome == "shorter" for one in made),
        "bill": bill,
        "overspend": max(0, bill - budget.amount),
        "used": bill / budget.amount,
        "in_flight": in_flight.most if row.processes == 1 else None,
        "wait": [round(at(seconds, share) / delay_s, 1) for share in (0.5, 0.99)] if row.calls else None,
        "extra_requests": None if row.calls or row.processes > 1 else fitting != ["reserve", "commit"] * FITTING,
    }


def at(values: list[float], share: float) -> float:
    """Return a quantile."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def misses(found: dict[str, Any]) -> list[str]:
    """Return the bars that a row misses."""
    row = found["row"]
    missed = []
    if found["overspend"]:
        missed.append(f"overspend {found['overspend']} microcents")
    if row["can_pay"] and found["denied"]:
        missed.append(f"{found['denied']} denied")
    if found["used"] < row["least_used"]:
        missed.append(f"{found['used']:.1%} used, less than {row['least_used']:.0%}")
    if found["shorter"] > 1:
        missed.append(f"{found['shorter']} shorter responses")
    if found["extra_requests"]:
        missed.append("additional requests while the bound fits")
    return missed


def conversation_cpu_ms() -> float:
    """Return the CPU time of the bound of a conversation of 100 kB, in milliseconds."""
    turns = [{"role": "user", "content": "word " * 400} for _ in range(50)]
    asked = {"model": "gpt-4o", "messages": turns}
    kept = Conversations()
    known = chain_of("chat.completions", ("gpt-4o", "u"), {**asked, "messages": turns[:-2]})
    assert known is not None
    kept.learn(known, 25_000)
    took = []
    for _ in range(200):
        started = time.process_time()
        chain = chain_of("chat.completions", ("gpt-4o", "u"), asked)
        assert chain is not None
        assert kept.bound(chain, "gpt-4o") is not None
        took.append(time.process_time() - started)
    return round(sorted(took)[len(took) // 2] * 1000, 3)


HEADER: Final = (
    "| calls | output limit | way | sent | denied | shorter | bill | overspend | used | at the same time | p50, p99 |",
    "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
)


def line(found: dict[str, Any]) -> str:
    """Return a row of the table."""
    row = found["row"]
    limit = "none" if row["limit"] is None else f"{row['limit']:,}"
    way = f"{row['way']}, {'streams' if row['stream'] else 'whole'}"
    wait = "" if found["wait"] is None else f"{found['wait'][0]:g}, {found['wait'][1]:g}"
    cells = [row["kind"], limit, way, found["sent"], found["denied"], found["shorter"]]
    cells += [f"${found['bill'] / 10**8:.4f}", f"${found['overspend'] / 10**8:.4f}", f"{found['used']:.1%}"]
    cells += ["" if found["in_flight"] is None else found["in_flight"], wait]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """Run the rows, print them, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one row of each kind")
    parser.add_argument("--write", type=Path, help="put the table into this page, after its mark")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    logging.getLogger("cycles").setLevel(logging.ERROR)  # lowered limits are in the table
    chosen = [row for row in rows() if row.quick or not options.quick]
    about = machine()
    print(*HEADER, sep="\n", flush=True)
    results, failed = [], []
    for row in chosen:
        delay_s = 0.001 if not row.calls else 0.1 if options.quick else 0.5
        found = measured(row, delay_s)
        print(line(found), flush=True)
        results.append(found)
        failed += [f"{row.kind}, limit {row.limit}, {row.way}: {miss}" for miss in misses(found)]
    cpu_ms = conversation_cpu_ms()
    print(f"CPU of the bound of a conversation of 100 kB: {cpu_ms} ms")
    if cpu_ms > CPU_MS:
        failed.append(f"the bound of a conversation takes {cpu_ms} ms of CPU, more than {CPU_MS}")
    if not options.quick:
        RESULTS.write_text(json.dumps({"machine": about, "cpu_ms": cpu_ms, "rows": results}, indent=1) + "\n", "utf-8")
    if options.write:
        write(options.write, results, about)
    for miss in failed:
        print(f"missed: {miss}")
    return 1 if failed else 0


def write(page: Path, results: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Put the table into a page, after its mark."""
    before, mark, _ = page.read_text("utf-8").partition("<!-- results -->\n")
    measured_on = (
        f"{about['date']}, {about['what']}, {about['processor']}, Python {about['python']}, {about['cpus']} CPUs."
    )
    table = "\n".join([*HEADER, *map(line, results)])
    page.write_text(f"{before}{mark}\n{measured_on}\n\n{table}\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
