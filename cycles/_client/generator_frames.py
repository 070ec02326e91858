"""Look at the frames of the caller: whether a guard's block is in a generator, and who closes that generator."""

from __future__ import annotations

import dis
import inspect
from pathlib import Path
from types import FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).parent.parent)


def generator_dropped(frame: FrameType | None) -> bool:
    """Return whether a generator is being closed, and not by a call of its `close` or `throw`."""
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE) and not _is_generator(frame):
        frame = frame.f_back
    if frame is None or not _is_generator(frame):
        return False
    while frame is not None and _is_generator(frame):
        frame = frame.f_back
    return frame is None or not _calls_close(frame)


def _is_generator(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_GENERATOR)


def _calls_close(frame: FrameType) -> bool:
    """Return whether the instruction that the frame executes is a call of a method `close` or `throw`."""
    executed = [each for each in dis.get_instructions(frame.f_code) if each.offset <= frame.f_lasti]
    methods = [each.argval for each in executed if each.opname in ("LOAD_METHOD", "LOAD_ATTR")]
    # Python 3.11 makes a call that it has made often in the instruction before, PRECALL.
    return executed[-1].opname.startswith(("CALL", "PRECALL")) and methods[-1:] in (["close"], ["throw"])


def in_async_generator(frame: FrameType | None) -> bool:
    """Return whether the block is in an async generator, which may await while it is closed; a coroutine may not."""
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame is not None and bool(frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR)
