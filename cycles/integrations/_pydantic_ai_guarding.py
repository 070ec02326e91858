"""The options of guarded models of Pydantic AI, and the guarded request that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from pydantic_ai.models import ModelRequestContext

from cycles import Amount, Usage
from cycles.integrations._pydantic_ai_reading import (
    denial_response,
    is_pending,
    limit_of,
    prompt_of,
    read_usage,
    takes_text,
    text_of,
)
from cycles.integrations._shared import Common, checked_actual, checked_budget, estimate_of
from cycles.integrations._work import Work

ModelBudget = Amount | Callable[[ModelRequestContext], Amount | None] | None


@frozen
class Guarding:
    """The options of guarded models."""

    common: Common
    budget: Any
    actual: Callable[[Usage], Amount] | None

    @classmethod
    def of(cls, common: Common, budget: ModelBudget, actual: Callable[[Usage], Amount] | None) -> Guarding:
        checked = checked_budget("model_budget", budget)
        return cls(common, checked, checked_actual("model_actual", actual, amount=False))

    def work(self, request: ModelRequestContext, *, is_compaction: bool = False) -> Work | None:
        """Return the guarded request; None if it is not guarded."""
        estimate = estimate_of("model_budget", self.budget, None, request)
        if estimate is None:
            return None
        name = request.model.model_name

        def denied(error: Exception) -> Any:
            if is_compaction or not takes_text(request.model_request_parameters):
                raise error  # a message is neither a compaction nor a structured output
            return denial_response(self.common.message(error, request, default="raise"), error, name)

        return Work(
            common=self.common,
            estimate=estimate,
            action=("llm.completion", name),
            call=(request,),
            price=self.actual,
            read=read_usage,
            failed=is_pending,
            prompt=lambda: prompt_of(request),
            strings=text_of,
            limit=limit_of(request),
            denied=denied,
            is_model=True,
        )
