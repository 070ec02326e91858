"""The version of the SDK, how its command is installed, and what every public name has.

The build and the User-Agent read the version. What every public name has is the module name `cycles`, and a `repr` and
`str` that work in every state of an object.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

__version__ = "0.1.0"
PROTOCOL_VERSION = "0.1.25"
INSTALL_COMMAND = "pip install '.[run]'"
"""Installs the command `cycles` with all that it needs, in a clone: no release is published yet (`RELEASING.md`)."""


def install_extra(extra: str) -> str:
    """Return how an extra is installed: as `INSTALL_COMMAND` says, and how after a release."""
    released = f"pip install 'cycles-sdk[{extra}]'"
    now = INSTALL_COMMAND.replace("[run]", f"[{extra}]")
    return now if now == released else f"{now} in a clone, or {released} once it is released"


def public(*values: type[Any] | Callable[..., Any]) -> None:
    """Make classes and functions appear as members of `cycles`, not of the private module that defines them.

    Tracebacks become short, and a pickle names `cycles`, so it survives when the private module moves.
    """
    for value in values:
        value.__module__ = "cycles"
        if isinstance(value, type):
            readable(value)


def readable(*classes: type[Any]) -> None:
    """Let the `repr` and `str` of unfinished objects work too.

    A traceback with local variables calls them, also of an object whose `__init__` raised. An error there would hide
    the error of the traceback.
    """
    for each in classes:
        for name in ("__repr__", "__str__"):
            if name in vars(each):
                setattr(each, name, _in_every_state(vars(each)[name]))


def _in_every_state(show: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(show)
    def shown(self: Any) -> str:
        try:
            return show(self)
        except AttributeError:
            return f"<{type(self).__name__}, not finished>"

    return shown
