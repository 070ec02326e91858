"""FastMCP: guard each tool call of a server.

Needs the extra ``fastmcp``; see `docs/integrations/fastmcp.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Unpack

from attrs import evolve

from cycles import Cycles, CyclesError
from cycles.integrations._levels import InvalidSubject, checked_levels, checked_value, members_of, to_subject
from cycles.integrations._options import Common, ToolBudget, ToolOptions
from cycles.integrations._shared import DENIALS, require
from cycles.integrations._work import Work

require("fastmcp.server.middleware", "fastmcp")

from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import Middleware, MiddlewareContext
from fastmcp.tools import ToolResult

__all__ = ["CyclesMiddleware"]

_UNCHECKED: Final = "The budget of this call cannot be checked now. Try it again later."
_UNPAID: Final = "The cost of this call could not be settled. Do not try it again."
_UNKNOWN: Final = "The caller cannot be identified, so its budget is unknown."
_log: Final = logging.getLogger("cycles")


class CyclesMiddleware(Middleware):
    """Guards tool calls of a server: ``mcp.add_middleware(CyclesMiddleware(...))``. Add it last.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `MiddlewareContext`. None from it: this call is not guarded.
        claims: Maps claims of the verified access token to levels of the subject.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the context;
            its levels override those of `claims`. A callable `tool_actual` gets the context and the `ToolResult`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        tool_budget: ToolBudget,
        claims: Mapping[str, str] | None = None,
        **options: Unpack[ToolOptions],
    ) -> None:
        self._claims = checked_levels("claims", claims)
        given = Common.of(client, options, tool_budget=tool_budget, takes=("context", "result"))
        self._given = given
        self._common = evolve(given, subject=self._subject_of) if self._claims else given

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        """Guard one tool call."""
        name = context.message.name
        ended = False

        async def call(_: Any) -> Any:
            nonlocal ended
            try:
                return await call_next(context)
            finally:
                ended = True

        try:
            work = Work.of_tool(self._common, name, context, failed=_is_unfinished, denied=_denied)
            return await (call_next(context) if work is None else work.arun(call))
        except InvalidSubject:
            raise ToolError(_UNKNOWN) from None
        except DENIALS:
            raise  # on_denied="raise"
        except CyclesError as error:  # its message may have a URL, and some versions send messages to the client
            _log.warning("the call of tool %s is not guarded, its caller gets an error: %r", name, error)
            raise ToolError(_UNPAID if ended else _UNCHECKED) from None

    def _subject_of(self, context: MiddlewareContext[Any]) -> Any:
        """Return the subject: the levels of the claims, overridden by those of the option `subject`."""
        token = get_access_token()
        claims = getattr(token, "claims", None) or {}
        found = {level: checked_value(claims[claim]) for claim, level in self._claims.items() if claim in claims}
        return to_subject(found | members_of(self._given.subject_of(context)))


def _denied(_: Exception, text: str) -> Any:
    raise ToolError(text) from None


def _is_unfinished(result: Any) -> bool:
    """Return whether a result is an error, a question to the client, or a task that runs later."""
    is_result = isinstance(result, ToolResult)
    return not is_result or getattr(result, "is_error", False) or hasattr(result, "input_required")
