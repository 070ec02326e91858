"""The context of this thread or task: the subject, the current guard, and executors that inherit both."""

from __future__ import annotations

import contextlib
import contextvars
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

from cycles._client.guard_properties import GuardProperties
from cycles._core.amounts import Amount
from cycles._core.subjects import Subject, as_subject
from cycles._errors import InvalidRequestError
from cycles._flows.run_limit import RunLimit
from cycles._version import public

P = ParamSpec("P")
R = TypeVar("R")

SUBJECT: Final[ContextVar[Subject | None]] = ContextVar("cycles_subject", default=None)


def current_subject() -> Subject | None:
    """Return the merged subject of the `cycles.subject(...)` blocks around this code, or None if there is none."""
    return SUBJECT.get()


@contextmanager
def subject(_subject_: Subject | Mapping[str, Any] | None = None, /, **levels: Any) -> Iterator[Subject]:
    """Override subject levels of the configuration inside the block, in this thread or task and the tasks it starts.

    Nested blocks add to the outer one. The `subject` of a call overrides them.

    ```python
    with cycles.subject(agent="planner", workspace="prod"):
        ...
    ```

    Raises:
        InvalidRequestError: There is no such level.
    """
    given = as_subject(levels).over(as_subject(_subject_))
    outer = SUBJECT.get()
    merged = given if outer is None else given.over(outer)
    token = SUBJECT.set(merged)
    try:
        yield merged
    finally:
        with contextlib.suppress(ValueError):  # left in another context than it was entered in
            SUBJECT.reset(token)


def run(run_id: str) -> AbstractContextManager[Subject]:
    """Set the dimension `run_id` of the subject of everything inside the block, as `subject` does.

    A quota with the window ``per_run`` counts the actions of one run; the server rejects a reservation without a run
    then (protocol 0.1.26).

    Raises:
        InvalidRequestError: It is not a string with at least one character.
    """
    if not isinstance(run_id, str) or not run_id:
        raise InvalidRequestError(f"run_id must be a string with at least one character, got {run_id!r:.80}")
    return subject(dimensions={"run_id": run_id})


def limit(amount: Amount) -> RunLimit:
    """Limit what the reservations inside a block may together hold and spend.

    The limit applies in this context and in the tasks that it starts, also to provider clients and pools. Beyond it a
    reservation raises `BudgetExceededError` with the code RUN_LIMIT, and nothing is sent. Nested limits all apply. Only
    reservations in the unit of the limit count; shadow reservations hold nothing.

    ```python
    with cycles.limit(cycles.usd(2)) as limit:
        ...
        print(limit.spent, limit.remaining)
    ```

    Raises:
        InvalidRequestError: if it is no amount.
    """
    return RunLimit(amount)


_current: Final[ContextVar[weakref.ref[GuardProperties] | None]] = ContextVar("cycles_guard", default=None)
"""A weak reference, so that a block that was interrupted before its end does not keep its guard alive."""


@contextmanager
def running(guard: GuardProperties) -> Iterator[None]:
    """Make a guard the current one while a step of its generator runs."""
    # Around each step only: between two steps the code of the consumer runs in the same context.
    token, trace = _current.set(weakref.ref(guard)), guard._state.trace
    span = None if trace is None else trace.entered()
    try:
        yield
    finally:
        if trace is not None:
            trace.left(span)
        with contextlib.suppress(ValueError):  # left in another context than it was entered in
            _current.reset(token)


def current_guard() -> GuardProperties | None:
    """Return the innermost guard of this thread or task, or None. Tasks that are started in a block inherit it."""
    guard = _current.get()
    return None if guard is None else guard()


class ContextExecutor(Executor):
    """An executor that runs functions in the context of the code that submits them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run ``fn(*args, **kwargs)`` in the wrapped executor, in a copy of the caller's context."""
        context = contextvars.copy_context()
        return self._executor.submit(lambda: context.run(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down the wrapped executor."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also on copies that are not complete yet
            raise AttributeError(name)
        return getattr(self._executor, name)


def copy_context_to(executor: Executor) -> ContextExecutor:
    """Make a thread pool run functions with the `current_guard()` and `cycles.subject(...)` of the submitting code.

    Args:
        executor: A thread pool. Shutting down the returned executor shuts it down.

    Raises:
        InvalidRequestError: It is a process pool, which cannot share a context. Transfer a guard with `guard.detach()`.
    """
    from concurrent.futures import ProcessPoolExecutor  # loads `multiprocessing`

    # It would fail later, and only for the first job: a context cannot be pickled.
    if isinstance(executor, ProcessPoolExecutor):
        raise InvalidRequestError(
            "executor must be a thread pool, because a process pool cannot share a context: "
            "pass guard.detach() to the job, which continues the guard with client.attach(token)"
        )
    return ContextExecutor(executor)


public(copy_context_to, current_guard, current_subject, limit, run, subject)
