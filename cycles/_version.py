"""The version of the SDK, which the build and the User-Agent read, and the module name of its public names."""

from collections.abc import Callable
from typing import Any

__version__ = "0.1.0"
PROTOCOL_VERSION = "0.1.25"


def public(*values: type[Any] | Callable[..., Any]) -> None:
    """Make classes and functions appear as members of `cycles`, not of the private module that defines them.

    Tracebacks become short, and a pickle names `cycles`, so it survives when the private module moves.
    """
    for value in values:
        value.__module__ = "cycles"
