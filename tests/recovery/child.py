"""What a process under test does: a client, a few steps, and perhaps a sudden death at a chosen point.

A child gets its orders as JSON (`Orders`) and prints the outcome as one line of JSON. It ends with `os._exit`,
so that only a child with ``leave`` set gets the flush of an orderly exit.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

ACTION = ("llm.completion", "gpt-4o")
JOURNAL_CALLS = ("open", "write", "ftruncate", "close", "fsync", "replace", "unlink", "link")


HELD: list[Any] = []
"""Guards that this process holds until it ends."""


class Points:
    """The points of a settlement at which a process can die: around each file call and each request.

    With `meet` (a port), every request waits just before it is made until the test lets all workers go at once.
    """

    def __init__(self, die_at: int | None, meet: int | None) -> None:
        self.names: list[str] = []
        self._die_at = die_at
        self._meet = meet

    def reach(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {name}")
            result = call(*args, **kwargs)
            self.reach(f"after {name}")
            return result

        return watched

    def install(self) -> None:
        from cycles._drivers.io import tasks, threads
        from cycles._journal import journal
        from cycles._journal.files import file_calls, locked_file, record_files as files

        watched_os = _WatchedOs(self)
        files.os = journal.os = locked_file.os = file_calls.os = watched_os  # type: ignore[assignment,attr-defined]
        for driver in (threads.BlockingIo, tasks.TaskIo):
            driver.send = self._around_send(driver.send)  # type: ignore[method-assign]

    def _around_send(self, send: Callable[..., Any]) -> Callable[..., Any]:
        async def watched(io: Any, call: Any) -> Any:
            name = {"commitReservation": "commit", "createEvent": "event"}.get(call.operation)
            if name is None:
                return await send(io, call)
            self.reach(f"before {name}")
            if self._meet is not None:
                with socket.create_connection(("127.0.0.1", self._meet)) as starter:
                    starter.recv(1)
            outcome = await send(io, call)
            self.reach(f"after {name}")
            return outcome

        return watched


class _WatchedOs:
    def __init__(self, points: Points) -> None:
        for name in JOURNAL_CALLS:
            setattr(self, name, points.around(name, getattr(os, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def main(orders: dict[str, Any]) -> None:
    if orders.get("homeless"):
        become_homeless()
    import cycles
    from cycles._journal.files import bounded

    vars(bounded)["DEADLINE_S"] = 60.0  # a thread may need seconds to start on a busy machine
    points = Points(orders.get("die_at"), orders.get("meet"))
    points.install()
    log = Log()
    logging.getLogger("cycles").addHandler(log)
    client = cycles.Cycles(**orders["client"])
    done: list[Any] = []
    try:
        for step, *arguments in orders["steps"]:
            done.append(_step(client, step, *arguments))
    except cycles.CyclesError as error:
        done.append({"error": type(error).__name__, "message": str(error)})
    print(json.dumps({"done": done, "points": points.names, "events": log.events}), flush=True)
    if not orders.get("leave"):
        os._exit(0)


class Log(logging.Handler):
    """The kinds of events in this process's log: those of the very start too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.events: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(getattr(record, "cycles_event", "") or record.getMessage())


def become_homeless() -> None:
    """A user that no user database knows, in an environment that names no home."""
    for name in ("HOME", "XDG_STATE_HOME"):
        os.environ.pop(name, None)
    os.setgid(54_321)
    os.setuid(54_321)


def _step(client: Any, step: str, *arguments: Any) -> Any:
    import cycles

    if step == "commit":
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        return _seen(guard.commit(cycles.tokens(arguments[0])))
    if step == "acquire":
        client.reserve(cycles.tokens(100), action=ACTION).acquire()
        return None
    if step == "hold":
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        if arguments:
            guard.spend(cycles.tokens(arguments[0]))
        HELD.append(guard)
        return guard.reservation_id
    if step == "hold_usage":
        described = client.reserve(cycles.tokens(100), action=ACTION, actual=lambda u: cycles.tokens(u.tokens_output))
        guard = described.acquire()
        guard.usage.add(tokens_output=arguments[0])
        HELD.append(guard)
        return guard.reservation_id
    if step == "commit_held":
        return _seen(HELD[-1].commit(cycles.tokens(arguments[0])))
    if step == "release_held":
        return HELD[-1].release() and None
    if step == "detach_held":
        return HELD[-1].detach()
    if step == "fork_and_die":
        if os.fork() == 0:
            os.closerange(0, 3)  # the test reads the output to its end
            signal.alarm(10)  # ends the child after the test
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "hold_local":
        return _drop_at_exit(client, *arguments)
    if step == "fill_disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        return None
    if step == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "commit_subject":
        subject = cycles.Subject(tenant="acme")
        guard = client.reserve(cycles.tokens(100), action=ACTION, subject=subject).acquire()
        return _seen(guard.commit(cycles.tokens(arguments[0])))
    if step == "commit_async":
        return asyncio.run(_commit_async(client, arguments[0]))
    if step == "record":
        return _seen(client.record(cycles.tokens(arguments[0]), action=ACTION))
    if step == "close":
        return client.close()
    if step == "flush":
        report = client.flush(timeout=arguments[0])
        return {"settled": report.settled, "pending": report.pending, "quarantined": report.quarantined}
    assert step == "pending"
    return [[owed.reservation_id, owed.mode] for owed in client.pending()]


def _drop_at_exit(client: Any, amount: int) -> None:
    """Drop a guard whose finalizer runs at the very end: it is in a cycle that only the last collection finds."""
    import cycles

    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(amount))
    del guard


async def _commit_async(client: Any, amount: int) -> Any:
    import cycles

    guard = await client.reserve(cycles.tokens(100), action=ACTION)
    return _seen(await guard.commit(cycles.tokens(amount)))


def _seen(result: Any) -> Any:
    return {"status": str(result.status), "event_id": getattr(result, "event_id", None)}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
