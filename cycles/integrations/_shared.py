"""What a denial is and says, and the error for a library that is not installed.

`_options.py` has the options, `_work.py` makes the guarded calls, and `_cost.py` calculates what they cost. No file of
this folder imports a private module of `cycles`, but for the constant of the install command and the hint of a
misspelled option.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any, Final

from cycles import ReservationDeniedError, StepsExhaustedError, ToolNotAllowedError
from cycles._version import install_extra

DENIALS: Final = (ReservationDeniedError, ToolNotAllowedError, StepsExhaustedError)
"""What a denial is. Every other error means that the budget could not be checked, and is raised."""

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def tool_name(tool: Any) -> str:
    """Return the name of a tool; one of a provider is a mapping, which has a type if it has no name."""
    if not isinstance(tool, Mapping):
        return str(getattr(tool, "name", ""))
    return str(tool.get("name") or (tool.get("function") or {}).get("name") or tool.get("type") or "")


def require(module: str, extra: str) -> None:
    """Import the library that an integration needs.

    Raises:
        ImportError: if the library is not installed; the message has the line that installs it. An ImportError from
            inside the library is raised unchanged.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ImportError(
            f"this integration needs the package {module.partition('.')[0]}, which is not installed: "
            f"{install_extra(extra)}",
            name=error.name,
        ) from error


def standard_message(error: Exception) -> str:
    """Return the message for the model. Model output is public, so it has no tenant, scope, amount, id or address."""
    return f"The budget does not allow this call ({code_of(error)}). Do not try it again; continue without it."


def code_of(error: Exception) -> str:
    """Return the code of a denial, without anything else that a server may have written."""
    if isinstance(error, ToolNotAllowedError):
        return "TOOL_NOT_ALLOWED"
    if isinstance(error, StepsExhaustedError):
        return "STEPS_EXHAUSTED"
    code = getattr(error, "code", None) or getattr(error, "reason_code", None)
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "DENIED"


def withhold(error: Exception) -> None:
    """Make the standard message the string of a denial: frameworks write errors into messages, which are public.

    Its attributes stay, and its own text becomes a note.
    """
    public = standard_message(error)
    if error.args != (public,):
        error.add_note(f"cycles: {error}")
        error.args = (public,)
