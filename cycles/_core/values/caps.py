"""What caps allow (`docs/protocol/decisions-and-caps.md#caps`): functions of a caps value, or None without caps.

A cap that is absent, and a tool list that is empty, restricts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from attrs import frozen

from cycles._core.values.result_base import Readers, Result
from cycles._errors import InvalidRequestError, StepsExhaustedError, ToolNotAllowedError

T = TypeVar("T")


@frozen(kw_only=True)
class Caps(Result):
    """Limits under which an action is allowed; None means no limit. `cooldown_ms` is in milliseconds."""

    max_tokens: int | None = None
    max_steps_remaining: int | None = None
    tool_allowlist: list[str] | None = None
    tool_denylist: list[str] | None = None
    cooldown_ms: int | None = None

    _read: ClassVar[Readers] = {"tool_allowlist": list, "tool_denylist": list}


def allows_tool(caps: Caps | None, name: str) -> bool:
    """Return whether the tool may be used. Names are compared exactly, case included; a non-empty allowlist wins."""
    if caps is None:
        return True
    # The allow list wins: the protocol ignores the deny list beside it.
    if caps.tool_allowlist:
        return name in caps.tool_allowlist
    return name not in (caps.tool_denylist or ())


def require_tool(caps: Caps | None, name: str) -> None:
    """Check that the caps allow a tool.

    Raises:
        ToolNotAllowedError: they do not; the message names the list that forbids it.
    """
    if allows_tool(caps, name):
        return
    assert caps is not None  # only caps forbid
    reason = (
        f"allowed are {_listed(caps.tool_allowlist)}"
        if caps.tool_allowlist
        else "it is on the deny list; use another tool"
    )
    raise ToolNotAllowedError(f"the caps of the reservation do not allow tool {name!r:.80}: {reason}", tool=name)


def filter_tools(caps: Caps | None, tools: Iterable[T], name: Callable[[T], str] | None = None) -> list[T]:
    """Return the tools that the caps allow, in order.

    Args:
        caps: The caps of the decision, or None.
        tools: Tool names, functions, or the tool descriptions that model SDKs take (objects or dicts).
        name: Returns the name of a tool of another kind.
    """
    read = tool_name if name is None else name
    return [tool for tool in tools if allows_tool(caps, read(tool))]


def tool_name(tool: Any) -> str:
    """Return the name of a tool: a string, ``tool["name"]``, ``tool["function"]["name"]``, ``.name`` or ``__name__``.

    Raises:
        InvalidRequestError: it has none of these.
    """
    if isinstance(tool, str):
        return tool
    if isinstance(tool, dict):
        inner = tool.get("function")
        # Providers nest the name: OpenAI in `function`, others at the top.
        found = tool.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    else:
        found = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    if isinstance(found, str):
        return found
    raise InvalidRequestError(f"the tool has no name: {tool!r:.80}; pass name=, a callable that returns it")


def max_tokens(caps: Caps | None, default: int | None = None) -> int | None:
    """Return the maximum number of tokens: the cap, the caller's default, or the smaller of the two."""
    cap = None if caps is None else caps.max_tokens
    # A cap never raises what the caller has asked for.
    if cap is None or default is None:
        return default if cap is None else cap
    return min(cap, default)


def next_step(caps: Caps | None, used: int) -> int:
    """Return the number of the next step, after `used` earlier ones.

    Raises:
        StepsExhaustedError: the caps allow no further step.
    """
    limit = None if caps is None else caps.max_steps_remaining
    if limit is not None and used >= limit:
        raise StepsExhaustedError(
            f"the caps of the reservation allow no further step: all {limit} are used; reserve again", limit=limit
        )
    return used + 1


def cooldown_ms(caps: Caps | None) -> int:
    """Return how long to pause between actions, in milliseconds; 0 if the caps do not say."""
    return 0 if caps is None else caps.cooldown_ms or 0


def _listed(names: Sequence[str] | None, most: int = 8) -> str:
    shown = [repr(name) for name in (names or ())[:most]]
    return ", ".join(shown) + (", ..." if len(names or ()) > most else "")
