"""Celery: guarded tasks. Needs the extra ``celery``; see `docs/integrations/queues.md`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import cycles
from cycles import InvalidRequestError
from cycles.integrations._queues import TaskGuard
from cycles.integrations._shared import require

require("celery", "celery")

from celery import current_task, signals
from celery.exceptions import Ignore, Reject

if TYPE_CHECKING:
    from cycles import Amount, Cycles

__all__ = ["close_with_worker", "guarded"]

F = TypeVar("F", bound=Callable[..., Any])

_HEADER = "cycles_denials"


class _Rejected(Reject, Ignore):
    """Rejects the message. An Ignore too, because ``autoretry_for=(Exception,)`` catches everything else."""


def guarded(
    client: Cycles | None = None,
    *,
    estimate: Amount | Callable[..., Amount | None],
    action: Any = None,
    actual: Any = None,
    on_denied: str = "retry",
    on_settled: str = "raise",
    max_denials: int = 10,
    denied_delay_s: float = 30.0,
    **options: Any,
) -> Callable[[F], F]:
    """Guard each attempt of a task. Write it below ``@app.task``.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        estimate: An amount, or a callable of the task's arguments.
        action: The action, or a callable like `estimate`; by default ``("task.run", function name)``.
        actual: The cost: an amount, or a callable of the result. Without it the estimate is committed.
        on_denied: ``"retry"`` postpones a denied task, ``"reject"`` rejects its message, ``"raise"`` raises.
        on_settled: What happens to a message that is delivered again after its attempt was committed: ``"raise"`` fails
            permanently, ``"skip"`` acknowledges it without a result, ``"run"`` runs and pays again.
        max_denials: How often a task is postponed before it fails permanently.
        denied_delay_s: Seconds until the first postponed run, doubled each time, if the server names no time.
        options: Other options of `reserve`, and `subject`, which may be a callable of the task's arguments.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """
    guard = TaskGuard(client, estimate, action, actual, on_denied, on_settled, max_denials, denied_delay_s, options)
    return lambda function: guard.decorate(function, _attempt)  # type: ignore[no-any-return]


def close_with_worker(client: Cycles | None = None) -> None:
    """Close the client when a worker process ends: pool processes end without `atexit`.

    What is pending would wait in the journal for the next start otherwise.

    Raises:
        InvalidRequestError: if it is no client.
    """
    if client is not None and not isinstance(client, cycles.Cycles):
        raise InvalidRequestError(f"client must be a cycles.Cycles or None, got {client!r:.80}")

    def close(**_: Any) -> None:
        (client or cycles.get_default_client()).close()

    signals.worker_process_shutdown.connect(close, weak=False)


class _Attempt:
    """The attempt that a worker runs: `cycles.integrations._queues.Attempt`."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._request = task.request
        self.key = f"celery:{task.request.id}:{task.request.retries}"
        self.denials = int(task.request.get(_HEADER) or 0)

    def is_redelivered(self, ttl_ms: int) -> bool:
        return bool((self._request.delivery_info or {}).get("redelivered"))

    def postpone(self, delay_s: float, denials: int) -> NoReturn:
        request = self._request
        headers = {**(request.headers or {}), _HEADER: denials}
        headers = {name: value for name, value in headers.items() if name != "redelivered"}
        self._task.signature_from_request(
            request, request.args, request.kwargs, countdown=delay_s, retries=request.retries, headers=headers
        ).apply_async()
        raise Ignore(f"postponed by {delay_s:.0f} s")

    def reject(self, error: Exception) -> NoReturn:
        raise _Rejected(error, requeue=False)

    def fail(self, error: Exception) -> NoReturn:
        self._task.backend.mark_as_failure(self._request.id, error, request=self._request)
        raise Ignore(str(error)) from error

    def skip(self) -> NoReturn:
        raise Ignore("this attempt was committed before")


def _attempt() -> _Attempt | None:
    task = current_task._get_current_object() if current_task else None
    request = getattr(task, "request", None)
    if request is None or request.called_directly or request.is_eager or request.id is None:
        return None
    return _Attempt(task)
