"""Operations without a method of their own: the generated functions, sent and judged like everything else.

A protocol that was regenerated an hour ago is usable at once, with this client's key, deadlines and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from cycles._client.methods import OperationContext
from cycles._core.error_mapping import error_of
from cycles._core.outcome import Success
from cycles._flows.reserve import new_trace_id
from cycles._flows.retry import send_read, send_twice


async def raw(
    here: OperationContext,
    operation: str | ModuleType,
    /,
    *,
    extra_headers: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Any:
    """Call any operation of the protocol by its id, and get the generated model of its answer.

    Reads, and writes that carry an idempotency key, are repeated where an answer proves nothing, as everywhere.

    Args:
        operation: An operation id such as ``"getBalances"``, or its module below `cycles_client.api`.
        extra_headers: Headers to send besides, for example an operator's ``X-Admin-API-Key``.
        arguments: What the generated function of the operation takes; `body` may also be a plain mapping.

    Returns:
        The generated model (a plain list or dict where the protocol answers one); None where it answers no JSON.

    Raises:
        InvalidRequestError: for an unknown operation, wrong arguments or a value the schema does not allow.
        CyclesError: the same typed errors as everywhere, for every answer that is no success.
    """
    from cycles._wire import generated

    name = generated.find(operation)
    call = generated.call_of(name, arguments, extra_headers or {}, new_trace_id())
    here.io.check(call)
    if generated.is_read(name):
        outcome = await send_read(here.io, call)
    elif call.body is not None and "idempotency_key" in call.body:
        outcome = await send_twice(here.io, call)
    else:
        outcome = await here.io.send(call)
    if not isinstance(outcome, Success):
        raise error_of(outcome, name) from getattr(outcome, "cause", None)
    return generated.model_of(name, outcome.body)
