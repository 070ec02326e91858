"""Forks children that have everything loaded already: a real process to kill in milliseconds instead of half a second.

Reads one line of orders after the other from standard input, forks a child for each, and answers with how the child
ended and what it said. Has no threads of its own, so that forking is safe.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import threading
import traceback
from typing import Any

import cycles
from tests.recovery import child


def load_everything() -> None:
    unneeded = (
        "cycles.embedded",
        "cycles.integrations",
        "cycles.cli._mcp_server",
    )  # all but the first need their extras
    for module in pkgutil.walk_packages(cycles.__path__, "cycles."):
        if not module.name.startswith(unneeded):
            importlib.import_module(module.name)
    # What is imported late elsewhere: a child that becomes another user may not be able to read the files then.
    for late in (
        "cycles_client.checks",
        "cycles_client.protocol",
        "platform",
        "platformdirs",
        "platformdirs.unix",
        "uuid",
        "pwd",
    ):
        importlib.import_module(late)
    "localhost".encode("idna")
    assert threading.active_count() == 1


def run(orders: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        os.close(writing)
        try:
            child.main(orders)
        except BaseException:
            traceback.print_exc()
        os._exit(3)  # main ends the process itself; coming here is a failure of the test
    os.close(writing)
    with os.fdopen(reading) as answers:
        said = answers.read()
    _, status = os.waitpid(pid, 0)
    return {"killed": os.WIFSIGNALED(status), "code": os.waitstatus_to_exitcode(status), "said": said}


if __name__ == "__main__":
    load_everything()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
