"""Measure one cell: one tool in one case, with its own bank, server and files."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.overspend import litellm_proxy
from benchmarks.overspend.cases import USD, Case
from benchmarks.overspend.processes import CELL_S, HERE, Bank, CellError, bank, proxy, redis, running, server
from benchmarks.overspend.tools import Tool

KILLED_AFTER: Final = 8
"""Responses after which the processes of `kill` and `late` are killed."""
LEASE_MS: Final = 5_000
"""The lease of a reservation in `late`, so that it has not to wait for a minute."""
PARALLEL_S: Final = 0.3
IN_TURN_S: Final = 0.05
"""Seconds until a response is made: long enough that calls at the same time overlap."""
LEASES_END_S: Final = 13.0
STREAMS_END_S: Final = 30.0


@dataclass
class Cell:
    """What was measured. Amounts are in microcents.

    Attributes:
        bill: What the provider charges.
        counted: What the tool has counted; None if it counts nothing.
        overspend: What the bill has above the budget.
        lost: The bill without what was counted; below 0 if too much was counted.
        denied: Calls that would have fit at their real price and were not made.
        discarded: Responses that were paid and that the program did not get.
        note: Why there are no figures.
        commit: The latest commit of the package that was measured; `+` if its files were changed since.
        errors: What the program caught, with counts.
    """

    bill: float = 0
    counted: float | None = None
    overspend: float = 0
    lost: float | None = None
    denied: int = 0
    discarded: int = 0
    note: str = ""
    commit: str = ""
    errors: list[Any] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the members that have a value."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", [])}


def figures(case: Case, bill: float, counted: float | None, made: int, got: int) -> Cell:
    """Return the figures of a cell.

    Args:
        case: The case.
        bill: What the bank charges.
        counted: What the tool counted.
        made: Responses that the bank has billed.
        got: Calls that the program got a response of.
    """
    calls = made // 2 if "lost" in case.plan.get("sequence", ()) else made
    no_loss = case.pattern in ("left",) or case.kill or "lost" in case.plan.get("sequence", ())
    return Cell(
        bill=bill,
        counted=counted,
        overspend=max(0.0, bill - case.budget),
        lost=None if counted is None else bill - counted,
        denied=max(0, case.wanted - calls),
        discarded=0 if no_loss else max(0, made - got),
    )


def measure(tool: Tool, case: Case, python: str, ours: str) -> Cell:
    """Measure a cell; what does not work is its note.

    Args:
        tool: The tool.
        case: The case.
        python: The interpreter of the tool's environment.
        ours: That of the environment with this project, for the bank and the server.
    """
    if case.name in tool.without or (case.late and not tool.is_ours):
        return Cell(note="-")
    with tempfile.TemporaryDirectory(prefix="overspend-") as name:
        try:
            return _measured(tool, case, python, ours, Path(name))
        except (CellError, OSError, ValueError) as problem:
            return Cell(note=str(problem)[:300])


def _measured(tool: Tool, case: Case, python: str, ours: str, folder: Path) -> Cell:
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(bank(ours, folder))
        job: dict[str, Any] = {
            **asdict(case), "case": case.name, "adapter": tool.adapter, "bank": provider.url, "folder": str(folder),
            "options": dict(tool.options), "counts": tool.counts,
        }  # fmt: skip
        if case.late and tool.adapter in ("guard", "pool"):
            job["options"] |= {"ttl_ms": LEASE_MS, "grace_period_ms": 1_000}
        budget = f"{case.budget / USD:g}USD"
        if tool.needs in ("server", "proxy"):
            job["server"] = stack.enter_context(server(ours, folder, budget))
        if tool.needs == "redis" and case.processes > 1:
            job["redis"] = stack.enter_context(redis(folder))
        provider.plan({"delay_s": PARALLEL_S if case.pattern == "parallel" or case.kill else IN_TURN_S, **case.plan})
        with contextlib.ExitStack() as inner:
            if tool.needs == "litellm":
                is_team = case.pattern == "nested"
                of_key = litellm_proxy.proxy(Path(python), folder, provider.url, case.budget / USD, is_team=is_team)
                running_proxy = inner.enter_context(of_key)
                job |= {"proxy": running_proxy.url, "key": running_proxy.key, "team": running_proxy.team}
                job["master_key"] = litellm_proxy.MASTER_KEY
                results = _programs(case, ours, job, folder, provider)
                results.append({"seen": {}, "errors": [], "counted": running_proxy.spent()})
            elif tool.needs == "proxy":
                job["proxy"] = inner.enter_context(proxy(ours, folder, job["server"], provider.url, budget))
                results = _programs(case, python, job, folder, provider)
            else:
                results = _programs(case, python, job, folder, provider)
        counted = _counted(tool, case, job, ours, results)
        until = time.monotonic() + STREAMS_END_S
        while (bill := provider.bill())["open"] and time.monotonic() < until:  # the end of a client is seen later
            time.sleep(0.05)
        got = sum(result["seen"].get("got", 0) for result in results)
        offered = case.wanted - sum(result["seen"].get("not offered", 0) for result in results)
        cell = figures(replace(case, wanted=offered), bill["microcents"], counted, bill["made"], got)
        cell.errors = [error for result in results for error in result["errors"]][:5]
        return cell


def _programs(case: Case, python: str, job: dict[str, Any], folder: Path, provider: Bank) -> list[dict[str, Any]]:
    """Run the processes of a case and return what they printed."""
    until = time.monotonic() + CELL_S

    with contextlib.ExitStack() as stack:
        processes = [_program(stack, python, job, folder, number) for number in range(case.processes)]
        if not case.kill:
            return [_result(process, until) for process in processes]
        while provider.bill()["made"] < KILLED_AFTER and any(process.poll() is None for process in processes):
            if time.monotonic() > until:
                raise CellError(f"no {KILLED_AFTER} responses after {CELL_S} s")
            time.sleep(0.02)
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait()
        if case.late:
            time.sleep(LEASES_END_S)
        again = [_program(stack, python, job, folder, number) for number in range(case.processes)]
        return [_result(process, until) for process in again]


def _program(stack: contextlib.ExitStack, python: str, job: dict[str, Any], folder: Path, number: int) -> Any:
    command = [python, str(HERE / "worker.py"), json.dumps({**job, "number": number})]
    return stack.enter_context(running(command, folder))


def _result(process: subprocess.Popen[str], until: float) -> dict[str, Any]:
    try:
        printed, _ = process.communicate(timeout=max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise CellError(f"ended after {CELL_S} s") from None
    if process.returncode:
        raise CellError(f"the program ended with {process.returncode}")
    result: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return result


def _counted(tool: Tool, case: Case, job: dict[str, Any], ours: str, results: list[dict[str, Any]]) -> float | None:
    if "server" in job:
        return _spent(ours, job["server"])
    counts = [result["counted"] for result in results if result["counted"] is not None]
    if not counts:
        return None
    # To the microcent: tools count in floating point numbers.
    total = max(counts) if tool.shares or (tool.needs == "redis" and case.processes > 1) else math.fsum(counts)
    return float(round(total))


def _spent(python: str, server_url: str) -> float:
    code = (
        "import sys, cycles\n"
        "with cycles.Cycles(base_url=sys.argv[1], api_key='key', tenant='acme', journal=False) as client:\n"
        "    print(sum(balance.spent.amount for balance in client.balances()))"
    )
    ran = subprocess.run([python, "-c", code, server_url], capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode:
        raise CellError(f"the balance cannot be read: {ran.stderr[-200:]}")
    return float(ran.stdout)


if __name__ == "__main__":
    sys.exit("run python -m benchmarks.overspend")
