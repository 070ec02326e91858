"""RQ: guarded tasks. Needs the extra ``rq``, and a worker with a scheduler; see `docs/integrations/queues.md`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cycles.integrations._queues import TaskGuard
from cycles.integrations._shared import require

require("rq", "rq")

from rq import Retry, get_current_job

if TYPE_CHECKING:
    from cycles import Amount, Cycles

__all__ = ["guarded"]

F = TypeVar("F", bound=Callable[..., Any])

_META = "cycles_denials"
_RETURNED = "cycles_returned_retries"  # RQ 2.6 does not count those with an interval


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
    """Guard each attempt of a task.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        estimate: An amount, or a callable of the task's arguments.
        action: The action, or a callable like `estimate`; by default ``("task.run", function name)``.
        actual: The cost: an amount, or a callable of the result. Without it the estimate is committed.
        on_denied: ``"retry"`` postpones a denied task, ``"reject"`` fails it permanently, ``"raise"`` raises.
        on_settled: What happens to an attempt that was committed before: ``"raise"`` fails permanently, ``"skip"`` ends
            without a result, ``"run"`` runs and pays again.
        max_denials: How often a task is postponed before it fails permanently.
        denied_delay_s: Seconds until the first postponed run, doubled each time, if the server names no time.
        options: Other options of `reserve`, and `subject`, which may be a callable of the task's arguments.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """
    guard = TaskGuard(client, estimate, action, actual, on_denied, on_settled, max_denials, denied_delay_s, options)
    return lambda function: guard.decorate(function, _attempt, _asks_for_retry)  # type: ignore[no-any-return]


class _Attempt:
    """The attempt that a worker runs: `cycles.integrations._queues.Attempt`."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self.key = f"rq:{job.id}:{job.retries_left or 0}:{int(job.meta.get(_RETURNED) or 0)}"
        self.denials = int(job.meta.get(_META) or 0)

    def is_redelivered(self, ttl_ms: int) -> bool:
        return False  # RQ gives a killed job a new attempt itself

    def postpone(self, delay_s: float, denials: int) -> Retry:
        self._job.meta[_META] = denials
        self._job.save_meta()
        return Retry(max=(self._job.number_of_retries or 0) + 1, interval=math.ceil(delay_s))

    def reject(self, error: Exception) -> NoReturn:
        self.fail(error)

    def fail(self, error: Exception) -> NoReturn:
        self._job.retries_left = 0
        raise error

    def skip(self) -> None:
        return None


def _attempt() -> _Attempt | None:
    job = get_current_job()
    return None if job is None else _Attempt(job)


def _asks_for_retry(result: Any) -> bool:
    """Return whether the task returned a `Retry`, and count it: the next attempt has its own key."""
    job = get_current_job()
    if isinstance(result, Retry) and job is not None:
        job.meta[_RETURNED] = int(job.meta.get(_RETURNED) or 0) + 1
        job.save_meta()  # type: ignore[no-untyped-call]
    return isinstance(result, Retry)
