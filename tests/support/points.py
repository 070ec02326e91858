"""Do something at one point of a call where Python may handle a signal."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Python looks for signals after calls, at the start of functions and at the end of loops, and nowhere else. In Python
# 3.11 no signal comes between PRECALL and CALL; one there would leave `with lock:` without releasing the lock.
_CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD", "SEND", "FOR_ITER")
_CHECKED_IF_TAKEN = "POP_JUMP_BACKWARD"  # in Python 3.11; later versions have a JUMP_BACKWARD behind the condition


class AtPoint:
    """A trace function that calls `act` at point `number` of the code below `folder`."""

    def __init__(self, folder: str, number: int, act: Callable[[], object]) -> None:
        self._folder = folder
        self._left = number
        self._act = act
        self._before: dict[FrameType, tuple[str, int]] = {}  # the last instruction of each frame, and its position
        self.done = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.done or self._folder not in frame.f_code.co_filename:
            return None
        frame.f_trace_lines = False
        frame.f_trace = self  # Python 3.13 reports opcodes only if this is set before the next line
        frame.f_trace_opcodes = True
        if event != "opcode":
            return self
        before, position = self._before.get(frame), frame.f_lasti
        name = dis.opname[frame.f_code.co_code[position]]
        self._before[frame] = name, position
        if before is None or _is_checked(*before, position):
            self._left -= 1
            if self._left < 0:
                self.done = True
                self._act()
        return self

    def clear(self) -> None:
        """Drop the frames, whose local variables would live until the next garbage collection."""
        self._before.clear()


def _is_checked(name: str, position: int, following: int) -> bool:
    """Return whether Python looks for signals between an instruction and the following one."""
    if name.startswith(_CHECKED_IF_TAKEN):
        return following < position
    return name.startswith(_CHECKED) and "INTRINSIC" not in name


def run_at(folder: str, number: int, act: Callable[[], object], call: Callable[[], object]) -> bool:
    """Run `call`, and `act` in the middle of it. Returns False if the call has fewer points."""
    at = AtPoint(folder, number, act)
    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # else the collector may drop a guard of an earlier test at this point
    sys._getframe().f_trace_opcodes = True  # from Python 3.12, `settrace` reports opcodes only if a frame wants them
    sys.settrace(at)
    try:
        call()
    finally:
        sys.settrace(before)
        at.clear()
        if collects:
            gc.enable()
    return at.done
