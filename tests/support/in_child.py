"""Run a function in a forked child of the test, and return its result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked child; what it raises, as text."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said: Any = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(into, json.dumps(said).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        said = json.load(pipe)
    os.waitpid(pid, 0)
    return said
