"""FastMCP: guard each tool call of a server.

Needs the extra ``fastmcp``; see `docs/integrations/fastmcp.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import evolve

from cycles import Amount, Cycles, CyclesError
from cycles.integrations._levels import InvalidSubject, checked_levels, checked_value, members_of, to_subject
from cycles.integrations._shared import (
    DENIALS,
    BudgetOption,
    Common,
    OnDenied,
    SubjectOption,
    checked_actual,
    checked_budget,
    estimate_of,
    require,
)
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
        tool_actual: The cost of a tool call: an amount, or a callable of the context and the `ToolResult`.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the context. Its levels override those of `claims`.
        claims: Maps claims of the verified access token to levels of the subject.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        tool_budget: BudgetOption,
        tool_actual: Amount | Callable[[Any, Any], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        claims: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._budget = checked_budget("tool_budget", tool_budget, mapping=True)
        self._actual = checked_actual("tool_actual", tool_actual, amount=True, takes=("context", "result"))
        self._claims = checked_levels("claims", claims)
        given = Common(client, subject, on_denied, options)
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
            estimate = estimate_of("tool_budget", self._budget, name, context)
            if estimate is None:
                return await call_next(context)
            return await self._work(context, name, estimate).arun(call)
        except InvalidSubject:
            raise ToolError(_UNKNOWN) from None
        except DENIALS:
            raise  # on_denied="raise"
        except CyclesError as error:  # its message may have a URL, and some versions send messages to the client
            _log.warning("the call of tool %s is not guarded, its caller gets an error: %r", name, error)
            raise ToolError(_UNPAID if ended else _UNCHECKED) from None

    def _work(self, context: MiddlewareContext[Any], name: str, estimate: Amount) -> Work:
        def denied(error: Exception) -> Any:
            raise ToolError(self._common.message(error, context, default="message")) from None

        return Work(
            common=self._common,
            estimate=estimate,
            action=("tool.call", name),
            call=(context,),
            actual=self._actual,
            failed=_is_unfinished,
            denied=denied,
            tool=name,
        )

    def _subject_of(self, context: MiddlewareContext[Any]) -> Any:
        """Return the subject: the levels of the claims, overridden by those of the option `subject`."""
        token = get_access_token()
        claims = getattr(token, "claims", None) or {}
        found = {level: checked_value(claims[claim]) for claim, level in self._claims.items() if claim in claims}
        return to_subject(found | members_of(self._given.subject_of(context)))


def _is_unfinished(result: Any) -> bool:
    """Return whether a result is an error, a question to the client, or a task that runs later."""
    is_result = isinstance(result, ToolResult)
    return not is_result or getattr(result, "is_error", False) or hasattr(result, "input_required")
