"""The set-up of a recovery test: a watched ledger on a real socket, a journal, and child processes that die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cycles
from cycles._core.settlement.record import Record
from cycles._core.settlement.schedule import Item
from cycles._drivers.work.work import Step, Work, attempt
from cycles._flows.io import Settle, run
from cycles.embedded.http import Request, Response
from cycles.embedded.routes import find
from tests.support.doors import Door
from tests.support.inside import runtime_of

ROOT = Path(__file__).parents[2]
TENANT = "acme"
PATIENCE_S = 240.0
"""How long a test waits for what must happen; only a failing test waits that long."""


class Seen(NamedTuple):
    """One request as it arrived, and what the journal held at that moment."""

    operation: str
    key: str
    body: dict[str, Any]
    api_key: str
    journal: list[dict[str, Any]]


class Ledger(cycles.EmbeddedServer):
    """An embedded server that notes each write as it arrives, before any response."""

    def __init__(self, journal_root: Path, clock: cycles.ManualClock | None) -> None:
        super().__init__({f"tenant:{TENANT}": cycles.tokens(1_000_000)}, clock=clock)
        self.clock = clock if clock is not None else cycles.ManualClock()
        self.seen: list[Seen] = []
        self.on_arrival: Callable[[Seen], None] | None = None
        self.on_done: Callable[[Seen], None] | None = None
        self._journal_root = journal_root
        self.news = threading.Condition()

    def handle(self, request: Request) -> Any:
        if request.method != "POST":
            return super().handle(request)
        seen = self._note(request)
        if self.on_arrival is not None:
            self.on_arrival(seen)
        answer: tuple[Response | None, Any] = super().handle(request)
        with self.news:
            self.news.notify_all()
        if self.on_done is not None:
            self.on_done(seen)
        return answer

    def _note(self, request: Request) -> Seen:
        body = json.loads(request.body)
        operation = str(find(request.method, request.path).operation)
        key = request.headers.get("x-cycles-api-key", "")
        seen = Seen(operation, body["idempotency_key"], body, key, records_in(self._journal_root))
        with self.news:
            self.seen.append(seen)
            self.news.notify_all()
        return seen

    def settling(self) -> list[Seen]:
        """The commits and events that arrived, in order."""
        return [seen for seen in list(self.seen) if seen.operation in ("commit", "event")]

    def wait_for(self, operation: str, times: int = 1) -> None:
        def came() -> bool:
            return sum(seen.operation == operation for seen in self.seen) >= times

        with self.news:
            assert self.news.wait_for(came, PATIENCE_S), f"no {operation} number {times} arrived"

    @property
    def charged(self) -> int:
        """Tokens that the tenant has spent."""
        spent = self.ledger.balance(f"tenant:{TENANT}", unit="TOKENS").spent
        return 0 if spent is None else spent.amount


def journal_files(root: Path) -> list[Path]:
    """The files of the journal but for rejected records, which are kept, and files without one that are reused."""
    found = root.rglob("*") if root.exists() else ()
    return sorted(path for path in found if path.is_file() and path.parent.name != "rejected" and not is_free(path))


def is_free(path: Path) -> bool:
    """Return whether a file is kept for reuse and has no whole record."""
    if path.suffix != ".spare":
        return False
    try:
        json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return True
    return False


def rejected_in(root: Path) -> list[dict[str, Any]]:
    """The rejected records, with the reason of each."""
    return [json.loads(path.read_bytes()) for path in sorted(root.rglob("rejected/*.json"))]


def records_in(root: Path) -> list[dict[str, Any]]:
    """Every whole record in the journal, as plain JSON."""
    found = []
    for path in journal_files(root):
        if path.suffix == ".json":
            try:
                found.append(json.loads(path.read_bytes()))
            except FileNotFoundError:
                continue
            except ValueError:
                if path.exists():
                    raise
                continue  # its record has ended, and the file became a spare one while it was read
    return found


class Ended(NamedTuple):
    """How a child ended and what it said."""

    killed: bool
    code: int
    answer: dict[str, Any] | None

    @property
    def done(self) -> list[Any]:
        assert self.answer is not None, "the child died before it could answer"
        done: list[Any] = self.answer["done"]
        return done


class Children:
    """Starts real processes. `run` forks from a prepared process, `start` is a whole new interpreter."""

    def __init__(self) -> None:
        self._zygote: subprocess.Popen[str] | None = None

    def run(self, orders: dict[str, Any]) -> Ended:
        zygote = self._prepared()
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(json.dumps(orders) + "\n")
        zygote.stdin.flush()
        ended = json.loads(zygote.stdout.readline())
        return _ended(ended["code"], ended["said"])

    def start(self, orders: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.recovery.child", json.dumps(orders)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def _prepared(self) -> subprocess.Popen[str]:
        if self._zygote is None:
            command = [sys.executable, "-m", "tests.recovery.zygote"]
            self._zygote = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._zygote.stdout is not None
            assert self._zygote.stdout.readline() == "ready\n"
        return self._zygote

    def close(self) -> None:
        if self._zygote is not None:
            self._zygote.communicate()


def end_of(process: subprocess.Popen[str]) -> Ended:
    said, _ = process.communicate(timeout=PATIENCE_S)
    return _ended(process.returncode, said)


def _ended(code: int, said: str) -> Ended:
    return Ended(code == -signal.SIGKILL, code, json.loads(said) if said else None)


class Setup:
    """One server, one journal, any number of processes one after the other or at the same time."""

    def __init__(self, url: str, children: Children, folder: Path, clock: cycles.ManualClock | None = None) -> None:
        self.url = url
        self.root = folder / "journal"
        self.server = Ledger(self.root, clock)
        self.children = children

    def client(self, **changes: Any) -> cycles.Cycles:
        """A client in this process, with the same settings as the children's."""
        return cycles.Cycles(**self.settings(**changes))

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "base_url": self.url,
            "api_key": self.server.api_key_for(TENANT),
            "tenant": TENANT,
            "journal_dir": str(self.root),
            "flush_timeout": PATIENCE_S,
            **changes,
        }

    def orders(self, *steps: tuple[Any, ...], die_at: int | None = None, **client: Any) -> dict[str, Any]:
        return {"client": self.settings(**client), "steps": steps, "die_at": die_at}

    def run(self, *steps: tuple[Any, ...], die_at: int | None = None, **client: Any) -> Ended:
        """A child that does these steps, to its end."""
        return self.children.run(self.orders(*steps, die_at=die_at, **client))

    def start(
        self, *steps: tuple[Any, ...], leave: bool = False, meet: int | None = None, **client: Any
    ) -> subprocess.Popen[str]:
        """A child in a separate interpreter, which continues while the test does other things."""
        return self.children.start({**self.orders(*steps, **client), "leave": leave, "meet": meet})

    def killed_at(self, operation: str, *steps: tuple[Any, ...], answered: bool = False, **client: Any) -> None:
        """A child is killed with this request in flight: on arrival, or once the ledger has done it."""
        process = self.start(*steps, **client)

        def kill(seen: Seen) -> None:
            if seen.operation == operation:
                os.kill(process.pid, signal.SIGKILL)

        if answered:
            self.server.on_done = kill
        else:
            self.server.on_arrival = kill
        ended = end_of(process)
        self.server.on_arrival = self.server.on_done = None
        assert ended.killed, f"the child ended by itself: {ended}"

    def recover(self, timeout_s: float = PATIENCE_S, **client: Any) -> dict[str, Any]:
        """A fresh process that knows nothing but the journal flushes; its report."""
        report: dict[str, Any] = self.run(("flush", timeout_s), **client).done[0]
        for path in self.root.rglob("*.spare"):  # the next process would open it, which is not one of its own points
            if is_free(path):
                path.unlink()
        return report

    @property
    def rejected(self) -> list[tuple[str, int]]:
        """Reason and amount of each rejected record."""
        kept = rejected_in(self.root)
        bodies = [each["record"]["commit_body"] or each["record"]["event_fallback_body"] for each in kept]
        return [(each["reason"], body["actual"]["amount"]) for each, body in zip(kept, bodies, strict=True)]

    @property
    def leftovers(self) -> list[str]:
        return [path.name for path in journal_files(self.root)]


def attempt_once(client: cycles.Cycles, record: Record, item: Item[Work] | None = None) -> tuple[Item[Work], Step]:
    """Try a record of the queue in this thread, again if its item is passed. Return its item, and the step."""
    runtime, item = runtime_of(client), item or Item("record", Settle(record, None, "pending"), 0.0)
    return item, run(attempt(runtime.blocking, runtime.records, item))


@contextlib.contextmanager
def opened(door: Door, made: Setup) -> Iterator[Setup]:
    """Let the door pass requests to the server of this set-up, and close that server at the end."""
    with contextlib.closing(made.server), door.serves(made.server, made.server.api_key_for(TENANT)):
        yield made
