"""Guarded tasks of a queue: what `celery`, `rq` and `dramatiq` share. See `docs/integrations/queues.md`.

Each attempt of a task has one idempotency key, so a redelivered message continues under the reservation of its attempt.
The order of steps is one flow: for functions its operations never suspend.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from attrs import define

import cycles
from cycles import InvalidRequestError, ReservationSummary
from cycles.integrations._attempts import Attempt, found, status_of
from cycles.integrations._options import Common, checked_actual, checked_budget, estimate_of
from cycles.integrations._stepping import finished
from cycles.integrations._work import Work

_KEYS: Final = 16  # of one attempt: more redeliveries than this are a fault of the queue
_LONGEST_DELAY_S: Final = 3_600.0
_DEFAULT_TTL_MS: Final = 60_000
_CLOSED: Final = (cycles.BudgetClosedError, cycles.TenantClosedError)  # waiting does not change these
_UNAVAILABLE: Final = (cycles.TransportError, cycles.RateLimitedError, cycles.ServerError)


class Denied(Exception):
    """Carries a denial out of `Work`. It is never raised to a caller."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@define
class TaskGuard:
    """The options of one task. `guarded` of the adapters documents them.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    client: Any
    estimate: Any
    action: Any
    actual: Any
    on_denied: Any
    on_settled: Any
    max_denials: Any
    denied_delay_s: Any
    options: dict[str, Any]
    common: Any = None

    def __attrs_post_init__(self) -> None:
        _one_of("on_denied", self.on_denied, ("retry", "reject", "raise"))
        _one_of("on_settled", self.on_settled, ("raise", "skip", "run"))
        if type(self.max_denials) is not int or self.max_denials < 0:
            raise InvalidRequestError(f"max_denials must be an integer of at least 0, got {self.max_denials!r:.80}")
        if type(self.denied_delay_s) not in (int, float) or not 0 < self.denied_delay_s <= _LONGEST_DELAY_S:
            raise InvalidRequestError(f"denied_delay_s must be seconds, at most 3600, got {self.denied_delay_s!r:.80}")
        checked_budget("estimate", self.estimate)
        checked_actual("actual", self.actual)
        self.common = Common(self.client, self.options.pop("subject", None), None, self.options)

    def decorate(self, function: Any, attempt_of: Callable[[], Attempt | None], failed: Any = None) -> Any:
        """Return the guarded function.

        Args:
            function: The function or coroutine function of the task.
            attempt_of: Returns the attempt that runs, or None if the function is called directly.
            failed: Returns whether a result makes the queue run another attempt.
        """
        if not callable(function) or isinstance(function, type):
            raise InvalidRequestError(f"{function!r:.80} cannot be guarded: decorate the function of the task")

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return finished(self._run(function, args, kwargs, attempt_of(), failed, is_async=False))

        @wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            return await self._run(function, args, kwargs, attempt_of(), failed, is_async=True)

        return run_async if inspect.iscoroutinefunction(function) else run

    async def _run(
        self, function: Any, args: Any, kwargs: Any, attempt: Attempt | None, failed: Any, *, is_async: bool
    ) -> Any:
        def call(_: Any = None) -> Any:
            return function(*args, **kwargs)

        for work in self._works(function, args, kwargs, attempt, failed):
            if work is None:
                return await call() if is_async else call()
            try:
                is_redelivered = attempt is not None and attempt.is_redelivered(self._ttl_ms)
                if attempt is not None and is_redelivered and self._is_busy(await found(work, is_async=is_async)):
                    return attempt.postpone(self._delay_s(attempt), attempt.denials)
                return await work.arun(call) if is_async else work.run(call)
            except Exception as raised:
                error = raised.error if isinstance(raised, Denied) else raised
                if attempt is None and error is not raised:
                    raise error from error.__cause__
                if attempt is None or work.began or not isinstance(error, cycles.CyclesError):
                    raise
                status = await status_of(error, work, is_async=is_async)
                if status in ("RELEASED", "EXPIRED", "NONE") or (status == "COMMITTED" and self.on_settled == "run"):
                    continue  # with the next key
                return self._without_reservation(error, status, attempt)
        raise cycles.CyclesError(f"all {_KEYS} keys of one attempt of {function.__name__} are used; call it again")

    def _without_reservation(self, error: Exception, status: str | None, attempt: Attempt) -> Any:
        if status == "COMMITTED":
            if self.on_settled == "skip":
                return attempt.skip()
            return attempt.fail(_not_active(error))
        if status is not None:  # another worker holds it
            return attempt.postpone(self._delay_s(attempt), attempt.denials)
        if isinstance(error, _CLOSED):
            return attempt.fail(error)
        is_unavailable = isinstance(error, _UNAVAILABLE)
        if self.on_denied == "raise" or not isinstance(error, (cycles.ReservationDeniedError, *_UNAVAILABLE)):
            raise error
        if self.on_denied == "reject" and not is_unavailable:
            return attempt.reject(error)
        if attempt.denials >= self.max_denials:
            return attempt.fail(error)
        return attempt.postpone(self._delay_s(attempt, getattr(error, "retry_after_ms", None)), attempt.denials + 1)

    def _works(self, function: Any, args: Any, kwargs: Any, attempt: Any, failed: Any) -> Iterator[Work | None]:
        """Yield the work for each key of the attempt; None if the task is not guarded."""

        def value(option: Any) -> Any:
            return option(*args, **kwargs) if callable(option) else option

        estimate = estimate_of("estimate", value(self.estimate), None)
        action = value(self.action) or ("task.run", function.__name__)
        subject = value(self.common.subject)
        for number in range(1 if attempt is None else _KEYS):
            if estimate is None:
                yield None
                return
            key = None if attempt is None else f"{attempt.key}#{number}" if number else attempt.key
            pair = (action.kind, action.name) if isinstance(action, cycles.Action) else (str(action[0]), str(action[1]))
            work = Work(common=self.common, estimate=estimate, action=pair, denied=_deny, failed=failed)
            work.subject, work.actual, work.key = subject, self.actual, key
            yield work

    @property
    def _ttl_ms(self) -> int:
        return int(self.options.get("ttl_ms") or _DEFAULT_TTL_MS)

    def _is_busy(self, row: ReservationSummary | None) -> bool:
        """Return whether a worker keeps the lease past its first ttl: then it is running."""
        return row is not None and row.status == "ACTIVE" and time.time() * 1000 - row.created_at_ms > self._ttl_ms

    def _delay_s(self, attempt: Attempt, retry_after_ms: int | None = None) -> float:
        if retry_after_ms:  # a 0 names no time
            return retry_after_ms / 1000
        doubled: float = self.denied_delay_s * 2 ** min(attempt.denials, 12)
        return min(doubled * (0.75 + random.random() / 2), _LONGEST_DELAY_S)  # noqa: S311 - jitter keeps no secret


def _not_active(error: Exception) -> Exception:
    if isinstance(error, cycles.ReservationNotActiveError):
        return error
    return cycles.ReservationNotActiveError("this attempt of the task was committed before; it does not run again")


def _deny(error: Exception) -> Any:
    raise Denied(error)


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequestError(f"{name} must be one of {', '.join(choices)}, got {value!r:.80}")
