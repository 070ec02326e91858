"""An interrupt at any point of an exchange costs its connection at most, never a connection slot."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from cycles._http.blocking_connections import BlockingConnections
from cycles._http.exchange import Endpoint
from tests.support.stub import Stub, ok

# Python looks for signals after calls, at the start of functions and at the end of loops, and nowhere else.
_CHECKED = ("CALL", "PRECALL", "RESUME", "JUMP_BACKWARD", "SEND", "FOR_ITER")


class Interrupt:
    """Raises KeyboardInterrupt at the given point of `cycles/_http`, where Python may handle a signal."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._checked: dict[FrameType, bool] = {}
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if "/cycles/_http/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event != "opcode" or self.raised:
            return self
        was_checked = self._checked.get(frame, True)
        name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        self._checked[frame] = name.startswith(_CHECKED)
        if was_checked:
            self._left -= 1
            if self._left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


def interrupted(call: Callable[[], object], number: int) -> bool:
    """Call with an interrupt at this point. Returns False if the call has fewer points."""
    interrupt = Interrupt(number)
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupt.raised


@pytest.mark.parametrize("reuse", [True, False], ids=["an idle connection", "a new connection"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_point_of_an_exchange_loses_a_slot(reuse: bool) -> None:
    answer = ok() if reuse else ok(headers=[("Connection", "close")])
    with Stub(answer) as stub:
        connections = BlockingConnections(Endpoint(stub.url), connect_timeout_s=5, max_connections=2)
        pool = connections._pool

        def send() -> None:
            connections.send("POST", "/", [], b"{}", 5.0, 5.0)

        send()
        number = 0
        while interrupted(send, number):
            gc.collect(0)
            assert len(pool._unused) + len(pool._idle) == 2, number
            assert pool.waiting == 0, number
            number += 1
        assert number > 100
        send()
        connections.close()
        gc.collect()
