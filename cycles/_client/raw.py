"""`client.raw`: call any generated operation with the client's key, deadlines and errors.

An operation that was generated from a new protocol document is usable immediately.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from cycles._client.operation_context import OperationContext
from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import Success
from cycles._flows.retry import send_read, send_write


async def raw(
    context: OperationContext,
    operation: str | ModuleType,
    /,
    *,
    extra_headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **arguments: Any,
) -> Any:
    """Call any operation of the protocol by its id, and return the generated model of its response.

    Reads, and writes with an idempotency key, are retried after an inconclusive response, like all operations.

    Args:
        operation: An operation id such as ``"getBalances"``, or its module in `cycles_client.api`.
        extra_headers: Headers to send in addition, for example an operator's ``X-Admin-API-Key``.
        timeout: Seconds that one attempt may take.
        arguments: The arguments of the generated function. `body` may also be a mapping.

    Returns:
        The generated model (a list or dict if the response is one); None if the response has no JSON body.

    Raises:
        InvalidRequestError: There is no such operation, or an argument is wrong; nothing was sent.
        CyclesError: The response is no success.
    """
    from cycles._wire import generated

    context = context.with_options(timeout=timeout)
    name = generated.find(operation)
    call = generated.call_of(name, arguments, extra_headers or {}, context.traced())
    context.io.check(call)
    if generated.is_read(name):
        outcome = await send_read(context.io, call)
    elif call.body is not None and "idempotency_key" in call.body:
        outcome = await send_write(context.io, call)
    else:
        outcome = await context.io.send(call)
    if not isinstance(outcome, Success):
        raise error_of(outcome, name) from getattr(outcome, "cause", None)
    return generated.model_of(name, outcome.body)
