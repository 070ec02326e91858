"""Planted faults: small changes of the real code that the simulation must find. Run with `make simulate-planted`.

Each fault is a search and a replacement in one file. The runner copies the package, applies one fault, and runs seeds
until one fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[2]
MOST_SEEDS: Final = 400
CHUNK: Final = 20


@frozen
class Fault:
    """One planted fault: in `file`, the only occurrence of `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str


FAULTS: Final = (
    Fault(
        "a commit is sent before its record is saved",
        "cycles/_flows/commit.py",
        "    if await io.save(record):\n",
        "    if True:\n",
    ),
    Fault(
        "the record of an open settlement is deleted",
        "cycles/_flows/settle.py",
        "    if isinstance(result, Settled) or (",
        "    if not isinstance(result, Rejected) or (",
    ),
    Fault(
        "a commit without a response is recorded as an event too",
        "cycles/_core/settlement_rules.py",
        "    if not isinstance(outcome, RejectedResponse):\n        return Unresolved(outcome)",
        '    if not isinstance(outcome, RejectedResponse) and record.mode == "commit":\n'
        "        return Resend(record.to_event_mode(now_ms))\n"
        "    if not isinstance(outcome, RejectedResponse):\n"
        "        return Unresolved(outcome)",
    ),
    Fault(
        "each attempt of an event has another key",
        "cycles/_core/settlement.py",
        "    return event_call(record.event_fallback_body or {}, trace_id)",
        '    body = {**(record.event_fallback_body or {}), "idempotency_key": __import__("uuid").uuid4().hex}\n'
        "    return event_call(body, trace_id)",
    ),
    Fault(
        "the event charges the estimate",
        "cycles/_core/settlement.py",
        '"actual": commit["actual"]}\n    if "metrics"',
        '"actual": {**commit["actual"], "amount": 100}}\n    if "metrics"',
    ),
    Fault(
        "a timeout counts as settled",
        "cycles/_core/settlement_rules.py",
        "    if not isinstance(outcome, RejectedResponse):\n        return Unresolved(outcome)",
        "    if not isinstance(outcome, RejectedResponse):\n"
        '        return Settled(Settlement(status="committed", actual=actual_of(record)))',
    ),
    Fault(
        "a failing server counts as a rejection",
        "cycles/_core/settlement_rules.py",
        "    if outcome.understood:\n        return Rejected(outcome, outcome.code or str(outcome.status))",
        "    if outcome.understood or outcome.status >= 500:\n"
        "        return Rejected(outcome, outcome.code or str(outcome.status))",
    ),
    Fault(
        "an expired reservation has no event",
        "cycles/_core/settlement_rules.py",
        "        has_event = record.event_fallback_body is not None",
        "        has_event = False",
    ),
    Fault(
        "an amount of a lost reservation is dropped",
        "cycles/_core/settlement_rules.py",
        "        return _lost_reservation(record, response, now_ms)",
        '        return Settled(Settlement(status="committed", actual=actual_of(record)))',
    ),
    Fault(
        "spend replaces the sum",
        "cycles/_flows/guard_state.py",
        "self.spent = amount if self.spent is None else self.spent + amount",
        "self.spent = amount",
    ),
    Fault(
        "known spend of a block that raised is released",
        "cycles/_core/lifecycle.py",
        'BlockEndRow(True, "yes", "any", "commit_spend")',
        'BlockEndRow(True, "yes", "any", "release_raised")',
    ),
    Fault(
        "two records share a file",
        "cycles/_core/records.py",
        "hashlib.sha256(reservation_id.encode('utf-8', 'surrogatepass')).hexdigest()",
        "'0' * 64",
    ),
    Fault(
        "a shadow guard is charged",
        "cycles/_flows/commit.py",
        "    if guard.sends_nothing:\n        return settle_shadow(io, guard, actual_of(record))\n",
        "",
    ),
    Fault(
        "records of an earlier process are not found",
        "cycles/_journal/file_store.py",
        '        entries = {name for name in names if name.endswith(".json")}',
        "        entries: set[str] = set()",
    ),
    Fault(
        "a detached guard forgets its spend",
        "cycles/_flows/transfer.py",
        "    guard.spent = serialized.spent",
        "    guard.spent = None",
    ),
    Fault(
        "a denial is an allowance",
        "cycles/_core/protocol.py",
        "    return decision in ALLOWING",
        "    return decision is not None",
    ),
    Fault(
        "a decorated call commits its estimate",
        "cycles/_client/decorator.py",
        "        self._call_actual: Callable[..., Any] | None = None\n"
        "        self._needs_result = False\n"
        "        if callable(actual):",
        "        self._call_actual: Callable[..., Any] | None = None\n"
        "        self._needs_result = False\n"
        "        self._actual = None\n"
        "        if False:",
    ),
    Fault(
        "the ledger charges a repeated commit again",
        "cycles/embedded/ledger.py",
        '            replay = self._idempotency.replay("commit", reservation_id, request, now)\n'
        "            if replay is not None:\n                return replay\n            self._require_active(row)\n",
        "",
    ),
    Fault(
        "the ledger charges a repeated event again",
        "cycles/embedded/ledger.py",
        '            replay = self._idempotency.replay("event", tenant, request, now)',
        "            replay = None",
    ),
    Fault(
        "the ledger keeps the hold of a release",
        "cycles/embedded/ledger.py",
        "            returned = [budget.moved(reserved=-row.reserved) for budget in self._held(row)]\n"
        "            response",
        "            returned = [budget.moved(reserved=0) for budget in self._held(row)]\n            response",
    ),
    Fault(
        "the ledger keeps the hold of an expired reservation",
        "cycles/embedded/ledger.py",
        "            returned = [budget.moved(reserved=-record.reserved) for budget in self._held(record)]",
        "            returned = [budget.moved(reserved=0) for budget in self._held(record)]",
    ),
    Fault(
        "the ledger charges an event to one scope only",
        "cycles/embedded/ledger.py",
        '            budgeted = self._budgeted(derived, actual["unit"])\n            for budget in budgeted:\n'
        "                _require_usable(budget)\n                if policy",
        '            budgeted = self._budgeted(derived, actual["unit"])[-1:]\n            for budget in budgeted:\n'
        "                _require_usable(budget)\n                if policy",
    ),
    Fault(
        "a rejected amount is not kept",
        "cycles/_journal/file_store.py",
        '            write_whole(folder + name, f"{folder}{name}.{self._unique()}.tmp", kept, sync=self._sync)\n'
        "            self._claimed",
        "            self._claimed",
    ),
    Fault(
        "a reservation without a response runs unguarded",
        "cycles/_flows/reserve.py",
        '        if request.on_unavailable == "allow" and uncertain(outcome):',
        "        if uncertain(outcome):",
    ),
    Fault(
        "a cancelled commit is dropped",
        "cycles/_flows/commit.py",
        "settled, with the same key\n        finish_in_background(io, guard)",
        "settled, with the same key\n        pass",
    ),
    Fault(
        "the journal writer ignores its jobs",
        "cycles/_drivers/tasks.py",
        "            return await self._writer.save(record)",
        "            return True",
    ),
)


def apply(fault: Fault, folder: Path) -> None:
    """Apply a fault to a copy of the project.

    Raises:
        ValueError: the text of the fault does not occur exactly once, because the code has changed.
    """
    path = folder / fault.file
    text = path.read_text("utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: its text occurs {text.count(fault.old)} times in {fault.file}; adapt it")
    path.write_text(text.replace(fault.old, fault.new), "utf-8")


def seeds_until_found(fault: Fault, most: int = MOST_SEEDS) -> tuple[int | None, str]:
    """Return how many seeds ran until one failed (None: none of `most` did), and what the first one found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in ("cycles", "cycles_client"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "simulation", folder / "tests" / "simulation")
        shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests" / "__init__.py")
        apply(fault, folder)
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(folder)}
        for first in range(0, most, CHUNK):
            command = [sys.executable, "-m", "tests.simulation.run", "--first", str(first), "--seeds", str(CHUNK)]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            found = re.search(r"^seed (\d+) failed:\n  (.*)", done.stdout, flags=re.MULTILINE)
            if found:
                return int(found[1]) + 1, found[2]
            if done.returncode:
                return first + 1, (done.stderr.strip().splitlines() or ["the run failed"])[-1]
    return None, ""


def main() -> int:
    """Run every fault, or those whose name contains the argument. Return 1 if one is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--most", type=int, default=MOST_SEEDS)
    options = parser.parse_args()
    missed = 0
    for fault in FAULTS:
        if options.name not in fault.name:
            continue
        seeds, what = seeds_until_found(fault, options.most)
        missed += seeds is None
        print(f"{'missed' if seeds is None else f'{seeds:4} seeds':10}  {fault.name}: {what[:110]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
