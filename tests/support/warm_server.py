"""Forks a process for each command, with everything loaded. `tests/support/warm.py` starts it and sends the commands.

Has no threads of its own, so that forking is safe.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import time
import types
import warnings
from typing import Any

LENGTH = struct.Struct("!I")
status: int | None = None
"""With which a program ends; None if the interpreter decides."""


def leave() -> None:
    """End a program without clearing all modules, which takes longer than most programs."""
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def load_everything() -> None:
    import cycles

    others = ("cycles_client.protocol", "platformdirs", "uuid", "httpx", "uvicorn", "starlette.applications")
    found = [module.name for module in pkgutil.walk_packages(cycles.__path__, "cycles.")]
    for name in (*found, *others):
        if not name.startswith("cycles.integrations") and not name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an extra is not installed
                importlib.import_module(name)
    from cycles._journal.files import bounded

    vars(bounded)["DEADLINE_S"] = 60.0  # a thread may need seconds to start on a busy machine
    "localhost".encode("idna")
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def become(order: dict[str, Any], files: list[int]) -> None:
    """Turn this fork into the ordered process: its files, variables, folder, arguments."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    # The old ones know whether their files were pipes.
    old = sys.stdin, sys.stdout, sys.stderr
    kinds: list[dict[str, Any]] = [{"mode": "r"}, {"mode": "w"}, {"mode": "w", "buffering": 1}]
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, encoding=each.encoding, errors=each.errors, closefd=False, **kind)
        for number, (each, kind) in enumerate(zip(old, kinds, strict=True))
    )
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    os.chdir(order["folder"])
    for option in order["warnings"]:
        action, _, category = option.partition("::")
        warnings.simplefilter(action, getattr(builtins, category or "Warning"))
    sys.argv = ["-c", *order["arguments"]]
    sys.path[0] = order["folder"]


def serve(orders: socket.socket) -> dict[str, Any] | None:
    """Fork for each order. Return the order in the fork, and None in the server when there are no more."""
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            report_ended(running)
        if orders not in ready:
            continue
        header, files, _, _ = socket.recv_fds(orders, LENGTH.size, 4)
        if not header:
            return None
        order = json.loads(orders.recv(LENGTH.unpack(header)[0], socket.MSG_WAITALL))
        for name in order["modules"]:
            importlib.import_module(name)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (orders, woken, wake):
                each.close()
            for status in running.values():
                os.close(status)
            become(order, files)
            return dict(order)
        running[pid] = files.pop()
        os.write(running[pid], b"%d\n" % pid)
        for file in files:
            os.close(file)


def report_ended(running: dict[int, int]) -> None:
    """Report the exit status of each process that has ended."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            file = running.pop(pid)
            os.write(file, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(file)


def run(module: str | None, code: str) -> None:
    """Run a module or code as a program."""
    global status
    status = 1
    try:
        if module is not None:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(main))
        status = 0
    except SystemExit as ended:
        status = ended.code & 0xFF if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except KeyboardInterrupt:
        status = None  # the interpreter ends itself by the signal
        raise


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a test that starts this server may block signals
    atexit.register(leave)  # the first, so it runs last, when all threads have ended
    load_everything()
    if (command := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        run(command["module"], command["code"])
