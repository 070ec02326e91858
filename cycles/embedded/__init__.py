"""A Cycles server inside your process or beside it, for development and tests.

It behaves like the reference server, so code that works with it works in production, which runs the Cycles server.
The ledger is pure, `http` turns requests into responses without a socket, and transports and `serve` carry them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cycles.embedded.clock import Clock, ManualClock, SystemClock
    from cycles.embedded.server import EmbeddedServer
    from cycles.embedded.transports import EmbeddedTransport
    from cycles.embedded.windows import Window, window

__all__ = ["Clock", "EmbeddedServer", "EmbeddedTransport", "ManualClock", "SystemClock", "Window", "window"]

_HOMES: Final = {
    "Clock": "clock",
    "EmbeddedServer": "server",
    "EmbeddedTransport": "transports",
    "ManualClock": "clock",
    "SystemClock": "clock",
    "Window": "windows",
    "window": "windows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
