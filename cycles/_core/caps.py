"""What caps allow: the rules of semantics 6 as functions over a caps value (or None, where nothing is capped).

A cap that is absent, and a tool list that is empty, restricts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from cycles._errors import InvalidRequestError, StepsExhaustedError, ToolNotAllowedError

T = TypeVar("T")


class CapsLike(Protocol):
    """The caps members these rules read; every one may be None."""

    @property
    def max_tokens(self) -> int | None: ...
    @property
    def max_steps_remaining(self) -> int | None: ...
    @property
    def tool_allowlist(self) -> Sequence[str] | None: ...
    @property
    def tool_denylist(self) -> Sequence[str] | None: ...
    @property
    def cooldown_ms(self) -> int | None: ...


def allows_tool(caps: CapsLike | None, name: str) -> bool:
    """Whether the tool may be used. Names are compared exactly, case included; a non-empty allowlist wins."""
    if caps is None:
        return True
    if caps.tool_allowlist:
        return name in caps.tool_allowlist
    return name not in (caps.tool_denylist or ())


def require_tool(caps: CapsLike | None, name: str) -> None:
    """Raises:
    ToolNotAllowedError: if the caps do not allow the tool; the message names the list that forbids it.
    """
    if allows_tool(caps, name):
        return
    assert caps is not None  # only caps forbid
    reason = f"only {_listed(caps.tool_allowlist)} are" if caps.tool_allowlist else "it is on the deny list, so not"
    raise ToolNotAllowedError(f"tool {name!r} is refused by the reservation's caps: {reason} allowed", tool=name)


def filter_tools(caps: CapsLike | None, tools: Iterable[T], name: Callable[[T], str] | None = None) -> list[T]:
    """Those of `tools` that the caps allow, in order.

    Args:
        caps: The caps of the decision, or None.
        tools: Tool names, functions, or the tool descriptions that model SDKs take (objects or dicts).
        name: How to read a tool's name, where it is none of these.
    """
    read = tool_name if name is None else name
    return [tool for tool in tools if allows_tool(caps, read(tool))]


def tool_name(tool: Any) -> str:
    """The name of a tool: a string itself, ``tool["name"]``, ``tool["function"]["name"]``, ``.name`` or ``__name__``.

    Raises:
        InvalidRequestError: if it has none of these.
    """
    if isinstance(tool, str):
        return tool
    if isinstance(tool, dict):
        inner = tool.get("function")
        found = tool.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    else:
        found = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    if isinstance(found, str):
        return found
    raise InvalidRequestError(f"cannot tell the name of tool {tool!r}; pass name=, a callable that reads it")


def max_tokens(caps: CapsLike | None, default: int | None = None) -> int | None:
    """How many tokens a model may be asked for: the cap, the caller's default, or the smaller of the two."""
    cap = None if caps is None else caps.max_tokens
    if cap is None or default is None:
        return default if cap is None else cap
    return min(cap, default)


def next_step(caps: CapsLike | None, used: int) -> int:
    """The number of the step that begins, after `used` earlier ones.

    Raises:
        StepsExhaustedError: if the caps grant no further step.
    """
    limit = None if caps is None else caps.max_steps_remaining
    if limit is not None and used >= limit:
        raise StepsExhaustedError(f"the reservation's caps grant {limit} steps and all are used", limit=limit)
    return used + 1


def cooldown_ms(caps: CapsLike | None) -> int:
    """How long to pause between actions, in milliseconds; 0 where nothing is asked."""
    return 0 if caps is None else caps.cooldown_ms or 0


def _listed(names: Sequence[str] | None, most: int = 8) -> str:
    shown = [repr(name) for name in (names or ())[:most]]
    return ", ".join(shown) + (", ..." if len(names or ()) > most else "")
